package suit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Labels and algorithms of COSE (RFC 9052, sections 2 and 3.1; RFC 9053, section 2; RFC 9864, section 2; RFC 9054, section 2.1).
const (
	tagSign1 = 18

	headerAlg  = 1
	headerCrit = 2
	headerKID  = 4

	algES256   = -7
	algEdDSA   = -8
	algESP256  = -9 // the fully-specified name of the same, which draft-ietf-suit-mti uses
	algEd25519 = -19
	algSHA256  = -16
)

// algorithmName is the name of a signature algorithm of the profile, empty for any other.
func algorithmName(alg int64) string {
	switch alg {
	case algES256:
		return "ES256"
	case algESP256:
		return "ESP256"
	case algEdDSA:
		return "EdDSA"
	case algEd25519:
		return "Ed25519"
	}
	return ""
}

// sign1 is a COSE_Sign1 with a detached payload.
type sign1 struct {
	protected []byte // content of the protected header, as signed
	alg       int64
	kid       []byte // nil if there is none
	signature []byte
}

// authentication is the content of the authentication wrapper (draft-ietf-suit-manifest-37, section "Authenticated Manifests").
type authentication struct {
	rawDigest []byte // the encoded SUIT_Digest: what is signed
	digest    Digest
	signature *sign1 // nil if not signed yet
}

func readAuthentication(b []byte) (a authentication, err error) {
	r := &reader{b: b}
	n, err := r.array("authentication wrapper", 1, 16)
	if err != nil {
		return a, err
	}
	if n > 2 {
		return a, unsupported("%d signatures", n-1)
	}
	d, err := r.nested("manifest digest")
	if err != nil {
		return a, err
	}
	a.rawDigest = d.b
	if a.digest, err = d.digest("manifest digest"); err != nil {
		return a, err
	}
	if err := d.done("manifest digest"); err != nil {
		return a, err
	}
	if n == 2 {
		s, err := r.nested("signature")
		if err != nil {
			return a, err
		}
		if a.signature, err = s.sign1(); err != nil {
			return a, err
		}
	}
	return a, r.done("authentication wrapper")
}

// digest reads a SUIT_Digest.
func (r *reader) digest(what string) (Digest, error) {
	if _, err := r.array(what, 2, 2); err != nil {
		return Digest{}, err
	}
	alg, err := r.int("algorithm of " + what)
	if err != nil {
		return Digest{}, err
	}
	if alg != algSHA256 {
		return Digest{}, unsupported("digest algorithm %d", alg)
	}
	sum, err := r.bytes(what)
	if err != nil {
		return Digest{}, err
	}
	if len(sum) != sha256.Size {
		return Digest{}, malformed("%s of %d bytes, want %d", what, len(sum), sha256.Size)
	}
	return Digest{Hash: crypto.SHA256, Sum: bytes.Clone(sum)}, nil
}

func appendDigest(b []byte, d Digest) []byte {
	b = appendHead(b, majorArray, 2)
	b = appendInt(b, algSHA256)
	return appendBytes(b, d.Sum)
}

// sign1 reads a tagged COSE_Sign1.
func (r *reader) sign1() (*sign1, error) {
	tag, err := r.expect(majorTag, "signature")
	if err != nil {
		return nil, err
	}
	if tag != tagSign1 {
		return nil, unsupported("authentication by %s", coseName(tag))
	}
	if _, err := r.array("COSE_Sign1", 4, 4); err != nil {
		return nil, err
	}
	s := &sign1{}
	protected, err := r.nested("protected header")
	if err != nil {
		return nil, err
	}
	s.protected = protected.b
	if err := s.header(protected, "protected header", true); err != nil {
		return nil, err
	}
	if err := protected.done("protected header"); err != nil {
		return nil, err
	}
	if err := s.header(r, "unprotected header", false); err != nil {
		return nil, err
	}
	if major, arg, err := r.head("payload of COSE_Sign1"); err != nil {
		return nil, err
	} else if major != majorSimple || arg != simpleNull {
		return nil, malformed("payload of COSE_Sign1 is not detached")
	}
	if s.signature, err = r.bytes("signature"); err != nil {
		return nil, err
	}
	return s, r.done("signature")
}

func coseName(tag uint64) string {
	switch tag {
	case 17:
		return "COSE_Mac0"
	case 97:
		return "COSE_Mac"
	case 98:
		return "COSE_Sign"
	}
	return fmt.Sprintf("tag %d", tag)
}

// header reads one of the two headers of a COSE_Sign1. The algorithm has to be in the protected one.
func (s *sign1) header(r *reader, what string, protected bool) error {
	err := r.fields(what, func(key int64) (err error) {
		switch {
		case key == headerAlg && protected:
			if s.alg, err = r.int("signature algorithm"); err == nil && algorithmName(s.alg) == "" {
				err = unsupported("signature algorithm %d", s.alg)
			}
			return err
		case key == headerKID && s.kid == nil:
			if s.kid, err = r.bytes("key identifier"); len(s.kid) > maxKID {
				err = malformed("key identifier of %d bytes", len(s.kid))
			}
			return err
		case key == headerCrit:
			return unsupported("critical COSE header parameters")
		}
		return unsupported("COSE header parameter %d in the %s", key, what)
	})
	if err == nil && s.alg == 0 {
		err = malformed("%s names no algorithm", what)
	}
	return err
}

// toBeSigned is the Sig_structure (RFC 9052, section 4.4) over the encoded SUIT_Digest.
func toBeSigned(protected, payload []byte) []byte {
	b := appendHead(nil, majorArray, 4)
	b = appendText(b, "Signature1")
	b = appendBytes(b, protected)
	b = appendBytes(b, nil)
	return appendBytes(b, payload)
}

