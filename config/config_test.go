package config

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheExampleLoads(t *testing.T) {
	data, err := os.ReadFile("../share/fwu-ab.toml.example")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	write(t, root, VendorFile, string(data))
	c, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + c.Report.String())
}

func write(t *testing.T, root, file, content string) {
	t.Helper()
	path := filepath.Join(root, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
