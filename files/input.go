package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is how soon the end of a context is noticed by who waits for a pipe or a terminal.
const pollInterval = 50 * time.Millisecond

// Input is a file to read from. Read fails when its context has ended or its deadline has passed,
// even while it waits.
type Input struct {
	*os.File
	ctx     context.Context
	name    string
	regular bool
	size    int64

	mu       sync.Mutex
	deadline time.Time
}

// Open opens a file for reading; "-" is standard input. It does not wait for the writer of a FIFO:
// Read does.
func Open(ctx context.Context, path string) (*Input, error) {
	if path == Standard {
		return newInput(ctx, os.Stdin, "standard input")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0) // blocking matters to a FIFO only
	if err != nil {
		return nil, err
	}
	in, err := newInput(ctx, f, path)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return in, nil
}

func newInput(ctx context.Context, f *os.File, name string) (*Input, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if info.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: unix.EISDIR}
	}
	in := &Input{File: f, ctx: ctx, name: name, size: info.Size()}
	in.regular = info.Mode().IsRegular()
	if mode := info.Mode(); mode&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice { // a block device
		in.regular = true
		in.size, err = f.Seek(0, io.SeekEnd)
		if err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
	}
	return in, err
}

// Name is for people: the path, or "standard input".
func (in *Input) Name() string { return in.name }

// Seekable tells whether any part can be read, and more than once: of a regular file or a block
// device.
func (in *Input) Seekable() bool { return in.regular }

// Size is that of a file that is seekable.
func (in *Input) Size() int64 { return in.size }

// Close closes the file, unless it is standard input.
func (in *Input) Close() error {
	if in.File == os.Stdin {
		return nil
	}
	return in.File.Close()
}

// SetReadDeadline makes a Read that waits, and every later one, fail with os.ErrDeadlineExceeded
// from t on; never if t is zero.
func (in *Input) SetReadDeadline(t time.Time) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.deadline = t
	return nil
}

func (in *Input) ended() error {
	if in.ctx.Err() != nil {
		return context.Cause(in.ctx)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.deadline.IsZero() && !time.Now().Before(in.deadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Read returns the bytes that are there. It waits if there are none.
func (in *Input) Read(p []byte) (int, error) {
	if err := in.wait(); err != nil {
		return 0, err
	}
	return in.File.Read(p)
}

// ReadAt reads from a file that is seekable.
func (in *Input) ReadAt(p []byte, off int64) (int, error) {
	if err := in.ended(); err != nil {
		return 0, err
	}
	return in.File.ReadAt(p, off)
}

// WriteTo hides that of os.File, which waits in its own way.
func (in *Input) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{in})
}

// wait returns when a read will not block.
func (in *Input) wait() error {
	for {
		if err := in.ended(); err != nil {
			return err
		}
		if in.regular {
			return nil
		}
		ready := false
		raw, err := in.File.SyscallConn()
		if err != nil {
			return err
		}
		var pollErr error
		err = raw.Control(func(fd uintptr) {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			var n int
			n, pollErr = unix.Poll(fds, int(pollInterval.Milliseconds()))
			ready = n > 0
		})
		switch {
		case err != nil:
			return err
		case errors.Is(pollErr, unix.EINTR):
		case pollErr != nil:
			return fmt.Errorf("wait for %s: %w", in.name, pollErr)
		case ready:
			return nil
		}
	}
}

// OpenSeekable is Open for a file that is read more than once. One that cannot be, as a pipe, is
// read to its end first, into a file without a name in the directory for temporary files.
func OpenSeekable(ctx context.Context, path string) (*Input, error) {
	in, err := Open(ctx, path)
	if err != nil || in.Seekable() {
		return in, err
	}
	defer in.Close()
	f, err := os.CreateTemp("", "fwu-ab.*")
	if err != nil {
		return nil, fmt.Errorf("keep what comes from %s: %w", in.name, err)
	}
	out, err := in.keep(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keep what comes from %s: %w", in.name, err), f.Close())
	}
	return out, nil
}

// keep reads in to its end, into f.
func (in *Input) keep(f *os.File) (*Input, error) {
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	if _, err := in.WriteTo(f); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return newInput(in.ctx, f, in.name)
}
