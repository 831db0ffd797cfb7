package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The tree is that of a disk with a partition, as the kernel shows it: what is in dev/block are links.
func TestTheDiskOfAPartition(t *testing.T) {
	sys := t.TempDir()
	for name, text := range map[string]string{"devices/disk/dev": "179:0\n", "devices/disk/part/dev": "179:2\n", "devices/disk/part/start": "2048\n"} {
		if err := os.MkdirAll(filepath.Join(sys, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(sys, "dev/block"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"179:0": "../../devices/disk", "179:2": "../../devices/disk/part"} {
		if err := os.Symlink(to, filepath.Join(sys, "dev/block", link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		minor uint32
		disk  uint32
		start int64
	}{{"a disk", 0, 0, 0}, {"a partition", 2, 0, 2048 * 512}, {"a device that is not known", 7, 7, 0}} {
		disk, start, err := wholeDisk(sys, unix.Mkdev(179, c.minor))
		if err != nil || disk != unix.Mkdev(179, c.disk) || start != c.start {
			t.Errorf("%s is on %d:%d at %d, want 179:%d at %d (%v)", c.name, unix.Major(disk), unix.Minor(disk), start, c.disk, c.start, err)
		}
	}
}
