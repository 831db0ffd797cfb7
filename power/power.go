// Package power reads what the kernel knows of batteries: /sys/class/power_supply, as Documentation/ABI/testing/sysfs-class-power of Linux defines it.
package power

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Dir is where the kernel has its power supplies, in its own file system.
const Dir = "sys/class/power_supply"

// Charge returns how much the batteries hold that the system runs on, in mWh. A battery says so
// itself (energy_now), or how much current for how long (charge_now) and its voltage. Batteries of
// devices (scope "Device", as of a mouse) do not count. ok is false where there is no battery. One
// that does not tell its charge is an error: nobody may rely on it. So is a supply that cannot be
// read: it may be a battery.
func Charge(fsys fs.FS) (mWh uint64, ok bool, err error) {
	entries, err := fs.ReadDir(fsys, Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	for _, e := range entries {
		s := supply{fsys, path.Join(Dir, e.Name())}
		counts, err := s.counts()
		if err != nil {
			return 0, true, fmt.Errorf("power supply %s: it may be a battery: %w", e.Name(), err)
		}
		if !counts {
			continue
		}
		n, err := s.charge()
		if err != nil {
			return 0, true, fmt.Errorf("battery %s: %w", e.Name(), err)
		}
		mWh, ok = mWh+n, true
	}
	return mWh, ok, nil
}

// counts tells whether the supply is a battery that the system runs on.
func (s supply) counts() (bool, error) {
	kind, errKind := s.text("type")
	scope, errScope := s.text("scope")
	present, errPresent := s.text("present")
	switch {
	case errKind != nil:
		return false, errKind
	case kind != "Battery":
		return false, nil
	}
	return scope != "Device" && present != "0", errors.Join(errScope, errPresent)
}

// supply is the directory of a power supply.
type supply struct {
	fsys fs.FS
	dir  string
}

// text is an attribute, empty if the supply does not have it.
func (s supply) text(name string) (string, error) {
	b, err := fs.ReadFile(s.fsys, path.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// number is an attribute in millionths. The kernel has signed ones, and bounds far above any battery.
func (s supply) number(name string) (uint64, error) {
	b, err := fs.ReadFile(s.fsys, path.Join(s.dir, name))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 31)
}

// charge is what the battery holds, in mWh.
func (s supply) charge() (uint64, error) {
	µWh, err := s.number("energy_now")
	if err == nil {
		return µWh / 1000, nil
	}
	µAh, aerr := s.number("charge_now")
	µV, verr := s.number("voltage_now")
	if aerr != nil || verr != nil {
		return 0, fmt.Errorf("it does not say what it holds: %w", errors.Join(err, aerr, verr))
	}
	return µAh / 1000 * (µV / 1000) / 1000, nil
}
