package partition

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// host is what the kernel says of mounts and block devices, in proc, sys and dev below root.
type host struct {
	root string
	lift bool // the write protection of eMMC boot partitions may be lifted
}

func (h host) path(elem ...string) string {
	return filepath.Join(append([]string{"/", h.root}, elem...)...)
}

// sysfs is the directory of a block device.
func (h host) sysfs(d devno, elem ...string) string {
	return h.path(append([]string{"sys/dev/block", d.String()}, elem...)...)
}

// mounts lists what is mounted. The number of a file system that has one of its own (btrfs) is replaced by that of its source.
func (h host) mounts() ([]mount, error) {
	b, err := os.ReadFile(h.path("proc/self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	mounts, err := parseMountinfo(b)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	for i, m := range mounts {
		if m.dev.major != 0 || !strings.HasPrefix(m.source, "/") {
			continue
		}
		d, ok, err := blockNumber(m.source)
		if err != nil {
			return nil, fmt.Errorf("list mounts: source of %s: %w", m.point, err)
		}
		if ok {
			mounts[i].dev = d
		}
	}
	return mounts, nil
}

// swaps lists what is swapped on. A kernel without swap has no such file.
func (h host) swaps() ([]string, error) {
	b, err := os.ReadFile(h.path("proc/swaps"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list swaps: %w", err)
	}
	return parseSwaps(b), nil
}

// blockNumber is the number of the block device at path. ok is false if there is none: nothing at
// all, or something else.
func blockNumber(path string) (number devno, ok bool, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); absent(err) {
		return devno{}, false, nil
	} else if err != nil {
		return devno{}, false, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return devno{}, false, nil
	}
	return numberOf(uint64(st.Rdev)), true, nil
}

func numberOf(dev uint64) devno { return devno{unix.Major(dev), unix.Minor(dev)} }

// absent tells whether err says that there is no such file. Any other error says nothing of whether
// there is one.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// related lists the devices that dir ("holders" or "slaves") of d names. A partition has no slaves.
func (h host) related(d devno, dir string) ([]devno, []string, error) {
	entries, err := os.ReadDir(h.sysfs(d, dir))
	if absent(err) {
		_, err = os.Stat(h.sysfs(d)) // it is known that there are none only of a device that is there
	}
	var (
		devs  []devno
		names []string
	)
	for _, e := range entries {
		n, errDev := h.number(h.sysfs(d, dir, e.Name(), "dev"))
		err = errors.Join(err, errDev)
		devs, names = append(devs, n), append(names, e.Name())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list %s of device %s: %w", dir, d, err)
	}
	return devs, names, nil
}

// number reads a "dev" file of sysfs.
func (h host) number(path string) (devno, error) {
	s, err := readLine(path)
	if err != nil {
		return devno{}, err
	}
	return parseDevno(s)
}

// child is a partition as the kernel knows it.
type child struct {
	index       int
	start, size int64 // bytes
	dev         devno
	name        string // of its node below /dev
}

// children lists the partitions that the kernel knows on a disk.
func (h host) children(disk devno) ([]child, error) {
	entries, err := os.ReadDir(h.sysfs(disk))
	if err != nil {
		return nil, fmt.Errorf("list partitions of device %s: %w", disk, err)
	}
	var children []child
	for _, e := range entries {
		if !e.IsDir() { // an attribute of the disk
			continue
		}
		partition, err := isPartition(h.sysfs(disk, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("list partitions of device %s: %w", disk, err)
		}
		if !partition {
			continue
		}
		c, err := h.child(h.sysfs(disk, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("list partitions of device %s: %w", disk, err)
		}
		children = append(children, c)
	}
	return children, nil
}

// isPartition tells whether the directory of a device is that of a partition.
func isPartition(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, "partition"))
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}

// child reads the directory of a partition. The kernel counts in sectors of 512 bytes there, whatever those of the disk.
func (h host) child(dir string) (child, error) {
	index, errIndex := readNumber(filepath.Join(dir, "partition"))
	start, errStart := readNumber(filepath.Join(dir, "start"))
	size, errSize := readNumber(filepath.Join(dir, "size"))
	dev, errDev := h.number(filepath.Join(dir, "dev"))
	name, errName := nodeName(dir)
	return child{int(index), start * 512, size * 512, dev, name}, errors.Join(errIndex, errStart, errSize, errDev, errName)
}

// nodeName is the name below /dev of the device with this directory.
func nodeName(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "uevent"))
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(b), "\n") {
		if name, ok := strings.CutPrefix(line, "DEVNAME="); ok && filepath.IsLocal(name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s names no device node", filepath.Join(dir, "uevent"))
}

func readLine(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

func readNumber(path string) (int64, error) {
	s, err := readLine(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<53 {
		return 0, fmt.Errorf("%s: %q is no count", path, s)
	}
	return n, nil
}

// errNoRootDevice: it is known that "/" is not mounted from a block device.
var errNoRootDevice = errors.New("the root file system is of no block device")

// rootDevice is the device that "/" is mounted from. Of a root in memory it is the device below:
// the one of the lowest layer of an overlay that is mounted where it says, or the one that systemd
// replaced. Without any the error wraps errNoRootDevice.
func (h host) rootDevice() (devno, error) {
	mounts, err := h.mounts()
	if err != nil {
		return devno{}, err
	}
	slices.Reverse(mounts) // the last one covers the others
	for _, m := range mounts {
		if m.point != "/" {
			continue
		}
		if m.dev.major != 0 {
			return m.dev, nil
		}
		d, ok, err := h.belowRoot(m, mounts)
		if err != nil {
			return devno{}, fmt.Errorf("the device below the root file system: %w", err)
		}
		if !ok {
			return devno{}, fmt.Errorf("%w: its source is %q", errNoRootDevice, m.source)
		}
		return d, nil
	}
	return devno{}, errors.New("no root file system is mounted")
}

// volatileRoot is the link to the device that was the root before systemd-volatile-root(8) put a
// file system in memory in its place.
const volatileRoot = "run/systemd/volatile-root"

// belowRoot is the device below a root that has none. ok is false if none is known. mounts has the
// last mount first.
func (h host) belowRoot(root mount, mounts []mount) (d devno, ok bool, err error) {
	target, err := os.Readlink(h.path(volatileRoot))
	if err == nil {
		if number, ok := strings.CutPrefix(target, "/dev/block/"); ok {
			d, err := parseDevno(number)
			return d, err == nil, err
		}
		return blockNumber(h.path(target))
	}
	if !absent(err) {
		return devno{}, false, err
	}
	for _, dir := range slices.Backward(root.lower) {
		for _, m := range mounts {
			if m.point != "/" && m.dev.major != 0 && (m.point == dir || strings.HasPrefix(dir, m.point+"/")) {
				return m.dev, true, nil
			}
		}
	}
	return devno{}, false, nil
}

// below lists d and the devices it is made of.
func (h host) below(d devno) ([]devno, error) {
	devs := []devno{d}
	for i := 0; i < len(devs); i++ {
		slaves, _, err := h.related(devs[i], "slaves")
		if err != nil {
			return nil, err
		}
		for _, s := range slaves {
			if !slices.Contains(devs, s) {
				devs = append(devs, s)
			}
		}
	}
	return devs, nil
}

// physicalDisk is the disk that the device's data lies on. It has to be one.
func (h host) physicalDisk(d devno) (devno, error) {
	devs, err := h.below(d)
	if err != nil {
		return devno{}, err
	}
	var disks []devno
	for _, dev := range devs {
		slaves, _, err := h.related(dev, "slaves")
		if err != nil {
			return devno{}, err
		}
		if len(slaves) > 0 { // made of others
			continue
		}
		disk, err := h.diskOf(dev)
		if err != nil {
			return devno{}, err
		}
		if !slices.Contains(disks, disk) {
			disks = append(disks, disk)
		}
	}
	if len(disks) != 1 {
		return devno{}, fmt.Errorf("device %s lies on %d disks", d, len(disks))
	}
	return disks[0], nil
}

// diskOf is the disk of a partition, or d itself.
func (h host) diskOf(d devno) (devno, error) {
	dir, err := filepath.EvalSymlinks(h.sysfs(d))
	if err != nil {
		return devno{}, fmt.Errorf("look up device %s: %w", d, err)
	}
	partition, err := isPartition(dir)
	if err != nil {
		return devno{}, fmt.Errorf("look up device %s: %w", d, err)
	}
	if !partition {
		return d, nil
	}
	disk, err := h.number(filepath.Join(filepath.Dir(dir), "dev"))
	if err != nil {
		return devno{}, fmt.Errorf("look up the disk of device %s: %w", d, err)
	}
	return disk, nil
}
