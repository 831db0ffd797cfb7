package suit

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"maps"
	"slices"
)

// Spec is what a manifest shall say.
type Spec struct {
	Device // both identifiers are mandatory
	Image  // Payload is "#name" if the image is to be integrated; then it need not be named after the component. Dependencies may be empty.
}

// reportAll asks for a record of every outcome (the draft, section "Reporting Policy"). Devices of this profile ignore it.
const reportAll = 15

// Create returns an envelope that says what spec says, not signed yet: tagged, deterministic. The digest of the manifest is by the algorithm of the image's. It makes nothing that Open would not take.
func Create(spec Spec) ([]byte, error) {
	if h := spec.Digest.Hash; !slices.Contains(slices.Collect(maps.Values(hashes())), h) {
		return nil, unsupported("image digest %v", h)
	}
	b := builder{spec: spec}
	manifest := b.manifest()
	m, err := parseManifest(manifest)
	if err != nil {
		return nil, err
	}
	if got := (Spec{m.device, m.image}); !got.equal(spec) {
		return nil, fmt.Errorf("manifest would say %v instead of %v", got, spec)
	}
	authentication := appendHead(nil, majorArray, 1)
	authentication = appendBytes(authentication, appendDigest(nil, manifestDigest(spec.Digest.Hash, manifest)))
	envelope := appendEnvelope(nil, frame{authentication: authentication, manifest: manifest})
	if _, err := whole(envelope); err != nil {
		return nil, err
	}
	return envelope, nil
}

func (s Spec) equal(t Spec) bool {
	return s.Device == t.Device && s.Component == t.Component && s.Digest.Hash == t.Digest.Hash && bytes.Equal(s.Digest.Sum, t.Digest.Sum) &&
		s.Size == t.Size && s.Version == t.Version && s.Sequence == t.Sequence && s.Payload == t.Payload && slices.Equal(s.Dependencies, t.Dependencies)
}

// builder encodes a manifest. The image's component has index 0, the dependencies follow.
type builder struct{ spec Spec }

func (b builder) manifest() []byte {
	sections := b.install()
	members := uint64(5)
	if sections != nil {
		members = 6
	}
	m := appendHead(nil, majorMap, members)
	m = appendInt(appendInt(m, memberVersion), 1)
	m = appendHead(appendInt(m, memberSequence), majorUint, b.spec.Sequence)
	m = appendBytes(appendInt(m, memberCommon), b.common())
	m = appendBytes(appendInt(m, memberSetVersion), appendVersion(nil, b.spec.Version))
	m = appendBytes(appendInt(m, memberValidate), b.validate())
	if sections != nil {
		m = appendBytes(appendInt(m, memberInstall), sections)
	}
	return m
}

func (b builder) common() []byte {
	c := appendHead(nil, majorMap, 2)
	c = appendInt(c, commonComponents)
	c = appendHead(c, majorArray, uint64(1+len(b.spec.Dependencies)))
	c = appendIdentifier(c, b.spec.Component)
	for _, d := range b.spec.Dependencies {
		c = appendIdentifier(c, d.Component)
	}
	c = appendInt(c, commonShared)
	return appendBytes(c, b.shared())
}

func appendIdentifier(b []byte, name string) []byte {
	return appendBytes(appendHead(b, majorArray, 1), []byte(name))
}

// sequence is a command sequence in the making.
type sequence struct {
	b []byte
	n uint64 // elements: two for each command
}

// command adds a command with an encoded argument.
func (s *sequence) command(code int64, argument []byte) {
	s.b = append(appendInt(s.b, code), argument...)
	s.n += 2
}

func (s *sequence) test(code int64) { s.command(code, appendInt(nil, reportAll)) }

// index begins the commands for component i. A manifest of one component needs none.
func (b builder) index(s *sequence, i int) {
	if len(b.spec.Dependencies) > 0 {
		s.command(setComponentIndex, appendInt(nil, int64(i)))
	}
}

func (s *sequence) encode() []byte { return append(appendHead(nil, majorArray, s.n), s.b...) }

func (b builder) shared() []byte {
	var s sequence
	b.index(&s, 0)
	p := appendHead(nil, majorMap, 4)
	p = appendBytes(appendInt(p, parameterVendor), b.spec.Vendor[:])
	p = appendBytes(appendInt(p, parameterClass), b.spec.Class[:])
	p = appendBytes(appendInt(p, parameterDigest), appendDigest(nil, b.spec.Digest))
	p = appendHead(appendInt(p, parameterSize), majorUint, uint64(b.spec.Size))
	s.command(overrideParameters, p)
	s.test(conditionVendor)
	s.test(conditionClass)
	return s.encode()
}

func (b builder) validate() []byte {
	var s sequence
	b.index(&s, 0)
	s.test(conditionImageMatch)
	return s.encode()
}

// install is nil if there is nothing to demand before the image, and no payload to take it from.
func (b builder) install() []byte {
	var s sequence
	for i, d := range b.spec.Dependencies {
		b.index(&s, i+1)
		match := appendHead(nil, majorArray, 2)
		match = appendInt(match, comparisonGreaterEqual)
		match = appendVersion(match, d.Min)
		s.command(overrideParameters, appendBytes(appendInt(appendHead(nil, majorMap, 1), parameterVersion), match))
		s.test(conditionVersion)
	}
	if b.spec.Payload != "" {
		b.index(&s, 0)
		s.command(overrideParameters, appendText(appendInt(appendHead(nil, majorMap, 1), parameterURI), b.spec.Payload))
		s.test(directiveFetch)
		s.test(conditionImageMatch)
	}
	if s.n == 0 {
		return nil
	}
	return s.encode()
}

// UUIDv5 is the name-based UUID of RFC 9562, section 5.5.
func UUIDv5(namespace UUID, name string) UUID {
	sum := sha1.Sum(append(namespace[:], name...))
	u := UUID(sum[:16])
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	return u
}

// VendorID is the vendor identifier for a domain name, as the draft recommends (section "Constructing UUIDs").
func VendorID(domain string) UUID {
	dns := UUID{0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}
	return UUIDv5(dns, domain)
}

// ClassID is the class identifier for what a vendor says of a class of devices, such as model and revision, as the draft recommends (section "Constructing UUIDs").
func ClassID(vendor UUID, info string) UUID { return UUIDv5(vendor, info) }
