package config

import (
	"fmt"
	"math"
	"strings"
)

func (s *scope) selector() Selector {
	sub := s.scope("selector")
	v := Selector{Type: sub.choice("type", NoSelector, UBootSelector, EFISelector)}
	uboot, efi := sub.scope("uboot"), sub.scope("efi")
	if sub.table != nil && v.Type == NoSelector {
		sub.lacks("type")
	}
	if v.Type == UBootSelector || uboot.table != nil {
		v.UBoot = uboot.uboot()
	}
	if v.Type == EFISelector || efi.table != nil {
		v.EFI = efi.efi()
	}
	sub.done()
	return v
}

func (s *scope) uboot() UBoot {
	u := UBoot{Scheme: s.choice("scheme", "", OneShot, BootOrder, BootCount)}
	if u.Scheme == "" {
		s.lacks("scheme")
	}
	u.EnvConfig = s.file("env-config")
	u.Copies = s.copies()
	u.SingleCopy = s.boolean("single-copy", false)
	u.DefaultEnvironment = s.file("default-environment")
	dirs, at := s.files("lock-dirs")
	if dirs == nil {
		dirs = []string{"/run", "/var/lock"}
	}
	u.LockDirs = dirs
	s.note(s.path+"lock-dirs", dirs, at)
	u.BankVariables = s.bankVariables()
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
	if u.BankVariables != nil && u.Scheme != BootCount {
		s.fail(s.child("bank-variables").at, "%sbank-variables are of scheme %q only", s.path, BootCount)
	}
	if u.BankVariables == nil && u.Scheme == BootCount {
		s.fail(s.at, "%s lacks \"bank-variables\": scheme %q needs at least one that tells the banks apart", s.name(), BootCount)
	}
}

// maxEnvironment bounds the size of a U-Boot environment: a larger one is a typing error.
const maxEnvironment = 16 << 20

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
		s.errs = append(s.errs, sub.errs...)
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

// bankVariables reads variables with a value for each bank; nil if there are none.
func (s *scope) bankVariables() map[string][2]string {
	sub := s.scope("bank-variables")
	if sub.table == nil {
		return nil
	}
	vars := map[string][2]string{}
	for _, name := range sub.table.keys {
		if why := checkName(name); why != "" {
			s.fail(sub.table.table[name].key, "variable name %q: %s", name, why)
			continue
		}
		vars[name] = sub.pair(name, true)
		if v := vars[name]; v[0] == v[1] && v[0] != "" {
			s.fail(sub.table.table[name].key, "%s%s is the same for both banks", sub.path, name)
		}
	}
	if len(vars) == 0 {
		return nil
	}
	return vars
}

// pair reads a table with a string for a and b.
func (s *scope) pair(key string, required bool) [2]string {
	sub := s.scope(key)
	var v [2]string
	for i, bank := range []string{"a", "b"} {
		if v[i] = sub.str(bank); v[i] == "" && required && sub.child(bank) == nil {
			sub.lacks(bank)
		}
	}
	sub.done()
	return v
}

func (s *scope) efi() EFI {
	var e EFI
	sub := s.scope("partitions")
	for i, bank := range []string{"a", "b"} {
		var at Pos
		if e.Partitions[i], at = sub.device(bank); at == (Pos{}) {
			sub.lacks(bank)
		}
	}
	sub.done()
	sub = s.scope("loaders")
	for i, bank := range []string{"a", "b"} {
		e.Loaders[i] = sub.loader(bank)
	}
	sub.done()
	e.Options = s.pair("options", false)
	s.done()
	return e
}

// loader reads the path of an EFI program; slashes become the backslashes that UEFI wants.
func (s *scope) loader(key string) string {
	v, at := s.text(key)
	switch path := strings.ReplaceAll(v, "/", `\`); {
	case at == (Pos{}):
		s.lacks(key)
	case v != "" && path[0] != '\\':
		s.fail(at, "%s%s is %q, want a path that begins with a slash or backslash", s.path, key, v)
	case v != "":
		s.note(s.path+key, path, at)
		return path
	}
	return ""
}
