package efi

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Description is what the boot manager shows for a bank, and what our entries are known by.
func Description(b fwu.Bank) string { return "fwu-ab " + string(b) }

// entry is a Boot#### variable.
type entry struct {
	number   uint16
	variable Variable
	option   LoadOption
	bank     fwu.Bank // whose description it has; NoBank: it is not ours
	good     bool     // ours, and it names the partition of the bank
}

func (e entry) String() string {
	return fmt.Sprintf("Boot%04X (%q)", e.number, e.option.Description)
}

// startable tells whether the boot manager, when it comes to the entry in BootOrder, starts the bank.
func (e entry) startable() bool { return e.good && e.option.Attributes&Active != 0 }

// state is what the boot manager goes by.
type state struct {
	entries map[uint16]entry
	order   []uint16
	next    []uint16 // one number, or none
	current []uint16 // one number, or none
}

// load reads the variables of the boot manager. A variable that cannot be read is an error: it could be ours.
func (s *Selector) load(from readable) (state, error) {
	st := state{entries: map[uint16]entry{}}
	names, err := from.List()
	if err != nil {
		return st, err
	}
	slices.Sort(names)
	for _, name := range names {
		n, ok := entryNumber(name)
		if !ok {
			continue
		}
		v, err := from.Read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return st, err
		}
		st.entries[n] = s.parse(n, v)
	}
	for name, list := range map[string]*[]uint16{BootOrder: &st.order, BootNext: &st.next, BootCurrent: &st.current} {
		v, err := from.Read(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return st, err
		}
		*list = ParseNumbers(v.Data)
	}
	st.next, st.current = st.next[:min(len(st.next), 1)], st.current[:min(len(st.current), 1)]
	return st, nil
}

func (s *Selector) parse(n uint16, v Variable) entry {
	e := entry{number: n, variable: v}
	option, err := ParseLoadOption(v.Data)
	if err != nil {
		return e
	}
	e.option = option
	for i := range s.config.Banks {
		if bank := fwu.BankOf(i); option.Description == Description(bank) {
			e.bank = bank
			p, _, ok := option.File()
			e.good = ok && p.UUID == s.config.Banks[i].Partition.UUID
		}
	}
	return e
}

// selection is what the boot manager will do.
func (st state) selection() fwu.Selection {
	var sel fwu.Selection
	for _, n := range st.order {
		if e := st.entries[n]; e.startable() {
			sel.Default = e.bank
			break
		}
	}
	for _, n := range st.next { // an entry that is not active is started from here all the same
		if e := st.entries[n]; e.good && e.bank != sel.Default {
			sel.Trial = e.bank
		}
	}
	return sel
}

// numbers are those of the entries, in ascending order.
func (st state) numbers() []uint16 {
	var out []uint16
	for n := range st.entries {
		out = append(out, n)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

// ours are the entries of a bank, the best one first: the one that was started, then what the boot manager would come to, then what needs no change.
func (st state) ours(bank fwu.Bank, wanted LoadOption) []entry {
	var out []entry
	for _, n := range st.numbers() {
		if e := st.entries[n]; e.bank == bank {
			out = append(out, e)
		}
	}
	rank := func(e entry) int {
		switch {
		case !e.good:
			return 4
		case slices.Contains(st.current, e.number):
			return 0
		case slices.Contains(st.next, e.number), slices.Contains(st.order, e.number):
			return 1
		case e.option.same(wanted):
			return 2
		}
		return 3
	}
	sort.SliceStable(out, func(i, j int) bool { return rank(out[i]) < rank(out[j]) })
	return out
}

// firstNumber is where the numbers of our entries begin. Firmware that adds an entry for a device takes the lowest number that BootOrder does not have, writes BootOrder first
// (BmLoadOption.c of EDK II), and may be cut there, or fail to write the entry: under a low number it would be one of ours that it put into BootOrder.
const firstNumber = 0x80

// free is the lowest of our numbers that nothing uses or refers to: a new entry must not be what an old reference means.
func (st state) free() (uint16, error) {
	for n := firstNumber; n < 1<<16; n++ {
		n := uint16(n)
		if _, used := st.entries[n]; !used && !slices.Contains(st.order, n) && !slices.Contains(st.next, n) && !slices.Contains(st.current, n) {
			return n, nil
		}
	}
	return 0, fmt.Errorf("every number of a boot entry from %04X on is in use", firstNumber)
}

// newOrder is BootOrder with n at its head, without other entries of ours, and with those of others as they are.
func (st state) newOrder(n uint16) []uint16 {
	out := []uint16{n}
	for _, o := range st.order {
		if e, exists := st.entries[o]; exists && e.bank == fwu.NoBank && !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out
}

// settled tells whether BootOrder does what newOrder would: what else is wrong with it harms nobody, and is left alone.
func (st state) settled(n uint16) bool {
	return len(st.order) > 0 && st.order[0] == n && !slices.ContainsFunc(st.order, func(o uint16) bool { return o != n && st.entries[o].bank != fwu.NoBank })
}

// same tells whether two options start the same thing in the same way. The firmware may have written one of them in its own words.
func (o LoadOption) same(p LoadOption) bool {
	a, fileA, okA := o.File()
	b, fileB, okB := p.File()
	return okA && okB && a == b && strings.EqualFold(fileA, fileB) && o.Attributes&Active == p.Attributes&Active &&
		o.Description == p.Description && bytes.Equal(o.Optional, p.Optional)
}

// intact tells whether an option that differs from the wanted one is nevertheless one that was made for the bank: by another version, with another file or command line.
func (o LoadOption) intact(wanted LoadOption, bank fwu.Bank) bool {
	a, _, ok := o.File()
	b, _, _ := wanted.File()
	text, isText := commandLine(o.Optional)
	return ok && a == b && o.Attributes&Active != 0 &&
		(bytes.Equal(o.Optional, wanted.Optional) || isText && slices.Contains(strings.Fields(text), "fwu.bank="+string(bank)))
}
