package suit

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Unverified reads an envelope without integrated payload, for tools and clients, which leave it to the device to decide who is trusted. The digest must be that of the manifest;
// signatures are not looked at.
func Unverified(envelope []byte) (*Manifest, error) {
	_, _, m, err := readUnverified(envelope)
	return m, err
}

// Description is what an envelope says, for people and for scripts. Nothing in it is verified.
type Description struct {
	// Manifest is the digest of the manifest.
	Manifest string `json:"manifest"`
	// Sequence is the sequence number.
	Sequence uint64 `json:"sequence"`
	// Version is that of the whole, empty if there is none.
	Version string `json:"version,omitempty"`
	// Reference is where a fuller manifest can be found, as the manifest says.
	Reference string `json:"reference,omitempty"`
	// Signatures are those of the envelope; none if it is not signed.
	Signatures []SignatureDescription `json:"signatures"`
	// Targets are the kinds of devices that the manifest is for, and what it demands of each.
	Targets []TargetDescription `json:"targets"`
	// Refused is why no device takes the manifest, whoever signed it; empty for one that can be taken.
	Refused string `json:"refused,omitempty"`
	// Asks is the manifest in words: the commands of each sequence, in the order in which they are run.
	Asks []SequenceDescription `json:"asks"`
}

// SignatureDescription is who claims to have signed.
type SignatureDescription struct {
	Algorithm string `json:"algorithm"`
	// KID is the key identifier, in hexadecimal; empty if none is named.
	KID string `json:"kid,omitempty"`
	// Signer is the subject of the certificate that is named instead; empty if none is.
	Signer string `json:"signer,omitempty"`
}

// TargetDescription is a kind of device.
type TargetDescription struct {
	Vendor string `json:"vendor"`
	Class  string `json:"class"`
	Device string `json:"device,omitempty"`
	// Slot is "a" or "b" where the demand depends on the slot that is written to.
	Slot   string             `json:"slot,omitempty"`
	Images []ImageDescription `json:"images"`
	// Needs are the versions that other components must have.
	Needs []string `json:"needs,omitempty"`
	// Battery is what the battery must hold, in mWh.
	Battery uint64 `json:"battery,omitempty"`
}

