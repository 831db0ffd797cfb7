package partition

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// target is a medium that a real slot lies on: a device, a regular file, or a part of one.
type target struct {
	path       string
	dev        devno // of the block device; zero for a regular file
	block      bool
	window     bool // [base, base+size) of path, not all of it
	base, size int64
}

// identity names the device or file that t lies on.
func (t target) identity() (identity, error) {
	if t.block {
		return identity{block: true, dev: t.dev}, nil
	}
	return identify(t.path)
}

// is tells whether path leads to the device or file that t lies on. A path to nothing does not.
func (t target) is(path string) (bool, error) {
	there, err := identify(path)
	if absent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	on, err := t.identity()
	return on == there, err
}

// busy returns an error that wraps fwu.ErrSlotBusy if the kernel says that t is used. O_EXCL knows too, but does not say by whom, and
// knows nothing of files and of windows.
func (h host) busy(t target) error {
	why, err := h.user(t)
	if err != nil {
		return err
	}
	if why != "" {
		return fmt.Errorf("%s: %w", why, fwu.ErrSlotBusy)
	}
	return nil
}

// user says by what t is used, "" if by nothing.
func (h host) user(t target) (string, error) {
	checks := []func(target) (string, error){h.swappedOn, h.looped}
	if t.block {
		checks = append([]func(target) (string, error){h.bootedFrom, h.mountedOn, h.held}, checks...)
	}
	for _, check := range checks {
		if why, err := check(t); err != nil || why != "" {
			return why, err
		}
	}
	return "", nil
}

func (h host) bootedFrom(t target) (string, error) {
	root, err := h.rootDevice()
	if errors.Is(err, errNoRootDevice) { // so it is not this one
		return "", nil
	}
	if err != nil {
		return "", err
	}
	devs, err := h.below(root)
	if err != nil || !slices.Contains(devs, t.dev) {
		return "", err
	}
	return "the running system's root file system is on it", nil
}

func (h host) mountedOn(t target) (string, error) {
	mounts, err := h.mounts()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.dev == t.dev {
			return "mounted on " + m.point, nil
		}
	}
	return "", nil
}

func (h host) held(t target) (string, error) {
	_, names, err := h.related(t.dev, "holders")
	if err != nil || len(names) == 0 {
		return "", err
	}
	return "held by " + names[0], nil
}

func (h host) swappedOn(t target) (string, error) {
	paths, err := h.swaps()
	if err != nil {
		return "", err
	}
	for _, p := range paths {
		on, err := t.is(p)
		if err != nil {
			return "", fmt.Errorf("look at what is swapped on: %w", err)
		}
		if on {
			return "swapped on", nil
		}
	}
	return "", nil
}

func (h host) looped(t target) (string, error) {
	loops, err := h.loopsOf(t)
	if err != nil || len(loops) == 0 {
		return "", err
	}
	return "attached to " + loops[0].name, nil
}

// loopsOf lists the loop devices that show a part of t, or of its bytes on the disk that it is a partition of.
func (h host) loopsOf(t target) ([]loop, error) {
	loops, err := h.loops()
	if err != nil || len(loops) == 0 {
		return nil, err
	}
	places := []target{t}
	if t.block {
		on, err := h.onDisk(t)
		if err != nil {
			return nil, err
		}
		places = append(places, on)
	}
	var of []loop
	for _, l := range loops {
		for _, place := range places {
			on, err := place.identity()
			if err != nil {
				return nil, err
			}
			if l.on == on && l.overlaps(place) {
				of = append(of, l)
				break
			}
		}
	}
	return of, nil
}

// overlaps tells whether l shows a part of t, if it shows the device or file that t lies on.
func (l loop) overlaps(t target) bool {
	return l.start < t.base+t.size && (l.size == 0 || t.base < l.start+l.size)
}

// onDisk is where a partition lies on its disk. What is none is returned as it is.
func (h host) onDisk(t target) (target, error) {
	disk, err := h.diskOf(t.dev)
	if err != nil || disk == t.dev {
		return t, err
	}
	c, err := h.child(h.sysfs(t.dev))
	if err != nil {
		return t, fmt.Errorf("look up where %s lies on its disk: %w", t.path, err)
	}
	return target{dev: disk, block: true, window: true, base: c.start + t.base, size: t.size}, nil
}

// frozen returns nil unless t, or a device that is made of it, is mounted writable or swapped on, or held by somebody who is not seen to have mounted it read-only.
func (h host) frozen(t target) error {
	devs, err := h.above(t)
	if err != nil {
		return err
	}
	mounts, err := h.mounts()
	if err != nil {
		return err
	}
	mounted := false
	for _, m := range mounts {
		if !slices.Contains(devs, m.dev) {
			continue
		}
		if !m.readOnly {
			return fmt.Errorf("%s is mounted writable on %s", t.path, m.point)
		}
		mounted = true
	}
	why, err := h.swappedOn(t)
	if err == nil && why != "" {
		err = fmt.Errorf("%s is %s", t.path, why)
	}
	if err != nil || mounted { // a file system is read-only wherever it is mounted
		return err
	}
	for _, d := range devs {
		if err := h.free(d); err != nil {
			return err
		}
	}
	return nil
}

// free returns nil if nobody holds device d. A mount does, though another mount namespace has it.
func (h host) free(d devno) error {
	name, err := nodeName(h.sysfs(d))
	if err != nil {
		return fmt.Errorf("look for the node of device %s: %w", d, err)
	}
	f, err := os.OpenFile(h.path("dev", name), os.O_RDONLY|unix.O_EXCL, 0) // udev looks at what was open for writing only
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s is held by another process or driver, or mounted where this process does not see it", name)
	}
	if err != nil {
		return fmt.Errorf("see whether anybody holds %s: %w", name, cause(err))
	}
	return f.Close()
}

// above lists t's device and those that are made of it: by dm, md or loop devices, and the partitions of any of them.
func (h host) above(t target) ([]devno, error) {
	var devs []devno
	if t.block {
		devs = append(devs, t.dev)
	}
	loops, err := h.loopsOf(t)
	if err != nil {
		return nil, err
	}
	for _, l := range loops {
		devs = append(devs, l.dev)
	}
	for i := 0; i < len(devs); i++ {
		more, _, err := h.related(devs[i], "holders")
		if err != nil {
			return nil, err
		}
		children, err := h.children(devs[i])
		if err != nil {
			return nil, err
		}
		for _, c := range children {
			more = append(more, c.dev)
		}
		for _, d := range more {
			if !slices.Contains(devs, d) {
				devs = append(devs, d)
			}
		}
	}
	return devs, nil
}
