package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRelease(t *testing.T) {
	for name, c := range map[string]struct{ mod, running, want string }{
		"fixed":                     {"go 1.26.0\n\ntoolchain go1.26.8\n", "go1.26.8", ""},
		"newer":                     {"toolchain go1.26.4\n", "go1.27.0", ""},
		"with an experiment":        {"toolchain go1.26.4\n", "go1.26.4 X:nodwarf5", ""},
		"no toolchain line":         {"go 1.26.0\n", "go1.26.8", "no toolchain line"},
		"toolchain with holes":      {"toolchain go1.26.3\n", "go1.26.8", "known holes"},
		"running release is older":  {"toolchain go1.26.4\n", "go1.26.0", "this is go1.26.0"},
		"ten is more than four":     {"toolchain go1.26.10\n", "go1.26.10", ""},
		"release candidate is less": {"toolchain go1.26rc1\n", "go1.26.8", "known holes"},
	} {
		t.Run(name, func(t *testing.T) {
			err := release(c.mod, c.running)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestMeasure(t *testing.T) {
	long := strings.Repeat("word ", 30)
	for name, c := range map[string]struct {
		file, text string
		faults     int
	}{
		"short comment":                       {"a.go", "package a\n\n// A is a thing.\nconst A = 1\n", 0},
		"long comment":                        {"a.go", "package a\n\n// " + long + "\nconst A = 1\n", 1},
		"long comment after code":             {"a.go", "package a\n\nconst A = 1 // " + long + "\n", 1},
		"long block":                          {"a.go", "package a\n\n/*\nshort here\n" + long + "\n*/\nconst A = 1\n", 1},
		"long code":                           {"a.go", "package a\n\nconst A = \"" + long + "\"\n", 0},
		"comment signs in a string":           {"a.go", "package a\n\nconst A = \"// what " + long + "\"\n", 0},
		"long address":                        {"a.go", "package a\n\n// https://example.com/" + strings.Repeat("x", 120) + "\nconst A = 1\n", 0},
		"what":                                {"a.go", "package a\n\n// A is what it is.\nconst A = 1\n", 1},
		"what in one line of fifty":           {"a.go", "package a\n\n// What it is.\n" + strings.Repeat("// a line\n", 49) + "const A = 1\n", 0},
		"whatever":                            {"a.go", "package a\n\n// A is whatever it is.\nconst A = 1\n", 0},
		"page":                                {"a.md", "# A page\n\nShort lines.\n", 0},
		"long line of a page":                 {"a.md", long + "\n", 1},
		"long line of code, a table, a fence": {"a.md", "    " + long + "\n| " + long + " |\n```\n" + long + "\n```\nEnd of page.\n", 0},
		"prose after a fence":                 {"a.md", "```\ncode\n```\n" + long + "\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), c.file)
			if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := measure(path)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != c.faults {
				t.Errorf("faults %q, want %d", got, c.faults)
			}
		})
	}
}

func TestLinks(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, c := range map[string]struct {
		text string
		bad  int
	}{
		"file":                  {"[a](other.md)", 0},
		"section":               {"[a](other.md#a-section-2)", 0},
		"own section":           {"# Who, me?\n[a](#who-me)", 0},
		"address":               {"[a](https://example.com/other) [b]: mailto:a@example.com", 0},
		"reference":             {"[a][b]\n\n[b]: other.md\n", 0},
		"no file":               {"[a](nowhere.md)", 1},
		"no section":            {"[a](other.md#elsewhere)", 1},
		"reference to no file":  {"[a][b]\n\n[b]: nowhere.md\n", 1},
		"two links of one line": {"[a](nowhere.md) and [b](#nowhere)", 2},
	} {
		t.Run(name, func(t *testing.T) {
			for file, text := range map[string]string{"page.md": c.text, "other.md": "## A `section` 2\n"} {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			err := links([]string{"page.md"})
			bad := 0
			if err != nil {
				bad = strings.Count(err.Error(), "\n") + 1
			}
			if bad != c.bad {
				t.Errorf("got %v, want %d errors", err, c.bad)
			}
		})
	}
}

// The checkout itself keeps the rules: the same as make check.
func TestCheckout(t *testing.T) {
	t.Chdir("../..")
	if err := run(false); err != nil {
		t.Error(err)
	}
}
