package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// own is the test program: a Go program with modules.
func own(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func written(t *testing.T, path string) []byte {
	t.Helper()
	t.Setenv("SOURCE_DATE_EPOCH", "1764374400")
	var b bytes.Buffer
	if err := run("fwu-ab", "1.2.3~rc1", []string{path}, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBillOfAGoProgram(t *testing.T) {
	text := written(t, own(t))
	if again := written(t, own(t)); !bytes.Equal(text, again) {
		t.Error("the same file has two bills")
	}
	valid(t, text)
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(own(t))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"std@" + strings.TrimPrefix(info.GoVersion, "go")}
	for _, m := range info.Deps {
		want = append(want, m.Path+"@"+m.Version)
	}
	for _, w := range want {
		if !slices.ContainsFunc(d.Components, func(c component) bool { return c.Name+"@"+c.Version == w }) {
			t.Errorf("%s is missing", w)
		}
	}
	if len(info.Deps) == 0 {
		t.Error("the test program has no module: nothing was tested")
	}
}

func TestBillOfASharedLibrary(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		if os.Getenv("FWUAB_TEST_ALL") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	dir := t.TempDir()
	source, library := filepath.Join(dir, "a.c"), filepath.Join(dir, "liba.so")
	if err := os.WriteFile(source, []byte("#include <stdlib.h>\nvoid *f(void) { return malloc(1); }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text := written(t, library)
	valid(t, text)
	if !bytes.Contains(text, []byte(`"name": "libc.so.6"`)) {
		t.Errorf("no C library: %s", text)
	}
}

func TestNoBill(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "0")
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {text}, {"/nonexistent"}, {own(t), own(t)}} {
		if err := run("fwu-ab", "1", args, new(bytes.Buffer)); err == nil {
			t.Errorf("%v has a bill", args)
		}
	}
	t.Setenv("SOURCE_DATE_EPOCH", "today")
	if err := run("fwu-ab", "1", []string{own(t)}, new(bytes.Buffer)); err == nil {
		t.Error("a bill of no time")
	}
}

// valid checks the demands of the schema of CycloneDX 1.6 on the members that are written: required
// members, enumerations and patterns, references that exist, and no member that the schema lacks.
func valid(t *testing.T, text []byte) {
	t.Helper()
	var d document
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		t.Fatal(err)
	}
	match := func(name, pattern, value string) {
		t.Helper()
		if !regexp.MustCompile("^(" + pattern + ")$").MatchString(value) {
			t.Errorf("%s is %q, want %s", name, value, pattern)
		}
	}
	match("bomFormat", "CycloneDX", d.BOMFormat)
	match("specVersion", `1\.6`, d.SpecVersion)
	match("serialNumber", "urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", d.SerialNumber)
	if _, err := time.Parse(time.RFC3339, d.Metadata.Timestamp); err != nil || d.Version < 1 {
		t.Errorf("version %d, %v", d.Version, err)
	}
	refs := map[string]bool{}
	for _, c := range append([]component{d.Metadata.Component}, d.Components...) {
		match("type of "+c.Ref, "application|library", c.Type)
		match("name of "+c.Ref, ".+", c.Name)
		match("scope of "+c.Ref, "|required|optional|excluded", c.Scope)
		match("purl of "+c.Ref, `|pkg:(golang|generic)/[A-Za-z0-9._/%-]+@[A-Za-z0-9._%-]+`, c.PURL)
		for _, h := range c.Hashes {
			match("hash of "+c.Ref, "SHA-256 [0-9a-f]{64}", h.Algorithm+" "+h.Content)
		}
		if c.Ref == "" || refs[c.Ref] {
			t.Errorf("reference %q is empty, or used twice", c.Ref)
		}
		refs[c.Ref] = true
	}
	seen := map[string]bool{}
	for _, dep := range d.Dependencies {
		for _, ref := range append([]string{dep.Ref}, dep.DependsOn...) {
			if !refs[ref] {
				t.Errorf("dependency on %q, which is no component", ref)
			}
		}
		if seen[dep.Ref] {
			t.Errorf("dependencies of %q twice", dep.Ref)
		}
		seen[dep.Ref] = true
	}
	if len(seen) != len(refs) {
		t.Errorf("dependencies of %d components, of %d", len(seen), len(refs))
	}
}
