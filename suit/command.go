package suit

import (
	"fmt"
	"math"
)

// Commands: the draft, section "SUIT Commands"; 4, 25 to 29 are of draft-ietf-suit-update-management-14, and 7, 8, 11 and 33 of draft-ietf-suit-trust-domains.
const (
	conditionVendor       = 1
	conditionClass        = 2
	conditionImageMatch   = 3
	conditionUseBefore    = 4
	conditionSlot         = 5
	conditionCheckContent = 6
	conditionIntegrity    = 7
	conditionIsDependency = 8
	directiveDependency   = 11
	directiveSetIndex     = 12
	conditionAbort        = 14
	directiveTryEach      = 15
	directiveWrite        = 18
	directiveOverride     = 20
	directiveFetch        = 21
	directiveCopy         = 22
	directiveInvoke       = 23
	conditionDevice       = 24
	conditionNotMatch     = 25
	conditionBattery      = 26
	conditionAuthorized   = 27
	conditionVersion      = 28
	directiveWait         = 29
	directiveSwap         = 31
	directiveRunSequence  = 32
	directiveUnlink       = 33
)

// Bounds of command sequences. A sequence lies within another one at most maxDepth deep.
const (
	maxCommands   = 512 // in a manifest
	maxParameters = 512 // in a manifest
	maxDepth      = 4
)

// argument is what follows a command.
type argument int

const (
	argNone       argument = iota
	argPolicy              // a reporting policy, which has no effect here
	argIndex               // component indices
	argParameters          // a map of parameters
	argSequences           // alternatives
	argSequence            // a sequence
)

// commandDescription is what the draft says of a command. One without argument is known by name only, and refused.
type commandDescription struct {
	name     string
	argument argument
	shared   bool // permitted in the shared sequence
	refused  bool // read, so that it can be shown, and not run
}

// commandOf describes a command; one that the draft does not have gets no name.
func commandOf(code int64) commandDescription {
	switch code {
	case conditionVendor:
		return commandDescription{"condition-vendor-identifier", argPolicy, true, false}
	case conditionClass:
		return commandDescription{"condition-class-identifier", argPolicy, true, false}
	case conditionImageMatch:
		return commandDescription{"condition-image-match", argPolicy, true, false}
	case conditionUseBefore:
		return commandDescription{"condition-use-before", argPolicy, true, true}
	case conditionSlot:
		return commandDescription{"condition-component-slot", argPolicy, true, false}
	case conditionCheckContent:
		return commandDescription{"condition-check-content", argPolicy, true, false}
	case conditionIntegrity:
		return commandDescription{"condition-dependency-integrity", argPolicy, true, true}
	case conditionIsDependency:
		return commandDescription{"condition-is-dependency", argPolicy, true, true}
	case directiveDependency:
		return commandDescription{"directive-process-dependency", argPolicy, true, true}
	case directiveSetIndex:
		return commandDescription{"directive-set-component-index", argIndex, true, false}
	case conditionAbort:
		return commandDescription{"condition-abort", argPolicy, true, false}
	case directiveTryEach:
		return commandDescription{"directive-try-each", argSequences, true, false}
	case directiveWrite:
		return commandDescription{"directive-write", argPolicy, false, false}
	case 19:
		return commandDescription{"directive-set-parameters", argNone, false, false}
	case directiveOverride:
		return commandDescription{"directive-override-parameters", argParameters, true, false}
	case directiveFetch:
		return commandDescription{"directive-fetch", argPolicy, false, false}
	case directiveCopy:
		return commandDescription{"directive-copy", argPolicy, false, true}
	case directiveInvoke:
		return commandDescription{"directive-invoke", argPolicy, false, true}
	case conditionDevice:
		return commandDescription{"condition-device-identifier", argPolicy, true, false}
	case conditionNotMatch:
		return commandDescription{"condition-image-not-match", argPolicy, true, true}
	case conditionBattery:
		return commandDescription{"condition-minimum-battery", argPolicy, true, false}
	case conditionAuthorized:
		return commandDescription{"condition-update-authorized", argPolicy, true, true}
	case conditionVersion:
		return commandDescription{"condition-version", argPolicy, true, false}
	case directiveWait:
		return commandDescription{"directive-wait", argPolicy, false, true}
	case directiveSwap:
		return commandDescription{"directive-swap", argPolicy, false, true}
	case directiveRunSequence:
		return commandDescription{"directive-run-sequence", argSequence, true, false}
	case directiveUnlink:
		return commandDescription{"directive-unlink", argPolicy, false, true}
	case 34:
		return commandDescription{"directive-override-multiple", argNone, false, false}
	case 35:
		return commandDescription{"directive-copy-params", argNone, false, false}
	}
	return commandDescription{}
}

