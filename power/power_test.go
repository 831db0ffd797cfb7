package power

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

// supplies makes power supplies of lines "NAME ATTRIBUTE=VALUE ...".
func supplies(lines ...string) fstest.MapFS {
	fsys := fstest.MapFS{Dir: {Mode: fs.ModeDir | 0o755}}
	for _, l := range lines {
		f := strings.Fields(l)
		for _, a := range f[1:] {
			key, value, _ := strings.Cut(a, "=")
			fsys[path.Join(Dir, f[0], key)] = &fstest.MapFile{Data: []byte(value + "\n")}
		}
	}
	return fsys
}

func TestCharge(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		want  uint64
		ok    bool
		err   string
	}{
		"no supplies":                 {nil, 0, false, ""},
		"mains only":                  {[]string{"AC type=Mains online=1"}, 0, false, ""},
		"energy":                      {[]string{"BAT0 type=Battery energy_now=41230000"}, 41230, true, ""},
		"charge and voltage":          {[]string{"bq27 type=Battery charge_now=2500000 voltage_now=3700000"}, 9250, true, ""},
		"two batteries":               {[]string{"BAT0 type=Battery energy_now=1000000", "BAT1 type=Battery charge_now=1000000 voltage_now=12000000"}, 13000, true, ""},
		"a mouse":                     {[]string{"hid type=Battery scope=Device energy_now=1000000"}, 0, false, ""},
		"a mouse beside":              {[]string{"hid type=Battery scope=Device", "BAT0 type=Battery scope=System energy_now=5000"}, 5, true, ""},
		"a bay without battery":       {[]string{"BAT1 type=Battery present=0"}, 0, false, ""},
		"empty":                       {[]string{"BAT0 type=Battery energy_now=0"}, 0, true, ""},
		"it says nothing":             {[]string{"BAT0 type=Battery capacity=80"}, 0, true, "battery BAT0: it does not say what it holds"},
		"half of it":                  {[]string{"BAT0 type=Battery charge_now=2500000"}, 0, true, "does not say"},
		"negative":                    {[]string{"BAT0 type=Battery energy_now=-1"}, 0, true, "does not say"},
		"garbage":                     {[]string{"BAT0 type=Battery energy_now=full"}, 0, true, "does not say"},
		"out of all bounds":           {[]string{"BAT0 type=Battery charge_now=99999999999 voltage_now=3700000"}, 0, true, "does not say"},
		"the largest that is taken":   {[]string{"BAT0 type=Battery charge_now=2147483647 voltage_now=2147483647"}, 4611683235, true, ""},
		"one of two does not say it":  {[]string{"BAT0 type=Battery energy_now=1", "BAT1 type=Battery"}, 0, true, "battery BAT1"},
		"a supply without attributes": {[]string{"x y=1"}, 0, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok, err := Charge(supplies(c.lines...))
			if got != c.want || ok != c.ok || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%d, %v, %v", got, ok, err)
			}
		})
	}
	if _, ok, err := Charge(fstest.MapFS{}); ok || err != nil {
		t.Errorf("without sysfs: %v, %v", ok, err)
	}
}

func FuzzCharge(f *testing.F) {
	f.Add("Battery", "1000", "2000", "3000")
	f.Add("Battery", "", "9223372036854775807", "9223372036854775807")
	f.Fuzz(func(t *testing.T, kind, energy, charge, voltage string) {
		fsys := fstest.MapFS{}
		for name, v := range map[string]string{"type": kind, "energy_now": energy, "charge_now": charge, "voltage_now": voltage} {
			fsys[path.Join(Dir, "x", name)] = &fstest.MapFile{Data: []byte(v)}
		}
		if n, ok, err := Charge(fsys); n > 1<<33 || n > 0 && !ok || err != nil && !ok {
			t.Errorf("%d, %v, %v", n, ok, err)
		}
	})
}

// unreadable is a file system of which a file gives an error, as an attribute of sysfs may.
type unreadable struct {
	fstest.MapFS
	name string
}

func (u unreadable) Open(name string) (fs.File, error) {
	if name == path.Join(Dir, u.name) {
		return nil, &fs.PathError{Op: "read", Path: name, Err: syscall.ENODATA}
	}
	return u.MapFS.Open(name)
}

func (u unreadable) ReadFile(name string) ([]byte, error) {
	f, err := u.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// TestUnreadableSupply has a system that runs on a battery, or on something of which that is not
// known.
func TestUnreadableSupply(t *testing.T) {
	all := supplies("BAT0 type=Battery scope=System present=1 energy_now=1000", "AC type=Mains online=1")
	for _, name := range []string{"BAT0/type", "BAT0/scope", "BAT0/present", "BAT0/energy_now", "AC/type"} {
		if n, ok, err := Charge(unreadable{all, name}); !ok || !errors.Is(err, syscall.ENODATA) {
			t.Errorf("%s cannot be read, and Charge says %d, %v, %v", name, n, ok, err)
		}
	}
	if _, _, err := Charge(unreadable{all, "AC/scope"}); err != nil { // no battery, whatever its scope
		t.Error(err)
	}
}
