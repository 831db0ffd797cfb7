package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fwu-ab/fwu-ab/partition/diskimage"
)

// command runs a program to its end, outside of everything that is measured.
func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

// counters are the control groups that contenders run in: version 2 counts processor time everywhere, and memory where it has that controller, else version 1 does.
type counters struct {
	cpu, memory string // directories in which groups are made; no memory: it is not counted
	v1          bool   // memory is counted by version 1
	throttle    string // of version 1: the group of this program, whose files hold the limits; of version 2: io.max of a group above
	why         string // there is no throttle
}

// mounted finds the mount point of a control group hierarchy.
func mounted(kind, option string) string {
	b, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[2] == kind && strings.Contains(","+f[3]+",", ","+option+",") {
			return f[1]
		}
	}
	return ""
}

func findCounters() (c counters, err error) {
	two := mounted("cgroup2", "rw")
	if two == "" {
		return c, errors.New("no control groups of version 2 are mounted, which count processor time")
	}
	name := fmt.Sprint("fwu-ab-bench-", os.Getpid())
	c.cpu = filepath.Join(two, name)
	if err := os.Mkdir(c.cpu, 0o755); err != nil {
		return c, err
	}
	has, _ := os.ReadFile(filepath.Join(two, "cgroup.controllers"))
	if strings.Contains(string(has), "memory") && strings.Contains(string(has), "io") {
		for _, dir := range []string{two, c.cpu} {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory +io"), 0o644); err != nil {
				return c, err
			}
		}
		c.memory, c.throttle = c.cpu, filepath.Join(c.cpu, "io.max")
		return c, nil
	}
	if one := mounted("cgroup", "memory"); one != "" {
		c.memory, c.v1 = filepath.Join(one, name), true
		if err := os.Mkdir(c.memory, 0o755); err != nil {
			return c, err
		}
	}
	// Of version 1, write-back counts for the root group. Programs and write-back have one limit together only if they are in that group too.
	own, _ := os.ReadFile("/proc/self/cgroup")
	one := mounted("cgroup", "blkio")
	_, err = os.Stat(filepath.Join(one, "blkio.throttle.write_bps_device"))
	if one != "" && err == nil && strings.Contains(string(own), ":blkio:/\n") {
		c.throttle = one
	} else {
		c.why = "no control group limits input and output here"
	}
	return c, nil
}

// limit sets the rates of a loop device in bytes per second; 0 is none.
func (c counters) limit(loop string, write, read int64) error {
	dev, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(loop), "dev"))
	if err != nil {
		return err
	}
	number := strings.TrimSpace(string(dev))
	if strings.HasSuffix(c.throttle, "io.max") {
		rate := func(n int64) string {
			if n == 0 {
				return "max"
			}
			return fmt.Sprint(n)
		}
		return os.WriteFile(c.throttle, fmt.Appendf(nil, "%s wbps=%s rbps=%s", number, rate(write), rate(read)), 0o644)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(c.throttle, "blkio.throttle.write_bps_device"), fmt.Appendf(nil, "%s %d", number, write), 0o644),
		os.WriteFile(filepath.Join(c.throttle, "blkio.throttle.read_bps_device"), fmt.Appendf(nil, "%s %d", number, read), 0o644))
}

func (c counters) remove() {
	_ = os.Remove(c.cpu)
	if c.v1 {
		_ = os.Remove(c.memory)
	}
}

// group is what one run of a contender is counted in. Two groups in it have the processes: that of the daemon that writes, and that of the rest.
type group struct {
	cpu, memory         string
	peakFile, limitFile string
}

const (
	writers = "writer"
	rest    = "rest"
)

func (c counters) group() (g group, err error) {
	g = group{cpu: filepath.Join(c.cpu, "run"), peakFile: "memory.peak", limitFile: "memory.max"}
	if c.memory != "" {
		g.memory = filepath.Join(c.memory, "run")
	}
	if c.v1 {
		g.peakFile, g.limitFile = "memory.max_usage_in_bytes", "memory.limit_in_bytes"
	}
	for _, dir := range g.directories() {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return g, err
		}
		if dir == g.memory && !c.v1 {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0o644); err != nil {
				return g, err
			}
		}
	}
	return g, nil
}

// part is one of the groups in g.
func (g group) part(name string) group {
	g.cpu = filepath.Join(g.cpu, name)
	if g.memory != "" {
		g.memory = filepath.Join(g.memory, name)
	}
	return g
}

// directories lists what a group is made of, those that contain others first.
func (g group) directories() (dirs []string) {
	for _, p := range []group{g, g.part(writers), g.part(rest)} {
		dirs = append(dirs, p.cpu)
		if p.memory != "" && p.memory != p.cpu {
			dirs = append(dirs, p.memory)
		}
	}
	return dirs
}

// wrap makes a command line that joins a part before it becomes the program: no process of it is missed.
func (g group) wrap(name string, args []string) []string {
	join := fmt.Sprintf("echo 0 > %s/cgroup.procs && ", g.cpu)
	if g.memory != "" && g.memory != g.cpu {
		join += fmt.Sprintf("echo 0 > %s/cgroup.procs && ", g.memory)
	}
	return append([]string{"sh", "-c", join + `exec "$@"`, "sh", name}, args...)
}

