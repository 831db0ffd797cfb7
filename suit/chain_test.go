package suit

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
)

// The certificates of the tests are valid from 2030 to 2040, those of authorities from 2020 to 2060.
func year(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }

// party is someone with a key and a certificate for it.
type party struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// keyOf is the Ed25519 key of someone, the same in every run: then its signatures are too, and so the certificates.
func keyOf(name string) crypto.Signer {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// issue makes a certificate for a key. A party without certificate issues its own.
func (p party) issue(t testing.TB, key crypto.Signer, c x509.Certificate) party {
	t.Helper()
	c.SerialNumber = big.NewInt(1)
	parent := p.cert
	if parent == nil {
		parent = &c
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, parent, key.Public(), p.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return party{key, cert}
}

func authorityTemplate(name string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: year(2020), NotAfter: year(2060), BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign}
}

func signerTemplate(name string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: year(2030), NotAfter: year(2040), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}
}

// authority makes a certificate authority that is one by its own word.
func authority(t testing.TB, name string, change ...func(*x509.Certificate)) party {
	t.Helper()
	return party{key: keyOf(name)}.issue(t, keyOf(name), changed(authorityTemplate(name), change))
}

// authority makes one below p.
func (p party) authority(t testing.TB, name string, change ...func(*x509.Certificate)) party {
	t.Helper()
	return p.issue(t, keyOf(name), changed(authorityTemplate(name), change))
}

// signer makes a signer with a certificate by p.
func (p party) signer(t testing.TB, change ...func(*x509.Certificate)) party {
	t.Helper()
	return p.issue(t, keyOf("signer"), changed(signerTemplate("signer"), change))
}

func changed(c x509.Certificate, change []func(*x509.Certificate)) x509.Certificate {
	for _, f := range change {
		f(&c)
	}
	return c
}

func trust(parties ...party) (keys VerifyKeys) {
	for _, p := range parties {
		keys = append(keys, VerifyKey{CA: p.cert})
	}
	return keys
}

func chainOf(parties ...party) (chain []*x509.Certificate) {
	for _, p := range parties {
		chain = append(chain, p.cert)
	}
	return chain
}

// x5chain is the value of the header.
func x5chain(parties ...party) any {
	if len(parties) == 1 {
		return parties[0].cert.Raw
	}
	var all a
	for _, p := range parties {
		all = append(all, p.cert.Raw)
	}
	return all
}

// withHeaders makes an envelope that key has signed with these headers, whatever they are.
func withHeaders(t testing.TB, protected, unprotected any, key crypto.Signer) []byte {
	t.Helper()
	f, err := whole(mustCreate(t, small()))
	if err != nil {
		t.Fatal(err)
	}
	digest, p := encode(t, a{-16, manifestDigest(crypto.SHA256, f.manifest).Sum}), encode(t, protected)
	sig := make([]byte, 64)
	if _, err := algorithmFor(key.Public()); err == nil {
		sig = signMessage(t, key, encode(t, a{"Signature1", p, []byte{}, digest}))
	}
	block := encode(t, cbor.Tag{Number: 18, Content: a{p, unprotected, nil, sig}})
	f.authentication = encode(t, a{digest, block})
	return appendEnvelope(nil, f)
}

// chained makes one with a chain in the protected header, as Sign does for chains that it takes.
func chained(t testing.TB, parties ...party) []byte {
	t.Helper()
	return withHeaders(t, m{1: -8, 33: x5chain(parties...)}, m{}, parties[0].key)
}

