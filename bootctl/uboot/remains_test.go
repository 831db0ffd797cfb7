package uboot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// text is a board's environment that is longer than one sector.
func boardText() string {
	return "arch=arm\nbootcmd=run fwu_ab\nethaddr=02:00:00:00:00:01\nserial#=4711\nfiller=" + strings.Repeat("x", 900) + "\n"
}

func madeBy(t *testing.T, size int64, args ...string) []byte {
	t.Helper()
	return mkenvimage(t, boardText(), append([]string{"-s", fmt.Sprint(size)}, args...)...)
}

// place lays parts one after another on a medium of 2 MiB of blanks, from offset 0x10000 on.
func place(parts ...[]byte) []byte {
	disk := bytes.Repeat([]byte{0}, 2<<20)
	at := 0x10000
	for _, p := range parts {
		at += copy(disk[at:], p)
	}
	return disk
}

// TestDefaultEnvironmentIsNotWrittenOverOthersBytes has a default environment and no valid copy,
// and the content there is not ours.
func TestDefaultEnvironmentIsNotWrittenOverOthersBytes(t *testing.T) {
	ext4 := func(t *testing.T) []byte {
		file := writeFile(t, make([]byte, 1<<20))
		needTool(t, "mkfs.ext4")
		if out, err := exec.Command("mkfs.ext4", "-q", file).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.ext4: %v: %s", err, out)
		}
		return readFile(t, file)
	}
	flipped := func(b []byte) []byte { b[700] ^= 1; return b }
	for name, tt := range map[string]struct {
		content func(t *testing.T) []byte
		copies  int
		size    int64
		says    string
	}{
		"U-Boot has a smaller one":          {func(t *testing.T) []byte { return place(madeBy(t, 0x2000)) }, 1, 0x4000, "with 0x2000 bytes and one copy"},
		"U-Boot has a larger one":           {func(t *testing.T) []byte { return place(madeBy(t, 0x100000)) }, 1, 0x4000, "with 0x100000 bytes and one copy"},
		"U-Boot has one copy, two are said": {func(t *testing.T) []byte { return place(madeBy(t, 0x4000)) }, 2, 0x4000, "with 0x4000 bytes and one copy"},
		"U-Boot has two copies, one is said": {func(t *testing.T) []byte { return place(madeBy(t, 0x4000, "-r"), madeBy(t, 0x4000, "-r")) }, 1, 0x4000,
			"with 0x4000 bytes and two copies"},
		"two smaller copies":             {func(t *testing.T) []byte { return place(madeBy(t, 0x2000, "-r"), madeBy(t, 0x2000, "-r")) }, 2, 0x4000, "with 0x2000 bytes and two copies"},
		"one damaged copy, two are said": {func(t *testing.T) []byte { return place(flipped(madeBy(t, 0x4000))) }, 2, 0x4000, "neither a copy"},
		"two damaged copies, one is said": {func(t *testing.T) []byte {
			return place(flipped(madeBy(t, 0x4000, "-r")), flipped(madeBy(t, 0x4000, "-r")))
		}, 1, 0x4000,
			"neither a copy"},
		"a file system":               {func(t *testing.T) []byte { return place(ext4(t)) }, 1, 0x4000, "neither a copy"},
		"a file system in the second": {func(t *testing.T) []byte { return place(make([]byte, 0x4000), ext4(t)) }, 2, 0x4000, "neither a copy"},
		"a device tree":               {func(*testing.T) []byte { return place([]byte("\xd0\x0d\xfe\xed\x00\x00\x10\x00compatible\x00")) }, 1, 0x4000, "neither a copy"},
		"zeroes, then a program":      {func(*testing.T) []byte { return place(make([]byte, 0x3000), []byte("\x7fELF")) }, 1, 0x4000, "neither a copy"},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeFile(t, tt.content(t))
			c := Config{Scheme: OneShot, Default: ParseEnv([]byte("bootcmd=x\x00")), Locks: Locks{Root: t.TempDir()}}
			c.Open, c.SingleCopy = OpenMedium, tt.copies == 1
			for i := range tt.copies {
				c.Copies = append(c.Copies, Location{file, 0x10000 + int64(i)*tt.size, tt.size})
			}
			before := readFile(t, file)
			s := mustNew(t, c)
			err := s.Commit(fwu.Selection{Default: fwu.BankA})
			if !errors.Is(err, fwu.ErrNoSelection) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			if !bytes.Equal(before, readFile(t, file)) {
				t.Error("it was written over")
			}
			if !strings.Contains(tt.says, "neither") {
				if _, err := s.Read(); !errors.Is(err, fwu.ErrNoSelection) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("read: got %v, want %q", err, tt.says)
				}
			}
		})
	}
}

