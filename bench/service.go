package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
)

const (
	downloadRate = 5e6 // of a throttled update, bytes per second
	memoryLimit  = 24 << 20
	times        = 3 // what is quick is measured
)

// service measures what the service takes by itself, and describes it.
func (b *bed) service(ctx context.Context) (text string, err error) {
	for _, part := range []func(context.Context) (string, error){b.download, b.calls, b.memory, b.commits} {
		s, err := part(ctx)
		if err != nil {
			return "", err
		}
		fmt.Fprint(os.Stderr, s)
		text += "\n" + s
	}
	return text, nil
}

// once lets the service install an image, nothing of which is in the page cache.
func (b *bed) once(ctx context.Context, m *medium, s service) (result, error) {
	after := "image"
	if s.file == "short.suit" {
		after = "short"
	}
	return b.measure(ctx, m, contender{before: "other", after: after, prepare: s.prepare})
}

const downloadText = `### An update at %.0f MB/s

%d MiB come through a pipe at %.0f MB/s, in pieces of 32 KiB, to ` + "`fwu-ab update -`" + `, on the medium tmpfs. Shares are of one core, from the start of the command to its end. In a run of its
own, another client calls Query, 10 ms after each answer.

| | |
|---|---|
| time | %.1f s |
| CPU of the service | %.1f %% |
| CPU of service, bus and command | %.1f %% |
| the same while another client asks | %.1f %% |
| Query until its answer, ms, %d times | median %.2f, 99 of 100 within %.2f, most %.2f |
`

// download is an update as fast as a slow network is.
func (b *bed) download(ctx context.Context) (string, error) {
	s := service{file: "short.suit", pipe: true, rate: downloadRate}
	r, err := b.once(ctx, b.media[0], s)
	if err != nil {
		return "", fmt.Errorf("update at a rate: %w", err)
	}
	s.asked = true
	asked, err := b.once(ctx, b.media[0], s)
	if err != nil {
		return "", fmt.Errorf("update at a rate, with queries: %w", err)
	}
	share := func(used time.Duration, r result) float64 { return 100 * used.Seconds() / r.wall.Seconds() }
	slices.Sort(asked.answers)
	n := len(asked.answers)
	return fmt.Sprintf(downloadText, downloadRate/1e6, sizeOf(b.path("short"))>>20, downloadRate/1e6, r.wall.Seconds(), share(r.own, r), share(r.cpu, r), share(asked.cpu, asked),
		n, 1e3*median(asked.answers), 1e3*asked.answers[(99*n+99)/100-1], 1e3*asked.answers[n-1]), nil
}

const callsText = `### Write, WriteFile and Finish

A client in Go sends a bundle that it has as a file: in blocks of 4 KiB, each with a call of Write when the one before was answered, or by one call of WriteFile. Then it calls
Finish and Install. *write*: from the first call to the answer of the last; *CPU*: of the whole, per GiB; *Finish*: from its call to its answer, with what it wrote to the medium and read. %d times. The client's D-Bus
library encodes each byte of a block by itself, which is much of what the client takes.

| medium | | image, MiB | write, s | MB/s | CPU, s per GiB | service | bus | client | Finish, ms | written, MiB | read, MiB |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
`

// calls compares the two ways to write, and looks at Finish.
func (b *bed) calls(ctx context.Context) (string, error) {
	text := fmt.Sprintf(callsText, times)
	for _, c := range []struct {
		name, blocks, file, image string
		throttled                 bool
	}{
		{"Write", "4096", "short.suit", "short", false}, {"WriteFile", "0", "short.suit", "short", false}, {"WriteFile", "0", "raw.suit", "image", false}, {"WriteFile", "0", "raw.suit", "image", true},
	} {
		i := slices.IndexFunc(b.media, func(m *medium) bool { return m.throttled == c.throttled })
		if i < 0 {
			continue
		}
		var runs []result
		var took []sent
		for range times {
			r, err := b.once(ctx, b.media[i], service{file: c.file, blocks: c.blocks})
			if err != nil {
				return "", fmt.Errorf("%s: %w", c.name, err)
			}
			var s sent
			if err := json.Unmarshal([]byte(r.output), &s); err != nil {
				return "", fmt.Errorf("%s: %w", c.name, err)
			}
			runs, took = append(runs, r), append(took, s)
		}
		size := float64(sizeOf(b.path(c.image)))
		write := each(took, func(s sent) float64 { return s.Write })
		text += fmt.Sprintf("| %s | %s | %.0f | %s | %.0f |", b.media[i].title, c.name, mib(size), spread(write), size/median(write)/1e6)
		for _, used := range []func(result) time.Duration{
			func(r result) time.Duration { return r.cpu }, func(r result) time.Duration { return r.own },
			func(r result) time.Duration { return r.cpu - r.own - r.client }, func(r result) time.Duration { return r.client },
		} {
			text += fmt.Sprintf(" %.2f |", median(each(runs, func(r result) float64 { return used(r).Seconds() }))/size*(1<<30))
		}
		text += fmt.Sprintf(" %s | %.2f | %.2f |\n", spread(each(took, func(s sent) float64 { return 1e3 * s.Finish })),
			median(each(took, func(s sent) float64 { return mib(s.Written) })), median(each(took, func(s sent) float64 { return mib(s.Read) })))
	}
	return text, nil
}

