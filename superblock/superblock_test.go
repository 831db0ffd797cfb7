package superblock

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// makers are the tools that make file systems in a file of 320 MiB, with a label.
func makers() map[string][]string {
	return map[string][]string{
		"ext4":        {"mkfs.ext4", "-q", "-L", "my label"},
		"vfat":        {"mkfs.vfat", "-F", "32", "-n", "MY LABEL"},
		"vfat, FAT16": {"mkfs.vfat", "-F", "16", "-n", "MY LABEL"},
		"xfs":         {"mkfs.xfs", "-q", "-f", "-L", "my label"},
		"btrfs":       {"mkfs.btrfs", "-q", "-f", "-L", "my label"},
		"f2fs":        {"mkfs.f2fs", "-q", "-f", "-l", "my label"},
	}
}

// TestAsBlkidReadsIt compares with libblkid, on file systems that the real tools made.
func TestAsBlkidReadsIt(t *testing.T) {
	for name, tool := range makers() {
		t.Run(name, func(t *testing.T) {
			needs(t, tool[0], "blkid")
			file := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(file, 320<<20); err != nil {
				t.Fatal(err)
			}
			run(t, tool[0], append(tool[1:], file)...)
			compare(t, file)
		})
	}
	t.Run("squashfs", func(t *testing.T) {
		needs(t, "mksquashfs", "blkid")
		file := filepath.Join(t.TempDir(), "image")
		run(t, "mksquashfs", t.TempDir(), file, "-quiet", "-no-progress")
		compare(t, file)
	})
	t.Run("erofs", func(t *testing.T) {
		needs(t, "mkfs.erofs", "blkid")
		file := filepath.Join(t.TempDir(), "image")
		run(t, "mkfs.erofs", "-U", "0f3c0e1a-66f4-4f4b-9c67-111111111111", file, t.TempDir())
		compare(t, file)
	})
}

func compare(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for tag, value := range map[string]string{"TYPE": got.Type, "UUID": got.UUID, "LABEL": got.Label} {
		out, err := exec.Command("blkid", "-p", "-o", "value", "-s", tag, file).Output()
		if err != nil {
			t.Fatalf("blkid: %v", err)
		}
		if want := strings.TrimSpace(string(out)); value != want {
			t.Errorf("%s is %q, blkid says %q", tag, value, want)
		}
	}
}

func TestNothingKnown(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 100), make([]byte, 1<<20), bytes.Repeat([]byte{0xa5}, 1<<20)} {
		if s, err := Read(bytes.NewReader(b)); !errors.Is(err, ErrUnknown) {
			t.Errorf("%d bytes: %+v, %v", len(b), s, err)
		}
	}
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, os.ErrPermission }

func TestUnreadableIsNotUnknown(t *testing.T) {
	if _, err := Read(broken{}); errors.Is(err, ErrUnknown) || !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("hsqs"), uint32(0))
	f.Add([]byte("\x53\xef"), uint32(0x438))
	f.Add([]byte("\x10\x20\xf5\xf2"), uint32(0x400))
	f.Fuzz(func(t *testing.T, b []byte, at uint32) {
		head := make([]byte, headSize)
		copy(head[at%headSize:], b)
		if s, err := parse(head); (err == nil) == (s.Type == "") {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// needs skips where a tool is missing, unless everything is to be run.
func needs(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("FWUAB_TEST_ALL") != "" {
			t.Fatal("needs " + tool)
		}
		t.Skip("needs " + tool)
	}
}
