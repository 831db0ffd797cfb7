// Package conformance tests an implementation of the PSA Certified Firmware Update API 1.0 (Arm IHI 0093, version 1.0.1) against the specification.
//
// It promises three things of an implementation that passes. Every call, in every state of each of the eight variants of appendix C, with every class of
// argument, gives the status, the next state, the error field and the contents of the two locations that the specification names: the tables in figures.go,
// arguments.go and several.go, which a reader can lay beside the document. Every transition drawn in figures 7 and 9 to 15, with the marks for reboots, was
// seen. And in a long random walk no answer differed from that of a model of the specification (model.go), which shares no code with the tables.
//
// To use it, implement [Implementation] and call [Run] from a test; the tests of this package do so for the service, in process and over D-Bus. Where the
// specification leaves a choice, [Profile] says which was taken; a row that rests on a choice says so. The suite expects verification at the earliest point that
// the specification permits: the manifest in start (or, bundled, in write or finish), the image in finish, dependencies in install.
package conformance

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Variant is one of the eight of appendix C, table 7.
type Variant struct {
	Reboot   bool // a reboot completes the installation
	Trial    bool // a new image is tested before it is accepted
	Volatile bool // staging does not survive a reboot
}

func (v Variant) String() string {
	words := []string{"no-reboot", "no-trial", "non-volatile"}
	if v.Reboot {
		words[0] = "reboot"
	}
	if v.Trial {
		words[1] = "trial"
	}
	if v.Volatile {
		words[2] = "volatile"
	}
	return strings.Join(words, " ")
}

// variants returns all eight.
func variants() []Variant {
	var all []Variant
	for i := range 8 {
		all = append(all, Variant{Reboot: i&4 == 0, Trial: i&2 == 0, Volatile: i&1 != 0})
	}
	return all
}

// Config is one component of the device that is to be tested. All components of a device that need a reboot have the same Trial.
type Config struct {
	ID       fwu.ID
	Variant  Variant
	Manifest fwu.ManifestMode
	Size     int64 // of each of the two locations, in bytes
	// What is active in the factory state; the second location holds nothing.
	Image    []byte
	Version  fwu.Version
	Sequence uint64 // the lowest sequence number that may be installed
}

// Implementation is a device under test. It is used from one goroutine.
type Implementation interface {
	// API returns the calls. It is asked for again after each Reboot.
	API() API
	// Reboot restarts the device as told, and returns when the API answers again. A reboot that the implementation itself has asked for
	// is not carried out before Reboot is called.
	Reboot(how Reboot) error
	// Slot reads the first n bytes of a location as a bootloader, or the system for a component that needs no reboot, would see them.
	// Active is where the running system's image is. n is no more than a location holds.
	Slot(id fwu.ID, l Location, n int) ([]byte, error)
	// Manifest makes what a firmware creator would deliver for an image: the manifest, for a component that expects it detached, and what is to be
	// written, which is the image itself unless the manifest is bundled with it. Two calls with different arguments give different manifests.
	Manifest(id fwu.ID, image []byte, m Meta, d Defect) (manifest, stream []byte, err error)
	// Close gives everything up.
	Close() error
}

// API holds the calls of section 5. An error that a call returns stands for the status that fwu.StatusOf finds in it; the components that
// DEPENDENCY_NEEDED is about are taken from the fwu.Error in its chain.
type API interface {
	Components() []fwu.ComponentInfo
	Query(ctx context.Context, id fwu.ID) (fwu.Info, error)
	Start(ctx context.Context, id fwu.ID, manifest []byte) error
	Write(ctx context.Context, id fwu.ID, off int64, block []byte) error
	Finish(ctx context.Context, id fwu.ID) error
	Cancel(ctx context.Context, id fwu.ID) error
	Clean(ctx context.Context, id fwu.ID) error
	Install(ctx context.Context) (fwu.Status, error)
	Accept(ctx context.Context) error
	Reject(ctx context.Context, why fwu.Rejection) (fwu.Status, error)
	RequestReboot(ctx context.Context) error
}

