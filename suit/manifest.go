package suit

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// Labels of the draft, section "SUIT Manifest Elements"; memberSetVersion and memberCoSWID are of draft-ietf-suit-update-management-14.
const (
	memberVersion      = 1
	memberSequence     = 2
	memberCommon       = 3
	memberReferenceURI = 4
	memberSetVersion   = 6
	memberValidate     = 7
	memberLoad         = 8
	memberInvoke       = 9
	memberCoSWID       = 14
	memberPayloadFetch = 16
	memberInstall      = 20
	memberText         = 23

	commonComponents = 2
	commonShared     = 4
)

// memberName names a member of an envelope or a manifest, for people.
func memberName(key int64) string {
	name := map[int64]string{
		1: "suit-dependencies", 5: "suit-manifest-component-id", 7: "suit-validate", 8: "suit-load", 9: "suit-invoke", 14: "suit-coswid", 15: "suit-dependency-resolution",
		16: "suit-payload-fetch", 18: "suit-candidate-verification", 20: "suit-install", 23: "suit-text", 24: "suit-uninstall",
	}[key]
	if name == "" {
		return fmt.Sprint(key)
	}
	return fmt.Sprintf("%s (%d)", name, key)
}

// sectionOf returns the section that a member of a manifest is, empty if it is none.
func sectionOf(key int64) section {
	switch key {
	case memberValidate:
		return validate
	case memberLoad:
		return load
	case memberInvoke:
		return invoke
	case memberPayloadFetch:
		return payloadFetch
	case memberInstall:
		return install
	}
	return ""
}

// severable tells whether a member can lie in the envelope, with its digest in the manifest (the draft, section "Severable Elements").
func severable(key int64) bool {
	return key == memberCoSWID || key == memberPayloadFetch || key == memberInstall || key == memberText
}

// Manifest is a manifest, of which Open returns authentic ones only. It does not change.
type Manifest struct {
	digest     Digest
	sequence   uint64
	components [][][]byte // their identifiers
	shared     sequence
	reference  string
	version    Version
	numbers    int // of the version; 0: there is none
	bodies     map[int64]*body

	notBefore time.Time
	signers   []Signer
}

// body is a member of a manifest that is a byte string: a command sequence, or something for others.
type body struct {
	severed  bool
	digest   Digest   // in the manifest, if severed
	there    bool     // the content is in the manifest, or in the envelope if severed
	sequence sequence // of a section
	raw      []byte   // of anything else
}

// readManifest reads a SUIT_Manifest, with the members that were moved to the envelope. Its digest is the caller's to set.
func readManifest(b []byte, moved map[int64][]byte) (*Manifest, error) {
	m := &Manifest{bodies: map[int64]*body{}}
	r := &reader{b: b}
	x := &sequenceReader{}
	var seen [24]bool
	err := r.fields("manifest", func(key int64) error {
		if key >= 0 && key < int64(len(seen)) {
			seen[key] = true
		}
		return m.member(key, r, x, moved)
	})
	if err != nil {
		return nil, err
	}
	if err := r.done("manifest"); err != nil {
		return nil, err
	}
	for _, want := range []int{memberVersion, memberSequence, memberCommon} {
		if !seen[want] {
			return nil, malformed("manifest has no member %d", want)
		}
	}
	for key := range moved {
		if b := m.bodies[key]; b == nil || !b.severed {
			return nil, malformed("envelope has member %s, of which the manifest has no digest", memberName(key))
		}
	}
	return m, nil
}

// member reads one member. The keys come in ascending order, so that the components are known before the first sequence.
func (m *Manifest) member(key int64, r *reader, x *sequenceReader, moved map[int64][]byte) (err error) {
	switch key {
	case memberVersion:
		return readManifestVersion(r)
	case memberSequence:
		m.sequence, err = r.uint("sequence number")
	case memberCommon:
		err = m.readCommon(r, x)
	case memberReferenceURI:
		if m.reference, err = r.text("reference URI"); err == nil && !plain(m.reference, maxURI) {
			err = unsupported("reference URI %.64q", m.reference)
		}
	case memberSetVersion:
		m.version, m.numbers, err = readWrappedVersion(r)
	case memberValidate, memberLoad, memberInvoke, memberCoSWID, memberPayloadFetch, memberInstall, memberText:
		m.bodies[key], err = x.body(key, r, moved[key])
	default:
		err = unsupported("manifest member %s", memberName(key))
	}
	return err
}

func readManifestVersion(r *reader) error {
	v, err := r.uint("manifest version")
	if err == nil && v != 1 {
		err = unsupported("manifest version %d", v)
	}
	return err
}

