package suit

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

// Recipient is the device that a manifest is evaluated for. Version, Slot and Battery are asked only where the manifest makes something depend on them; a nil one knows nothing.
type Recipient struct {
	Device
	// Anyone takes every identifier for its own: for tools, which are not the device.
	Anyone bool
	// Slot is the index of the slot that the component's image will be written to.
	Slot func(component string) (index uint64, ok bool)
	// Version is that of the component's active image.
	Version func(component string) (v Version, ok bool)
	// Battery is what the battery holds now, in mWh.
	Battery func() (mWh uint64, err error)

	assume bool // versions and the battery are what is asked for
	fail   int  // but for so many of those that decide between alternatives, the first ones that are asked
}

// maxSteps bounds the commands that run in one evaluation: alternatives and lists of components multiply them.
const maxSteps = 2 << 10

// Evaluate runs the command sequences of the update procedure (the draft, sections "Abstract Machine Description" and "SUIT_Command_Sequence"), not on the device but to learn what they demand of it.
// As data are pushed to the device, fetch and write mean that an image is expected, and image-match after that, and in suit-validate, what it must be. Versions and the battery are demanded for the
// time of the install; where the manifest has alternatives for them, they are asked at once, too. Errors wrap ErrMalformed, ErrUnsupported, ErrVendor, ErrClass, ErrDevice or ErrCondition.
func (m *Manifest) Evaluate(r Recipient) (Demand, error) {
	d, _, err := m.evaluate(r)
	return d, err
}

// evaluate is Evaluate, and tells how many versions and charges have decided between alternatives, with Recipient.assume.
func (m *Manifest) evaluate(r Recipient) (d Demand, asked int, err error) {
	x := machine{m: m, recipient: r, learned: learned{out: slices.Repeat([]*outcome{{}}, len(m.components))}}
	for i := range m.components {
		x.every = append(x.every, i)
	}
	for _, key := range []int64{memberPayloadFetch, memberInstall, memberValidate} {
		b := m.bodies[key]
		if b == nil {
			continue
		}
		x.set, x.section, x.came = make([]map[int64]parameter, len(m.components)), sectionOf(key), make([]bool, len(m.components))
		for _, s := range []struct {
			section  section
			sequence sequence
		}{{shared, m.shared}, {x.section, b.sequence}} {
			x.section = s.section
			if err := x.begin(s.sequence); err != nil {
				return Demand{}, len(x.asked), fmt.Errorf("%s: %w", s.section, err)
			}
		}
		if err := x.note(); err != nil {
			return Demand{}, len(x.asked), err
		}
	}
	d, err = x.demand()
	return d, len(x.asked), err
}

// unmet is a condition that is not met: softer than other errors, where the manifest says so. Its text is made when somebody reads it: alternatives can make many of them that nobody does.
type unmet struct {
	err  error
	text func() string
}

func (u *unmet) Error() string { return u.err.Error() + ": " + u.text() }
func (u *unmet) Unwrap() error { return u.err }

func isUnmet(err error) bool {
	var u *unmet
	return errors.As(err, &u)
}

// outcome is what was learned of a component.
type outcome struct {
	digest      Digest // that was demanded; without one, nothing was
	size        int64
	validated   bool // it was demanded in suit-validate
	expected    bool // by fetch or write
	uri         string
	compression string
	content     []byte
	version     Version
	numbers     int // of the version; 0: the manifest has none for the component
	requires    []Requirement
}

// machine is the abstract machine.
type machine struct {
	m         *Manifest
	recipient Recipient
	every     []int // index of each component
	section   section
	set       []map[int64]parameter // by component
	steps     int
	asked     []any // what decided between alternatives, with Recipient.assume
	learned
}

// learned is what the commands that ran have demanded.
type learned struct {
	out           []*outcome // by component; shared by clones, so that none is changed in place
	came          []bool     // by component: fetch or write ran in this section
	battery       uint64
	vendor, class bool // the device was found to have them, in the shared sequence
}

func (l learned) clone() learned {
	l.out, l.came = slices.Clone(l.out), slices.Clone(l.came)
	return l
}

