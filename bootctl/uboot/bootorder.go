package uboot

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// VarOrder is the variable of the scheme BootOrder that lists what may be started, the first one first: "A", "B", and names that are not ours.
const VarOrder = "BOOT_ORDER"

// VarLeft is the variable of the scheme BootOrder that says how often a bank may still be started.
func VarLeft(b fwu.Bank) string { return "BOOT_" + orderName(b) + "_LEFT" }

// orderName is what the boot script calls a bank.
func orderName(b fwu.Bank) string { return strings.ToUpper(string(b)) }

// What the boot script takes where a variable is missing; fullLeft is also what it fills all counters up with when none is left.
const (
	missingOrder = "A B"
	fullLeft     = "3"
)

// bootOrder writes these values, here with a as default bank. No boot script changes BOOT_ORDER, whatever it does to the counters.
//
//	"A"      A=3 B=0   no trial
//	"B A A"  A=3 B=1   b is armed; the script counts down to B=0 and starts b
//	"B A A"      B=0   b was started; every further reset starts a
//
// The repetition costs nothing, as the script starts the first one that has attempts left. It tells a default bank behind its trial from "B A", which is what others write:
// there both may be started, and the counters alone do not tell why. Such an order names no default bank; the one that runs becomes it.
type bootOrder struct{}

func (bootOrder) read(e *Env) (fwu.Selection, []string) {
	banks, _ := order(e)
	value, _ := e.Get(VarOrder)
	switch {
	case len(banks) == 0:
		return fwu.Selection{}, []string{fmt.Sprintf("%s is %q, which names neither A nor B", VarOrder, value)}
	case !slices.Contains(banks, banks[0].Other()):
		return fwu.Selection{Default: banks[0]}, nil
	case len(banks) != 3 || banks[1] != banks[2]:
		return fwu.Selection{}, []string{fmt.Sprintf("%s is %q, which lets the bootloader fall back from one bank to the other: it names no default bank", VarOrder, value)}
	}
	s := fwu.Selection{Default: banks[1]}
	if left(e, banks[0]) {
		s.Trial = banks[0]
	}
	return s, nil
}

func (bootOrder) write(e *Env, s fwu.Selection) error {
	if s.Trial == s.Default {
		return fmt.Errorf("trial of the default bank %s: %s cannot say that", s.Default, VarOrder)
	}
	names, others := []string{orderName(s.Default)}, "0"
	if s.Trial != fwu.NoBank {
		names, others = []string{orderName(s.Trial), names[0], names[0]}, "1"
	}
	_, foreign := order(e)
	return set(e,
		setting{VarOrder, strings.Join(append(names, foreign...), " ")},
		setting{VarLeft(s.Default), fullLeft},
		setting{VarLeft(s.Default.Other()), others}) // never deleted: the script takes a missing counter for a full one
}

// order returns what BOOT_ORDER lists: our banks, and what else there is, such as a rescue system.
func order(e *Env) (banks []fwu.Bank, foreign []string) {
	value, ok := e.Get(VarOrder)
	if !ok {
		value = missingOrder
	}
	for _, name := range strings.Fields(value) {
		if b := fwu.Bank(strings.ToLower(name)); b.Index() >= 0 && name == orderName(b) {
			banks = append(banks, b)
		} else {
			foreign = append(foreign, name)
		}
	}
	return banks, foreign
}

// left tells whether a bank has attempts left. Scripts count in hexadecimal, U-Boot's boot method in decimal: of the counts up to 9 both think the same.
func left(e *Env, b fwu.Bank) bool {
	value, ok := e.Get(VarLeft(b))
	value = strings.TrimLeft(value, "0")
	return !ok || value != "" && strings.Contains("123456789abcdefABCDEF", value[:1])
}