func TestChains(t *testing.T) {
	root := authority(t, "root")
	above := authority(t, "root", func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	middle, lower := root.authority(t, "middle"), root.authority(t, "middle").authority(t, "lower")
	signer := root.signer(t)
	usage := func(u x509.KeyUsage) func(*x509.Certificate) { return func(c *x509.Certificate) { c.KeyUsage = u } }
	purpose := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	until := func(y int) func(*x509.Certificate) { return func(c *x509.Certificate) { c.NotAfter = year(y) } }
	critical := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}}}
	}
	noUsage := func(c *x509.Certificate) {
		c.KeyUsage, c.ExtraExtensions = 0, []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 1, 0}}}
	}
	notAuthority := func(c *x509.Certificate) { c.IsCA = false }
	self := party{key: keyOf("signer")}.signer(t)
	expired := authority(t, "root", until(2034))
	for name, c := range map[string]struct {
		chain []party
		keys  VerifyKeys
		at    time.Time
		text  string // empty: it is authentic
	}{
		"a signer":                                      {[]party{signer}, trust(root), year(2035), ""},
		"one below another authority":                   {[]party{middle.signer(t), middle}, trust(root), year(2035), ""},
		"one below two authorities":                     {[]party{lower.signer(t), lower, middle}, trust(root), year(2035), ""},
		"the authorities in another order":              {[]party{lower.signer(t), middle, lower}, trust(root), year(2035), ""},
		"the trust anchor is there too":                 {[]party{lower.signer(t), lower, middle, root}, trust(root), year(2035), ""},
		"a lower authority is the trust anchor":         {[]party{lower.signer(t), lower}, trust(lower), year(2035), ""},
		"several authorities are trusted":               {[]party{signer}, trust(authority(t, "other"), root), year(2035), ""},
		"two authorities of the same name":              {[]party{signer}, trust(party{key: keyOf("x")}.issue(t, keyOf("x"), authorityTemplate("root")), root), year(2035), ""},
		"a key beside the authority":                    {[]party{signer}, append(anchors(t, edKey()), trust(root)...), year(2035), ""},
		"the first moment":                              {[]party{signer}, trust(root), year(2030), ""},
		"the last moment":                               {[]party{signer}, trust(root), year(2040), ""},
		"a moment too early":                            {[]party{signer}, trust(root), year(2030).Add(-1), "certificate not yet valid, but from 2030-01-01T00:00:00Z (the time is taken to be 2029-12-31T23:59:59Z): CN=signer"},
		"a moment too late":                             {[]party{signer}, trust(root), year(2040).Add(1), "certificate expired on 2040-01-01T00:00:00Z (the time is taken to be 2040-01-01T00:00:00Z): CN=signer"},
		"a clock that was not set":                      {[]party{signer}, trust(root), time.Unix(0, 0), "not yet valid, but from 2030-01-01T00:00:00Z (the time is taken to be 1970-01-01T00:00:00Z)"},
		"no time":                                       {[]party{signer}, trust(root), time.Time{}, "without a time"},
		"the authority expired":                         {[]party{expired.signer(t)}, trust(expired), year(2035), "certificate expired on 2034-01-01T00:00:00Z (the time is taken to be 2035-01-01T00:00:00Z): CN=root"},
		"an authority between expired":                  {[]party{root.authority(t, "m", until(2034)).signer(t), root.authority(t, "m", until(2034))}, trust(root), year(2035), "certificate expired on 2034-01-01T00:00:00Z (the time is taken to be 2035-01-01T00:00:00Z): CN=m"},
		"an expired one that has nothing to do with it": {[]party{signer, root.authority(t, "m", until(2034))}, trust(root), year(2035), ""},
		"another authority":                             {[]party{signer}, trust(authority(t, "other")), year(2035), "by no certificate authority that is trusted: CN=signer"},
		"another authority that expired":                {[]party{signer}, trust(authority(t, "other", until(2034))), year(2035), "by no certificate authority that is trusted"},
		"another authority of the same name":            {[]party{signer}, trust(party{key: keyOf("x")}.issue(t, keyOf("x"), authorityTemplate("root"))), year(2035), "by no certificate authority that is trusted"},
		"another authority that sends itself along":     {[]party{authority(t, "other").signer(t), authority(t, "other")}, trust(root), year(2035), "by no certificate authority that is trusted"},
		"a certificate of its own":                      {[]party{self}, trust(root), year(2035), "by no certificate authority that is trusted"},
		"an authority between is missing":               {[]party{lower.signer(t), lower}, trust(root), year(2035), "by no certificate authority that is trusted"},
		"no authority is trusted":                       {[]party{signer}, anchors(t, edKey()), year(2035), "by no certificate authority that is trusted"},
		"nothing is trusted":                            {[]party{signer}, nil, year(2035), "by no certificate authority that is trusted"},
		"a signer as trust anchor":                      {[]party{signer}, trust(signer), year(2035), "by no certificate authority that is trusted"},
		"a signer vouches for another":                  {[]party{{keyOf("x"), signer.issue(t, keyOf("x"), signerTemplate("x")).cert}, signer}, trust(root), year(2035), "by no certificate authority that is trusted"},
		"an authority between is none":                  {[]party{root.authority(t, "m", notAuthority).signer(t), root.authority(t, "m", notAuthority)}, trust(root), year(2035), "by no certificate authority that is trusted"},
		"an authority between may not sign":             {[]party{root.authority(t, "m", usage(x509.KeyUsageCRLSign)).signer(t), root.authority(t, "m", usage(x509.KeyUsageCRLSign))}, trust(root), year(2035), "by no certificate authority that is trusted"},
		"no authority below this one":                   {[]party{above.authority(t, "m").signer(t), above.authority(t, "m")}, trust(above), year(2035), "too many intermediates"},
		"a signer below one that has none below":        {[]party{above.signer(t)}, trust(above), year(2035), ""},
		"an authority signs":                            {[]party{middle}, trust(root), year(2035), "certificate is that of a certificate authority, not of a signer: CN=middle"},
		"the trust anchor signs":                        {[]party{root}, trust(root), year(2035), "certificate is that of a certificate authority"},
		"for servers only":                              {[]party{root.signer(t, purpose(x509.ExtKeyUsageServerAuth))}, trust(root), year(2035), "certificate is not for signing code (extended key usage): CN=signer"},
		"for servers and code":                          {[]party{root.signer(t, purpose(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageCodeSigning))}, trust(root), year(2035), ""},
		"for no particular purpose":                     {[]party{root.signer(t, purpose())}, trust(root), year(2035), ""},
		"for any purpose":                               {[]party{root.signer(t, purpose(x509.ExtKeyUsageAny))}, trust(root), year(2035), ""},
		"by an authority for servers":                   {[]party{root.authority(t, "m", purpose(x509.ExtKeyUsageServerAuth)).signer(t), root.authority(t, "m", purpose(x509.ExtKeyUsageServerAuth))}, trust(root), year(2035), "not for signing code"},
		"without key usage":                             {[]party{root.signer(t, usage(0))}, trust(root), year(2035), ""},
		"with a key usage that allows nothing":          {[]party{root.signer(t, noUsage)}, trust(root), year(2035), "key usage without digitalSignature"},
		"for key agreement":                             {[]party{root.signer(t, usage(x509.KeyUsageKeyAgreement))}, trust(root), year(2035), "certificate is not for signing (key usage without digitalSignature): CN=signer"},
		"for signatures and key agreement":              {[]party{root.signer(t, usage(x509.KeyUsageKeyAgreement|x509.KeyUsageDigitalSignature))}, trust(root), year(2035), ""},
		"a critical extension":                          {[]party{root.signer(t, critical)}, trust(root), year(2035), "certificate is not valid: CN=signer: x509: unhandled critical extension"},
		"a critical extension of an authority":          {[]party{root.authority(t, "m", critical).signer(t), root.authority(t, "m", critical)}, trust(root), year(2035), "unhandled critical extension"},
		"key of another than the signer":                {[]party{{keyOf("x"), signer.cert}}, trust(root), year(2035), "not made with the key of the certificate, or the content was changed: CN=signer"},
		"a trusted key with the certificate of another": {[]party{{edKey(), signer.cert}}, append(anchors(t, edKey()), trust(root)...), year(2035), "not made with the key of the certificate"},
		"the key is trusted, its certificate is not":    {[]party{self}, anchors(t, keyOf("signer")), year(2035), ""},
		"the key is trusted, its certificate expired":   {[]party{signer}, append(trust(root), anchors(t, keyOf("signer"))...), year(2045), ""},
		"the key is trusted, there is no time":          {[]party{signer}, anchors(t, keyOf("signer")), time.Time{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Open(chained(t, c.chain...), c.keys, c.at)
			if c.text != "" {
				if !errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), c.text) {
					t.Errorf("got %v, want %q", err, c.text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := year(2030)
			if strings.HasPrefix(name, "the key is trusted") {
				want = time.Time{}
			}
			if !got.NotBefore().Equal(want) {
				t.Errorf("signed not before %v, want %v", got.NotBefore(), want)
			}
		})
	}
}

