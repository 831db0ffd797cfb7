package efi

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Doctor describes the variables for people, a line for each finding: the entries, what refers to them, and what is odd about them.
func (s *Selector) Doctor() []string {
	now, err := s.load(s.config.Variables)
	if err != nil {
		return nil // whoever asks reads the selection, and is told
	}
	st, lines := now, []string(nil)
	if store, err := s.store(); err == nil && store != nil {
		if st, err = s.lasting(store); err != nil {
			return nil
		}
		st.current = now.current
		lines = append(lines, fmt.Sprintf("the firmware keeps its variables in memory, and has these of %s at the next boot", store))
		if a, b := st.selection(), now.selection(); a != b {
			lines = append(lines, fmt.Sprintf("in memory they have default bank %q and trial bank %q, which the next boot forgets", b.Default, b.Trial))
		}
	}
	for _, n := range st.numbers() {
		lines = append(lines, s.describe(st, st.entries[n]))
	}
	refer := func(name string, numbers []uint16) {
		text := "not set"
		if len(numbers) > 0 {
			text = strings.Trim(fmt.Sprintf("%04X", numbers), "[]")
		}
		lines = append(lines, name+": "+text)
	}
	refer("BootOrder", st.order)
	refer("BootNext", st.next)
	refer("BootCurrent", st.current)
	return append(lines, st.odd()...)
}

func (s *Selector) describe(st state, e entry) string {
	line := e.String()
	if _, file, ok := e.option.File(); ok {
		line += " " + file
	}
	switch {
	case e.bank == fwu.NoBank:
		return line + ", not ours"
	case !e.good:
		return line + ", ours, but it does not name the partition of bank " + string(e.bank) + ": the next commit replaces or deletes it"
	case e.option.Attributes&Active == 0:
		line += ", not active: the boot manager skips it"
	}
	if text, ok := commandLine(e.option.Optional); ok && text != "" {
		line += fmt.Sprintf(", command line %q", text)
	}
	switch wanted := s.wanted(e.bank); {
	case e.option.same(wanted):
	case s.proven(&st, e, wanted):
		line += "; the configuration has another, which the next update of this bank tries"
	default:
		line += "; the configuration has another"
	}
	return line
}

// odd lists what is wrong with the references.
func (st state) odd() []string {
	var lines []string
	banks := map[fwu.Bank]bool{}
	foreign := false
	for i, n := range st.order {
		e, exists := st.entries[n]
		switch {
		case !exists:
			lines = append(lines, fmt.Sprintf("BootOrder has %04X, which is no entry", n))
		case slices.Contains(st.order[:i], n):
			lines = append(lines, fmt.Sprintf("BootOrder has %04X twice", n))
		case e.bank == fwu.NoBank && len(banks) == 0:
			foreign = true
		case e.bank != fwu.NoBank:
			banks[e.bank] = true
		}
	}
	if foreign && len(banks) > 0 {
		lines = append(lines, "BootOrder begins with entries that are not ours: the firmware tries those first, until the service puts ours back to the head")
	}
	if len(banks) == 2 {
		lines = append(lines, "BootOrder has entries of both banks: the firmware could fall back from one to the other, until the service takes one out")
	}
	for _, n := range st.next {
		if st.entries[n].bank == fwu.NoBank {
			lines = append(lines, fmt.Sprintf("BootNext is %04X, which is not ours: the next reset starts that; an install replaces it", n))
		}
	}
	return lines
}
