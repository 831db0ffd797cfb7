package suit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
			if _, err := Open(mustSign(t, mustCreate(t, small()), key), keys); err != nil {
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
			protected := algorithmOf(int64(alg)).protected([]byte("kid"))
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
			if _, err := Open(appendEnvelope(nil, f), anchors(t, key)); err != nil {
				t.Errorf("what they signed: %v", err)
			}
		})
	}
}
