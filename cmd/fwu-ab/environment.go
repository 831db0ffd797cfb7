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

// guarded is a selector whose places are looked at before each use. Where they must not or cannot
// be used, it answers with the reason, and writes nothing.
type guarded struct {
	*uboot.Selector
	check func() error
}

// Read returns the selection, as fwu.Selector demands.
func (g guarded) Read() (fwu.Selection, error) {
	if err := g.check(); err != nil {
		return fwu.Selection{}, err
	}
	return g.Selector.Read()
}

// Look returns the selection even where none can be committed.
func (g guarded) Look() (fwu.Selection, error) { return g.Selector.Read() }

// Commit makes s the selection, as fwu.Selector demands.
func (g guarded) Commit(s fwu.Selection) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.Selector.Commit(s)
}

// Repair brings a damaged copy back, as fwu.Repairer demands.
func (g guarded) Repair() error {
	if err := g.check(); err != nil {
		return err
	}
	return g.Selector.Repair()
}

// environmentUsable says why the copies of the boot environment must not, or cannot, be written
// where they are. An update that cannot be armed is not begun.
func (m *machine) environmentUsable(ctx context.Context, locations []uboot.Location) error {
	var errs []error
	for _, l := range locations {
		err := m.misplacedCopy(ctx, l)
		if err == nil && !m.foreign(l.Path) {
			if _, missing := os.Stat(l.Path); missing == nil {
				if err = m.finder.Writable(ctx, l.Path); err != nil {
					err = fmt.Errorf("boot environment in %s: %w", l, err)
				}
			}
		}
		errs = append(errs, err)
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

// environmentInSlot refuses a file in a slot of the bank: each bank would have its own, and an
// update would replace it.
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