// used is the processor time so far.
func (g group) used() time.Duration {
	b, _ := os.ReadFile(filepath.Join(g.cpu, "cpu.stat"))
	var usec int64
	if _, err := fmt.Sscanf(string(b), "usage_usec %d", &usec); err != nil {
		return -1
	}
	return time.Duration(usec) * time.Microsecond
}

func (g group) peak() int64 {
	if g.memory == "" {
		return 0
	}
	b, _ := os.ReadFile(filepath.Join(g.memory, g.peakFile))
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// limit is the most memory that the processes of a part may have, with the page cache that they fill, and without swap.
func (g group) limit(n int64) error {
	err := os.WriteFile(filepath.Join(g.memory, g.limitFile), fmt.Append(nil, n), 0o644)
	swap, most := "memory.swap.max", int64(0)
	if strings.HasSuffix(g.limitFile, "_in_bytes") {
		swap, most = "memory.memsw.limit_in_bytes", n // counts both
	}
	if swap = filepath.Join(g.memory, swap); !absent(swap) {
		err = errors.Join(err, os.WriteFile(swap, fmt.Append(nil, most), 0o644))
	}
	return err
}

func (g group) processes() (pids []int) {
	for _, name := range []string{writers, rest} {
		b, _ := os.ReadFile(filepath.Join(g.part(name).cpu, "cgroup.procs"))
		for f := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(f); err == nil && n > 1 {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// remove ends what is left in the group.
func (g group) remove() error {
	for range 100 {
		for _, pid := range g.processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		left := false
		for _, dir := range slices.Backward(g.directories()) {
			_ = os.Remove(dir)
			left = left || !absent(dir)
		}
		if !left {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("a control group cannot be removed: " + g.cpu)
}

func absent(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// memoryOf reads a line of /proc/PID/status in bytes, and the name of the process.
func memoryOf(pid int, line string) (n int64, name string) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		switch {
		case len(f) > 1 && f[0] == "Name:":
			name = f[1]
		case len(f) > 1 && f[0] == line+":":
			n, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	return n << 10, name
}

// traffic is what a block device did: read, written in bytes, and flushes (Documentation/block/stat).
type traffic struct{ read, written, flushes int64 }

func trafficOf(loop string) (t traffic) {
	b, _ := os.ReadFile(filepath.Join("/sys/block", filepath.Base(loop), "stat"))
	var v [17]int64
	for i, f := range strings.Fields(string(b)) {
		if i < len(v) {
			v[i], _ = strconv.ParseInt(f, 10, 64)
		}
	}
	return traffic{512 * v[2], 512 * v[6], v[15]}
}

func (t traffic) minus(u traffic) traffic {
	return traffic{t.read - u.read, t.written - u.written, t.flushes - u.flushes}
}

// medium is a disk with the partitions of a device: a loop device over a file.
type medium struct {
	title     string
	note      string
	loop      string
	throttled bool
}

const (
	writeRate = 100e6 // of the medium that is throttled, bytes per second
	readRate  = 200e6
	slack     = 1 << 20 // of the slot, beyond the image
)

// makeDisk makes the disk in dir. Its file is written once from end to end, so that no run pays for the allocation.
func (b *bed) makeDisk(ctx context.Context, dir, title string, throttled bool) (m *medium, err error) {
	file := filepath.Join(dir, "disk.img")
	_, err = diskimage.Create(file, diskimage.Layout{Partitions: []diskimage.Partition{
		{Name: "env", Size: 1 << 20}, {Name: "rootfs_a", Size: b.size + slack}, {Name: "rootfs_b", Size: b.size + slack}, {Name: "fwu-store", Size: 1 << 20},
	}})
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := make([]byte, 1<<20)
	for off := int64(0); off < info.Size(); off += int64(len(p)) {
		n, _ := f.ReadAt(p, off)
		if _, err := f.WriteAt(p[:n], off); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	m = &medium{title: title, throttled: throttled}
	if m.loop, m.note, err = b.attach(ctx, file); err != nil {
		return nil, err
	}
	if absent(m.loop + "p3") { // a kernel that does not read such tables
		_, err = command(ctx, "partx", "--add", m.loop)
	}
	return m, err
}

// attach makes a loop device over a file, and says how it gets to it.
func (b *bed) attach(ctx context.Context, file string) (loop, note string, err error) {
	note = "direct I/O"
	if loop, err = command(ctx, "losetup", "--find", "--show", "--partscan", "--direct-io=on", file); err != nil {
		note = "no direct I/O below the loop device"
		if loop, err = command(ctx, "losetup", "--find", "--show", "--partscan", file); err != nil {
			return "", "", err
		}
	}
	b.atEnd(func() error {
		end := context.WithoutCancel(ctx)
		_, _ = command(end, "partx", "--delete", loop) // those of the kernel go by themselves
		_, err := command(end, "losetup", "--detach", loop)
		return err
	})
	return loop, note, nil
}

// fill writes a file to the slot that is updated, and waits until it is there.
func (m *medium) fill(ctx context.Context, file string) error {
	_, err := command(ctx, "dd", "if="+file, "of="+m.loop+"p3", "bs=4M", "oflag=direct", "conv=fsync,nocreat")
	return err
}

// same tells whether the slot holds the image.
func (m *medium) same(ctx context.Context, file string) error {
	_, err := command(ctx, "cmp", "--bytes="+fmt.Sprint(sizeOf(file)), file, m.loop+"p3")
	return err
}

func sizeOf(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}
