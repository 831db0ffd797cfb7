package capi_test

import (
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fwu-ab/fwu-ab/test/capi"
)

// TestCross: the library for other architectures is built as a distribution builds it, and run by an emulator, against the real service.
func TestCross(t *testing.T) {
	capi.Need(t)
	fwuab := program(t)
	for _, arch := range []struct {
		name, triplet, emulator string
		machine                 elf.Machine
		page                    uint64 // the largest that a kernel may have
	}{
		{"armhf", "arm-linux-gnueabihf", "qemu-arm", elf.EM_ARM, 4 << 10},
		{"arm64", "aarch64-linux-gnu", "qemu-aarch64", elf.EM_AARCH64, 64 << 10},
	} {
		t.Run(arch.name, func(t *testing.T) {
			capi.Need(t, arch.emulator)
			sys := sysroot(t, arch.name)
			lib := filepath.Join(sys, "usr/lib", arch.triplet)
			t.Setenv("AR", arch.triplet+"-ar")
			t.Setenv("PKG_CONFIG_SYSROOT_DIR", sys)
			t.Setenv("PKG_CONFIG_LIBDIR", filepath.Join(lib, "pkgconfig"))
			library := capi.Build(t, root, arch.triplet+"-gcc", "-Wl,-rpath-link,"+lib+":"+filepath.Join(sys, "lib", arch.triplet))
			shared := filepath.Join(library.Dir, "libpsa_fwu.so")
			small(t, arch.triplet+"-", shared)
			f, err := elf.Open(shared)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			if f.Machine != arch.machine {
				t.Errorf("made for %v", f.Machine)
			}
			hardened(t, f)
			for _, p := range f.Progs {
				if p.Type == elf.PT_LOAD && (p.Align < arch.page || (p.Vaddr-p.Off)%arch.page != 0) {
					t.Errorf("a kernel with pages of %d bytes does not load %+v", arch.page, p.ProgHeader)
				}
			}
			exercise(newBed(t, fwuab, "none", "bundled"), library, arch.emulator, "-L", sys)
		})
	}
}

// sysroot has libsystemd for another architecture, from where this machine has its Debian packages. It is kept in folder build; apt and dpkg of this machine do not notice.
func sysroot(t *testing.T, arch string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(root, "build/sysroot", arch))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	capi.Need(t, "apt-get", "dpkg-deb")
	tmp := t.TempDir()
	err = errors.Join(os.MkdirAll(tmp+"/lists/partial", 0o755), os.MkdirAll(tmp+"/archives/partial", 0o755), os.WriteFile(tmp+"/status", nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	apt := func(args ...string) ([]byte, error) {
		options := []string{"-qq", "-y"}
		for _, o := range []string{
			"APT::Architecture=" + arch, "APT::Architectures::=" + arch, "APT::Install-Recommends=false", "APT::Sandbox::User=root", "Dir::State::status=" + tmp + "/status",
			"Dir::State::Lists=" + tmp + "/lists", "Dir::Cache=" + tmp, "Dir::Cache::archives=" + tmp + "/archives",
		} {
			options = append(options, "-o", o)
		}
		return exec.Command("apt-get", append(options, args...)...).CombinedOutput()
	}
	said, _ := apt("update") // fails if one index of many is being replaced; whether that matters is seen next
	if out, err := apt("install", "--download-only", "libsystemd-dev"); err != nil {
		t.Fatalf("%v\n%s%s", err, said, out)
	}
	packages, err := filepath.Glob(tmp + "/archives/*.deb")
	if err != nil || len(packages) == 0 {
		t.Fatalf("no packages: %v", err)
	}
	part := dir + ".part"
	if err := errors.Join(os.RemoveAll(part), os.MkdirAll(part, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		run(t, "dpkg-deb", "-x", p, part)
	}
	if err := os.Rename(part, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
