package suit

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
)

// headerX5Chain is the label of x5chain (RFC 9360, section 2).
const headerX5Chain = 33

// Bounds of the certificates of a signature, and of those of all signatures together (maxChain). They are read before anything is authentic.
const (
	maxCertificates = 4
	maxCertificate  = 4096
	maxChain        = 12 << 10
	maxRSA          = 4096 // bits: a key that fills a certificate costs a small machine seconds for each signature
	maxText         = 256  // of what a certificate makes us say
)

const blockCertificate = "CERTIFICATE"

// LoadChain reads the certificates of a signer from a PEM file: that of the key first, then that of the authority which issued it, and so on. That of the trust anchor need not be there.
func LoadChain(path string) ([]*x509.Certificate, error) {
	chain, err := loadFile(path, ReadChain)
	if err != nil {
		return nil, fmt.Errorf("certificates %s: %w", path, err)
	}
	return chain, nil
}

// ReadChain is LoadChain for a reader.
func ReadChain(r io.Reader) ([]*x509.Certificate, error) {
	blocks, err := readPEM(r)
	if err != nil {
		return nil, err
	}
	if len(blocks) > maxCertificates {
		return nil, fmt.Errorf("%d PEM blocks, want %d at most", len(blocks), maxCertificates)
	}
	var chain []*x509.Certificate
	for _, b := range blocks {
		if b.Type != blockCertificate {
			return nil, fmt.Errorf("PEM block %q, want %q", b.Type, blockCertificate)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// parseAuthority reads the certificate of a trust anchor.
func parseAuthority(b *pem.Block) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, err
	}
	return c, checkAuthority(c)
}

// checkAuthority refuses what is no certificate authority: the certificate of a signer as trust anchor would end with it, where its key alone does not.
func checkAuthority(c *x509.Certificate) error {
	switch {
	case c.Version != 3:
		return fmt.Errorf("certificate of X.509 version %d, want 3: %s", c.Version, subject(c))
	case !c.BasicConstraintsValid || !c.IsCA:
		return fmt.Errorf("certificate is not that of a certificate authority: %s", subject(c))
	case !mayUse(c, x509.KeyUsageCertSign):
		return fmt.Errorf("certificate authority may not sign certificates (key usage): %s", subject(c))
	}
	return nil
}

// checkSigner refuses a certificate that is not for signing, whoever issued it.
func checkSigner(c *x509.Certificate) error {
	switch {
	case c.IsCA:
		return fmt.Errorf("certificate is that of a certificate authority, not of a signer: %s", subject(c))
	case !mayUse(c, x509.KeyUsageDigitalSignature):
		return fmt.Errorf("certificate is not for signing (key usage without digitalSignature): %s", subject(c))
	}
	return nil
}

// mayUse tells whether the key usage extension, if there is one, allows a usage. crypto/x509 has 0 both for none and for one that allows nothing.
func mayUse(c *x509.Certificate, usage x509.KeyUsage) bool {
	id := asn1.ObjectIdentifier{2, 5, 29, 15}
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			return c.KeyUsage&usage != 0
		}
	}
	return true
}

// readChain reads the value of x5chain. That of a signature by an algorithm that the profile does not have is skipped, as the signature is.
func (s *sign1) readChain(r *reader) error {
	s.chained = true
	if s.alg.name == "" {
		return r.certificates(0, MaxHeader, func([]byte) error { return nil })
	}
	return r.certificates(2, maxCertificates, func(der []byte) error {
		if s.size += len(der); len(der) > maxCertificate || s.size > maxChain {
			return malformed("certificate of %d bytes, %d with those before it: more than %d, or %d in all", len(der), s.size, maxCertificate, maxChain)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return malformed("certificate: %s", printable(err.Error()))
		}
		if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSA {
			return unsupported("certificate with an RSA key of %d bits, more than %d", k.N.BitLen(), maxRSA)
		}
		s.chain = append(s.chain, c)
		return nil
	})
}

// certificates reads a COSE_X509: one byte string, or an array of lo to hi.
func (r *reader) certificates(lo, hi uint64, each func(der []byte) error) (err error) {
	n := 1
	if r.peek() == majorArray {
		if n, err = r.array("certificate chain", lo, hi); err != nil {
			return err
		}
	}
	for range n {
		der, err := r.bytes("certificate")
		if err != nil {
			return err
		}
		if err := each(der); err != nil {
			return err
		}
	}
	return nil
}

func appendChain(b []byte, chain []*x509.Certificate) []byte {
	if len(chain) > 1 {
		b = appendHead(b, majorArray, uint64(len(chain)))
	}
	for _, c := range chain {
		b = appendBytes(b, c.Raw)
	}
	return b
}

