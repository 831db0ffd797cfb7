package emmc

import (
	"os"
	"path/filepath"
	"testing"
)

func TestProtectionIsLiftedAndPutBack(t *testing.T) {
	for before, during := range map[string]string{"1": "0", "0": "0"} {
		dir := t.TempDir()
		file := filepath.Join(dir, "force_ro")
		if err := os.WriteFile(file, []byte(before+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		is := func(want string) {
			t.Helper()
			if b, err := os.ReadFile(file); err != nil || string(b[:1]) != want {
				t.Errorf("force_ro is %q, %v; want %s", b, err, want)
			}
		}
		protect, err := Unprotect(dir)
		if err != nil {
			t.Fatal(err)
		}
		is(during)
		if err := protect(); err != nil {
			t.Fatal(err)
		}
		is(before)
	}
	if on, err := Protected(t.TempDir()); on || err != nil {
		t.Errorf("a disk without the attribute: %v, %v", on, err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "force_ro"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Protected(dir); err == nil {
		t.Error("what cannot be read is not protected")
	}
	if _, err := Unprotect(dir); err == nil {
		t.Error("what cannot be read is lifted")
	}
}
