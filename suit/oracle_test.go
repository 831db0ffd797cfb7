package suit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/veraison/go-cose"
)

// openssl runs the tool, or skips the test if there is none and none is demanded.
func openssl(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("FWUAB_TEST_ALL") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s%s", strings.Join(args, " "), err, out, &stderr)
	}
	return out
}

func writeFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOpenSSLVerifiesOurSignature puts together from the envelope what was signed, with another encoder.
func TestOpenSSLVerifiesOurSignature(t *testing.T) {
	for name, key := range signers(t) {
		t.Run(name, func(t *testing.T) {
			f, err := whole(mustSign(t, mustCreate(t, full()), key))
			if err != nil {
				t.Fatal(err)
			}
			auth, err := readAuthentication(f.authentication)
			if err != nil {
				t.Fatal(err)
			}
			public, err := MarshalPublicKey(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			s := auth.signatures[0]
			message := writeFile(t, "message", encode(t, a{"Signature1", s.protected, []byte{}, encode(t, a{-16, manifestDigest(crypto.SHA256, f.manifest).Sum})}))
			pub := writeFile(t, "key.pub", public)
			var out []byte
			if _, ok := key.(*ecdsa.PrivateKey); ok {
				der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(s.signature[:s.alg.size()]), new(big.Int).SetBytes(s.signature[s.alg.size():])})
				if err != nil {
					t.Fatal(err)
				}
				out = openssl(t, "dgst", "-"+hashName(s.alg.hash), "-verify", pub, "-signature", writeFile(t, "sig", der), message)
			} else {
				out = openssl(t, "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", pub, "-in", message, "-sigfile", writeFile(t, "sig", s.signature))
			}
			if !strings.Contains(string(out), "Verified OK") && !strings.Contains(string(out), "Verified Successfully") {
				t.Errorf("%s", out)
			}
		})
	}
}

