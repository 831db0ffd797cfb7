// Package powercut runs a real program on a disk in a file whose power can be cut, so that the
// program loses the writes it has not flushed. It needs no privilege and no help of the program:
// the kernel hands over the program's writes to that file before they are made
// (seccomp_unotify(2), Linux 5.0).
//
// The disk is one that has a volatile cache. A sector of 512 bytes that was written is read back at
// once. It is durable after the next fsync or fdatasync of the file, by whomever. A cut before that
// leaves of each sector, independently of all others, the newest content or that of the last flush;
// so a write can be torn, and a later one land where an earlier one is lost. A cut never leaves
// the content in between where a sector was written twice. Writes by other programs are durable at
// once. Package sim enumerates more behaviors that a disk may have, on media in memory.
package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/fwu-ab/fwu-ab/test/child"
	"golang.org/x/sys/unix"
)

// SectorSize is the size of the unit that a disk writes as a whole.
const SectorSize = 512

type sector [SectorSize]byte

// Disk is a disk in a file. Its methods may be called at any time by any goroutine.
type Disk struct {
	file *os.File
	info os.FileInfo
	rate int64 // bytes that are written in a second, 0: as fast as it goes

	mu sync.Mutex
	// by number: content at the last flush of those that were written since
	cache   map[int64]*sector
	written int64 // bytes, of all time
	cutAt   int64 // the power fails when so many are written; 0: it does not
	running bool  // there is power, and a program
	kill    func()
	failed  func() // is told when the power fails at cutAt
}

// Open opens a disk whose power is off. It takes rate bytes in a second, or as many as the file
// takes if rate is 0.
func Open(path string, rate int64) (*Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Disk{file: f, info: info, rate: rate, cache: map[int64]*sector{}}, nil
}

// Close closes the file. The bytes written stay.
func (d *Disk) Close() error { return d.file.Close() }

// Start starts a program that uses the disk. failed is called, by another goroutine, after the
// power failed because of CutAfter: the program is dead then, or dies. wait waits for the end of
// the program, as exec.Cmd.Wait. An error that wraps errors.ErrUnsupported, EBUSY or ENOSYS is that
// of a kernel, or of a container, that does not hand over system calls.
func (d *Disk) Start(cmd *exec.Cmd, failed func()) (wait func() error, err error) {
	if err := readable(); err != nil {
		return nil, err
	}
	var listener *os.File
	waitCmd, err := child.Start(cmd, func() (err error) {
		listener, err = trap()
		return err
	})
	if err != nil {
		if listener != nil {
			err = errors.Join(err, listener.Close())
		}
		return nil, err
	}
	stopped, stop, err := os.Pipe()
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, errors.Join(err, waitCmd(), listener.Close())
	}
	d.mu.Lock()
	d.running, d.failed = true, failed
	d.kill = func() { _ = cmd.Process.Kill() } // it may have ended
	d.mu.Unlock()
	served := make(chan error, 1)
	go func() { served <- d.serve(listener, stopped) }()
	return func() error {
		err := waitCmd()
		return errors.Join(err, stop.Close(), <-served, listener.Close(), stopped.Close())
	}, nil
}

// serve answers calls until stopped is closed at its other end.
func (d *Disk) serve(listener, stopped *os.File) error {
	fds := []unix.PollFd{{Fd: int32(listener.Fd()), Events: unix.POLLIN}, {Fd: int32(stopped.Fd()), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for system calls: %w", err)
		}
		if fds[1].Revents != 0 {
			return nil
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			continue
		}
		c, err := receive(listener)
		if errors.Is(err, unix.ENOENT) { // the caller was killed meanwhile
			continue
		}
		if err != nil {
			return err
		}
		if err := d.handle(listener, c); err != nil {
			return err
		}
	}
}

