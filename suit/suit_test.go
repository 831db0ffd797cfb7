package suit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Keys that are the same in every run, so that golden bytes can be. Nobody may use them.
func edKey() crypto.Signer { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) }

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signers are keys of every type.
func signers(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	all := map[string]crypto.Signer{"ed25519": edKey(), "p256": ecKey(t)}
	for name, curve := range map[string]elliptic.Curve{"p384": elliptic.P384(), "p521": elliptic.P521()} {
		k, err := ecdsa.ParseRawPrivateKey(curve, bytes.Repeat([]byte{1}, (curve.Params().BitSize+7)/8))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = k
	}
	return all
}

// signMessage makes a signature in the form of COSE.
func signMessage(t testing.TB, key crypto.Signer, message []byte) []byte {
	t.Helper()
	alg, err := algorithmFor(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sig, err := alg.sign(key, message)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func anchors(t testing.TB, signers ...crypto.Signer) VerifyKeys {
	t.Helper()
	var keys VerifyKeys
	for _, s := range signers {
		kid, err := KeyID(s.Public())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, VerifyKey{KID: kid, Public: s.Public()})
	}
	return keys
}

func sum(image string) Digest {
	h := sha256.Sum256([]byte(image))
	return Digest{Hash: crypto.SHA256, Sum: h[:]}
}

func small() Spec {
	vendor := VendorID("example.com")
	return Spec{
		Device{Vendor: vendor, Class: ClassID(vendor, "board rev 2")},
		Version{1, 2, 3, 0},
		Demand{Sequence: 7, Images: []Image{{Component: "rootfs", Digest: sum("image"), Size: 5, Version: Version{1, 2, 3, 0}}}},
	}
}

func full() Spec {
	s := small()
	s.Images[0].URI = "#rootfs"
	s.version(Version{1, 2, 3, 4})
	s.Dependencies = []Dependency{atLeast("bootfw", Version{1, 2, 0, 0}, 3), atLeast("radio", Version{255, 255, 65535, 1<<32 - 1}, 4)}
	return s
}

// version sets the version of the whole and of the one image.
func (s *Spec) version(v Version) { s.Version, s.Images[0].Version = v, v }

func atLeast(component string, v Version, numbers int) Dependency {
	return Dependency{Component: component, Requirement: Requirement{GreaterEqual, v, numbers}}
}

// two is full() with a second image, which is compressed and has a version of its own.
func two() Spec {
	s := full()
	s.Images = append(s.Images, Image{Component: "app", Digest: sum("other image"), Size: 11, Version: Version{9, 0, 1, 0}, URI: "#app", Compression: CompressionZstd})
	s.Dependencies = append(s.Dependencies, Dependency{"app", Requirement{Lesser, Version{9, 0, 0, 0}, 1}, true})
	s.Battery = 1500
	return s
}

func (s Spec) recipient() Recipient { return Recipient{Device: s.Device} }

// inOrder compares dependencies whatever their order.
func inOrder() cmp.Option {
	return cmpopts.SortSlices(func(a, b Dependency) int { return strings.Compare(a.String(), b.String()) })
}

func mustCreate(t testing.TB, s Spec) []byte {
	t.Helper()
	e, err := Create(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func mustSign(t testing.TB, envelope []byte, key crypto.Signer) []byte {
	t.Helper()
	kid, err := KeyID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	e, err := Sign(envelope, key, Identity{KID: kid})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestWhatWasCreatedIsReadBack(t *testing.T) {
	withoutBuild := full()
	withoutBuild.version(Version{1, 2, 3, 0})
	large := full()
	large.Images[0].Size, large.Sequence = 1<<63-1, 1<<64-1
	only := small()
	only.Dependencies = full().Dependencies
	for name, spec := range map[string]Spec{
		"detached": small(), "integrated with dependencies": full(), "no build number": withoutBuild, "largest numbers": large, "detached with dependencies": only, "two images": two(),
	} {
		for keyName, key := range signers(t) {
			t.Run(name+" "+keyName, func(t *testing.T) {
				m, err := Open(mustSign(t, mustCreate(t, spec), key), anchors(t, key), time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				got, err := m.Evaluate(spec.recipient())
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(spec.Demand, got, inOrder()); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

func TestDigestAlgorithms(t *testing.T) {
	for name, size := range map[string]int{"sha256": 32, "sha384": 48, "sha512": 64} {
		t.Run(name, func(t *testing.T) {
			hash, err := ParseHash(name)
			if err != nil {
				t.Fatal(err)
			}
			spec := full()
			if spec.Images[0].Digest, _, err = Measure(strings.NewReader("image"), hash); err != nil {
				t.Fatal(err)
			}
			m, err := Open(mustSign(t, mustCreate(t, spec), edKey()), anchors(t, edKey()), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			demand, err := m.Evaluate(spec.recipient())
			if err != nil {
				t.Fatal(err)
			}
			i := demand.Images[0]
			if i.Check(strings.NewReader("image")) != nil || !errors.Is(i.Check(strings.NewReader("imago")), ErrImage) {
				t.Errorf("image %v, %v", i, err)
			}
			if d := m.Digest(); d.Hash != hash || len(d.Sum) != size || !strings.HasPrefix(d.String(), name+":") || !strings.HasPrefix(i.Digest.String(), name+":") {
				t.Errorf("digest of the manifest %v, of the image %v", d, i.Digest)
			}
		})
	}
	if _, err := ParseHash("sha1"); err == nil {
		t.Error("sha1 is taken")
	}
	spec := small()
	spec.Images[0].Digest.Hash = crypto.SHA224
	if _, err := Create(spec); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

// Several sign, each takes what is there already; one of them that is trusted is enough.
func TestSeveralSigners(t *testing.T) {
	envelope := mustCreate(t, full())
	all := signers(t)
	for _, name := range []string{"ed25519", "p256", "p384", "p521"} {
		envelope = mustSign(t, envelope, all[name])
	}
	for name, key := range all {
		if _, err := Open(envelope, anchors(t, key), time.Time{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	d, err := Describe(envelope)
	if err != nil || len(d.Signatures) != 4 || d.Signatures[2].Algorithm != "ES384" {
		t.Errorf("%+v, %v", d, err)
	}
	stranger := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	if _, err := Open(envelope, anchors(t, stranger), time.Time{}); !errors.Is(err, ErrSignature) {
		t.Errorf("a stranger's: %v", err)
	}
	if _, err := Sign(envelope, all["p384"], Identity{}); err == nil || !strings.Contains(err.Error(), "signed by this key already") {
		t.Errorf("signed twice: %v", err)
	}
	for i := byte(10); ; i++ {
		more, err := Sign(envelope, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{i}, 32)), Identity{})
		if err != nil {
			if !errors.Is(err, ErrUnsupported) || i != 10+maxSignatures-4 {
				t.Errorf("signature %d: %v", i-10+5, err)
			}
			break
		}
		envelope = more
	}
}

// A signature by an algorithm of the future does not stand in the way of one that counts.
func TestUnknownAlgorithmBeside(t *testing.T) {
	f, err := whole(mustSign(t, mustCreate(t, small()), edKey()))
	if err != nil {
		t.Fatal(err)
	}
	auth, err := readAuthentication(f.authentication)
	if err != nil {
		t.Fatal(err)
	}
	future := signBlock(algorithm{id: -48}.protected(Identity{KID: []byte("new")}), make([]byte, 2420)) // ML-DSA-44
	for name, c := range map[string]struct {
		blocks [][]byte
		want   error
	}{"first": {[][]byte{future, auth.blocks[0]}, nil}, "last": {[][]byte{auth.blocks[0], future}, nil}, "alone": {[][]byte{future}, ErrUnsupported}} {
		wrapper := appendBytes(appendHead(nil, majorArray, uint64(1+len(c.blocks))), auth.rawDigest)
		for _, b := range c.blocks {
			wrapper = appendBytes(wrapper, b)
		}
		envelope := appendEnvelope(nil, frame{authentication: wrapper, manifest: f.manifest})
		if _, err := Open(envelope, anchors(t, edKey()), time.Time{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if d, err := Describe(envelope); err != nil || !strings.Contains(d.String(), "algorithm -48") {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
}

// What another program signs is put in, in either form of an ECDSA signature.
func TestAttach(t *testing.T) {
	for name, key := range signers(t) {
		t.Run(name, func(t *testing.T) {
			envelope := mustCreate(t, full())
			id := Identity{Public: key.Public(), KID: anchors(t, key)[0].KID}
			message, err := ToBeSigned(envelope, id)
			if err != nil {
				t.Fatal(err)
			}
			sig := signMessage(t, key, message)
			forms := map[string][]byte{"COSE": sig}
			if n := len(sig) / 2; name != "ed25519" {
				der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:])})
				if err != nil {
					t.Fatal(err)
				}
				forms["ASN.1"] = der
			}
			for form, s := range forms {
				got, err := Attach(envelope, id, s)
				if err != nil || !bytes.Equal(got, mustSign(t, envelope, key)) {
					t.Errorf("%s: %v", form, err)
				}
			}
			for what, s := range map[string][]byte{"none": nil, "cut off": sig[1:], "of something else": signMessage(t, key, []byte("x")), "garbage": bytes.Repeat([]byte{0x30}, 70)} {
				if _, err := Attach(envelope, id, s); !errors.Is(err, ErrSignature) {
					t.Errorf("%s: %v", what, err)
				}
			}
			hashed, err := Hashed(message, key.Public())
			if name == "ed25519" && err == nil || name != "ed25519" && (err != nil || len(hashed) < 32) {
				t.Errorf("hashed: %x, %v", hashed, err)
			}
		})
	}
}

func TestManifestForAnother(t *testing.T) {
	spec := small()
	m, err := Open(mustSign(t, mustCreate(t, spec), edKey()), anchors(t, edKey()), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	other := UUID{1}
	for name, c := range map[string]struct {
		device    Device
		component string
		want      error
	}{
		"component":              {spec.Device, "bootfw", ErrComponent},
		"vendor":                 {Device{Vendor: other, Class: spec.Class}, "rootfs", ErrVendor},
		"class":                  {Device{Vendor: spec.Vendor, Class: other}, "rootfs", ErrClass},
		"device without vendor":  {Device{}, "rootfs", ErrVendor},
		"component of no name":   {spec.Device, "", ErrComponent},
		"dependency is no image": {spec.Device, "radio", ErrComponent},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := m.Evaluate(Recipient{Device: c.device})
			if err == nil {
				_, err = d.Image(c.component)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestDemandIsACopy(t *testing.T) {
	spec := full()
	m, err := Open(mustSign(t, mustCreate(t, spec), edKey()), anchors(t, edKey()), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d, err := m.Evaluate(spec.recipient())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(spec.Demand, d); d != "" {
			t.Fatal(d)
		}
		d.Images[0].Digest.Sum[0]++
		d.Dependencies[0].Version = Version{}
		m.Digest().Sum[0]++
	}
}

// TestGolden keeps the bytes of examples: they are what docs/manifest.md explains, and what released devices were given.
func TestGolden(t *testing.T) {
	for name, envelope := range map[string][]byte{
		"small-ed25519": mustSign(t, mustCreate(t, small()), edKey()),
		"full-p256":     mustSign(t, mustCreate(t, full()), ecKey(t)),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".hex")
			golden, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("%v; it would hold\n%s", err, hex.Dump(envelope))
			}
			want, err := hex.DecodeString(strings.Join(strings.Fields(string(golden)), ""))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, envelope) {
				t.Errorf("got\n%swant\n%s", hex.Dump(envelope), hex.Dump(want))
			}
		})
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	specs := map[string]Spec{"ed25519": small(), "p256": two()}
	if os.Getenv("FWUAB_TEST_ALL") != "" { // larger curves take their time
		specs["p384"], specs["p521"] = small(), small()
	}
	for name, spec := range specs {
		t.Run(name, func(t *testing.T) {
			key := signers(t)[name]
			envelope := mustSign(t, mustCreate(t, spec), key)
			keys := anchors(t, key)
			for i := range len(envelope) * 8 {
				flipped := bytes.Clone(envelope)
				flipped[i/8] ^= 1 << (i % 8)
				_, err := Open(flipped, keys, time.Time{})
				if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrSignature) && !errors.Is(err, ErrUnsupported) {
					t.Fatalf("bit %d of byte %d: %v", i%8, i/8, err)
				}
			}
			for n := range envelope {
				if _, err := Open(envelope[:n], keys, time.Time{}); !errors.Is(err, ErrMalformed) {
					t.Fatalf("%d bytes of %d: %v", n, len(envelope), err)
				}
			}
			if _, err := Open(append(envelope, 0), keys, time.Time{}); !errors.Is(err, ErrMalformed) {
				t.Fatalf("a byte more: %v", err)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	ed, ec := edKey(), ecKey(t)
	otherEd := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, 32))
	signed := mustSign(t, mustCreate(t, small()), ed)
	anonymous, err := Sign(mustCreate(t, small()), ed, Identity{})
	if err != nil {
		t.Fatal(err)
	}
	impostor := VerifyKeys{{KID: anchors(t, ed)[0].KID, Public: otherEd.Public()}}
	weird := VerifyKeys{{Public: ed25519.PublicKey("short")}, {Public: (*ecdsa.PublicKey)(nil)}, {Public: 7}, {}}
	noCurve := VerifyKeys{{Public: (*ecdsa.PublicKey)(nil)}, {Public: &ecdsa.PublicKey{}}}
	for name, c := range map[string]struct {
		envelope []byte
		keys     VerifyKeys
		ok       bool
	}{
		"the key":                                    {signed, anchors(t, ed), true},
		"the key among others":                       {signed, anchors(t, ec, otherEd, ed), true},
		"no keys":                                    {signed, nil, false},
		"another key":                                {signed, anchors(t, otherEd), false},
		"a key of another type":                      {signed, anchors(t, ec), false},
		"another key with the same identifier":       {signed, impostor, false},
		"two keys with the same identifier":          {signed, append(impostor, anchors(t, ed)...), true},
		"the key under another identifier":           {signed, VerifyKeys{{KID: []byte("x"), Public: ed.Public()}}, false},
		"no identifier, the key among others":        {anonymous, anchors(t, ec, otherEd, ed), true},
		"no identifier, another key":                 {anonymous, anchors(t, ec, otherEd), false},
		"no identifier, keys that cannot be used":    {anonymous, append(weird, anchors(t, ed)...), true},
		"no identifier, only keys that are unusable": {anonymous, weird, false},
		"ecdsa, only keys that are unusable":         {mustSign(t, mustCreate(t, small()), ec), noCurve, false},
		"not signed":                                 {mustCreate(t, small()), anchors(t, ed), false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(c.envelope, c.keys, time.Time{})
			if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrSignature) {
				t.Error(err)
			}
		})
	}
}

func TestKeyID(t *testing.T) {
	der, err := x509.MarshalPKIXPublicKey(edKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(der)
	if got := anchors(t, edKey())[0].KID; !bytes.Equal(got, want[:8]) {
		t.Errorf("%x", got)
	}
}
