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

// slotNumber is the device number of a slot, from its path, else from its PARTUUID.
func (r Running) slotNumber(s fwu.SlotInfo) (string, error) {
	n, err := r.number(s.Path)
	uuid := partUUID(s)
	if _, noUUID := suit.ParseUUID(uuid); err != nil && noUUID == nil {
		return r.number("/dev/disk/by-partuuid/" + strings.ToLower(uuid))
	}
	return n, err
}

// partUUID is the identity of a slot as the kernel writes it, without what package partition puts in front of a PARTUUID.
func partUUID(s fwu.SlotInfo) string { return strings.TrimPrefix(s.ID, "partuuid:") }

// number is the number "major:minor" of the block device at path: that of the node, or, where it is none, what sysfs says of a device of that name.
func (r Running) number(path string) (string, error) {
	real, err := filepath.EvalSymlinks(r.path(path))
	if err != nil {
		return "", err
	}
	if rel, err := filepath.Rel(r.path("/"), real); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s leads to %s, out of %s", path, real, r.path("/"))
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
		rdev := uint64(st.Rdev)
		return fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev)), nil
	}
	return r.numberOf(filepath.Base(real))
}

// numberOf is the number of the device that sysfs has under name.
func (r Running) numberOf(name string) (string, error) {
	text, err := r.read("/sys/class/block/"+name+"/dev", 1<<10)
	return strings.TrimSpace(text), err
}

// devices returns the numbers of the device at path and of all that it lies on.
func (r Running) devices(path string) map[string]bool {
	n, err := r.number(path)
	if err != nil {
		return nil
	}
	return r.below(n)
}

// below returns number and the numbers of all devices that it lies on.
func (r Running) below(number string) map[string]bool {
	seen := map[string]bool{number: true}
	for queue := []string{number}; len(queue) > 0 && len(seen) < maxDevices; queue = queue[1:] {
		for _, n := range r.parts(queue[0]) {
			if !seen[n] {
				seen[n] = true
				queue = append(queue, n)
			}
		}
	}
	return seen
}

// parts returns the numbers of the devices that a device-mapper or md device is made of, or that a loop device is on.
func (r Running) parts(number string) []string {
	dir := "/sys/dev/block/" + number
	var found []string
	entries, _ := os.ReadDir(r.path(dir + "/slaves")) // a partition has none
	for _, e := range entries {
		if n, err := r.numberOf(e.Name()); err == nil {
			found = append(found, n)
		}
	}
	if file, err := r.read(dir+"/loop/backing_file", 4<<10); err == nil && strings.HasPrefix(file, "/dev/") {
		if n, err := r.number(strings.TrimSpace(file)); err == nil {
			found = append(found, n)
		}
	}
	return found
}
