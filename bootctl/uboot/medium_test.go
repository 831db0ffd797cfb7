package uboot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// strict is a medium that takes whole aligned blocks only, as a device does that was opened with O_DIRECT.
type strict struct {
	*disk
	block int64
}

func (s strict) check(p []byte, off int64) error {
	if off%s.block != 0 || int64(len(p))%s.block != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%uintptr(s.block) != 0 {
		return unix.EINVAL
	}
	return nil
}

func (s strict) ReadAt(p []byte, off int64) (int, error) {
	if err := s.check(p, off); err != nil {
		return 0, err
	}
	return s.disk.ReadAt(p, off)
}

func (s strict) WriteAt(p []byte, off int64) (int, error) {
	if err := s.check(p, off); err != nil {
		return 0, err
	}
	return s.disk.WriteAt(p, off)
}

func TestBlocksKeepWhatIsAround(t *testing.T) {
	for _, block := range []int64{512, 4096} {
		for _, off := range []int64{0, 1, 511, 512, 4095, 4096, 5000} {
			for _, size := range []int{1, 511, 512, 513, 4096, 4097, 9000} {
				t.Run(fmt.Sprintf("block %d, %d bytes at %d", block, size, off), func(t *testing.T) {
					content := make([]byte, 1<<15)
					for i := range content {
						content[i] = byte(i*7 + i>>8)
					}
					want, p := bytes.Clone(content), bytes.Repeat([]byte{0xa5}, size)
					copy(want[off:], p)
					d := &disk{content: content}
					b := &blocks{strict{d, block}, block}
					if n, err := b.WriteAt(p, off); n != size || err != nil || d.writes() != 1 {
						t.Fatal(n, err)
					}
					if !bytes.Equal(want, content) {
						t.Error("the medium is not what it should be")
					}
					back := make([]byte, size)
					if n, err := b.ReadAt(back, off); n != size || err != nil || !bytes.Equal(back, p) {
						t.Error(n, err)
					}
				})
			}
		}
	}
}

func TestOpenMediumRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/dev/null":                   "MTD device is not supported",
		fifo:                          "neither a file nor a block device",
		dir:                           "neither a file nor a block device",
		filepath.Join(dir, "missing"): "no such file",
	} {
		if m, err := OpenMedium(path, true); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", path, m, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "missing")); err == nil {
		t.Error("a file was created")
	}
}

func TestFilesOfTheirOwn(t *testing.T) {
	first, second := writeFile(t, image(3, 0, "fwu_active=a")), writeFile(t, image(2, 0, "fwu_active=b"))
	c := Config{Scheme: OneShot, Locks: Locks{Root: t.TempDir()}}
	c.Open, c.Copies = OpenMedium, []Location{{first, 0, testSize}, {second, 0, testSize}}
	s := mustNew(t, c)
	if err := s.Commit(fwu.Selection{Default: fwu.BankA, Trial: fwu.BankB}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(); err != nil || got != (fwu.Selection{Default: fwu.BankA, Trial: fwu.BankB}) {
		t.Error(got, err)
	}
	if !bytes.Equal(readFile(t, first), image(3, 0, "fwu_active=a")) || !bytes.Equal(readFile(t, second), image(4, 0, "fwu_active=a", "fwu_trial=b")) {
		t.Error("files are not what they should be")
	}
	want := []string{"copy 1, " + first + " at 0x0: valid, flag 3", "copy 2, " + second + " at 0x0: valid, flag 4, active"}
	if got := s.Doctor(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", got)
	}
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(); !errors.Is(err, os.ErrNotExist) || errors.Is(err, fwu.ErrNoSelection) {
		t.Error(got, err)
	}
}

func TestDoctor(t *testing.T) {
	s, d := onDisk(t, image(3, 0, "fwu_active=x", "fwu_trial=y"), damaged(image(4, 0)))
	want := "copy 1, disk at 0x64: valid, flag 3, active\ncopy 2, disk at 0x20c8: damaged\nfwu_active is \"x\", which is no bank: treated as missing\nfwu_trial is \"y\", which is no bank: treated as missing\nfwu_active names no default bank: the bootloader tries a, then b"
	if got := strings.Join(s.Doctor(), "\n"); got != want {
		t.Error(got)
	}
	d.readFails = map[int64]bool{100: true, 0x20c8: true}
	if got := strings.Join(s.Doctor(), "\n"); !strings.Contains(got, "copy 1, disk at 0x64: read U-Boot environment disk at 0x64: I/O error") {
		t.Error(got)
	}
	d.readFails, d.content[200] = nil, 1
	if got := strings.Join(s.Doctor(), "\n"); !strings.Contains(got, "no valid boot selection") {
		t.Error(got)
	}
}

// need skips where the machine cannot do it, unless everything is to be run.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	if !ok {
		if os.Getenv("FWUAB_TEST_ALL") != "" {
			t.Fatal("needs " + what)
		}
		t.Skip("needs " + what)
	}
}

