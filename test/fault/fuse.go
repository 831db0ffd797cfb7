package fault

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Medium is the memory that a Disk keeps its content in. It decides which accesses fail. It has to
// be safe for concurrent use.
type Medium interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Size() int64
	// Zero is the command that fills a range with zeroes (BLKZEROOUT).
	Zero(off, n int64) error
	// Discard is the command that gives a range up (BLKDISCARD). The range reads as anything then.
	Discard(off, n int64) error
}

// Disk is a block device of this machine's kernel whose content is a Medium. Every access of the
// kernel to the device becomes one call of the Medium, and every error of the Medium becomes an
// error of the access:
//
//   - a read or write that returns an errno fails with it, as far as block devices know it: ENODATA
//     and ENOSPC stay, and any other is EIO;
//   - the kernel repeats the rest of a read that was short, and takes a short write for a whole
//     one;
//   - a flush, a discard or a command to write zeroes that returns an error fails with EIO.
type Disk struct {
	Path string // of the loop device

	size   int64
	mu     sync.RWMutex
	medium Medium
	delay  time.Duration
}

// Insert replaces the medium of the disk by one of the same size, while nothing has the disk open.
func (d *Disk) Insert(m Medium) {
	if m.Size() != d.size {
		panic(fmt.Sprintf("fault: a medium of %d bytes in a disk of %d", m.Size(), d.size))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.medium = m
}

// Delay makes every access from now on take that long.
func (d *Disk) Delay(delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.delay = delay
}

// access is the medium, after the delay.
func (d *Disk) access() Medium {
	d.mu.RLock()
	m, delay := d.medium, d.delay
	d.mu.RUnlock()
	time.Sleep(delay)
	return m
}

// NewDisk makes a disk of a medium, until the test ends.
func NewDisk(t testing.TB, m Medium) *Disk {
	t.Helper()
	return NewDisks(t, m)[0]
}

// NewDisks makes disks of media, until the test ends.
//
// Each is a loop device over a file of a FUSE file system, whose server is this process. The file
// system is mounted nowhere: only this process has its root. When the process ends, in whichever
// way, nothing of it stays: see watch.
func NewDisks(t testing.TB, media ...Medium) []*Disk {
	t.Helper()
	NeedRoot(t)
	if _, err := os.Stat("/dev/fuse"); err != nil {
		missing(t, "/dev/fuse")
	}
	s := &server{RawFileSystem: fuse.NewDefaultRawFileSystem()}
	for _, m := range media {
		s.disks = append(s.disks, &Disk{size: m.Size(), medium: m})
	}
	root := s.mount(t)
	for i, d := range s.disks {
		fd, err := unix.Openat(root, strconv.Itoa(i), unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatalf("open a file of the FUSE file system: %v", err)
		}
		d.Path = attach(t, fd)
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
	}
	return s.disks
}

// mount starts the server, and returns the root of its file system.
func (s *server) mount(t testing.TB) (root int) {
	t.Helper()
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open /dev/fuse: %v", err)
	}
	root, err = detached("fuse", map[string]string{"fd": strconv.Itoa(dev), "rootmode": "40000", "user_id": "0", "group_id": "0", "max_read": strconv.Itoa(maxRequest)})
	if err != nil {
		t.Fatalf("mount a FUSE file system: %v", err)
	}
	server, err := fuse.NewServer(s, fmt.Sprintf("/dev/fd/%d", dev), &fuse.MountOptions{MaxWrite: maxRequest})
	if err != nil {
		t.Fatalf("serve a FUSE file system: %v", err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve()
	}()
	end := watch(t, root)
	t.Cleanup(func() { // after the loop devices are detached, by cleanups that are registered later
		err := unix.Close(root)
		select {
		case <-served:
		case <-time.After(2 * time.Minute):
			t.Error("something keeps a file of the FUSE file system open")
		}
		if err := errors.Join(err, end()); err != nil {
			t.Error(err)
		}
	})
	return root
}

// detached mounts a file system in no place, and returns its root. It is unmounted when the root
// and all files of it are closed.
func detached(kind string, options map[string]string) (root int, err error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	for key, value := range options {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return -1, fmt.Errorf("fsconfig %s=%s: %w", key, value, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("fsconfig: %w", err)
	}
	root, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	return root, nil
}

// watch has another process abort the file system when this one ends, and returns a function that
// ends that process.
//
// A process that is killed while one of its threads waits for a loop device would never end by
// itself: the thread cannot be killed, it waits for the server, which is dead, and the kernel tells
// the file system that its server is dead only after all threads have ended. The watcher gets a
// signal when the thread that started it ends, and that one waits for nothing that the kernel does.
func watch(t testing.TB, root int) (end func() error) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		t.Fatalf("stat the root of the FUSE file system: %v", err)
	}
	control, err := detached("fusectl", nil)
	if err != nil {
		t.Fatalf("mount the file system that controls FUSE: %v", err)
	}
	defer unix.Close(control)
	fd, err := unix.Openat(control, fmt.Sprintf("%d/abort", unix.Minor(uint64(st.Dev))), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open what aborts the FUSE file system: %v", err)
	}
	abort := os.NewFile(uintptr(fd), "abort")
	defer abort.Close()
	cmd := exec.Command("/bin/sh", "-c", `trap 'echo 1 >&3; exit' TERM; echo; read end; echo 1 >&3`)
	cmd.ExtraFiles = []*os.File{abort}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM, Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started, stop := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		started <- cmd.Start()
		<-stop
	}()
	if err := <-started; err != nil {
		close(stop)
		t.Fatalf("start the process that watches this one: %v", err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil { // the trap is set
		t.Fatalf("the process that watches this one: %v", err)
	}
	return func() error {
		stdin.Close()
		_ = cmd.Wait() // it has nothing to abort any more, and says so
		close(stop)
		return nil
	}
}

// maxRequest is as much as the program reads or writes at once, so that its accesses are not split.
const maxRequest = 512 << 10

// forEver is how long the kernel may remember the attributes of a file, which never change.
const forEver = uint64(365 * 24 * 60 * 60)

// server is a FUSE file system. Its root has a file for each disk, named by its number.
type server struct {
	fuse.RawFileSystem // which knows no other request
	disks              []*Disk
}

// The root has node number 1, and the files have those after it.
const firstNode = fuse.FUSE_ROOT_ID + 1

func (s *server) disk(node uint64) *Disk { return s.disks[node-firstNode] }

func (s *server) attributes(node uint64) fuse.Attr {
	if node == fuse.FUSE_ROOT_ID {
		return fuse.Attr{Ino: node, Mode: unix.S_IFDIR | 0o700, Nlink: 2}
	}
	size := uint64(s.disk(node).size)
	return fuse.Attr{Ino: node, Mode: unix.S_IFREG | 0o600, Nlink: 1, Size: size, Blocks: size / 512, Blksize: 4096}
}

func (s *server) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	i, err := strconv.ParseUint(name, 10, 32)
	if err != nil || i >= uint64(len(s.disks)) {
		return fuse.ENOENT
	}
	out.NodeId, out.Attr, out.AttrValid, out.EntryValid = firstNode+i, s.attributes(firstNode+i), forEver, forEver
	return fuse.OK
}

