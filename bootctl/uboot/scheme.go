package uboot

import (
	"fmt"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Scheme names the variables that a boot script looks at.
type Scheme string

// OneShot is the scheme of share/uboot/fwu-ab.cmd: fwu_active is the default bank, "a" or "b", and fwu_trial, "a", "b" or not there, the armed trial.
// Any other value is treated as missing, as the script treats it.
const OneShot Scheme = "one-shot"

// scheme translates between variables and selection.
type scheme interface {
	// read returns the selection, and what is odd about the variables, for people.
	read(e *Env) (fwu.Selection, []string)
	// write makes e hold s, of which Default is a bank. Where e holds s already in every variable of the scheme, e is left as it is.
	write(e *Env, s fwu.Selection) error
}

func (s Scheme) scheme() (scheme, error) {
	switch s {
	case OneShot:
		return oneShot{}, nil
	}
	return nil, fmt.Errorf("U-Boot boot scheme %q is not known; want %q", string(s), string(OneShot))
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

func (oneShot) write(e *Env, s fwu.Selection) error {
	for _, v := range [...]struct {
		name string
		bank fwu.Bank
	}{{VarActive, s.Default}, {VarTrial, s.Trial}} {
		if err := e.Set(v.name, string(v.bank)); err != nil {
			return err
		}
	}
	return nil
}
