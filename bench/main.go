// Command bench compares the service with dd, RAUC, SWUpdate and Mender: the same image, the same machine, the same disks, in rounds in which each runs once. It needs root,
// writes nothing outside a temporary directory, and leaves out what is not installed. The disks are loop devices: nothing is written to a disk of the machine.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	noReadBack = "read-back = false"
	block      = 4096
	readAhead  = 128 << 10
)

// bed is what all runs have in common.
type bed struct {
	dir, program string
	size         int64
	counters     counters
	media        []*medium
	peers        []contender
	notes        []string
	ends         []func() error
}

func (b *bed) path(name string) string      { return filepath.Join(b.dir, name) }
func (b *bed) atEnd(f func() error)         { b.ends = append(b.ends, f) }
func (b *bed) note(format string, a ...any) { b.notes = append(b.notes, fmt.Sprintf(format, a...)) }

func (b *bed) close() (err error) {
	for _, f := range slices.Backward(b.ends) {
		err = errors.Join(err, f())
	}
	return err
}

func main() {
	size := flag.Int64("size", 512, "size of the image in MiB")
	rounds := flag.Int("rounds", 5, "rounds, in each of which every contender runs once on every medium; 0: only what the service costs")
	program := flag.String("fwu-ab", "build/fwu-ab", "the program to measure")
	only := flag.String("only", "", "run only contenders whose names contain this, and the first one")
	doc := flag.Bool("write", false, "write docs/performance.md")
	sha := flag.Bool("sha", false, "print the rate of SHA-256 in bytes per second, and nothing else")
	sending := flag.Bool("send", false, "be a client: send to the service on BUS, in blocks of SIZE or as a FILE, and look at the disk LOOP: BUS SIZE LOOP FILE")
	flag.Parse()
	if *sha {
		fmt.Println(shaRate())
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if *sending {
		err := send(ctx, os.Stdout, flag.Args())
		stop()
		exit(err)
		return
	}
	err := run(ctx, &bed{program: *program, size: *size << 20}, *rounds, *only, *doc)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, b *bed, rounds int, only string, doc bool) (err error) {
	if os.Getuid() != 0 {
		return errors.New("loop devices and control groups need root")
	}
	if b.program, err = filepath.Abs(b.program); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "fwu-ab-bench-"); err != nil {
		return err
	}
	b.atEnd(func() error { return os.RemoveAll(b.dir) })
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	cost, err := b.cost(ctx)
	if err != nil {
		return err
	}
	list := slices.DeleteFunc(b.contenders(), func(c contender) bool { return c.name != first && !strings.Contains(c.name, only) })
	results, failed := map[key][]result{}, map[string]bool{}
	for round := range rounds {
		for _, m := range b.media {
			for i := range list {
				c := list[(i+round)%len(list)]
				if failed[c.name] || c.tmpfs && m != b.media[0] {
					continue
				}
				r, err := b.measure(ctx, m, c)
				if err != nil && ctx.Err() == nil && !strings.HasPrefix(c.name, "fwu-ab") {
					fmt.Fprintf(os.Stderr, "%s on %s: %v\n", c.name, m.title, err)
					b.note("%s failed on the medium %s, and was left out from then on.", c.name, m.title)
					failed[c.name] = true
					continue
				}
				if err != nil {
					return fmt.Errorf("%s on %s: %w", c.name, m.title, err)
				}
				fmt.Fprintf(os.Stderr, "round %d, %s, %s: %.2f s\n", round+1, m.title, c.name, r.wall.Seconds())
				results[key{m, c.name}] = append(results[key{m, c.name}], r)
			}
		}
	}
	text := b.report(ctx, rounds, list, results, cost)
	fmt.Print(text)
	if doc {
		return os.WriteFile("docs/performance.md", []byte(text), 0o644)
	}
	return nil
}

