package partition

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Finder finds slots. A spec is one of
//
//	PARTLABEL=name   the partition with that label (exactly)
//	PARTUUID=uuid    the partition with that identifier: of a GUID partition table, or, as 9bdf2dc6-02, of an MBR
//	path             a block device or a regular file
//
// The first two are looked up on one disk only: the same label on a memory stick is not the device's. Every method looks anew.
type Finder struct {
	// Disk is the disk that has the partitions: a block device, or a regular file. Empty: the one that the root file system is mounted from, through dm and md.
	Disk string
	// Root is where proc, sys and dev are, for what the kernel says of devices; empty for "/". A path in a spec and Disk are taken as they are.
	Root string
	// LiftForceRO lifts the write protection of an eMMC boot partition while it is open to be
	// written.
	LiftForceRO bool
}

// Partition is a partition of the disk.
type Partition struct {
	Number int
	Label  string // empty in an MBR
	UUID   string // PARTUUID, in lower case
	Type   string // type GUID, in lower case; in an MBR as 0x83
	Start  int64  // on the disk, in bytes
	Size   int64
	Sector int    // size in bytes of the disk's sectors, in which its table counts
	Path   string // its node, or the disk and the start where there are no nodes
}

// Find makes a slot of what spec names. It opens nothing for writing, and does not look whether the slot is in use: Open does.
// To open the slot fails once spec names something else, or the same in another place.
func (f Finder) Find(ctx context.Context, spec string) (*Slot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h := host{f.Root, f.LiftForceRO}
	t, info, err := f.locate(spec)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", spec, err)
	}
	open := func(ctx context.Context, mode Mode) (Device, error) {
		now, infoNow, err := f.locate(spec) // a node of the partition may have appeared since, and be mounted: the window of the disk knows nothing of that
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", spec, err)
		}
		if now != t || infoNow != info {
			return nil, fmt.Errorf("%s is not where it was found", spec)
		}
		return h.openTarget(ctx, t, mode)
	}
	s := NewSlot(info, open, func() error { return h.frozen(t) })
	s.used = func() error { return h.busy(t) }
	s.writable = func() error { return h.writable(t) }
	return s, nil
}

// OpenDevice opens what spec names as a raw device, exclusively, for a record that lies there and has no image's form. It takes memory of any alignment, at multiples of 4096 bytes;
// what was written is durable after Sync.
func (f Finder) OpenDevice(ctx context.Context, spec string) (Device, error) {
	t, _, err := f.locate(spec)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", spec, err)
	}
	d, err := host{f.Root, f.LiftForceRO}.openTarget(ctx, t, Exclusive)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", t.path, err)
	}
	return d, nil
}

// Partitions lists the partitions of the disk.
func (f Finder) Partitions(ctx context.Context) ([]Partition, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d, err := f.disk()
	if err != nil {
		return nil, err
	}
	read, err := d.table()
	if err != nil {
		return nil, err
	}
	var partitions []Partition
	for _, e := range read.entries {
		t, path, err := d.at(host{f.Root, f.LiftForceRO}, e)
		if err != nil {
			return nil, err
		}
		partitions = append(partitions, Partition{e.index, e.label, e.uuid, e.kind, e.start, t.size, read.sector, path})
	}
	return partitions, nil
}

// locate finds what spec names.
func (f Finder) locate(spec string) (target, fwu.SlotInfo, error) {
	tag, value, _ := strings.Cut(spec, "=")
	var match func(entry) bool
	switch tag {
	case "PARTLABEL":
		match = func(e entry) bool { return e.label == value }
	case "PARTUUID":
		match = func(e entry) bool { return e.uuid == strings.ToLower(value) }
	default:
		return f.locatePath(spec)
	}
	d, err := f.disk()
	if err != nil {
		return target{}, fwu.SlotInfo{}, err
	}
	e, err := d.lookup(match)
	if err != nil {
		return target{}, fwu.SlotInfo{}, err
	}
	t, path, err := d.at(host{f.Root, f.LiftForceRO}, e)
	return t, fwu.SlotInfo{ID: "partuuid:" + e.uuid, Path: path, Size: e.size}, err
}

// locatePath describes a device or file. A partition has its PARTUUID for identity all the same:
// its node may get another name.
func (f Finder) locatePath(path string) (target, fwu.SlotInfo, error) {
	t, err := wholeTarget(path)
	if err != nil {
		return t, fwu.SlotInfo{}, err
	}
	info := fwu.SlotInfo{ID: path, Path: path, Size: t.size}
	if !t.block {
		return t, info, nil
	}
	uuid, err := host{f.Root, f.LiftForceRO}.partUUID(t.dev)
	if err == nil && uuid != "" {
		info.ID = "partuuid:" + uuid
	}
	return t, info, err
}

