package partition

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// file is a block device, a regular file or a window of one. It takes any memory, and reads of any length, though O_DIRECT takes neither.
// It is safe for concurrent use.
type file struct {
	f          *os.File
	base, size int64
	block      bool
	window     bool
	protect    func() error // nil, or puts write protection back

	direct atomic.Bool

	mu     sync.Mutex // of what follows
	bounce []byte     // nil until it is needed
}

var (
	_ Device    = (*file)(nil)
	_ Discarder = (*file)(nil)
	_ Zeroer    = (*file)(nil)
	_ Parallel  = (*file)(nil)
	_ Holder    = (*file)(nil)
)

// openTarget opens t, and in Exclusive mode makes sure that nobody else uses it.
func (h host) openTarget(ctx context.Context, t target, mode Mode) (Device, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	flags := os.O_RDONLY
	if mode == Exclusive {
		if err := h.busy(t); err != nil {
			return nil, err
		}
		if err := h.writable(t); err != nil {
			return nil, err
		}
		flags = os.O_RDWR
		if t.block && !t.window {
			flags |= unix.O_EXCL // without O_CREAT: of a block device, refused while anybody else holds it so
		}
	}
	protect := func() error { return nil }
	if mode == Exclusive {
		var err error
		if protect, err = h.unprotect(t); err != nil {
			return nil, err
		}
	}
	d, err := openFile(t, flags, mode)
	if err != nil {
		return nil, errors.Join(err, protect())
	}
	d.protect = protect
	return d, nil
}

func openFile(t target, flags int, mode Mode) (*file, error) {
	f, err := os.OpenFile(t.path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("another process or driver holds it: %w", fwu.ErrSlotBusy)
	}
	if err != nil {
		return nil, cause(err)
	}
	d, err := newFile(f, t, mode)
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

func newFile(f *os.File, t target, mode Mode) (*file, error) {
	if err := t.check(f); err != nil {
		return nil, err
	}
	if mode == Exclusive && (!t.block || t.window) {
		if err := lock(f, t.base, t.size); err != nil {
			return nil, err
		}
	}
	d := &file{f: f, base: t.base, size: t.size, block: t.block, window: t.window}
	d.goDirect()
	return d, nil
}

// check makes sure that f is still what t describes: a node may have got another device meanwhile.
func (t target) check(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return cause(err)
	}
	block := info.Mode().Type() == fs.ModeDevice
	same := !block
	if block {
		same, err = t.is(f.Name())
		if err != nil {
			return cause(err)
		}
	}
	if block != t.block || !block && !info.Mode().IsRegular() || !same {
		return errors.New("it is another device or file than it was")
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return cause(err)
	}
	if end < t.base+t.size || !t.window && end != t.size {
		return fmt.Errorf("its size is %d now, %d was expected", end, t.base+t.size)
	}
	return nil
}

// sectorSize is the logical sector size of a block device.
func sectorSize(f *os.File) (int, error) {
	var n int32
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKSSZGET, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return 0, errno
	}
	if n != 512 && n != 4096 {
		return 0, fmt.Errorf("%d is not supported", n)
	}
	return int(n), nil
}

// lock takes the range for this open file, against other processes and against this one.
func lock(f *os.File, start, n int64) error {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: start, Len: n}
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return fmt.Errorf("another process, or another part of this one, has locked it: %w", fwu.ErrSlotBusy)
		case err != nil:
			return fmt.Errorf("lock it: %w", err)
		}
		return nil
	}
}

// cause is err without operation and path, which the caller adds.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// goDirect bypasses the page cache if the medium takes O_DIRECT. It reads a block to find out, and
// looks at EINVAL only. Any other error is for whoever needs that block: a medium with a block that
// cannot be read is opened, so that a write can mend it.
func (d *file) goDirect() {
	d.setDirect(true)
	block := fwu.Buffer(blockSize)[:min(blockSize, roundDown(d.size))]
	_, _ = d.pread(block, 0)
	d.drop()
}

// setDirect switches O_DIRECT. Where that is refused everything goes through the page cache, and Sync drops it.
func (d *file) setDirect(on bool) {
	flags, err := unix.FcntlInt(d.f.Fd(), unix.F_GETFL, 0)
	if err == nil {
		flags &^= unix.O_DIRECT
		if on {
			flags |= unix.O_DIRECT
		}
		_, err = unix.FcntlInt(d.f.Fd(), unix.F_SETFL, flags)
	}
	d.direct.Store(on && err == nil)
}

// indirect makes an access that was refused once more through the page cache, and all that come
// after it. A medium refuses O_DIRECT with EINVAL, for instance where a window begins at an odd
// sector; several accesses that were under way may learn it at the same time.
func (d *file) indirect(access func() (int, error)) (int, error) {
	direct := d.direct.Load()
	n, err := access()
	if direct && errors.Is(err, unix.EINVAL) {
		d.setDirect(false)
		n, err = access()
	}
	return n, err
}

