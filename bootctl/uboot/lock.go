package uboot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Locks keep other programs from the environment while it is changed: the files that U-Boot's tools (tools/env/fw_env_main.c) and libubootenv
// (src/uboot_env.c) lock with flock(2).
type Locks struct {
	Root string        // directory below which the files lie; empty: /
	Wait time.Duration // how long to wait for each; DefaultWait is a good choice
}

// DefaultWait is longer than any tool takes for a change.
const DefaultWait = 10 * time.Second

func lockFiles() []string {
	return []string{"/run/fw_printenv.lock", "/var/lock/fw_printenv.lock"}
}

// lock takes both locks and returns the function that gives them up. A lock file counts if only
// root's tools can hold it: it belongs to root, and nobody else can open it. One that belongs to
// another user is left out at once, as any program may hold it for ever; one of root that others
// can open is left out if it is still held after Wait, which no tool takes. A lock whose directory
// does not exist or cannot be written is left out: no tool can take it either. So is anything but a
// regular file.
func (l Locks) lock() (unlock func(), err error) {
	var held []*os.File
	unlock = func() {
		for _, f := range held {
			f.Close()
		}
	}
	for _, name := range lockFiles() {
		f, open, err := openLock(filepath.Join("/", l.Root, name))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, errNoLock) {
			continue
		}
		if err == nil && !holds(held, f) { // /var/lock may be /run, and a second flock on the same file would wait for the first
			err = l.flock(f)
		}
		if open && errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			unlock()
			return nil, fmt.Errorf("lock U-Boot environment: %w", err)
		}
		held = append(held, f)
	}
	return unlock, nil
}

// errNoLock is of a file that no tool of root holds as a lock.
var errNoLock = errors.New("not a lock file of root")

// openLock opens without O_CREAT first: the kernel refuses it for a file of somebody else in a
// directory that all may write (fs.protected_regular). Not for writing either, nor through a link,
// as an attacker may have put it there; and without waiting, as it may be a FIFO, which nobody ever
// opens for writing. open tells whether users other than root can open the file, and with that hold
// a lock on it (flock(2)).
func openLock(path string) (f *os.File, open bool, err error) {
	const flags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW
	f, err = os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path, flags|os.O_CREATE, 0o600)
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a link; a socket
		return nil, false, errNoLock
	}
	if errors.Is(err, fs.ErrPermission) { // root without capabilities cannot open what another user has made for itself
		if info, statErr := os.Lstat(path); statErr == nil && !byRoot(info) {
			return nil, false, errNoLock
		}
	}
	if err != nil {
		return nil, false, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || !byRoot(info)) {
		err = errNoLock
	}
	if err != nil {
		f.Close()
		return nil, false, err
	}
	return f, info.Mode().Perm()&0o077 != 0, nil
}

// byRoot tells whether a file belongs to root, or to the user that this program runs as.
func byRoot(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || uint64(st.Uid) == uint64(os.Geteuid()))
}

// doctor describes lock files that do not keep anybody out, a line for each.
func (l Locks) doctor() []string {
	var lines []string
	for _, name := range lockFiles() {
		path := filepath.Join("/", l.Root, name)
		info, err := os.Lstat(path)
		switch {
		case err != nil: // it is made when it is needed, or cannot be
		case !info.Mode().IsRegular() || !byRoot(info):
			lines = append(lines, fmt.Sprintf("lock file %s is %s and does not belong to root: it is not used; remove it, and run systemd-tmpfiles --create fwu-ab.conf", path, info.Mode()))
		case info.Mode().Perm()&0o077 != 0:
			lines = append(lines, fmt.Sprintf("lock file %s is %s: any user can hold the lock, so nobody waits for it longer than %v; run systemd-tmpfiles --create fwu-ab.conf", path, info.Mode(), l.Wait))
		}
	}
	return lines
}

func holds(held []*os.File, f *os.File) bool {
	info, err := f.Stat()
	for _, h := range held {
		if other, errOther := h.Stat(); err == nil && errOther == nil && os.SameFile(info, other) {
			return true
		}
	}
	return false
}

func (l Locks) flock(f *os.File) error {
	const pause = 10 * time.Millisecond
	for waited := time.Duration(0); ; waited += pause {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			f.Close()
			return fmt.Errorf("%s: %w", f.Name(), err)
		case waited >= l.Wait:
			f.Close()
			return fmt.Errorf("%s: held by another program for %v: %w", f.Name(), waited, err)
		}
		time.Sleep(pause)
	}
}
