package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that docs/security.md names is in the tree.
func TestThreatModelNamesTests(t *testing.T) {
	const root = "../.."
	page, err := os.ReadFile(filepath.Join(root, "docs/security.md"))
	check(t, err)
	var all bytes.Buffer
	check(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	}))
	names := regexp.MustCompile("`(Test[A-Za-z]+)`").FindAllSubmatch(page, -1)
	if len(names) < 9 {
		t.Fatalf("found %d names of tests", len(names))
	}
	for _, n := range names {
		if !bytes.Contains(all.Bytes(), []byte("func "+string(n[1])+"(")) {
			t.Errorf("there is no %s", n[1])
		}
	}
	for _, s := range regexp.MustCompile("script `([a-z]+)`").FindAllSubmatch(page, -1) {
		if _, err := os.Stat("testdata/script/" + string(s[1]) + ".txtar"); err != nil {
			t.Error(err)
		}
	}
}