// change returns what was learned of component i, to be changed.
func (l *learned) change(i int) *outcome {
	o := *l.out[i]
	l.out[i] = &o
	return &o
}

// scope is what a sequence has for itself.
type scope struct {
	current []int // components that the next command is for; nil until that is known
	soft    bool  // a condition that is not met ends the sequence, and nothing else
	either  bool  // whether the sequence is run to its end is for some condition to decide
}

func (x *machine) begin(q sequence) error {
	s := &scope{}
	if len(x.out) == 1 {
		s.current = []int{0}
	}
	return x.run(q, s)
}

func (x *machine) run(q sequence, s *scope) error {
	for _, c := range q {
		if err := x.command(c, s); err != nil {
			return err
		}
	}
	return nil
}

func (x *machine) command(c command, s *scope) error {
	if c.code == directiveSetIndex {
		s.current = c.index
		if c.all {
			s.current = x.every
		}
		return x.step()
	}
	if s.current == nil {
		return malformed("%s of several components does not begin with an index", x.section)
	}
	for _, p := range c.set {
		if p.key == parameterSoftFailure {
			s.soft = p.truth
		}
	}
	for _, i := range s.current {
		if err := x.step(); err != nil {
			return err
		}
		if err := x.one(c, i, s); err != nil {
			return err
		}
	}
	return nil
}

// step counts a command that is run. None is for nothing: nested sequences multiply those that only say which component is next, too.
func (x *machine) step() error {
	if x.steps++; x.steps > maxSteps {
		return malformed("more than %d commands to run", maxSteps)
	}
	return nil
}

// one runs a command for component i.
func (x *machine) one(c command, i int, s *scope) error {
	switch c.code {
	case directiveOverride:
		if x.set[i] == nil {
			x.set[i] = map[int64]parameter{}
		}
		for _, p := range c.set {
			x.set[i][p.key] = p
		}
		return nil
	case directiveTryEach:
		return x.tryEach(c, i, s)
	case directiveRunSequence:
		return x.runSequence(c.try[0], i, s)
	case directiveFetch:
		return x.fetch(i)
	case directiveWrite:
		return x.write(i)
	}
	return x.condition(c.code, i, s)
}

// tryEach runs alternatives for component i until one of them is not ended by a condition.
func (x *machine) tryEach(c command, i int, s *scope) (err error) {
	for _, q := range c.try {
		n := &scope{current: x.every[i : i+1], soft: true, either: true}
		if err = x.nested(q, n); err == nil || !isUnmet(err) || !n.soft {
			return err
		}
	}
	if c.orNone {
		return nil
	}
	return err
}

func (x *machine) runSequence(q sequence, i int, s *scope) error {
	n := &scope{current: x.every[i : i+1], either: s.either || setsSoft(q)}
	err := x.nested(q, n)
	if isUnmet(err) && n.soft {
		return nil
	}
	return err
}

// nested runs a sequence. What it demanded before a condition ended it is forgotten; parameters stay set.
func (x *machine) nested(q sequence, s *scope) error {
	before := x.clone()
	err := x.run(q, s)
	if isUnmet(err) {
		x.learned = before
	}
	return err
}

// setsSoft tells whether a sequence makes its failure soft on the way.
func setsSoft(q sequence) bool {
	for _, c := range q {
		for _, p := range c.set {
			if p.key == parameterSoftFailure && p.truth {
				return true
			}
		}
	}
	return false
}

// lacks says that a command for component i lacks a parameter that it takes.
func (x *machine) lacks(code int64, i int, key int64) func() string {
	return func() string {
		return fmt.Sprintf("%s of %s without %s", commandName(code), x.name(i), parameterName(key))
	}
}

func (x *machine) name(i int) string { return identifier(x.m.components[i]) }

