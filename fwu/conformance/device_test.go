package conformance_test

import (
	"fmt"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/conformance"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
)

// device is this project's service in process, on a machine in memory.
type device struct{ *fwutest.Machine }

var _ conformance.Tamperer = device{}

func newDevice(t testing.TB, comps []conformance.Config) conformance.Implementation {
	d := device{fwutest.NewMachine()}
	d.provision(t, comps)
	if err := d.Reset(); err != nil {
		t.Fatal(err)
	}
	return d
}

// provision makes the device what the factory delivers.
func (d device) provision(t testing.TB, comps []conformance.Config) {
	live, sizes := true, map[string]int64{}
	for _, c := range comps {
		f := fwu.Component{ID: c.ID, Name: name(c.ID), Live: !c.Variant.Reboot, Volatile: c.Variant.Volatile, Manifest: c.Manifest}
		if f.Live {
			f.Trial = c.Variant.Trial
		} else {
			d.Config.Trial, live = c.Variant.Trial, false
		}
		d.Add(f, c.Size, c.Image)
		d.Config.Release[f.Name] = fwu.Release{Version: c.Version, Sequence: c.Sequence}
		sizes[f.Name] = int64(len(c.Image))
	}
	if live {
		d.Config.Selector = nil
	}
	if err := fwu.Provision(t.Context(), d.Config, sizes, false); err != nil {
		t.Fatal(err)
	}
	d.Config.Release = nil // the images of the suite bring none
}

func name(id fwu.ID) string { return fmt.Sprintf("c%d", id) }

func (d device) API() conformance.API { return d.Service }

func (d device) Close() error { return d.Stop() }

func (d device) Reboot(how conformance.Reboot) error {
	switch how {
	case conformance.Restart:
		return d.Restart()
	case conformance.Bypassed:
		return d.Boot(d.Config.Boot.Bank)
	case conformance.Failing:
		d.Selector.Next() // the trial is taken, does not come up, and the next reset finds none
	}
	return d.Reset()
}

// at is the medium of a location: what is linked for a component that needs no reboot, else what was booted, and its other half.
func (d device) at(id fwu.ID, l conformance.Location) *fwutest.Medium {
	a, b := d.Slots[name(id)+"_a"], d.Slots[name(id)+"_b"]
	inB := d.Config.Boot.Bank == fwu.BankB
	if link := d.System.Linked(name(id)); link != "" {
		inB = link == "/dev/"+name(id)+"_b"
	}
	if inB == (l == conformance.Active) {
		return b
	}
	return a
}

func (d device) Slot(id fwu.ID, l conformance.Location, n int) ([]byte, error) {
	return d.at(id, l).Bytes(n), nil
}

func (d device) Tamper(id fwu.ID) error {
	m := d.at(id, conformance.Second)
	b := m.Bytes(6)
	b[5] ^= 1
	_, err := m.WriteAt(b, 0)
	return err
}
