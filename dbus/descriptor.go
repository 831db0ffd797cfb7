package dbus

import (
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// descriptor reads from a file descriptor that a caller passed. The open file is the caller's as
// well, perhaps its standard input that it shares with its shell, so it is left as it is: a read of
// a pipe or a socket is interrupted by means of poll(2), not by making the file non-blocking.
//
// A read of any other file can hang in its file system (FUSE, NFS), and nothing but the end of the
// process interrupts it there. So a goroutine reads, into memory of its own, and Read gives it up
// when the deadline passes. Whatever asks the file system is left to that goroutine: fstat(2) and
// poll(2) can hang as well, and so can close(2). Once it is known that the file lies in a file
// system of this machine, which answers as its medium does, Read reads by itself, without that
// copy.
type descriptor struct {
	fd, wake int
	// a pipe or a socket, of which poll tells whether a read would wait; or a local file
	waits   bool
	changed chan struct{} // the deadline is another one
	buffer  []byte        // of the goroutine while it reads, else of Read
	// called with 1 if Close leaves a read behind, and with -1 when that has ended
	stuck func(n int)

	// Of a regular file: it was read from start up to pos, and its pages up to dropped were given
	// back. The goroutine that reads has them.
	seen, regular, local bool
	pos, start, dropped  int64

	mu       sync.Mutex
	deadline time.Time
	reading  bool // the goroutine runs
	closed   bool
}

// newDescriptor owns fd from now on, also if it fails.
func newDescriptor(fd int, stuck func(n int)) (*descriptor, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		closeAll([]int{fd})
		return nil, os.NewSyscallError("eventfd", err)
	}
	d := &descriptor{fd: fd, wake: wake, stuck: stuck, changed: make(chan struct{}, 1)}
	_, pipe := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize)
	_, socket := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	d.waits = !errors.Is(pipe, unix.EBADF) || socket == nil
	return d, nil
}

// pipeSize is the size of a pipe, so that not each 64 KiB wake somebody. F_SETPIPE_SZ fails
// with EBADF for files that are no pipes, and does not ask their file system.
const pipeSize = 1 << 20

// readSize is how much is read at once of a file whose file system may hang.
const readSize = 256 << 10

// dropInterval is how much of a file is read before its pages are given back: an image is read once, and a small device has other uses for its memory.
const dropInterval = 4 << 20

// look finds out where a regular file is read from.
func (d *descriptor) look() {
	if d.seen {
		return
	}
	d.seen = true
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return // the read tells
	}
	pos, err := unix.Seek(d.fd, 0, io.SeekCurrent)
	d.regular, d.pos, d.start, d.dropped = err == nil, pos, pos, pos
	var fs unix.Statfs_t
	d.local = unix.Fstatfs(d.fd, &fs) == nil && slices.Contains([]uint32{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC,
		unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1, unix.MSDOS_SUPER_MAGIC}, uint32(fs.Type))
}

// count counts the bytes that were read.
func (d *descriptor) count(n int) {
	if d.pos += int64(n); d.regular && d.pos-d.dropped >= dropInterval {
		_ = unix.Fadvise(d.fd, d.start, d.pos-d.start, unix.FADV_DONTNEED) // from the start: of a large folio the part that is given back first does nothing
		d.dropped = d.pos
	}
}

// Read waits until there is something to read, the end is reached, or the deadline has passed.
func (d *descriptor) Read(p []byte) (int, error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case d.waits:
		return d.read(p)
	}
	done, err := d.begin(len(p))
	if err != nil {
		return 0, err
	}
	for {
		timeout, err := d.timeout()
		if err != nil {
			return 0, err // the goroutine is given up, and has the buffer for good
		}
		var late <-chan time.Time
		if timeout >= 0 {
			late = time.After(time.Duration(timeout) * time.Millisecond)
		}
		select {
		case r := <-done:
			d.waits = d.local
			return copy(p, d.buffer[:r.n]), r.err
		case <-d.changed:
		case <-late:
		}
	}
}

// result is the outcome of a read.
type result struct {
	n   int
	err error
}

// begin has a goroutine read up to n bytes into the buffer.
func (d *descriptor) begin(n int) (<-chan result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, os.ErrClosed
	case d.reading: // it was given up, and the deadline is the reason
		return nil, os.ErrDeadlineExceeded
	}
	if d.buffer == nil {
		d.buffer = make([]byte, readSize)
	}
	d.reading = true
	done := make(chan result, 1)
	go func() {
		d.look()
		k, err := d.read(d.buffer[:min(n, readSize)])
		d.mu.Lock()
		d.reading = false
		closed := d.closed
		d.mu.Unlock()
		done <- result{k, err}
		if closed {
			closeAll([]int{d.fd, d.wake})
			d.stuck(-1)
		}
	}()
	return done, nil
}

// read waits and reads, on the calling goroutine.
func (d *descriptor) read(p []byte) (int, error) {
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
			d.count(n)
			return n, nil
		}
	}
}

// wait returns when a read will not block, as far as poll knows.
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
	select {
	case d.changed <- struct{}{}:
	default: // it is told already
	}
	_, err := unix.Write(d.wake, []byte{1, 0, 0, 0, 0, 0, 0, 1}) // some number in either byte order
	if errors.Is(err, unix.EAGAIN) {                             // it is awake
		return nil
	}
	return os.NewSyscallError("write eventfd", err)
}

// Close must not be called while a Read runs. If a goroutine was given up that still reads, it
// closes the file when the file system has answered.
func (d *descriptor) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
	case d.reading:
		d.stuck(1)
	default:
		closeAll([]int{d.fd, d.wake})
	}
	d.closed = true
}