// prepare makes the image and what is installed from it, and the media.
func (b *bed) prepare(ctx context.Context) (err error) {
	if b.counters, err = findCounters(); err != nil {
		return err
	}
	b.atEnd(func() error { b.counters.remove(); return nil })
	if b.counters.memory == "" {
		b.note("No control group counts memory here.")
	}
	fmt.Fprintln(os.Stderr, "making the image and the updates")
	if err := b.makeImage(ctx); err != nil {
		return err
	}
	if _, err := command(ctx, b.program, "key", "generate", b.path("key")); err != nil {
		return err
	}
	for _, update := range [][]string{{"raw.suit", "image"}, {"zstd.suit", "image", "--compression", "zstd"}, {"short.suit", "short"}} {
		args := append([]string{"manifest", "create", "--component", "rootfs", "--image", b.path(update[1]), "--version", "2.0.0", "--sequence", "2",
			"--vendor-name", "example.com", "--class-name", "bench", "--key", b.path("key.key"), "--bundle", "-o", b.path(update[0])}, update[2:]...)
		if _, err := command(ctx, b.program, args...); err != nil {
			return err
		}
	}
	if _, err := command(ctx, "zstd", "-q", b.path("image"), "-o", b.path("image.zst")); err != nil {
		return err
	}
	if err := b.makePeers(ctx); err != nil {
		return err
	}
	for _, title := range []string{"tmpfs", "disk", "throttled"} {
		if title == "throttled" && b.counters.throttle == "" {
			b.note("The throttled medium is left out: %s.", b.counters.why)
			break
		}
		dir := b.path(title)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if title != "disk" {
			if _, err := command(ctx, "mount", "-t", "tmpfs", "-o", fmt.Sprint("size=", 2*b.size+64<<20), "tmpfs", dir); err != nil {
				return err
			}
			b.atEnd(func() error { return unix.Unmount(dir, 0) })
		}
		m, err := b.makeDisk(ctx, dir, title, title == "throttled")
		if err != nil {
			return err
		}
		b.media = append(b.media, m)
	}
	return b.makeSource(ctx)
}

// makeSource puts the updates and the program on a file system whose disk is read ahead as far as is usual for Linux, 128 KiB: that is page cache of who reads.
func (b *bed) makeSource(ctx context.Context) error {
	file, dir := b.path("source.img"), b.path("source")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if _, err := command(ctx, "mkfs.ext4", "-q", file, fmt.Sprint((2*b.size+64<<20)/1024, "k")); err != nil {
		return err
	}
	loop, _, err := b.attach(ctx, file)
	if err != nil {
		return err
	}
	if _, err := command(ctx, "blockdev", "--setra", fmt.Sprint(readAhead/512), loop); err != nil {
		return err
	}
	if _, err := command(ctx, "mount", loop, dir); err != nil {
		return err
	}
	b.atEnd(func() error { return unix.Unmount(dir, 0) })
	_, err = command(ctx, "cp", b.path("raw.suit"), b.path("zstd.suit"), b.program, dir)
	return err
}

// makeImage makes an ext4 image of files of this machine, one of the same size in which every byte is another, and one of which 8 % of the blocks are.
func (b *bed) makeImage(ctx context.Context) error {
	tree := b.path("tree")
	left, files := b.size*85/100, 0
	errFull := errors.New("full")
	for _, top := range []string{"/usr/lib", "/usr/bin", "/usr/share"} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			info, err := d.Info()
			if err != nil || info.Size() > b.size/8 {
				return err
			}
			if left -= (info.Size() + block - 1) / block * block; left < 0 {
				return errFull
			}
			files++
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			to := filepath.Join(tree, path)
			return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, text, info.Mode().Perm()))
		})
		if err != nil && !errors.Is(err, errFull) {
			return err
		}
		if err != nil {
			break
		}
	}
	if _, err := command(ctx, "mkfs.ext4", "-q", "-N", fmt.Sprint(2*files+1000), "-d", tree, b.path("image"), fmt.Sprint(b.size/block*4, "k")); err != nil {
		return err
	}
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 8))
	if err := b.variant("other", func() bool { return true }); err != nil {
		return err
	}
	if err := b.variant("differs", func() bool { return rng.IntN(100) < 8 }); err != nil {
		return err
	}
	_, err := command(ctx, "dd", "if="+b.path("image"), "of="+b.path("short"), "bs=1M", "count=64") // 64 MiB, or all of it
	return err
}

