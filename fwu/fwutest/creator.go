package fwutest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"

	"github.com/fwu-ab/fwu-ab/suit"
)

// Creator is a firmware creator.
type Creator struct {
	Key crypto.Signer
	KID []byte // that its signatures name
}

// NewCreator makes the creator with that name, always with the same key.
func NewCreator(name string) Creator {
	seed := sha256.Sum256([]byte(name))
	return Creator{Key: ed25519.NewKeyFromSeed(seed[:]), KID: []byte(name)}
}

// Anchors are the trust anchors of a component that takes this creator's images.
func (c Creator) Anchors() suit.VerifyKeys {
	return suit.VerifyKeys{{KID: c.KID, Public: c.Key.Public(), Source: string(c.KID)}}
}

// Manifest makes and signs a manifest.
func (c Creator) Manifest(s suit.Spec) ([]byte, error) {
	e, err := suit.Create(s)
	if err != nil {
		return nil, err
	}
	return suit.Sign(e, c.Key, suit.Identity{KID: c.KID})
}

// Spec describes an image for Board; what it depends on, and where its payload is, is left to the caller.
func Spec(component string, image []byte, v suit.Version, sequence uint64) suit.Spec {
	sum := sha256.Sum256(image)
	return suit.Spec{Device: Board("example.com", "board"), Version: v, Demand: suit.Demand{Sequence: sequence, Images: []suit.Image{
		{Component: component, Digest: suit.Digest{Hash: crypto.SHA256, Sum: sum[:]}, Size: int64(len(image)), Version: v}}}}
}

// Board is a class of devices. The machines of this package are of vendor "example.com", class "board".
func Board(vendor, class string) suit.Device {
	v := suit.VendorID(vendor)
	return suit.Device{Vendor: v, Class: suit.ClassID(v, class)}
}
