package crash

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/test/sim"
	"github.com/fwu-ab/fwu-ab/zstdframe"
)

const slotSize = 256 << 10

// builds of each component are known; those from spare on are used by no story.
const builds, spare = 10, 8

// image is a known image.
type image struct {
	name     string
	build    int
	content  []byte
	manifest []byte
	digest   string // of the manifest
	bundled  string // of the one in the bundle
	bundle   []byte
	squeezed string // of the one in the bundle in which the image is compressed
	packed   []byte // that bundle
	whole    sim.Content
	head     sim.Content
	masked   sim.Content // the head as it is stored until it is installed
}

func version(build int) fwu.Version { return fwu.Version{Major: 1, Minor: uint8(build)} }
func sequence(build int) uint64     { return uint64(100 + build) }

// world is what never changes: keys, and the images that exist.
type world struct {
	seed   maphash.Seed
	root   sim.State // no media yet: what all others share
	t      *testing.T
	keys   suit.VerifyKeys
	device suit.Device
	images map[string][]*image // by component, then build
}

func newWorld(t *testing.T) *world {
	t.Helper()
	m := sim.New()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	vendor := suit.VendorID("example.com")
	w := &world{seed: maphash.MakeSeed(), root: m.Durable(), keys: suit.VerifyKeys{{Public: key.Public()}}, images: map[string][]*image{}, t: t,
		device: suit.Device{Vendor: vendor, Class: suit.ClassID(vendor, "crash")}}
	sizes := map[string]int{"boot": 128<<10 + 5000, "root": 150_001, "app": 132 << 10}
	for name, size := range sizes {
		for build := range builds {
			w.images[name] = append(w.images[name], w.makeImage(t, m, key, name, build, size))
		}
	}
	return w
}

func (w *world) makeImage(t *testing.T, m *sim.Media, key ed25519.PrivateKey, name string, build, size int) *image {
	t.Helper()
	i := &image{name: name, build: build, content: make([]byte, size)}
	fill(i.content, fmt.Sprint(name, build))
	if name == "root" {
		clear(i.content[fwu.HeadSize : fwu.HeadSize+build%2*pieceSize])  // zeroes, in every other build
		fill(i.content[fwu.HeadSize+pieceSize:], "shared by all builds") // the slot has these blocks already
		if build%2 == 0 {
			copy(i.content[fwu.HeadSize:], secondHeader)
		}
	}
	copy(i.content, "hsqs") // so that a slot of which nothing is recorded can be judged
	i.whole = m.Content(i.content)
	i.head = i.whole[:fwu.HeadSize/sim.PageSize]
	digest, n, err := suit.Measure(bytes.NewReader(i.content), crypto.SHA256)
	check(t, err)
	make := func(payload, compression string) []byte {
		e, err := suit.Create(suit.Spec{Device: w.device, Version: version(build), Demand: suit.Demand{Sequence: sequence(build), Images: []suit.Image{
			{Component: name, Digest: digest, Size: n, Version: version(build), URI: payload, Compression: compression}}}})
		check(t, err)
		e, err = suit.Sign(e, key, suit.Identity{})
		check(t, err)
		return e
	}
	i.manifest = make("", "")
	i.masked = m.Content(inverted(i.content[:fwu.HeadSize]))
	integrated, compressed := make("#"+name, ""), make("#"+name, suit.CompressionZstd)
	i.digest, i.bundled, i.squeezed = digestOf(t, i.manifest, w.keys), digestOf(t, integrated, w.keys), digestOf(t, compressed, w.keys)
	i.bundle, i.packed = bundleOf(t, integrated, "#"+name, i.content), bundleOf(t, compressed, "#"+name, frames(t, i.content))
	return i
}

// secondHeader begins a header by which LUKS2 is opened if the first one is gone.
const secondHeader = "SKUL\xba\xbe"

// fill makes b pseudorandom.
func fill(b []byte, seed string) {
	rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", seed)))).Read(b)
}

func bundleOf(t *testing.T, envelope []byte, key string, payload []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	check(t, suit.WriteBundle(&b, envelope, []suit.PayloadSource{{Key: key, Size: int64(len(payload)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(payload)), nil }}}))
	return b.Bytes()
}

// frames compresses an image into frames that are as small as the images here are.
func frames(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	for part := range slices.Chunk(content, 20_000) {
		_, _, err := zstdframe.Compress(&b, bytes.NewReader(part), zstdframe.Fastest)
		check(t, err)
	}
	return b.Bytes()
}

func inverted(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = ^b[i]
	}
	return out
}

func digestOf(t *testing.T, envelope []byte, keys suit.VerifyKeys) string {
	t.Helper()
	m, err := suit.Open(envelope, keys, time.Time{})
	check(t, err)
	return m.Digest().String()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// component is one of a device's.
type component struct {
	id                    fwu.ID
	name                  string
	live, trial, volatile bool
	manifest              fwu.ManifestMode
	compressed            bool // the image in its bundle
}

// device is what a story is played on. Its last bank member carries the release record.
type device struct {
	components []component // by id
	trial      bool
	scheme     uboot.Scheme // of the boot script
	efi        bool         // UEFI firmware, and no boot script
	first      bool         // that puts what it adds to the head of its list
	stored     bool         // that keeps its variables in memory and in a file
	media      mediaKind
	// of the kernel, which lie between the service and the media; nil: nothing does
	disks *disks
}

// mediaKind is the kind of medium that the slots of a device lie on.
type mediaKind uint8

const (
	plain      mediaKind = iota // one access after the other
	zeroes                      // the same, and it has commands to zero and to discard
	concurrent                  // it is read while it is written, and has a command to zero
)

// ordered runs f. Where media are accessed by several goroutines seed decides in which order.
func (w *world) ordered(d device, seed uint64, f func(*sim.Order)) {
	if d.media != concurrent {
		f(nil)
		return
	}
	sim.InOrder(w.t, seed, f)
}

// bankVariables are those of the scheme that has them.
func (d device) bankVariables() map[string][2]string {
	if d.scheme != uboot.BootCount {
		return nil
	}
	return map[string][2]string{"boot_part": {"2", "3"}}
}

func (d device) members() []component {
	var out []component
	for _, c := range d.components {
		if !c.live {
			out = append(out, c)
		}
	}
	return out
}

func (d device) component(id fwu.ID) component {
	for _, c := range d.components {
		if c.id == id {
			return c
		}
	}
	panic("no such component")
}

// alone is the build that is made to be installed with others of build 0.
const alone = 5

// release is the release record in an image of the root component.
func (d device) release(build int) fwu.ReleaseRecord {
	r := fwu.ReleaseRecord{}
	for _, c := range d.components {
		b := build
		if c.live || c.name != "root" && build == alone {
			b = 0
		}
		r[c.name] = fwu.Release{Version: version(b), Sequence: sequence(b)}
	}
	return r
}