// condition runs a condition for component i. One that lacks its parameter is not met (the draft, section "SUIT_Condition").
func (x *machine) condition(code int64, i int, s *scope) error {
	var p parameter
	if key := parameterFor(code); key != 0 {
		var ok bool
		if p, ok = x.set[i][key]; !ok {
			return &unmet{ErrMalformed, x.lacks(code, i, key)}
		}
	}
	switch code {
	case conditionVendor:
		return x.identifies(UUID(p.bytes), x.recipient.Vendor, x.recipient.VendorName, ErrVendor, &x.vendor)
	case conditionClass:
		return x.identifies(UUID(p.bytes), x.recipient.Class, x.recipient.ClassName, ErrClass, &x.class)
	case conditionDevice:
		return x.identifies(UUID(p.bytes), x.recipient.ID, "", ErrDevice, new(bool))
	case conditionSlot:
		return x.slot(p.number, i)
	case conditionImageMatch:
		size, ok := x.set[i][parameterSize]
		if !ok {
			return &unmet{ErrMalformed, x.lacks(code, i, parameterSize)}
		}
		return x.match(i, p.digest, int64(size.number), s)
	case conditionCheckContent:
		sum := sha256.Sum256(p.bytes)
		return x.match(i, Digest{crypto.SHA256, sum[:]}, int64(len(p.bytes)), s)
	case conditionVersion:
		return x.require(p.require, i, s)
	case conditionBattery:
		return x.charged(p.number, s)
	}
	return &unmet{ErrCondition, func() string { return commandName(code) }}
}

// parameterFor is the parameter that a condition compares with, 0 for none.
func parameterFor(code int64) int64 {
	switch code {
	case conditionVendor:
		return parameterVendor
	case conditionClass:
		return parameterClass
	case conditionDevice:
		return parameterDevice
	case conditionSlot:
		return parameterSlot
	case conditionImageMatch:
		return parameterDigest
	case conditionCheckContent:
		return parameterContent
	case conditionVersion:
		return parameterVersion
	case conditionBattery:
		return parameterBattery
	}
	return 0
}

// identifies checks an identifier against that of the recipient, whose name is for people.
func (x *machine) identifies(want, own UUID, name string, err error, found *bool) error {
	if !x.recipient.Anyone && want != own {
		return &unmet{err, func() string {
			if name != "" {
				return fmt.Sprintf("%v, and this one is %q (%v)", want, name, own)
			}
			return fmt.Sprintf("%v, and this one is %v", want, own)
		}}
	}
	*found = *found || x.section == shared
	return nil
}

func (x *machine) slot(want uint64, i int) error {
	if x.recipient.Slot != nil {
		if have, ok := x.recipient.Slot(x.name(i)); ok && have == want {
			return nil
		}
	}
	return &unmet{ErrCondition, func() string { return fmt.Sprintf("the slot of %s must be %d", x.name(i), want) }}
}

// match demands an image. Where it was to be found out whether the image is there already, it is not.
func (x *machine) match(i int, d Digest, size int64, s *scope) error {
	o := x.out[i]
	switch {
	case x.section != validate && s.either && !x.came[i]:
		return &unmet{ErrCondition, func() string { return x.name(i) + " does not hold the image yet" }}
	case size == 0:
		return malformed("image size 0 of %s", x.name(i))
	case o.digest.Hash != 0 && (!o.digest.equal(d) || o.size != size):
		return malformed("%s must hold two different images", x.name(i))
	}
	o = x.change(i)
	o.digest, o.size = d, size
	o.validated = o.validated || x.section == validate
	return nil
}

// require demands a version for the time of the install.
func (x *machine) require(q Requirement, i int, s *scope) error {
	if x.came[i] {
		return unsupported("%s of %s after its image came", commandName(conditionVersion), x.name(i))
	}
	if s.either {
		var have Version
		var ok bool
		if x.recipient.Version != nil {
			have, ok = x.recipient.Version(x.name(i))
		}
		if met := ok && q.Met(have); !x.assumed(met, Dependency{Component: x.name(i), Requirement: q}) {
			return &unmet{ErrCondition, func() string { return fmt.Sprintf("the version of %s must be %v", x.name(i), q) }}
		}
	}
	if !slices.Contains(x.out[i].requires, q) {
		o := x.change(i)
		o.requires = append(o.requires, q) // what a clone shares and appends as well is of what was forgotten since
	}
	return nil
}

