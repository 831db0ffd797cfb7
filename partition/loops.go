package partition

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loop is a loop device in use.
type loop struct {
	name        string
	dev         devno
	backing     string   // path of what it shows, in the mount namespace where it was attached; it may be gone
	on          identity // of what it shows; zero if the kernel was not asked
	start, size int64    // size 0: to the end
}

// identity names a file or a block device, by whatever path.
type identity struct {
	block bool
	dev   devno  // of the block device, or of the file system of the file
	inode uint64 // of the file
}

// loops lists the loop devices that are in use.
func (h host) loops() ([]loop, error) {
	entries, err := os.ReadDir(h.path("sys/block"))
	if err != nil && !absent(err) { // a system without sysfs has none, or refuses everything else before
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	var loops []loop
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "loop") {
			continue
		}
		l, err := h.loop(e.Name())
		if detached(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", e.Name(), err)
		}
		loops = append(loops, l)
	}
	return loops, nil
}

// detached tells whether err says that a loop device is not attached to anything, any more.
func detached(err error) bool {
	return absent(err) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}

func (h host) loop(name string) (loop, error) {
	dir := h.path("sys/block", name)
	backing, err := os.ReadFile(filepath.Join(dir, "loop/backing_file"))
	if err != nil {
		return loop{}, err
	}
	l := loop{name: name, backing: strings.TrimSuffix(string(backing), "\n")}
	var errStart, errSize, errDev error
	l.start, errStart = readNumber(filepath.Join(dir, "loop/offset"))
	l.size, errSize = readNumber(filepath.Join(dir, "loop/sizelimit"))
	l.dev, errDev = h.number(filepath.Join(dir, "dev"))
	if err := errors.Join(errStart, errSize, errDev); err != nil {
		return loop{}, err
	}
	l.on, err = h.shown(l)
	return l, err
}

// shown asks the kernel for the file or device that a loop device shows. Where the device has no
// node it is looked up by its path, and it is an error if nothing is there: the loop device may
// show anything.
func (h host) shown(l loop) (identity, error) {
	node := h.path("dev", l.name)
	number, ok, err := blockNumber(node)
	if err != nil {
		return identity{}, err
	}
	if !ok || number != l.dev {
		on, err := identify(l.backing)
		if absent(err) {
			return identity{}, fmt.Errorf("it has no node %s, and %s, which it shows, is not found: it may show anything", node, l.backing)
		}
		return on, err
	}
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		return found(l.backing)
	}
	if err != nil {
		return identity{}, err
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if out(err) {
		return identity{}, nil
	}
	if err != nil {
		return identity{}, &fs.PathError{Op: "ask for the state of", Path: node, Err: err}
	}
	if info.Rdevice != 0 {
		return identity{block: true, dev: numberOf(info.Rdevice)}, nil
	}
	return identity{dev: numberOf(info.Device), inode: info.Inode}, nil
}

// found names the file or device at the path of a loop device that this user may not ask: a service
// that is not root, as in a lab. Files that this user does not reach are not slots of its devices.
// Root is never refused by EACCES; a sandbox refuses with EPERM, which stays an error.
func found(path string) (identity, error) {
	on, err := identify(path)
	if absent(err) || errors.Is(err, unix.EACCES) {
		return identity{}, nil
	}
	return on, err
}

// out tells whether err says that the file system of the file that a loop device shows does not
// answer any more: that of a server, of the network or of FUSE, that has gone. No slot is on it, as
// the attributes of a slot were read.
func out(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ESTALE)
}

// identify names the file or device at path.
func identify(path string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return identity{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return identity{block: true, dev: numberOf(uint64(st.Rdev))}, nil
	}
	return identity{dev: numberOf(uint64(st.Dev)), inode: st.Ino}, nil
}
