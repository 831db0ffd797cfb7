package suit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// draftKey is the public key that the examples of draft-ietf-suit-manifest-37 are signed with (section "Examples").
const draftKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhJaBGq4LqqvSYVcYnuzaJr6qi/Eb
bz/m4rVlnIXbwK07HypLbAmBMcCjbazR14vTgdzfsJwFLbM5kdtzOLSolg==
-----END PUBLIC KEY-----
`

type draftExample struct {
	name     string
	envelope []byte
}

// draftExamples are the envelopes in the draft's section "Examples": each as it is signed, before it was, and one with its severable members severed.
func draftExamples(t testing.TB) (all []draftExample) {
	t.Helper()
	files, err := filepath.Glob("testdata/draft/*.hex")
	if err != nil || len(files) != 13 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, draftExample{strings.TrimSuffix(filepath.Base(file), ".hex"), b})
	}
	return all
}

// draftKeys writes the key where it can be loaded from.
func draftKeys(t testing.TB) VerifyKeys {
	t.Helper()
	path := filepath.Join(t.TempDir(), "draft.pub")
	if err := os.WriteFile(path, []byte(draftKey), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := LoadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestExamplesOfTheDraft(t *testing.T) {
	keys := draftKeys(t)
	refused := map[string]string{ // by a device of the profile
		"example0": "[h'00']", "example1": "[h'00']", "example2": "[h'00']", "example2-severed": "[h'00']",
		"example3": "[h'00']", "example4": "[h'00']", "example5": "[h'00']",
	}
	for _, e := range draftExamples(t) {
		t.Run(e.name, func(t *testing.T) {
			f, a, m, err := readUnverified(e.envelope)
			if err != nil {
				t.Fatal(err)
			}
			if again := m.encode(); !bytes.Equal(again, f.manifest) {
				t.Errorf("manifest is encoded as\n%swant\n%s", hex.Dump(again), hex.Dump(f.manifest))
			}
			again := appendEnvelope(nil, frame{authentication: a.encode(), manifest: m.encode(), moved: m.moved()})
			if !bytes.Equal(again, e.envelope) {
				t.Errorf("envelope is encoded as\n%swant\n%s", hex.Dump(again), hex.Dump(e.envelope))
			}
			if strings.HasSuffix(e.name, "-unsigned") {
				return
			}
			if _, _, err := a.verify(keys, time.Time{}); err != nil {
				t.Error(err)
			}
			d, err := Describe(e.envelope)
			if err != nil || d.Refused == "" || len(d.Asks) < 2 {
				t.Errorf("%+v, %v", d, err)
			}
			if _, err := Open(e.envelope, keys, time.Time{}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), refused[e.name]) {
				t.Error(err)
			}
		})
	}
}

// TestExamplesOfTheDraftChanged: every bit is authenticated, those of severable members too.
func TestExamplesOfTheDraftChanged(t *testing.T) {
	keys := draftKeys(t)
	for _, e := range draftExamples(t) {
		if strings.HasSuffix(e.name, "-unsigned") {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			for i := range len(e.envelope) * 8 {
				flipped := bytes.Clone(e.envelope)
				flipped[i/8] ^= 1 << (i % 8)
				_, a, _, err := readUnverified(flipped)
				if err == nil {
					_, _, err = a.verify(keys, time.Time{})
				}
				if !decided(err) {
					t.Fatalf("bit %d of byte %d: %v", i%8, i/8, err)
				}
			}
		})
	}
}

// named gives the components of an example names of the profile, and leaves out what a bootloader would do.
func (m *Manifest) named(names ...string) {
	for i, name := range names {
		m.components[i] = [][]byte{[]byte(name)}
	}
	m.version, m.numbers = Version{Major: 1}, 1
	delete(m.bodies, memberLoad)
	delete(m.bodies, memberInvoke)
}

// TestWhatExamplesOfTheDraftAskFor evaluates those whose commands the profile has, for a device that is what they are for.
func TestWhatExamplesOfTheDraftAskFor(t *testing.T) {
	ids := Device{
		Vendor: UUID{0xfa, 0x6b, 0x4a, 0x53, 0xd5, 0xad, 0x5f, 0xdf, 0xbe, 0x9d, 0xe6, 0x63, 0xe4, 0xd4, 0x1f, 0xfe},
		Class:  UUID{0x14, 0x92, 0xaf, 0x14, 0x25, 0x69, 0x5e, 0x48, 0xbf, 0x42, 0x9b, 0x2d, 0x51, 0xf2, 0xab, 0x45},
	}
	const first, second = "sha256:00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210", "sha256:0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff"
	for name, want := range map[string][2]string{ // for slot a and b
		"example0": {"x " + first + " 34768 ", "x " + first + " 34768 "},
		"example1": {"x " + first + " 34768 http://example.com/file.bin", "x " + first + " 34768 http://example.com/file.bin"},
		"example2": {"x " + first + " 34768 http://example.com/very/long/path/to/file/file.bin", "x " + first + " 34768 http://example.com/very/long/path/to/file/file.bin"},
		"example3": {"x " + first + " 34768 http://example.com/file1.bin", "x " + second + " 76834 http://example.com/file2.bin"},
		"example5": {"x " + first + " 34768 http://example.com/file1.bin, y " + second + " 76834 http://example.com/file2.bin",
			"x " + first + " 34768 http://example.com/file1.bin, y " + second + " 76834 http://example.com/file2.bin"},
	} {
		t.Run(name, func(t *testing.T) {
			var m *Manifest
			for _, e := range draftExamples(t) {
				if e.name == name {
					var err error
					if _, _, m, err = readUnverified(e.envelope); err != nil {
						t.Fatal(err)
					}
				}
			}
			m.named([]string{"x", "y"}[:len(m.components)]...)
			if err := m.check(); err != nil {
				t.Fatal(err)
			}
			for slot, want := range want {
				d, err := m.Evaluate(Recipient{Device: ids, Slot: func(string) (uint64, bool) { return uint64(slot), true }})
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, i := range d.Images {
					got = append(got, strings.Join([]string{i.Component, i.Digest.String(), strconv.FormatInt(i.Size, 10), i.URI}, " "))
				}
				if s := strings.Join(got, ", "); s != want {
					t.Errorf("slot %d: got %s, want %s", slot, s, want)
				}
			}
		})
	}
}
