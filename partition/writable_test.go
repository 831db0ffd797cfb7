package partition

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// TestWriteProtectionOfBootPartitions has the files that the kernel shows of an eMMC boot
// partition.
func TestWriteProtectionOfBootPartitions(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "sys/dev/block/179:32")
	check(t, os.MkdirAll(dir, 0o755))
	force := filepath.Join(dir, "force_ro")
	put := func(file, value string) { check(t, os.WriteFile(filepath.Join(dir, file), []byte(value+"\n"), 0o644)) }
	is := func(want string) {
		t.Helper()
		b, err := os.ReadFile(force)
		check(t, err)
		equal(t, "force_ro", string(b[:1]), want)
	}
	target := target{path: "/dev/mmcblk0boot0", dev: devno{179, 32}, block: true, size: 1 << 20}
	put("force_ro", "1")
	put("ro", "1")
	if err := (host{root: root}).writable(target); !errors.Is(err, fwu.ErrReadOnly) || !strings.Contains(err.Error(), "lift-force-ro = true") {
		t.Errorf("not to be lifted: %v", err)
	}
	lifting := host{root: root, lift: true}
	check(t, lifting.writable(target))
	protect, err := lifting.unprotect(target)
	check(t, err)
	is("0")
	check(t, protect())
	is("1")
	protect, err = host{root: root}.unprotect(target)
	check(t, err)
	is("1")
	check(t, protect())

	put("force_ro", "0")
	if err := lifting.writable(target); !errors.Is(err, fwu.ErrReadOnly) {
		t.Errorf("read-only for another reason: %v", err)
	}
	put("ro", "0")
	check(t, lifting.writable(target))
	put("ro", "what")
	if err := lifting.writable(target); err == nil || errors.Is(err, fwu.ErrReadOnly) {
		t.Errorf("an attribute that cannot be read: %v", err)
	}
}
