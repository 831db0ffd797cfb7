package suit

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

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
	ID     UUID // of this very device; the nil UUID where it has none

	// The names that Vendor and Class were made from, for people; empty where they are not known.
	VendorName, ClassName string
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

func (d Digest) equal(e Digest) bool { return d.Hash == e.Hash && bytes.Equal(d.Sum, e.Sum) }

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

// Fingerprint names a trust anchor by its public key (SHA-256 of the SubjectPublicKeyInfo) and by
// its kind: a key that is trusted for itself is another anchor than an authority with the same key.
func (k VerifyKey) Fingerprint() (string, error) {
	kind, public := "key", k.Public
	if k.CA != nil {
		kind, public = "authority", k.CA.PublicKey
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("fingerprint of a trust anchor: %w", err)
	}
	return fmt.Sprintf("%s:%x", kind, sha256.Sum256(der)), nil
}

// Image is what a manifest says of the image of one component.
type Image struct {
	Component string
	Digest    Digest
	Size      int64
	Version   Version
	// URI is where the image comes from: "#rootfs" is the key of an integrated payload, anything else is for the update client to know. Empty: the manifest does not say.
	URI string
	// Compression is how the payload is compressed that URI names: empty or CompressionZstd. Digest and size are those of the image.
	Compression string
	// Content is the image itself where it is so small that the manifest has it.
	Content []byte
}

// CompressionZstd: the payload is a sequence of Zstandard frames, as package zstdframe defines it.
const CompressionZstd = "zstd"

// Integrated tells whether the image is a payload of the envelope.
func (i Image) Integrated() bool { return validPayload(i.URI) }

// Demand is what a manifest asks of a device: to have these images, under these conditions.
type Demand struct {
	Sequence     uint64
	Images       []Image // at least one; together they are one update
	Dependencies []Dependency
	// Battery is how much the battery must hold when the images are installed, in mWh. 0: the manifest does not ask.
	Battery uint64
}

// Image returns the image of a component, or an error that wraps ErrComponent.
func (d Demand) Image(component string) (Image, error) {
	for _, i := range d.Images {
		if i.Component == component {
			return i, nil
		}
	}
	names := make([]string, 0, len(d.Images))
	for _, i := range d.Images {
		names = append(names, i.Component)
	}
	return Image{}, fmt.Errorf("%w: %s, not %s", ErrComponent, strings.Join(names, ", "), component)
}