// verify returns nil if one of the keys made the signature over payload.
func (s *sign1) verify(payload []byte, keys VerifyKeys) error {
	message := toBeSigned(s.protected, payload)
	tried := 0
	for _, k := range keys {
		if s.kid != nil && !bytes.Equal(s.kid, k.KID) || !usable(s.alg, k.Public) {
			continue
		}
		if verifyWith(k.Public, message, s.signature) {
			return nil
		}
		tried++
	}
	switch {
	case tried > 0:
		return fmt.Errorf("%w: made by none of %d matching keys, or the content was changed", ErrSignature, tried)
	case s.kid != nil:
		return fmt.Errorf("%w: no trust anchor of %d has the key identifier %x and the type for %s", ErrSignature, len(keys), s.kid, algorithmName(s.alg))
	}
	return fmt.Errorf("%w: no trust anchor of %d has the type for %s", ErrSignature, len(keys), algorithmName(s.alg))
}

// usable tells whether a key is of the type that alg needs.
func usable(alg int64, key crypto.PublicKey) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return (alg == algES256 || alg == algESP256) && k != nil && k.Curve == elliptic.P256()
	case ed25519.PublicKey:
		return (alg == algEdDSA || alg == algEd25519) && len(k) == ed25519.PublicKeySize
	}
	return false
}

// verifyWith checks a signature in the form of COSE: r and s, 32 bytes each, for ECDSA (RFC 9053, section 2.1).
func verifyWith(key crypto.PublicKey, message, sig []byte) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if len(sig) != 64 {
			return false
		}
		digest := sha256.Sum256(message)
		return ecdsa.Verify(k, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, sig)
	}
	return false
}

// manifestDigest is the digest over the manifest as the byte string that it is in the envelope.
func manifestDigest(manifest []byte) Digest {
	h := sha256.New()
	h.Write(appendHead(nil, majorBytes, uint64(len(manifest))))
	h.Write(manifest)
	return Digest{Hash: crypto.SHA256, Sum: h.Sum(nil)}
}

// matches returns nil if the digest in the wrapper is that of the manifest.
func (a authentication) matches(manifest []byte) error {
	if subtle.ConstantTimeCompare(a.digest.Sum, manifestDigest(manifest).Sum) != 1 {
		return fmt.Errorf("%w: the manifest does not have the digest that is signed", ErrSignature)
	}
	return nil
}

// Sign returns the envelope with a COSE_Sign1 by signer, whose public key is an *ecdsa.PublicKey on P-256 or an ed25519.PublicKey. The key
// identifier kid, if not empty, goes into the protected header. The manifest's digest is checked first, and the manifest has to be one that Open takes. An envelope
// that is signed already is refused. ECDSA signatures by a key in memory are deterministic (RFC 6979).
func Sign(envelope []byte, signer crypto.Signer, kid []byte) ([]byte, error) {
	f, a, _, err := readUnverified(envelope)
	if err != nil {
		return nil, err
	}
	if a.signature != nil {
		return nil, unsupported("a second signature")
	}
	block, err := signBlock(a.rawDigest, signer, kid)
	if err != nil {
		return nil, err
	}
	f.authentication = appendHead(nil, majorArray, 2)
	f.authentication = appendBytes(f.authentication, a.rawDigest)
	f.authentication = appendBytes(f.authentication, block)
	signed := appendEnvelope(nil, f)
	if _, _, _, err := readUnverified(signed); err != nil {
		return nil, err
	}
	return signed, nil
}

// signBlock makes a COSE_Sign1 over payload, and checks the signature: a key in hardware can fail.
func signBlock(payload []byte, signer crypto.Signer, kid []byte) ([]byte, error) {
	alg := int64(algES256)
	if _, ok := signer.Public().(ed25519.PublicKey); ok {
		alg = algEdDSA
	}
	if !usable(alg, signer.Public()) {
		return nil, errors.New("signing key is neither ECDSA on P-256 nor Ed25519")
	}
	fields := uint64(1)
	if len(kid) > 0 {
		fields = 2
	}
	protected := appendHead(nil, majorMap, fields)
	protected = appendInt(protected, headerAlg)
	protected = appendInt(protected, alg)
	if len(kid) > 0 {
		protected = appendInt(protected, headerKID)
		protected = appendBytes(protected, kid)
	}
	sig, err := signMessage(signer, toBeSigned(protected, payload))
	if err != nil {
		return nil, err
	}
	b := appendHead(nil, majorTag, tagSign1)
	b = appendHead(b, majorArray, 4)
	b = appendBytes(b, protected)
	b = appendHead(b, majorMap, 0)
	b = appendHead(b, majorSimple, simpleNull)
	return appendBytes(b, sig), nil
}

func signMessage(signer crypto.Signer, message []byte) (sig []byte, err error) {
	if _, ok := signer.Public().(ed25519.PublicKey); ok {
		sig, err = signer.Sign(nil, message, crypto.Hash(0))
	} else {
		digest := sha256.Sum256(message)
		// Without a source of randomness, crypto/ecdsa signs as RFC 6979 says.
		if sig, err = signer.Sign(nil, digest[:], crypto.SHA256); err == nil {
			sig, err = rawSignature(sig)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sign manifest: %w", err)
	}
	if !verifyWith(signer.Public(), message, sig) {
		return nil, errors.New("sign manifest: the key made a signature that is not valid")
	}
	return sig, nil
}

// rawSignature turns the ASN.1 form of an ECDSA signature into that of COSE.
func rawSignature(der []byte) ([]byte, error) {
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	} else if len(rest) > 0 || rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > 256 || rs.S.BitLen() > 256 {
		return nil, errors.New("not an ECDSA signature on P-256")
	}
	return append(rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))...), nil
}
