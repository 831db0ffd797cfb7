package config

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

func (s *scope) components(d defaults, trial bool, devices places) []Component {
	sub := s.scope("component")
	if sub.wrong {
		return nil
	}
	if sub.table == nil || len(sub.table.keys) == 0 {
		s.fail(sub.at, "no component: want at least one table [component.<name>]")
		return nil
	}
	var list []Component
	ids, names := places{}, places{}
	for _, name := range sub.table.keys {
		n := sub.table.table[name]
		if why := checkName(name); why != "" {
			s.fail(n.key, "component name %q: %s", name, why)
			continue
		}
		s.claim(names, strings.ToLower(name), n.at, fmt.Sprintf("component name %q", name))
		c := sub.component(name, d, trial, devices, ids)
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list
}

// maxName is the length of a component's name: it is a file name, a payload's key in a manifest and part of messages.
const maxName = 32

// checkName says why a name cannot be that of a component, "" if it can.
func checkName(name string) string {
	if name == "" || len(name) > maxName {
		return fmt.Sprintf("want 1 to %d characters", maxName)
	}
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_') {
			return "want letters, digits, - and _, beginning with a letter or digit"
		}
	}
	return ""
}

func (s *scope) component(name string, d defaults, trial bool, devices, ids places) Component {
	sub := s.scope(name)
	c := Component{Name: name}
	if sub.table == nil {
		return c
	}
	id, at, ok := sub.number("id", 0, math.MaxUint8)
	switch {
	case ok:
		c.ID = fwu.ID(id)
		sub.note(sub.path+"id", id, at)
		s.claim(ids, fmt.Sprint(id), at, fmt.Sprintf("component id %d", id))
	case at == (Pos{}):
		sub.lacks("id")
	}
	c.Live = sub.choice("kind", "bank", "live") == "live"
	c.Manifest = fwu.ManifestMode(sub.choice("manifest", string(fwu.Detached), string(fwu.Bundled), string(fwu.None)))
	c.VolatileStaging = sub.boolean("volatile-staging", false)
	c.Discard = sub.boolean("discard", false)
	c.ReadBack = sub.boolean("read-back", true)
	c.Slots = sub.slots(devices)
	sub.ofLive(&c, trial)
	sub.authority(&c, d)
	sub.done()
	return c
}

func (s *scope) slots(devices places) [2]string {
	sub := s.scope("slots")
	var slots [2]string
	if sub.table == nil {
		if !sub.wrong {
			s.lacks("slots")
		}
		return slots
	}
	for i, key := range []string{"a", "b"} {
		device, at := sub.device(key)
		if device == "" && at == (Pos{}) {
			sub.lacks(key)
		}
		s.claim(devices, device, at, fmt.Sprintf("%s%s %q", sub.path, key, device))
		slots[i] = device
	}
	sub.done()
	return slots
}

// ofLive reads what only a live component may have.
func (s *scope) ofLive(c *Component, trial bool) {
	if c.Live {
		c.Trial = s.boolean("trial", true)
		c.Unit = s.unit("unit")
		return
	}
	c.Trial = trial
	if n := s.child("trial"); n != nil {
		s.fail(n.at, "%strial is set, but trial is a property of the whole bank: set it at the top, or kind = \"live\"", s.path)
	}
	if n := s.child("unit"); n != nil {
		s.fail(n.at, "%sunit is set, but a bank member is installed by a reboot: want kind = \"live\"", s.path)
	}
}

// unit reads the name of a systemd unit that may be missing.
func (s *scope) unit(key string) string {
	v, at := s.text(key)
	if v == "" {
		return ""
	}
	if v = s.unitName(key, v, at); v != "" {
		s.note(s.path+key, v, at)
	}
	return v
}

// unitName returns v if it can be the name of a systemd unit (systemd.unit(5)), else "".
func (s *scope) unitName(key, v string, at Pos) string {
	const maxUnit = 255
	types := []string{".service", ".target", ".mount", ".socket", ".path", ".timer", ".slice"}
	i := strings.LastIndexByte(v, '.')
	bad := strings.ContainsFunc(v, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune(`:-_.\@`, r)
	})
	if bad || len(v) > maxUnit || i < 1 || !slices.Contains(types, v[i:]) || v[0] == '@' || v[i-1] == '@' {
		s.fail(at, "%s%s is %q, want the name of a unit, for instance %q", s.path, key, v, "radio.service")
		return ""
	}
	return v
}

// authority reads for whom a manifest must be and who may sign it.
func (s *scope) authority(c *Component, d defaults) {
	device, from := s.identity(false).device(d.identity)
	c.Device = device
	keys, at := s.files("keys")
	if keys == nil {
		keys, at = d.keys, d.keysAt
	}
	c.Keys = keys
	signatures, signaturesAt := s.signatures(d.signatures)
	c.Signatures = signatures
	if from.vendor.set {
		s.note(s.path+"vendor", device.Vendor.String(), from.vendor.at)
	}
	if from.class.set {
		s.note(s.path+"class", device.Class.String(), from.class.at)
	}
	if keys != nil {
		s.note(s.path+"keys", keys, at)
	}
	if from.class.name != "" && !from.vendor.set {
		s.fail(from.class.at, "class-name is set, but no vendor: a class identifier is made from both")
	}
	if c.Manifest == fwu.None {
		c.Signatures = 0
		if signaturesAt != (Pos{}) {
			s.fail(signaturesAt, "%srequired-signatures is set, and the manifest is %q: nothing is verified", s.path, c.Manifest)
		}
		return
	}
	if !from.vendor.set {
		s.fail(s.at, "%s has no vendor (neither here nor in [identity]), and its manifest is %q", s.name(), c.Manifest)
	}
	if !from.class.set {
		s.fail(s.at, "%s has no class (neither here nor in [identity]), and its manifest is %q", s.name(), c.Manifest)
	}
	if len(keys) == 0 {
		s.fail(s.at, "%s has no trust anchor (keys, here or in [trust]), and its manifest is %q", s.name(), c.Manifest)
	}
}

// maxSignatures is how many signatures a manifest can have.
const maxSignatures = 8

// signatures reads how many different keys have to sign a manifest.
func (s *scope) signatures(otherwise int) (int, Pos) {
	n, at, ok := s.number("required-signatures", 1, maxSignatures)
	if !ok {
		return otherwise, at
	}
	s.note(s.path+"required-signatures", n, at)
	return int(n), at
}
