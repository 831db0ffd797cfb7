package partition

import (
	"bytes"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Some formats have a second header outside of the head, by which they are opened if the first one
// is gone. A slot is sealed there too: the one sector that has the signature of that header is
// stored inverted while the head is masked.
//
// Nothing has to be recorded of such a sector. It is masked if it has the signature inverted, and
// plain if it has the signature as it is. A sector is written whole or not at all, so that it
// always is one of the two.

// place is a sector that a slot is sealed at, and the signatures that are looked for there.
type place struct {
	off   int64 // of the sector
	marks []mark
}

// zfsMagic ends the configuration in a label of ZFS, before its checksum.
const zfsMagic = "\x11\x7a\x0c\xb1\x7a\xda\x10\x02"

// placesOf lists the places of a slot of size bytes.
func placesOf(size int64) []place {
	var places []place
	add := func(off int64, marks ...mark) {
		sector := off &^ (fwu.SectorSize - 1)
		if sector >= fwu.HeadSize && sector+fwu.SectorSize <= roundDown(size) {
			places = append(places, place{sector, marks})
		}
	}
	// LUKS2: the second header, behind a first one of 128 KiB to 4 MiB. cryptsetup looks for it at
	// all of them.
	for off := int64(128 << 10); off <= 4<<20; off *= 2 {
		add(off, mark{0, "SKUL\xba\xbe"})
	}
	// btrfs: copies of the superblock. U-Boot before 2020 took the newest of them.
	for _, off := range []int64{64 << 20, 256 << 30} {
		add(off, mark{0x40, "_BHRfS_M"})
	}
	// ZFS: the second label, and the two at the end.
	const label = 256 << 10
	end := size &^ (label - 1)
	for _, off := range []int64{label, end - 2*label, end - label} {
		add(off+label/2-fwu.SectorSize, mark{fwu.SectorSize - 40, zfsMagic})
	}
	add(size-512, mark{0, "EFI PART"}, mark{3, "NTFS    "})                                // the second header of a GUID partition table; NTFS: the second boot sector
	add(size-4096, mark{0, "EFI PART"})                                                    // the same table, sectors of 4096 bytes
	add(size&^(64<<10-1)-64<<10, mark{0, "\xfc\x4e\x2b\xa9"}, mark{0, "\xa9\x2b\x4e\xfc"}) // MD RAID, metadata 0.90, of either endianness
	add((size/512-16)&^7*512, mark{0, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00"})                 // MD RAID, metadata 1.0
	add(roundDown(size)-4096, mark{0, "\x02\x00\x00\x00\x00\x00\x34\x34"})                 // NILFS2: the second superblock
	return places
}

// isPlain tells whether the sector has one of the signatures, and isMasked whether it has one
// inverted.
func (p place) isPlain(sector []byte) bool { return p.has(sector) }

func (p place) isMasked(sector []byte) bool {
	inverted := bytes.Clone(sector)
	invert(inverted)
	return p.has(inverted)
}

func (p place) has(sector []byte) bool {
	for _, m := range p.marks {
		if m.in(sector) {
			return true
		}
	}
	return false
}

// sectorsIn calls do for each place that lies in b, bytes at off.
func sectorsIn(places []place, b []byte, off int64, do func(p place, sector []byte)) {
	for _, p := range places {
		if at := p.off - off; at >= 0 && at+fwu.SectorSize <= int64(len(b)) {
			do(p, b[at:at+fwu.SectorSize])
		}
	}
}

// isSealed tells whether any of b, plain bytes at off, is stored in another way than it is.
func (m *image) isSealed(b []byte, off int64) bool {
	found := off < fwu.HeadSize
	sectorsIn(m.places, b, off, func(p place, sector []byte) { found = found || p.isPlain(sector) })
	return found
}

// hide makes stored bytes of plain ones.
func (m *image) hide(b []byte, off int64) {
	mask(b, off)
	sectorsIn(m.places, b, off, func(p place, sector []byte) {
		if p.isPlain(sector) {
			invert(sector)
		}
	})
}

// show makes plain bytes of stored ones.
func (m *image) show(b []byte, off int64) {
	mask(b, off)
	sectorsIn(m.places, b, off, func(p place, sector []byte) {
		if p.isMasked(sector) {
			invert(sector)
		}
	})
}

// changePlaces changes each place that has a signature, plain or masked, and writes it in any case:
// it may have been read after a flush that failed. unreadable is called for a block that cannot be
// read, and returns whether to write it.
func (m *image) changePlaces(change func(p place, sector []byte), unreadable func(block []byte, err error) error) error {
	for _, p := range m.places {
		block, off := fwu.Buffer(blockSize), roundDown(p.off)
		sector := block[p.off-off:][:fwu.SectorSize]
		if err := m.dev.readFull(block, off); err != nil {
			if err := unreadable(block, err); err != nil {
				return err
			}
		} else if p.isPlain(sector) || p.isMasked(sector) {
			change(p, sector)
		} else {
			continue
		}
		if err := m.replace(block, off); err != nil {
			return err
		}
	}
	return nil
}

// maskPlaces seals the slot at its places, or makes them plain again.
func (m *image) maskPlaces(masked bool) error {
	return m.changePlaces(func(p place, sector []byte) {
		if p.isPlain(sector) == masked {
			invert(sector)
		}
	}, func(_ []byte, err error) error { return err })
}

// anyPlacePlain tells whether the slot could be opened by a second header.
func (m *image) anyPlacePlain() (bool, error) {
	for _, p := range m.places {
		block, off := fwu.Buffer(blockSize), roundDown(p.off)
		if err := m.dev.readFull(block, off); err != nil {
			return false, err
		}
		if p.isPlain(block[p.off-off:][:fwu.SectorSize]) {
			return true, nil
		}
	}
	return false, nil
}

// destroyPlaces overwrites each second header with zeroes, and each block that cannot be read.
func (m *image) destroyPlaces() error {
	return m.changePlaces(func(_ place, sector []byte) { clear(sector) }, func(block []byte, _ error) error {
		clear(block)
		return nil
	})
}
