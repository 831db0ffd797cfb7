package suit

import (
	"bytes"
	"fmt"
	"math"
	"time"
)

// Labels of the draft, section "SUIT Manifest Elements"; memberSetVersion is of draft-ietf-suit-update-management-14.
const (
	memberVersion      = 1
	memberSequence     = 2
	memberCommon       = 3
	memberReferenceURI = 4
	memberSetVersion   = 6
	memberValidate     = 7
	memberPayloadFetch = 16
	memberInstall      = 20
	memberText         = 23

	commonComponents = 2
	commonShared     = 4
)

// memberName names a member of an envelope or a manifest, for people.
func memberName(key int64) string {
	name := map[int64]string{
		1: "suit-dependencies", 5: "suit-manifest-component-id", 8: "suit-load", 9: "suit-invoke", 14: "suit-coswid", 15: "suit-dependency-resolution",
		16: "suit-payload-fetch", 18: "suit-candidate-verification", 20: "suit-install", 23: "suit-text", 24: "suit-uninstall",
	}[key]
	if name == "" {
		return fmt.Sprint(key)
	}
	return fmt.Sprintf("%s (%d)", name, key)
}

// Manifest is an authentic manifest. It does not change.
type Manifest struct {
	digest   Digest
	device   Device
	image    Image
	sequence uint64
	version  Version

	notBefore time.Time
}

// Open verifies an envelope and then reads its manifest, once, from a copy of the bytes that were verified. The envelope is one without integrated payload, with nothing
// after it; where there is a payload, it is Bundle.Envelope. One signature by one of the keys is enough. A signature that names a key is checked against the keys with that
// identifier, any other against all keys of the right type. One that comes with certificates counts if a certificate authority among the keys vouches for them at that time: the
// latest of those that the caller can believe in, as clocks can be wrong. Errors wrap ErrMalformed, ErrUnsupported or ErrSignature.
func Open(envelope []byte, keys VerifyKeys, at time.Time) (*Manifest, error) {
	if len(envelope) <= MaxHeader {
		envelope = bytes.Clone(envelope)
	}
	f, err := whole(envelope)
	if err != nil {
		return nil, err
	}
	a, err := readAuthentication(f.authentication)
	if err != nil {
		return nil, err
	}
	if err := a.matches(f.manifest); err != nil {
		return nil, err
	}
	notBefore, err := a.verify(keys, at)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(f.manifest)
	if err != nil {
		return nil, err
	}
	m.digest, m.notBefore = a.digest, notBefore
	return m, nil
}

// Digest is the digest of the manifest, as in the authentication wrapper.
func (m *Manifest) Digest() Digest {
	return Digest{Hash: m.digest.Hash, Sum: bytes.Clone(m.digest.Sum)}
}

// Image returns what the manifest says of the component's image if it is for this component and this device, else an error that wraps ErrComponent, ErrVendor or ErrClass.
func (m *Manifest) Image(d Device, component string) (Image, error) {
	switch {
	case component != m.image.Component:
		return Image{}, fmt.Errorf("%w: %s, not %s", ErrComponent, m.image.Component, component)
	case d.Vendor != m.device.Vendor:
		return Image{}, fmt.Errorf("%w: %v, not %v", ErrVendor, m.device.Vendor, d.Vendor)
	case d.Class != m.device.Class:
		return Image{}, fmt.Errorf("%w: %v, not %v", ErrClass, m.device.Class, d.Class)
	}
	i := m.image
	i.Digest.Sum = bytes.Clone(i.Digest.Sum)
	i.Dependencies = append([]Dependency(nil), i.Dependencies...)
	return i, nil
}

// Target is a device and the component of it that an image is for.
type Target struct {
	Device
	Component string
}

// Targets are those for which Image returns an image.
func (m *Manifest) Targets() []Target {
	return []Target{{Device: m.device, Component: m.image.Component}}
}

// parseManifest reads a SUIT_Manifest. Its digest is the caller's to set.
func parseManifest(b []byte) (*Manifest, error) {
	m := &Manifest{}
	r := &reader{b: b}
	var x machine
	var seen [24]bool
	err := r.fields("manifest", func(key int64) error {
		if key >= 0 && key < int64(len(seen)) {
			seen[key] = true
		}
		return m.member(key, r, &x)
	})
	if err != nil {
		return nil, err
	}
	if err := r.done("manifest"); err != nil {
		return nil, err
	}
	for _, want := range []int{memberVersion, memberSequence, memberCommon, memberSetVersion, memberValidate} {
		if !seen[want] {
			return nil, malformed("manifest has no member %d", want)
		}
	}
	if m.device, m.image, err = x.result(); err != nil {
		return nil, err
	}
	m.image.Version, m.image.Sequence = m.version, m.sequence
	return m, nil
}