// TestHeadersWithAChain: what is said of the chain, before it is verified.
func TestHeadersWithAChain(t *testing.T) {
	root := authority(t, "root")
	signer := root.signer(t)
	raw := signer.cert.Raw
	padded := func(n int) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: make([]byte, n)}}
		}
	}
	// sized makes a signer's certificate of exactly so many bytes.
	sized := func(n int) party {
		rest := len(root.signer(t, padded(n-1000)).cert.Raw) - (n - 1000)
		return root.signer(t, padded(n-rest))
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	byRSA := root.issue(t, rsaKey, signerTemplate("signer"))
	huge := root.issue(t, publicKey{&rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 4096, 1), E: 65537}}, authorityTemplate("huge"))
	none := m{}
	for name, c := range map[string]struct {
		protected, unprotected m
		key                    crypto.Signer
		want                   error
		text                   string
	}{
		"protected":                      {m{1: -8, 33: raw}, none, signer.key, nil, ""},
		"not protected":                  {m{1: -8}, m{33: raw}, signer.key, nil, ""},
		"Ed25519 by its other number":    {m{1: -19, 33: raw}, none, signer.key, nil, ""},
		"beside a key identifier":        {m{1: -8, 4: []byte("x"), 33: raw}, none, signer.key, nil, ""},
		"in both headers":                {m{1: -8, 33: raw}, m{33: raw}, signer.key, ErrUnsupported, "COSE header parameter 33 in the unprotected header"},
		"array of none":                  {m{1: -8, 33: a{}}, none, signer.key, ErrMalformed, "certificate chain has 0 elements, want 2 to 4"},
		"array of one":                   {m{1: -8, 33: a{raw}}, none, signer.key, ErrMalformed, "certificate chain has 1 elements, want 2 to 4"},
		"four":                           {m{1: -8, 33: a{raw, raw, raw, raw}}, none, signer.key, nil, ""},
		"five":                           {m{1: -8, 33: a{raw, raw, raw, raw, raw}}, none, signer.key, ErrMalformed, "certificate chain has 5 elements, want 2 to 4"},
		"the largest":                    {m{1: -8, 33: sized(4096).cert.Raw}, none, signer.key, nil, ""},
		"one that is too large":          {m{1: -8, 33: sized(4097).cert.Raw}, none, signer.key, ErrMalformed, "certificate of 4097 bytes"},
		"the second is too large":        {m{1: -8, 33: a{raw, sized(4097).cert.Raw}}, none, signer.key, ErrMalformed, "certificate of 4097 bytes"},
		"the largest in all":             {m{1: -8, 33: x5chain(sized(4096), sized(4096), sized(4096))}, none, signer.key, nil, ""},
		"too large in all":               {m{1: -8, 33: x5chain(sized(3500), sized(3500), sized(3500), sized(3500))}, none, signer.key, ErrMalformed, "14000 with those before it"},
		"something behind":               {m{1: -8, 33: append(bytes.Clone(raw), 0)}, none, signer.key, ErrMalformed, "certificate: x509: trailing data"},
		"cut off":                        {m{1: -8, 33: raw[:len(raw)-1]}, none, signer.key, ErrMalformed, "certificate: x509: malformed certificate"},
		"empty":                          {m{1: -8, 33: []byte{}}, none, signer.key, ErrMalformed, "certificate: x509"},
		"a text":                         {m{1: -8, 33: "CN=signer"}, none, signer.key, ErrMalformed, "certificate is a text, not a byte string"},
		"an array of arrays":             {m{1: -8, 33: a{a{raw}, a{raw}}}, none, signer.key, ErrMalformed, "certificate is an array"},
		"a bag":                          {m{1: -8, 32: raw}, none, signer.key, ErrUnsupported, "COSE header parameter 32"},
		"a digest instead":               {m{1: -8, 34: a{-16, make([]byte, 32)}}, none, signer.key, ErrUnsupported, "COSE header parameter 34"},
		"an address instead":             {m{1: -8, 35: "https://example.com"}, none, signer.key, ErrUnsupported, "COSE header parameter 35"},
		"critical":                       {m{1: -8, 2: a{33}, 33: raw}, none, signer.key, ErrUnsupported, "critical"},
		"before the algorithm is known":  {none, m{1: -8, 33: raw}, signer.key, ErrMalformed, "names no algorithm"},
		"no algorithm":                   {m{33: raw}, none, signer.key, ErrMalformed, "names no algorithm"},
		"key of another algorithm":       {m{1: -7, 33: raw}, none, signer.key, ErrSignature, "the key of the certificate does not have the type for ES256: CN=signer"},
		"an RSA key":                     {m{1: -8, 33: byRSA.cert.Raw}, none, rsaKey, ErrSignature, "the key of the certificate does not have the type for EdDSA"},
		"an authority with a huge key":   {m{1: -8, 33: x5chain(signer, huge)}, none, signer.key, ErrUnsupported, "certificate with an RSA key of 4097 bits"},
		"an algorithm for RSA":           {m{1: -37, 33: byRSA.cert.Raw}, none, rsaKey, ErrUnsupported, "signature algorithm -37"},
		"without a chain":                {m{1: -8}, none, root.key, ErrSignature, "no trust anchor of 1 has the type for EdDSA"},
		"without a chain, by identifier": {m{1: -8, 4: []byte{}}, none, root.key, ErrSignature, "no trust anchor of 1 has"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(withHeaders(t, c.protected, c.unprotected, c.key), trust(root), year(2035))
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}

// publicKey is a key that only gets a certificate.
type publicKey struct{ public crypto.PublicKey }

func (k publicKey) Public() crypto.PublicKey { return k.public }
func (k publicKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("no private key")
}

// TestChainIsEncodedInOneWay: a chain of indefinite length, and one whose lengths are longer than needed.
func TestChainIsEncodedInOneWay(t *testing.T) {
	root := authority(t, "root")
	raw := root.signer(t).cert.Raw
	good := appendBytes(appendBytes([]byte{0x82}, raw), root.cert.Raw)
	for name, c := range map[string]struct {
		value []byte
		ok    bool
	}{
		"as it is":                    {good, true},
		"array of indefinite length":  {append(append([]byte{0x9f}, good[1:]...), 0xff), false},
		"string of indefinite length": {append(append([]byte{0x5f}, appendBytes(nil, raw)...), 0xff), false},
		"length of the array":         {append([]byte{0x98, 2}, good[1:]...), false},
		"length of the string":        {append([]byte{0x5a, 0, 0, byte(len(raw) >> 8), byte(len(raw))}, raw...), false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(withValue(t, c.value, keyOf("signer"), true), trust(root), year(2035))
			if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrMalformed) {
				t.Error(err)
			}
		})
	}
}

