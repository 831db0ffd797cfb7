package uboot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

// lock takes both locks and returns what gives them up. A lock whose directory does not exist or cannot be written is left out: no tool can take it either.
// So is what is no regular file: no tool makes it that way, and anybody can, where all may write.
func (l Locks) lock() (unlock func(), err error) {
	var held []*os.File
	unlock = func() {
		for _, f := range held {
			f.Close()
		}
	}
	for _, name := range lockFiles() {
		f, err := openLock(filepath.Join("/", l.Root, name))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, errNoFile) {
			continue
		}
		if err == nil && !holds(held, f) { // /var/lock may be /run, and a second flock on the same file would wait for the first
			err = l.flock(f)
		}
		if err != nil {
			unlock()
			return nil, fmt.Errorf("lock U-Boot environment: %w", err)
		}
		held = append(held, f)
	}
	return unlock, nil
}

// errNoFile is of a lock that is something else than a file.
var errNoFile = errors.New("not a regular file")

// openLock opens without O_CREAT first: the kernel refuses it for a file of somebody else in a directory that all may write (fs.protected_regular).
// Not for writing either, nor through a link, as an attacker may have put it there; and without waiting, as it may be a FIFO, which nobody ever opens for writing.
func openLock(path string) (*os.File, error) {
	const flags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path, flags|os.O_CREATE, 0o644)
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a link; a socket
		return nil, errNoFile
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNoFile
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
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
