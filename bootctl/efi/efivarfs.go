package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Directory is where efivarfs is mounted, or an ordinary directory that looks like it. It keeps nothing open.
//
// In efivarfs (Documentation/filesystems/efivarfs.rst of the kernel) a file is the attributes, four bytes, and the data. A variable is replaced by one write(2)
// of both: a second one would be another variable, an end of the file none. There is no fsync: the firmware has written when write(2) returns. Files are immutable
// that the kernel does not know to be harmless; that is taken away for the write, and given back.
type Directory struct {
	Path string
	// Sleep waits between two attempts where the firmware refuses; nil: time.Sleep.
	Sleep func(time.Duration)
}

var _ Variables = Directory{}

// ErrNoVariables: the directory is not that of a firmware's variables.
var ErrNoVariables = errors.New("no firmware variables")

// Check says why there are no variables, and what to do about it.
func (d Directory) Check() error {
	const noRuntime = "the kernel does not call the firmware while it runs: it needs CONFIG_EFIVAR_FS, and a real-time kernel " +
		"(CONFIG_EFI_DISABLE_RUNTIME) efi=runtime on its command line"
	var st unix.Statfs_t
	switch err := unix.Statfs(d.Path, &st); {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(d.Path)); err == nil {
			return fmt.Errorf("%w: %s does not exist: %s", ErrNoVariables, d.Path, noRuntime)
		}
		return fmt.Errorf("%w: %s does not exist: the system was not started by UEFI firmware", ErrNoVariables, d.Path)
	case err != nil:
		return fmt.Errorf("%s: %w", d.Path, err)
	case int64(st.Type) == unix.SYSFS_MAGIC:
		return fmt.Errorf("%w: efivarfs is not mounted: mount -t efivarfs efivarfs %s; where that is refused, %s", ErrNoVariables, d.Path, noRuntime)
	}
	return nil
}

// Writable returns an error if efivarfs is mounted read-only. The kernel mounts it so where the
// firmware's EFI_RT_PROPERTIES_TABLE has no SetVariable.
func (d Directory) Writable() error {
	var st unix.Statfs_t
	if unix.Statfs(d.Path, &st) == nil && st.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("%s: efivarfs is mounted read-only, no boot selection can be committed: %s", d.Path, d.remount())
	}
	return nil
}

func (d Directory) remount() string {
	return "mount -o remount,rw " + d.Path + "; where that is refused, this firmware does not change variables while a system runs: " +
		"U-Boot does with CONFIG_EFI_RT_VOLATILE_STORE, from 2024.07 on"
}

func (d Directory) path(name string) string { return filepath.Join(d.Path, name) }

// List returns the names of all variables.
func (d Directory) List() ([]string, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return nil, fmt.Errorf("list firmware variables: %w", err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Read returns a variable. An empty file is one that was made and never written: no variable.
func (d Directory) Read(name string) (Variable, error) {
	v, err := d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.Check(); err != nil {
			return v, err
		}
	}
	if err != nil {
		return v, fmt.Errorf("read firmware variable %s: %w", name, err)
	}
	return v, nil
}

func (d Directory) read(name string) (Variable, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return Variable{}, cause(err)
	}
	defer f.Close()
	limit := maxVariable
	if name == VarToFile {
		limit = MaxStore
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(4+limit+1)))
	switch {
	case err != nil:
		return Variable{}, cause(err)
	case len(b) == 0:
		return Variable{}, fs.ErrNotExist
	case len(b) < 4:
		return Variable{}, fmt.Errorf("it has %d bytes, too few for its attributes", len(b))
	case len(b) > 4+limit:
		return Variable{}, errTooLong
	}
	return Variable{binary.LittleEndian.Uint32(b), b[4:]}, nil
}

// Write makes or replaces a variable.
func (d Directory) Write(name string, v Variable) error {
	if len(v.Data) == 0 {
		return fmt.Errorf("write firmware variable %s: nothing to write", name)
	}
	content := append(binary.LittleEndian.AppendUint32(nil, v.Attributes), v.Data...)
	err := d.mutable(name, func() error { return d.replace(name, content) })
	if err != nil {
		return fmt.Errorf("write firmware variable %s: %w", name, d.advise(err))
	}
	return nil
}