// charged demands a charge of the battery for the time of the install.
func (x *machine) charged(mWh uint64, s *scope) error {
	if s.either {
		var have uint64
		var err error
		if x.recipient.Battery != nil {
			have, err = x.recipient.Battery()
		}
		if met := err == nil && have >= mWh; !x.assumed(met, mWh) {
			return &unmet{ErrCondition, func() string { return fmt.Sprintf("the battery must hold %d mWh, it holds %d (%v)", mWh, have, err) }}
		}
	}
	x.battery = max(x.battery, mWh)
	return nil
}

// assumed tells whether a condition that decides between alternatives is met: as it is, or as it is assumed, the same each time that it is asked.
func (x *machine) assumed(met bool, what any) bool {
	if !x.recipient.assume {
		return met
	}
	i := slices.Index(x.asked, what)
	if i < 0 {
		i, x.asked = len(x.asked), append(x.asked, what)
	}
	return i >= x.recipient.fail
}

// fetch expects an image.
func (x *machine) fetch(i int) error {
	for _, key := range []int64{parameterURI, parameterDigest, parameterSize} {
		if _, ok := x.set[i][key]; !ok {
			return malformed("%s", x.lacks(directiveFetch, i, key)())
		}
	}
	if err := x.expect(i); err != nil {
		return err
	}
	o := x.change(i)
	o.uri, o.compression = x.set[i][parameterURI].text, x.set[i][parameterCompression].text
	return nil
}

// write expects an image that the manifest has.
func (x *machine) write(i int) error {
	p, ok := x.set[i][parameterContent]
	if !ok {
		return malformed("%s", x.lacks(directiveWrite, i, parameterContent)())
	}
	if len(p.bytes) == 0 {
		return malformed("%s of %s without content", commandName(directiveWrite), x.name(i))
	}
	if err := x.expect(i); err != nil {
		return err
	}
	x.change(i).content = p.bytes
	return nil
}

func (x *machine) expect(i int) error {
	if x.out[i].expected {
		return unsupported("a second fetch of %s", x.name(i))
	}
	x.change(i).expected, x.came[i] = true, true
	return nil
}

// note keeps what a section said of images by the way.
func (x *machine) note() error {
	for i := range x.out {
		p, ok := x.set[i][parameterImageVersion]
		if !ok {
			continue
		}
		o := x.change(i)
		if o.numbers > 0 && o.version != p.version {
			return malformed("%s has two different versions", x.name(i))
		}
		o.version, o.numbers = p.version, p.numbers
	}
	return nil
}

// demand is what the sequences demanded.
func (x *machine) demand() (Demand, error) {
	d := Demand{Sequence: x.m.sequence, Battery: x.battery}
	for i, o := range x.out {
		switch {
		case o.validated:
			image, err := x.image(i)
			if err != nil {
				return Demand{}, err
			}
			d.Images = append(d.Images, image)
		case o.expected || o.digest.Hash != 0:
			return Demand{}, malformed("%s of %s is missing in validate", commandName(conditionImageMatch), x.name(i))
		case len(o.requires) == 0:
			return Demand{}, malformed("the manifest asks nothing of component %s", x.name(i))
		}
		for _, q := range o.requires {
			d.Dependencies = append(d.Dependencies, Dependency{Component: x.name(i), Requirement: q, Present: o.validated})
		}
	}
	switch {
	case len(d.Images) == 0:
		return Demand{}, malformed("the manifest describes no image")
	case !x.vendor:
		return Demand{}, malformed("%s is missing in the %s", commandName(conditionVendor), shared)
	case !x.class:
		return Demand{}, malformed("%s is missing in the %s", commandName(conditionClass), shared)
	}
	return d, nil
}

func (x *machine) image(i int) (Image, error) {
	o := x.out[i]
	image := Image{
		Component: x.name(i), Digest: Digest{o.digest.Hash, bytes.Clone(o.digest.Sum)}, Size: o.size,
		Version: x.m.version, URI: o.uri, Compression: o.compression, Content: bytes.Clone(o.content),
	}
	if o.numbers > 0 {
		image.Version = o.version
	}
	if o.content != nil {
		if err := image.Check(bytes.NewReader(o.content)); err != nil {
			return Image{}, malformed("content of %s: %v", image.Component, err)
		}
	}
	return image, nil
}
