// Package files opens the files that a command line names.
//
// An input never waits where its context cannot reach it: not in open(2) of a FIFO, and not in
// read(2) of a pipe or a terminal. An output replaces a regular file when all of it is written and
// durable, and it replaces nothing that its caller did not mean: see [Create].
package files

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Standard is the name of standard input or of standard output.
const Standard = "-"

// Target is where an output goes, and the files that must not be lost by it.
type Target struct {
	Path string // "-" is standard output
	// Inputs are files that the output is made from. An output that is one of them is refused.
	// Empty names are ignored.
	Inputs []string
	// InPlace is an input that the output may replace, as long as it is a regular file. Empty:
	// there is none.
	InPlace string
	// Replace says whether a regular file that is not empty may be replaced. It gets the first
	// bytes and the size of the file. nil: any file but a private key may.
	Replace func(head []byte, size int64) bool
	// Chosen: somebody other than the user chose the name. Then only a regular file is replaced,
	// and no link is followed.
	Chosen bool
}

// Output is a file that is being written. Nothing is seen of it at its path before Commit, if the
// path is that of a regular file or of none.
type Output struct {
	ctx  context.Context
	file *os.File
	path string // that the file gets; empty: it is written directly
	dir  string
	done bool
}

// Create checks a target and begins to write to it.
//
// Links are followed. A regular file keeps its mode; a new one gets the mode that the umask asks
// for. Whatever is not a regular file, such as a pipe, a terminal or a device, is written directly.
// A block device that is in use is refused.
func Create(ctx context.Context, t Target) (*Output, error) {
	if t.Path == Standard {
		return &Output{ctx: ctx, file: os.Stdout, dir: os.TempDir()}, nil
	}
	path, descriptor, err := t.resolve()
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(t.Path)
	switch {
	case err == nil:
		if err := t.permit(info, descriptor >= 0); err != nil {
			return nil, fmt.Errorf("write %s: %w", t.Path, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	switch {
	case descriptor >= 0:
		fd, err := unix.FcntlInt(uintptr(descriptor), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", t.Path, err)
		}
		return &Output{ctx: ctx, file: os.NewFile(uintptr(fd), t.Path), dir: os.TempDir()}, nil
	case info != nil && !info.Mode().IsRegular():
		f, err := openSpecial(ctx, t.Path, info)
		if err != nil {
			return nil, err
		}
		return &Output{ctx: ctx, file: f, dir: os.TempDir()}, nil
	}
	f, err := createBeside(path)
	if err != nil {
		return nil, err
	}
	if info != nil {
		if err := f.Chmod(info.Mode().Perm()); err != nil {
			return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}
	return &Output{ctx: ctx, file: f, path: path, dir: filepath.Dir(path)}, nil
}

// resolve follows the links of the path to the file that is meant, which need not exist. descriptor
// is that of this process if the path is a name of one, such as /dev/stdout; else it is -1.
func (t Target) resolve() (path string, descriptor int, err error) {
	path = t.Path
	for range 40 { // as the kernel does
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", -1, err
		}
		path = filepath.Join(dir, filepath.Base(path))
		if n, ok := ownDescriptor(path); ok {
			return path, n, nil
		}
		link, err := os.Readlink(path)
		if err != nil { // no link, or nothing
			return path, -1, nil
		}
		if t.Chosen {
			return "", -1, fmt.Errorf("write %s: it is a link, and is not followed: remove it first", t.Path)
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(dir, link)
		}
		path = link
	}
	return "", -1, fmt.Errorf("write %s: %w", t.Path, unix.ELOOP)
}

// ownDescriptor is the number in /proc/PID/fd/N, if PID is this process. path has no links but the
// last.
func ownDescriptor(path string) (int, bool) {
	number, ok := strings.CutPrefix(path, fmt.Sprintf("/proc/%d/fd/", os.Getpid()))
	n, err := strconv.ParseUint(number, 10, 31)
	return int(n), ok && err == nil
}

// permit refuses to write to a file that is there, if that would lose something. opened: the
// process has it open already, so that whoever opened it decided about its content.
func (t Target) permit(info fs.FileInfo, opened bool) error {
	for _, in := range t.Inputs {
		if is(in, info) {
			return fmt.Errorf("it is %s, which this is made from: name another file", in)
		}
	}
	switch {
	case info.IsDir():
		return errors.New("it is a directory")
	case t.Chosen && !info.Mode().IsRegular():
		return errors.New("it is there, and is no regular file")
	case info.Mode().IsRegular() && !opened:
		return t.permitReplacing()
	case is(t.InPlace, info):
		return fmt.Errorf("it is %s, and only a regular file is changed in place: name another file", t.InPlace)
	}
	return nil
}

// is tells whether the file of that name is the one that info is of.
func is(name string, info fs.FileInfo) bool {
	if name == "" {
		return false
	}
	other, err := os.Stat(name)
	if name == Standard {
		other, err = os.Stdin.Stat()
	}
	return err == nil && os.SameFile(other, info)
}

// headSize is how much of a file is read to recognise its kind.
const headSize = 1 << 10

func (t Target) permitReplacing() error {
	f, err := os.Open(t.Path)
	if err != nil {
		return fmt.Errorf("look at what is there: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at what is there: %w", err)
	}
	head := make([]byte, headSize)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF { //nolint:errorlint // of io.ReadFull
		return fmt.Errorf("look at what is there: %w", err)
	}
	replace := t.Replace
	if replace == nil {
		replace = func(head []byte, _ int64) bool { return !strings.Contains(string(head), "PRIVATE KEY-----") }
	}
	if n > 0 && !replace(head[:n], info.Size()) {
		return errors.New("a file of another kind is there: remove it, or name another file")
	}
	return nil
}

// openSpecial opens a file that is not regular.
func openSpecial(ctx context.Context, path string, info fs.FileInfo) (*os.File, error) {
	flags := os.O_WRONLY | unix.O_NOCTTY
	switch {
	case info.Mode()&fs.ModeNamedPipe != 0:
		return openPipe(ctx, path)
	case info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice:
		flags |= os.O_EXCL // refused while it is mounted, or otherwise in use
	}
	return os.OpenFile(path, flags, 0)
}

// openPipe opens a FIFO for writing when somebody reads from it.
func openPipe(ctx context.Context, path string) (*os.File, error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if !errors.Is(err, unix.ENXIO) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("write %s: wait for its reader: %w", path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// createBeside makes a new file in the directory of path, with the mode that the umask asks for.
func createBeside(path string) (*os.File, error) {
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text())
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
}

// Dir is a directory for files that are needed until Commit: that of the output, if it is a regular
// file.
func (o *Output) Dir() string { return o.dir }

// Write writes. It fails when the context has ended.
func (o *Output) Write(p []byte) (int, error) {
	if o.ctx.Err() != nil {
		return 0, context.Cause(o.ctx)
	}
	stop := context.AfterFunc(o.ctx, func() { _ = o.file.SetWriteDeadline(time.Unix(1, 0)) }) // of a pipe
	defer stop()
	n, err := o.file.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.Cause(o.ctx)
	}
	return n, err
}

// Commit makes the output durable, and gives it its path.
func (o *Output) Commit() error {
	o.done = true
	if o.path == "" {
		return o.closeDirect()
	}
	err := o.file.Sync()
	if err = errors.Join(err, o.file.Close()); err == nil {
		if err = os.Rename(o.file.Name(), o.path); err == nil {
			return syncDir(filepath.Dir(o.path))
		}
	}
	return errors.Join(err, os.Remove(o.file.Name()))
}

func (o *Output) closeDirect() error {
	err := o.file.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOTSUP) { // as of a pipe
		err = nil
	}
	if o.file == os.Stdout {
		return err
	}
	return errors.Join(err, o.file.Close())
}

// syncDir makes the names in a directory durable, where the file system can.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return nil // a directory may be writable and not readable
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("make %s durable: %w", path, err)
	}
	return nil
}

// Close gives up an output that was not committed. Of a regular file nothing remains.
func (o *Output) Close() error {
	switch {
	case o.done:
		return nil
	case o.path == "":
		o.done = true
		if o.file == os.Stdout {
			return nil
		}
		return o.file.Close()
	}
	o.done = true
	return errors.Join(o.file.Close(), os.Remove(o.file.Name()))
}

// Write creates a target and commits the bytes that write wrote to it. If write fails, nothing is
// left of a regular file.
func Write(ctx context.Context, t Target, write func(*Output) error) (err error) {
	o, err := Create(ctx, t)
	if err != nil {
		return err
	}
	if err := write(o); err != nil {
		return errors.Join(err, o.Close())
	}
	return o.Commit()
}