// member reads one member. The keys come in ascending order, so that the shared sequence runs before the others.
func (m *Manifest) member(key int64, r *reader, x *machine) (err error) {
	switch key {
	case memberVersion:
		return readManifestVersion(r)
	case memberSequence:
		m.sequence, err = r.uint("sequence number")
		return err
	case memberCommon:
		return readCommon(r, x)
	case memberSetVersion:
		m.version, err = readSetVersion(r)
		return err
	case memberValidate:
		return x.run(validate, r)
	case memberPayloadFetch:
		return x.run(payloadFetch, r)
	case memberInstall:
		return x.run(install, r)
	case memberReferenceURI:
		_, err = r.text("reference URI")
		return err
	case memberText:
		return skipText(r)
	}
	return unsupported("manifest member %s", memberName(key))
}

func readManifestVersion(r *reader) error {
	v, err := r.uint("manifest version")
	if err == nil && v != 1 {
		err = unsupported("manifest version %d", v)
	}
	return err
}

// skipText skips text for people, or the digest that stands for text that was moved elsewhere.
func skipText(r *reader) (err error) {
	if r.peek() == majorArray {
		_, err = r.digest("digest of text")
	} else {
		_, err = r.bytes("text")
	}
	return err
}

func readCommon(r *reader, x *machine) error {
	c, err := r.nested("common")
	if err != nil {
		return err
	}
	err = c.fields("common", func(key int64) error {
		switch key {
		case commonComponents:
			return x.readComponents(c)
		case commonShared:
			return x.run(shared, c)
		}
		return unsupported("member %s of common", memberName(key))
	})
	if err != nil {
		return err
	}
	return c.done("common")
}

// readComponents reads the list of component identifiers. One is [bstr(name)].
func (x *machine) readComponents(r *reader) error {
	n, err := r.array("components", 1, maxComponents)
	if err != nil {
		return err
	}
	for range n {
		name, err := readIdentifier(r)
		if err != nil {
			return err
		}
		for _, c := range x.components {
			if c.name == name {
				return malformed("component %s is there twice", name)
			}
		}
		x.components = append(x.components, component{name: name})
	}
	return nil
}

func readIdentifier(r *reader) (string, error) {
	n, err := r.expect(majorArray, "component identifier")
	if err != nil {
		return "", err
	}
	if n != 1 {
		return "", unsupported("component identifier of %d segments", n)
	}
	p, err := r.bytes("component identifier")
	if err != nil {
		return "", err
	}
	if !validName(string(p[:min(len(p), maxName+1)])) {
		return "", unsupported("component identifier [h'%x']", p[:min(len(p), maxName)])
	}
	return string(p), nil
}

// readSetVersion reads suit-set-version. A manifest describes one image, so that the version of the set is that of the image.
func readSetVersion(r *reader) (Version, error) {
	v, err := r.nested("version")
	if err != nil {
		return Version{}, err
	}
	version, err := readVersion(v)
	if err != nil {
		return Version{}, err
	}
	return version, v.done("version")
}

// readVersion reads [major, ?minor, ?patch, ?build]. Three numbers are what draft-ietf-suit-update-management has for a release; the fourth makes it the numbering scheme
// of the PSA Firmware Update API, which orders by it too. What does not fit the fields of that is refused.
func readVersion(r *reader) (Version, error) {
	n, err := r.expect(majorArray, "version")
	if err != nil {
		return Version{}, err
	}
	if n < 1 || n > 4 {
		return Version{}, unsupported("version of %d numbers", n)
	}
	limits := [4]int64{math.MaxUint8, math.MaxUint8, math.MaxUint16, math.MaxUint32}
	var fields [4]int64
	for i := range int(n) {
		v, err := r.int("number in version")
		switch {
		case err != nil:
			return Version{}, err
		case v < 0:
			return Version{}, unsupported("pre-release version (%d)", v)
		case v > limits[i]:
			return Version{}, unsupported("version with %d as number %d, %d at most", v, i+1, limits[i])
		}
		fields[i] = v
	}
	return Version{uint8(fields[0]), uint8(fields[1]), uint16(fields[2]), uint32(fields[3])}, nil
}

func appendVersion(b []byte, v Version) []byte {
	fields := []uint64{uint64(v.Major), uint64(v.Minor), uint64(v.Patch), uint64(v.Build)}
	if v.Build == 0 {
		fields = fields[:3]
	}
	b = appendHead(b, majorArray, uint64(len(fields)))
	for _, f := range fields {
		b = appendHead(b, majorUint, f)
	}
	return b
}
