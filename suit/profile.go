package suit

import (
	"maps"
	"slices"
)

// check refuses by name what the profile does not have, wherever it stands.
func (m *Manifest) check() error {
	for _, id := range m.components {
		switch {
		case len(id) != 1:
			return unsupported("component identifier of %d segments", len(id))
		case !validName(string(id[0])):
			return unsupported("component identifier %s", identifier(id))
		}
	}
	switch {
	case m.components == nil:
		return malformed("manifest without components")
	case m.numbers == 0:
		return malformed("manifest has no member %d", memberSetVersion)
	case m.bodies[memberValidate] == nil:
		return malformed("manifest has no member %d", memberValidate)
	}
	for _, key := range sortKeys(slices.Collect(maps.Keys(m.bodies))) {
		b, s := m.bodies[key], sectionOf(key)
		switch {
		case s == load || s == invoke:
			return unsupported("manifest member %s", memberName(key))
		case s != "" && !b.there:
			return unsupported("a manifest whose %s was severed", memberName(key))
		}
		if err := s.check(b.sequence, false); err != nil {
			return err
		}
	}
	return shared.check(m.shared, false)
}

// check refuses commands and parameters that the profile does not have, or not in this section.
func (s section) check(q sequence, nested bool) error {
	for _, c := range q {
		if !s.permits(c.code) {
			return unsupported("%s in %s", commandName(c.code), s)
		}
		for _, p := range c.set {
			if err := s.checkParameter(p, nested); err != nil {
				return err
			}
		}
		for _, n := range c.try {
			if err := s.check(n, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// permits tells whether a command has its place in a section: an image is there only after the section that it comes in, and suit-validate can be run by others too, long after the update.
func (s section) permits(code int64) bool {
	if commandOf(code).refused {
		return false
	}
	switch code {
	case conditionImageMatch, conditionCheckContent:
		return s != shared
	case directiveFetch, directiveWrite:
		return s == payloadFetch || s == install
	case conditionVersion, conditionBattery:
		return s != validate
	}
	return true
}

func (s section) checkParameter(p parameter, nested bool) error {
	switch p.key {
	case parameterUseBefore, parameterEncryption, parameterSource, parameterInvokeArgs, parameterFetchArgs, parameterPriority, parameterWait, parameterMetadata:
		return unsupported("%s in %s", parameterName(p.key), s)
	}
	switch {
	case p.key == parameterSoftFailure && !nested:
		return malformed("%s in %s, outside of the sequences within it", parameterName(p.key), s)
	case p.key == parameterCompression && p.text != CompressionZstd:
		return unsupported("%s %q", parameterName(p.key), p.text)
	case p.key == parameterURI && p.text[0] == '#' && !validPayload(p.text):
		return unsupported("uri %.64q", p.text)
	}
	return nil
}

// Target is a kind of device, and what a manifest demands of it.
type Target struct {
	Device
	// Slot is the index of the slot that the images are written to where the demand depends on it, else -1.
	Slot int
	Demand
}

// Bounds of what is tried for one manifest.
const (
	maxTargets   = 256 // kinds of devices
	maxDecisions = 8   // alternatives for versions and the battery, of each
)

// Targets are the kinds of devices that the manifest is for, as far as its conditions tell: one at least, or what is wrong. Where the present version of a component or the charge of a battery decides
// between alternatives, each of them counts as a kind: the first one as long as what it asks for is met, then the one that is left where it is not, and so on.
func (m *Manifest) Targets() ([]Target, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	vendors, classes, devices := m.identifiers(parameterVendor), m.identifiers(parameterClass), m.identifiers(parameterDevice)
	slots := []int{-1}
	if m.some(func(c command) bool { return c.code == conditionSlot }) {
		slots = []int{0, 1}
	}
	if n := len(vendors) * len(classes) * len(devices) * len(slots); n > maxTargets {
		return nil, unsupported("a manifest that tells %d kinds of devices apart", n)
	}
	var all []Target
	var first error
	for _, v := range vendors {
		for _, c := range classes {
			for _, d := range devices {
				for _, slot := range slots {
					these, err := m.alternatives(Target{Device: Device{Vendor: v, Class: c, ID: d}, Slot: slot})
					if all = append(all, these...); first == nil {
						first = err
					}
				}
			}
		}
	}
	if len(all) == 0 {
		return nil, first
	}
	return all, nil
}

// alternatives are what is demanded of one kind of device, or why nothing can be.
func (m *Manifest) alternatives(t Target) (all []Target, first error) {
	r := t.recipient()
	for asked := 0; r.fail <= min(asked, maxDecisions); r.fail++ {
		var err error
		t.Demand, asked, err = m.evaluate(r)
		if err != nil && first == nil {
			first = err
		}
		if err == nil && !slices.ContainsFunc(all, func(other Target) bool { return t.equal(other.Demand) }) {
			all = append(all, t)
		}
	}
	return all, first
}

func (t Target) recipient() Recipient {
	return Recipient{Device: t.Device, assume: true, Slot: func(string) (uint64, bool) { return uint64(t.Slot), t.Slot >= 0 }}
}

// identifiers are the values that the manifest gives a parameter that identifies devices; the nil UUID if it gives none.
func (m *Manifest) identifiers(key int64) []UUID {
	var all []UUID
	m.some(func(c command) bool {
		for _, p := range c.set {
			if p.key == key && !slices.Contains(all, UUID(p.bytes)) {
				all = append(all, UUID(p.bytes))
			}
		}
		return false
	})
	if all == nil {
		all = []UUID{{}}
	}
	return all
}

// some tells whether f is true for some command.
func (m *Manifest) some(f func(command) bool) bool {
	if m.shared.some(f) {
		return true
	}
	for _, body := range m.bodies {
		if body.sequence.some(f) {
			return true
		}
	}
	return false
}

func (q sequence) some(f func(command) bool) bool {
	return slices.ContainsFunc(q, func(c command) bool {
		return f(c) || slices.ContainsFunc(c.try, func(n sequence) bool { return n.some(f) })
	})
}
