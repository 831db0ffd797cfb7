package systemd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSandbox has drop-ins as administrators write them, over the unit that is installed.
func TestSandbox(t *testing.T) {
	unit, err := os.ReadFile("units/fwu-ab.service")
	if err != nil {
		t.Fatal(err)
	}
	const etc, run, usr = "etc/systemd/system/", "run/systemd/system/", "usr/lib/systemd/system/"
	const dropIn = "fwu-ab.service.d/"
	for name, tt := range map[string]struct {
		files map[string]string
		path  string
		want  bool
	}{
		"the usual places":             {nil, "/boot/uboot.env", true},
		"a folder with the same begin": {nil, "/boot2/uboot.env", false},
		"its own state":                {nil, "/var/lib/fwu-ab/store", true},
		"of another one":               {nil, "/var/lib/other/store", false},
		"what lies in /run":            {nil, "/run/fwu-ab/x", true},
		"elsewhere":                    {nil, "/data/uboot.env", false},
		"a device":                     {nil, "/dev/mmcblk0", true},
		"a drop-in":                    {map[string]string{etc + dropIn + "x.conf": "[Service]\nReadWritePaths=-/data\n"}, "/data/uboot.env", true},
		"of several paths":             {map[string]string{usr + dropIn + "x.conf": "ReadWritePaths = /a \\\n  \"/data/\" \n"}, "/data/uboot.env", true},
		"a comment":                    {map[string]string{etc + dropIn + "x.conf": "#ReadWritePaths=/data\n; ReadWritePaths=/data\n"}, "/data/uboot.env", false},
		"no drop-in by its name":       {map[string]string{etc + dropIn + "x.conf.dpkg-new": "ReadWritePaths=/data\n"}, "/data/uboot.env", false},
		"one that is masked":           {map[string]string{etc + dropIn + "x.conf": "", usr + dropIn + "x.conf": "ReadWritePaths=/data\n"}, "/data/uboot.env", false},
		"the order of names":           {map[string]string{etc + dropIn + "20.conf": "ReadWritePaths=/data\n", usr + dropIn + "30.conf": "ReadWritePaths=\n"}, "/data/uboot.env", false},
		"a list that begins anew":      {map[string]string{run + dropIn + "20.conf": "ReadWritePaths=\nReadWritePaths=/data\n"}, "/boot/uboot.env", false},
		"less strict":                  {map[string]string{etc + dropIn + "x.conf": "ProtectSystem=full\n"}, "/data/uboot.env", true},
		"full":                         {map[string]string{etc + dropIn + "x.conf": "ProtectSystem=full\nReadWritePaths=\n"}, "/etc/uboot.env", false},
		"not at all":                   {map[string]string{etc + dropIn + "x.conf": "ProtectSystem=no\n"}, "/usr/uboot.env", true},
		"a unit of the administrator":  {map[string]string{etc + "fwu-ab.service": "[Service]\nProtectSystem=true\n"}, "/data/uboot.env", true},
		"hidden":                       {map[string]string{etc + dropIn + "x.conf": "ReadWritePaths=/home\n"}, "/home/uboot.env", false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put := func(file, text string) {
				t.Helper()
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			put(usr+"fwu-ab.service", string(unit))
			for file, text := range tt.files {
				put(file, text)
			}
			s, err := ReadSandbox(root, "fwu-ab.service")
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Allows(tt.path); got != tt.want {
				t.Errorf("%s: %v, and %+v", tt.path, got, s)
			}
		})
	}
	root := t.TempDir()
	if s, err := ReadSandbox(root, "fwu-ab.service"); err != nil || s.File != "" {
		t.Errorf("without a unit: %+v, %v", s, err)
	}
	dir := filepath.Join(root, usr+"fwu-ab.service")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if s, err := ReadSandbox(root, "fwu-ab.service"); err == nil {
		t.Errorf("a unit that cannot be read: %+v", s)
	}
}

func FuzzSandbox(f *testing.F) {
	f.Add("[Service]\nProtectSystem=strict\nReadWritePaths=-/a \"/b\" \\\n /c\nReadWritePaths=\n")
	f.Fuzz(func(t *testing.T, text string) {
		s := Sandbox{settings: map[string]string{}}
		s.add(text)
		for _, path := range s.writable {
			if !strings.Contains(text, path) {
				t.Errorf("%q stands nowhere", path)
			}
		}
		if s.Hides("/home/x") && s.Allows("/home/x") {
			t.Error("hidden and writable")
		}
	})
}