// Tamperer is an ability that an Implementation may have: it changes what the medium of a component's second location holds, behind the service's back.
type Tamperer interface {
	Tamper(id fwu.ID) error
}

// Reboot is a way to restart.
type Reboot int

// The ways to restart.
const (
	Normal   Reboot = iota // the bootloader does its job: what is STAGED is installed, what is TRIAL or REJECTED is rolled back
	Failing                // as Normal, but nothing that is STAGED can be installed or started
	Bypassed               // the bootloader had no part in it: the same images run again, and what was armed still is
	Restart                // not a reboot: only the update service ends and starts again
)

func (r Reboot) String() string {
	return [...]string{"reboot", "reboot failing", "reboot bypassed", "service restart"}[r]
}

// Location is one of the two of section 4.1.
type Location int

// The locations.
const (
	Active Location = iota
	Second
)

func (l Location) String() string { return [...]string{"active", "second"}[l] }

// Meta is what a manifest says of its image beside digest and size.
type Meta struct {
	Version  fwu.Version
	Sequence uint64
	Needs    []Need
}

// Need is a dependency: another component's image must have at least this version.
type Need struct {
	ID  fwu.ID
	Min fwu.Version
}

// Defect is what is wrong with a manifest.
type Defect int

// The defects. The suite makes Garbage and Truncated itself; an Implementation is asked for the others.
const (
	Sound          Defect = iota
	BadSignature          // the signature does not fit the content
	WrongKey              // signed with a key that is no trust anchor of the component
	WrongVendor           // for a device of another vendor
	WrongClass            // for another class of devices
	WrongComponent        // for another component
	WrongDigest           // the digest is not that of the image
	WrongSize             // the size is that of the image and one byte
	Garbage               // not a manifest
	Truncated             // the first half of a good one
)

func (d Defect) String() string {
	return [...]string{"sound", "bad signature", "wrong key", "wrong vendor", "wrong class", "wrong component", "wrong digest", "wrong size", "garbage", "truncated"}[d]
}

// Delivery is one image with its manifest.
type Delivery struct {
	ID       fwu.ID
	Image    []byte
	Meta     Meta
	Defect   Defect
	Manifest []byte // for Start, nil unless detached
	Stream   []byte // for Write
}

// deliver makes a Delivery for a component.
func deliver(impl Implementation, c Config, image []byte, m Meta, d Defect) (*Delivery, error) {
	ask := d
	if d == Garbage || d == Truncated {
		ask = Sound
	}
	manifest, stream, err := impl.Manifest(c.ID, image, m, ask)
	if err != nil {
		return nil, fmt.Errorf("make manifest of component %d (%v): %w", c.ID, d, err)
	}
	del := &Delivery{ID: c.ID, Image: image, Meta: m, Defect: d, Stream: image}
	switch c.Manifest {
	case fwu.Detached:
		del.Manifest = spoil(manifest, d)
	case fwu.Bundled:
		del.Stream = spoil(stream, d)
	}
	return del, nil
}

// spoil applies the defects that need no knowledge of the format.
func spoil(b []byte, d Defect) []byte {
	switch d {
	case Garbage:
		g := make([]byte, len(b))
		fill(g, uint64(len(b)))
		g[0] = 0xff // no format begins so: not CBOR, not ASN.1, not text
		return g
	case Truncated:
		return b[:len(b)/2]
	}
	return b
}

// fill makes reproducible bytes (splitmix64).
func fill(b []byte, seed uint64) {
	var word [8]byte
	for len(b) > 0 {
		seed += 0x9e3779b97f4a7c15
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(word[:], z^z>>31)
		b = b[copy(b, word[:]):]
	}
}

// statusOf is the status of a call that answers with a status or an error.
func statusOf(s fwu.Status, err error) fwu.Status {
	if err != nil {
		return fwu.StatusOf(err)
	}
	return s
}
