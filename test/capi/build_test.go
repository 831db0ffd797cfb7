package capi_test

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/capi"
)

// functions are those of the API.
func functions() []string {
	return []string{
		"psa_fwu_accept", "psa_fwu_cancel", "psa_fwu_clean", "psa_fwu_finish", "psa_fwu_install", "psa_fwu_query", "psa_fwu_reject", "psa_fwu_request_reboot",
		"psa_fwu_start", "psa_fwu_write",
	}
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// assertions is a program that does not compile unless the header has what the specification, and the service, say. It is C and C++.
func assertions() string {
	var b strings.Builder
	b.WriteString(`#include "psa/update.h"
#include <stddef.h>
#ifdef __cplusplus
#define IS(a, b) static_assert((a) == (b), #a)
#else
#define IS(a, b) _Static_assert((a) == (b), #a)
#endif
`)
	for s := fwu.Status(-1000); s < 1000; s++ {
		name := s.String()
		switch {
		case strings.HasPrefix(name, "status "):
			continue
		case s < 0:
			name = "ERROR_" + name
		}
		fmt.Fprintf(&b, "IS(PSA_%s, %d);\n", name, s)
	}
	for s := fwu.Ready; s <= fwu.Updated; s++ {
		fmt.Fprintf(&b, "IS(PSA_FWU_%v, %du);\n", s, s)
	}
	fmt.Fprintf(&b, `IS(PSA_FWU_FLAG_VOLATILE_STAGING, %du);
IS(PSA_FWU_FLAG_ENCRYPTION, %du);
IS(PSA_FWU_API_VERSION_MAJOR, %d);
IS(PSA_FWU_API_VERSION_MINOR, %d);
IS(1 << PSA_FWU_LOG2_WRITE_ALIGN, %d);
IS(PSA_FWU_MAX_WRITE_SIZE, %du);
IS(PSA_FWU_MAX_WRITE_SIZE & ((1u << PSA_FWU_LOG2_WRITE_ALIGN) - 1), 0u);
IS(sizeof(psa_status_t), 4);
IS(sizeof(psa_fwu_component_t), 1);
IS(sizeof(psa_fwu_image_version_t), 8);
IS(offsetof(psa_fwu_impl_info_t, second_version), 1216);
IS(offsetof(psa_fwu_impl_info_t, reserved), 2296);
IS(sizeof(psa_fwu_impl_info_t), 2808);
#if PSA_FWU_API_VERSION_MAJOR != 1 || PSA_FWU_LOG2_WRITE_ALIGN > 17 || PSA_FWU_MAX_WRITE_SIZE == 0 || PSA_FWU_UPDATED != 7
#error the preprocessor cannot compute with them
#endif
psa_status_t (*query)(psa_fwu_component_t, psa_fwu_component_info_t *) = psa_fwu_query;
psa_status_t (*start)(psa_fwu_component_t, const void *, size_t) = psa_fwu_start;
psa_status_t (*write_block)(psa_fwu_component_t, size_t, const void *, size_t) = psa_fwu_write;
psa_status_t (*one[])(psa_fwu_component_t) = { psa_fwu_finish, psa_fwu_cancel, psa_fwu_clean };
psa_status_t (*all[])(void) = { psa_fwu_install, psa_fwu_accept, psa_fwu_request_reboot };
psa_status_t (*reject_all)(psa_status_t) = psa_fwu_reject;
int main(void)
{
    psa_fwu_component_info_t info;
    uint8_t *state = &info.state;
    psa_status_t *error = &info.error;
    psa_fwu_image_version_t *version = &info.version;
    uint32_t *numbers[] = { &info.max_size, &info.flags, &info.location, &version->build };
    uint8_t *small[] = { state, &version->major, &version->minor };
    uint16_t *patch = &version->patch;
    psa_fwu_impl_info_t *impl = &info.impl;
    return query && start && write_block && one[0] && all[0] && reject_all && error && numbers[0] && small[0] && patch && impl ? 0 : 1;
}
`, fwu.FlagVolatileStaging, fwu.FlagEncryption, fwu.APIMajor, fwu.APIMinor, fwu.WriteAlignment, fwu.MaxWriteSize)
	return b.String()
}

// TestHeader: C and C++, with both compilers, linked with the shared and with the static library.
func TestHeader(t *testing.T) {
	library := capi.Build(t, root, "gcc")
	file := filepath.Join(t.TempDir(), "assertions.c")
	if err := os.WriteFile(file, []byte(assertions()), 0o600); err != nil {
		t.Fatal(err)
	}
	for compiler, standards := range map[string][]string{
		"gcc": {"c11", "c99", "c17"}, "clang": {"c11", "c17"}, "g++": {"c++11", "c++20"}, "clang++": {"c++11", "c++20"},
	} {
		t.Run(compiler, func(t *testing.T) {
			capi.Need(t, compiler)
			for _, std := range standards {
				if std == "c99" { // has no assertions: the header alone
					run(t, append([]string{compiler, "-std=c99", "-fsyntax-only", "-x", "c", "-I", root + "/psa/include"}, append(capi.Strict(), root+"/psa/include/psa/update.h")...)...)
					continue
				}
				language := "c"
				if strings.HasPrefix(std, "c++") {
					language = "c++"
				}
				args := append([]string{compiler, "-std=" + std, "-I", root + "/psa/include", "-o", filepath.Join(t.TempDir(), "p"), "-x", language, file, "-x", "none"}, capi.Strict()...)
				run(t, append(args, "-L", library.Dir, "-lpsa_fwu")...)
				run(t, append(args, filepath.Join(library.Dir, "libpsa_fwu.a"), "-lsystemd", "-pthread")...)
			}
		})
	}
}

// TestShared: the API is all that others see, the soname has a version, and it is small.
func TestShared(t *testing.T) {
	library := capi.Build(t, root, "gcc")
	shared := filepath.Join(library.Dir, "libpsa_fwu.so")
	f, err := elf.Open(shared)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	symbols, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var exported []string
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF && elf.ST_TYPE(s.Info) != elf.STT_OBJECT && s.Section != elf.SHN_ABS {
			exported = append(exported, s.Name+"@"+s.Version)
		}
	}
	slices.Sort(exported)
	var want []string
	for _, name := range functions() {
		want = append(want, name+"@PSA_FWU_1")
	}
	if d := cmp.Diff(want, exported); d != "" {
		t.Errorf("exported (-want +got):\n%s", d)
	}
	if name, err := f.DynString(elf.DT_SONAME); err != nil || len(name) != 1 || name[0] != "libpsa_fwu.so.1" {
		t.Errorf("soname %q, %v", name, err)
	}
	small(t, "", shared)
	hardened(t, f)
	for _, line := range strings.Split(run(t, "nm", "-g", "--defined-only", filepath.Join(library.Dir, "libpsa_fwu.a")), "\n") {
		if f := strings.Fields(line); len(f) == 3 && !strings.HasPrefix(f[2], "psa_fwu_") && !strings.HasPrefix(f[2], "fwuab_") {
			t.Errorf("the static library has %s", f[2])
		}
	}
}

