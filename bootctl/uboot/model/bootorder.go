package model

import (
	"strconv"
	"strings"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// bootOrder is one pass of a boot script as boards prepared for RAUC have it: the first of BOOT_ORDER with attempts left loses one and is started, whether
// that could be saved or not. Where none has any, all are given three, and the machine is reset.
func (b Bootloader) bootOrder() (banks []fwu.Bank, saved bool, err error) {
	env, err := b.load()
	if err != nil {
		return nil, false, err
	}
	variables := map[string]string{"BOOT_ORDER": b.slotName(fwu.BankA) + " " + b.slotName(fwu.BankB), b.counter(fwu.BankA): "3", b.counter(fwu.BankB): "3"}
	for name := range variables {
		if value, ok := env.Get(name); ok {
			variables[name] = value
		}
	}
	for _, slot := range strings.Fields(variables["BOOT_ORDER"]) {
		counter := "BOOT_" + slot + "_LEFT"
		left, err := strconv.ParseUint(variables[counter], 16, 32)
		if bank := b.bankOfSlot(slot); bank != fwu.NoBank && err == nil && left > 0 {
			variables[counter] = strconv.FormatUint(left-1, 16)
			saved, err := b.save(env, variables)
			return []fwu.Bank{bank}, saved, err
		}
	}
	variables[b.counter(fwu.BankA)], variables[b.counter(fwu.BankB)] = "3", "3"
	saved, err = b.save(env, variables)
	return nil, saved, err
}

func (b Bootloader) slotName(bank fwu.Bank) string {
	if b.Names == ([2]string{}) {
		return uboot.BankNames()[bank.Index()]
	}
	return b.Names[bank.Index()]
}

func (b Bootloader) counter(bank fwu.Bank) string { return uboot.VarLeft(b.slotName(bank)) }

func (b Bootloader) bankOfSlot(slot string) fwu.Bank {
	for i := range 2 {
		if bank := fwu.BankOf(i); b.slotName(bank) == slot {
			return bank
		}
	}
	return fwu.NoBank
}