const memoryText = `### Memory of the service alone

The daemon is in a control group of its own; bus and client are not in it. The group counts what the daemon allocates, what the kernel allocates for it, and the page cache that it fills: with the
pages of its program, which nobody else runs, and of the file that it reads, which nobody has read before; the disk of both is read %d KiB ahead. With a limit, page cache is given back; there is
no swap. *Least*: the smallest limit in whole MiB with which an update succeeds within four times its time and some seconds, found by halving. With less, the pages of the program are read again and
again, or it is ended. On the medium tmpfs.

| | resident, MiB | group, MiB | time, s | time with %d MiB, s | least, MiB | time with that, s |
|---|---:|---:|---:|---:|---:|---:|
`

// memory is what an update needs.
func (b *bed) memory(ctx context.Context) (string, error) {
	if b.counters.memory == "" {
		return "", nil
	}
	text := fmt.Sprintf(memoryText, readAhead>>10, memoryLimit>>20)
	for _, c := range []struct {
		name string
		s    service
	}{{"raw, from a file", service{file: "source/raw.suit"}}, {"raw, through a pipe", service{file: "source/raw.suit", pipe: true}}, {"zstd, from a file", service{file: "source/zstd.suit"}}} {
		r, err := b.once(ctx, b.media[0], c.s)
		if err != nil {
			return "", fmt.Errorf("memory of %s: %w", c.name, err)
		}
		patience := 4*r.wall + 8*time.Second // with what has to be done before it
		fixed, err := b.limited(ctx, c.s, memoryLimit, patience)
		if err != nil {
			return "", err
		}
		least, with, fails := int64(mib(r.ownPeak))+1, fmt.Sprintf("%.2f", wall(r)), int64(0)
		for least-fails > 1 {
			half := (fails + least) / 2
			took, err := b.limited(ctx, c.s, half<<20, patience)
			if err != nil {
				return "", err
			}
			if took == "" {
				fails = half
			} else {
				least, with = half, took
			}
		}
		text += fmt.Sprintf("| %s | %.1f | %.1f | %.2f | %s | %d | %s |\n", c.name, rss(r), mib(r.ownPeak), wall(r), cmp.Or(fixed, "fails"), least, with)
	}
	return text, nil
}

// limited tells how many seconds an update takes with a limit of memory; nothing if it does not succeed in time.
func (b *bed) limited(ctx context.Context, s service, limit int64, patience time.Duration) (string, error) {
	few, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.limit = limit
	r, err := b.once(few, b.media[0], s)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s with %d MiB: %v\n", s.file, limit>>20, err)
		return "", nil
	}
	fmt.Fprintf(os.Stderr, "%s with %d MiB: %.2f s\n", s.file, limit>>20, wall(r))
	return fmt.Sprintf("%.2f", wall(r)), nil
}

const commitsText = `### A commit of the store

The store lies on a loop device of its own, whose statistics are divided by the number of commits: what the generation in the store grew by. The first line is %d times Start, Cancel and Clean; the
second Start, WriteFile, Finish, Install, Reject and Clean for the image.

| | commits | flushes per commit | KiB written per commit | KiB read per commit |
|---|---:|---:|---:|---:|
`

// commits counts what the store does.
func (b *bed) commits(ctx context.Context) (text string, err error) {
	file := b.path("tmpfs/store")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o644); err != nil {
		return "", err
	}
	loop, _, err := b.attach(ctx, file)
	if err != nil {
		return "", err
	}
	const cycles = 50
	text = fmt.Sprintf(commitsText, cycles)
	err = b.try(b.media[0], func(a *attempt) error {
		root, err := a.device(ctx, a.medium, loop, "")
		if err != nil {
			return err
		}
		bus, err := service{}.start(ctx, a, root)
		if err != nil {
			return err
		}
		client, err := dbus.Dial(ctx, bus)
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }()
		call := func(f func(context.Context, fwu.ID) error) func() error { return func() error { return f(ctx, 0) } }
		start := func() error { return client.Start(ctx, 0, nil) }
		var cycle []func() error
		for range cycles {
			cycle = append(cycle, start, call(client.Cancel), call(client.Clean))
		}
		for _, c := range []struct {
			name  string
			steps []func() error
		}{
			{"no image", cycle},
			{"an image", []func() error{start, func() error { return writeAll(ctx, client, b.path("raw.suit")) }, call(client.Finish),
				func() error { _, err := client.Install(ctx); return err },
				func() error { _, err := client.Reject(ctx, fwu.Rejection{}); return err }, call(client.Clean)}},
		} {
			generation, traffic := generationOf(file), trafficOf(loop)
			for _, step := range c.steps {
				if err := step(); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
			n, t := float64(generationOf(file)-generation), trafficOf(loop).minus(traffic)
			text += fmt.Sprintf("| %s | %.0f | %.2f | %.2f | %.2f |\n", c.name, n, float64(t.flushes)/n, float64(t.written)/1024/n, float64(t.read)/1024/n)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("commits of the store: %w", err)
	}
	return text, nil
}

// generationOf reads how many commits a store had: the higher generation of its two copies (fwu/store.go).
func generationOf(file string) (most uint64) {
	p, _ := os.ReadFile(file)
	for i := 16; i+8 <= len(p) && i <= fwu.StoreSize/2+16; i += fwu.StoreSize / 2 {
		most = max(most, binary.LittleEndian.Uint64(p[i:]))
	}
	return most
}
