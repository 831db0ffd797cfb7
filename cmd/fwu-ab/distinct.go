package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/config"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
)

// region is a part of a medium that has one purpose.
type region struct {
	what       string
	id         string // of a slot
	table      bool   // it is part of a partition table
	medium     medium
	start, end int64
}

// medium is the identity of a file or a device, whatever path leads to it.
type medium struct {
	device bool
	a, b   uint64
}

// distinct makes sure that slots, store, copies of the environment and partition tables share no
// byte: a slot that is the running image under another name would be overwritten. What cannot be
// found is left out: whoever needs it says so.
func (m *machine) distinct(ctx context.Context) error {
	regions, err := m.regions(ctx)
	errs := []error{err}
	reported := map[[2]string]bool{}
	for i, r := range regions {
		for _, s := range regions[:i] {
			switch {
			case r.table && s.table:
			case r.id != "" && r.id == s.id:
				errs = append(errs, fmt.Errorf("%s and %s are the same: %s", s.what, r.what, r.id))
			case r.medium == s.medium && r.start < s.end && s.start < r.end && !reported[[2]string{s.what, r.what}]:
				reported[[2]string{s.what, r.what}] = true
				errs = append(errs, fmt.Errorf("%s and %s overlap", s.what, r.what))
			}
		}
	}
	return errors.Join(errs...)
}

func (m *machine) regions(ctx context.Context) ([]region, error) {
	var out []region
	var errs []error
	known := map[string]bool{} // paths whose partition tables were added
	add := func(what, id string, e partition.Extent) {
		r, err := newRegion(what, id, e)
		errs = append(errs, err)
		if err != nil {
			return
		}
		out = append(out, r)
		if known[e.Path] {
			return
		}
		known[e.Path] = true
		tables, err := m.tables(ctx, e.Path)
		out, errs = append(out, tables...), append(errs, err)
	}
	for _, c := range m.cfg.Components {
		for i, spec := range c.Slots {
			what := fmt.Sprintf("slot %s of %s (%s)", fwu.BankOf(i), c.Name, spec)
			slot, findErr := m.finder.Find(ctx, spec)
			e, locateErr := m.finder.Locate(ctx, spec)
			if findErr == nil && locateErr == nil {
				add(what, slot.Info().ID, e)
			}
		}
	}
	if e, err := m.finder.Locate(ctx, m.cfg.Store.Device); err == nil {
		add("the store ("+m.cfg.Store.Device+")", "", e)
	}
	if m.cfg.Selector.Type != config.UBootSelector {
		return out, errors.Join(errs...)
	}
	locations, _ := m.environment(ctx, m.cfg.Selector.UBoot)
	for i, l := range locations {
		if m.foreign(l.Path) {
			continue
		}
		e, err := m.finder.Locate(ctx, l.Path)
		if err != nil {
			continue
		}
		if l.Offset < 0 { // from the end
			l.Offset += e.Size
		}
		add(fmt.Sprintf("copy %d of the boot environment (%s)", i, l), "", partition.Extent{Path: l.Path, Start: l.Offset, Size: l.Size})
	}
	return out, errors.Join(errs...)
}

// tables lists where the partition table lies on the disk of a device or file.
func (m *machine) tables(ctx context.Context, path string) ([]region, error) {
	places, err := m.finder.Reserved(ctx, path)
	if err != nil {
		return nil, err
	}
	var out []region
	for _, e := range places {
		r, err := newRegion("the partition table of "+e.Path, "", e)
		if err != nil {
			return nil, err
		}
		r.table = true
		out = append(out, r)
	}
	return out, nil
}

func newRegion(what, id string, e partition.Extent) (region, error) {
	r := region{what: what, id: id, start: e.Start}
	var st unix.Stat_t
	if err := unix.Stat(e.Path, &st); err != nil {
		return r, fmt.Errorf("%s: stat %s: %w", what, e.Path, err)
	}
	r.medium = medium{false, uint64(st.Dev), st.Ino}
	if t := st.Mode & unix.S_IFMT; t == unix.S_IFBLK || t == unix.S_IFCHR {
		disk, start, err := wholeDisk("/sys", uint64(st.Rdev))
		if err != nil {
			return r, fmt.Errorf("%s: look up %s: %w", what, e.Path, err)
		}
		r.medium = medium{true, uint64(t), disk}
		r.start += start
	}
	r.end = r.start + e.Size
	return r, nil
}

// wholeDisk is the disk that has a partition, and where that begins on it, as sysfs says (Documentation/ABI/stable/sysfs-block of the kernel). What is no partition, or not known there,
// is a disk of its own.
func wholeDisk(sys string, dev uint64) (disk uint64, start int64, err error) {
	dir := fmt.Sprintf("%s/dev/block/%d:%d/", sys, unix.Major(dev), unix.Minor(dev))
	sectors, err := os.ReadFile(dir + "start")
	if errors.Is(err, os.ErrNotExist) {
		return dev, 0, nil
	}
	if err != nil {
		return dev, 0, err
	}
	number, err := os.ReadFile(dir + "../dev") // dir is a link: not to be cleaned
	if err != nil {
		return dev, 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(sectors)), 10, 64)
	if err != nil {
		return dev, 0, err
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(string(number), "%d:%d", &major, &minor); err != nil {
		return dev, 0, fmt.Errorf("%q is no device number: %w", number, err)
	}
	return unix.Mkdev(major, minor), n * 512, nil
}
