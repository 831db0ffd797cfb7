package suit

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documented is what the examples in docs/manifest.md encode: the hexadecimal digits at the begin of each line.
func documented(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "manifest.md"))
	if err != nil {
		t.Fatal(err)
	}
	digits := regexp.MustCompile(`^ *((?:[0-9a-f]{2})+(?: (?:[0-9a-f]{2})+)*)(?:  |$)`)
	var blocks []string
	for _, block := range regexp.MustCompile("(?s)```text\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		var b strings.Builder
		for line := range strings.Lines(block[1]) {
			m := digits.FindStringSubmatch(strings.TrimRight(line, "\n"))
			if m == nil {
				t.Fatalf("line without bytes: %q", line)
			}
			b.WriteString(strings.ReplaceAll(m[1], " ", ""))
		}
		blocks = append(blocks, b.String())
	}
	return blocks
}

func TestDocumentedBytesAreThoseThatAreMade(t *testing.T) {
	blocks := documented(t)
	if len(blocks) != 2 {
		t.Fatalf("%d examples", len(blocks))
	}
	if got := hex.EncodeToString(mustSign(t, mustCreate(t, small()), edKey())); got != blocks[0] {
		t.Errorf("small manifest is\n%s, documented as\n%s", got, blocks[0])
	}
	spec := full()
	spec.Dependencies = spec.Dependencies[:1]
	f, err := whole(mustCreate(t, spec))
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(f.manifest); !strings.HasSuffix(got, blocks[1]) {
		t.Errorf("manifest\n%s does not end with\n%s", got, blocks[1])
	}
}
