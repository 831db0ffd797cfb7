package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// each takes one figure of each run.
func each[T any](runs []T, figure func(T) float64) (v []float64) {
	for _, r := range runs {
		v = append(v, figure(r))
	}
	return v
}

func wall(r result) float64    { return r.wall.Seconds() }
func cpu(r result) float64     { return r.cpu.Seconds() }
func rss(r result) float64     { return mib(r.rss) }
func peak(r result) float64    { return mib(r.peak) }
func read(r result) float64    { return mib(r.traffic.read) }
func written(r result) float64 { return mib(r.traffic.written) }
func late(r result) float64    { return mib(r.late) }
func flushes(r result) float64 { return float64(r.traffic.flushes) }

// atLeast is what the throttled medium needs if it reads and writes at a time, and one after the other.
func atLeast(r result) float64 { return max(writing(r), reading(r)) }
func inTurn(r result) float64  { return writing(r) + reading(r) }
func writing(r result) float64 { return float64(r.traffic.written+r.late) / writeRate }
func reading(r result) float64 { return float64(r.traffic.read) / readRate }

func spread(v []float64) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(v), slices.Min(v), slices.Max(v))
}

// table shows one medium.
func table(m *medium, list []contender, results map[key][]result) string {
	var s strings.Builder
	s.WriteString("| | time, s | ratio | CPU, s | ratio | process, MiB | group, MiB | written, MiB | later, MiB | read, MiB | flushes |")
	rule := "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
	if m.throttled {
		s.WriteString(" least, s | in turn, s | time / least |")
		rule += "---:|---:|---:|"
	}
	s.WriteString("\n" + rule + "\n")
	ours := results[key{m, first}]
	for _, c := range list {
		runs := results[key{m, c.name}]
		if len(runs) == 0 {
			continue
		}
		// The ratios are of runs of one round, which are close in time.
		ratio := func(figure func(result) float64, less float64) float64 {
			var v []float64
			for i := range runs {
				v = append(v, (figure(runs[i])-less)/figure(ours[i]))
			}
			return median(v)
		}
		fmt.Fprintf(&s, "| %s | %s | %.2f | %s | %.2f |", c.name, spread(each(runs, wall)), ratio(wall, 0), spread(each(runs, cpu)), ratio(cpu, 0))
		for _, f := range []func(result) float64{rss, peak, written, late, read, flushes} {
			fmt.Fprintf(&s, " %.0f |", median(each(runs, f)))
		}
		if m.throttled {
			least := median(each(runs, func(r result) float64 { return wall(r) / atLeast(r) }))
			fmt.Fprintf(&s, " %.2f | %.2f | %.2f |", median(each(runs, atLeast)), median(each(runs, inTurn)), least)
		}
		s.WriteString("\n")
		if c.sleeps > 0 {
			less := c.sleeps.Seconds()
			fmt.Fprintf(&s, "| %s, less the %.0f s that it sleeps | %s | %.2f |%s\n", c.name, less,
				spread(each(runs, func(r result) float64 { return wall(r) - less })), ratio(wall, less), strings.Repeat(" |", strings.Count(rule, "|")-4))
		}
	}
	return s.String()
}

// machine describes what this ran on.
func machine(ctx context.Context) string {
	text := func(name string) string { b, _ := os.ReadFile(name); return strings.TrimSpace(string(b)) }
	model := "unknown processor"
	for line := range strings.Lines(text("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	hashing := "without SHA instructions"
	if info := text("/proc/cpuinfo"); strings.Contains(info, " sha_ni") || strings.Contains(info, " sha2") {
		hashing = "with SHA instructions"
	}
	versions := []string{runtime.Version()}
	for _, p := range []string{"coreutils", "dbus-daemon", "openssl", "rauc", "swupdate", "mender-client"} {
		if v, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Package} ${Version}", p).Output(); err == nil {
			versions = append(versions, string(v))
		}
	}
	return fmt.Sprintf("%s, %d cores, %s; Linux %s; Debian %s; %s.", model, runtime.NumCPU(), hashing, text("/proc/sys/kernel/osrelease"), text("/etc/debian_version"), strings.Join(versions, ", "))
}

