package suit

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// Version is the version of an image as the PSA Certified Firmware Update API 1.0 has it (psa_fwu_image_version_t, section 5.5.2).
type Version struct {
	Major uint8  `json:"major"`
	Minor uint8  `json:"minor"`
	Patch uint16 `json:"patch"`
	Build uint32 `json:"build"`
}

// String returns major.minor.patch, and +build where it is not 0.
func (v Version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
	if v.Build != 0 {
		s += "+" + strconv.FormatUint(uint64(v.Build), 10)
	}
	return s
}

// Compare returns -1, 0 or 1 as v is lower than, equal to or higher than w.
func (v Version) Compare(w Version) int {
	for _, d := range [...]int64{
		int64(v.Major) - int64(w.Major), int64(v.Minor) - int64(w.Minor),
		int64(v.Patch) - int64(w.Patch), int64(v.Build) - int64(w.Build),
	} {
		switch {
		case d < 0:
			return -1
		case d > 0:
			return 1
		}
	}
	return 0
}

// ParseVersion reads what String writes; minor, patch and build may be left out. A number that does not fit its field is an error.
func ParseVersion(s string) (Version, error) {
	core, build, hasBuild := strings.Cut(s, "+")
	parts := strings.Split(core, ".")
	if len(parts) > 3 {
		return Version{}, fmt.Errorf("version %q: want major[.minor[.patch]][+build]", s)
	}
	fields := [4]uint64{}
	bits := [4]int{8, 8, 16, 32}
	names := [4]string{"major", "minor", "patch", "build"}
	if hasBuild {
		for len(parts) < 3 {
			parts = append(parts, "0")
		}
		parts = append(parts, build)
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, bits[i])
		if err != nil {
			return Version{}, fmt.Errorf("version %q: %s %q is not a number of %d bits", s, names[i], p, bits[i])
		}
		fields[i] = n
	}
	return Version{uint8(fields[0]), uint8(fields[1]), uint16(fields[2]), uint32(fields[3])}, nil
}

// UUID is a vendor or class identifier (RFC 9562).
type UUID [16]byte

// String returns the usual form with dashes.
func (u UUID) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ParseUUID reads what String writes.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	h := strings.ReplaceAll(s, "-", "")
	if len(s) != 36 || len(h) != 32 {
		return u, fmt.Errorf("uuid %q: want 8-4-4-4-12 hexadecimal digits", s)
	}
	if _, err := hex.Decode(u[:], []byte(h)); err != nil {
		return u, fmt.Errorf("uuid %q: %w", s, err)
	}
	if u.String() != strings.ToLower(s) {
		return u, fmt.Errorf("uuid %q: want 8-4-4-4-12 hexadecimal digits", s)
	}
	return u, nil
}

// Device is what a manifest must be for.
type Device struct {
	Vendor UUID
	Class  UUID
}

// Digest is the digest of an image or a manifest.
type Digest struct {
	Hash crypto.Hash // crypto.SHA256, SHA384 or SHA512
	Sum  []byte
}

// String returns algorithm:hexadecimal, for instance sha256:e3b0…; empty for the zero Digest.
func (d Digest) String() string {
	if d.Hash == 0 {
		return ""
	}
	return hashName(d.Hash) + ":" + hex.EncodeToString(d.Sum)
}

func hashName(h crypto.Hash) string { return strings.ToLower(strings.ReplaceAll(h.String(), "-", "")) }

// New returns the hash that makes such digests.
func (d Digest) New() hash.Hash { return d.Hash.New() }

// VerifyKey is a trust anchor: a public key, and the key identifier that a signature names; or a certificate authority, which vouches for the keys of others.
type VerifyKey struct {
	KID    []byte
	Public crypto.PublicKey  // *ecdsa.PublicKey or ed25519.PublicKey
	CA     *x509.Certificate // then the other two are empty
	Source string            // where it was read from, for people
}

// VerifyKeys are the trust anchors of a component.
type VerifyKeys []VerifyKey

// Dependency is what an image needs of another component: that its image has at least this version.
type Dependency struct {
	Component string
	Min       Version
}

// String returns what ParseDependency reads.
func (d Dependency) String() string { return d.Component + ">=" + d.Min.String() }

// ParseDependency reads component>=version.
func ParseDependency(s string) (Dependency, error) {
	name, version, ok := strings.Cut(s, ">=")
	if !ok || !validName(name) {
		return Dependency{}, fmt.Errorf("dependency %q: want component>=version", s)
	}
	v, err := ParseVersion(version)
	if err != nil {
		return Dependency{}, fmt.Errorf("dependency %q: %w", s, err)
	}
	return Dependency{Component: name, Min: v}, nil
}

// Image is what an authenticated manifest says of one component's image.
type Image struct {
	Component    string
	Digest       Digest
	Size         int64
	Version      Version
	Sequence     uint64
	Payload      string // key of the integrated payload in the envelope, "#rootfs"; empty if detached
	Dependencies []Dependency
}
