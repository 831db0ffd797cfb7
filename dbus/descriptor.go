package dbus

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// descriptor reads from a file descriptor that a caller passed. The open file is the caller's as well, perhaps its standard input that
// it shares with its shell, so it is left as it is: a read is interrupted by means of poll(2), not by making the file non-blocking.
type descriptor struct {
	fd, wake int

	// Of a regular file: what was read up to pos, and up to dropped is not needed in the page cache any more.
	regular             bool
	pos, start, dropped int64

	mu       sync.Mutex
	deadline time.Time
	closed   bool
}

// newDescriptor owns fd from now on, also if it fails.
func newDescriptor(fd int) (*descriptor, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		closeAll([]int{fd})
		return nil, os.NewSyscallError("eventfd", err)
	}
	d := &descriptor{fd: fd, wake: wake}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return d, nil // which a read will tell
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		d.pos, err = unix.Seek(fd, 0, io.SeekCurrent)
		d.regular, d.start, d.dropped = err == nil, d.pos, d.pos
	case unix.S_IFIFO:
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize)
	}
	return d, nil
}

// pipeSize is what a pipe should hold, so that not each 64 KiB wake somebody.
const pipeSize = 1 << 20

// dropInterval is how much of a file is read before its pages are given back: an image is read once, and a small device has other uses for its memory.
const dropInterval = 4 << 20

// read counts what was read.
func (d *descriptor) read(n int) {
	if d.pos += int64(n); d.regular && d.pos-d.dropped >= dropInterval {
		_ = unix.Fadvise(d.fd, d.start, d.pos-d.start, unix.FADV_DONTNEED) // from the start: of a large folio the part that is given back first does nothing
		d.dropped = d.pos
	}
}

// Read waits until there is something to read, the end is reached, or the deadline has passed.
func (d *descriptor) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := d.wait(); err != nil {
			return 0, err
		}
		n, err := unix.Read(d.fd, p)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR): // somebody else was faster
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			d.read(n)
			return n, nil
		}
	}
}

// wait returns when a read will not block.
func (d *descriptor) wait() error {
	for {
		timeout, err := d.timeout()
		if err != nil {
			return err
		}
		fds := []unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}, {Fd: int32(d.wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, timeout); err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if fds[1].Revents != 0 {
			var count [8]byte
			_, _ = unix.Read(d.wake, count[:]) // it fails where another reader took it
			continue
		}
		if fds[0].Revents != 0 {
			return nil
		}
	}
}

// timeout is how long to wait, in milliseconds, -1 for ever.
func (d *descriptor) timeout() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deadline.IsZero() {
		return -1, nil
	}
	left := time.Until(d.deadline)
	if left <= 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return int(min(left.Milliseconds()+1, 1<<30)), nil
}

// SetReadDeadline makes a Read that waits, and every later one, fail with os.ErrDeadlineExceeded from t on; never if t is zero.
func (d *descriptor) SetReadDeadline(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return os.ErrClosed
	}
	d.deadline = t
	_, err := unix.Write(d.wake, []byte{1, 0, 0, 0, 0, 0, 0, 1}) // some number in either byte order
	if errors.Is(err, unix.EAGAIN) {                             // it is awake
		return nil
	}
	return os.NewSyscallError("write eventfd", err)
}

// Close must not be called while a Read runs.
func (d *descriptor) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		closeAll([]int{d.fd, d.wake})
	}
}
