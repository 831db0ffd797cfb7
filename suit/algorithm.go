package suit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	_ "crypto/sha256" // SHA-256, for crypto.Hash
	_ "crypto/sha512" // SHA-384 and SHA-512
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Algorithms of COSE: RFC 9053, section 2; the fully-specified names of the same, which draft-ietf-suit-mti uses, are from RFC 9864, section 2; hashes from RFC 9054, section 2.
const (
	algES256   = -7
	algEdDSA   = -8
	algESP256  = -9
	algEd25519 = -19
	algES384   = -35
	algES512   = -36
	algESP384  = -51
	algESP512  = -52

	algSHA256 = -16
	algSHA384 = -43
	algSHA512 = -44
)

// algorithm is a signature algorithm of the profile.
type algorithm struct {
	id    int64
	name  string
	curve elliptic.Curve // nil: Ed25519, if it has a name
	hash  crypto.Hash    // of the message; 0 for Ed25519
}

// algorithms are those of the profile. The first that uses a key is the one that is written.
func algorithms() []algorithm {
	return []algorithm{
		{algES256, "ES256", elliptic.P256(), crypto.SHA256},
		{algES384, "ES384", elliptic.P384(), crypto.SHA384},
		{algES512, "ES512", elliptic.P521(), crypto.SHA512},
		{algEdDSA, "EdDSA", nil, 0},
		{algESP256, "ESP256", elliptic.P256(), crypto.SHA256},
		{algESP384, "ESP384", elliptic.P384(), crypto.SHA384},
		{algESP512, "ESP512", elliptic.P521(), crypto.SHA512},
		{algEd25519, "Ed25519", nil, 0},
	}
}

// algorithmOf returns the algorithm with an identifier. One that the profile does not have has no name: beside such a signature, which is for others, there may be one that counts.
func algorithmOf(id int64) algorithm {
	for _, a := range algorithms() {
		if a.id == id {
			return a
		}
	}
	return algorithm{id: id}
}

// errKeyType is the error for a key of a type that the profile does not have.
const errKeyType = constError("neither ECDSA on P-256, P-384 or P-521, nor Ed25519")

// algorithmFor is the algorithm that is written for a key.
func algorithmFor(key crypto.PublicKey) (algorithm, error) {
	for _, a := range algorithms() {
		if a.uses(key) {
			return a, nil
		}
	}
	return algorithm{}, errKeyType
}

// uses tells whether a key is of the type that the algorithm needs.
func (a algorithm) uses(key crypto.PublicKey) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return a.curve != nil && k != nil && k.Curve == a.curve
	case ed25519.PublicKey:
		return a.curve == nil && len(k) == ed25519.PublicKeySize
	}
	return false
}

// size is that of each of the two numbers of an ECDSA signature in the form of COSE (RFC 9053, section 2.1).
func (a algorithm) size() int { return (a.curve.Params().BitSize + 7) / 8 }

// verify checks a signature in the form of COSE. The key is one that the algorithm uses.
func (a algorithm) verify(key crypto.PublicKey, message, sig []byte) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		n := a.size()
		return len(sig) == 2*n && ecdsa.Verify(k, a.digest(message), new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:]))
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, sig)
	}
	return false
}

func (a algorithm) digest(message []byte) []byte {
	h := a.hash.New()
	h.Write(message)
	return h.Sum(nil)
}

// sign makes a signature, and checks it: a key in hardware can fail. ECDSA signatures by a key in memory are deterministic (RFC 6979).
func (a algorithm) sign(signer crypto.Signer, message []byte) (sig []byte, err error) {
	if a.curve == nil {
		sig, err = signer.Sign(nil, message, crypto.Hash(0))
	} else if sig, err = signer.Sign(nil, a.digest(message), a.hash); err == nil { // without a source of randomness, crypto/ecdsa signs as RFC 6979 says
		sig, err = a.raw(sig)
	}
	if err != nil {
		return nil, fmt.Errorf("sign manifest: %w", err)
	}
	if !a.verify(signer.Public(), message, sig) {
		return nil, errors.New("sign manifest: the key made a signature that is not valid")
	}
	return sig, nil
}

// raw turns the ASN.1 form of an ECDSA signature (RFC 3279, section 2.2.3) into that of COSE.
func (a algorithm) raw(der []byte) ([]byte, error) {
	var rs struct{ R, S *big.Int }
	bits := a.curve.Params().BitSize
	if rest, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	} else if len(rest) > 0 || rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > bits || rs.S.BitLen() > bits {
		return nil, fmt.Errorf("not an ECDSA signature on %s", a.curve.Params().Name)
	}
	n := a.size()
	return append(rs.R.FillBytes(make([]byte, n)), rs.S.FillBytes(make([]byte, n))...), nil
}

// hashes are the digest algorithms of the profile.
func hashes() map[int64]crypto.Hash {
	return map[int64]crypto.Hash{algSHA256: crypto.SHA256, algSHA384: crypto.SHA384, algSHA512: crypto.SHA512}
}

// algorithmOfHash is the identifier of a digest algorithm, 0 for one that the profile does not have.
func algorithmOfHash(h crypto.Hash) int64 {
	for id, known := range hashes() {
		if known == h {
			return id
		}
	}
	return 0
}

// ParseHash reads the name of a digest algorithm: sha256, sha384 or sha512.
func ParseHash(name string) (crypto.Hash, error) {
	for _, h := range hashes() {
		if hashName(h) == name {
			return h, nil
		}
	}
	return 0, fmt.Errorf("digest algorithm %q: want sha256, sha384 or sha512", name)
}
