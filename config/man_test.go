package config

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTheManualHasEveryKey compares fwu-ab.toml(5) with what is asked of a file that has everything. In the page a heading names a table, [[name]] where it is in an array, and a tag
// in bold a key of it.
func TestTheManualHasEveryKey(t *testing.T) {
	n, err := parse("example", []byte(wholeExample(t)))
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{}
	r.config(n)
	known := map[string]bool{}
	given := regexp.MustCompile(`^(component|selector\.uboot\.bank-variables)\.[^.]+`)
	for _, key := range r.asked {
		known[regexp.MustCompile(`\[\d+\]`).ReplaceAllString(given.ReplaceAllString(key, "$1.NAME"), "")] = true
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(known)), slices.Sorted(maps.Keys(keysOfManual(t)))); diff != "" {
		t.Error("-known to the program +in the page:\n" + diff)
	}
}

func keysOfManual(t *testing.T) map[string]bool {
	t.Helper()
	data, err := os.ReadFile("../man/fwu-ab.toml.5")
	if err != nil {
		t.Fatal(err)
	}
	_, page, _ := strings.Cut(strings.ReplaceAll(string(data), `\-`, "-"), ".SH KEYS\n")
	page, _, _ = strings.Cut(page, ".SH ")
	keys := map[string]bool{}
	table := ""
	tag := regexp.MustCompile(`^\.BR? (.*)$`)
	lines := strings.Split(page, "\n")
	for i, line := range lines {
		if heading, ok := strings.CutPrefix(line, ".SS "); ok {
			table = ""
			for _, part := range strings.Split(strings.Trim(heading, "[]"), ".") {
				if heading[0] == '[' {
					table += part
					keys[table] = true
					table += "."
				}
			}
		}
		if m := tag.FindStringSubmatch(line); m != nil && lines[max(i-1, 0)] == ".TP" {
			for _, key := range strings.Split(m[1], ` ", " `) {
				keys[table+key] = true
			}
		}
	}
	return keys
}
