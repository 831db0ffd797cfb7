package suit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// pkcs8 is a private key that is not encrypted (RFC 5208, RFC 5958). Attributes and public key of
// the newer version are left out. The functions of crypto/x509 for this form know RSA, DH and DSA
// as well: with them the program is 45 kB larger.
type pkcs8 struct {
	Version   int
	Algorithm pkix.AlgorithmIdentifier
	Key       []byte
}

// sec1 is an elliptic curve private key (RFC 5915). Inside of pkcs8 it may lack the curve.
type sec1 struct {
	Version int
	Key     []byte
	Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
	Public  asn1.BitString        `asn1:"optional,explicit,tag:1"`
}

func oidEC() asn1.ObjectIdentifier      { return asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1} }
func oidEd25519() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 101, 112} }

func parsePKCS8(der []byte) (crypto.Signer, error) {
	var k pkcs8
	if err := unmarshal(der, &k); err != nil {
		return nil, err
	}
	switch {
	case k.Algorithm.Algorithm.Equal(oidEd25519()):
		var seed []byte
		if err := unmarshal(k.Key, &seed); err != nil {
			return nil, err
		}
		if len(seed) != ed25519.SeedSize {
			return nil, fmt.Errorf("Ed25519 key of %d bytes, want %d", len(seed), ed25519.SeedSize)
		}
		return ed25519.NewKeyFromSeed(seed), nil
	case k.Algorithm.Algorithm.Equal(oidEC()):
		var curve asn1.ObjectIdentifier
		if err := unmarshal(k.Algorithm.Parameters.FullBytes, &curve); err != nil {
			return nil, fmt.Errorf("curve: %w", err)
		}
		var inner sec1
		if err := unmarshal(k.Key, &inner); err != nil {
			return nil, err
		}
		if inner.Curve != nil && !inner.Curve.Equal(curve) {
			return nil, errors.New("key on two different curves")
		}
		inner.Curve = curve
		der, err := asn1.Marshal(inner)
		if err != nil {
			return nil, err
		}
		return x509.ParseECPrivateKey(der)
	}
	return nil, errKeyType
}

func unmarshal(der []byte, v any) error {
	rest, err := asn1.Unmarshal(der, v)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes after the key", len(rest))
	}
	return err
}

func marshalPKCS8(key crypto.Signer) ([]byte, error) {
	var k pkcs8
	var err error
	switch key := key.(type) {
	case ed25519.PrivateKey:
		k.Algorithm.Algorithm = oidEd25519()
		k.Key, err = asn1.Marshal(key.Seed())
	case *ecdsa.PrivateKey:
		if k.Key, err = x509.MarshalECPrivateKey(key); err != nil {
			return nil, err
		}
		var inner sec1
		if err = unmarshal(k.Key, &inner); err != nil {
			return nil, err
		}
		k.Algorithm.Algorithm = oidEC()
		k.Algorithm.Parameters.FullBytes, err = asn1.Marshal(inner.Curve)
	default:
		err = errKeyType
	}
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(k)
}