func needTool(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := exec.LookPath(name)
		need(t, err == nil, name)
	}
}

// loop makes a loop device with logical blocks of a size.
func loop(t *testing.T, file string, block int) string {
	t.Helper()
	need(t, os.Geteuid() == 0, "root")
	out, err := exec.Command("losetup", "--find", "--show", "--sector-size", fmt.Sprint(block), file).Output()
	need(t, err == nil, "loop devices")
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.Command("losetup", "--detach", dev).Run(); err != nil {
			t.Error(err)
		}
	})
	return dev
}

func TestBlockDevice(t *testing.T) {
	for _, block := range []int{512, 4096} {
		for name, offsets := range map[string][2]int64{
			"aligned":                 {0x10000, 0x10000 + testSize},
			"aligned to nothing":      {0x10000 + 100, 0x10000 + 100 + testSize},
			"from the end":            {-2 * testSize, -testSize},
			"from the end, unaligned": {-2*testSize - 3, -testSize - 1},
		} {
			t.Run(fmt.Sprintf("blocks of %d, %s", block, name), func(t *testing.T) {
				file := writeFile(t, bytes.Repeat([]byte{0xff}, 0x20000))
				dev := loop(t, file, block)
				c := Config{Scheme: OneShot, Default: ParseEnv([]byte("bootcmd=x\x00")), Locks: Locks{Root: t.TempDir()}}
				c.Open, c.Copies = OpenMedium, []Location{{dev, offsets[0], testSize}, {dev, offsets[1], testSize}}
				s := mustNew(t, c)
				for i := range 5 {
					want := fwu.Selection{Default: fwu.BankOf(i % 2), Trial: fwu.BankOf((i + 1) % 2)}
					if err := s.Commit(want); err != nil {
						t.Fatal(err)
					}
					if got, err := s.Read(); err != nil || got != want {
						t.Fatal(got, err)
					}
				}
				rest := readFile(t, file)
				for _, off := range offsets {
					if off < 0 {
						off += int64(len(rest))
					}
					copy(rest[off:], bytes.Repeat([]byte{0xff}, testSize))
				}
				if !bytes.Equal(rest, bytes.Repeat([]byte{0xff}, len(rest))) {
					t.Error("something outside of the copies changed")
				}
			})
		}
	}
}

func TestBlockDeviceIsReadPastTheCache(t *testing.T) {
	file := writeFile(t, make([]byte, 1<<16))
	dev := loop(t, file, 512)
	m, err := OpenMedium(dev, true)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, direct := m.(*blocks); !direct {
		t.Fatalf("%T", m)
	}
	if m.Size() != 1<<16 {
		t.Error(m.Size())
	}
}

func TestCopiesThatOverlapUnderTwoNames(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, make([]byte, 2*testSize), 0o600), os.Symlink("file", link)); err != nil {
		t.Fatal(err)
	}
	environment := func(second int64) Environment {
		return Environment{Copies: []Location{{file, 0, testSize}, {link, second, testSize}}, Open: OpenMedium}
	}
	if _, _, err := environment(testSize - 1).Read(); err == nil || !strings.Contains(err.Error(), "overlap") {
		t.Error("copies that share a byte:", err)
	}
	if _, _, err := environment(testSize).Read(); !errors.Is(err, fwu.ErrNoSelection) {
		t.Error("copies next to each other:", err)
	}
}

func TestSameMedium(t *testing.T) {
	dir := t.TempDir()
	one, two, hard := filepath.Join(dir, "one"), filepath.Join(dir, "two"), filepath.Join(dir, "hard")
	if err := errors.Join(os.WriteFile(one, nil, 0o600), os.WriteFile(two, nil, 0o600), os.Link(one, hard)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		a, b string
		want bool
	}{
		"one file, two names":                      {one, hard, true},
		"two files":                                {one, two, false},
		"what does not exist":                      {dir + "/x", dir + "/y", false},
		"what does not exist, written in two ways": {dir + "/x", dir + "/./x", true},
		"a file and what does not exist":           {one, dir + "/x", false},
	} {
		if got := sameMedium(tt.a, tt.b); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSameMediumOfTwoNodes(t *testing.T) {
	need(t, os.Geteuid() == 0, "root")
	dir := t.TempDir()
	nodes := map[string]int{"first": 0, "second": 0, "other": 1}
	for name, minor := range nodes {
		if err := unix.Mknod(filepath.Join(dir, name), unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(minor)))); err != nil {
			need(t, false, "device nodes: "+err.Error())
		}
	}
	for name, minor := range nodes {
		if got := sameMedium(filepath.Join(dir, "first"), filepath.Join(dir, name)); got != (minor == 0) {
			t.Errorf("first and %s: %v", name, got)
		}
	}
}
