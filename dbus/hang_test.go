package dbus

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/test/fault"
)

// slow is a file system with one file, "image", that answers no read beyond its first 64 KiB until
// it is released.
type slow struct {
	fs.Inode
	path    string
	waiting atomic.Int32 // reads that wait
	answer  chan struct{}
}

const (
	slowSize   = 1 << 20
	slowPrompt = 64 << 10
)

var (
	_ fs.NodeOnAdder   = (*slow)(nil)
	_ fs.NodeReader    = (*slowFile)(nil)
	_ fs.NodeOpener    = (*slowFile)(nil)
	_ fs.NodeGetattrer = (*slowFile)(nil)
)

func (s *slow) OnAdd(ctx context.Context) {
	s.AddChild("image", s.NewPersistentInode(ctx, &slowFile{s: s}, fs.StableAttr{}), false)
}

type slowFile struct {
	fs.Inode
	s *slow
}

func (f *slowFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o644, slowSize
	return 0
}

func (f *slowFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *slowFile) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if off < slowPrompt {
		p = p[:min(int64(len(p)), slowPrompt-off)]
		return fuse.ReadResultData(p), 0
	}
	f.s.waiting.Add(1)
	<-f.s.answer
	f.s.waiting.Add(-1)
	return fuse.ReadResultData(p[:min(int64(len(p)), max(slowSize-off, 0))]), 0
}

// mountSlow mounts the file system. The file is opened without the Go runtime, whose poller would
// ask the file system.
func mountSlow(t *testing.T) *slow {
	t.Helper()
	fault.NeedRoot(t)
	s := &slow{path: t.TempDir(), answer: make(chan struct{})}
	server, err := fs.Mount(s.path, s, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
		server.Wait()
	})
	return s
}

func (s *slow) open(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open(filepath.Join(s.path, "image"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// hung begins a transfer from the file system, and returns when it hangs.
func (s *service) hung(t *testing.T, from *slow, component string) (*godbus.Conn, *godbus.Call) {
	t.Helper()
	before := from.waiting.Load()
	c := s.raw(t)
	done := c.Object(Name, componentFolder+godbus.ObjectPath("/"+component)).Go(ComponentInterface+".WriteFile", 0, make(chan *godbus.Call, 1),
		uint64(0), godbus.UnixFD(from.open(t)), uint64(0), options())
	s.began(t)
	eventually(t, "the read hangs", func() bool { return from.waiting.Load() > before })
	return c, done
}

func (s *service) stuck(user uint32) int {
	s.server.stuck.mu.Lock()
	defer s.server.stuck.mu.Unlock()
	return s.server.stuck.byUser[user]
}

// A transfer from a file system that does not answer ends when it is cancelled, when its caller
// dies and when the service stops; and when the file system answers after all, nothing is left.
func TestTransferFromAFileSystemThatHangs(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(t *testing.T, s *service, caller *godbus.Conn, done *godbus.Call)
	}{
		{"cancel", func(t *testing.T, s *service, _ *godbus.Conn, done *godbus.Call) {
			if err := s.raw(t).Object(Name, componentFolder+"/0").Call(ComponentInterface+".Cancel", 0).Err; err != nil {
				t.Error(err)
			}
			if err := (<-done.Done).Err; errorName(err) != errorPrefix+"BadState" {
				t.Errorf("the transfer ended with %v", err)
			}
		}},
		{"the caller dies", func(_ *testing.T, _ *service, caller *godbus.Conn, _ *godbus.Call) { _ = caller.Close() }},
		{"the service stops", func(t *testing.T, s *service, _ *godbus.Conn, _ *godbus.Call) {
			s.stop()
			if err := s.wait(t); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := mountSlow(t)
			s := serve(t, Options{})
			caller, done := s.hung(t, from, "0")
			c.end(t, s, caller, done)
			eventually(t, "the transfer ends", func() bool { i, _ := s.Query(t.Context(), 0); return i.Impl.Operation == "" })
			if n := s.stuck(0); n != 1 {
				t.Errorf("%d reads are given up, want 1", n)
			}
			close(from.answer)
			eventually(t, "the read ends", func() bool { return s.stuck(0) == 0 })
			if got := s.images[0]; len(got) != slowPrompt {
				t.Errorf("%d bytes were taken, want the %d from before the file system hung", len(got), slowPrompt)
			}
		})
	}
}

// Whoever has given up as many reads as a user may has to wait for them. Others do not.
func TestReadsThatWereGivenUpAreBounded(t *testing.T) {
	from := mountSlow(t)
	s := serve(t, Options{})
	for range maxStuck {
		caller, _ := s.hung(t, from, "0")
		_ = caller.Close()
		eventually(t, "the transfer ends", func() bool { i, _ := s.Query(t.Context(), 0); return i.Impl.Operation == "" })
	}
	r, _ := pipe(t)
	write := func() error {
		return s.raw(t).Object(Name, componentFolder+"/0").Call(ComponentInterface+".WriteFile", 0, uint64(0), godbus.UnixFD(r.Fd()), uint64(0), options()).Err
	}
	if err := write(); errorName(err) != busErrorPrefix+"LimitsExceeded" {
		t.Errorf("one more: %v", err)
	}
	if s.server.stuck.full(1000) {
		t.Error("another user is refused")
	}
	close(from.answer)
	eventually(t, "the reads end", func() bool { return s.stuck(0) == 0 })
	if s.server.stuck.full(0) {
		t.Error("the user is refused still")
	}
}

// A file is read whole from a file system that answers, and a deadline that has passed is reported
// by every later read.
func TestDescriptorOfAFileSystem(t *testing.T) {
	from := mountSlow(t)
	close(from.answer)
	d, err := newDescriptor(dupOf(t, from.open(t)), func(int) { t.Error("a read was left behind") })
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if n, err := io.Copy(io.Discard, d); n != slowSize || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := d.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := d.Read(make([]byte, 1)); err != os.ErrDeadlineExceeded {
			t.Errorf("after the deadline: %v", err)
		}
	}
	eventually(t, "the last read ends", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return !d.reading })
}

func dupOf(t *testing.T, fd int) int {
	t.Helper()
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