// ImageDescription is what a manifest says of an image.
type ImageDescription struct {
	Component string `json:"component"`
	Version   string `json:"version"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	// URI is where the image comes from: "#name" is a payload of the envelope. Empty if the manifest does not say.
	URI         string `json:"uri,omitempty"`
	Compression string `json:"compression,omitempty"`
	// Written: the image is in the manifest itself.
	Written bool `json:"written,omitempty"`
}

// SequenceDescription is a command sequence in words, a line for each command; or a member that is no sequence, of which one line tells how long it is.
type SequenceDescription struct {
	Name  string   `json:"name"`
	Lines []string `json:"lines"`
}

// Describe reads an envelope without integrated payload. The digest must be that of the manifest; signatures are not looked at.
func Describe(envelope []byte) (Description, error) {
	_, a, m, err := readUnverified(envelope)
	if err != nil {
		return Description{}, err
	}
	d := Description{Manifest: m.digest.String(), Sequence: m.sequence, Reference: m.reference, Signatures: []SignatureDescription{}, Targets: []TargetDescription{}, Asks: m.words()}
	if m.numbers > 0 {
		d.Version = m.version.String()
	}
	for _, s := range a.signatures {
		name := s.alg.name
		if name == "" {
			name = fmt.Sprintf("algorithm %d", s.alg.id)
		}
		d.Signatures = append(d.Signatures, SignatureDescription{Algorithm: name, KID: hex.EncodeToString(s.kid), Signer: s.signer()})
	}
	targets, err := m.Targets()
	if err != nil {
		d.Refused = err.Error()
	}
	for _, t := range targets {
		d.Targets = append(d.Targets, t.describe())
	}
	return d, nil
}

func (t Target) describe() TargetDescription {
	d := TargetDescription{Vendor: t.Vendor.String(), Class: t.Class.String(), Battery: t.Battery}
	if t.ID != (UUID{}) {
		d.Device = t.ID.String()
	}
	if t.Slot >= 0 {
		d.Slot = string(rune('a' + t.Slot))
	}
	for _, i := range t.Images {
		d.Images = append(d.Images, ImageDescription{Component: i.Component, Version: i.Version.String(), Digest: i.Digest.String(), Size: i.Size,
			URI: i.URI, Compression: i.Compression, Written: i.Content != nil})
	}
	for _, n := range t.Dependencies {
		d.Needs = append(d.Needs, n.String())
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
	if d.Version != "" {
		line("version", "%s", d.Version)
	}
	if d.Reference != "" {
		line("reference", "%s", d.Reference)
	}
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
	if d.Refused != "" {
		line("refused", "%s", d.Refused)
	}
	for _, t := range d.Targets {
		t.lines(line)
	}
	for _, s := range d.Asks {
		fmt.Fprintf(&b, "%s\n", s.Name)
		for _, l := range s.Lines {
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	return b.String()
}

func (t TargetDescription) lines(line func(name, format string, args ...any)) {
	line("vendor", "%s", t.Vendor)
	line("class", "%s", t.Class)
	if t.Device != "" {
		line("device", "%s", t.Device)
	}
	if t.Slot != "" {
		line("slot", "%s", t.Slot)
	}
	for _, i := range t.Images {
		line("component", "%s %s", i.Component, i.Version)
		line("  image", "%s, %d bytes", i.Digest, i.Size)
		switch {
		case i.Written:
			line("  from", "the manifest itself")
		case i.Compression != "":
			line("  from", "%s, %s", i.URI, i.Compression)
		case i.URI != "":
			line("  from", "%s", i.URI)
		}
	}
	for _, n := range t.Needs {
		line("needs", "%s", n)
	}
	if t.Battery > 0 {
		line("battery", "%d mWh or more", t.Battery)
	}
}

// words are the sequences in words, in the order in which they are run, and then what is there for others.
func (m *Manifest) words() []SequenceDescription {
	all := []SequenceDescription{}
	if m.shared != nil {
		all = append(all, SequenceDescription{"first, before each of the following", m.lines(m.shared)})
	}
	for _, key := range []int64{memberPayloadFetch, memberInstall, memberValidate, memberLoad, memberInvoke, memberCoSWID, memberText} {
		b := m.bodies[key]
		switch {
		case b == nil:
		case !b.there:
			all = append(all, SequenceDescription{memberName(key), []string{"was severed, and is not here"}})
		case sectionOf(key) == "":
			all = append(all, SequenceDescription{memberName(key), []string{fmt.Sprintf("%d bytes, which are not looked at", len(b.raw))}})
		default:
			all = append(all, SequenceDescription{memberName(key), m.lines(b.sequence)})
		}
	}
	return all
}

func (m *Manifest) lines(q sequence) (lines []string) {
	for _, c := range q {
		switch c.code {
		case directiveSetIndex:
			lines = append(lines, "for "+m.indexed(c)+":")
		case directiveOverride:
			for _, p := range c.set {
				name, _ := parameterOf(p.key)
				lines = append(lines, "  "+name+" "+p.value())
			}
		case directiveTryEach, directiveRunSequence:
			for i, n := range c.try {
				lines = append(lines, [...]string{"  run:", "  try:", "  else try:"}[alternative(c, i)])
				for _, l := range m.lines(n) {
					lines = append(lines, "    "+l)
				}
			}
			if c.orNone {
				lines = append(lines, "  else go on")
			}
		default:
			lines = append(lines, "  "+sentence(c.code))
		}
	}
	return lines
}

func alternative(c command, i int) int {
	if c.code == directiveRunSequence {
		return 0
	}
	return min(i, 1) + 1
}

// indexed are the components that a component index stands for.
func (m *Manifest) indexed(c command) string {
	if c.all {
		return "every component"
	}
	var names []string
	for _, i := range c.index {
		names = append(names, identifier(m.components[i]))
	}
	return strings.Join(names, ", ")
}

// sentence says what a command asks for.
func sentence(code int64) string {
	s := map[int64]string{
		conditionVendor: "the vendor must be this one", conditionClass: "the class must be this one", conditionDevice: "the device must be this one",
		conditionImageMatch: "the image must be this one", conditionCheckContent: "the image must be this content", conditionSlot: "the slot must be this one",
		conditionAbort: "give up", conditionVersion: "the version must be like this", conditionBattery: "the battery must hold this many mWh",
		directiveFetch: "the image comes from there", directiveWrite: "this content is the image",
		directiveCopy: "copy the image from there", directiveSwap: "swap the images", directiveInvoke: "start the image",
		conditionUseBefore: "the time must not be later", conditionIntegrity: "the dependency must be intact", conditionIsDependency: "it must be a dependency",
		directiveDependency: "do what the dependency asks for", conditionNotMatch: "the image must not be this one", conditionAuthorized: "somebody must authorize the update",
		directiveWait: "wait for what is named", directiveUnlink: "remove the component",
	}[code]
	return s + " (" + commandOf(code).name + ")"
}
