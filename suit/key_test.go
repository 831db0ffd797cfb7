package suit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func pemOf(t *testing.T, key crypto.Signer) (private, public []byte) {
	t.Helper()
	private, err := MarshalPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err = MarshalPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

func TestGeneratedKeys(t *testing.T) {
	for _, kind := range []KeyType{Ed25519, P256} {
		t.Run(string(kind), func(t *testing.T) {
			key, err := GenerateKey(kind)
			if err != nil {
				t.Fatal(err)
			}
			private, public := pemOf(t, key)
			signer, kid, err := LoadSigner(writeFile(t, "a.key", private))
			if err != nil {
				t.Fatal(err)
			}
			keys, err := LoadKeys(writeFile(t, "a.pub", public))
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) != 1 || !bytes.Equal(keys[0].KID, kid) || !strings.HasSuffix(keys[0].Source, "a.pub") {
				t.Errorf("%+v, want %x", keys, kid)
			}
			if _, err := Open(mustSign(t, mustCreate(t, small()), signer), keys, time.Time{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFilesOfPublicKeys(t *testing.T) {
	edPrivate, ed := pemOf(t, edKey())
	_, ec := pemOf(t, ecKey(t))
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, wrongCurve := pemOf(t, p224)
	damaged := bytes.Replace(ed, []byte("-----END PUBLIC KEY-----"), []byte("-----END PUBLIC"), 1)
	for name, c := range map[string]struct {
		file []byte
		keys int
		text string
	}{
		"one key":                     {ed, 1, ""},
		"two keys":                    {append(bytes.Clone(ed), ec...), 2, ""},
		"a key with a comment":        {append([]byte("release key\n"), ed...), 1, ""},
		"after a byte order mark":     {append([]byte("\ufeff"), ed...), 1, ""},
		"nothing":                     {nil, 0, "no line begins with -----BEGIN"},
		"no PEM":                      {[]byte("ssh-ed25519 AAAA"), 0, "no line begins with -----BEGIN"},
		"second key damaged":          {append(bytes.Clone(ec), damaged...), 0, "1 of 2 PEM blocks are readable"},
		"first key damaged":           {append(bytes.Clone(damaged), ec...), 0, "PEM blocks are readable"},
		"a private key":               {edPrivate, 0, `PEM block "PRIVATE KEY", want "PUBLIC KEY" or "CERTIFICATE"`},
		"a key beside a private key":  {append(bytes.Clone(ed), edPrivate...), 0, `PEM block "PRIVATE KEY"`},
		"a key on another curve":      {wrongCurve, 0, "neither ECDSA on P-256, P-384 or P-521, nor Ed25519"},
		"a file that is far too long": {bytes.Repeat(ed, 1000), 0, "more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, "keys.pem", c.file)
			keys, err := LoadKeys(path)
			if len(keys) != c.keys || (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("%d keys, %v", len(keys), err)
			}
		})
	}
	if _, err := LoadKeys("/nonexistent"); err == nil {
		t.Error("a file that is not there")
	}
}

func TestFilesOfPrivateKeys(t *testing.T) {
	private, public := pemOf(t, edKey())
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrongCurve, _ := pemOf(t, p224)
	for name, c := range map[string]struct {
		file []byte
		text string
	}{
		"a public key":           {public, `PEM block "PUBLIC KEY"`},
		"two keys":               {append(bytes.Clone(private), private...), "2 keys, want one"},
		"a key on another curve": {wrongCurve, "neither ECDSA on P-256, P-384 or P-521, nor Ed25519"},
		"an encrypted key":       {[]byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), "the key is encrypted"},
		"a key that is none":     {[]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "asn1"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := LoadSigner(writeFile(t, "a.key", c.file)); err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
}

// signer is a key in hardware that fails in a way of its own.
type signer struct {
	public crypto.PublicKey
	sign   func(digest []byte) ([]byte, error)
}

func (s signer) Public() crypto.PublicKey { return s.public }
func (s signer) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return s.sign(digest)
}

func TestKeysThatFail(t *testing.T) {
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384 := signers(t)["p384"].(*ecdsa.PrivateKey)
	absent := errors.New("token is absent")
	give := func(b []byte, err error) func([]byte) ([]byte, error) {
		return func([]byte) ([]byte, error) { return b, err }
	}
	good := signMessage(t, ecKey(t), []byte("something else"))
	for name, c := range map[string]struct {
		key  crypto.Signer
		text string
	}{
		"another curve":                {p224, "neither ECDSA on P-256, P-384 or P-521, nor Ed25519"},
		"token that is absent":         {signer{ecKey(t).Public(), give(nil, absent)}, "token is absent"},
		"signature that is no ASN.1":   {signer{ecKey(t).Public(), give(good, nil)}, "asn1"},
		"numbers that are too large":   {signer{ecKey(t).Public(), p384Sign(t, p384)}, "not an ECDSA signature on P-256"},
		"signature of something else":  {signer{edKey().Public(), give(make([]byte, 64), nil)}, "not valid"},
		"Ed25519 signature of 3 bytes": {signer{edKey().Public(), give([]byte("abc"), nil)}, "not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Sign(mustCreate(t, small()), c.key, Identity{}); err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
	if _, err := Sign(mustCreate(t, small()), edKey(), Identity{KID: make([]byte, 65)}); !errors.Is(err, ErrMalformed) {
		t.Errorf("long key identifier: %v", err)
	}
}

// p384Sign signs with a key on a larger curve until the numbers are too large for P-256: at once, but for one time in 2^128.
func p384Sign(t *testing.T, key *ecdsa.PrivateKey) func([]byte) ([]byte, error) {
	t.Helper()
	return func(digest []byte) ([]byte, error) { return key.Sign(rand.Reader, digest, crypto.SHA256) }
}

func TestUUIDs(t *testing.T) {
	// The example of RFC 9562, appendix A.4.
	if got := VendorID("www.example.com").String(); got != "2ed6657d-e927-568b-95e1-2665a8aea6a2" {
		t.Error(got)
	}
	for _, s := range []string{"", "2ed6657d-e927-568b-95e1-2665a8aea6a", "2ed6657de927-568b-95e1-2665-a8aea6a2", "{2ed6657d-e927-568b-95e1-2665a8aea6}", "zed6657d-e927-568b-95e1-2665a8aea6a2"} {
		if u, err := ParseUUID(s); err == nil {
			t.Errorf("%q is %v", s, u)
		}
	}
	if u, err := ParseUUID("2ED6657D-e927-568b-95e1-2665a8aea6a2"); err != nil || u != VendorID("www.example.com") {
		t.Errorf("%v, %v", u, err)
	}
}

func TestDependencies(t *testing.T) {
	d, err := ParseDependency("bootfw>=1.2.0+7")
	if err != nil || d != atLeast("bootfw", Version{1, 2, 0, 7}, 4) || d.String() != "bootfw>=1.2.0+7" {
		t.Errorf("%v, %v", d, err)
	}
	for _, s := range []string{"", "bootfw", "bootfw>=", ">=1", "boot fw>=1", "bootfw>=256", "bootfw>=1.2.3.4", "bootfw >=1"} {
		if d, err := ParseDependency(s); err == nil {
			t.Errorf("%q is %v", s, d)
		}
	}
}