// commandName names a command, for people.
func commandName(code int64) string {
	switch name := commandOf(code).name; {
	case code < 0:
		return fmt.Sprintf("custom command %d", code)
	case name == "":
		return fmt.Sprintf("command %d", code)
	default:
		return fmt.Sprintf("%s (%d)", name, code)
	}
}

// command is a command as it is encoded.
type command struct {
	code   int64
	policy uint64
	all    bool        // set-component-index: every component
	list   bool        // set-component-index: a list of indices, not one
	index  []int       // set-component-index
	set    []parameter // override-parameters
	try    []sequence  // try-each, run-sequence (one)
	orNone bool        // try-each: nil is the last alternative
}

// sequence is a command sequence as it is encoded.
type sequence []command

// sequenceReader reads command sequences. It counts what it reads, over all sequences of a manifest.
type sequenceReader struct {
	components           int
	commands, parameters int
}

// section is a command sequence of a manifest.
type section string

const (
	shared       section = "shared-sequence"
	validate     section = "validate"
	load         section = "load"
	invoke       section = "invoke"
	payloadFetch section = "payload-fetch"
	install      section = "install"
)

// sequence reads the content of the byte string that a sequence is in.
func (x *sequenceReader) sequence(s section, r *reader, depth int) (sequence, error) {
	if depth > maxDepth {
		return nil, malformed("%s is nested too deep", s)
	}
	n, err := r.array(string(s), 2, 2*maxCommands)
	if err != nil {
		return nil, err
	}
	if n%2 != 0 {
		return nil, malformed("%s ends within a command", s)
	}
	var q sequence
	for range n / 2 {
		c, err := x.command(s, r, depth)
		if err != nil {
			return nil, err
		}
		q = append(q, c)
	}
	return q, r.done(string(s))
}

func (x *sequenceReader) command(s section, r *reader, depth int) (c command, err error) {
	if x.commands++; x.commands > maxCommands {
		return c, malformed("more than %d commands", maxCommands)
	}
	if c.code, err = r.int("command in " + string(s)); err != nil {
		return c, err
	}
	d := commandOf(c.code)
	if s == shared && !d.shared || d.argument == argNone {
		return c, unsupported("%s in %s", commandName(c.code), s)
	}
	switch d.argument {
	case argIndex:
		err = x.setIndex(&c, r)
	case argParameters:
		if err = r.fields("parameters", func(key int64) error { return x.parameter(s, &c, key, r) }); err == nil && c.set == nil {
			err = malformed("%s without parameters", commandName(c.code))
		}
	case argSequences:
		err = x.tryEach(s, &c, r, depth)
	case argSequence:
		c.try = make([]sequence, 1)
		c.try[0], err = x.nested(s, r, depth)
	default:
		if c.policy, err = r.uint("reporting policy"); err == nil && c.policy > 15 {
			err = malformed("reporting policy %d", c.policy)
		}
	}
	return c, err
}

func (x *sequenceReader) nested(s section, r *reader, depth int) (sequence, error) {
	n, err := r.nested("sequence within " + string(s))
	if err != nil {
		return nil, err
	}
	return x.sequence(s, n, depth+1)
}

// setIndex reads the index of a component, a list of them, or true for all.
func (x *sequenceReader) setIndex(c *command, r *reader) (err error) {
	n := 1
	switch r.peek() {
	case majorSimple:
		_, arg, err := r.head("component index")
		if err == nil && arg != simpleTrue {
			err = malformed("component index is a simple value that is not true")
		}
		c.all = true
		return err
	case majorArray:
		c.list = true
		if n, err = r.array("component indices", 1, maxComponents); err != nil {
			return err
		}
	}
	for range n {
		i, err := r.uint("component index")
		if err != nil {
			return err
		}
		if i >= uint64(x.components) {
			return malformed("component index %d of %d", i, x.components)
		}
		c.index = append(c.index, int(i))
	}
	return nil
}

