package partition

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Extent is where something lies: Size bytes from Start on in the device or file at Path.
type Extent struct {
	Path  string
	Start int64
	Size  int64
}

// Locate tells where spec lies, for somebody who opens it by other means than a Slot. Start is 0 if what spec names has a node of its own.
func (f Finder) Locate(ctx context.Context, spec string) (Extent, error) {
	if err := ctx.Err(); err != nil {
		return Extent{}, err
	}
	t, _, err := f.locate(spec)
	if err != nil {
		return Extent{}, fmt.Errorf("find %s: %w", spec, err)
	}
	return Extent{t.path, t.base, t.size}, nil
}

// Reserved lists the bytes that a partition table occupies on the disk that has the device at path,
// or in the file. It is empty where there is no table. Where a table is damaged, the bytes count
// that it usually occupies. Of a disk whose first sector the kernel cannot read nothing is known:
// whoever uses it meets the same error.
func (f Finder) Reserved(ctx context.Context, path string) ([]Extent, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, err := wholeTarget(path)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", path, err)
	}
	d := disk{t}
	if t.block {
		h := host{f.Root, f.LiftForceRO}
		number, err := h.diskOf(t.dev)
		if err != nil {
			return nil, err
		}
		if d, err = h.openDisk(number); err != nil {
			return nil, err
		}
	}
	read, err := d.table()
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		return nil, nil
	case errors.Is(err, errNoTable) && !errors.Is(err, errStrayGPT):
		return nil, nil
	case err != nil:
		const usual = 34 * 4096
		read.places = []Extent{{Size: usual}, {Start: max(0, d.size-usual), Size: usual}}
	}
	for i := range read.places {
		read.places[i].Path = d.path
	}
	return read.places, nil
}

// TableNotes lists the faults of the partition table of the disk although it can be read, for
// people.
func (f Finder) TableNotes(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d, err := f.disk()
	if err != nil {
		return nil, err
	}
	t, err := d.table()
	return t.notes, err
}