func (s *server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Attr, out.AttrValid = s.attributes(in.NodeId), forEver
	return fuse.OK
}

func (s *server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.NameLen = 4096, 255
	return fuse.OK
}

// Open has the kernel keep nothing of the file in its page cache.
func (s *server) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

func (s *server) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, err := s.disk(in.NodeId).access().ReadAt(buf[:in.Size], int64(in.Offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, status(err) // with data it would be a short read
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (s *server) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, err := s.disk(in.NodeId).access().WriteAt(data, int64(in.Offset))
	return uint32(n), status(err)
}

func (s *server) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return status(s.disk(in.NodeId).access().Sync())
}

// Fallocate is a command for a range. The loop device punches a hole to discard, and zeroes a range
// to write zeroes.
func (s *server) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	m, off, n := s.disk(in.NodeId).access(), int64(in.Offset), int64(in.Length)
	if in.Mode&unix.FALLOC_FL_PUNCH_HOLE != 0 {
		return status(m.Discard(off, n))
	}
	return status(m.Zero(off, n))
}

// status is the errno of err, or EIO if it has none.
func status(err error) fuse.Status {
	var errno unix.Errno
	switch {
	case err == nil:
		return fuse.OK
	case errors.As(err, &errno):
		return fuse.Status(errno)
	}
	return fuse.EIO
}
