package suit

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Description is what an envelope says, for people and for scripts. Nothing in it is verified.
type Description struct {
	// Manifest is the digest of the manifest.
	Manifest string `json:"manifest"`
	// Sequence is the sequence number.
	Sequence uint64 `json:"sequence"`
	// Signatures are those of the envelope; none if it is not signed.
	Signatures []SignatureDescription `json:"signatures"`
	// Images are the images that are described.
	Images []ImageDescription `json:"images"`
}

// SignatureDescription is who claims to have signed.
type SignatureDescription struct {
	Algorithm string `json:"algorithm"`
	// KID is the key identifier, in hexadecimal; empty if none is named.
	KID string `json:"kid,omitempty"`
	// Signer is the subject of the certificate that is named instead; empty if none is.
	Signer string `json:"signer,omitempty"`
}

// ImageDescription is what a manifest says of an image.
type ImageDescription struct {
	Component string `json:"component"`
	Version   string `json:"version"`
	Vendor    string `json:"vendor"`
	Class     string `json:"class"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	// Payload is the key of the integrated payload that the manifest names, empty if it names none.
	Payload      string                  `json:"payload,omitempty"`
	Dependencies []DependencyDescription `json:"dependencies,omitempty"`
}

// DependencyDescription is what an image needs of another component.
type DependencyDescription struct {
	Component string `json:"component"`
	Min       string `json:"min"`
}

// Describe reads an envelope without integrated payload. The digest must be that of the manifest; the signature is not looked at.
func Describe(envelope []byte) (Description, error) {
	_, a, m, err := readUnverified(envelope)
	if err != nil {
		return Description{}, err
	}
	d := Description{Manifest: m.digest.String(), Sequence: m.sequence, Signatures: []SignatureDescription{}}
	for _, s := range a.signatures {
		name := s.alg.name
		if name == "" {
			name = fmt.Sprintf("algorithm %d", s.alg.id)
		}
		d.Signatures = append(d.Signatures, SignatureDescription{Algorithm: name, KID: hex.EncodeToString(s.kid), Signer: s.signer()})
	}
	d.Images = []ImageDescription{m.describe()}
	return d, nil
}

func (m *Manifest) describe() ImageDescription {
	d := ImageDescription{
		Component: m.image.Component,
		Version:   m.image.Version.String(),
		Vendor:    m.device.Vendor.String(),
		Class:     m.device.Class.String(),
		Digest:    m.image.Digest.String(),
		Size:      m.image.Size,
		Payload:   m.image.Payload,
	}
	for _, dep := range m.image.Dependencies {
		d.Dependencies = append(d.Dependencies, DependencyDescription{Component: dep.Component, Min: dep.Min.String()})
	}
	return d
}

// String is the description in lines for people.
func (d Description) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s "+format+"\n", append([]any{name}, args...)...)
	}
	line("manifest", "%s", d.Manifest)
	line("sequence", "%d", d.Sequence)
	for _, s := range d.Signatures {
		kid := s.KID
		if kid == "" {
			kid = "not named"
		}
		if s.Signer != "" {
			kid = "of " + s.Signer
		}
		line("signature", "%s, key %s (not verified)", s.Algorithm, kid)
	}
	if len(d.Signatures) == 0 {
		line("signature", "none")
	}
	for _, i := range d.Images {
		line("component", "%s", i.Component)
		line("version", "%s", i.Version)
		line("vendor", "%s", i.Vendor)
		line("class", "%s", i.Class)
		line("image", "%s", i.Digest)
		line("size", "%d bytes", i.Size)
		if i.Payload != "" {
			line("payload", "%s", i.Payload)
		}
		for _, dep := range i.Dependencies {
			line("needs", "%s %s or newer", dep.Component, dep.Min)
		}
	}
	return b.String()
}
