// Package model is UEFI firmware as the update service has to reckon with it: its boot manager and its variables, for tests that cut their writes.
//
// The boot manager does what the UEFI specification says (2.11, section 3.1) and, where that leaves it open, what makes it hardest for us among what common firmware does
// (BdsEntry.c and UefiBootManagerLib of EDK II):
//
//   - BootNext is deleted before what it names is started. Where it cannot be deleted, that is started all the same.
//   - It starts what BootNext names even if the entry is not active.
//   - It adds an entry of its own for a device that is there, and takes it away when the device is gone. The new entry gets the lowest number that neither BootOrder nor BootNext has,
//     whatever variable has it; BootOrder is written first, then the entry, and where that fails BootOrder stays.
//   - It takes numbers out of BootOrder that have no variable.
//   - Where nothing in BootOrder can be started, it starts a shell on the shared boot partition, whose script (share/efi/startup.nsh) tries bank a, then bank b.
package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"unicode/utf16"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// ErrPowerCut is wrapped by the errors of variables whose power is gone. It ends a boot, where any other error only fails the access.
var ErrPowerCut = errors.New("power cut")

// Firmware is a machine's.
type Firmware struct {
	Variables efi.Variables
	Loaders   [2][16]byte // PARTUUIDs of the slots with the loaders of bank a and bank b
	File      string      // of the loader in a slot
	Plugged   bool        // there is a removable device, which cannot be started from
	First     bool        // what the firmware adds goes to the head of BootOrder
}

// Outcome is what a boot came to.
type Outcome struct {
	Bank        fwu.Bank // whose loader was started; NoBank: none could be
	CommandLine string   // what it got
	Current     []uint16 // what BootCurrent holds: the entry that was started; none: the fallback
}

// removable is the description of the firmware's own entry.
const removable = "UEFI Removable Device"

// Boot powers the machine on. bootable tells whether the loader of a bank can be read and started. The error is that of a power cut.
func (f Firmware) Boot(bootable func(fwu.Bank) bool) (Outcome, error) {
	next, err := f.numbers(efi.BootNext)
	if err != nil {
		return Outcome{}, err
	}
	if err := f.refresh(next); err != nil {
		return Outcome{}, err
	}
	if len(next) > 0 {
		if err := f.Variables.Delete(efi.BootNext); errors.Is(err, ErrPowerCut) {
			return Outcome{}, err
		}
		if out := f.start(next[0], false, bootable); out.Bank != fwu.NoBank {
			return out, nil
		}
	}
	order, err := f.numbers(efi.BootOrder)
	if err != nil {
		return Outcome{}, err
	}
	for _, n := range order {
		if out := f.start(n, true, bootable); out.Bank != fwu.NoBank {
			return out, nil
		}
	}
	for i := range f.Loaders {
		if bank := fwu.BankOf(i); bootable(bank) {
			return Outcome{Bank: bank, CommandLine: "fwu.bank=" + string(bank)}, nil
		}
	}
	return Outcome{}, nil
}

// numbers reads BootOrder or BootNext. What cannot be read is not there.
func (f Firmware) numbers(name string) ([]uint16, error) {
	v, err := f.Variables.Read(name)
	if errors.Is(err, ErrPowerCut) {
		return nil, err
	}
	return efi.ParseNumbers(v.Data), nil
}

func (f Firmware) option(n uint16) (efi.LoadOption, bool) {
	v, err := f.Variables.Read(efi.EntryName(n))
	if err != nil {
		return efi.LoadOption{}, false
	}
	o, err := efi.ParseLoadOption(v.Data)
	return o, err == nil
}

// start starts an entry, if it names the loader of a bank.
func (f Firmware) start(n uint16, mustBeActive bool, bootable func(fwu.Bank) bool) Outcome {
	o, ok := f.option(n)
	if !ok || mustBeActive && o.Attributes&efi.Active == 0 {
		return Outcome{}
	}
	p, file, ok := o.File()
	for i, uuid := range f.Loaders {
		if bank := fwu.BankOf(i); ok && p.UUID == uuid && file == f.File && bootable(bank) {
			return Outcome{Bank: bank, CommandLine: text(o.Optional), Current: []uint16{n}}
		}
	}
	return Outcome{}
}

func text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	return string(utf16.Decode(units))
}

// refresh makes the firmware's own entry match what is plugged in.
func (f Firmware) refresh(next []uint16) error {
	order, err := f.numbers(efi.BootOrder)
	if err != nil {
		return err
	}
	var fresh, own []uint16
	for _, n := range order {
		switch o, ok := f.option(n); {
		case ok && o.Description == removable:
			own = append(own, n)
		case ok:
			fresh = append(fresh, n)
		}
	}
	add := f.Plugged && len(own) == 0
	if add {
		own = []uint16{unused(order, next)}
	}
	found := fresh
	switch {
	case f.Plugged && f.First:
		found = append(slices.Clone(own), fresh...)
	case f.Plugged:
		found = append(slices.Clone(fresh), own...)
	}
	if !slices.Equal(found, order) {
		if err := f.write(efi.BootOrder, efi.AppendNumbers(nil, found...)); err != nil {
			return err
		}
	}
	if add {
		o := efi.LoadOption{Attributes: efi.Active, Description: removable, Path: []byte{0x7f, 0xff, 4, 0}}
		return f.write(efi.EntryName(own[0]), o.Append(nil))
	}
	if !f.Plugged {
		for _, n := range own {
			if err := f.Variables.Delete(efi.EntryName(n)); errors.Is(err, ErrPowerCut) {
				return err
			}
		}
	}
	return nil
}

func unused(used ...[]uint16) uint16 {
	for n := uint16(0); ; n++ {
		if !slices.ContainsFunc(used, func(u []uint16) bool { return slices.Contains(u, n) }) {
			return n
		}
	}
}

func (f Firmware) write(name string, data []byte) error {
	var err error
	if len(data) == 0 {
		err = f.Variables.Delete(name)
	} else {
		err = f.Variables.Write(name, efi.Variable{Attributes: efi.Attributes, Data: data})
	}
	if errors.Is(err, ErrPowerCut) {
		return err
	}
	return nil
}

// Running are the variables as a system sees them that was started: with BootCurrent, which is kept on no medium.
type Running struct {
	efi.Variables
	Current []uint16 // see Outcome
}

// Read returns a variable.
func (r Running) Read(name string) (efi.Variable, error) {
	switch {
	case name != efi.BootCurrent:
		return r.Variables.Read(name)
	case len(r.Current) == 0:
		return efi.Variable{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return efi.Variable{Attributes: 2 | 4, Data: efi.AppendNumbers(nil, r.Current...)}, nil
}
