package bootctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
)

// maxDevices bounds a stack of block devices: more than any real one has.
const maxDevices = 64

// stack is a block device and all that it lies on.
type stack struct {
	numbers map[string]bool // major:minor
	files   map[string]bool // that loop devices are on, by path
	// complete tells whether everything is known that it lies on.
	complete bool
}

// slotNumber is the device number of a slot, from its path, else from its PARTUUID. That of a
// regular file is empty.
func (r Running) slotNumber(s fwu.SlotInfo) (string, error) {
	if info, err := os.Stat(r.path(s.Path)); err == nil && info.Mode().IsRegular() && !strings.HasPrefix(s.Path, "/dev/") {
		return "", nil
	}
	n, err := r.number(s.Path)
	uuid := partUUID(s)
	if _, noUUID := suit.ParseUUID(uuid); err != nil && noUUID == nil {
		return r.number("/dev/disk/by-partuuid/" + strings.ToLower(uuid))
	}
	return n, err
}

// partUUID is the identity of a slot as the kernel writes it, without what package partition puts in front of a PARTUUID.
func partUUID(s fwu.SlotInfo) string { return strings.TrimPrefix(s.ID, "partuuid:") }

// resolve follows the links of a path below Root, and does not leave Root.
func (r Running) resolve(path string) (string, error) {
	real, err := filepath.EvalSymlinks(r.path(path))
	if err != nil {
		return "", err
	}
	if rel, err := filepath.Rel(r.path("/"), real); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s leads to %s, out of %s", path, real, r.path("/"))
	}
	return real, nil
}

// number is the number "major:minor" of the block device at path: that of the node, or, where it is
// none, what sysfs says of a device of that name.
func (r Running) number(path string) (string, error) {
	real, err := r.resolve(path)
	if os.IsNotExist(err) && filepath.Dir(path) == "/dev" {
		return r.numberOf(filepath.Base(path))
	}
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return numberString(uint64(st.Rdev)), nil
	}
	return r.numberOf(filepath.Base(real))
}

func numberString(dev uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
}

// numberOf is the number of the device that sysfs has under name.
func (r Running) numberOf(name string) (string, error) {
	text, err := r.read("/sys/class/block/"+name+"/dev", 1<<10)
	return strings.TrimSpace(text), err
}

// devices returns the device at path and all that it lies on.
func (r Running) devices(path string) stack {
	n, err := r.number(path)
	if err != nil {
		return stack{}
	}
	return r.below(n)
}

// below returns the device with a number and all that it lies on. A device that sysfs does not have
// is not known.
func (r Running) below(number string) stack {
	s := stack{numbers: map[string]bool{number: true}, files: map[string]bool{}, complete: true}
	queue := []string{number}
	for ; len(queue) > 0 && len(s.numbers) < maxDevices; queue = queue[1:] {
		if _, err := os.Stat(r.path("/sys/dev/block/" + queue[0])); err != nil {
			s.complete = false
		}
		found := r.parts(queue[0])
		s.complete = s.complete && found.complete
		for f := range found.files {
			s.files[f] = true
		}
		for n := range found.numbers {
			if !s.numbers[n] {
				s.numbers[n] = true
				queue = append(queue, n)
			}
		}
	}
	s.complete = s.complete && len(queue) == 0
	return s
}

// parts returns the devices that a device-mapper or md device is made of, or what a loop device is
// on.
func (r Running) parts(number string) stack {
	dir := "/sys/dev/block/" + number
	s := stack{numbers: map[string]bool{}, files: map[string]bool{}, complete: true}
	entries, err := os.ReadDir(r.path(dir + "/slaves"))
	if err != nil && !os.IsNotExist(err) { // a partition has none
		s.complete = false
	}
	for _, e := range entries {
		n, err := r.numberOf(e.Name())
		if err != nil {
			s.complete = false
			continue
		}
		s.numbers[n] = true
	}
	file, err := r.read(dir+"/loop/backing_file", 4<<10)
	if os.IsNotExist(err) {
		return s
	}
	file = strings.TrimSuffix(file, "\n")
	s.files[file] = true
	switch below, known := r.loopOn(number, file); {
	case err != nil || !known:
		s.complete = false
	case below != "":
		s.numbers[below] = true
	}
	return s
}

// loopOn is the device that a loop device is on: that of the file system of its file, whatever name
// the file had when the loop device was made, in an initrd perhaps. known is false if that cannot
// be told.
func (r Running) loopOn(number, file string) (below string, known bool) {
	if node, err := r.node(number); err == nil {
		if info, err := loopStatus(node); err == nil {
			switch {
			case info.Rdevice != 0:
				return numberString(info.Rdevice), true
			case unix.Major(info.Device) != 0:
				return numberString(info.Device), true
			}
			return "", false
		}
	}
	if strings.HasPrefix(file, "/dev/") {
		if n, err := r.number(file); err == nil {
			return n, true
		}
	}
	return "", false
}

// node is the path of the node of a device.
func (r Running) node(number string) (string, error) {
	text, err := r.read("/sys/dev/block/"+number+"/uevent", 4<<10)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "DEVNAME="); ok && filepath.IsLocal(name) {
			return r.path("/dev/" + name), nil
		}
	}
	return "", fmt.Errorf("device %s has no node", number)
}

func loopStatus(path string) (*unix.LoopInfo64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return unix.IoctlLoopGetStatus64(int(f.Fd()))
}