// tryEach reads the alternatives, two at least; nil may follow them.
func (x *sequenceReader) tryEach(s section, c *command, r *reader, depth int) error {
	n, err := r.array("alternatives", 2, 64)
	if err != nil {
		return err
	}
	for i := range n {
		if i == n-1 && i >= 2 && r.peek() == majorSimple {
			_, arg, err := r.head("alternative")
			if err == nil && arg != simpleNull {
				err = malformed("alternative is a simple value that is not nil")
			}
			c.orNone = true
			return err
		}
		q, err := x.nested(s, r, depth)
		if err != nil {
			return err
		}
		c.try = append(c.try, q)
	}
	return nil
}

func (q sequence) append(b []byte) []byte {
	b = appendHead(b, majorArray, 2*uint64(len(q)))
	for _, c := range q {
		b = c.append(appendInt(b, c.code))
	}
	return b
}

// append encodes the argument.
func (c command) append(b []byte) []byte {
	switch commandOf(c.code).argument {
	case argIndex:
		return c.appendIndex(b)
	case argParameters:
		b = appendHead(b, majorMap, uint64(len(c.set)))
		for _, p := range c.set {
			b = p.append(appendInt(b, p.key))
		}
		return b
	case argSequences:
		n := len(c.try)
		if c.orNone {
			n++
		}
		b = appendHead(b, majorArray, uint64(n))
		for _, q := range c.try {
			b = appendBytes(b, q.append(nil))
		}
		if c.orNone {
			b = appendHead(b, majorSimple, simpleNull)
		}
		return b
	case argSequence:
		return appendBytes(b, c.try[0].append(nil))
	}
	return appendHead(b, majorUint, c.policy)
}

func (c command) appendIndex(b []byte) []byte {
	if c.all {
		return appendHead(b, majorSimple, simpleTrue)
	}
	if c.list {
		b = appendHead(b, majorArray, uint64(len(c.index)))
	}
	for _, i := range c.index {
		b = appendHead(b, majorUint, uint64(i))
	}
	return b
}

// Parameters: the draft, section "SUIT Parameters"; 4 and 26 to 30 are of draft-ietf-suit-update-management-14, and 19 of draft-ietf-suit-firmware-encryption. The last two are ours (docs/manifest.md).
const (
	parameterVendor      = 1
	parameterClass       = 2
	parameterDigest      = 3
	parameterUseBefore   = 4
	parameterSlot        = 5
	parameterStrictOrder = 12
	parameterSoftFailure = 13
	parameterSize        = 14
	parameterContent     = 18
	parameterEncryption  = 19
	parameterURI         = 21
	parameterSource      = 22
	parameterInvokeArgs  = 23
	parameterDevice      = 24
	parameterFetchArgs   = 25
	parameterBattery     = 26
	parameterPriority    = 27
	parameterVersion     = 28
	parameterWait        = 29
	parameterMetadata    = 30

	parameterImageVersion = -257
	parameterCompression  = -258
)

// kind is the type of a parameter's value.
type kind int

const (
	kindNone kind = iota
	kindUUID
	kindDigest
	kindNumber
	kindContent
	kindText
	kindBool
	kindRequirement
	kindVersion
)

// parameterOf describes a parameter; one that the draft does not have gets no name.
func parameterOf(key int64) (name string, k kind) {
	switch key {
	case parameterVendor:
		return "vendor-identifier", kindUUID
	case parameterClass:
		return "class-identifier", kindUUID
	case parameterDigest:
		return "image-digest", kindDigest
	case parameterUseBefore:
		return "use-before", kindNumber
	case parameterSlot:
		return "component-slot", kindNumber
	case parameterStrictOrder:
		return "strict-order", kindBool
	case parameterSoftFailure:
		return "soft-failure", kindBool
	case parameterSize:
		return "image-size", kindNumber
	case parameterContent:
		return "content", kindContent
	case parameterEncryption:
		return "encryption-info", kindContent
	case parameterURI:
		return "uri", kindText
	case parameterSource:
		return "source-component", kindNumber
	case parameterInvokeArgs:
		return "invoke-args", kindContent
	case parameterDevice:
		return "device-identifier", kindUUID
	case parameterFetchArgs:
		return "fetch-arguments", kindContent
	case parameterBattery:
		return "minimum-battery", kindNumber
	case parameterPriority:
		return "update-priority", kindNumber
	case parameterVersion:
		return "version", kindRequirement
	case parameterWait:
		return "wait-info", kindContent
	case parameterMetadata:
		return "component-metadata", kindContent
	case parameterImageVersion:
		return "image-version", kindVersion
	case parameterCompression:
		return "payload-compression", kindText
	}
	return "", kindNone
}