// small checks what a shared library costs on a device. prefix is that of the tools.
func small(t *testing.T, prefix, shared string) {
	t.Helper()
	capi.Need(t, prefix+"strip")
	stripped := filepath.Join(t.TempDir(), "stripped")
	run(t, prefix+"strip", "-o", stripped, shared)
	content, err := os.ReadFile(stripped)
	if err != nil {
		t.Fatal(err)
	}
	stored := 0 // without blocks of zeroes, which a hole or a compression leaves out
	for block := range slices.Chunk(content, 4096) {
		if len(bytes.Trim(block, "\x00")) > 0 {
			stored += len(block)
		}
	}
	t.Logf("%d bytes stripped, %d without holes", len(content), stored)
	if len(content) >= 72<<10 || stored >= 40<<10 {
		t.Errorf("%d bytes stripped, %d without holes", len(content), stored)
	}
}

// hardened checks that a shared library is read-only after relocation, is bound at once, and checks
// its stack and its copies.
func hardened(t *testing.T, f *elf.File) {
	t.Helper()
	relro := false
	for _, p := range f.Progs {
		relro = relro || p.Type == elf.PT_GNU_RELRO
		if p.Type == elf.PT_GNU_STACK && p.Flags&elf.PF_X != 0 {
			t.Error("the stack is executable")
		}
	}
	flags, err := f.DynValue(elf.DT_FLAGS_1)
	if err != nil || len(flags) != 1 || elf.DynFlag1(flags[0])&elf.DF_1_NOW == 0 || !relro {
		t.Errorf("read-only after relocation: %v, flags %v, %v", relro, flags, err)
	}
	symbols, err := f.ImportedSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"__stack_chk_fail", "_chk"} {
		if !slices.ContainsFunc(symbols, func(s elf.ImportedSymbol) bool { return strings.HasSuffix(s.Name, want) }) {
			t.Errorf("it imports nothing like %s", want)
		}
	}
}

// TestHeaderBesideAnother: a platform may have PSA_SUCCESS already, as the reference psa/error.h
// expects; and the flags of a distribution are no conflict.
func TestHeaderBesideAnother(t *testing.T) {
	capi.Need(t, "gcc", "g++")
	file := filepath.Join(t.TempDir(), "beside.c")
	if err := os.WriteFile(file, []byte("#define PSA_SUCCESS (0)\n#include \"psa/update.h\"\nint main(void) { return PSA_SUCCESS; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for language, cc := range map[string]string{"c": "gcc", "c++": "g++"} {
		run(t, append([]string{cc, "-x", language, "-fsyntax-only", "-I", root + "/psa/include", file}, capi.Strict()...)...)
	}
	capi.Build(t, root, "gcc", "-D_FORTIFY_SOURCE=3")
}

// TestInstall: what was installed is found by pkg-config below another root, and the examples are made with it.
func TestInstall(t *testing.T) {
	library := capi.Build(t, root, "gcc")
	dest := t.TempDir()
	run(t, "make", "-C", root+"/psa", "install", "O="+library.Dir, "CC="+library.CC, "DESTDIR="+dest)
	lib := "lib/" + strings.TrimSpace(run(t, library.CC, "-print-multiarch"))
	for _, name := range []string{"include/psa/update.h", "include/psa/error.h", lib + "/libpsa_fwu.so", lib + "/libpsa_fwu.so.1", lib + "/libpsa_fwu.a", lib + "/pkgconfig/psa_fwu.pc"} {
		if _, err := os.Stat(filepath.Join(dest, "usr", name)); err != nil {
			t.Error(err)
		}
	}
	system := strings.TrimSpace(run(t, "pkg-config", "--variable=pc_path", "pkg-config")) // where libsystemd is found
	t.Setenv("PKG_CONFIG_SYSROOT_DIR", dest)
	t.Setenv("PKG_CONFIG_LIBDIR", filepath.Join(dest, "usr", lib, "pkgconfig")+":"+system)
	examples, err := filepath.Abs(root + "/examples/c-api")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "make", "-C", dest, "-f", examples+"/Makefile", "VPATH="+examples, "CC="+library.CC)
}
