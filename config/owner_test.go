package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/test/stranger"
)

func TestCheckOwners(t *testing.T) {
	stranger.Need(t)
	for name, tc := range map[string]struct {
		file, folder os.FileMode
		uid, gid     int // of the file
		want         string
	}{
		"root's":                            {0o644, 0o755, 0, 0, ""},
		"root's, for its group as well":     {0o664, 0o775, 0, 0, ""},
		"everybody's file":                  {0o646, 0o755, 0, 0, "can be written by every user (mode 0646)"},
		"everybody's folder":                {0o644, 0o757, 0, 0, "can be written by every user (mode 0757)"},
		"everybody's folder, with a sticky": {0o644, 0o777 | os.ModeSticky, 0, 0, "can be written by every user (mode 0777)"},
		"a stranger's file":                 {0o600, 0o755, stranger.UID, 0, "belongs to user"},
		"a stranger's group's file":         {0o660, 0o755, 0, stranger.UID, "can be written by group"},
		"a stranger's group reads":          {0o640, 0o755, 0, stranger.UID, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "owner") // a test's own folder is closed to strangers
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			path := filepath.Join(dir, "folder", "file")
			for _, err := range []error{os.Chmod(dir, 0o755), os.Mkdir(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600), os.Chown(path, tc.uid, tc.gid), os.Chmod(path, tc.file), os.Chmod(filepath.Dir(path), tc.folder)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			err = CheckOwners(path, path)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || strings.Count(err.Error(), "\n") > 0) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			// The oracle is the kernel: a stranger can change the refused files, and nothing else.
			changed := stranger.Do(func() error {
				f, err := os.OpenFile(path, os.O_WRONLY, 0)
				if err != nil {
					f, err = os.Create(path + "2")
				}
				if err != nil {
					return err
				}
				return f.Close()
			})
			if (changed == nil) != (tc.want != "") {
				t.Errorf("a stranger changes it: %v", changed)
			}
		})
	}
	if err := CheckOwners(filepath.Join(t.TempDir(), "nothing")); err != nil {
		t.Error(err)
	}
}
