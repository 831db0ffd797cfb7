package bootctl

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/superblock"
)

// Partition is an entry of the partition table of the disk that has the slots.
type Partition struct {
	Number int
	Label  string
	UUID   string // PARTUUID, in lower case
	Path   string // its node
}

// rootParameter says which bank a parameter names, in one of the forms of root=
// (block/early-lookup.c of the kernel, systemd's fstab names).
func (r Running) rootParameter(key, value string) Evidence {
	e := Evidence{Source: "kernel command line", Text: key + "=" + value}
	if key == "roothash" { // systemd-veritysetup-generator(8): its first half is the PARTUUID of the data
		uuid, ok := uuidOfHash(value)
		if !ok {
			e.Text += " is no root hash"
			return e
		}
		value = "PARTUUID=" + uuid
	}
	kind, name, _ := strings.Cut(value, "=")
	switch strings.ToUpper(kind) {
	case "PARTUUID":
		return r.partUUIDParameter(e, strings.ToLower(name))
	case "PARTLABEL":
		return r.match(e, r.byLabel(name))
	case "UUID":
		return r.filesystemParameter(e, "/dev/disk/by-uuid/"+name, func(s superblock.Superblock) bool { return strings.EqualFold(s.UUID, name) })
	case "LABEL":
		return r.filesystemParameter(e, "/dev/disk/by-label/"+name, func(s superblock.Superblock) bool { return s.Label == name })
	}
	switch number, ok := deviceNumber(value); {
	case ok:
		return r.match(e, r.below(number))
	case value == "/dev/nfs" || value == "/dev/cifs":
		e.Foreign = true
		e.Text += " is on a network"
	case strings.HasPrefix(value, "/dev/"):
		return r.match(e, r.devices(value))
	}
	return e
}

func uuidOfHash(text string) (string, bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) < 16 {
		return "", false
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16]), true
}

// partUUIDParameter takes uuid and uuid/PARTNROFF=n, which is the partition n places behind.
func (r Running) partUUIDParameter(e Evidence, name string) Evidence {
	uuid, rest, hasOffset := strings.Cut(name, "/")
	if hasOffset {
		n, err := strconv.Atoi(strings.TrimPrefix(rest, "partnroff="))
		i := slices.IndexFunc(r.Table, func(p Partition) bool { return p.UUID == uuid })
		if err != nil || i < 0 {
			e.Text += " is not found in the partition table"
			return e
		}
		j := slices.IndexFunc(r.Table, func(p Partition) bool { return p.Number == r.Table[i].Number+n })
		if j < 0 {
			e.Text += " is not found in the partition table"
			return e
		}
		uuid = r.Table[j].UUID
	}
	for i, slots := range r.Slots {
		for _, s := range slots {
			if strings.EqualFold(partUUID(s), uuid) {
				e.Bank = fwu.BankOf(i)
				return e
			}
		}
	}
	if i := slices.IndexFunc(r.Table, func(p Partition) bool { return p.UUID == uuid }); i >= 0 {
		return r.match(e, r.devices(r.Table[i].Path))
	}
	return r.match(e, r.devices("/dev/disk/by-partuuid/"+uuid))
}

// byLabel returns the devices below the partition with a label: on the disk of the slots, else
// where udev has a link to.
func (r Running) byLabel(label string) stack {
	var found []Partition
	for _, p := range r.Table {
		if p.Label == label {
			found = append(found, p)
		}
	}
	if len(found) == 1 {
		return r.devices(found[0].Path)
	}
	return r.devices("/dev/disk/by-partlabel/" + label)
}

// filesystemParameter looks for the file system in the slots. Slots of both banks have the same one
// where both were filled with one image.
func (r Running) filesystemParameter(e Evidence, link string, is func(superblock.Superblock) bool) Evidence {
	var hit [2]bool
	for i, slots := range r.Slots {
		for _, s := range slots {
			sb, err := r.superblock(s.Path)
			hit[i] = hit[i] || err == nil && is(sb)
		}
	}
	linked := r.devices(link)
	switch {
	case hit[0] && hit[1]:
		e.Text += " is in slots of both banks"
	case hit[0] || hit[1]:
		e.Bank = fwu.BankOf(slices.Index(hit[:], true))
		if m := r.match(e, linked); m.Foreign { // a file system with the same identifier is elsewhere, too
			e.Text, e.Bank = e.Text+" is in a slot, and elsewhere too", fwu.NoBank
		}
	default:
		return r.match(e, linked)
	}
	return e
}

func (r Running) superblock(path string) (superblock.Superblock, error) {
	real, err := r.resolve(path)
	if err != nil {
		return superblock.Superblock{}, err
	}
	if info, err := os.Stat(real); err != nil || !info.Mode().IsRegular() && info.Mode()&os.ModeDevice == 0 {
		return superblock.Superblock{}, errors.Join(err, fmt.Errorf("%s is no device", path))
	}
	f, err := os.Open(real)
	if err != nil {
		return superblock.Superblock{}, err
	}
	defer f.Close()
	return superblock.Read(f)
}

