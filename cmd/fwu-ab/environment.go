package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
)

// unusable is a selector in a place that must not be used: it answers with the reason, and writes nothing.
type unusable struct {
	selector
	why error
}

func (u unusable) Read() (fwu.Selection, error) { return fwu.Selection{}, u.why }
func (u unusable) Commit(fwu.Selection) error   { return u.why }
func (u unusable) Doctor() []string             { return nil }

// misplaced says why the copies of the boot environment must not be where they are.
func (m *machine) misplaced(ctx context.Context, locations []uboot.Location) error {
	var errs []error
	for _, l := range locations {
		errs = append(errs, m.misplacedCopy(ctx, l))
	}
	return errors.Join(errs...)
}

func (m *machine) misplacedCopy(ctx context.Context, l uboot.Location) error {
	if m.foreign(l.Path) {
		return nil
	}
	info, err := os.Stat(l.Path)
	if err != nil {
		return nil // to open it fails too, and says so
	}
	if info.Mode().IsRegular() {
		if err := m.environmentInSlot(ctx, l.Path); err != nil {
			return err
		}
	}
	o, err := m.finder.Occupant(ctx, place(l))
	if err != nil {
		return fmt.Errorf("boot environment in %s: %w", l, err)
	}
	if o.Mounted != "" {
		return fmt.Errorf("boot environment in %s: these bytes belong to the file system that is mounted on %s: it is not used; correct the place", l, o.Mounted)
	}
	return nil
}

// environmentInSlot refuses a file in a slot of the bank: each bank would have its own, and an update would replace it.
func (m *machine) environmentInSlot(ctx context.Context, path string) error {
	for _, c := range m.cfg.Components {
		for i, spec := range c.Slots {
			inside, err := m.finder.Holds(ctx, spec, path)
			if err != nil {
				continue // the component says what is wrong with its slot
			}
			if inside {
				return fmt.Errorf("boot environment in %s: the file lies in slot %s of %s, which an update replaces, and the other bank has another one: "+
					"it is not used; keep it on a file system that is no slot", path, fwu.BankOf(i), c.Name)
			}
		}
	}
	return nil
}

func place(l uboot.Location) partition.Extent {
	return partition.Extent{Path: l.Path, Start: l.Offset, Size: l.Size}
}

// free says why a blank or damaged copy of the environment must not be overwritten.
func (m *machine) free(ctx context.Context, l uboot.Location) error {
	o, err := m.finder.Occupant(ctx, place(l))
	if err != nil {
		return err
	}
	if o.Header {
		return fmt.Errorf("%w: %s holds no valid copy of the boot environment, and lies in %s, which begins with a file system or another known header: it is not overwritten; correct the place",
			fwu.ErrNoSelection, l, o.Place.Path)
	}
	return nil
}