// TestDefaultEnvironmentIsWritten has places that may be taken.
func TestDefaultEnvironmentIsWritten(t *testing.T) {
	flipped := func(b []byte, flag int) []byte {
		b[700] ^= 1
		if flag >= 0 {
			b[4] = byte(flag)
		}
		return b
	}
	for name, tt := range map[string]struct {
		copies [][]byte
		ok     bool
	}{
		"one copy, zeroes":                          {[][]byte{make([]byte, testSize)}, true},
		"one copy, erased flash":                    {[][]byte{bytes.Repeat([]byte{0xff}, testSize)}, true},
		"two copies, one erased":                    {[][]byte{make([]byte, testSize), bytes.Repeat([]byte{0xff}, testSize)}, true},
		"one copy, damaged":                         {[][]byte{flipped(mkenvimage(t, boardText()), -1)}, true},
		"two copies, damaged":                       {[][]byte{flipped(mkenvimage(t, boardText(), "-r"), 1), flipped(mkenvimage(t, boardText(), "-r"), 2)}, true},
		"two copies, damaged, flags like letters":   {[][]byte{flipped(mkenvimage(t, boardText(), "-r"), 'a'), flipped(mkenvimage(t, boardText(), "-r"), 'b')}, true},
		"two copies, a flag that could be a letter": {[][]byte{flipped(mkenvimage(t, boardText(), "-r"), 'a'), make([]byte, testSize)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, d := onDisk(t, tt.copies...)
			s.config.Default = ParseEnv([]byte("bootcmd=x\x00"))
			err := s.Commit(fwu.Selection{Default: fwu.BankA})
			if (err == nil) != tt.ok || (d.writes() == 1) != tt.ok {
				t.Errorf("%v, %d writes", err, d.writes())
			}
		})
	}
}

// TestSecondCopyInTheWrongPlaceIsNotOverwritten has one valid copy, and something else where the
// other one is said to be.
func TestSecondCopyInTheWrongPlaceIsNotOverwritten(t *testing.T) {
	valid := image(7, 0, around("fwu_active=a")...)
	elf := append([]byte("\x7fELF\x02\x01"), make([]byte, testSize-6)...)
	s, d := onDisk(t, valid, elf)
	for what, do := range map[string]func() error{"commit": func() error { return s.Commit(fwu.Selection{Default: fwu.BankB}) }, "repair": s.Repair} {
		if err := do(); !errors.Is(err, fwu.ErrNoSelection) || d.writes() != 0 {
			t.Errorf("%s: %v, %d writes", what, err, d.writes())
		}
	}
	if sel, err := s.Read(); err != nil || sel.Default != fwu.BankA {
		t.Error(sel, err)
	}
	s, d = onDisk(t, valid, make([]byte, testSize))
	s.config.Free = func(l Location) error { return fmt.Errorf("%s is somebody's: %w", l, os.ErrPermission) }
	if err := s.Commit(fwu.Selection{Default: fwu.BankB}); !errors.Is(err, os.ErrPermission) || d.writes() != 0 {
		t.Errorf("%v, %d writes", err, d.writes())
	}
}

func FuzzGeometry(f *testing.F) {
	f.Add(image(1, 0, "a=b"), 5)
	f.Add(image(-1, 0, "a=b"), 4)
	f.Add([]byte{0, 0, 0, 0}, 4)
	f.Fuzz(func(t *testing.T, b []byte, header int) {
		for _, g := range findGeometry(b) {
			c := Copy{Location: Location{Size: g.size}}
			if c.decode(b[:g.size], g.copies); !c.Valid {
				t.Errorf("%+v does not fit", g)
			}
		}
		if (header == 4 || header == 5) && len(b) > header {
			classify(b, header)
		}
	})
}