// handle makes a call in the caller's place, if it is for this disk.
func (d *Disk) handle(listener *os.File, c call) error {
	a := answer{id: c.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", c.pid, int32(c.args[0])))
	if err != nil || !os.SameFile(info, d.info) {
		_, err := send(listener, a)
		return err
	}
	d.mu.Lock()
	if !d.running { // the power is off: nobody gets an answer any more
		d.mu.Unlock()
		return nil
	}
	n, errno := d.do(c)
	fails := d.cutAt > 0 && d.written+n >= d.cutAt
	if fails {
		d.off()
		d.cutAt = 0
	}
	failed := d.failed
	d.mu.Unlock()
	if fails {
		failed()
		return nil
	}
	a.flags, a.value, a.errno = 0, n, -int32(errno)
	if errno != 0 {
		a.value = 0
	}
	if d.rate > 0 && errno == 0 && n > 0 {
		time.Sleep(time.Duration(float64(n) / float64(d.rate) * float64(time.Second)))
	}
	if c.nr != unix.SYS_PWRITE64 {
		a.value = 0
	}
	ok, err := send(listener, a)
	if ok && errno == 0 {
		d.mu.Lock()
		d.written += n
		d.mu.Unlock()
	}
	return err
}

// do makes a call and returns how many bytes it wrote. To repeat it changes nothing.
func (d *Disk) do(c call) (n int64, errno unix.Errno) {
	native, _ := nativeABI()
	switch c.nr {
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		clear(d.cache)
		return 0, 0
	case unix.SYS_FALLOCATE:
		at := native.offsets(c.args, 2, 2)
		if errno := d.remember(at[0], at[1]); errno != 0 {
			return 0, errno
		}
		return at[1], errnoOf(unix.Fallocate(int(d.file.Fd()), uint32(c.args[1]), at[0], at[1]))
	}
	off := native.offsets(c.args, 3, 1)[0]
	b := make([]byte, min(c.args[2], 64<<20)) // a short write is one that the caller can live with
	if errno := readMemory(int(c.pid), uintptr(c.args[1]), b); errno != 0 {
		return 0, errno
	}
	if errno := d.remember(off, int64(len(b))); errno != 0 {
		return 0, errno
	}
	written, err := d.file.WriteAt(b, off)
	if written > 0 {
		return int64(written), 0
	}
	return 0, errnoOf(err)
}

// readable returns an error where security/yama keeps the memory of our children from us
// (Documentation/ admin-guide/LSM/Yama.rst of the kernel).
func readable() error {
	b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err == nil && os.Geteuid() != 0 && string(bytes.TrimSpace(b)) > "1" {
		return fmt.Errorf("kernel.yama.ptrace_scope is %s: %w", bytes.TrimSpace(b), errors.ErrUnsupported)
	}
	return nil
}

func readMemory(pid int, addr uintptr, b []byte) unix.Errno {
	for len(b) > 0 {
		local := []unix.Iovec{{Base: &b[0]}}
		local[0].SetLen(len(b))
		n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: addr, Len: len(b)}}, 0)
		if err != nil {
			return errnoOf(err)
		}
		if n == 0 {
			return unix.EFAULT
		}
		addr, b = addr+uintptr(n), b[n:]
	}
	return 0
}

// remember keeps the content of those sectors of a range that were not written since the last
// flush.
func (d *Disk) remember(off, n int64) unix.Errno {
	if n <= 0 || off < 0 {
		return 0
	}
	first, end := off/SectorSize, (off+n+SectorSize-1)/SectorSize
	b := make([]byte, (end-first)*SectorSize)
	if _, err := d.file.ReadAt(b, first*SectorSize); err != nil && !errors.Is(err, io.EOF) {
		return errnoOf(err)
	}
	for i := first; i < end; i++ {
		if d.cache[i] == nil {
			d.cache[i] = (*sector)(b[(i-first)*SectorSize:])
		}
	}
	return 0
}

// errnoOf is the number of an error, EIO where it has none.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return errno
	}
	return unix.EIO
}

// off ends the program. The caller holds mu.
func (d *Disk) off() {
	if d.running {
		d.running = false
		d.kill()
	}
}

// Flush makes everything durable, as a system does that shuts down in order.
func (d *Disk) Flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.cache)
}

// Unflushed is how many bytes a cut may lose now.
func (d *Disk) Unflushed() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(len(d.cache)) * SectorSize
}

// CutAfter has the power fail within the write that makes n more bytes full; 0: not any more. Lose
// follows, when the program has ended.
func (d *Disk) CutAfter(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAt = 0
	if n > 0 {
		d.cutAt = d.written + n
	}
}

// PowerOff ends the program without a warning. The cache keeps its content: after a reset it is
// there still.
func (d *Disk) PowerOff() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off()
}

// Lose is a power cut: of the sectors that were not flushed a part is lost, which depends on seed.
// It returns how many there were, and how many are lost. The program has ended before.
func (d *Disk) Lose(seed uint64) (lost, of int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := rand.New(rand.NewPCG(seed, 0))
	numbers := make([]int64, 0, len(d.cache))
	for i := range d.cache {
		numbers = append(numbers, i)
	}
	slices.Sort(numbers) // the same seed, the same loss
	for _, i := range numbers {
		if r.IntN(2) == 0 {
			continue
		}
		if _, err := d.file.WriteAt(d.cache[i][:], i*SectorSize); err != nil {
			return lost, len(numbers), fmt.Errorf("cut the power: %w", err)
		}
		lost++
	}
	clear(d.cache)
	return lost, len(numbers), nil
}
