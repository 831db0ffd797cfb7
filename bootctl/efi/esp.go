package efi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// ESP is a file of variables on the EFI system partition, where that is mounted. It keeps nothing
// open and remembers nothing.
type ESP struct {
	Dir  string // where the partition is mounted
	Name string // of the file
	// Statfs asks for the file system of a path; nil: the kernel.
	Statfs func(path string, st *unix.Statfs_t) error
}

var _ Store = (*ESP)(nil)

// fresh is the new file until it takes the place of the old one. The name needs one entry of a FAT
// directory.
const fresh = "FWU-AB.NEW"

func (e *ESP) String() string { return filepath.Join(e.Dir, e.Name) }

// statfs asks for the file system of the directory. It must be FAT: firmware reads no other, and
// where nothing is mounted the directory is the root file system's.
func (e *ESP) statfs() (st unix.Statfs_t, err error) {
	statfs := e.Statfs
	if statfs == nil {
		statfs = unix.Statfs
	}
	if err := statfs(e.Dir, &st); err != nil {
		return st, fmt.Errorf("EFI system partition in %s: %w", e.Dir, err)
	}
	if int64(st.Type) != unix.MSDOS_SUPER_MAGIC {
		return st, fmt.Errorf("EFI system partition in %s: no FAT file system is mounted there", e.Dir)
	}
	return st, nil
}

// Check says why the file cannot be written.
func (e *ESP) Check() error {
	st, err := e.statfs()
	if err != nil {
		return err
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("EFI system partition in %s: it is mounted read-only: mount -o remount,rw %s; where it is not below /boot or /efi, "+
			"a drop-in of fwu-ab.service needs ReadWritePaths=%s", e.Dir, e.Dir, e.Dir)
	}
	return e.shared()
}

// Read returns the content as the medium has it.
func (e *ESP) Read() ([]byte, error) {
	if _, err := e.statfs(); err != nil {
		return nil, err
	}
	return readMedium(e.String())
}

// readMedium reads a file, but not from memory.
func readMedium(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, cause(err)
	}
	if !info.Mode().IsRegular() || info.Size() > MaxStore {
		return nil, fmt.Errorf("a %v of %d bytes is no file of variables", info.Mode().Type(), info.Size())
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, fmt.Errorf("read from the medium: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxStore+1))
	if err == nil && int64(len(b)) != info.Size() {
		err = fmt.Errorf("%d bytes of %d: %w", len(b), info.Size(), io.ErrUnexpectedEOF)
	}
	return b, cause(err)
}

// Write makes b the content. On FAT, whatever instant the power is cut at, the name has the old
// content or the new one (package comment).
func (e *ESP) Write(b []byte) error {
	if err := e.Check(); err != nil {
		return err
	}
	old, err := os.OpenFile(e.String(), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cause(err)
	}
	defer old.Close() // the last thing: its clusters are free then
	path := filepath.Join(e.Dir, fresh)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, cause(err))
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, cause(err))
	}
	defer f.Close()
	if err := fill(f, path, b); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(cause(err), cause(os.Remove(path))))
	}
	if err := os.Rename(path, e.String()); err != nil {
		return fmt.Errorf("rename %s: %w", path, errors.Join(cause(err), cause(os.Remove(path))))
	}
	// First the name of the new file is gone, then that of the old one has its clusters.
	return errors.Join(syncDir(e.Dir), cause(f.Sync()))
}

// fill writes a new file, and reads it back from the medium before anything depends on it.
func fill(f *os.File, path string, b []byte) error {
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	got, err := readMedium(path)
	if err == nil && !bytes.Equal(got, b) {
		err = fwu.ErrReadBack
	}
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return cause(err)
	}
	defer d.Close()
	return cause(d.Sync())
}

// shared returns an error if a new file that a power cut left may have its clusters in common with
// the file: both begin with the same header. Who removed one would free the clusters of the other.
func (e *ESP) shared() error {
	left, err := readMedium(filepath.Join(e.Dir, fresh))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s in %s: %w", fresh, e.Dir, err)
	}
	now, err := readMedium(e.String())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", e, err)
	}
	if n := min(len(left), len(now), storeHeader); n == storeHeader && bytes.Equal(left[:n], now[:n]) {
		return fmt.Errorf("%s and %s in %s are one file after a power cut: unmount the EFI system partition, and repair it with fsck.fat -a", fresh, e.Name, e.Dir)
	}
	return nil
}

// Find finds the one of the directories at which the EFI system partition with the file is mounted.
// The file is the evidence: the firmware made it.
func (e *ESP) Find(dirs []string) (*ESP, error) {
	var found []*ESP
	var mounted []string
	var first unix.Stat_t
	for _, dir := range dirs {
		e := &ESP{dir, e.Name, e.Statfs}
		if _, err := e.statfs(); err != nil {
			continue
		}
		mounted = append(mounted, dir)
		var st unix.Stat_t
		switch err := unix.Lstat(e.String(), &st); {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("%s: %w", e, err)
		case len(found) == 0:
			first = st
		case st.Dev == first.Dev: // mounted twice
			continue
		}
		found = append(found, e)
	}
	if len(found) == 1 {
		return found[0], nil
	}
	why := "no FAT file system is mounted at " + strings.Join(dirs, ", ")
	switch {
	case len(found) > 1:
		why = fmt.Sprintf("%s and %s both have it", found[0].Dir, found[1].Dir)
	case len(mounted) > 0:
		why = strings.Join(mounted, ", ") + " does not have it"
	}
	return nil, fmt.Errorf("the firmware keeps its variables in %s on the EFI system partition, and %s: mount the one that it uses at one of them, or name the place with selector.efi.esp", e.Name, why)
}
