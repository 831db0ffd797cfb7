package suit

import (
	"bytes"
	"crypto"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Labels of COSE (RFC 9052, sections 2 and 3.1).
const (
	tagSign1 = 18

	headerAlg  = 1
	headerCrit = 2
	headerKID  = 4
)

// sign1 is a COSE_Sign1 with a detached payload.
type sign1 struct {
	protected []byte // content of the protected header, as signed
	alg       algorithm
	kid       []byte              // nil if there is none
	chained   bool                // there is an x5chain
	chain     []*x509.Certificate // its certificates, of the signer first; none if the algorithm is not one of the profile
	size      int                 // of its certificates, and of those of the signatures before it, in bytes
	signature []byte
}

// authentication is the content of the authentication wrapper (draft-ietf-suit-manifest-37, section "Authenticated Manifests").
type authentication struct {
	rawDigest  []byte // the encoded SUIT_Digest: what is signed
	digest     Digest
	signatures []*sign1 // none if not signed yet
	blocks     [][]byte // the same, encoded
}

func readAuthentication(b []byte) (a authentication, err error) {
	r := &reader{b: b}
	n, err := r.array("authentication wrapper", 1, 1+maxSignatures)
	if err != nil {
		return a, err
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
	size := 0
	for range n - 1 {
		block, err := r.nested("signature")
		if err != nil {
			return a, err
		}
		a.blocks = append(a.blocks, block.b)
		s, err := block.sign1(size)
		if err != nil {
			return a, err
		}
		a.signatures = append(a.signatures, s)
		size = s.size
	}
	return a, r.done("authentication wrapper")
}

// encode is the content of the wrapper.
func (a authentication) encode() []byte {
	b := appendHead(nil, majorArray, uint64(1+len(a.blocks)))
	b = appendBytes(b, a.rawDigest)
	for _, block := range a.blocks {
		b = appendBytes(b, block)
	}
	return b
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
	hash, ok := hashes()[alg]
	if !ok {
		return Digest{}, unsupported("digest algorithm %d", alg)
	}
	sum, err := r.bytes(what)
	if err != nil {
		return Digest{}, err
	}
	if len(sum) != hash.Size() {
		return Digest{}, malformed("%s of %d bytes, want %d", what, len(sum), hash.Size())
	}
	return Digest{Hash: hash, Sum: bytes.Clone(sum)}, nil
}

func appendDigest(b []byte, d Digest) []byte {
	b = appendInt(appendHead(b, majorArray, 2), algorithmOfHash(d.Hash))
	return appendBytes(b, d.Sum)
}

// sign1 reads a tagged COSE_Sign1. The signatures before it have certificates of size bytes.
func (r *reader) sign1(size int) (*sign1, error) {
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
	s := &sign1{size: size}
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
			id, err := r.int("signature algorithm")
			if err != nil {
				return err
			}
			s.alg = algorithmOf(id)
			return nil
		case key == headerKID && s.kid == nil:
			if s.kid, err = r.bytes("key identifier"); len(s.kid) > maxKID {
				err = malformed("key identifier of %d bytes", len(s.kid))
			}
			return err
		case key == headerX5Chain && !s.chained:
			return s.readChain(r)
		case key == headerCrit:
			return unsupported("critical COSE header parameters")
		}
		return unsupported("COSE header parameter %d in the %s", key, what)
	})
	if err == nil && s.alg.id == 0 {
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

// verify returns the public key that made the signature over payload, if it is one of the keys, or
// if one of them vouches for it at that time. Then it returns the certificate of that key as well.
func (s *sign1) verify(payload []byte, keys VerifyKeys, at time.Time) (crypto.PublicKey, *x509.Certificate, error) {
	message := toBeSigned(s.protected, payload)
	switch {
	case s.alg.name == "":
		return nil, nil, unsupported("signature algorithm %d", s.alg.id)
	case s.chained:
		signer, err := s.verifyChain(message, keys, at)
		return s.chain[0].PublicKey, signer, err
	}
	signer, err := s.verifyKey(message, keys)
	return signer, nil, err
}

// verifyKey returns the one of the keys that made the signature.
func (s *sign1) verifyKey(message []byte, keys VerifyKeys) (crypto.PublicKey, error) {
	tried := 0
	for _, k := range keys {
		if k.CA != nil || s.kid != nil && !bytes.Equal(s.kid, k.KID) || !s.alg.uses(k.Public) {
			continue
		}
		if s.alg.verify(k.Public, message, s.signature) {
			return k.Public, nil
		}
		tried++
	}
	switch {
	case tried > 0:
		return nil, fmt.Errorf("%w: made by none of %d matching keys, or the content was changed", ErrSignature, tried)
	case s.kid != nil:
		return nil, &signatureError{ErrUnknownSigner, fmt.Sprintf("no trust anchor of %d has the key identifier %x and the type for %s", len(keys), s.kid, s.alg.name)}
	}
	return nil, &signatureError{ErrUnknownSigner, fmt.Sprintf("no trust anchor of %d has the type for %s", len(keys), s.alg.name)}
}

// Signer is a key that signed a manifest, and that is trusted.
type Signer struct {
	// Key is the fingerprint of the public key: see VerifyKey.Fingerprint.
	Key string
	// Anchors are the fingerprints of the trust anchors that vouch for it: the key itself,
	// authorities, or both.
	Anchors []string
	// Name is for people: the subject of the certificate that came with the signature, or the
	// identifier of the key.
	Name string
}

// verify returns the keys that signed, each once: of those that are trust anchors, or that trust
// anchors vouch for at that time. notBefore is when the newest of their certificates begins to be
// valid. It is an error if there is no such key.
func (a authentication) verify(keys VerifyKeys, at time.Time) (signers []Signer, notBefore time.Time, err error) {
	if len(a.signatures) == 0 {
		return nil, notBefore, &signatureError{ErrUnsigned, ErrUnsigned.Error()}
	}
	var errs []error
	for _, s := range a.signatures {
		public, certificate, err := s.verify(a.rawDigest, keys, at)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if certificate != nil && certificate.NotBefore.After(notBefore) {
			notBefore = certificate.NotBefore
		}
		key, err := VerifyKey{Public: public}.Fingerprint()
		if err != nil {
			return nil, notBefore, err
		}
		i := slices.IndexFunc(signers, func(s Signer) bool { return s.Key == key })
		if i < 0 {
			i, signers = len(signers), append(signers, Signer{Key: key, Name: s.by()})
		}
		if err := s.vouchers(&signers[i], a.rawDigest, keys, at); err != nil {
			return nil, notBefore, err
		}
	}
	if len(signers) == 0 {
		return nil, notBefore, errors.Join(errs...)
	}
	return signers, notBefore, nil
}

// vouchers adds to signer the trust anchors that vouch for it by a signature of its own.
func (s *sign1) vouchers(signer *Signer, payload []byte, keys VerifyKeys, at time.Time) error {
	for _, k := range keys {
		if len(keys) > 1 {
			if _, _, err := s.verify(payload, VerifyKeys{k}, at); err != nil {
				continue // vouched for by another one
			}
		}
		name, err := k.Fingerprint()
		if err != nil {
			return err
		}
		if !slices.Contains(signer.Anchors, name) {
			signer.Anchors = append(signer.Anchors, name)
		}
	}
	return nil
}

// manifestDigest is the digest over the manifest as the byte string that it is in the envelope.
func manifestDigest(hash crypto.Hash, manifest []byte) Digest {
	h := hash.New()
	h.Write(appendHead(nil, majorBytes, uint64(len(manifest))))
	h.Write(manifest)
	return Digest{Hash: hash, Sum: h.Sum(nil)}
}

// matches returns nil if the digest in the wrapper is that of the manifest.
func (a authentication) matches(manifest []byte) error {
	if subtle.ConstantTimeCompare(a.digest.Sum, manifestDigest(a.digest.Hash, manifest).Sum) != 1 {
		return fmt.Errorf("%w: the manifest does not have the digest that is signed", ErrSignature)
	}
	return nil
}

// Identity is whom a signature is by, and how it says so.
type Identity struct {
	// Public is an *ecdsa.PublicKey on P-256, P-384 or P-521 or an ed25519.PublicKey. Sign takes that of the signer instead.
	Public crypto.PublicKey
	// KID is the key identifier. It may be empty, and is left out if there are certificates.
	KID []byte
	// Chain are the certificates of the key if a device trusts a certificate authority instead of the key itself: that of the key first, each of the others that of the issuer of the one
	// before it. That of the trust anchor need not be there.
	Chain []*x509.Certificate
}

// header is the content of the protected header of a signature by the identity, and the algorithm that it names.
func (id Identity) header() ([]byte, algorithm, error) {
	alg, err := algorithmFor(id.Public)
	if err != nil {
		return nil, alg, fmt.Errorf("public key: %w", err)
	}
	if len(id.Chain) > 0 {
		if !sameKey(id.Public, id.Chain[0].PublicKey) {
			return nil, alg, fmt.Errorf("first certificate is for another key: %s", subject(id.Chain[0]))
		}
		if err := checkSigner(id.Chain[0]); err != nil {
			return nil, alg, err
		}
	}
	protected := alg.protected(id)
	return protected, alg, new(sign1).header(&reader{b: protected}, "protected header", true)
}

// Sign returns the envelope with a COSE_Sign1 by signer more. Key identifier or certificates go into the protected header. The manifest's digest is checked first, and the manifest has
// to be one that Open takes. A second signature by the same key is refused. ECDSA signatures by a key in memory are deterministic (RFC 6979).
func Sign(envelope []byte, signer crypto.Signer, id Identity) ([]byte, error) {
	id.Public = signer.Public()
	alg, err := algorithmFor(id.Public)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	message, err := ToBeSigned(envelope, id)
	if err != nil {
		return nil, err
	}
	sig, err := alg.sign(signer, message)
	if err != nil {
		return nil, err
	}
	return Attach(envelope, id, sig)
}

// ToBeSigned returns what a key signs that is not at hand: the Sig_structure (RFC 9052, section 4.4) for the algorithm that goes with the public key. ECDSA signs its digest by
// SHA-256 on P-256, SHA-384 on P-384 and SHA-512 on P-521; Ed25519 signs the bytes. It refuses what Sign refuses.
func ToBeSigned(envelope []byte, id Identity) ([]byte, error) {
	_, a, _, err := readUsable(envelope)
	if err != nil {
		return nil, err
	}
	protected, _, err := id.header()
	if err != nil {
		return nil, err
	}
	if len(a.signatures) == maxSignatures {
		return nil, unsupported("more than %d signatures", maxSignatures)
	}
	for _, s := range a.signatures {
		if _, _, err := s.verify(a.rawDigest, VerifyKeys{{KID: s.kid, Public: id.Public}}, time.Time{}); err == nil {
			return nil, errors.New("the envelope is signed by this key already")
		}
	}
	return toBeSigned(protected, a.rawDigest), nil
}

// Hashed is the digest of what ToBeSigned returned that an ECDSA key signs; for an Ed25519 key there is none.
func Hashed(message []byte, public crypto.PublicKey) ([]byte, error) {
	alg, err := algorithmFor(public)
	if err == nil && alg.hash == 0 {
		err = errors.New("Ed25519 signs the bytes and not a digest of them")
	}
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return alg.digest(message), nil
}

// Attach returns the envelope with a signature that was made elsewhere over what ToBeSigned returned for the same arguments. An ECDSA signature may be in the form of COSE, r and s one
// after the other, or in ASN.1. It is verified.
func Attach(envelope []byte, id Identity, sig []byte) ([]byte, error) {
	message, err := ToBeSigned(envelope, id)
	if err != nil {
		return nil, err
	}
	protected, alg, err := id.header()
	if err != nil {
		return nil, err
	}
	if alg.curve != nil && len(sig) != 2*alg.size() {
		if sig, err = alg.raw(sig); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSignature, err)
		}
	}
	if !alg.verify(id.Public, message, sig) {
		return nil, fmt.Errorf("%w: it is not by this key, or over something else", ErrSignature)
	}
	f, a, _, err := readUsable(envelope)
	if err != nil {
		return nil, err
	}
	a.blocks = append(a.blocks, signBlock(protected, sig))
	f.authentication = a.encode()
	signed := appendEnvelope(nil, f)
	if _, _, _, err := readUnverified(signed); err != nil {
		return nil, err
	}
	return signed, nil
}

// protected is the content of the protected header for an identity.
func (a algorithm) protected(id Identity) []byte {
	named := len(id.KID) > 0 || len(id.Chain) > 0
	fields := uint64(1)
	if named {
		fields = 2
	}
	b := appendHead(nil, majorMap, fields)
	b = appendInt(b, headerAlg)
	b = appendInt(b, a.id)
	switch {
	case len(id.Chain) > 0:
		b = appendChain(appendInt(b, headerX5Chain), id.Chain)
	case named:
		b = appendBytes(appendInt(b, headerKID), id.KID)
	}
	return b
}

// signBlock is a COSE_Sign1 without payload.
func signBlock(protected, sig []byte) []byte {
	b := appendHead(nil, majorTag, tagSign1)
	b = appendHead(b, majorArray, 4)
	b = appendBytes(b, protected)
	b = appendHead(b, majorMap, 0)
	b = appendHead(b, majorSimple, simpleNull)
	return appendBytes(b, sig)
}
