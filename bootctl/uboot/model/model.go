// Package model is the bootloader as the update service has to reckon with it: U-Boot with the boot script of a scheme, for tests that cut
// its writes and for a demonstration without hardware.
//
// It promises to start the bank that the script starts, and to write what the script writes. For one-shot that is share/uboot/fwu-ab.cmd; for boot-order and bootcount,
// whose scripts belong to the boards, it is what those scripts have in common, and that they end in a reset where a bank cannot be loaded. Tests run scripts beside it.
package model

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/fwu-ab/fwu-ab/bootctl"
	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// ErrPowerCut is wrapped by the errors of a simulated medium whose power is gone. It ends a boot, where any other error of a medium only fails the access.
var ErrPowerCut = errors.New("power cut")

// Bootloader is U-Boot on a machine.
type Bootloader struct {
	Environment uboot.Environment
	Builtin     *uboot.Env   // default environment that is compiled in, taken where no copy is valid; nil: an empty one
	Scheme      uboot.Scheme // empty: OneShot
	// BankVariables of a board of the scheme BootCount, see uboot.Config.
	BankVariables map[string][2]string
	Names         [2]string // of the banks on a board of the scheme BootOrder, see uboot.Config
}

// Outcome is what a boot came to.
type Outcome struct {
	Bank        fwu.Bank // the bank whose kernel was started; NoBank: the machine resets for ever
	CommandLine string   // what the script puts on the kernel command line for the bank, beside root=
	Resets      int      // resets before the kernel was started
}

// forever is how many resets are taken for endless: more than any script needs to try everything twice.
const forever = 32

// Boot powers the machine on. bootable tells whether kernel and device tree of a bank can be loaded and started. It returns an error if the power was cut.
func (b Bootloader) Boot(bootable func(fwu.Bank) bool) (Outcome, error) {
	attempt, commandLine := b.choose, func(bank fwu.Bank) string { return "fwu.bank=" + string(bank) }
	switch b.Scheme {
	case uboot.BootOrder:
		attempt, commandLine = b.bootOrder, func(bank fwu.Bank) string { return "rauc.slot=" + b.slotName(bank) }
	case uboot.BootCount:
		attempt, commandLine = b.bootCount, func(fwu.Bank) string { return "" }
	}
	for resets := 0; ; resets++ {
		banks, saved, err := attempt()
		if err != nil {
			return Outcome{}, err
		}
		for _, bank := range banks {
			if bootable(bank) {
				line := commandLine(bank)
				if saved && b.Scheme != uboot.BootOrder && b.Scheme != uboot.BootCount { // the script disarmed a trial
					line += " " + bootctl.TrialParameter
				}
				return Outcome{bank, line, resets}, nil
			}
		}
		if !saved || resets == forever { // the next attempt finds what this one found
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
		saved, err := b.save(env, map[string]string{uboot.VarTrial: ""})
		if err != nil || saved {
			return []fwu.Bank{trial}, saved, err
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

// save is saveenv after the variables were set; saved is what the command tells the script. The error is that of a power cut. What is there already
// is not written again, as U-Boot would.
func (b Bootloader) save(env *uboot.Env, variables map[string]string) (saved bool, err error) {
	err = b.Environment.Update(env, func(e *uboot.Env) error {
		var errs []error
		for _, name := range slices.Sorted(maps.Keys(variables)) {
			errs = append(errs, e.Set(name, variables[name]))
		}
		return errors.Join(errs...)
	})
	if errors.Is(err, ErrPowerCut) {
		return false, fmt.Errorf("saveenv: %w", err)
	}
	return err == nil, nil
}

func bankIn(env *uboot.Env, variable string) fwu.Bank {
	value, _ := env.Get(variable)
	if b := fwu.Bank(value); b.Index() >= 0 {
		return b
	}
	return fwu.NoBank
}
