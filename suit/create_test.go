package suit

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatCannotBeCreated(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Spec)
		want   error
		text   string
	}{
		"no vendor":                {func(s *Spec) { s.Vendor = UUID{} }, ErrMalformed, "vendor-identifier (1) is not a UUID"},
		"no class":                 {func(s *Spec) { s.Class = UUID{} }, ErrMalformed, "class-identifier (2) is not a UUID"},
		"no component":             {func(s *Spec) { s.Images[0].Component = "" }, ErrUnsupported, "component identifier"},
		"component that is a path": {func(s *Spec) { s.Images[0].Component = "../x" }, ErrUnsupported, "component identifier"},
		"no digest":                {func(s *Spec) { s.Images[0].Digest = Digest{} }, ErrUnsupported, "image digest"},
		"digest by another hash":   {func(s *Spec) { s.Images[0].Digest.Hash = crypto.SHA3_256 }, ErrUnsupported, "image digest SHA3-256"},
		"digest that is too short": {func(s *Spec) { s.Images[0].Digest.Sum = s.Images[0].Digest.Sum[1:] }, ErrMalformed, "image digest of 31 bytes"},
		"empty image":              {func(s *Spec) { s.Images[0].Size = 0 }, ErrMalformed, "image size 0"},
		"negative size":            {func(s *Spec) { s.Images[0].Size = -1 }, ErrMalformed, "image-size (14) 18446744073709551615 is too large"},
		"payload without name":     {func(s *Spec) { s.Images[0].URI = "#" }, ErrUnsupported, `uri "#"`},
		"uri with a space":         {func(s *Spec) { s.Images[0].URI = "a b" }, ErrUnsupported, `uri (21) "a b"`},
		"compression of nothing":   {func(s *Spec) { s.Images[0].URI, s.Images[0].Compression = "", "zstd" }, nil, "manifest would say"},
		"compression by another":   {func(s *Spec) { s.Images[0].Compression = "xz" }, ErrUnsupported, `"xz"`},
		"no image":                 {func(s *Spec) { s.Images = nil }, ErrMalformed, "no image"},
		"a component twice":        {func(s *Spec) { s.Images = append(s.Images, s.Images[0]) }, ErrMalformed, "rootfs is there twice"},
		"content of another image": {func(s *Spec) { s.Images[0].URI, s.Images[0].Content = "", []byte("imago") }, ErrMalformed, "content of rootfs"},
		"comparison of none":       {func(s *Spec) { s.Dependencies[0].Comparison = 6 }, ErrUnsupported, "version comparison 6"},
		"dependency on itself":     {func(s *Spec) { s.Dependencies = []Dependency{atLeast("rootfs", Version{}, 3)} }, nil, "manifest would say"},
		"dependency without name":  {func(s *Spec) { s.Dependencies = []Dependency{atLeast("", Version{}, 3)} }, ErrUnsupported, "component identifier"},
		"too many dependencies":    {manyDependencies, ErrMalformed, "components has 17 elements"},
	} {
		t.Run(name, func(t *testing.T) {
			s := full()
			c.change(&s)
			if _, err := Create(s); err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}

func manyDependencies(s *Spec) {
	s.Dependencies = nil
	for i := range maxComponents {
		s.Dependencies = append(s.Dependencies, atLeast(fmt.Sprint("c", i), Version{}, 3))
	}
}

func TestMostDependencies(t *testing.T) {
	s := full()
	manyDependencies(&s)
	s.Dependencies = s.Dependencies[1:]
	mustCreate(t, s)
}

// What is said of an envelope is in files: text for people, JSON for scripts.
func TestDescribe(t *testing.T) {
	every := map[string][]byte{"full": mustSign(t, mustCreate(t, full()), ecKey(t)), "small": mustCreate(t, small()), "two": mustCreate(t, two())}
	for _, e := range draftExamples(t) {
		if e.name == "example2-severed" || e.name == "example3" || e.name == "example4" {
			every[e.name] = e.envelope
		}
	}
	p := fullParts(t)
	conditional()["an image for each slot"](t, p)
	every["slots"] = signRaw(t, p.encode(t))
	for name, envelope := range every {
		t.Run(name, func(t *testing.T) {
			d, err := Describe(envelope)
			if err != nil {
				t.Fatal(err)
			}
			j, err := json.MarshalIndent(d, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			for ext, got := range map[string]string{".txt": d.String(), ".json": string(j) + "\n"} {
				path := filepath.Join("testdata", "describe", name+ext)
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatalf("%v; it would hold\n%s", err, got)
				}
				if diff := cmp.Diff(string(want), got); diff != "" {
					t.Errorf("%s:\n%s", path, diff)
				}
			}
		})
	}
}

func TestVersions(t *testing.T) {
	ascending := []string{"0", "0.0.0+1", "0.0.1", "0.1", "1", "1.2.3", "1.2.3+1", "1.2.4", "1.3", "2", "255.255.65535+4294967295"}
	for i, s := range ascending {
		v, err := ParseVersion(s)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseVersion(v.String()); err != nil || again != v {
			t.Errorf("%s: %v, %v", s, again, err)
		}
		for j, u := range ascending {
			w, err := ParseVersion(u)
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := v.Compare(w); got != want {
				t.Errorf("%s to %s: %d", s, u, got)
			}
		}
	}
	for _, s := range []string{"", ".", "1.", "1.2.3.4", "256", "1.256", "1.2.65536", "1.2.3+4294967296", "-1", "1.2.3-rc1", "1+", "+1", "1.2.3+1+2", " 1", "0x1", "1_0", "v1"} {
		if v, err := ParseVersion(s); err == nil {
			t.Errorf("%q is %v", s, v)
		}
	}
}