// withValue makes an envelope with any bytes as the value of x5chain.
func withValue(t testing.TB, value []byte, key crypto.Signer, protected bool) []byte {
	t.Helper()
	f, err := whole(mustCreate(t, small()))
	if err != nil {
		t.Fatal(err)
	}
	header, other := append([]byte{0xa2, 1, 0x27, 0x18, 33}, value...), []byte{0xa0}
	if !protected {
		header, other = encode(t, m{1: -8}), append([]byte{0xa1, 0x18, 33}, value...)
	}
	digest := encode(t, a{-16, manifestDigest(crypto.SHA256, f.manifest).Sum})
	block := append(appendBytes([]byte{0xd2, 0x84}, header), other...)
	block = appendBytes(append(block, 0xf6), signMessage(t, key, encode(t, a{"Signature1", header, []byte{}, digest})))
	f.authentication = encode(t, a{digest, block})
	return appendEnvelope(nil, f)
}

// TestSigningWithAChain: keys of every type below authorities of every type.
func TestSigningWithAChain(t *testing.T) {
	roots := signers(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	roots["rsa"] = rsaKey
	for above, rootKey := range roots {
		root := party{key: rootKey}.issue(t, rootKey, authorityTemplate("root"))
		middle := root.authority(t, "middle")
		for name, key := range signers(t) {
			t.Run(name+" below "+above, func(t *testing.T) {
				signer := middle.issue(t, key, signerTemplate("signer"))
				id := Identity{Public: key.Public(), KID: []byte("not written"), Chain: chainOf(signer, middle)}
				envelope := mustCreate(t, full())
				signed, err := Sign(envelope, key, id)
				if err != nil {
					t.Fatal(err)
				}
				opened, err := Open(signed, trust(root), year(2035))
				if err != nil || !opened.NotBefore().Equal(year(2030)) {
					t.Errorf("signed not before %v, %v", opened.NotBefore(), err)
				}
				message, err := ToBeSigned(envelope, id)
				if err != nil {
					t.Fatal(err)
				}
				attached, err := Attach(envelope, id, signMessage(t, key, message))
				if err != nil || !bytes.Equal(attached, signed) {
					t.Errorf("attached: %v", err)
				}
				d, err := Describe(signed)
				want := []SignatureDescription{{Algorithm: d.Signatures[0].Algorithm, Signer: "CN=signer"}}
				if diff := cmp.Diff(want, d.Signatures); err != nil || diff != "" {
					t.Error(err, diff)
				}
				if !strings.Contains(d.String(), ", key of CN=signer (not verified)") {
					t.Error(d)
				}
				if _, err := Sign(signed, key, id); err == nil || !strings.Contains(err.Error(), "signed by this key already") {
					t.Errorf("signed twice: %v", err)
				}
			})
		}
	}
}

func TestChainsThatAreNotSignedWith(t *testing.T) {
	root := authority(t, "root")
	signer := root.signer(t)
	large := root.signer(t, func(c *x509.Certificate) { c.DNSNames = []string{strings.Repeat("a", 5000)} })
	for name, c := range map[string]struct {
		key   crypto.Signer
		chain []party
		text  string
	}{
		"as it should be":         {signer.key, []party{signer, root}, ""},
		"key of another":          {edKey(), []party{signer}, "first certificate is for another key: CN=signer"},
		"key of another type":     {ecKey(t), []party{signer}, "first certificate is for another key: CN=signer"},
		"authority first":         {signer.key, []party{root, signer}, "first certificate is for another key: CN=root"},
		"an authority":            {root.key, []party{root}, "certificate is that of a certificate authority, not of a signer: CN=root"},
		"not for signing":         {signer.key, []party{root.signer(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })}, "certificate is not for signing"},
		"five certificates":       {signer.key, []party{signer, root, root, root, root}, "certificate chain has 5 elements"},
		"a certificate too large": {signer.key, []party{large}, "more than 4096"},
	} {
		t.Run(name, func(t *testing.T) {
			id := Identity{Public: c.key.Public(), Chain: chainOf(c.chain...)}
			_, err := Sign(mustCreate(t, small()), c.key, id)
			_, digestErr := ToBeSigned(mustCreate(t, small()), id)
			for _, err := range []error{err, digestErr} {
				if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
					t.Errorf("got %v, want %q", err, c.text)
				}
			}
		})
	}
}