const method = `Written by ` + "`make bench`" + ` on %s.

%s

## How it was measured

An ext4 image of %d MiB with files of that machine was installed by each program on each medium in %d rounds, in each of which each runs once, in an order that rotates. Before a run
the slot is filled (with an image in which every byte is another, where nothing else is said), the page cache is dropped, and what the program reads is read once: it comes from the page cache.
After a run the slot is compared with the image. The service runs as on a device: a daemon, a message bus, the command line, a signed bundle, a partition table, a store and
a U-Boot environment on the medium. Every program has the same partition for a target.

- *time*: from the start of the command to its end; median (least–most). *ratio*: to ` + first + `, of the same round, median.
- *CPU*: user and system time of all processes of a control group: commands, daemons, their message bus. Work of the kernel on behalf of nobody (write-back, loop device) is not in it.
- *process*: the largest resident set of the process that writes (VmHWM); *group*: the most memory of the control group, with the page cache that it fills, be it with pages of programs.
- *written*, *read*, *flushes*: what the block device counted until the command ended; *later*: what was written only after that, at a sync.

The media are loop devices. *tmpfs*: over a file in memory; the medium is out of the way. *disk*: over a file on the root file system. *throttled*: over a file in memory, limited to
%.0f MB/s of writes and %.0f MB/s of reads, about what eMMC does; *least* is what it needs for the bytes that were written and read if it does both at a time, *in turn* one after the other.
`

func (b *bed) report(ctx context.Context, rounds int, list []contender, results map[key][]result, c cost) string {
	var s strings.Builder
	s.WriteString("# Performance\n\n")
	fmt.Fprintf(&s, method, time.Now().UTC().Format(time.DateOnly), machine(ctx), b.size>>20, rounds, writeRate/1e6, readRate/1e6)
	s.WriteString("\nOf the peers:\n\n- dd and sha256sum verify no signature; sha256sum and openssl read the file before dd does. coreutils of Debian 12 hash without the processor's instructions.\n" +
		"- SWUpdate streams a signed update to the slot; its command line sleeps a second, which is shown with and without. Where it works during that second, what is shown without is too little: it can be less than what the medium needs.\n" +
		"- Mender compares each block with what the slot holds. Its artifact is not signed. Its boot environment is a stub.\n" +
		"- RAUC has no bootloader here (`noop`), and its service runs on a message bus of its own.\n")
	for _, n := range b.notes {
		s.WriteString("- " + n + "\n")
	}
	for _, m := range b.media {
		fmt.Fprintf(&s, "\n## On the medium %s (%s)\n\n%s", m.title, m.note, table(m, list, results))
	}
	speed := func(name string) float64 {
		return median(each(results[key{b.media[0], name}], func(r result) float64 { return float64(b.size) / wall(r) }))
	}
	memory := func(name string) float64 { return median(each(results[key{b.media[0], name}], rss)) }
	fmt.Fprintf(&s, `
## What the service costs

| | |
|---|---|
| program, static | %s |
| start by the bus until Query is answered, s, 10 times | %s |
| resident when idle | %.1f MiB |
| most resident after an update, raw | %.1f MiB |
| most resident after an update, zstd | %.1f MiB |
| SHA-256, one core | %.0f MB/s |
| SHA-256, one core, without SHA instructions | %.0f MB/s |
| SHA-256, one core, without any extension | %.0f MB/s |
`, strings.Join(c.sizes, ", "), spread3(c.start), mib(median(c.idle)), memory(first), memory("fwu-ab, zstd"), c.sha/1e6, c.shaPlain/1e6, c.shaGeneric/1e6)
	s.WriteString(c.more + "\n## What this shows\n\n")
	fmt.Fprintf(&s, "- Where the medium is out of the way, the service installs %.0f MB/s.\n", speed(first)/1e6)
	if v := speed("fwu-ab, raw, not read back"); v > 0 {
		fmt.Fprintf(&s, "- Without reading back it is %.0f MB/s, %.0f %% of what one core hashes.\n", v/1e6, 100*v/c.sha)
	}
	if v := speed("fwu-ab, raw, SHA-256 without instructions for it"); v > 0 {
		fmt.Fprintf(&s, "- On a processor without SHA instructions it would be %.0f MB/s.\n", v/1e6)
	}
	for _, m := range b.media {
		runs := results[key{m, first}]
		if m.throttled && len(runs) > 0 {
			fmt.Fprintf(&s, "- On the throttled medium it takes %.2f times what the medium needs for what is written and read.\n",
				median(each(runs, func(r result) float64 { return wall(r) / atLeast(r) })))
		}
		for _, name := range []string{"dd", "sha256sum, dd", "openssl dgst -sha256, dd"} {
			if peer := results[key{m, name}]; len(peer) > 0 {
				fmt.Fprintf(&s, "- On the medium %s it takes %.2f times what `%s` takes.\n", m.title, median(each(runs, wall))/median(each(peer, wall)), name)
			}
		}
	}
	return s.String()
}

func spread3(v []float64) string {
	return fmt.Sprintf("%.3f (%.3f–%.3f)", median(v), slices.Min(v), slices.Max(v))
}
