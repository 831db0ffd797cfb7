package suit

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"slices"
	"sort"
)

// Spec is what a manifest shall say.
type Spec struct {
	Device          // both identifiers are mandatory, and ID is not
	Version Version // of the whole; images may have others
	Demand
}

// reportAll asks for a record of every outcome (the draft, section "Reporting Policy"). Devices of this profile ignore it.
const reportAll = 15

// Create returns an envelope that says what spec says, not signed yet: tagged, deterministic. The digest of the manifest is by the algorithm of the first image's. It makes nothing that Open would not take.
func Create(spec Spec) ([]byte, error) {
	if len(spec.Images) == 0 {
		return nil, malformed("no image")
	}
	for _, i := range spec.Images {
		if algorithmOfHash(i.Digest.Hash) == 0 {
			return nil, unsupported("image digest %v", i.Digest.Hash)
		}
	}
	manifest := newBuilder(spec).manifest().encode()
	m, err := readManifest(manifest, nil)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return nil, err
	}
	got, err := m.Evaluate(Recipient{Device: spec.Device, assume: true})
	if err != nil {
		return nil, err
	}
	if !got.equal(spec.Demand) {
		return nil, fmt.Errorf("manifest would say %v instead of %v", got, spec.Demand)
	}
	authentication := appendHead(nil, majorArray, 1)
	authentication = appendBytes(authentication, appendDigest(nil, manifestDigest(spec.Images[0].Digest.Hash, manifest)))
	envelope := appendEnvelope(nil, frame{authentication: authentication, manifest: manifest})
	if _, err := whole(envelope); err != nil {
		return nil, err
	}
	return envelope, nil
}

func (d Demand) equal(e Demand) bool {
	return d.Sequence == e.Sequence && d.Battery == e.Battery && slices.EqualFunc(d.Images, e.Images, Image.equal) && slices.Equal(sorted(d.Dependencies), sorted(e.Dependencies))
}

func sorted(d []Dependency) []Dependency {
	d = slices.Clone(d)
	sort.Slice(d, func(i, j int) bool { return d[i].String() < d[j].String() })
	return d
}

func (i Image) equal(j Image) bool {
	return i.Component == j.Component && i.Digest.equal(j.Digest) && i.Size == j.Size && i.Version == j.Version && i.URI == j.URI && i.Compression == j.Compression && bytes.Equal(i.Content, j.Content)
}

// builder makes a manifest: the components are those of the images in their order, and then those that only a version is asked of.
type builder struct {
	spec       Spec
	components []string
}

func newBuilder(spec Spec) builder {
	b := builder{spec: spec}
	for _, i := range spec.Images {
		b.components = append(b.components, i.Component)
	}
	for _, d := range spec.Dependencies {
		if !slices.Contains(b.components, d.Component) {
			b.components = append(b.components, d.Component)
		}
	}
	return b
}

func (b builder) manifest() *Manifest {
	m := &Manifest{sequence: b.spec.Sequence, version: b.spec.Version, numbers: b.spec.Version.release(), shared: b.shared(),
		bodies: map[int64]*body{memberValidate: {sequence: b.validate()}}}
	for _, name := range b.components {
		m.components = append(m.components, [][]byte{[]byte(name)})
	}
	if q := b.install(); q != nil {
		m.bodies[memberInstall] = &body{sequence: q}
	}
	return m
}

// index begins the commands for component i. A manifest of one component needs none.
func (b builder) index(i int) sequence {
	if len(b.components) == 1 {
		return nil
	}
	return sequence{{code: directiveSetIndex, index: []int{i}}}
}

func ask(code int64) command { return command{code: code, policy: reportAll} }

func set(parameters ...parameter) command {
	return command{code: directiveOverride, set: parameters}
}

func (b builder) shared() (q sequence) {
	for i, image := range b.spec.Images {
		q = append(q, b.index(i)...)
		is := []parameter{{key: parameterDigest, digest: image.Digest}, {key: parameterSize, number: uint64(image.Size)}}
		if i > 0 {
			q = append(q, set(is...))
			continue
		}
		is = append([]parameter{{key: parameterVendor, bytes: b.spec.Vendor[:]}, {key: parameterClass, bytes: b.spec.Class[:]}}, is...)
		if b.spec.ID != (UUID{}) {
			is = append(is, parameter{key: parameterDevice, bytes: b.spec.ID[:]})
		}
		q = append(q, set(is...), ask(conditionVendor), ask(conditionClass))
		if b.spec.ID != (UUID{}) {
			q = append(q, ask(conditionDevice))
		}
	}
	return q
}

func (b builder) validate() (q sequence) {
	for i, image := range b.spec.Images {
		q = append(q, b.index(i)...)
		if image.Version != b.spec.Version {
			q = append(q, set(parameter{key: parameterImageVersion, version: image.Version, numbers: image.Version.release()}))
		}
		q = append(q, ask(conditionImageMatch))
	}
	return q
}

// install is nil if there is nothing to demand before the images, and nothing to say about where they come from.
func (b builder) install() (q sequence) {
	for _, d := range b.spec.Dependencies {
		q = append(q, b.index(slices.Index(b.components, d.Component))...)
		q = append(q, set(parameter{key: parameterVersion, require: d.Requirement}), ask(conditionVersion))
	}
	if b.spec.Battery > 0 {
		q = append(q, b.index(0)...)
		q = append(q, set(parameter{key: parameterBattery, number: b.spec.Battery}), ask(conditionBattery))
	}
	for i, image := range b.spec.Images {
		switch {
		case image.Content != nil:
			q = append(q, b.index(i)...)
			q = append(q, set(parameter{key: parameterContent, bytes: image.Content}), ask(directiveWrite), ask(conditionImageMatch))
		case image.URI != "":
			from := []parameter{{key: parameterURI, text: image.URI}}
			if image.Compression != "" {
				from = append(from, parameter{key: parameterCompression, text: image.Compression})
			}
			q = append(q, b.index(i)...)
			q = append(q, set(from...), ask(directiveFetch), ask(conditionImageMatch))
		}
	}
	return q
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
