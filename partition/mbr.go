package partition

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The partition table of a master boot record, by the rules of the Linux kernel
// (block/partitions/msdos.c and efi.c).
const (
	mbrSize      = 512
	mbrSignature = 0x1b8 // of the disk, in a PARTUUID
	mbrEntries   = 0x1be
	mbrProtects  = 0xee // type of an entry that stands for a GUID partition table

	firstLogical    = 5
	maxMBRPartition = 256 // the kernel has no more of a disk
	maxEmptyRecords = 100 // extended boot records in a row that have no partition
)

// mbrRecord is a sector with four entries: the first one of a disk, or that of a logical partition.
type mbrRecord [mbrSize]byte

// mbrEntry is an entry of a record. It counts in sectors of the disk.
type mbrEntry struct {
	flag, kind  byte
	start, size int64
}

func (r *mbrRecord) signed() bool { return r[510] == 0x55 && r[511] == 0xaa }

func (r *mbrRecord) entry(i int) mbrEntry {
	b := r[mbrEntries+16*i:]
	return mbrEntry{b[0], b[4], int64(binary.LittleEndian.Uint32(b[8:])), int64(binary.LittleEndian.Uint32(b[12:]))}
}

func (e mbrEntry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

// protective tells whether the record says that a GUID partition table counts (is_pmbr_valid in
// efi.c).
func (r *mbrRecord) protective() bool {
	for i := range 4 {
		if e := r.entry(i); e.kind == mbrProtects && e.start == 1 && r.signed() {
			return true
		}
	}
	return false
}

// hasTable tells whether the record is a partition table: a FAT file system has the same signature.
func (r *mbrRecord) hasTable() bool {
	used := false
	for i := range 4 {
		e := r.entry(i)
		if e.flag&0x7f != 0 {
			return false
		}
		used = used || e.kind != 0 && e.size != 0
	}
	return r.signed() && used
}

func readRecord(disk io.ReaderAt, off int64) (*mbrRecord, error) {
	var r mbrRecord
	if err := readFullAt(disk, r[:], off); err != nil {
		return nil, fmt.Errorf("boot record at %d: %w", off, err)
	}
	return &r, nil
}

// readMBR reads the partitions of a disk of size bytes with the record r, and where its table lies.
func readMBR(disk io.ReaderAt, r *mbrRecord, size int64, sector int) (table, error) {
	m := &mbrReader{disk: disk, size: size, sector: int64(sector), signature: binary.LittleEndian.Uint32(r[mbrSignature:])}
	m.table = table{kind: "MBR", sector: sector, places: []Extent{{Size: int64(sector)}}}
	for i := range 4 {
		e := r.entry(i)
		if e.size == 0 || e.kind == 0 || e.kind == mbrProtects {
			continue
		}
		if e.extended() {
			if err := m.logical(e); err != nil {
				return table{}, err
			}
			continue
		}
		m.add(i+1, e, e.start)
	}
	return m.table, nil
}

type mbrReader struct {
	table
	disk      io.ReaderAt
	size      int64 // of the disk, in bytes
	sector    int64
	signature uint32
	next      int // number of the logical partition that comes next; 0: 5
}

// add adds partition number index, which begins at sector start. One that is not within the disk is
// left out.
func (m *mbrReader) add(index int, e mbrEntry, start int64) {
	begin, size := start*m.sector, e.size*m.sector
	if begin <= 0 || begin > m.size || size > m.size-begin {
		m.notes = append(m.notes, fmt.Sprintf("partition %d of the MBR lies from sector %d to %d, and the disk has %d: it is ignored", index, start, start+e.size-1, m.size/m.sector))
		return
	}
	m.entries = append(m.entries, entry{
		index: index, uuid: fmt.Sprintf("%08x-%02x", m.signature, index), kind: fmt.Sprintf("0x%02x", e.kind), start: begin, size: size,
	})
}

// logical follows the chain of extended boot records in the partition whole (parse_extended in
// msdos.c).
func (m *mbrReader) logical(whole mbrEntry) error {
	at, length := whole.start, whole.size
	for empty := 0; empty <= maxEmptyRecords && m.next < maxMBRPartition; empty++ {
		m.next = max(m.next, firstLogical)
		off := at * m.sector
		if off < 0 || off > m.size-mbrSize {
			return fmt.Errorf("extended boot record at sector %d: the disk has %d", at, m.size/m.sector)
		}
		r, err := readRecord(m.disk, off)
		if err != nil {
			return err
		}
		if !r.signed() {
			return nil
		}
		m.places = append(m.places, Extent{Start: off, Size: m.sector})
		for i := range 4 {
			e := r.entry(i)
			if e.size == 0 || e.extended() || i >= 2 && !e.within(at, length, whole) {
				continue
			}
			m.add(m.next, e, at+e.start)
			m.next++
			empty = 0
		}
		link := mbrEntry{}
		for i := range 4 {
			if e := r.entry(i); e.size != 0 && e.extended() {
				link = e
				break
			}
		}
		if link.size == 0 {
			return nil
		}
		at, length = whole.start+link.start, link.size
	}
	return nil
}

// within tells whether the third or fourth entry of a record is taken by the kernel: old systems
// left garbage there.
func (e mbrEntry) within(at, length int64, whole mbrEntry) bool {
	begin := at + e.start
	return e.start+e.size <= length && begin >= whole.start && begin+e.size <= whole.start+whole.size
}
