// Package diskimage makes disk images with a GUID partition table, for tools, tests and demonstrations. It is not for devices: it makes a new file.
//
// Two images made of the same Layout are equal byte by byte if the layout gives every GUID.
package diskimage

import (
	"errors"
	"fmt"
	"os"
	"unicode/utf16"

	"github.com/diskfs/go-diskfs/partition/gpt"
)

// Types of partitions, from the UEFI specification and the Discoverable Partitions Specification.
const (
	EFISystem       = string(gpt.EFISystemPartition)
	LinuxFilesystem = string(gpt.LinuxFilesystem)
)

// alignment of partitions: that of common tools.
const alignment = 1 << 20

// maxName is the length of a partition name in units of UTF-16.
const maxName = 36

// Layout is a disk.
type Layout struct {
	SectorSize int    // 512 or 4096; 0 is 512
	GUID       string // of the disk; empty: a random one
	Partitions []Partition
}

// Partition is a partition of a Layout. It begins at a multiple of 1 MiB.
type Partition struct {
	Name string
	Size int64  // bytes, a multiple of the sector size
	Type string // GUID; empty: LinuxFilesystem
	UUID string // PARTUUID; empty: a random one
}

// Extent is where a partition lies in the image.
type Extent struct {
	Offset, Size int64 // bytes
}

// Create makes the image at path, which must not exist, as large as the layout needs, sparse. It returns where the partitions are, in their order.
func Create(path string, l Layout) (extents []Extent, err error) {
	if l.SectorSize == 0 {
		l.SectorSize = 512
	}
	table, extents, size, err := l.table()
	if err != nil {
		return nil, fmt.Errorf("disk image %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	err = f.Truncate(size)
	if err == nil {
		err = table.Write(f, size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("disk image %s: %w", path, err), os.Remove(path))
	}
	return extents, nil
}

// table lays the partitions out one after the other.
func (l Layout) table() (*gpt.Table, []Extent, int64, error) {
	if l.SectorSize != 512 && l.SectorSize != 4096 {
		return nil, nil, 0, fmt.Errorf("sector size %d is neither 512 nor 4096", l.SectorSize)
	}
	sector := int64(l.SectorSize)
	t := &gpt.Table{LogicalSectorSize: l.SectorSize, PhysicalSectorSize: l.SectorSize, GUID: l.GUID, ProtectiveMBR: true}
	var extents []Extent
	next := int64(alignment)
	for i, p := range l.Partitions {
		if p.Size <= 0 || p.Size%sector != 0 {
			return nil, nil, 0, fmt.Errorf("partition %q: %d bytes are no multiple of %d", p.Name, p.Size, sector)
		}
		if len(utf16.Encode([]rune(p.Name))) > maxName {
			return nil, nil, 0, fmt.Errorf("partition %q: the name has more than %d UTF-16 units", p.Name, maxName)
		}
		if p.Type == "" {
			p.Type = LinuxFilesystem
		}
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: i + 1, Start: uint64(next / sector), End: uint64((next+p.Size)/sector - 1), Size: uint64(p.Size),
			Type: gpt.Type(p.Type), Name: p.Name, GUID: p.UUID,
		})
		extents = append(extents, Extent{next, p.Size})
		next = (next + p.Size + alignment - 1) &^ (alignment - 1)
	}
	return t, extents, next + alignment, nil
}
