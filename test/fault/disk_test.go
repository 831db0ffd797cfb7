package fault_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/test/fault"
	"github.com/fwu-ab/fwu-ab/test/sim"
)

// kernel is a disk of the kernel, opened as the program opens one, and the medium behind it.
type kernel struct {
	partition.Device
	disk   *fault.Disk
	media  *sim.Media
	medium *sim.Medium
}

const diskSize = 1 << 20

func newKernel(t *testing.T) kernel {
	t.Helper()
	k := kernel{media: sim.New()}
	k.medium = k.media.Add("disk", diskSize)
	k.disk = fault.NewDisk(t, k.medium)
	d, err := partition.Finder{}.OpenDevice(t.Context(), k.disk.Path)
	check(t, err)
	t.Cleanup(func() { check(t, d.Close()) })
	k.Device = d
	return k
}

// filled is an aligned buffer of one byte.
func filled(b byte, n int) []byte {
	p := fwu.Buffer(n)
	for i := range p {
		p[i] = b
	}
	return p
}

func (k kernel) write(t *testing.T, b byte, off int64, n int) {
	t.Helper()
	_, err := k.WriteAt(filled(b, n), off)
	check(t, err)
}

// is tells whether each byte of a range reads as b.
func is(r io.ReaderAt, b byte, off int64, n int) bool {
	p := fwu.Buffer(n)
	_, err := r.ReadAt(p, off)
	return err == nil && bytes.Count(p, []byte{b}) == n
}

// wantErrno checks the error of an access.
func wantErrno(t *testing.T, what string, err error, want unix.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestSectorsThatCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		kind      sim.Bad
		err, want unix.Errno
		mends     bool
	}{
		"until they are written, EIO":     {sim.UntilWritten, unix.EIO, unix.EIO, true},
		"until they are written, ENODATA": {sim.UntilWritten, unix.ENODATA, unix.ENODATA, true},
		"ever":                            {sim.ForEver, unix.EIO, unix.EIO, false},
		// a loop device does not pass it on
		"and another error": {sim.ForEver, unix.EROFS, unix.EIO, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel(t)
			k.write(t, 'a', 0, diskSize)
			k.medium.Spoil(8192, 4096, c.kind, c.err)
			n, err := k.ReadAt(fwu.Buffer(diskSize), 0)
			wantErrno(t, "read all", err, c.want)
			if n > 8192 {
				t.Errorf("%d bytes were read", n)
			}
			if !is(k, 'a', 4096, 4096) || !is(k, 'a', 12288, 4096) {
				t.Error("the sectors beside cannot be read")
			}
			_, err = k.ReadAt(fwu.Buffer(4096), 8192)
			wantErrno(t, "read again", err, c.want)
			k.write(t, 'b', 8192, 4096)
			check(t, k.Sync())
			if got := is(k, 'b', 8192, 4096); got != c.mends {
				t.Errorf("readable after a write: %v", got)
			}
			k.media.Mend()
			if !is(k, 'b', 8192, 4096) {
				t.Error("not readable when the fault is gone")
			}
		})
	}
}

// TestAccessesThatFail injects each fault of the crash suite into one access, and states
// the reaction of the kernel.
func TestAccessesThatFail(t *testing.T) {
	read := func(k kernel) error { return fwu.ReadFull(k, fwu.Buffer(8192), 0) }
	write := func(k kernel) error { _, err := k.WriteAt(filled('b', 8192), 0); return err }
	flush := func(k kernel) error { return k.Sync() }
	zero := func(k kernel) error { return k.Device.(partition.Zeroer).WriteZeroes(0, 8192) }
	discard := func(k kernel) error { return k.Device.(partition.Discarder).Discard(0, 8192) }
	for name, c := range map[string]struct {
		kind  sim.Kind
		fault sim.Fault
		do    func(kernel) error
		want  unix.Errno // 0: none
		holds string     // content of the two blocks then
	}{
		"read, EIO":     {sim.Read, sim.Fault{Err: unix.EIO}, read, unix.EIO, "aa"},
		"read, ENODATA": {sim.Read, sim.Fault{Err: unix.ENODATA}, read, unix.ENODATA, "aa"},
		"read, half":    {sim.Read, sim.Fault{Err: unix.EIO, Half: true}, read, unix.EIO, "aa"},
		// the kernel reads on
		"read, end":              {sim.Read, sim.Fault{Err: io.EOF, Half: true}, read, 0, "aa"},
		"write, EIO":             {sim.Write, sim.Fault{Err: unix.EIO}, write, unix.EIO, "aa"},
		"write, EROFS":           {sim.Write, sim.Fault{Err: unix.EROFS}, write, unix.EIO, "aa"},
		"write, ENOSPC and half": {sim.Write, sim.Fault{Err: unix.ENOSPC, Half: true}, write, unix.ENOSPC, "ba"},
		// the kernel believes it
		"write, half and no error":         {sim.Write, sim.Fault{Half: true}, write, 0, "ba"},
		"write, lost":                      {sim.Write, sim.Fault{Lie: true}, write, 0, "aa"},
		"flush, EIO":                       {sim.Flush, sim.Fault{Err: unix.EIO, Lose: sim.Nothing}, flush, unix.EIO, "aa"},
		"flush, ENOSPC":                    {sim.Flush, sim.Fault{Err: unix.ENOSPC, Lose: sim.Nothing}, flush, unix.EIO, "aa"},
		"command to zero, EIO":             {sim.Write, sim.Fault{Err: unix.EIO}, zero, unix.EIO, "aa"},
		"command to zero, and nothing":     {sim.Write, sim.Fault{}, zero, 0, "aa"},
		"command to discard, EIO":          {sim.Write, sim.Fault{Err: unix.EIO}, discard, unix.EIO, "aa"},
		"command to zero that works":       {sim.Write, sim.Fault{Err: nil, Half: true}, zero, 0, "\x00a"},
		"command to discard that half did": {sim.Write, sim.Fault{Half: true}, discard, 0, "\xa5a"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKernel(t)
			k.write(t, 'a', 0, diskSize)
			check(t, k.Sync())
			hits := 0
			k.media.Inject(func(a sim.Access) *sim.Fault {
				if a.Kind != c.kind || hits > 0 {
					return nil
				}
				hits++
				f := c.fault
				return &f
			})
			err := c.do(k)
			k.media.Inject(nil)
			if hits != 1 {
				t.Fatalf("%d accesses were hit", hits)
			}
			if c.want != 0 {
				wantErrno(t, name, err, c.want)
			} else {
				check(t, err)
			}
			for i := range 2 {
				if !is(k, c.holds[i], int64(i*4096), 4096) || !is(k.medium, c.holds[i], int64(i*4096), 4096) {
					t.Errorf("block %d does not hold %q", i, c.holds[i])
				}
			}
			if !is(k, 'a', 8192, 4096) {
				t.Error("another block was touched")
			}
		})
	}
}

