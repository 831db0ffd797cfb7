package config

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

func (s *scope) selector() Selector {
	sub := s.scope("selector")
	v := Selector{Type: sub.choice("type", NoSelector, UBootSelector, EFISelector)}
	if sub.table != nil && sub.child("type") == nil {
		sub.lacks("type")
	}
	if uboot := sub.scope("uboot"); v.Type == UBootSelector || uboot.table != nil {
		v.UBoot = uboot.uboot()
	}
	if efi := sub.scope("efi"); v.Type == EFISelector || efi.table != nil {
		v.EFI = efi.efi()
	}
	sub.done()
	return v
}

func (s *scope) uboot() UBoot {
	u := UBoot{Scheme: s.choice("scheme", "", OneShot, BootOrder, BootCount)}
	if s.child("scheme") == nil {
		s.lacks("scheme")
	}
	u.EnvConfig = s.file("env-config")
	u.Copies = s.copies()
	u.SingleCopy = s.boolean("single-copy", false)
	u.DefaultEnvironment = s.file("default-environment")
	u.BankVariables = s.bankVariables()
	if s.child("names") != nil {
		u.Names = s.perBank("names")
	}
	s.done()
	s.judgeUBoot(u)
	return u
}

// judgeUBoot judges what only makes sense together.
func (s *scope) judgeUBoot(u UBoot) {
	switch {
	case u.EnvConfig == "" && s.child("env-config") == nil && s.child("copies") == nil:
		s.fail(s.at, "%s lacks \"env-config\" or \"copies\": where is the environment?", s.name())
	case u.EnvConfig != "" && len(u.Copies) > 0:
		s.fail(s.child("env-config").at, "%senv-config is set, and so is copies at %s: want one of them", s.path, s.child("copies").at)
	case len(u.Copies) == 1 && !u.SingleCopy:
		s.fail(s.child("copies").at, "%scopies has one: a power cut can lose it; single-copy = true permits that", s.path)
	case len(u.Copies) == 2 && u.SingleCopy:
		s.fail(s.child("single-copy").at, "%ssingle-copy is true, and copies has two", s.path)
	}
	if n := s.child("names"); n != nil && u.Scheme != "" && u.Scheme != BootOrder {
		s.fail(n.at, "%snames are of the scheme %q only", s.path, BootOrder)
	}
	for i, name := range u.Names {
		if strings.ContainsAny(name, " \t=#") {
			s.fail(s.child("names").at, "%snames: the name %q of bank %s: want no blank, = or #", s.path, name, []string{"a", "b"}[i])
		}
	}
	switch n := s.child("bank-variables"); {
	case n != nil && u.Scheme != "" && u.Scheme != BootCount:
		s.fail(n.at, "%sbank-variables are of the scheme %q only", s.path, BootCount)
	case n == nil && u.Scheme == BootCount:
		s.fail(s.at, "%s lacks \"bank-variables\": by which variables does the boot script of a board with the scheme %q tell the banks apart?", s.name(), BootCount)
	}
}

// maxEnvironment bounds the size of a U-Boot environment: a larger one is a typing error.
const maxEnvironment = 1 << 20

func (s *scope) copies() []EnvCopy {
	n := s.child("copies")
	switch {
	case n == nil:
		return nil
	case n.array == nil:
		s.wrongKind("copies", n, "an array of tables {device, offset, size}")
		return nil
	case len(n.array) == 0:
		return nil
	case len(n.array) > 2:
		s.fail(n.at, "%scopies has %d, want one or two", s.path, len(n.array))
		return nil
	}
	var list []EnvCopy
	for i, e := range n.array {
		item := fmt.Sprintf("copies[%d]", i)
		if e.table == nil {
			s.wrongKind(item, e, "a table {device, offset, size}")
			continue
		}
		// A reader of its own: the report has the copies as one value.
		sub := &scope{reader: &reader{}, table: e, at: e.at, path: s.path + item + "."}
		list = append(list, sub.envCopy())
		s.errs, s.asked = append(s.errs, sub.errs...), append(s.asked, sub.asked...)
	}
	if len(list) == 2 && list[0].Size != list[1].Size {
		s.fail(n.at, "%scopies differ in size: %#x and %#x", s.path, list[0].Size, list[1].Size)
	}
	if len(list) == 2 && list[0].overlaps(list[1]) {
		s.fail(n.at, "%scopies overlap", s.path)
	}
	s.note(s.path+"copies", list, n.at)
	return list
}

func (s *scope) envCopy() EnvCopy {
	var c EnvCopy
	var at Pos
	if c.Device, at = s.device("device"); at == (Pos{}) {
		s.lacks("device")
	}
	c.Offset, _, _ = s.number("offset", math.MinInt64+maxEnvironment, math.MaxInt64-maxEnvironment)
	if c.Size, at, _ = s.number("size", 16, maxEnvironment); at == (Pos{}) {
		s.lacks("size")
	}
	s.done()
	return c
}

func (c EnvCopy) overlaps(d EnvCopy) bool {
	return c.Device == d.Device && (c.Offset < 0) == (d.Offset < 0) && c.Offset < d.Offset+d.Size && d.Offset < c.Offset+c.Size
}

// bankVariables reads variables with a value for each bank.
func (s *scope) bankVariables() map[string][2]string {
	sub := s.scope("bank-variables")
	if sub.table == nil {
		return nil
	}
	if len(sub.table.keys) == 0 {
		s.fail(sub.at, "%s is empty, want name = {a = \"...\", b = \"...\"}", sub.name())
	}
	vars := map[string][2]string{}
	for _, name := range sub.table.keys {
		why := checkName(name)
		if slices.Contains([]string{"upgrade_available", "bootcount", "bootlimit", "altbootcmd"}, name) {
			why = fmt.Sprintf("the scheme %q has another use for it", BootCount)
		}
		if why != "" {
			s.fail(sub.table.table[name].key, "variable name %q: %s", name, why)
			continue
		}
		vars[name] = sub.perBank(name)
	}
	return vars
}

// perBank reads a table with a string for each bank, not the same for both.
func (s *scope) perBank(key string) (v [2]string) {
	sub := s.scope(key)
	for i, bank := range []string{"a", "b"} {
		var at Pos
		switch v[i], at = sub.text(bank); {
		case at == (Pos{}):
			sub.lacks(bank)
		case v[i] != "":
			s.note(sub.path+bank, v[i], at)
		}
	}
	sub.done()
	if v[0] == v[1] && v[0] != "" {
		s.fail(sub.at, "%s is the same for both banks", sub.name())
	}
	return v
}
