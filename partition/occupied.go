package partition

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Occupant tells who has the bytes of a place on a device.
type Occupant struct {
	// Place is the partition that has the bytes, or the whole device where no partition has them.
	Place Extent
	// Mounted is where Place is mounted; empty: nowhere.
	Mounted string
	// Header tells whether Place begins with a file system or another header that a kernel or a
	// bootloader knows.
	Header bool
}

// Occupant looks at the partition that shares a byte with e. A negative start counts from the end.
// Bytes between partitions belong to nobody.
func (f Finder) Occupant(ctx context.Context, e Extent) (Occupant, error) {
	if err := ctx.Err(); err != nil {
		return Occupant{}, err
	}
	h := host{f.Root, f.LiftForceRO}
	t, err := wholeTarget(e.Path)
	if err != nil {
		return Occupant{}, fmt.Errorf("find %s: %w", e.Path, err)
	}
	if e.Start < 0 {
		e.Start += t.size
	}
	read, err := disk{t}.table()
	switch {
	case errors.Is(err, errNoTable):
	case err != nil:
		return Occupant{}, err
	default:
		place := entry{start: e.Start, size: e.Size}
		i := slices.IndexFunc(read.entries, place.overlaps)
		if i < 0 {
			return Occupant{}, nil
		}
		if t, _, err = (disk{t}).at(h, read.entries[i]); err != nil {
			return Occupant{}, err
		}
	}
	out := Occupant{Place: Extent{t.path, t.base, t.size}}
	if t.block && !t.window {
		if out.Mounted, err = h.mountPoint(t.dev); err != nil {
			return Occupant{}, err
		}
	}
	out.Header, err = t.hasHeader()
	return out, err
}

// mountPoint is where device d is mounted, "" if it is not.
func (h host) mountPoint(d devno) (string, error) {
	mounts, err := h.mounts()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.dev == d {
			return m.point, nil
		}
	}
	return "", nil
}

// HasHeader tells whether a place begins with a file system or another header that a kernel or a
// bootloader knows.
func HasHeader(e Extent) (bool, error) {
	return target{path: e.Path, base: e.Start, size: e.Size}.hasHeader()
}

// hasHeader looks at the head of t.
func (t target) hasHeader() (bool, error) {
	f, err := os.Open(t.path)
	if err != nil {
		return false, cause(err)
	}
	defer f.Close()
	head := make([]byte, min(fwu.HeadSize, t.size))
	if err := readFullAt(f, head, t.base); err != nil {
		return false, fmt.Errorf("read %s at %d: %w", t.path, t.base, err)
	}
	return hasHeader(head), nil
}

// Holds tells whether the file system that has the file at path lies on the slot, through dm, md
// and loop devices. It is false for a file system that has no block device, as an overlay: what
// such a file lies on is not known.
func (f Finder) Holds(ctx context.Context, spec, path string) (bool, error) {
	t, _, err := f.locate(spec)
	if err != nil {
		return false, fmt.Errorf("find %s: %w", spec, err)
	}
	if err := ctx.Err(); err != nil || !t.block {
		return false, err
	}
	h := host{f.Root, f.LiftForceRO}
	dev, err := h.deviceOfFile(path)
	if err != nil || dev == (devno{}) {
		return false, err
	}
	devs, err := h.above(t)
	if err != nil {
		return false, err
	}
	return slices.Contains(devs, dev), nil
}

// deviceOfFile is the block device whose file system has the file at path, zero if there is none.
func (h host) deviceOfFile(path string) (devno, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return devno{}, cause(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return devno{}, fmt.Errorf("stat %s: %w", path, err)
	}
	if dev := uint64(st.Dev); unix.Major(dev) != 0 {
		return devno{unix.Major(dev), unix.Minor(dev)}, nil
	}
	mounts, err := h.mounts() // btrfs has a number of its own; its mount says which device
	if err != nil {
		return devno{}, err
	}
	var best mount
	for _, m := range mounts {
		inside := path == m.point || strings.HasPrefix(path, strings.TrimSuffix(m.point, "/")+"/")
		if inside && len(m.point) >= len(best.point) {
			best = m
		}
	}
	if best.dev.major == 0 {
		return devno{}, nil
	}
	return best.dev, nil
}