// deviceNumber reads major:minor, and the hexadecimal form of older boot scripts.
func deviceNumber(value string) (string, bool) {
	if major, minor, ok := strings.Cut(value, ":"); ok {
		a, errA := strconv.ParseUint(major, 10, 12)
		b, errB := strconv.ParseUint(minor, 10, 20)
		return fmt.Sprintf("%d:%d", a, b), errA == nil && errB == nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(value, "0x"), 16, 32)
	return fmt.Sprintf("%d:%d", n>>8&0xfff, n&0xff|n>>12&0xfff00), err == nil // new_decode_dev in linux/kdev_t.h
}

// volatileRoot is the link to the device that was the root before systemd-volatile-root(8) put a
// file system in memory in its place.
const volatileRoot = "/run/systemd/volatile-root"

// rootDevice says which bank the mounted root file system lies in.
func (r Running) rootDevice() Evidence {
	e := Evidence{Source: "root device"}
	text, err := r.read("/proc/self/mountinfo", 8<<20)
	if err != nil {
		e.Text = err.Error()
		return e
	}
	mounts := parseMounts(text)
	i := lastIndex(mounts, func(m mount) bool { return m.point == "/" })
	if i < 0 {
		e.Text = "no mount of / in /proc/self/mountinfo"
		return e
	}
	m := mounts[i]
	e.Text = fmt.Sprintf("%s (%s, %s)", m.source, m.fstype, m.number)
	switch {
	case m.onDevice() && r.inMemory(m.number):
		e.Text += " is in memory"
		return e
	case m.onDevice():
		return r.match(e, r.below(m.number))
	case m.fstype == "overlay" || m.fstype == "tmpfs" || m.fstype == "ramfs" || m.fstype == "rootfs" || m.fstype == "aufs":
		return r.lowerRoot(e, m, mounts)
	case strings.HasPrefix(m.source, "/dev/"): // btrfs, for one, shows a number of its own
		return r.match(e, r.devices(m.source))
	}
	e.Foreign = true
	e.Text += " is no slot"
	return e
}

// inMemory tells whether a block device is a RAM disk.
func (r Running) inMemory(number string) bool {
	target, err := os.Readlink(r.path("/sys/dev/block/" + number))
	return strings.HasPrefix(number, "1:") || err == nil && strings.HasPrefix(filepath.Base(target), "zram")
}

// lowerRoot looks at the device below a root in memory: the device that systemd keeps a link to,
// and the read-only layers of an overlay where they are mounted.
func (r Running) lowerRoot(e Evidence, m mount, mounts []mount) Evidence {
	if target, err := os.Readlink(r.path(volatileRoot)); err == nil {
		e.Text += " over " + target
		if number, ok := strings.CutPrefix(target, "/dev/block/"); ok {
			return r.match(e, r.below(number))
		}
		return r.match(e, r.devices(target))
	}
	for _, dir := range m.lower {
		i := lastIndex(mounts, func(l mount) bool {
			return l.point != "/" && l.onDevice() && (l.point == dir || strings.HasPrefix(dir, l.point+"/"))
		})
		if i < 0 {
			continue
		}
		lower := r.match(e, r.below(mounts[i].number))
		if lower.Bank != fwu.NoBank {
			lower.Text = fmt.Sprintf("%s over %s (%s)", e.Text, mounts[i].source, mounts[i].number)
			return lower
		}
	}
	e.Text += ", which tells nothing"
	return e
}

func lastIndex(mounts []mount, is func(mount) bool) int {
	for i := len(mounts) - 1; i >= 0; i-- {
		if is(mounts[i]) {
			return i
		}
	}
	return -1
}

// match completes e with the bank whose slot is among the devices. Devices that are known down to
// the last, and none of which is a slot, contradict.
func (r Running) match(e Evidence, s stack) Evidence {
	var hit [2]bool
	known := s.complete
	for i, slots := range r.Slots {
		for _, slot := range slots {
			n, err := r.slotNumber(slot)
			known = known && err == nil
			hit[i] = hit[i] || err == nil && s.numbers[n] || s.files[slot.Path]
		}
	}
	switch {
	case hit[0] && hit[1]:
		e.Bank, e.Foreign = fwu.NoBank, true
		e.Text += " lies in slots of both banks"
	case hit[0]:
		e.Bank = fwu.BankA
	case hit[1]:
		e.Bank = fwu.BankB
	case known:
		e.Bank, e.Foreign = fwu.NoBank, true
		e.Text += " is no slot of either bank"
	default:
		e.Text += " is not found to be a slot of either bank"
	}
	return e
}

// mount is a line of mountinfo.
type mount struct {
	number, point, fstype, source string
	lower                         []string // directories below an overlay
}

// onDevice tells whether the file system has the number of a block device.
func (m mount) onDevice() bool { return !strings.HasPrefix(m.number, "0:") }

// parseMounts reads mountinfo in its order: the last of several mounts of a directory is on top.
// Lines that are none are left out.
func parseMounts(mountinfo string) []mount {
	var mounts []mount
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 2 {
			continue
		}
		m := mount{number: left[2], point: left[4], fstype: right[0], source: right[1]}
		if len(right) > 2 {
			for _, o := range strings.Split(right[2], ",") {
				// Before Linux 6.8 one option lists the layers, since then each may have its own.
				if dirs, ok := strings.CutPrefix(strings.Replace(o, "lowerdir+=", "lowerdir=", 1), "lowerdir="); ok {
					m.lower = append(m.lower, strings.Split(dirs, ":")...)
				}
			}
		}
		mounts = append(mounts, m)
	}
	return mounts
}