// body reads a member in place, or the digest of one that was moved to the envelope, and then that.
func (x *sequenceReader) body(key int64, r *reader, moved []byte) (b *body, err error) {
	b = &body{}
	name := memberName(key)
	if severable(key) && r.peek() == majorArray {
		b.severed = true
		if b.digest, err = r.digest("digest of " + name); err != nil || moved == nil {
			return b, err
		}
		if !bytes.Equal(b.digest.Sum, manifestDigest(b.digest.Hash, moved).Sum) {
			return nil, fmt.Errorf("%w: member %s of the envelope does not have the digest in the manifest", ErrSignature, name)
		}
		b.raw = moved
	} else if b.raw, err = r.bytes(name); err != nil {
		return nil, err
	}
	b.there = true
	s := sectionOf(key)
	if s == "" {
		return b, nil
	}
	if x.components == 0 {
		return nil, malformed("%s without components", s)
	}
	b.sequence, err = x.sequence(s, &reader{b: b.raw}, 0)
	return b, err
}

func (m *Manifest) readCommon(r *reader, x *sequenceReader) error {
	c, err := r.nested("common")
	if err != nil {
		return err
	}
	err = c.fields("common", func(key int64) (err error) {
		switch key {
		case commonComponents:
			if m.components, err = readComponents(c); err == nil {
				x.components = len(m.components)
			}
		case commonShared:
			if x.components == 0 {
				return malformed("%s without components", shared)
			}
			var s *reader
			if s, err = c.nested(string(shared)); err == nil {
				m.shared, err = x.sequence(shared, s, 0)
			}
		default:
			err = unsupported("member %s of common", memberName(key))
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.done("common")
}

// readComponents reads the list of component identifiers.
func readComponents(r *reader) ([][][]byte, error) {
	n, err := r.array("components", 1, maxComponents)
	if err != nil {
		return nil, err
	}
	var list [][][]byte
	for range n {
		segments, err := r.array("component identifier", 0, 16)
		if err != nil {
			return nil, err
		}
		id := make([][]byte, segments)
		for i := range id {
			if id[i], err = r.bytes("component identifier"); err != nil {
				return nil, err
			}
		}
		if slices.ContainsFunc(list, func(other [][]byte) bool { return slices.EqualFunc(id, other, bytes.Equal) }) {
			return nil, malformed("component %s is there twice", identifier(id))
		}
		list = append(list, id)
	}
	return list, nil
}

// identifier is a component identifier for people: the name of a component of the profile, for others what it consists of.
func identifier(id [][]byte) string {
	if len(id) == 1 && validName(string(id[0])) {
		return string(id[0])
	}
	s := "["
	for i, segment := range id {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("h'%x'", segment[:min(len(segment), maxName)])
	}
	return s + "]"
}

// Digest is the digest of the manifest, as in the authentication wrapper.
func (m *Manifest) Digest() Digest {
	return Digest{Hash: m.digest.Hash, Sum: bytes.Clone(m.digest.Sum)}
}

// encode is the manifest as it was read, without what was moved to the envelope.
func (m *Manifest) encode() []byte {
	keys := []int64{memberVersion, memberSequence, memberCommon}
	if m.reference != "" {
		keys = append(keys, memberReferenceURI)
	}
	if m.numbers > 0 {
		keys = append(keys, memberSetVersion)
	}
	for key := range m.bodies {
		keys = append(keys, key)
	}
	sortKeys(keys)
	b := appendHead(nil, majorMap, uint64(len(keys)))
	for _, key := range keys {
		b = m.appendMember(appendInt(b, key), key)
	}
	return b
}

func (m *Manifest) appendMember(b []byte, key int64) []byte {
	switch key {
	case memberVersion:
		return appendInt(b, 1)
	case memberSequence:
		return appendHead(b, majorUint, m.sequence)
	case memberCommon:
		return appendBytes(b, m.encodeCommon())
	case memberReferenceURI:
		return appendText(b, m.reference)
	case memberSetVersion:
		return appendBytes(b, appendVersion(nil, m.version, m.numbers))
	}
	body := m.bodies[key]
	if body.severed {
		return appendDigest(b, body.digest)
	}
	return appendBytes(b, body.encode(key))
}

func (m *Manifest) encodeCommon() []byte {
	members := uint64(0)
	var b []byte
	if m.components != nil {
		members++
		b = appendHead(appendInt(b, commonComponents), majorArray, uint64(len(m.components)))
		for _, id := range m.components {
			b = appendHead(b, majorArray, uint64(len(id)))
			for _, segment := range id {
				b = appendBytes(b, segment)
			}
		}
	}
	if m.shared != nil {
		members++
		b = appendBytes(appendInt(b, commonShared), m.shared.append(nil))
	}
	return append(appendHead(nil, majorMap, members), b...)
}

// encode is the content of the member.
func (b *body) encode(key int64) []byte {
	if sectionOf(key) == "" {
		return b.raw
	}
	return b.sequence.append(nil)
}

// moved are the members that lie in the envelope, as they were read.
func (m *Manifest) moved() map[int64][]byte {
	all := map[int64][]byte{}
	for key, b := range m.bodies {
		if b.severed && b.there {
			all[key] = b.encode(key)
		}
	}
	return all
}
