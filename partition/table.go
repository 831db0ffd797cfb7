package partition

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// entry is a partition of a table.
type entry struct {
	index             int
	label, uuid, kind string
	start, size       int64 // bytes
}

// overlaps tells whether two partitions share a byte.
func (e entry) overlaps(o entry) bool {
	return e.start < o.start+o.size && o.start < e.start+e.size
}

// table is the partition table of a disk.
type table struct {
	kind    string // "GPT" or "MBR"
	sector  int    // size in bytes of the sectors in which it counts
	entries []entry
	places  []Extent // bytes of the disk that it occupies, without a path
	notes   []string // what is wrong with it although it can be read, for people
}

// errNoTable: the disk has no partition table, neither a good nor a damaged one.
var errNoTable = errors.New("no partition table")

// errStrayGPT: a GUID partition table is there that the kernel does not take.
var errStrayGPT = fmt.Errorf("%w that counts: there is a GUID partition table, and the first sector has no protective MBR for it (gdisk writes one)", errNoTable)

// readTable reads the table of a disk of size bytes as the kernel does: a GUID partition table
// counts only behind a protective MBR. sectors are the sizes of sectors that are possible.
func readTable(disk io.ReaderAt, size int64, sectors []int) (table, error) {
	if size < mbrSize {
		return table{}, errNoTable
	}
	r, err := readRecord(disk, 0)
	if err != nil {
		return table{}, err
	}
	if r.protective() {
		for _, sector := range sectors {
			t, err := readGPT(disk, size, sector)
			if !errors.Is(err, errNoGPT) {
				return t, err
			}
		}
		return table{}, errors.New("the first sector is a protective MBR, and there is no GUID partition table, neither at the beginning nor at the end")
	}
	if r.hasTable() {
		return readMBR(disk, r, size, sectors[0])
	}
	for _, sector := range sectors {
		if _, err := readGPT(disk, size, sector); err == nil {
			return table{}, errStrayGPT
		}
	}
	return table{}, errNoTable
}

// find returns the one partition that matches, and makes sure that no other shares its bytes.
func (t table) find(disk string, match func(entry) bool) (entry, error) {
	var found []entry
	var names []string
	for _, e := range t.entries {
		names = append(names, e.name())
		if match(e) {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		return entry{}, fmt.Errorf("%d partitions of %s match, 1 has to; its %s has: %v", len(found), disk, t.kind, names)
	}
	i := slices.IndexFunc(t.entries, func(e entry) bool { return e.index != found[0].index && e.overlaps(found[0]) })
	if i >= 0 {
		return entry{}, fmt.Errorf("partitions %d and %d of %s overlap", found[0].index, t.entries[i].index, disk)
	}
	return found[0], nil
}

// name is one by which a person can find the partition: its label, or its identifier where the
// table has no labels.
func (e entry) name() string {
	if e.label == "" {
		return "PARTUUID=" + e.uuid
	}
	return fmt.Sprintf("%q", e.label)
}
