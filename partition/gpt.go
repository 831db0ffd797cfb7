package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Bounds on what a table may ask for, and sizes of the UEFI specification.
const (
	gptHeaderSize = 92
	gptEntrySize  = 128
	maxGPTEntries = 1024
)

// errNoGPT: there is no such table, neither a good nor a damaged one.
var errNoGPT = errors.New("no GUID partition table")

// readGPT reads the table of a disk of size bytes: the primary one, or, if that is damaged, the backup at the end of the disk.
// The error wraps errNoGPT only if there is neither, damaged ones included.
func readGPT(disk io.ReaderAt, size int64, sector int) (table, error) {
	if size/int64(sector) < 6 {
		return table{}, errNoGPT
	}
	last := uint64(size/int64(sector)) - 1
	primary, err := checkGPT(disk, last, sector, 1)
	backup, errBackup := checkGPT(disk, last, sector, last)
	t := primary
	var notes []string
	switch {
	case errors.Is(err, errNoGPT) && errors.Is(errBackup, errNoGPT):
		return table{}, errNoGPT
	case err != nil && errBackup != nil:
		return table{}, fmt.Errorf("GUID partition table: primary: %v; backup: %v", err, errBackup) // errNoGPT of one of them is not that of the disk
	case err != nil:
		t = backup
		notes = append(notes, fmt.Sprintf("the primary GUID partition table is damaged (%v), and the backup is used: gdisk or sgdisk can rebuild it", err))
	case primary.alternate() != last:
		notes = append(notes, fmt.Sprintf("the backup of the GUID partition table is at sector %d, not at the end of the disk (%d): sgdisk -e moves it", primary.alternate(), last))
		_, errBackup = checkGPT(disk, last, sector, primary.alternate())
	}
	if err == nil && errBackup != nil {
		notes = append(notes, fmt.Sprintf("the backup of the GUID partition table is damaged (%v): sgdisk -e writes it", errBackup))
	}
	entries, err := t.parse(last)
	if err != nil {
		return table{}, fmt.Errorf("GUID partition table: %w", err)
	}
	return table{kind: "GPT", sector: sector, entries: entries, places: t.places(last), notes: notes}, nil
}

// alternate is the sector of the other header.
func (t gptTable) alternate() uint64 { return binary.LittleEndian.Uint64(t.header[32:]) }

// places lists the bytes that both tables occupy. The one that was not read is where it belongs.
func (t gptTable) places(last uint64) []Extent {
	sector := int64(t.sector)
	first := int64(binary.LittleEndian.Uint64(t.header[72:])) * sector
	length := (int64(len(t.entries)) + sector - 1) / sector * sector
	end := int64(last) * sector
	return []Extent{{Size: 2 * sector}, {Start: 2 * sector, Size: length}, {Start: first, Size: length}, {Start: end - length, Size: length + sector}}
}

// gptTable is a table that was checked: its header, and its entries.
type gptTable struct {
	sector          int
	header, entries []byte
}

// checkGPT reads the header at lba and the entries that it points to. It takes memory for neither before it knows how much that can be.
func checkGPT(disk io.ReaderAt, last uint64, sector int, lba uint64) (gptTable, error) {
	header := make([]byte, sector)
	if err := readFullAt(disk, header, int64(lba)*int64(sector)); err != nil {
		return gptTable{}, fmt.Errorf("header at sector %d: %w", lba, err)
	}
	first, count, err := checkGPTHeader(header, last, lba)
	if err != nil {
		return gptTable{}, fmt.Errorf("header at sector %d: %w", lba, err)
	}
	entries := make([]byte, count*gptEntrySize)
	if err := readFullAt(disk, entries, int64(first)*int64(sector)); err != nil {
		return gptTable{}, fmt.Errorf("entries at sector %d: %w", first, err)
	}
	if crc32.ChecksumIEEE(entries) != binary.LittleEndian.Uint32(header[88:]) {
		return gptTable{}, fmt.Errorf("entries at sector %d: the checksum is wrong", first)
	}
	return gptTable{sector: sector, header: header, entries: entries}, nil
}

// checkGPTHeader checks a header (UEFI specification 2.11, table 5.5) and returns the sector of the first entry and the number of entries.
func checkGPTHeader(b []byte, last, lba uint64) (first uint64, count int, err error) {
	if string(b[:8]) != "EFI PART" {
		return 0, 0, errNoGPT
	}
	le := binary.LittleEndian
	n := le.Uint32(b[12:])
	if n < gptHeaderSize || int64(n) > int64(len(b)) {
		return 0, 0, fmt.Errorf("its size is %d", n)
	}
	sum := bytes.Clone(b[:n])
	clear(sum[16:20])
	if crc32.ChecksumIEEE(sum) != le.Uint32(b[16:]) {
		return 0, 0, errors.New("the checksum is wrong")
	}
	if revision := le.Uint32(b[8:]); revision>>16 != 1 {
		return 0, 0, fmt.Errorf("revision %#x is not known", revision)
	}
	if my := le.Uint64(b[24:]); my != lba {
		return 0, 0, fmt.Errorf("it belongs at sector %d", my)
	}
	first, entries, entrySize := le.Uint64(b[72:]), le.Uint32(b[80:]), le.Uint32(b[84:])
	if entries == 0 || entries > maxGPTEntries || entrySize != gptEntrySize {
		return 0, 0, fmt.Errorf("%d entries of %d bytes are not supported", entries, entrySize)
	}
	sectors := (uint64(entries)*gptEntrySize + uint64(len(b)) - 1) / uint64(len(b))
	if first < 2 || first > last || sectors > last-first {
		return 0, 0, fmt.Errorf("entries at sector %d of %d", first, last)
	}
	from, to := le.Uint64(b[40:]), le.Uint64(b[48:])
	if lba == 1 && to >= last && to < 1<<48 {
		return 0, 0, fmt.Errorf("it is of a disk of at least %d sectors, and this one has %d: usable sectors from %d to %d; the image was cut, or copied to a smaller disk", to+2, last+1, from, to)
	}
	if from < 2 || to < from || to >= last {
		return 0, 0, fmt.Errorf("usable sectors from %d to %d of %d", from, to, last)
	}
	return first, int(entries), nil
}

// parse reads the entries (UEFI specification 2.11, table 5.6). One without a type is unused.
func (t gptTable) parse(last uint64) ([]entry, error) {
	var entries []entry
	le := binary.LittleEndian
	for i := range len(t.entries) / gptEntrySize {
		b := t.entries[i*gptEntrySize:][:gptEntrySize]
		if kind := b[:16]; bytes.Equal(kind, make([]byte, 16)) {
			continue
		}
		first, end := le.Uint64(b[32:]), le.Uint64(b[40:])
		if first < 2 || end < first || end >= last {
			return nil, fmt.Errorf("partition %d lies from sector %d to %d of %d", i+1, first, end, last)
		}
		entries = append(entries, entry{
			index: i + 1, label: gptName(b[56:]), uuid: guid(b[16:]), kind: guid(b),
			start: int64(first) * int64(t.sector), size: int64(end-first+1) * int64(t.sector),
		})
	}
	return entries, nil
}

// guid is an EFI_GUID as text: the first three numbers are little-endian (appendix A).
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// gptName is the name of a partition, in UTF-16 up to the first NUL.
func gptName(b []byte) string {
	var units []uint16
	for ; len(b) > 1; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

func readFullAt(r io.ReaderAt, b []byte, off int64) error { return cause(fwu.ReadFull(r, b, off)) }
