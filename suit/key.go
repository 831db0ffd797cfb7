package suit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// KeyType is a type of key that the profile has.
type KeyType string

// The types of keys.
const (
	Ed25519 KeyType = "ed25519" // signs with EdDSA
	P256    KeyType = "p256"    // signs with ES256
	P384    KeyType = "p384"    // signs with ES384
	P521    KeyType = "p521"    // signs with ES512
)

// maxKeyFile bounds a file of keys.
const maxKeyFile = 64 << 10

const (
	blockPublic  = "PUBLIC KEY"
	blockPrivate = "PRIVATE KEY"
	blockEC      = "EC PRIVATE KEY"

	blockEncrypted = "ENCRYPTED PRIVATE KEY"
)

// KeyID is the key identifier of a public key: the first 8 bytes of the SHA-256 digest of its SubjectPublicKeyInfo in DER. So nobody has to name keys.
func KeyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return sum[:8], nil
}

// GenerateKey makes a private key from the system's randomness.
func GenerateKey(t KeyType) (crypto.Signer, error) {
	switch t {
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case P521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	}
	return nil, fmt.Errorf("key type %q: want %s, %s, %s or %s", t, Ed25519, P256, P384, P521)
}

// MarshalPrivateKey returns a private key as PEM (PKCS #8).
func MarshalPrivateKey(key crypto.Signer) ([]byte, error) {
	der, err := marshalPKCS8(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockPrivate, Bytes: der}), nil
}

// MarshalPublicKey returns a public key as PEM (SubjectPublicKeyInfo).
func MarshalPublicKey(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockPublic, Bytes: der}), nil
}

// LoadKeys reads trust anchors from PEM files, one or several in each: public keys (SubjectPublicKeyInfo) and certificates of certificate authorities. A file without one, and anything in
// it that is not usable as one, is an error: a device that silently has fewer trust anchors than it was given could never be updated again.
func LoadKeys(paths ...string) (VerifyKeys, error) {
	var keys VerifyKeys
	for _, path := range paths {
		more, err := loadFile(path, ReadKeys)
		if err != nil {
			return nil, fmt.Errorf("trust anchor %s: %w", path, err)
		}
		for i := range more {
			more[i].Source = path
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

func loadFile[T any](path string, read func(io.Reader) (T, error)) (out T, err error) {
	f, err := os.Open(path)
	if err != nil {
		return out, err
	}
	defer f.Close()
	return read(f)
}

// ReadKeys is LoadKeys for a reader. Source of the keys is empty.
func ReadKeys(r io.Reader) (VerifyKeys, error) {
	blocks, err := readPEM(r)
	if err != nil {
		return nil, err
	}
	var keys VerifyKeys
	for _, b := range blocks {
		key, err := parseAnchor(b)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func parseAnchor(b *pem.Block) (k VerifyKey, err error) {
	switch b.Type {
	case blockCertificate:
		k.CA, err = parseAuthority(b)
		return k, err
	case blockPublic:
		if k.Public, err = x509.ParsePKIXPublicKey(b.Bytes); err != nil {
			return k, err
		}
		if _, err := algorithmFor(k.Public); err != nil {
			return k, err
		}
		k.KID, err = KeyID(k.Public)
		return k, err
	}
	return k, fmt.Errorf("PEM block %q, want %q or %q", b.Type, blockPublic, blockCertificate)
}

// LoadSigner reads a private key from a PEM file (PKCS #8, or the older form for ECDSA), and returns it with its key identifier.
func LoadSigner(path string) (key crypto.Signer, kid []byte, err error) {
	if key, err = loadFile(path, ReadSigner); err == nil {
		kid, err = KeyID(key.Public())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("private key %s: %w", path, err)
	}
	return key, kid, nil
}

// ReadSigner is LoadSigner for a reader. KeyID returns the key identifier.
func ReadSigner(r io.Reader) (crypto.Signer, error) {
	blocks, err := readPEM(r)
	if err != nil {
		return nil, err
	}
	var found []crypto.Signer
	for _, b := range blocks {
		if b.Type == "EC PARAMETERS" { // the openssl tool writes it before an EC key
			continue
		}
		key, err := parsePrivateKey(b)
		if err != nil {
			return nil, err
		}
		found = append(found, key)
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%d keys, want one", len(found))
	}
	return found[0], nil
}

func parsePrivateKey(b *pem.Block) (crypto.Signer, error) {
	if b.Type == blockEncrypted || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, ErrEncrypted
	}
	switch b.Type {
	case blockPrivate:
		key, err := parsePKCS8(b.Bytes)
		if err != nil {
			return nil, err
		}
		_, err = algorithmFor(key.Public())
		return key, err
	case blockEC:
		key, err := x509.ParseECPrivateKey(b.Bytes)
		if err != nil {
			return nil, err
		}
		_, err = algorithmFor(key.Public())
		return key, err
	}
	return nil, fmt.Errorf("PEM block %q, want %q", b.Type, blockPrivate)
}

// readPEM reads the blocks of a file, at least one, and takes care that none is lost because it is
// damaged. A byte order mark, which some editors put before a text, is no part of it.
func readPEM(r io.Reader) ([]*pem.Block, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("more than %d bytes", maxKeyFile)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	var blocks []*pem.Block
	for rest := data; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		blocks = append(blocks, b)
	}
	switch n := bytes.Count(data, []byte("-----BEGIN ")); {
	case n == 0:
		return nil, errors.New("not a key or certificate in PEM: no line begins with -----BEGIN")
	case n != len(blocks):
		return nil, fmt.Errorf("%d of %d PEM blocks are readable", len(blocks), n)
	}
	return blocks, nil
}