// TestEveryFlippedBitOfAChainIsFound: of the certificates as of what is signed, wherever they stand.
func TestEveryFlippedBitOfAChainIsFound(t *testing.T) {
	root := authority(t, "root")
	middle := root.authority(t, "middle")
	signer := middle.signer(t)
	for name, envelope := range map[string][]byte{
		"protected":     chained(t, signer, middle),
		"not protected": withHeaders(t, m{1: -8}, m{33: x5chain(signer, middle)}, signer.key),
	} {
		t.Run(name, func(t *testing.T) {
			step := 1
			if testing.Short() {
				step = 11 // which meets each bit of a byte
			}
			for i := 0; i < len(envelope)*8; i += step {
				flipped := bytes.Clone(envelope)
				flipped[i/8] ^= 1 << (i % 8)
				if _, err := Open(flipped, trust(root), year(2035)); err == nil || !decided(err) {
					t.Fatalf("bit %d of byte %d: %v", i%8, i/8, err)
				}
			}
		})
	}
}

// TestChainOfAnUnknownAlgorithmBeside: it may be larger than any that counts, and is of no account as the signature is.
func TestChainOfAnUnknownAlgorithmBeside(t *testing.T) {
	root := authority(t, "root")
	large := make([]byte, 7<<10)
	for name, value := range map[string]any{"one": large, "several": a{large, large, large, []byte{}, []byte{}}, "array of one": a{large}} {
		t.Run(name, func(t *testing.T) {
			f, err := whole(chained(t, root.signer(t)))
			if err != nil {
				t.Fatal(err)
			}
			auth, err := readAuthentication(f.authentication)
			if err != nil {
				t.Fatal(err)
			}
			for _, future := range [][]byte{
				encode(t, cbor.Tag{Number: 18, Content: a{encode(t, m{1: -48, 33: value}), m{}, nil, make([]byte, 2420)}}), // ML-DSA-44
				encode(t, cbor.Tag{Number: 18, Content: a{encode(t, m{1: -48}), m{33: value}, nil, make([]byte, 2420)}}),
			} {
				f.authentication = encode(t, a{auth.rawDigest, future, auth.blocks[0]})
				if _, err := Open(appendEnvelope(nil, f), trust(root), year(2035)); err != nil {
					t.Error(err)
				}
				f.authentication = encode(t, a{auth.rawDigest, future})
				if _, err := Open(appendEnvelope(nil, f), trust(root), year(2035)); !errors.Is(err, ErrUnsupported) {
					t.Errorf("alone: %v", err)
				}
			}
		})
	}
}