// parameterName names a parameter, for people.
func parameterName(key int64) string {
	if name, _ := parameterOf(key); name != "" {
		return fmt.Sprintf("parameter %s (%d)", name, key)
	}
	return fmt.Sprintf("parameter %d", key)
}

// parameter is a parameter and its value, of which the kind says where it is.
type parameter struct {
	key     int64
	bytes   []byte // uuid, content
	digest  Digest
	number  uint64
	text    string
	truth   bool
	require Requirement
	version Version
	numbers int // of the version
}

func (x *sequenceReader) parameter(s section, c *command, key int64, r *reader) (err error) {
	if x.parameters++; x.parameters > maxParameters {
		return malformed("more than %d parameters", maxParameters)
	}
	p := parameter{key: key}
	name := parameterName(key)
	_, k := parameterOf(key)
	if k == kindNone || key < 0 && s == shared { // the draft, section "suit-parameter-custom"
		return unsupported("%s in %s", name, s)
	}
	switch k {
	case kindUUID:
		p.bytes, err = readUUID(r, name)
	case kindDigest:
		p.digest, err = readImageDigest(r)
	case kindNumber:
		if p.number, err = r.uint(name); err == nil && p.number > math.MaxInt64 {
			err = malformed("%s %d is too large", name, p.number)
		}
	case kindContent:
		p.bytes, err = r.bytes(name)
	case kindText:
		if p.text, err = r.text(name); err == nil && !plain(p.text, maxURI) {
			err = unsupported("%s %.64q", name, p.text)
		}
	case kindBool:
		p.truth, err = r.bool(name)
	case kindRequirement:
		p.require, err = readRequirement(r)
	case kindVersion:
		p.version, p.numbers, err = readWrappedVersion(r)
	}
	c.set = append(c.set, p)
	return err
}

func (p parameter) append(b []byte) []byte {
	switch _, k := parameterOf(p.key); k {
	case kindUUID, kindContent:
		return appendBytes(b, p.bytes)
	case kindDigest:
		return appendBytes(b, appendDigest(nil, p.digest))
	case kindNumber:
		return appendHead(b, majorUint, p.number)
	case kindText:
		return appendText(b, p.text)
	case kindBool:
		return appendBool(b, p.truth)
	case kindRequirement:
		return appendBytes(b, p.require.append(nil))
	}
	return appendBytes(b, appendVersion(nil, p.version, p.numbers))
}

// value is the value, for people.
func (p parameter) value() string {
	switch _, k := parameterOf(p.key); k {
	case kindUUID:
		return UUID(p.bytes).String()
	case kindDigest:
		return p.digest.String()
	case kindNumber:
		return fmt.Sprint(p.number)
	case kindContent:
		if len(p.bytes) > 32 {
			return fmt.Sprintf("%d bytes", len(p.bytes))
		}
		return fmt.Sprintf("h'%x'", p.bytes)
	case kindText:
		return p.text
	case kindBool:
		return fmt.Sprint(p.truth)
	case kindRequirement:
		return p.require.String()
	}
	return p.version.String()
}

// readUUID reads an identifier. The nil UUID is refused: it would match a device that was given none.
func readUUID(r *reader, what string) ([]byte, error) {
	if r.peek() == majorTag {
		return nil, unsupported("%s as private enterprise number", what)
	}
	p, err := r.bytes(what)
	if err == nil && (len(p) != len(UUID{}) || UUID(p) == (UUID{})) {
		err = malformed("%s is not a UUID", what)
	}
	return p, err
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

// maxURI bounds a URI, which a person may have to look at.
const maxURI = 1024

// plain tells whether s can stand in a terminal, a path and a log: ASCII that is seen.
func plain(s string, limit int) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && len(s) <= limit
}
