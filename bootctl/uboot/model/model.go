// Package model is the bootloader as the update service has to reckon with it: U-Boot with the boot script share/uboot/fwu-ab.cmd, for tests that cut
// its writes and for a demonstration without hardware.
//
// It promises to start the bank that the script starts, and to write what the script writes. A test runs the script itself beside it.
package model

import (
	"errors"
	"fmt"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// ErrPowerCut is wrapped by the errors of a simulated medium whose power is gone. It ends a boot, where any other error of a medium only fails the access.
var ErrPowerCut = errors.New("power cut")

// Bootloader is U-Boot on a machine.
type Bootloader struct {
	Environment uboot.Environment
	Builtin     *uboot.Env // default environment that is compiled in, taken where no copy is valid; nil: an empty one
}

// Outcome is what a boot came to.
type Outcome struct {
	Bank        fwu.Bank // the bank whose kernel was started; NoBank: the machine resets for ever
	CommandLine string   // what the script puts on the kernel command line for the bank
	Resets      int      // resets before the kernel was started
}

// Boot powers the machine on. bootable tells whether kernel and device tree of a bank can be loaded and started. It returns an error if the power was cut.
func (b Bootloader) Boot(bootable func(fwu.Bank) bool) (Outcome, error) {
	for resets := 0; ; resets++ {
		banks, saved, err := b.choose()
		if err != nil {
			return Outcome{}, err
		}
		for _, bank := range banks {
			if bootable(bank) {
				return Outcome{bank, "fwu.bank=" + string(bank), resets}, nil
			}
		}
		if !saved { // the next attempt finds what this one found
			return Outcome{Resets: resets}, nil
		}
	}
}

// choose is parts 1 and 2 of the script: the banks that are tried, and whether a trial was disarmed.
func (b Bootloader) choose() (banks []fwu.Bank, saved bool, err error) {
	env, err := b.load()
	if err != nil {
		return nil, false, err
	}
	if trial := bankIn(env, uboot.VarTrial); trial != fwu.NoBank {
		err := b.Environment.Update(env, func(e *uboot.Env) error { return e.Set(uboot.VarTrial, "") })
		if err == nil {
			return []fwu.Bank{trial}, true, nil
		}
		if errors.Is(err, ErrPowerCut) {
			return nil, false, fmt.Errorf("saveenv: %w", err)
		}
	}
	if active := bankIn(env, uboot.VarActive); active != fwu.NoBank {
		return []fwu.Bank{active}, false, nil
	}
	return []fwu.Bank{fwu.BankA, fwu.BankB}, false, nil
}

// load reads the environment as U-Boot does: the valid copy, else the default environment.
func (b Bootloader) load() (*uboot.Env, error) {
	env, _, err := b.Environment.Read()
	switch {
	case errors.Is(err, ErrPowerCut):
		return nil, fmt.Errorf("load environment: %w", err)
	case err == nil:
		return env, nil
	case b.Builtin == nil:
		return uboot.ParseEnv(nil), nil
	}
	return b.Builtin.Clone(), nil
}

func bankIn(env *uboot.Env, variable string) fwu.Bank {
	value, _ := env.Get(variable)
	if b := fwu.Bank(value); b.Index() >= 0 {
		return b
	}
	return fwu.NoBank
}
