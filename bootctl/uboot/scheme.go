package uboot

import (
	"fmt"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Scheme names the variables that a boot script looks at. The package comment says what each scheme promises.
type Scheme string

// The schemes.
const (
	// OneShot is the scheme of share/uboot/fwu-ab.cmd: fwu_active is the default bank, "a" or "b", and fwu_trial, "a", "b" or not there, the armed trial.
	// Any other value is treated as missing, as the script treats it.
	OneShot Scheme = "one-shot"
	// BootOrder is the scheme of boards prepared for RAUC: BOOT_ORDER, BOOT_A_LEFT and BOOT_B_LEFT.
	BootOrder Scheme = "boot-order"
	// BootCount is the scheme of boards prepared for Mender or SWUpdate: upgrade_available, bootcount and bootlimit, and the board's own variables for the bank.
	BootCount Scheme = "bootcount"
)

// scheme translates between variables and selection.
type scheme interface {
	// read returns the selection, and what is odd about the variables, for people.
	read(e *Env) (fwu.Selection, []string)
	// usable says why the variables cannot be read or written by this scheme.
	usable(e *Env) error
	// write makes e hold s, of which Default is a bank. Where e holds s already in every variable of the scheme, e is left as it is.
	write(e *Env, s fwu.Selection) error
}

func (c Config) scheme() (scheme, error) {
	if c.Scheme != BootCount && len(c.BankVariables) > 0 {
		return nil, fmt.Errorf("U-Boot boot scheme %q has no bank variables", string(c.Scheme))
	}
	if c.Scheme != BootOrder && c.Names != ([2]string{}) {
		return nil, fmt.Errorf("U-Boot boot scheme %q has no names of banks", string(c.Scheme))
	}
	switch c.Scheme {
	case OneShot:
		return oneShot{}, nil
	case BootOrder:
		return newBootOrder(c.Names)
	case BootCount:
		return newBootCount(c.BankVariables)
	}
	return nil, fmt.Errorf("U-Boot boot scheme %q is not known; want %q, %q or %q", string(c.Scheme), string(OneShot), string(BootOrder), string(BootCount))
}

// setting is a variable and the value that it gets.
type setting struct{ name, value string }

func set(e *Env, settings ...setting) error {
	for _, v := range settings {
		if err := e.Set(v.name, v.value); err != nil {
			return err
		}
	}
	return nil
}

// Variables of the scheme OneShot.
const (
	VarActive = "fwu_active"
	VarTrial  = "fwu_trial"
)

type oneShot struct{}

func (oneShot) read(e *Env) (fwu.Selection, []string) {
	var notes []string
	bank := func(variable string) fwu.Bank {
		value, ok := e.Get(variable)
		b := fwu.Bank(value)
		if ok && b.Index() < 0 {
			notes = append(notes, fmt.Sprintf("%s is %q, which is no bank: treated as missing", variable, value))
			return fwu.NoBank
		}
		return b
	}
	s := fwu.Selection{Default: bank(VarActive), Trial: bank(VarTrial)}
	if s.Default == fwu.NoBank {
		notes = append(notes, VarActive+" names no default bank: the bootloader tries a, then b")
	}
	return s, notes
}

func (oneShot) usable(*Env) error { return nil }

func (oneShot) write(e *Env, s fwu.Selection) error {
	return set(e, setting{VarActive, string(s.Default)}, setting{VarTrial, string(s.Trial)})
}
