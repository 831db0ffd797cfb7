package model

import (
	"maps"
	"slices"
	"strconv"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// bootCount is one pass of U-Boot with a boot counter in the environment, on a board whose altbootcmd exchanges the banks: the count is saved, if an upgrade is
// going on; where it is above the limit altbootcmd goes before bootcmd. Nobody looks whether anything could be saved.
func (b Bootloader) bootCount() (banks []fwu.Bank, saved bool, err error) {
	env, err := b.load()
	if err != nil {
		return nil, false, err
	}
	number := func(name string) int {
		value, _ := env.Get(name)
		n, _ := strconv.Atoi(value)
		return n
	}
	part := b.part(env)
	if number("upgrade_available") != 0 {
		count, limit := number("bootcount")+1, number("bootlimit")
		variables := map[string]string{"bootcount": strconv.Itoa(count)}
		if saved, err = b.save(env, variables); err != nil {
			return nil, false, err
		}
		if limit > 0 && count > limit {
			part = exchanged(part)
			variables["upgrade_available"] = "0"
			for name, values := range b.BankVariables {
				variables[name] = values[part.Index()]
			}
			if saved, err = b.save(env, variables); err != nil {
				return nil, false, err
			}
		}
	}
	if part == fwu.NoBank {
		return nil, saved, nil
	}
	return []fwu.Bank{part}, saved, nil
}

// exchanged is what altbootcmd makes of a bank: whatever is not the one becomes it.
func exchanged(part fwu.Bank) fwu.Bank {
	if part == fwu.BankA {
		return fwu.BankB
	}
	return fwu.BankA
}

// part is the bank that is loaded: that of the first bank variable.
func (b Bootloader) part(env *uboot.Env) fwu.Bank {
	names := slices.Sorted(maps.Keys(b.BankVariables))
	value, _ := env.Get(names[0])
	for i, v := range b.BankVariables[names[0]] {
		if v == value {
			return fwu.BankOf(i)
		}
	}
	return fwu.NoBank
}
