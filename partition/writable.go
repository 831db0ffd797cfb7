package partition

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/emmc"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// Writable returns an error that wraps fwu.ErrReadOnly if the kernel refuses writes to the place
// that spec names: a device that is read-only, the protection of an eMMC boot partition that
// LiftForceRO does not allow to lift, or a file on a file system that is mounted read-only. It
// writes nothing.
func (f Finder) Writable(ctx context.Context, spec string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t, _, err := f.locate(spec)
	if err != nil {
		return fmt.Errorf("find %s: %w", spec, err)
	}
	return host{f.Root, f.LiftForceRO}.writable(t)
}

func (h host) writable(t target) error {
	if !t.block {
		return writableFile(t.path)
	}
	disk, err := h.diskOf(t.dev)
	if err != nil {
		return err
	}
	protected, err := emmc.Protected(h.sysfs(disk))
	switch {
	case err != nil:
		return fmt.Errorf("write protection of %s: %w", t.path, err)
	case protected && h.lift:
		return nil
	case protected:
		return fmt.Errorf("%s: force_ro is set, the write protection of an eMMC boot partition; lift-force-ro = true in the configuration lets the service lift it while it writes: %w",
			t.path, fwu.ErrReadOnly)
	}
	for _, d := range []devno{t.dev, disk} {
		n, err := readNumber(h.sysfs(d, "ro"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("is %s read-only: %w", t.path, err)
		}
		if n != 0 {
			return fmt.Errorf("%s: the kernel has device %s read-only (blockdev --setrw, the switch of a card, or the driver): %w", t.path, d, fwu.ErrReadOnly)
		}
	}
	return nil
}

func writableFile(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", path, err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("%s: its file system is mounted read-only: %w", path, fwu.ErrReadOnly)
	}
	info, err := os.Stat(path)
	if err != nil {
		return cause(err)
	}
	if info.Mode().Perm()&0o200 == 0 {
		return fmt.Errorf("%s: the file may not be written (%v): %w", path, info.Mode().Perm(), fwu.ErrReadOnly)
	}
	return nil
}

// unprotect lifts the protection of an eMMC boot partition for a device that is opened to be
// written.
func (h host) unprotect(t target) (protect func() error, err error) {
	if !t.block || !h.lift {
		return func() error { return nil }, nil
	}
	disk, err := h.diskOf(t.dev)
	if err != nil {
		return nil, err
	}
	return emmc.Unprotect(h.sysfs(disk))
}