// TestSeveralSignersWithChains: one that is valid is enough, and it is the one whose time counts.
func TestSeveralSignersWithChains(t *testing.T) {
	root := authority(t, "root")
	old := root.issue(t, keyOf("old"), changed(signerTemplate("old"), []func(*x509.Certificate){func(c *x509.Certificate) { c.NotBefore, c.NotAfter = year(2021), year(2022) }}))
	signed, err := Sign(mustCreate(t, small()), old.key, Identity{Chain: chainOf(old)})
	if err != nil {
		t.Fatal(err)
	}
	if signed, err = Sign(signed, keyOf("signer"), Identity{Chain: chainOf(root.signer(t))}); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]int{2021: 2021, 2031: 2030} {
		if got, err := Open(signed, trust(root), year(at)); err != nil || !got.NotBefore().Equal(year(want)) {
			t.Errorf("in %d: not before %v, %v", at, got.NotBefore(), err)
		}
	}
	if _, err := Open(signed, trust(root), year(2025)); err == nil || !strings.Contains(err.Error(), "not yet valid") || !strings.Contains(err.Error(), "expired on") {
		t.Errorf("both reasons: %v", err)
	}
}

func pemCertificates(parties ...party) (b []byte) {
	for _, p := range parties {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})...)
	}
	return b
}

