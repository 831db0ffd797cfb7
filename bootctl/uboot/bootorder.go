package uboot

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// VarOrder is the variable of the scheme BootOrder that lists the banks that may be started, the
// first one first: the names of the banks, and names that are not ours.
const VarOrder = "BOOT_ORDER"

// VarLeft is the variable of the scheme BootOrder that says how often the bank of this name may
// still be started.
func VarLeft(name string) string { return "BOOT_" + name + "_LEFT" }

// BankNames are the names of bank a and bank b in boot scripts, unless Config.Names says otherwise.
func BankNames() [2]string { return [2]string{"A", "B"} }

// fullLeft is the value that the boot script takes where a counter is missing, and the one it fills
// all counters up with when none is left.
const fullLeft = "3"

// bootOrder writes these values, here with a as default bank. No boot script changes BOOT_ORDER, whatever it does to the counters.
//
//	"A"      A=3 B=0   no trial
//	"B A A"  A=3 B=1   b is armed; the script counts down to B=0 and starts b
//	"B A A"      B=0   b was started; every further reset starts a
//
// The repetition costs nothing, as the script starts the first one that has attempts left. It tells a default bank behind its trial from "B A", which is what others write:
// there both may be started, and the counters alone do not tell why. Such an order names no default bank; the one that runs becomes it.
type bootOrder struct{ names [2]string }

// newBootOrder makes the scheme with the names of the banks in BOOT_ORDER; empty ones are A and B.
func newBootOrder(names [2]string) (scheme, error) {
	if names == ([2]string{}) {
		names = BankNames()
	}
	if names[0] == names[1] {
		return nil, fmt.Errorf("both banks are called %q in %s", names[0], VarOrder)
	}
	for _, name := range names {
		if strings.ContainsAny(name, " \t\r\n") || new(Env).Set(VarLeft(name), "1") != nil || name == "" {
			return nil, fmt.Errorf("%q cannot be the name of a bank in %s", name, VarOrder)
		}
	}
	return bootOrder{names}, nil
}

// usable refuses a BOOT_ORDER that lists others only: the boot script would start none of our
// names.
func (s bootOrder) usable(e *Env) error {
	value, ok := e.Get(VarOrder)
	if banks, _ := s.order(e); !ok || len(banks) > 0 {
		return nil
	}
	return fmt.Errorf("%s is %q, which lists neither %q nor %q: the boot script has other names for the banks; set them as [selector.uboot.names] in the configuration",
		VarOrder, value, s.names[0], s.names[1])
}

func (s bootOrder) read(e *Env) (fwu.Selection, []string) {
	banks, _ := s.order(e)
	value, _ := e.Get(VarOrder)
	switch {
	case len(banks) == 0:
		return fwu.Selection{}, []string{fmt.Sprintf("%s is %q, which names neither %s nor %s", VarOrder, value, s.names[0], s.names[1])}
	case !slices.Contains(banks, banks[0].Other()):
		return fwu.Selection{Default: banks[0]}, nil
	case len(banks) != 3 || banks[1] != banks[2]:
		return fwu.Selection{}, []string{fmt.Sprintf("%s is %q, which lets the bootloader fall back from one bank to the other: it names no default bank", VarOrder, value)}
	}
	sel := fwu.Selection{Default: banks[1]}
	if left(e, s.names[banks[0].Index()]) {
		sel.Trial = banks[0]
	}
	return sel, nil
}

func (s bootOrder) write(e *Env, sel fwu.Selection) error {
	if sel.Trial == sel.Default {
		return fmt.Errorf("trial of the default bank %s: %s cannot say that", sel.Default, VarOrder)
	}
	if err := s.usable(e); err != nil {
		return err
	}
	name, other := s.names[sel.Default.Index()], s.names[sel.Default.Other().Index()]
	names, others := []string{name}, "0"
	if sel.Trial != fwu.NoBank {
		names, others = []string{other, name, name}, "1"
	}
	_, foreign := s.order(e)
	return set(e,
		setting{VarOrder, strings.Join(append(names, foreign...), " ")},
		setting{VarLeft(name), fullLeft},
		setting{VarLeft(other), others}) // never deleted: the script takes a missing counter for a full one
}

// order returns what BOOT_ORDER lists: our banks, and what else there is, such as a rescue system.
func (s bootOrder) order(e *Env) (banks []fwu.Bank, foreign []string) {
	value, ok := e.Get(VarOrder)
	if !ok {
		return []fwu.Bank{fwu.BankA, fwu.BankB}, nil // what the boot script takes then
	}
	for _, name := range strings.Fields(value) {
		if i := slices.Index(s.names[:], name); i >= 0 {
			banks = append(banks, fwu.BankOf(i))
		} else {
			foreign = append(foreign, name)
		}
	}
	return banks, foreign
}

// left tells whether the bank with this name has attempts left. Scripts count in hexadecimal,
// U-Boot's boot method in decimal: of the counts up to 9 both think the same.
func left(e *Env, name string) bool {
	value, ok := e.Get(VarLeft(name))
	value = strings.TrimLeft(value, "0")
	return !ok || value != "" && strings.Contains("123456789abcdefABCDEF", value[:1])
}
