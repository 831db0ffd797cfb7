package config

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Load reads the configuration below the root directory ("" or "/": that of the machine). Mistakes in the files are *Error, joined:
// one line for each. That there is no configuration at all is fs.ErrNotExist.
func Load(root string) (*Config, error) {
	t, err := openTree(root)
	if err != nil {
		return nil, err
	}
	defer t.done()
	sources, err := t.sources()
	if err != nil {
		return nil, err
	}
	return load(sources)
}

func load(sources []source) (*Config, error) {
	var merged *node
	var files []string
	for _, s := range sources {
		n, err := parse(s.name, s.data)
		if err != nil {
			return nil, err
		}
		files = append(files, s.name)
		if merged == nil {
			merged = n
			continue
		}
		merged.merge(n)
	}
	r := &reader{}
	c := r.config(merged)
	if err := joinErrors(files, r.errs); err != nil {
		return nil, err
	}
	c.Report = Report{Files: files, Settings: r.settings}
	return c, nil
}

// places remembers what must be different and where it stands.
type places map[string]Pos

// claim reports that a name is used twice.
func (r *reader) claim(p places, name string, at Pos, what string) {
	if name == "" {
		return
	}
	if other, ok := p[name]; ok {
		r.fail(at, "%s is used already at %s", what, other)
		return
	}
	p[name] = at
}

const defaultMaxTrials = 3

func (r *reader) config(n *node) *Config {
	s := r.root(n)
	c := &Config{Disk: s.file("disk"), Trial: s.boolean("trial", true), MaxTrials: defaultMaxTrials}
	v, at, ok := s.number("max-trials", 1, math.MaxUint8)
	if ok {
		c.MaxTrials = int(v)
	}
	s.note("max-trials", int64(c.MaxTrials), at)
	devices := places{}
	c.Store = s.store(devices)
	c.Selector = s.selector()
	defaults := s.defaults()
	c.Components = s.components(defaults, c.Trial, devices)
	s.done()
	r.together(c, s)
	return c
}

func (s *scope) store(devices places) Store {
	sub := s.scope("store")
	device, at := sub.device("device")
	if device == "" && at == (Pos{}) {
		sub.lacks("device")
	}
	s.claim(devices, device, at, fmt.Sprintf("store.device %q", device))
	sub.done()
	return Store{device}
}

// defaults is what components take over that have nothing of their own.
type defaults struct {
	identity identity
	keys     []string
	keysAt   Pos
}

func (s *scope) defaults() defaults {
	var d defaults
	sub := s.scope("identity")
	d.identity = sub.identity(true)
	sub.done()
	sub = s.scope("trust")
	if d.keys, d.keysAt = sub.files("keys"); d.keys != nil {
		s.note("trust.keys", d.keys, d.keysAt)
	}
	sub.done()
	return d
}

// together judges what only makes sense together.
func (r *reader) together(c *Config, s *scope) {
	if s.table.table["selector"] != nil {
		return
	}
	for _, m := range c.Components {
		if !m.Live {
			at := s.table.table["component"].table[m.Name].at
			r.fail(at, "%s is a bank member, and selector.type is not set: nothing would tell the bootloader which bank to start", m.Name)
			return
		}
	}
}

func (s *scope) components(d defaults, trial bool, devices places) []Component {
	sub := s.scope("component")
	if sub.table == nil {
		s.fail(s.at, "no component: want at least one table [component.<name>]")
		return nil
	}
	if len(sub.table.keys) == 0 {
		s.fail(sub.at, "no component: want at least one table [component.<name>]")
	}
	var list []Component
	ids, names := places{}, places{}
	for _, name := range sub.table.keys {
		n := sub.table.table[name]
		if why := checkName(name); why != "" {
			s.fail(n.at, "component name %q: %s", name, why)
			sub.known = append(sub.known, name)
			continue
		}
		s.claim(names, strings.ToLower(name), n.at, fmt.Sprintf("component name %q", name))
		c := sub.component(name, d, trial, devices, ids)
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Component) int { return cmp.Compare(a.ID, b.ID) })
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
		if s.child("slots") == nil {
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

// unit reads the name of a systemd unit (systemd.unit(5)).
func (s *scope) unit(key string) string {
	v, at := s.text(key)
	if v == "" {
		return ""
	}
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
	s.note(s.path+key, v, at)
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
	return u
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
			s.fail(sub.table.table[name].at, "variable name %q: %s", name, why)
			sub.known = append(sub.known, name)
			continue
		}
		vars[name] = sub.pair(name, true)
		if v := vars[name]; v[0] == v[1] && v[0] != "" {
			s.fail(sub.table.table[name].at, "%s%s is the same for both banks", sub.path, name)
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
