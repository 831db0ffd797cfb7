package efi_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
	"github.com/fwu-ab/fwu-ab/fwu"
)

func TestDirectory(t *testing.T) {
	d := efi.Directory{Path: t.TempDir()}
	name := efi.EntryName(0x1A)
	if _, err := d.Read(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read of nothing: %v", err)
	}
	if err := d.Delete(name); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	for _, data := range []string{"short", "a longer one", "s"} {
		want := efi.Variable{Attributes: efi.Attributes, Data: []byte(data)}
		if err := d.Write(name, want); err != nil {
			t.Fatal(err)
		}
		got, err := d.Read(name)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Error(err, diff)
		}
		raw, err := os.ReadFile(filepath.Join(d.Path, "Boot001A-8be4df61-93ca-11d2-aa0d-00e098032b8c"))
		if err != nil || string(raw) != "\x07\x00\x00\x00"+data {
			t.Errorf("the file holds %q (%v)", raw, err)
		}
	}
	if names, err := d.List(); err != nil || !slices.Equal(names, []string{name}) {
		t.Errorf("%v, %v", names, err)
	}
	if err := d.Delete(name); err != nil {
		t.Fatal(err)
	}
	if names, err := d.List(); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
}

func TestDirectoryThatIsNone(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "efivars")
	for path, want := range map[string]string{
		missing + "/efivars": missing + "/efivars does not exist: the system was not started by UEFI firmware",
		missing:              "efi=runtime on its command line",
		"/sys/kernel":        "efivarfs is not mounted: mount -t efivarfs efivarfs /sys/kernel; where that is refused, the kernel does not call the firmware",
	} {
		d := efi.Directory{Path: path}
		_, read := d.Read(efi.BootOrder)
		_, list := d.List()
		write := d.Write(efi.BootOrder, efi.Variable{Attributes: 7, Data: []byte{1, 0}})
		for _, err := range []error{read, list, write, d.Check()} {
			if !errors.Is(err, efi.ErrNoVariables) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
}

func TestFilesThatAreNoVariables(t *testing.T) {
	d := efi.Directory{Path: t.TempDir()}
	for content, want := range map[string]string{"": "file does not exist", "abc": "it has 3 bytes", strings.Repeat("x", 65<<10): "longer than any variable"} {
		path := filepath.Join(d.Path, efi.BootOrder)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Read(efi.BootOrder); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := d.Write(efi.BootNext, efi.Variable{Attributes: 7}); err == nil {
		t.Error("nothing was written")
	}
}

func TestFirmwareThatIsFull(t *testing.T) {
	d := efi.Directory{Path: t.TempDir()}
	if err := os.Symlink("/dev/full", filepath.Join(d.Path, efi.BootNext)); err != nil {
		t.Fatal(err)
	}
	err := d.Write(efi.BootNext, efi.Variable{Attributes: 7, Data: []byte{1, 0}})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "a reboot reclaims") {
		t.Error(err)
	}
}

func flags(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestImmutableVariables needs root and a file system with that flag.
func TestImmutableVariables(t *testing.T) {
	d := efi.Directory{Path: t.TempDir()}
	name := efi.BootOrder
	path := filepath.Join(d.Path, name)
	v := efi.Variable{Attributes: 7, Data: []byte{1, 0}}
	if err := d.Write(name, v); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chattr", "+i", path).CombinedOutput(); err != nil {
		if os.Getenv("FWUAB_TEST_ALL") != "" && os.Geteuid() == 0 {
			t.Fatalf("chattr: %s", out)
		}
		t.Skipf("chattr: %s", out)
	}
	v.Data = []byte{2, 0, 1, 0}
	if err := d.Write(name, v); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Read(name); err != nil || cmp.Diff(v, got) != "" {
		t.Errorf("%v, %v", got, err)
	}
	if flags(t, path)&0x10 == 0 {
		t.Error("it is not immutable any more")
	}
	if err := d.Delete(name); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// TestEfibootmgr has the tool read what we write, and us what it writes.
func TestEfibootmgr(t *testing.T) {
	if _, err := exec.LookPath("efibootmgr"); err != nil {
		if os.Getenv("FWUAB_TEST_ALL") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	d := efi.Directory{Path: t.TempDir()}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("efibootmgr", args...)
		cmd.Env = append(os.Environ(), "LIBEFIVAR_OPS=efivarfs", "EFIVARFS_PATH="+d.Path+"/")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("efibootmgr %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	s := selector(t, d)
	if err := s.Commit(fwu.Selection{Default: "a", Trial: "b"}); err != nil {
		t.Fatal(err)
	}
	const uuidA, uuidB = "01020304-0506-0708-0000-000000000000", "01020304-0506-0708-0000-000000000001"
	want := "BootNext: 0081\nBootOrder: 0080\n" +
		"Boot0080* fwu-ab a\tHD(2,GPT," + uuidA + `,0x800,0x800)/File(\EFI\test\linux.efi)f.w.u...b.a.n.k.=.a. .q.u.i.e.t.` + "\n" +
		"Boot0081* fwu-ab b\tHD(3,GPT," + uuidB + `,0x1000,0x800)/File(\EFI\test\linux.efi)f.w.u...b.a.n.k.=.b. .q.u.i.e.t.` + "\n"
	got := ""
	for line := range strings.Lines(run("-v")) {
		if !strings.HasPrefix(line, "      dp:") && !strings.HasPrefix(line, "    data:") && !strings.HasPrefix(line, "Timeout") {
			got += line
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
	run("-n", "0080")
	run("-o", "0081,0080")
	if sel, err := s.Read(); err != nil || sel != (fwu.Selection{Default: "b", Trial: "a"}) {
		t.Errorf("%v, %v", sel, err)
	}
	if err := d.Delete(efi.BootNext); err != nil { // efibootmgr 17 deletes it only where there is an entry 0001
		t.Error(err)
	}
	run("-b", "0080", "-A")
	if sel, err := s.Read(); err != nil || sel != (fwu.Selection{Default: "b"}) {
		t.Errorf("%v, %v", sel, err)
	}
	run("-b", "0081", "-A")
	if sel, err := s.Read(); err != nil || sel != (fwu.Selection{}) {
		t.Errorf("with both inactive: %v, %v", sel, err)
	}
}
