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

// Charge returns how much the batteries hold that the system runs on, in mWh. A battery says so itself (energy_now), or how much current for how long (charge_now) and its voltage. Batteries
// of devices (scope "Device", as of a mouse) do not count. ok is false where there is no battery. One that does not say what it holds is an error: nobody may rely on it.
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
		if s.text("type") != "Battery" || s.text("scope") == "Device" || s.text("present") == "0" {
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

// supply is the directory of a power supply.
type supply struct {
	fsys fs.FS
	dir  string
}

// text is an attribute, empty if it cannot be read.
func (s supply) text(name string) string {
	b, err := fs.ReadFile(s.fsys, path.Join(s.dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
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