func (d *file) pread(p []byte, off int64) (int, error) {
	return d.indirect(func() (int, error) { return d.f.ReadAt(p, d.base+off) })
}

func (d *file) pwrite(p []byte, off int64) error {
	_, err := d.indirect(func() (int, error) { return d.f.WriteAt(p, d.base+off) })
	return err
}

// drop makes the next read reach the medium. All is dropped, as a range would keep the pages that it has only a part of.
func (d *file) drop() {
	if !d.direct.Load() {
		unix.Fadvise(int(d.f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
}

// ReadAt reads from the medium. It returns fewer bytes than p has together with an error, and only
// then. The error is io.EOF at the end of the medium, and io.ErrUnexpectedEOF where the medium ends
// before its own size: its file was truncated since it was opened.
func (d *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	done := 0
	for done < len(p) {
		pos := off + int64(done)
		if pos >= d.size {
			return done, io.EOF
		}
		n, err := d.readSome(p[done:min(int64(len(p)), d.size-off)], pos)
		done += n
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return done, cause(err)
		}
	}
	return done, nil
}

// readSome reads p, or the first part of it: through the bounce buffer unless O_DIRECT takes it as it is.
func (d *file) readSome(p []byte, off int64) (int, error) {
	if n := len(p) &^ (blockSize - 1); n > 0 && off%blockSize == 0 && isAligned(p) {
		return d.pread(p[:n], off)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	start := roundDown(off)
	b := d.bounceBuffer()[:min(roundUp(off+int64(len(p)))-start, bufferSize)]
	n, err := d.pread(b, start)
	// A read may end short at the end of a medium that is no multiple of 4096.
	got := copy(p, b[min(off-start, int64(n)):n])
	if got > 0 {
		err = nil
	}
	return got, err
}

// WriteAt writes p, in multiples of 4096 if the medium is accessed directly. Nothing is durable before Sync.
func (d *file) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > d.size || int64(len(p)) > d.size-off {
		return 0, fmt.Errorf("%d bytes are outside of %d", len(p), d.size)
	}
	if isAligned(p) {
		if err := d.pwrite(p, off); err != nil {
			return 0, cause(err)
		}
		return len(p), nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	done := 0
	for done < len(p) {
		b := d.bounceBuffer()
		b = b[:copy(b, p[done:])]
		if err := d.pwrite(b, off+int64(done)); err != nil {
			return done, cause(err)
		}
		done += len(b)
	}
	return done, nil
}

func (d *file) bounceBuffer() []byte {
	if d.bounce == nil {
		d.bounce = fwu.Buffer(bufferSize)
	}
	return d.bounce
}

// Parallel is true: reads and writes do not wait for each other.
func (d *file) Parallel() bool { return true }

// Exclusive is true of a whole device, which the kernel lets be opened with O_EXCL once, and
// neither be mounted nor swapped on then. A file or a window is locked: whoever does not ask for
// the lock is not kept away.
func (d *file) Exclusive() bool { return d.block && !d.window }

// Sync makes everything written durable, and what was cached forgotten.
func (d *file) Sync() error {
	err := d.f.Sync()
	d.drop()
	return cause(err)
}

// Size is the size of the device, file or window.
func (d *file) Size() int64 { return d.size }

// Discard tells the medium that a range is not needed.
func (d *file) Discard(off, n int64) error {
	if off < 0 || n <= 0 || off > d.size || n > d.size-off {
		return fmt.Errorf("%d bytes at %d are outside of %d", n, off, d.size)
	}
	if !d.block {
		return unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, d.base+off, n)
	}
	return d.rangeCommand(unix.BLKDISCARD, off, n)
}

// WriteZeroes has the kernel write zeroes, by a command of the medium or by writes: it promises that they are read afterwards.
func (d *file) WriteZeroes(off, n int64) error {
	if off < 0 || n <= 0 || off > d.size || n > d.size-off {
		return fmt.Errorf("%d bytes at %d are outside of %d", n, off, d.size)
	}
	if !d.block {
		return unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, d.base+off, n)
	}
	return d.rangeCommand(unix.BLKZEROOUT, off, n)
}

// rangeCommand gives the block device a command for a range.
func (d *file) rangeCommand(request uintptr, off, n int64) error {
	bounds := [2]uint64{uint64(d.base + off), uint64(n)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), request, uintptr(unsafe.Pointer(&bounds))); errno != 0 {
		return errno
	}
	return nil
}

// Close gives the medium up, and its locks. Write protection that was lifted is put back.
func (d *file) Close() error {
	err := cause(d.f.Close())
	if d.protect != nil {
		err = errors.Join(err, d.protect())
	}
	return err
}
