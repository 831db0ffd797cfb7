package suit

import (
	"fmt"
	"math"
)

// Commands and parameters of the profile: the draft, sections "SUIT Commands" and "SUIT Parameters"; 28 in both is of draft-ietf-suit-update-management-14.
const (
	conditionVendor     = 1
	conditionClass      = 2
	conditionImageMatch = 3
	setComponentIndex   = 12
	overrideParameters  = 20
	directiveFetch      = 21
	conditionVersion    = 28

	parameterVendor  = 1
	parameterClass   = 2
	parameterDigest  = 3
	parameterSize    = 14
	parameterURI     = 21
	parameterVersion = 28

	comparisonGreaterEqual = 2
)

// section is a command sequence of a manifest.
type section string

const (
	shared       section = "shared-sequence"
	validate     section = "validate"
	payloadFetch section = "payload-fetch"
	install      section = "install"
)

// permitsCommand tells whether a command has its place in a section. The digest is checked where it can be checked, and so on: elsewhere a command would mean something else.
func (s section) permitsCommand(code int64) bool {
	switch code {
	case setComponentIndex, overrideParameters:
		return true
	case conditionVendor, conditionClass:
		return s == shared
	case conditionImageMatch:
		return s != shared
	case directiveFetch:
		return s == payloadFetch || s == install
	case conditionVersion:
		return s == shared || s == install
	}
	return false
}

// permitsParameter tells whether a parameter can be set in a section. What an image must be is said in the shared sequence, where every other sequence sees it.
func (s section) permitsParameter(key int64) bool {
	switch key {
	case parameterVendor, parameterClass, parameterDigest, parameterSize:
		return s == shared
	case parameterURI:
		return s == payloadFetch || s == install
	case parameterVersion:
		return s == shared || s == install
	}
	return false
}

// commandName names a command, for people.
func commandName(code int64) string {
	name := map[int64]string{
		1: "condition-vendor-identifier", 2: "condition-class-identifier", 3: "condition-image-match", 4: "condition-use-before", 5: "condition-component-slot",
		6: "condition-check-content", 7: "condition-dependency-integrity", 8: "condition-is-dependency", 11: "directive-process-dependency",
		12: "directive-set-component-index", 14: "condition-abort", 15: "directive-try-each", 18: "directive-write", 19: "directive-set-parameters", 20: "directive-override-parameters",
		21: "directive-fetch", 22: "directive-copy", 23: "directive-invoke", 24: "condition-device-identifier", 25: "condition-image-not-match",
		26: "condition-minimum-battery", 27: "condition-update-authorized", 28: "condition-version", 29: "directive-wait", 31: "directive-swap",
		32: "directive-run-sequence", 33: "directive-unlink", 34: "directive-override-multiple", 35: "directive-copy-params",
	}[code]
	switch {
	case code < 0:
		return fmt.Sprintf("custom command %d", code)
	case name == "":
		return fmt.Sprintf("command %d", code)
	}
	return fmt.Sprintf("%s (%d)", name, code)
}

// parameterName names a parameter, for people.
func parameterName(key int64) string {
	name := map[int64]string{
		1: "vendor-identifier", 2: "class-identifier", 3: "image-digest", 4: "use-before", 5: "component-slot", 12: "strict-order", 13: "soft-failure", 14: "image-size",
		18: "content", 19: "encryption-info", 21: "uri", 22: "source-component", 23: "invoke-args", 24: "device-identifier", 25: "fetch-arguments",
		26: "minimum-battery", 27: "update-priority", 28: "version", 29: "wait-info", 30: "component-metadata",
	}[key]
	if name == "" {
		return fmt.Sprintf("parameter %d", key)
	}
	return fmt.Sprintf("parameter %s (%d)", name, key)
}

// component is a component of the manifest: its parameters, and the commands that ran on it.
type component struct {
	name string
	set  map[int64]bool // parameters
	ran  map[int64]bool // commands, of any section

	device  Device
	digest  Digest
	size    int64
	uri     string
	version Version // at least
}

// machine runs command sequences, not on a device but to learn what they demand of one (the draft, section "Abstract Machine Description").
type machine struct {
	components []component
	section    section
	current    *component // nil until it is known
	validated  bool
}

// run reads a command sequence and runs it.
func (x *machine) run(s section, outer *reader) error {
	if len(x.components) == 0 {
		return malformed("%s without components", s)
	}
	r, err := outer.nested(string(s))
	if err != nil {
		return err
	}
	n, err := r.array(string(s), 2, 256)
	if err != nil {
		return err
	}
	if n%2 != 0 {
		return malformed("%s ends within a command", s)
	}
	x.section, x.current = s, nil
	if len(x.components) == 1 {
		x.current = &x.components[0]
	}
	for range n / 2 {
		if err := x.command(r); err != nil {
			return err
		}
	}
	return r.done(string(s))
}

// command reads a command with its argument and runs it.
func (x *machine) command(r *reader) error {
	code, err := r.int("command in " + string(x.section))
	if err != nil {
		return err
	}
	if !x.section.permitsCommand(code) {
		return unsupported("%s in %s", commandName(code), x.section)
	}
	switch {
	case code == setComponentIndex:
		return x.setIndex(r)
	case x.current == nil:
		return malformed("%s of several components does not begin with an index", x.section)
	case code == overrideParameters:
		return r.fields("parameters", func(key int64) error { return x.parameter(key, r) })
	}
	policy, err := r.uint("reporting policy")
	if err != nil {
		return err
	}
	if policy > 15 {
		return malformed("reporting policy %d", policy)
	}
	return x.test(code)
}

