package uboot

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Variables of the scheme BootCount that are the same on all boards.
const (
	VarUpgrade    = "upgrade_available" // not 0: each boot is counted, and the count is saved
	VarCount      = "bootcount"
	VarLimit      = "bootlimit"
	VarAltBootCmd = "altbootcmd" // run instead of bootcmd where the count is above the limit
)

// bootCount writes these values, here with a as default bank; part stands for the board's bank variables. U-Boot counts before it decides.
//
//	part=a upgrade_available=0 bootcount=0               no trial
//	part=b upgrade_available=1 bootcount=0 bootlimit=1   b is armed; U-Boot counts to 1 and starts b
//	part=b upgrade_available=1 bootcount=1 bootlimit=1   b was started; U-Boot counts to 2, and altbootcmd makes it part=a upgrade_available=0
type bootCount struct {
	names  []string // of the bank variables, sorted
	values map[string][2]string
}

func newBootCount(values map[string][2]string) (scheme, error) {
	s := bootCount{slices.Sorted(maps.Keys(values)), values}
	if len(s.names) == 0 {
		return nil, fmt.Errorf("U-Boot boot scheme %q needs a variable that stands for the bank", string(BootCount))
	}
	for _, name := range s.names {
		v := values[name]
		if v[0] == "" || v[1] == "" || v[0] == v[1] {
			return nil, fmt.Errorf("values %q and %q of the bank variable %s do not tell the banks apart", v[0], v[1], name)
		}
		if slices.Contains([]string{VarUpgrade, VarCount, VarLimit, VarAltBootCmd}, name) {
			return nil, fmt.Errorf("%s cannot stand for the bank: the boot scheme %q has another use for it", name, string(BootCount))
		}
		for _, value := range v {
			if err := new(Env).Set(name, value); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

func (s bootCount) read(e *Env) (fwu.Selection, []string) {
	part, notes := s.bank(e)
	switch limit := number(e, VarLimit); {
	case part == fwu.NoBank:
		return fwu.Selection{}, notes
	case number(e, VarUpgrade) == 0:
		return fwu.Selection{Default: part}, nil
	case limit == 0:
		return fwu.Selection{Default: part}, []string{fmt.Sprintf("%s is set and %s is not: the bootloader counts and never falls back", VarUpgrade, VarLimit)}
	case number(e, VarCount) < limit:
		return fwu.Selection{Default: part.Other(), Trial: part}, nil
	}
	return fwu.Selection{Default: part.Other()}, nil
}

func (bootCount) usable(*Env) error { return nil }

func (s bootCount) write(e *Env, sel fwu.Selection) error {
	part, rest := sel.Default, []setting{{VarUpgrade, "0"}, {VarCount, "0"}}
	if sel.Trial != fwu.NoBank {
		if sel.Trial == sel.Default {
			return fmt.Errorf("trial of the default bank %s: the boot scheme %q always falls back to the other one", sel.Default, string(BootCount))
		}
		if _, ok := e.Get(VarAltBootCmd); !ok {
			return fmt.Errorf("the U-Boot environment has no %s: a trial of bank %s that fails would end at the prompt of the bootloader", VarAltBootCmd, sel.Trial)
		}
		// The count is set even where nobody counted: a saveenv of a script stores whatever count the bootloader has in memory.
		part, rest = sel.Trial, []setting{{VarUpgrade, "1"}, {VarCount, "0"}, {VarLimit, "1"}}
	}
	for _, name := range s.names {
		if err := e.Set(name, s.values[name][part.Index()]); err != nil {
			return err
		}
	}
	return set(e, rest...)
}

// bank is the one that all bank variables stand for, NoBank and why where they do not agree.
func (s bootCount) bank(e *Env) (fwu.Bank, []string) {
	var notes []string
	found := fwu.NoBank
	for i, name := range s.names {
		value, _ := e.Get(name)
		b := fwu.NoBank
		if j := slices.Index([]string{s.values[name][0], s.values[name][1]}, value); j >= 0 {
			b = fwu.BankOf(j)
		} else {
			notes = append(notes, fmt.Sprintf("%s is %q, which stands for no bank", name, value))
		}
		if i > 0 && b != found && len(notes) == 0 {
			notes = append(notes, fmt.Sprintf("%s and %s stand for different banks", s.names[0], name))
		}
		found = b
	}
	if len(notes) > 0 {
		return fwu.NoBank, notes
	}
	return found, nil
}

// number is the value of a variable as U-Boot takes it (env_get_ulong in env/common.c): the decimal digits that it begins with; 0 if there are none.
func number(e *Env, variable string) uint64 {
	value, _ := e.Get(variable)
	digits := value[:len(value)-len(strings.TrimLeft(value, "0123456789"))]
	n, _ := strconv.ParseUint(digits, 10, 32) // too large a number is the largest
	return n
}
