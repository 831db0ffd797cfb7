package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/suit"
)

const header = "version = \"1.2.3\"\nsequence = 7\nvendor-name = \"example.com\"\nclass-name = \"board\"\n"

func TestDescriptionsThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"image": "the image", "empty": "", "large": strings.Repeat("x", MaxInline+1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                       {"", "no sequence number"},
		"no image":                      {header, "no image"},
		"unknown key in an image":       {header + "[image.a]\nfil = \"x\"\n", ":6:1: unknown key image.a.fil"},
		"vendor twice":                  {header + "vendor = \"x\"\n", "vendor and vendor-name"},
		"class twice":                   {header + "class = \"x\"\n", "class and class-name"},
		"vendor that is no UUID":        {strings.Replace(header, "vendor-name", "vendor", 1), "vendor: uuid"},
		"device that is no UUID":        {header + "device = \"x\"\n", "device: uuid"},
		"digest of another kind":        {header + "digest = \"md5\"\n", `digest algorithm "md5"`},
		"dependency without operator":   {header + "depends = [\"x\"]\n", `dependency "x"`},
		"image without file":            {header + "[image.a]\n", "image of a: no file"},
		"empty image":                   {header + "[image.a]\nfile = \"empty\"\n", "image size 0 of a"},
		"component that is no name":     {header + "[image.\"a b\"]\nfile = \"image\"\n", `"#a b"`},
		"compression by another":        {header + "[image.a]\nfile = \"image\"\ncompression = \"xz\"\n", `compression "xz": want zstd`},
		"level without compression":     {header + "[image.a]\nfile = \"image\"\nlevel = \"best\"\n", "want one of them"},
		"inline and compressed":         {header + "[image.a]\nfile = \"image\"\ninline = true\ncompression = \"zstd\"\n", "want one of them"},
		"too large to be inline":        {header + "[image.a]\nfile = \"large\"\ninline = true\n", "4097 bytes, of which a manifest takes 4096"},
		"sequence that is negative":     {strings.Replace(header, "7", "-7", 1), ":2:"},
		"version that does not fit":     {strings.Replace(header, "1.2.3", "256", 1), `version "256"`},
		"version of an image, the same": {header + "[image.a]\nfile = \"image\"\nversion = \"256\"\n", `image of a: version "256"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "d.toml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := Load(t.Context(), path)
			if err == nil {
				err = d.Create(t.Context(), Output{Path: filepath.Join(dir, "out.suit")})
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*out*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// An image that the manifest itself holds is no payload.
func TestInlineImage(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"d.toml": header + "[image.setting]\nfile = \"image\"\ninline = true\n", "image": "on"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Load(t.Context(), filepath.Join(dir, "d.toml"))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.suit")
	if err := d.Create(t.Context(), Output{Path: out}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	images, err := Extract(t.Context(), f, t.TempDir(), suit.Unverified)
	if err != nil || len(images) != 1 {
		t.Fatal(images, err)
	}
	if b, err := os.ReadFile(images[0].Path); string(b) != "on" {
		t.Errorf("%q, %v", b, err)
	}
}

// FuzzDescription: whatever a description says, it is taken or refused, and what is taken has all that a manifest needs but images.
func FuzzDescription(f *testing.F) {
	f.Add(header + "[image.a]\nfile = \"image\"\ncompression = \"zstd\"\n")
	f.Add(header + "depends = [\"a>=1\", \"b<2.0\"]\nbattery = 3\n")
	f.Add("version = 1")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Parse(strings.NewReader(text))
		if err != nil {
			if !strings.HasPrefix(err.Error(), ":") {
				t.Errorf("%q", err)
			}
			return
		}
		s, err := d.spec()
		if err == nil && (s.Vendor == suit.UUID{} && d.Vendor == "" || s.Class == suit.UUID{} && d.Class == "") {
			t.Errorf("%+v", s)
		}
	})
}
