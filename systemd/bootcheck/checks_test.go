package bootcheck

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fwu-ab/fwu-ab/systemd/rundir"
	"github.com/google/go-cmp/cmp"
)

// script puts a check below root.
func script(t *testing.T, root, name, body string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if body != "" {
		body = "#!/bin/sh\n" + body + "\n"
	}
	syscall.ForkLock.RLock() // a process that another test starts just now would have it open for writing, and what is can't be executed
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	root := t.TempDir()
	script(t, root, "usr/lib/fwu-ab/check.d/required.d/20-disk", "true")
	script(t, root, "usr/lib/fwu-ab/check.d/required.d/10-network", "true")
	script(t, root, "usr/lib/fwu-ab/check.d/required.d/30-empty-in-etc", "true")
	script(t, root, "usr/lib/fwu-ab/check.d/required.d/31-null-in-etc", "true")
	script(t, root, "usr/lib/fwu-ab/check.d/required.d/.hidden", "true")
	script(t, root, "usr/lib/fwu-ab/check.d/wanted.d/05-clock", "true")
	script(t, root, "etc/fwu-ab/check.d/required.d/20-disk", "false")
	script(t, root, "etc/fwu-ab/check.d/required.d/30-empty-in-etc", "")
	script(t, root, "etc/fwu-ab/check.d/wanted.d/06-own", "true")
	if err := os.Symlink("/dev/null", filepath.Join(root, "etc/fwu-ab/check.d/required.d/31-null-in-etc")); err != nil {
		t.Fatal(err)
	}
	got, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	lib, etc := filepath.Join(root, "usr/lib/fwu-ab/check.d/"), filepath.Join(root, "etc/fwu-ab/check.d/")
	want := []Check{
		{rundir.Program{Name: "required.d/10-network", Path: lib + "/required.d/10-network"}, true},
		{rundir.Program{Name: "required.d/20-disk", Path: etc + "/required.d/20-disk"}, true},
		{rundir.Program{Name: "wanted.d/05-clock", Path: lib + "/wanted.d/05-clock"}, false},
		{rundir.Program{Name: "wanted.d/06-own", Path: etc + "/wanted.d/06-own"}, false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
	if got, err := Find(t.TempDir()); err != nil || len(got) != 0 {
		t.Errorf("without directories: %v, %v", got, err)
	}
}

func TestFindWhatIsNoDirectory(t *testing.T) {
	root := t.TempDir()
	script(t, root, "etc/fwu-ab/check.d/required.d", "true")
	if got, err := Find(root); err == nil {
		t.Errorf("found %v", got)
	}
}