// TestKeysOfOpenSSL: keys made by the tool are read, and the identifier is what it computes.
func TestKeysOfOpenSSL(t *testing.T) {
	for name, args := range map[string][]string{
		"ed25519":              {"genpkey", "-algorithm", "ed25519"},
		"p256":                 {"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
		"p384":                 {"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"},
		"p521":                 {"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"},
		"p256, the older form": {"ecparam", "-name", "prime256v1", "-genkey"},
	} {
		t.Run(name, func(t *testing.T) {
			private := writeFile(t, "a.key", openssl(t, args...))
			public := writeFile(t, "a.pub", openssl(t, "pkey", "-in", private, "-pubout"))
			der := writeFile(t, "a.der", openssl(t, "pkey", "-in", private, "-pubout", "-outform", "DER"))
			key, kid, err := LoadSigner(private)
			if err != nil {
				t.Fatal(err)
			}
			if out := openssl(t, "dgst", "-sha256", "-hex", der); !strings.Contains(string(out), "= "+hex.EncodeToString(kid)) {
				t.Errorf("key identifier %x, openssl has %s", kid, out)
			}
			keys, err := LoadKeys(public)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Open(mustSign(t, mustCreate(t, small()), key), keys, time.Time{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGoCOSEAgrees(t *testing.T) {
	for name, alg := range map[string]cose.Algorithm{"ed25519": cose.AlgorithmEdDSA, "p256": cose.AlgorithmES256, "p384": cose.AlgorithmES384, "p521": cose.AlgorithmES512} {
		t.Run(name, func(t *testing.T) {
			key := signers(t)[name]
			envelope := mustCreate(t, small())
			f, err := whole(envelope)
			if err != nil {
				t.Fatal(err)
			}
			payload := encode(t, a{-16, manifestDigest(crypto.SHA256, f.manifest).Sum})
			protected := algorithmOf(int64(alg)).protected(Identity{KID: []byte("kid")})
			block := signBlock(protected, signMessage(t, key, toBeSigned(protected, payload)))
			var ours cose.Sign1Message
			if err := ours.UnmarshalCBOR(block); err != nil {
				t.Fatal(err)
			}
			verifier, err := cose.NewVerifier(alg, key.Public())
			if err != nil {
				t.Fatal(err)
			}
			ours.Payload = payload
			if err := ours.Verify(nil, verifier); err != nil {
				t.Errorf("what we signed: %v", err)
			}

			signer, err := cose.NewSigner(alg, key)
			if err != nil {
				t.Fatal(err)
			}
			theirs := cose.NewSign1Message()
			theirs.Headers.Protected.SetAlgorithm(alg)
			theirs.Headers.Unprotected[cose.HeaderLabelKeyID] = anchors(t, key)[0].KID
			theirs.Payload = payload
			if err := theirs.Sign(rand.Reader, nil, signer); err != nil {
				t.Fatal(err)
			}
			theirs.Payload = nil
			block, err = theirs.MarshalCBOR()
			if err != nil {
				t.Fatal(err)
			}
			f.authentication = encode(t, a{payload, block})
			if _, err := Open(appendEnvelope(nil, f), anchors(t, key), time.Time{}); err != nil {
				t.Errorf("what they signed: %v", err)
			}
		})
	}
}

// TestCertificatesOfOpenSSL: authorities and signers with certificates by the tool, which agrees with us on how long they are valid.
func TestCertificatesOfOpenSSL(t *testing.T) {
	ec := func(curve string) []string {
		return []string{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:" + curve}
	}
	for name, c := range map[string]struct{ ca, signer []string }{
		"Ed25519 below P-384":   {ec("P-384"), []string{"genpkey", "-algorithm", "ed25519"}},
		"P-256 below Ed25519":   {[]string{"genpkey", "-algorithm", "ed25519"}, ec("P-256")},
		"P-384 below RSA":       {[]string{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"}, ec("P-384")},
		"P-521 below P-521":     {ec("P-521"), ec("P-521")},
		"Ed25519 below Ed25519": {[]string{"genpkey", "-algorithm", "ed25519"}, []string{"genpkey", "-algorithm", "ed25519"}},
	} {
		t.Run(name, func(t *testing.T) {
			caKey, key := writeFile(t, "ca.key", openssl(t, c.ca...)), writeFile(t, "a.key", openssl(t, c.signer...))
			ca := writeFile(t, "ca.pem", openssl(t, "req", "-x509", "-new", "-key", caKey, "-subj", "/O=Example/CN=Firmware", "-days", "7300",
				"-addext", "basicConstraints=critical,CA:TRUE,pathlen:0", "-addext", "keyUsage=critical,keyCertSign"))
			request := writeFile(t, "a.csr", openssl(t, "req", "-new", "-key", key, "-subj", "/O=Example/CN=Release"))
			extensions := writeFile(t, "a.ext", []byte("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\n"))
			cert := writeFile(t, "a.pem", openssl(t, "x509", "-req", "-in", request, "-CA", ca, "-CAkey", caKey, "-set_serial", "1", "-days", "365", "-extfile", extensions))
			signer, _, err := LoadSigner(key)
			if err != nil {
				t.Fatal(err)
			}
			chain, err := LoadChain(cert)
			if err != nil {
				t.Fatal(err)
			}
			keys, err := LoadKeys(ca)
			if err != nil {
				t.Fatal(err)
			}
			signed, err := Sign(mustCreate(t, full()), signer, Identity{Chain: chain})
			if err != nil {
				t.Fatal(err)
			}
			begin, end := chain[0].NotBefore, chain[0].NotAfter
			for at, valid := range map[time.Time]bool{begin.Add(-time.Second): false, begin: true, end: true, end.Add(time.Second): false} {
				_, err := Open(signed, keys, at)
				if valid != (err == nil) || err != nil && !errors.Is(err, ErrSignature) {
					t.Errorf("at %v: %v", at, err)
				}
			}
			for _, at := range []time.Time{begin, end.Add(-time.Second)} { // of the last second, which RFC 5280 includes, the tool says that it is over
				openssl(t, "verify", "-attime", strconv.FormatInt(at.Unix(), 10), "-CAfile", ca, cert)
			}
			if d, err := Describe(signed); err != nil || d.Signatures[0].Signer != "CN=Release,O=Example" {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}
