package config

import (
	"fmt"
	"math"
)

// Load reads the configuration below the root directory ("" or "/": that of the machine). Mistakes in the files are *Error, joined:
// one line for each. That there is no configuration at all is fs.ErrNotExist.
func Load(root string) (*Config, error) {
	t, err := openTree(root)
	if err != nil {
		return nil, err
	}
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
	c.LiftForceRO = s.boolean("lift-force-ro", false)
	v, at, ok := s.number("max-trials", 1, math.MaxUint8)
	if ok {
		c.MaxTrials = int(v)
	}
	s.note("max-trials", int64(c.MaxTrials), at)
	devices := places{}
	c.Store = s.store(devices)
	c.Selector = s.selector()
	c.BootCheck = s.bootCheck()
	defaults := s.defaults()
	c.DeviceFile = defaults.deviceFile
	c.Components = s.components(defaults, c.Trial, devices)
	s.done()
	r.together(c, s)
	r.loader(c, s)
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
	identity   identity
	deviceFile string
	keys       []string
	keysAt     Pos
	signatures int
}

func (s *scope) defaults() defaults {
	var d defaults
	sub := s.scope("identity")
	d.identity = sub.identity(true)
	d.deviceFile = sub.file("device-file")
	sub.done()
	sub = s.scope("trust")
	if d.keys, d.keysAt = sub.files("keys"); d.keys != nil {
		s.note("trust.keys", d.keys, d.keysAt)
	}
	d.signatures, _ = sub.signatures(1)
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