func TestFilesOfAuthorities(t *testing.T) {
	root := authority(t, "root")
	_, ed := pemOf(t, edKey())
	usage := func(u x509.KeyUsage) func(*x509.Certificate) { return func(c *x509.Certificate) { c.KeyUsage = u } }
	plain := func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = false, false }
	for name, c := range map[string]struct {
		file []byte
		want VerifyKeys
		text string
	}{
		"an authority":                      {pemCertificates(root), trust(root), ""},
		"an authority below another":        {pemCertificates(root.authority(t, "middle")), trust(root.authority(t, "middle")), ""},
		"an authority without key usage":    {pemCertificates(authority(t, "a", usage(0))), trust(authority(t, "a", usage(0))), ""},
		"two authorities":                   {pemCertificates(root, authority(t, "other")), trust(root, authority(t, "other")), ""},
		"an authority and a key":            {append(pemCertificates(root), ed...), append(trust(root), anchors(t, edKey())...), ""},
		"a signer":                          {pemCertificates(root.signer(t)), nil, "certificate is not that of a certificate authority: CN=signer"},
		"an authority and a signer":         {pemCertificates(root, root.signer(t)), nil, "certificate is not that of a certificate authority: CN=signer"},
		"a certificate without constraints": {pemCertificates(authority(t, "a", plain)), nil, "certificate is not that of a certificate authority: CN=a"},
		"an authority for something else":   {pemCertificates(authority(t, "a", usage(x509.KeyUsageCRLSign))), nil, "certificate authority may not sign certificates (key usage): CN=a"},
		"a certificate that is damaged":     {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), nil, "x509: malformed certificate"},
		"a request for a certificate":       {[]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"), nil, `PEM block "CERTIFICATE REQUEST", want "PUBLIC KEY" or "CERTIFICATE"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, "keys.pem", c.file)
			for i := range c.want {
				c.want[i].Source = path
			}
			got, err := LoadKeys(path)
			if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Fatalf("got %v, want %q", err, c.text)
			}
			if d := cmp.Diff(c.want, got, cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) })); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestFilesOfChains(t *testing.T) {
	root := authority(t, "root")
	_, ed := pemOf(t, edKey())
	for name, c := range map[string]struct {
		file []byte
		want int
		text string
	}{
		"one":                 {pemCertificates(root.signer(t)), 1, ""},
		"two":                 {pemCertificates(root.signer(t), root), 2, ""},
		"five":                {pemCertificates(root, root, root, root, root), 0, "5 PEM blocks, want 4 at most"},
		"none":                {nil, 0, "no line begins with -----BEGIN"},
		"a key":               {ed, 0, `PEM block "PUBLIC KEY", want "CERTIFICATE"`},
		"one that is damaged": {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0, "x509: malformed certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := LoadChain(writeFile(t, "chain.pem", c.file))
			if len(got) != c.want || (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("%d certificates, %v", len(got), err)
			}
		})
	}
}

// TestNamesOfSigners: they come from whoever made the manifest, and are shown before anything is verified.
func TestNamesOfSigners(t *testing.T) {
	root := authority(t, "root")
	for name, c := range map[string]struct{ subject, want string }{
		"a name":                         {"signer", "CN=signer"},
		"a name with accents":            {"Società", "CN=Società"},
		"none":                           {"", "no name"},
		"line breaks and escapes":        {"a\nb\x1b[2Jc\u009bd", "CN=a?b?[2Jc?d"},
		"text that runs the other way":   {"a\u202eb", "CN=a?b"},
		"separators":                     {"a,CN=b", `CN=a\,CN=b`},
		"a long name":                    {strings.Repeat("ä", 1000), "CN=" + strings.Repeat("ä", 253) + "…"},
		"a long name of wide characters": {strings.Repeat("😀", 900), "CN=" + strings.Repeat("😀", 253) + "…"},
		"a name that just fits":          {strings.Repeat("ä", 253), "CN=" + strings.Repeat("ä", 253)},
	} {
		t.Run(name, func(t *testing.T) {
			signer := root.signer(t, func(x *x509.Certificate) { x.Subject = pkix.Name{CommonName: c.subject} })
			d, err := Describe(chained(t, signer))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, d.Signatures[0].Signer); diff != "" {
				t.Error(diff)
			}
			if _, err := Open(chained(t, signer), nil, year(2035)); err == nil || strings.ContainsAny(err.Error(), "\n\x1b\u202e") || len(err.Error()) > 6*maxText {
				t.Errorf("%q", err)
			}
		})
	}
}

