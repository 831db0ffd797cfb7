package conformance_test

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/conformance"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
	"github.com/fwu-ab/fwu-ab/suit"
)

// Manifest makes a SUIT envelope, sound or not, and with it a bundle where one is expected.
func (d device) Manifest(id fwu.ID, image []byte, m conformance.Meta, defect conformance.Defect) (manifest, stream []byte, err error) {
	spec := fwutest.Spec(name(id), image, m.Version, m.Sequence)
	for _, n := range m.Needs {
		spec.Dependencies = append(spec.Dependencies, suit.Dependency{Component: name(n.ID), Requirement: suit.Requirement{Comparison: suit.GreaterEqual, Version: n.Min, Numbers: 4}})
	}
	bundled := slices.ContainsFunc(d.Config.Components, func(c fwu.Component) bool { return c.ID == id && c.Manifest == fwu.Bundled })
	if bundled {
		spec.Images[0].URI = "#" + name(id)
	}
	e, err := spoil(&spec, d.Creator, defect).Manifest(spec)
	if err != nil || !bundled {
		return e, image, err
	}
	return nil, bundle(e, spec.Images[0].URI, image), nil
}

// spoil brings a defect in, and returns who is to sign.
func spoil(s *suit.Spec, by fwutest.Creator, defect conformance.Defect) fwutest.Creator {
	stranger := fwutest.NewCreator("stranger")
	switch defect {
	case conformance.WrongKey:
		return stranger
	case conformance.BadSignature:
		return fwutest.Creator{Key: stranger.Key, KID: by.KID}
	case conformance.WrongVendor:
		s.Device = fwutest.Board("example.org", "board")
	case conformance.WrongClass:
		s.Device = fwutest.Board("example.com", "other")
	case conformance.WrongComponent:
		s.Images[0].Component = "other"
	case conformance.WrongDigest:
		s.Images[0].Digest.Sum[0] ^= 1
	case conformance.WrongSize:
		s.Images[0].Size++
	}
	return by
}

// bundle appends a payload to an envelope, the map of two in tag 107, whether the manifest describes it or not: suit.WriteBundle refuses what does not fit.
func bundle(envelope []byte, key string, image []byte) []byte {
	b := bytes.Clone(envelope)
	b[bytes.IndexByte(b, 0xa2)]++
	b = append(cborHead(b, 0x60, len(key)), key...)
	return append(cborHead(b, 0x40, len(image)), image...)
}

// cborHead appends the shortest head of a string of n bytes (RFC 8949, section 3).
func cborHead(b []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
}
