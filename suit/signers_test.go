package suit

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"
	"time"
)

// Keys that signed are counted, not signatures, and not trust anchors.
func TestSigners(t *testing.T) {
	root, other := authority(t, "root"), authority(t, "other")
	chained := func(t *testing.T, envelope []byte, p party) []byte {
		t.Helper()
		e, err := Sign(envelope, p.key, Identity{Chain: chainOf(p)})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	second := root.issue(t, keyOf("second"), signerTemplate("second"))
	for _, c := range []struct {
		name  string
		keys  VerifyKeys
		count int
		sign  func(t *testing.T, envelope []byte) []byte
	}{
		{"two keys", anchors(t, edKey(), ecKey(t)), 2, func(t *testing.T, e []byte) []byte {
			return mustSign(t, mustSign(t, e, edKey()), ecKey(t))
		}},
		{"a key of another", anchors(t, edKey()), 1, func(t *testing.T, e []byte) []byte {
			return mustSign(t, mustSign(t, e, edKey()), ecKey(t))
		}},
		{"a key that signed twice", anchors(t, ecKey(t), edKey()), 1, func(t *testing.T, e []byte) []byte {
			return twice(t, mustSign(t, e, ecKey(t)))
		}},
		{"a key that is in two files", append(anchors(t, edKey()), anchors(t, edKey())...), 1, func(t *testing.T, e []byte) []byte {
			return mustSign(t, e, edKey())
		}},
		{"two keys of an authority", trust(root), 2, func(t *testing.T, e []byte) []byte {
			return chained(t, chained(t, e, root.signer(t)), second)
		}},
		{"a key for which two authorities vouch", trust(root, other), 1, func(t *testing.T, e []byte) []byte {
			return repeated(t, chained(t, e, root.signer(t)), chained(t, e, other.signer(t)))
		}},
		{"a key that an authority vouches for, and that is trusted itself", append(trust(root), anchors(t, keyOf("signer"))...), 1, func(t *testing.T, e []byte) []byte {
			return repeated(t, chained(t, e, root.signer(t)), mustSign(t, e, keyOf("signer")))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := Open(c.sign(t, mustCreate(t, small())), c.keys, year(2035))
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Signers()) != c.count {
				t.Errorf("%d signers, want %d: %v", len(m.Signers()), c.count, m.Signers())
			}
			if err := m.RequireSigners(c.count); err != nil {
				t.Error(err)
			}
			if err := m.RequireSigners(c.count + 1); !errors.Is(err, ErrSignature) || !errors.Is(err, ErrSigners) {
				t.Errorf("one more: %v", err)
			}
		})
	}
}

// A signature that does not verify, beside one that does, counts for nothing.
func TestSignerWithAForgedSignature(t *testing.T) {
	signed := mustSign(t, mustSign(t, mustCreate(t, small()), edKey()), ecKey(t))
	keys := anchors(t, edKey(), ecKey(t))
	f, err := whole(signed)
	if err != nil {
		t.Fatal(err)
	}
	a, err := readAuthentication(f.authentication)
	if err != nil {
		t.Fatal(err)
	}
	for i := range a.blocks {
		block := a.blocks[i]
		a.blocks[i] = append([]byte{}, block...)
		a.blocks[i][len(block)-1] ^= 1
		f.authentication = a.encode()
		m, err := Open(appendEnvelope(nil, f), keys, time.Time{})
		if err != nil || len(m.Signers()) != 1 {
			t.Errorf("signature %d forged: %v, %v", i, m, err)
		}
		a.blocks[i] = block
	}
}

// twice adds to an envelope that a P-256 key signed the other signature that ECDSA has for the same
// content: s and the order of the curve minus s are equally valid.
func twice(t *testing.T, envelope []byte) []byte {
	t.Helper()
	f, err := whole(envelope)
	if err != nil {
		t.Fatal(err)
	}
	a, err := readAuthentication(f.authentication)
	if err != nil {
		t.Fatal(err)
	}
	s := *a.signatures[0]
	public := ecKey(t).Public().(*ecdsa.PublicKey)
	half := len(s.signature) / 2
	v := new(big.Int).Sub(public.Params().N, new(big.Int).SetBytes(s.signature[half:]))
	other := append([]byte{}, s.signature[:half]...)
	other = append(other, v.FillBytes(make([]byte, half))...)
	sum := sha256.Sum256(toBeSigned(s.protected, a.rawDigest))
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(s.signature[:half]), v})
	if err != nil || !ecdsa.VerifyASN1(public, sum[:], der) {
		t.Fatal("the other signature is not valid", err)
	}
	a.blocks = append(a.blocks, signBlock(s.protected, other))
	f.authentication = a.encode()
	return appendEnvelope(nil, f)
}

// repeated adds the signatures of other to those of envelope; both sign the same manifest.
func repeated(t *testing.T, envelope, other []byte) []byte {
	t.Helper()
	f, err := whole(envelope)
	if err != nil {
		t.Fatal(err)
	}
	a, err := readAuthentication(f.authentication)
	if err != nil {
		t.Fatal(err)
	}
	g, err := whole(other)
	if err != nil {
		t.Fatal(err)
	}
	b, err := readAuthentication(g.authentication)
	if err != nil {
		t.Fatal(err)
	}
	a.blocks = append(a.blocks, b.blocks...)
	f.authentication = a.encode()
	return appendEnvelope(nil, f)
}