// allocated is how many bytes f allocates, of which most may be free again.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// maxAllocated bounds what one chain makes Open allocate.
const maxAllocated = 1 << 20

// severalTimes gives an envelope the signature that it has as often as there is room for it. None of them is valid, so that all are looked at.
func severalTimes(t testing.TB, envelope []byte) []byte {
	t.Helper()
	f, err := whole(envelope)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := readAuthentication(f.authentication)
	if err != nil {
		t.Fatal(err)
	}
	block := bytes.Clone(auth.blocks[0])
	block[len(block)-1] ^= 1
	n := min(maxSignatures, (MaxHeader-len(f.manifest)-200)/(len(block)+3))
	auth.blocks = slices.Repeat([][]byte{block}, n)
	f.authentication = auth.encode()
	return appendEnvelope(nil, f)
}

// TestCertificatesThatCostMuch are full of what crypto/x509 makes many small objects of.
func TestCertificatesThatCostMuch(t *testing.T) {
	root := authority(t, "root")
	sequence := func(content []byte) []byte {
		b, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	extension := func(last int, content []byte) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.ExtKeyUsage = nil
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, last}, Value: sequence(content)}}
		}
	}
	many := func(item []byte) []byte { return bytes.Repeat(item, 3600/len(item)) }
	var policies []byte
	for i := range 440 { // each a different one
		policies = append(policies, sequence([]byte{6, 3, 42, byte(0x81 + i/128), byte(i % 128)})...)
	}
	names := make([]pkix.AttributeTypeAndValue, 200)
	for i := range names {
		names[i] = pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: ""}
	}
	for name, change := range map[string]func(*x509.Certificate){
		"addresses":         extension(17, many([]byte{0x86, 1, 'a'})),
		"names of hosts":    extension(17, many([]byte{0x82, 1, 'a'})),
		"purposes":          extension(37, many([]byte{6, 1, 42})),
		"policies":          extension(32, policies),
		"parts of the name": func(c *x509.Certificate) { c.Subject = pkix.Name{ExtraNames: names} },
	} {
		t.Run(name, func(t *testing.T) {
			signer := root.signer(t, change)
			n := min(maxChain/len(signer.cert.Raw), maxCertificates)
			once := chained(t, slices.Repeat([]party{signer}, n)...)
			for name, envelope := range map[string][]byte{"in one signature": once, "in each of several": severalTimes(t, once), "one in each": severalTimes(t, chained(t, signer))} {
				var err error
				got := allocated(func() { _, err = Open(envelope, trust(root), year(2035)) })
				t.Logf("%d times %d bytes %s: %d bytes allocated, %v", n, len(signer.cert.Raw), name, got, err)
				if got > maxAllocated {
					t.Errorf("%s: %d bytes allocated", name, got)
				}
			}
		})
	}
}

// FuzzChain: whatever is given for certificates, one that no authority has issued is none, and little memory is taken before that is known.
func FuzzChain(f *testing.F) {
	root := authority(f, "root")
	middle := root.authority(f, "middle")
	signer := middle.signer(f)
	for _, p := range []party{root, middle, signer, root.signer(f), party{key: keyOf("signer")}.signer(f)} {
		f.Add(p.cert.Raw)
		f.Add(appendBytes(nil, p.cert.Raw))
	}
	f.Add(appendChain(nil, chainOf(signer, middle)))
	f.Add(appendChain(nil, chainOf(signer, middle, root, root)))
	f.Add([]byte{0x80})
	f.Add([]byte{0x9b, 255, 255, 255, 255, 255, 255, 255, 255})
	f.Add([]byte{0x5a, 255, 255, 255, 255})
	f.Add([]byte{0x84, 0x40, 0x40, 0x40, 0x40})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxHeader/2 {
			return
		}
		for name, value := range map[string][]byte{
			"as value":       b,
			"as certificate": appendBytes(nil, b),
			"as issuer":      appendBytes(appendBytes([]byte{0x82}, signer.cert.Raw), b),
			"as subject":     appendBytes(appendBytes([]byte{0x82}, b), middle.cert.Raw),
		} {
			for _, protected := range []bool{true, false} {
				envelope := withValue(t, value, signer.key, protected)
				var opened *Manifest
				var err error
				if n := allocated(func() { opened, err = Open(envelope, trust(root), year(2035)) }); n > maxAllocated {
					t.Errorf("%s: %d bytes allocated", name, n)
				}
				switch {
				case err != nil && !decided(err):
					t.Errorf("%s: %v", name, err)
				case err == nil && !opened.NotBefore().Equal(year(2030)):
					t.Errorf("%s: signed not before %v", name, opened.NotBefore())
				}
			}
		}
	})
}
