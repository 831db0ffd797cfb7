package main

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/config"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/test/lab"
)

// write makes a file below a root directory.
func write(t *testing.T, root, name, content string) string {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDeviceIdentifier(t *testing.T) {
	id, err := suit.ParseUUID("0123abcd-4567-89ab-cdef-0123456789ab")
	if err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]suit.UUID{
		"0123abcd456789abcdef0123456789ab\n":        id, // machine-id(5)
		"0123ABCD-4567-89ab-cdef-0123456789ab\n":    id, // dmi/id/product_uuid
		"":                                          {},
		"uninitialized\n":                           {},
		"0123abcd456789abcdef0123456789ab more":     {},
		"0123abcd456789abcdef0123456789ag":          {},
		"0123abcd-456789ab-cdef-0123-456789ab---\n": {},
	} {
		m := machine{root: t.TempDir(), cfg: &config.Config{DeviceFile: "/etc/machine-id"}}
		write(t, m.root, "etc/machine-id", content)
		if got, err := m.deviceID(); got != want || (err == nil) != (want != suit.UUID{}) {
			t.Errorf("%q: %v, %v", content, got, err)
		}
	}
	if got, err := (&machine{root: t.TempDir(), cfg: &config.Config{}}).deviceID(); got != (suit.UUID{}) || err != nil {
		t.Errorf("none configured: %v, %v", got, err)
	}
	if _, err := (&machine{root: t.TempDir(), cfg: &config.Config{DeviceFile: "/etc/machine-id"}}).deviceID(); err == nil {
		t.Error("a file that is not there is no error")
	}
}

// A clock that is behind the system that runs is wrong; one that is ahead may be right.
func TestTimeOfTheMachine(t *testing.T) {
	m := machine{root: t.TempDir()}
	if d := time.Since(m.time()); d < 0 || d > time.Minute {
		t.Errorf("without any file it is %v ago", d)
	}
	future := time.Now().Add(1000 * time.Hour).Truncate(time.Second)
	for name, at := range map[string]time.Time{config.ReleaseFile: future, "/usr/lib/clock-epoch": future.Add(-time.Hour)} {
		if err := os.Chtimes(write(t, m.root, name, ""), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.time(); !got.Equal(future) {
		t.Errorf("it is %v, want %v", got, future)
	}
}

func TestBatteryOfTheMachine(t *testing.T) {
	m := machine{root: t.TempDir()}
	if mWh, err := m.battery(); mWh != math.MaxInt64 || err != nil {
		t.Errorf("without a battery: %d, %v", mWh, err)
	}
	write(t, m.root, "sys/class/power_supply/BAT0/type", "Battery\n")
	if _, err := m.battery(); err == nil {
		t.Error("a battery that does not say what it holds is no error")
	}
	write(t, m.root, "sys/class/power_supply/BAT0/energy_now", "4100000\n")
	if mWh, err := m.battery(); mWh != 4100 || err != nil {
		t.Errorf("%d, %v", mWh, err)
	}
}

// An update knows of the device what the service knows, as far as the configuration can be read.
func TestOptionsOfAnUpdate(t *testing.T) {
	dir := t.TempDir()
	d, err := lab.New(dir, 1<<20, 1<<20, "detached")
	check(t, err)
	check(t, d.Write("etc/fwu-ab/fwu-ab.toml.d/10.toml", "[identity]\ndevice-file = \"/etc/machine-id\"\n[component.bootfw]\nclass-name = \"other board\"\n"))
	check(t, d.Write("etc/machine-id", "0123456789abcdef0123456789abcdef\n"))
	check(t, d.Write("sys/class/power_supply/BAT0/type", "Battery\n"))
	check(t, d.Write("sys/class/power_supply/BAT0/energy_now", "4100000\n"))
	o := options(d.Root)
	vendor := suit.VendorID("example.com")
	id, err := suit.ParseUUID("01234567-89ab-cdef-0123-456789abcdef")
	check(t, err)
	for component, class := range map[string]string{"rootfs": "demo board", "bootfw": "other board"} {
		if got, want := o.Device(component), (suit.Device{Vendor: vendor, Class: suit.ClassID(vendor, class), ID: id, VendorName: "example.com", ClassName: class}); got != want {
			t.Errorf("%s is %+v, want %+v", component, got, want)
		}
	}
	if mWh, err := o.Battery(); mWh != 4100 || err != nil {
		t.Errorf("%d mWh, %v", mWh, err)
	}
	if o := options(filepath.Join(dir, "nowhere")); o.Device != nil || o.Battery != nil {
		t.Errorf("without a configuration: %+v", o)
	}
}
