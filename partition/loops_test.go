package partition

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// TestLoopDeviceWhosePathIsGone has slots mounted through loop devices that were attached by a path
// that leads nowhere now.
func TestLoopDeviceWhosePathIsGone(t *testing.T) {
	needs(t, true, "mkfs.ext4", "mount", "umount")
	tests := map[string]func(t *testing.T, dir string) (slot, through string){
		"a file": func(t *testing.T, dir string) (string, string) {
			slot := newFileSlot(t, 16*mib)
			path := filepath.Join(dir, "link")
			check(t, os.Link(slot, path))
			return slot, path
		},
		"a device": func(t *testing.T, dir string) (string, string) {
			slot := loopDevice(t, newFileSlot(t, 16*mib))
			number, _, err := blockNumber(slot)
			check(t, err)
			path := filepath.Join(dir, "node")
			check(t, unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(number.major, number.minor))))
			return slot, path
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("/dev", "fwu-ab-test-") // where a node is one
			check(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			if name == "a file" {
				dir = t.TempDir()
			}
			slot, path := prepare(t, dir)
			dev := loopDevice(t, path)
			check(t, os.Remove(path))
			run(t, "mkfs.ext4", "-q", dev)
			run(t, "mount", dev, t.TempDir())
			t.Cleanup(func() { run(t, "umount", dev) })

			s := find(t, Finder{}, slot)
			m, err := s.Open(t.Context())
			if err == nil {
				m.Close()
			}
			wantErr(t, err, fwu.ErrSlotBusy)
			if want := "attached to " + filepath.Base(dev); !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
			src, err := s.Source(t.Context())
			check(t, err)
			defer src.Close()
			if src.Frozen() == nil {
				t.Error("frozen though it is mounted writable")
			}
		})
	}
}