// variant copies the image, with the bits of some blocks inverted.
func (b *bed) variant(name string, inverted func() bool) error {
	p, err := os.ReadFile(b.path("image"))
	if err != nil {
		return err
	}
	for c := range slices.Chunk(p, block) {
		if inverted() {
			for i := range c {
				c[i] ^= 0xff
			}
		}
	}
	return os.WriteFile(b.path(name), p, 0o644)
}

// result is what one run took.
type result struct {
	wall, cpu time.Duration
	rss, peak int64
	traffic   traffic
	late      int64         // written after the end
	own       time.Duration // processor time of the daemon that writes
	client    time.Duration // and of the command
	ownPeak   int64         // memory of its group
	answers   []float64     // seconds until the service told its state, if it was asked
	output    string
}

type key struct {
	medium *medium
	name   string
}

// measure runs a contender once.
func (b *bed) measure(ctx context.Context, m *medium, c contender) (r result, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := m.fill(ctx, b.path(c.before)); err != nil {
		return r, err
	}
	for name, to := range map[string]string{"target": m.loop + "p3", "active": m.loop + "p2"} {
		_ = os.Remove(b.path(name))
		if err := os.Symlink(to, b.path(name)); err != nil {
			return r, err
		}
	}
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o644); err != nil {
		return r, err
	}
	for _, name := range c.input {
		if err := readAll(b.path(name)); err != nil {
			return r, err
		}
	}
	err = b.try(m, func(a *attempt) error {
		work, err := c.prepare(ctx, a)
		if err != nil {
			return err
		}
		if m.throttled {
			if err := b.counters.limit(m.loop, writeRate, readRate); err != nil {
				return err
			}
		}
		err = a.run(ctx, work, &r)
		if m.throttled {
			err = errors.Join(err, b.counters.limit(m.loop, 0, 0))
		}
		return err
	})
	if err != nil {
		return r, err
	}
	return r, m.same(ctx, b.path(cmp.Or(c.after, "image")))
}

func readAll(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(struct{ io.Writer }{io.Discard}, f)
	return err
}

// run is the part that is measured.
func (a *attempt) run(ctx context.Context, work *exec.Cmd, r *result) error {
	daemon := a.group.part(writers)
	traffic, cpu, own, began := trafficOf(a.medium.loop), a.group.used(), daemon.used(), time.Now()
	if err := work.Start(); err != nil {
		return err
	}
	var watching sync.WaitGroup
	var askErr error
	done := make(chan struct{})
	watching.Go(func() { // the peak of a process can be read only as long as it lives
		for wait(done, 20*time.Millisecond) {
			for _, pid := range a.group.processes() {
				if n, name := memoryOf(pid, "VmHWM"); name != "dbus-daemon" {
					r.rss = max(r.rss, n)
				}
			}
		}
	})
	if a.asked != nil {
		watching.Go(func() { r.answers, askErr = ask(ctx, a.asked, done) })
	}
	err := work.Wait()
	r.wall, r.cpu, r.own = time.Since(began), a.group.used()-cpu, daemon.used()-own
	r.client, r.output = work.ProcessState.UserTime()+work.ProcessState.SystemTime(), a.log.String()
	close(done)
	watching.Wait()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, r.output)
	}
	if a.writer != nil {
		r.rss, _ = memoryOf(a.writer.Process.Pid, "VmHWM")
	}
	r.peak, r.ownPeak, r.traffic = a.group.peak(), daemon.peak(), trafficOf(a.medium.loop).minus(traffic)
	unix.Sync()
	r.late = trafficOf(a.medium.loop).minus(traffic).written - r.traffic.written
	return askErr
}

// wait waits for a time, unless done is closed.
func wait(done <-chan struct{}, d time.Duration) bool {
	select {
	case <-done:
		return false
	case <-time.After(d):
		return true
	}
}