func (d Directory) replace(name string, content []byte) error {
	path := d.path(name)
	_, missing := os.Lstat(path)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644) // never O_TRUNC: that would be a write of its own
	if err != nil {
		return cause(err)
	}
	err = writeOnce(f, content)
	if cerr := f.Close(); err == nil {
		err = cause(cerr)
	}
	if err != nil && missing != nil {
		// Some kernels keep the empty file. It is no variable, whether it can be removed or not.
		_ = os.Remove(path)
	}
	return err
}

// writeOnce makes one write(2), again only where it was interrupted before anything happened. In an ordinary file it takes away what was longer.
func writeOnce(f *os.File, content []byte) error {
	var n int
	var err error
	for {
		if n, err = unix.Write(int(f.Fd()), content); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return err
	}
	if n != len(content) {
		return fmt.Errorf("%d of %d bytes were taken: %w", n, len(content), io.ErrShortWrite)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || int64(st.Type) == unix.EFIVARFS_MAGIC {
		return err
	}
	return cause(f.Truncate(int64(len(content))))
}

// Delete deletes a variable.
func (d Directory) Delete(name string) error {
	err := d.mutable(name, func() error { return cause(os.Remove(d.path(name))) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete firmware variable %s: %w", name, d.advise(err))
	}
	return nil
}

// The firmware, or a kernel that was asked too often, refuses with EPERM now and then.
const (
	attempts  = 5
	firstWait = 20 * time.Millisecond
)

// mutable does something to a variable that may be immutable.
func (d Directory) mutable(name string, do func() error) (err error) {
	sleep := d.Sleep
	if sleep == nil {
		sleep = time.Sleep
	}
	wait := firstWait
	for i := range attempts {
		if i > 0 {
			sleep(wait)
			wait *= 2
		}
		var restore func() error
		if restore, err = d.thaw(name); err == nil {
			err = errors.Join(do(), restore())
		}
		if !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return err
}

// thaw takes the immutable flag away. restore gives it back to what is there then, if it was set.
func (d Directory) thaw(name string) (restore func() error, err error) {
	nothing := func() error { return nil }
	set, err := d.setImmutable(name, false)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !set {
		return nothing, nil
	}
	if err != nil {
		return nothing, fmt.Errorf("make it mutable: %w", err)
	}
	return func() error {
		_, err := d.setImmutable(name, true)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make it immutable again: %w", err)
		}
		return nil
	}, nil
}

// immutable is FS_IMMUTABLE_FL of linux/fs.h.
const immutable = 0x10

// setImmutable sets or clears the flag, and returns what it was. A file system without such flags has none set.
func (d Directory) setImmutable(name string, want bool) (was bool, err error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return false, cause(err)
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read its flags: %w", err)
	}
	was = flags&immutable != 0
	if was == want {
		return was, nil
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags^immutable); err != nil {
		return was, fmt.Errorf("set its flags: %w", err)
	}
	return was, nil
}

// advise adds what to do.
func (d Directory) advise(err error) error {
	if check := d.Check(); check != nil {
		return check
	}
	for errno, text := range map[error]string{
		unix.ENOSPC: "the variable store of the firmware is full: a reboot reclaims the space of what was deleted",
		unix.EROFS:  "efivarfs is read-only: " + d.remount(),
		unix.EPERM:  "the firmware or the kernel refuses: a variable that is protected, or a kernel in lockdown",
		unix.EACCES: "only root may do that",
		unix.EIO:    "the firmware reports an error of the medium that it keeps variables on",
		unix.EINVAL: "the firmware does not take it: a variable of this name with other attributes, or firmware that cannot change variables while a system runs",
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w (%s)", err, text)
		}
	}
	return err
}

// cause takes away the path, which the message has already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