func (x *machine) setIndex(r *reader) error {
	switch r.peek() {
	case majorArray, majorSimple:
		return unsupported("several components at a time")
	}
	i, err := r.uint("component index")
	if err != nil {
		return err
	}
	if i >= uint64(len(x.components)) {
		return malformed("component index %d of %d", i, len(x.components))
	}
	x.current = &x.components[i]
	return nil
}

// test runs a condition, or fetch: what it needs must have been set.
func (x *machine) test(code int64) error {
	needs := map[int64][]int64{
		conditionVendor:     {parameterVendor},
		conditionClass:      {parameterClass},
		conditionImageMatch: {parameterDigest, parameterSize},
		directiveFetch:      {parameterDigest, parameterSize, parameterURI},
		conditionVersion:    {parameterVersion},
	}[code]
	for _, p := range needs {
		if !x.current.set[p] {
			return malformed("%s of %s in %s without %s", commandName(code), x.current.name, x.section, parameterName(p))
		}
	}
	if code == directiveFetch && x.current.ran[code] {
		return unsupported("a second fetch of %s", x.current.name)
	}
	if x.current.ran == nil {
		x.current.ran = make(map[int64]bool)
	}
	x.current.ran[code] = true
	if code == conditionImageMatch && x.section == validate {
		x.validated = true
	}
	return nil
}

// parameter reads a parameter of the current component. None is set twice, so that a command cannot be meant with a value that another one did not see.
func (x *machine) parameter(key int64, r *reader) (err error) {
	c := x.current
	if !x.section.permitsParameter(key) {
		return unsupported("%s in %s", parameterName(key), x.section)
	}
	if c.set[key] {
		return unsupported("%s of %s set twice", parameterName(key), c.name)
	}
	if c.set == nil {
		c.set = make(map[int64]bool)
	}
	c.set[key] = true
	switch key {
	case parameterVendor:
		c.device.Vendor, err = readUUID(r, parameterName(key))
	case parameterClass:
		c.device.Class, err = readUUID(r, parameterName(key))
	case parameterDigest:
		c.digest, err = readImageDigest(r)
	case parameterSize:
		c.size, err = readSize(r)
	case parameterURI:
		c.uri, err = readURI(r)
	case parameterVersion:
		c.version, err = readMinimum(r)
	}
	return err
}

// readUUID reads an identifier. The nil UUID is refused: it would match a device that was given none.
func readUUID(r *reader, what string) (UUID, error) {
	if r.peek() == majorTag {
		return UUID{}, unsupported("%s as private enterprise number", what)
	}
	p, err := r.bytes(what)
	if err != nil {
		return UUID{}, err
	}
	if len(p) != len(UUID{}) || UUID(p) == (UUID{}) {
		return UUID{}, malformed("%s is not a UUID", what)
	}
	return UUID(p), nil
}

func readImageDigest(r *reader) (Digest, error) {
	n, err := r.nested("image digest")
	if err != nil {
		return Digest{}, err
	}
	d, err := n.digest("image digest")
	if err != nil {
		return Digest{}, err
	}
	return d, n.done("image digest")
}

func readSize(r *reader) (int64, error) {
	n, err := r.uint("image size")
	if err == nil && (n == 0 || n > math.MaxInt64) {
		err = malformed("image size %d", n)
	}
	return int64(n), err
}

func readURI(r *reader) (string, error) {
	s, err := r.text("uri")
	if err == nil && !validPayload(s) {
		err = unsupported("uri %.64q, only that of an integrated payload is (#name)", s)
	}
	return s, err
}

// readMinimum reads a SUIT_Parameter_Version_Match. A version of fewer numbers compares those only, which for "greater or equal" is the same as zeroes.
func readMinimum(r *reader) (Version, error) {
	n, err := r.nested("version match")
	if err != nil {
		return Version{}, err
	}
	if _, err := n.array("version match", 2, 2); err != nil {
		return Version{}, err
	}
	op, err := n.int("version comparison")
	if err != nil {
		return Version{}, err
	}
	if op != comparisonGreaterEqual {
		return Version{}, unsupported("version comparison %d, only greater or equal (%d) is", op, comparisonGreaterEqual)
	}
	v, err := readVersion(n)
	if err != nil {
		return Version{}, err
	}
	return v, n.done("version match")
}

// result is what the sequences demanded: an image for a device, and dependencies.
func (x *machine) result() (d Device, i Image, err error) {
	for _, c := range x.components {
		if c.isDependency() {
			i.Dependencies = append(i.Dependencies, Dependency{Component: c.name, Min: c.version})
			continue
		}
		if err := c.complete(); err != nil {
			return d, i, err
		}
		if i.Component != "" {
			return d, i, unsupported("more than one image (%s and %s)", i.Component, c.name)
		}
		d = c.device
		i.Component, i.Digest, i.Size, i.Payload = c.name, c.digest, c.size, c.uri
	}
	switch {
	case i.Component == "":
		err = malformed("the manifest describes no image")
	case !x.validated:
		err = malformed("%s of %s is missing in validate", commandName(conditionImageMatch), i.Component)
	}
	return d, i, err
}

// isDependency tells whether the manifest demands a version of the component, and nothing else.
func (c component) isDependency() bool {
	return c.ran[conditionVersion] && len(c.ran) == 1 && len(c.set) == 1
}

// complete returns nil if everything that the profile demands of an image is there, and nothing that it does not have.
func (c component) complete() error {
	for _, code := range []int64{conditionVendor, conditionClass, conditionImageMatch} {
		if !c.ran[code] {
			return malformed("component %s without %s", c.name, commandName(code))
		}
	}
	if c.set[parameterVersion] {
		return unsupported("a condition on the present version of %s, the component that is updated", c.name)
	}
	if c.set[parameterURI] && !c.ran[directiveFetch] {
		return malformed("component %s has a uri, and no fetch", c.name)
	}
	return nil
}