// TestCommandsReachTheMedium has the kernel make one access of each call of the program, and
// nothing else.
func TestCommandsReachTheMedium(t *testing.T) {
	k := newKernel(t)
	var got []sim.Access
	k.media.Inject(func(a sim.Access) *sim.Fault {
		a.N = 0
		got = append(got, a)
		return nil
	})
	k.write(t, 'a', 0, 512<<10)
	check(t, k.Sync())
	check(t, fwu.ReadFull(k, fwu.Buffer(512<<10), 0))
	check(t, k.Device.(partition.Zeroer).WriteZeroes(4096, 8192))
	check(t, k.Device.(partition.Discarder).Discard(16384, 4096))
	k.media.Inject(nil)
	want := []sim.Access{
		{Medium: "disk", Kind: sim.Write, Off: 0, Len: 512 << 10},
		{Medium: "disk", Kind: sim.Flush},
		{Medium: "disk", Kind: sim.Read, Off: 0, Len: 512 << 10},
		{Medium: "disk", Kind: sim.Write, Off: 4096, Len: 8192, Zero: true},
		{Medium: "disk", Kind: sim.Write, Off: 16384, Len: 4096},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%v, want\n%v", got, want)
	}
	if !is(k, 0, 4096, 8192) || !is(k, 0xa5, 16384, 4096) {
		t.Error("not zeroed, or not discarded")
	}
}

// TestDelay has two reads wait at the same time, and each for the whole delay.
func TestDelay(t *testing.T) {
	k := newKernel(t)
	const delay = 200 * time.Millisecond
	k.disk.Delay(delay)
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			if err := fwu.ReadFull(k, fwu.Buffer(4096), int64(i)*8192); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(begun); took < delay {
		t.Errorf("two reads took %v", took)
	}
	k.disk.Delay(0)
}

// TestNothingOutlivesItsProcess kills a process while it waits for a disk that never answers. It
// has to end, and its loop device has to be detached.
func TestNothingOutlivesItsProcess(t *testing.T) {
	fault.NeedRoot(t)
	if os.Getenv("FWUAB_FAULT_HANG") != "" {
		hang(t)
	}
	for name, signal := range map[string]unix.Signal{"killed": unix.SIGKILL, "its time is up": unix.SIGQUIT} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestNothingOutlivesItsProcess$", "-test.v")
			cmd.Env = append(os.Environ(), "FWUAB_FAULT_HANG=1")
			out, err := cmd.StdoutPipe()
			check(t, err)
			check(t, cmd.Start())
			device := ""
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				if name, ok := strings.CutPrefix(lines.Text(), "hangs: "); ok {
					device = name
					break
				}
			}
			waitFor(t, "a thread that waits for the disk", func() bool { return strings.Contains(threads(cmd.Process.Pid), "D") })
			check(t, cmd.Process.Signal(signal))
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case <-ended:
			case <-time.After(2 * time.Minute):
				t.Fatalf("the process does not end; its threads are %s", threads(cmd.Process.Pid))
			}
			waitFor(t, device+" to be detached", func() bool {
				_, err := os.Stat(filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file"))
				return errors.Is(err, os.ErrNotExist)
			})
		})
	}
}

// hang waits for a disk that never answers, and never returns.
func hang(t *testing.T) {
	k := newKernel(t)
	_, err := os.Stdout.WriteString("hangs: " + k.disk.Path + "\n")
	check(t, err)
	k.disk.Delay(time.Hour)
	offMainThread(func() { _ = fwu.ReadFull(k, fwu.Buffer(4096), 0) })
	t.Fatal("the disk answers")
}

// offMainThread runs f in another thread than the main one. A signal to the process that can be
// handled goes to the main thread first, and waits for it where that one waits for a disk.
func offMainThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // so that no other goroutine gets this thread
		if unix.Gettid() == unix.Getpid() {
			offMainThread(f)
		} else {
			f()
		}
	}()
	<-done
}

// threads lists the states of a process's threads, as proc has them: D is one that cannot be
// killed.
func threads(pid int) (states string) {
	paths, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task/*/stat"))
	for _, p := range paths {
		b, _ := os.ReadFile(p) // gone: it has no state
		if _, rest, ok := strings.Cut(string(b), ") "); ok {
			states += rest[:1]
		}
	}
	return states
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 6000 { // two minutes: only a failure takes so long
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}
