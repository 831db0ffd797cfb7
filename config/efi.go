package config

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// DefaultVariables is where efivarfs is mounted.
const DefaultVariables = "/sys/firmware/efi/efivars"

// ESPs are the places at which the EFI system partition is looked for.
func ESPs() []string { return []string{"/efi", "/boot", "/boot/efi"} }

func (s *scope) efi() EFI {
	var e EFI
	var at Pos
	if e.Component, at = s.text("component"); e.Component != "" {
		s.note(s.path+"component", e.Component, at)
	}
	e.Path = s.loaderPath("path")
	e.CommandLine = s.commandLine("command-line")
	if e.Variables = s.file("efivars"); e.Variables == "" {
		e.Variables = DefaultVariables
		if s.child("efivars") == nil {
			s.note(s.path+"efivars", e.Variables, Pos{})
		}
	}
	e.ESP = s.file("esp")
	s.done()
	return e
}

// maxLoaderPath bounds the path of a loader: one that is longer is a mistake.
const maxLoaderPath = 255

// loaderPath reads the path of a file on FAT, as firmware writes it.
func (s *scope) loaderPath(key string) string {
	v, at := s.text(key)
	if v == "" {
		if at == (Pos{}) {
			s.lacks(key)
		}
		return ""
	}
	why := ""
	switch names := strings.Split(v, `\`); {
	case v[0] != '\\' || strings.ContainsRune(v, '/'):
		why = `want a path from the root of the slot, with backslashes, in single quotes: '\EFI\example\linux.efi'`
	case slices.Contains(names[1:], "") || slices.Contains(names, ".") || slices.Contains(names, ".."):
		why = "want a name between any two backslashes, and behind the last one"
	case strings.ContainsAny(v, `"*:<>?|`):
		why = "a name on FAT has none of \" * : < > ? |"
	case len(v) > maxLoaderPath:
		why = fmt.Sprintf("want %d characters at most", maxLoaderPath)
	}
	if why != "" {
		s.fail(at, "%s%s is %q: %s", s.path, key, v, why)
		return ""
	}
	s.note(s.path+key, v, at)
	return v
}

// CommandLine is a kernel command line with placeholders: {bank} is the bank, a or b, and {partuuid:COMPONENT} the PARTUUID of the component's slot of that bank.
type CommandLine string

// placeholder is a part of a command line: text, or what stands between braces.
type placeholder struct {
	text      string
	bank      bool
	component string
}

// parts takes a command line apart. The error says where it is wrong.
func (c CommandLine) parts() ([]placeholder, error) {
	var out []placeholder
	rest := string(c)
	for rest != "" {
		at := len(c) - len(rest) + 1
		text, after, found := strings.Cut(rest, "{")
		if i := strings.IndexByte(text, '}'); i >= 0 {
			return nil, fmt.Errorf("character %d: } without {", at+i)
		}
		if text != "" {
			out = append(out, placeholder{text: text})
		}
		if !found {
			break
		}
		at += len(text)
		name, after, closed := strings.Cut(after, "}")
		component, isUUID := strings.CutPrefix(name, "partuuid:")
		switch {
		case !closed:
			return nil, fmt.Errorf("character %d: { without }", at)
		case name == "bank":
			out = append(out, placeholder{bank: true})
		case isUUID && component != "":
			out = append(out, placeholder{component: component})
		default:
			return nil, fmt.Errorf("character %d: unknown placeholder {%s}, want {bank} or {partuuid:COMPONENT}", at, name)
		}
		rest = after
	}
	return out, nil
}

// Components are those whose PARTUUIDs the command line has.
func (c CommandLine) Components() []string {
	var names []string
	parts, _ := c.parts() // a Config has none that is wrong
	for _, p := range parts {
		if p.component != "" && !slices.Contains(names, p.component) {
			names = append(names, p.component)
		}
	}
	return names
}

// Expand puts the bank, and the PARTUUIDs by component, in the places of their placeholders.
func (c CommandLine) Expand(bank string, partUUIDs map[string]string) string {
	var b strings.Builder
	parts, _ := c.parts()
	for _, p := range parts {
		switch {
		case p.bank:
			b.WriteString(bank)
		case p.component != "":
			b.WriteString(partUUIDs[p.component])
		default:
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// maxCommandLine is what kernels take (COMMAND_LINE_SIZE of x86 and arm64), in UTF-16 units and with PARTUUIDs in place.
const maxCommandLine = 2047

// bankParameter is what a command line must have, so that the system that it starts can tell which bank it is.
const bankParameter = "fwu.bank={bank}"

func (s *scope) commandLine(key string) CommandLine {
	v, at := s.text(key)
	if v == "" {
		return ""
	}
	c := CommandLine(v)
	_, err := c.parts()
	length := len(utf16.Encode([]rune(v))) + 37*strings.Count(v, "{partuuid:")
	switch {
	case err != nil:
		s.fail(at, "%s%s: %v", s.path, key, err)
		return ""
	case !slices.Contains(strings.Fields(v), bankParameter):
		s.fail(at, "%s%s lacks %q: the system could not tell from which bank it was started; leave the whole line out where the loader has one of its own", s.path, key, bankParameter)
		return ""
	case length > maxCommandLine:
		s.fail(at, "%s%s is too long: a kernel takes %d characters", s.path, key, maxCommandLine)
		return ""
	}
	s.note(s.path+key, v, at)
	return c
}

// loader judges what the EFI selector says of components, and completes it.
func (r *reader) loader(c *Config, s *scope) {
	if c.Selector.Type != EFISelector {
		return
	}
	e := &c.Selector.EFI
	var members []string
	for _, m := range c.Components { // in the order of their ids
		if !m.Live {
			members = append(members, m.Name)
		}
	}
	at := func(key string) Pos {
		if t := s.table.table["selector"].table["efi"]; t != nil && t.table[key] != nil {
			return t.table[key].at
		}
		return s.table.table["selector"].at
	}
	switch {
	case len(members) == 0:
		return
	case e.Component == "":
		e.Component = members[0]
	case !slices.Contains(members, e.Component):
		r.fail(at("component"), "selector.efi.component is %q, which is no bank member", e.Component)
	case e.Component != members[0]:
		r.fail(at("component"), "selector.efi.component is %q, and %q has a lower id: the loader must lie in the bank member with the lowest id, which is made startable last", e.Component, members[0])
	}
	for _, name := range e.CommandLine.Components() {
		if !slices.Contains(members, name) {
			r.fail(at("command-line"), "selector.efi.command-line has {partuuid:%s}, and %s is no bank member", name, name)
		}
	}
}
