package suit

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
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
		"no component":             {func(s *Spec) { s.Component = "" }, ErrUnsupported, "component identifier"},
		"component that is a path": {func(s *Spec) { s.Component = "../x" }, ErrUnsupported, "component identifier"},
		"no digest":                {func(s *Spec) { s.Digest = Digest{} }, ErrUnsupported, "image digest"},
		"digest by another hash":   {func(s *Spec) { s.Digest.Hash = crypto.SHA3_256 }, ErrUnsupported, "image digest SHA3-256"},
		"digest that is too short": {func(s *Spec) { s.Digest.Sum = s.Digest.Sum[1:] }, ErrMalformed, "image digest of 31 bytes"},
		"empty image":              {func(s *Spec) { s.Size = 0 }, ErrMalformed, "image size 0"},
		"negative size":            {func(s *Spec) { s.Size = -1 }, ErrMalformed, "image size"},
		"payload without mark":     {func(s *Spec) { s.Payload = "rootfs" }, ErrUnsupported, `uri "rootfs"`},
		"dependency on itself":     {func(s *Spec) { s.Dependencies = []Dependency{{Component: "rootfs"}} }, ErrMalformed, "rootfs is there twice"},
		"dependency without name":  {func(s *Spec) { s.Dependencies = []Dependency{{}} }, ErrUnsupported, "component identifier"},
		"too many dependencies":    {manyDependencies, ErrMalformed, "components has 17 elements"},
	} {
		t.Run(name, func(t *testing.T) {
			s := full()
			c.change(&s)
			if _, err := Create(s); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}

func manyDependencies(s *Spec) {
	s.Dependencies = nil
	for i := range maxComponents {
		s.Dependencies = append(s.Dependencies, Dependency{Component: fmt.Sprint("c", i)})
	}
}

func TestMostDependencies(t *testing.T) {
	s := full()
	manyDependencies(&s)
	s.Dependencies = s.Dependencies[1:]
	mustCreate(t, s)
}

func TestDescribe(t *testing.T) {
	signed := mustSign(t, mustCreate(t, full()), ecKey(t))
	for name, c := range map[string]struct {
		envelope   []byte
		text, json string
	}{
		"full": {signed, `manifest    sha256:88b2bd5c510408a3b1fd1106c851c420ed0d2d14396e0a73436b864b26a98c38
sequence    7
signature   ES256, key ce97ec20d43661a1 (not verified)
component   rootfs
version     1.2.3+4
vendor      cfbff0d1-9375-5685-968c-48ce8b15ae17
class       b4938fa6-84fb-55cc-8407-386ba5b07e0e
image       sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d
size        5 bytes
payload     #rootfs
needs       bootfw 1.2.0 or newer
needs       radio 255.255.65535+4294967295 or newer
`, `{"manifest":"sha256:88b2bd5c510408a3b1fd1106c851c420ed0d2d14396e0a73436b864b26a98c38","sequence":7,` +
			`"signatures":[{"algorithm":"ES256","kid":"ce97ec20d43661a1"}],"images":[{"component":"rootfs","version":"1.2.3+4",` +
			`"vendor":"cfbff0d1-9375-5685-968c-48ce8b15ae17","class":"b4938fa6-84fb-55cc-8407-386ba5b07e0e",` +
			`"digest":"sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d","size":5,"payload":"#rootfs",` +
			`"dependencies":[{"component":"bootfw","min":"1.2.0"},{"component":"radio","min":"255.255.65535+4294967295"}]}]}`},
		"not signed": {mustCreate(t, small()), `manifest    sha256:f04a4aba91ad1415f7578fd3e9f8f6091823ec7a79ddceb4cb0b55cfb9023119
sequence    7
signature   none
component   rootfs
version     1.2.3
vendor      cfbff0d1-9375-5685-968c-48ce8b15ae17
class       b4938fa6-84fb-55cc-8407-386ba5b07e0e
image       sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d
size        5 bytes
`, `{"manifest":"sha256:f04a4aba91ad1415f7578fd3e9f8f6091823ec7a79ddceb4cb0b55cfb9023119","sequence":7,"signatures":[],` +
			`"images":[{"component":"rootfs","version":"1.2.3","vendor":"cfbff0d1-9375-5685-968c-48ce8b15ae17",` +
			`"class":"b4938fa6-84fb-55cc-8407-386ba5b07e0e","digest":"sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d","size":5}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Describe(c.envelope)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.text, d.String()); diff != "" {
				t.Error(diff)
			}
			j, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.json, string(j)); diff != "" {
				t.Error(diff)
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
