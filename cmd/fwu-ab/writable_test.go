package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/test/lab"
)

// TestWhatTheKernelDoesNotLetWrite plants devices and file systems that are read-only. A place that
// cannot be written is refused before anything is transferred.
func TestWhatTheKernelDoesNotLetWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
	const mib = 1 << 20
	d, err := lab.New(t.TempDir(), 16*mib, mib, "detached")
	check(t, err)
	dev := loopOf(t, d.Disk)
	parts, err := partition.Finder{Disk: dev}.Partitions(t.Context())
	check(t, err)
	node := map[string]string{}
	for _, p := range parts {
		node[p.Label] = p.Path
	}
	f := partition.Finder{Disk: dev}
	slot := func() *partition.Slot {
		s, err := f.Find(t.Context(), "PARTLABEL=rootfs_b")
		check(t, err)
		return s
	}
	check(t, slot().Writable())

	refused := func(what string) {
		t.Helper()
		if err := slot().Writable(); !errors.Is(err, fwu.ErrReadOnly) || !strings.Contains(err.Error(), "blockdev --setrw") {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := slot().Open(t.Context()); !errors.Is(err, fwu.ErrReadOnly) {
			t.Errorf("%s: it was opened: %v", what, err)
		}
	}
	command(t, "blockdev", "--setro", node["rootfs_b"])
	refused("the partition is read-only")
	command(t, "blockdev", "--setrw", node["rootfs_b"])
	check(t, slot().Writable())

	command(t, "mkfs.ext4", "-q", node["rootfs_a"])
	dir := t.TempDir()
	command(t, "mount", node["rootfs_a"], dir)
	t.Cleanup(func() { command(t, "umount", dir) })
	file := filepath.Join(dir, "store")
	check(t, os.WriteFile(file, make([]byte, fwu.StoreSize), 0o600))
	check(t, f.Writable(t.Context(), file))
	command(t, "mount", "-o", "remount,ro", dir)
	if err := f.Writable(t.Context(), file); !errors.Is(err, fwu.ErrReadOnly) || !strings.Contains(err.Error(), "mounted read-only") {
		t.Errorf("a file on a read-only file system: %v", err)
	}
	if _, err := f.OpenDevice(t.Context(), file); !errors.Is(err, fwu.ErrReadOnly) {
		t.Errorf("it was opened: %v", err)
	}
}
