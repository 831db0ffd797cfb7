package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/fwu-ab/fwu-ab/config"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// builds tells whether --root names a tree that is not the running system.
func (m *machine) builds() bool { return m.root != "" && m.root != "/" }

// forBuild makes the configuration one of an image build: the disk is an image, and other paths lie
// in the tree. A device node is that of the device to be; the one with this name here is another
// one's.
func (m *machine) forBuild(disk string) error {
	m.deviceDisk = m.cfg.Disk
	if disk != "" {
		m.cfg.Disk = disk
	}
	var errs []error
	switch info, err := os.Stat(m.cfg.Disk); {
	case m.cfg.Disk == "" && m.usesTable():
		errs = append(errs, errors.New("--root needs the disk image: --disk FILE, or disk in the configuration; the disk that this machine was booted from is not the device's"))
	case m.cfg.Disk == "" || disk != "":
	case err != nil:
		errs = append(errs, fmt.Errorf("disk: %w; --disk FILE names the disk image", err))
	case !info.Mode().IsRegular():
		errs = append(errs, fmt.Errorf("disk %s is a device of the machine that builds: --disk FILE names the disk image", m.cfg.Disk))
	}
	place := func(what string, spec *string) {
		var err error
		if *spec, err = m.specInTree(*spec); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	for i := range m.cfg.Components {
		c := &m.cfg.Components[i]
		for j := range c.Slots {
			place(fmt.Sprintf("slot %s of %s", fwu.BankOf(j), c.Name), &c.Slots[j])
		}
	}
	place("the store", &m.cfg.Store.Device)
	return errors.Join(errs...)
}

// foreign tells whether a path of the boot environment is, in a build, one of the device to be:
// nothing is looked at under this name here.
func (m *machine) foreign(path string) bool {
	return m.build && m.builds() && strings.HasPrefix(path, "/") && path != m.cfg.Disk && !strings.HasPrefix(path, m.root+"/")
}

// specInTree returns the path in the tree that spec names. It fails for a device node.
func (m *machine) specInTree(spec string) (string, error) {
	if !strings.HasPrefix(spec, "/") || spec == m.cfg.Disk {
		return spec, nil
	}
	path, err := config.InTree(m.root, spec)
	if err != nil {
		return spec, err
	}
	switch info, err := os.Stat(path); {
	case err != nil && strings.HasPrefix(spec, "/dev/"):
		return spec, fmt.Errorf("%s is a device, and a build writes to no device of this machine: name the partition by PARTLABEL= or PARTUUID=", spec)
	case err != nil:
		return spec, err
	case !info.Mode().IsRegular():
		return spec, fmt.Errorf("%s is no regular file: a build writes to no device of this machine", path)
	}
	return path, nil
}

// builtSlot is a slot in a file of the tree. On the device it has the path without the tree's.
type builtSlot struct {
	fwu.Slot
	path string
}

func (s builtSlot) Info() fwu.SlotInfo {
	info := s.Slot.Info()
	info.ID, info.Path = s.path, s.path
	return info
}