// wholeTarget describes all of the block device or regular file at path.
func wholeTarget(path string) (target, error) {
	info, err := os.Stat(path) // before it is opened: to open a FIFO would wait
	if err != nil {
		return target{}, cause(err)
	}
	dev, block, err := blockNumber(path)
	if err != nil {
		return target{}, err
	}
	if !block && !info.Mode().IsRegular() {
		return target{}, errors.New("it is neither a block device nor a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return target{}, cause(err)
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd) // an ioctl would tell 32 bits on some machines
	return target{path: path, dev: dev, block: block, size: size}, err
}

// partUUID is the identifier of a partition in the table of its disk, "" if dev is no partition or there is no such table.
func (h host) partUUID(dev devno) (string, error) {
	number, err := h.diskOf(dev)
	if err != nil || number == dev {
		return "", err
	}
	d, err := h.openDisk(number)
	if err != nil {
		return "", err
	}
	read, err := d.table()
	if errors.Is(err, errNoTable) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	c, err := h.child(h.sysfs(dev))
	if err != nil {
		return "", err
	}
	for _, e := range read.entries {
		if e.index == c.index && e.start == c.start && e.size == c.size {
			return e.uuid, nil
		}
	}
	return "", fmt.Errorf("the partition table of %s has changed since the kernel read it", d.path)
}

// disk is a disk with a partition table.
type disk struct{ target }

// disk is the one that was configured, or the booted one.
func (f Finder) disk() (disk, error) {
	if f.Disk != "" {
		t, err := wholeTarget(f.Disk)
		if err != nil {
			return disk{}, fmt.Errorf("disk %s: %w", f.Disk, err)
		}
		return disk{t}, nil
	}
	h := host{f.Root, f.LiftForceRO}
	root, err := h.rootDevice()
	if err != nil {
		return disk{}, fmt.Errorf("the booted disk is not known (the setting disk names one): %w", err)
	}
	number, err := h.physicalDisk(root)
	if err != nil {
		return disk{}, fmt.Errorf("the booted disk is not known (the setting disk names one): %w", err)
	}
	return h.openDisk(number)
}

// openDisk describes the disk with a device number.
func (h host) openDisk(number devno) (disk, error) {
	name, err := nodeName(h.sysfs(number))
	if err != nil {
		return disk{}, fmt.Errorf("device node of disk %s: %w", number, err)
	}
	path := h.path("dev", name)
	t, err := wholeTarget(path)
	if err != nil {
		return disk{}, fmt.Errorf("disk %s: %w", path, err)
	}
	if t.dev != number {
		return disk{}, fmt.Errorf("disk %s: it is device %s, not %s", path, t.dev, number)
	}
	return disk{t}, nil
}

// table reads the partition table. A block device has sectors of a size; that of a file is the one
// with which there is a table.
func (d disk) table() (table, error) {
	file, err := os.Open(d.path)
	if err != nil {
		return table{}, fmt.Errorf("partition table of %s: %w", d.path, cause(err))
	}
	defer file.Close()
	sizes := []int{512, 4096}
	if d.block {
		n, err := sectorSize(file)
		if err != nil {
			return table{}, fmt.Errorf("sector size of %s: %w", d.path, err)
		}
		sizes = []int{n}
	}
	t, err := readTable(file, d.size, sizes)
	if err != nil {
		return table{}, fmt.Errorf("partition table of %s: %w", d.path, err)
	}
	return t, nil
}

// lookup finds the one partition that matches.
func (d disk) lookup(match func(entry) bool) (entry, error) {
	t, err := d.table()
	if err != nil {
		return entry{}, err
	}
	return t.find(d.path, match)
}

// at is where partition e is accessed: its node, or a window of the disk if the kernel knows no partitions there. The path is for people.
func (d disk) at(h host, e entry) (target, string, error) {
	if d.block {
		children, err := h.children(d.dev)
		if err != nil {
			return target{}, "", err
		}
		if len(children) > 0 {
			t, err := d.node(h, children, e)
			return t, t.path, err
		}
	}
	t := d.target
	t.window, t.base, t.size = true, e.start, e.size
	return t, fmt.Sprintf("%s@%d", d.path, e.start), nil
}

// node is the device node of partition e, if that is where the table says.
func (d disk) node(h host, children []child, e entry) (target, error) {
	for _, c := range children {
		if c.index != e.index {
			continue
		}
		if c.start != e.start || c.size != e.size {
			return target{}, fmt.Errorf("partition %d of %s: the table says %d bytes at %d, the kernel %d at %d", e.index, d.path, e.size, e.start, c.size, c.start)
		}
		path := h.path("dev", c.name)
		n, ok, err := blockNumber(path)
		if err != nil {
			return target{}, err
		}
		if !ok || n != c.dev {
			return target{}, fmt.Errorf("partition %d of %s: %s is not device %s", e.index, d.path, path, c.dev)
		}
		return target{path: path, dev: c.dev, block: true, size: c.size}, nil
	}
	return target{}, fmt.Errorf("partition %d of %s: the kernel does not know it; it has to read the partition table again", e.index, d.path)
}
