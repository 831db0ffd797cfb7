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

// Each test that the pages on security name is in the tree, and each demand of a standard has one,
// or a reason why it has none.
func TestPagesOnSecurityNameTests(t *testing.T) {
	const root = "../.."
	var all bytes.Buffer
	check(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	}))
	test, script := regexp.MustCompile("`(Test[A-Za-z0-9]+)`"), regexp.MustCompile("script `([a-z]+)`")
	for name, least := range map[string]int{"security.md": 9, "requirements.md": 40} {
		page, err := os.ReadFile(filepath.Join(root, "docs", name))
		check(t, err)
		names := test.FindAllSubmatch(page, -1)
		if len(names) < least {
			t.Errorf("%s: found %d names of tests", name, len(names))
		}
		for _, n := range names {
			if !bytes.Contains(all.Bytes(), []byte("func "+string(n[1])+"(t ")) {
				t.Errorf("%s: there is no %s", name, n[1])
			}
		}
		for _, s := range script.FindAllSubmatch(page, -1) {
			if _, err := os.Stat("testdata/script/" + string(s[1]) + ".txtar"); err != nil {
				t.Error(err)
			}
		}
	}
	page, err := os.ReadFile(filepath.Join(root, "docs/requirements.md"))
	check(t, err)
	rows := 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 || strings.HasPrefix(cells[0], "---") || strings.TrimSpace(cells[2]) == "shown by" {
			continue
		}
		rows++
		shown := strings.TrimSpace(cells[2])
		if !test.MatchString(shown) && !strings.HasPrefix(shown, "none: ") && !strings.HasPrefix(shown, "not ours: ") {
			t.Errorf("%s: shown by %q", strings.TrimSpace(cells[0]), shown)
		}
	}
	if rows < 40 {
		t.Errorf("%d rows", rows)
	}
}