// verifyChain verifies a signature that came with certificates, and returns that of the signer. It returns none if the signer's key is itself a trust anchor: then nobody has to vouch
// for it, and what its certificates say does not matter.
func (s *sign1) verifyChain(message []byte, keys VerifyKeys, at time.Time) (signer *x509.Certificate, err error) {
	leaf := s.chain[0]
	if !s.alg.uses(leaf.PublicKey) {
		return nil, fmt.Errorf("%w: the key of the certificate does not have the type for %s: %s", ErrSignature, s.alg.name, subject(leaf))
	}
	if !slices.ContainsFunc(keys, func(k VerifyKey) bool {
		return k.CA == nil && s.alg.uses(k.Public) && sameKey(leaf.PublicKey, k.Public)
	}) {
		if err := verifyCertificates(s.chain, keys, at); err != nil {
			return nil, &signatureError{errors.Join(ErrCertificate, err), err.Error()}
		}
		signer = leaf
	}
	if !s.alg.verify(leaf.PublicKey, message, s.signature) {
		return nil, fmt.Errorf("%w: not made with the key of the certificate, or the content was changed: %s", ErrSignature, subject(leaf))
	}
	return signer, nil
}

func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// verifyCertificates verifies that one of the certificate authorities vouches, at that time, for the first certificate as one that signs code.
func verifyCertificates(chain []*x509.Certificate, keys VerifyKeys, at time.Time) error {
	if at.IsZero() { // crypto/x509 would look at the clock
		return errors.New("certificates cannot be verified without a time")
	}
	if err := checkSigner(chain[0]); err != nil {
		return err
	}
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	for _, k := range keys {
		if k.CA != nil && checkAuthority(k.CA) == nil {
			roots.AddCert(k.CA)
		}
	}
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}})
	if err != nil {
		return explain(err, subject(chain[0]), at)
	}
	return nil
}

// explain says why crypto/x509 did not take the certificate of a signer.
func explain(err error, signer string, at time.Time) error {
	if invalid := (x509.CertificateInvalidError{}); errors.As(err, &invalid) {
		if late := inTime(invalid.Cert, at); late != nil && invalid.Reason == x509.Expired {
			return late
		}
		if invalid.Reason == x509.IncompatibleUsage {
			return fmt.Errorf("certificate is not for signing code (extended key usage): %s", signer)
		}
	}
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		return fmt.Errorf("by no certificate authority that is trusted: %s: %s", signer, printable(err.Error()))
	}
	return fmt.Errorf("certificate is not valid: %s: %s", signer, printable(err.Error()))
}

// String describes a trust anchor for people.
func (k VerifyKey) String() string {
	if k.CA == nil {
		return fmt.Sprintf("key %x", k.KID)
	}
	return fmt.Sprintf("authority %s, valid from %s to %s", subject(k.CA), k.CA.NotBefore.UTC().Format(time.DateOnly), k.CA.NotAfter.UTC().Format(time.DateOnly))
}

// Valid returns an error if a trust anchor vouches for nobody at a time, as far as its dates go.
func (k VerifyKey) Valid(at time.Time) error {
	if k.CA == nil {
		return nil
	}
	return inTime(k.CA, at)
}

// inTime returns nil if a certificate is valid at a time, as far as its dates go.
func inTime(c *x509.Certificate, at time.Time) error {
	const layout = time.RFC3339
	switch {
	case at.Before(c.NotBefore):
		return fmt.Errorf("certificate not yet valid, but from %s (the time is taken to be %s): %s", c.NotBefore.UTC().Format(layout), at.UTC().Format(layout), subject(c))
	case at.After(c.NotAfter):
		return fmt.Errorf("certificate expired on %s (the time is taken to be %s): %s", c.NotAfter.UTC().Format(layout), at.UTC().Format(layout), subject(c))
	}
	return nil
}

// NotBefore is the begin of validity of the certificate of whoever made the signature that Open took, and so a time that has come; zero if that was a key that is a trust anchor itself.
func (m *Manifest) NotBefore() time.Time { return m.notBefore }

// signer is the subject of the certificate that came with the signature, empty without one.
func (s *sign1) signer() string {
	if len(s.chain) == 0 {
		return ""
	}
	return subject(s.chain[0])
}

// by names who made the signature: the subject of the certificate that came with it, or the
// identifier of the key.
func (s *sign1) by() string {
	switch {
	case len(s.chain) > 0:
		return subject(s.chain[0])
	case len(s.kid) > 0:
		return fmt.Sprintf("key %x", s.kid)
	}
	return "a key that the signature does not name"
}

// subject is the subject of a certificate (RFC 2253), for people.
func subject(c *x509.Certificate) string {
	if name := printable(c.Subject.String()); name != "" {
		return name
	}
	return "no name"
}

// printable makes of a text by others one that can stand in a terminal and a log: a certificate may have line breaks and escapes in its names.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s[:min(len(s), 4*maxText+4)]); len(r) > maxText { // 4 bytes a rune at most
		return string(r[:maxText]) + "…"
	}
	return s
}
