package model_test

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
	"github.com/fwu-ab/fwu-ab/bootctl/efi/model"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/sim"
)

const loader = `\linux.efi`

func slot(bank int) efi.Partition {
	return efi.Partition{Number: 1, UUID: [16]byte{15: byte(bank + 1)}}
}

func set(t *testing.T, v efi.Variables, name string, data ...byte) {
	t.Helper()
	if err := v.Write(name, efi.Variable{Attributes: efi.Attributes, Data: data}); err != nil {
		t.Fatal(err)
	}
}

// machine has entry 0 for bank a and entry 1 for bank b, and both can be started.
func machine(t *testing.T, v efi.Variables) *model.Firmware {
	t.Helper()
	for i := range 2 {
		o := efi.LoadOption{Attributes: efi.Active, Path: efi.FilePath(slot(i), loader), Optional: []byte{'x', 0}}
		set(t, v, efi.EntryName(uint16(i)), o.Append(nil)...)
	}
	return &model.Firmware{Variables: v, Loaders: [2][16]byte{slot(0).UUID, slot(1).UUID}, File: loader}
}

func boots(t *testing.T, f *model.Firmware, without fwu.Bank) model.Outcome {
	t.Helper()
	out, err := f.Boot(func(b fwu.Bank) bool { return b != without })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBootNextCountsOnce(t *testing.T) {
	f := machine(t, &model.Memory{})
	set(t, f.Variables, efi.BootOrder, 0, 0)
	for i, without := range []fwu.Bank{fwu.NoBank, fwu.BankB} { // also where it names what cannot be started
		set(t, f.Variables, efi.BootNext, 1, 0)
		want := []fwu.Bank{fwu.BankB, fwu.BankA}[i]
		if out := boots(t, f, without); out.Bank != want || !slices.Equal(out.Current, []uint16{uint16(want.Index())}) || out.CommandLine != "x" {
			t.Errorf("%+v, want bank %s", out, want)
		}
		if out := boots(t, f, without); out.Bank != fwu.BankA {
			t.Errorf("%+v in the boot after that", out)
		}
	}
}

func TestFallback(t *testing.T) {
	f := machine(t, &model.Memory{})
	for without, want := range map[fwu.Bank]fwu.Bank{fwu.NoBank: fwu.BankA, fwu.BankA: fwu.BankB, fwu.BankB: fwu.BankA} {
		if out := boots(t, f, without); out.Bank != want || out.Current != nil || out.CommandLine != "fwu.bank="+string(want) {
			t.Errorf("%+v without bank %q", out, without)
		}
	}
}

// TestDevices: an entry that nothing refers to is overwritten by that of a device, at the head of BootOrder or at its end.
func TestDevices(t *testing.T) {
	for first, want := range map[bool][]uint16{false: {0, 1}, true: {1, 0}} {
		f := machine(t, &model.Memory{})
		set(t, f.Variables, efi.BootOrder, 0, 0, 7, 0)
		f.Plugged, f.First = true, first
		for range 2 {
			if out := boots(t, f, fwu.NoBank); out.Bank != fwu.BankA {
				t.Errorf("%+v", out)
			}
		}
		if v, _ := f.Variables.Read(efi.BootOrder); !slices.Equal(efi.ParseNumbers(v.Data), want) {
			t.Errorf("BootOrder %v, want %v", v.Data, want)
		}
		f.Plugged = false
		boots(t, f, fwu.NoBank)
		if _, err := f.Variables.Read(efi.EntryName(1)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the entry of the device is still there: %v", err)
		}
	}
}

// TestFlash cuts every change of a variable at every place: the old or the new one is there.
func TestFlash(t *testing.T) {
	const size = 2 * sim.PageSize
	media := sim.New()
	media.Add("flash", 2*size)
	flash := func(m *sim.Media) model.Flash { return model.Flash{Medium: m.Medium("flash"), Size: size} }
	f := flash(media)
	values := [][]byte{nil, {1}, bytes.Repeat([]byte{2}, 3000), {3}, nil}
	base := media.Durable()
	media.Record(true)
	var after []int // position in the log after each change
	for _, v := range values[1:] {
		var err error
		if v == nil {
			err = f.Delete("v")
		} else {
			err = f.Write("v", efi.Variable{Attributes: 7, Data: v})
		}
		if err != nil {
			t.Fatal(err)
		}
		after = append(after, media.Position())
	}
	cuts := 0
	for c := range sim.Cuts(base, media.Log(), sim.Full) {
		cuts++
		v, err := flash(c.State.Media()).Read("v")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		n, _ := slices.BinarySearch(after, c.Position)
		if n == len(values)-1 {
			n--
		}
		if c.Position == after[n] {
			n++
		}
		if !bytes.Equal(v.Data, values[n]) && !bytes.Equal(v.Data, values[min(n+1, len(values)-1)]) {
			t.Errorf("cut %d.%d left %d bytes", c.Position, c.Shape, len(v.Data))
		}
	}
	t.Logf("%d cuts", cuts)
}
