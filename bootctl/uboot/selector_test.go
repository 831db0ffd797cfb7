package uboot

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
)

const testSize = 0x2000

// image is a copy made by hand: entries, flag (-1: a single copy), padding.
func image(flag int, pad byte, entries ...string) []byte {
	data := []byte(strings.Join(entries, "\x00") + "\x00\x00")
	header := 4
	if flag >= 0 {
		header = 5
	}
	for len(data) < testSize-header {
		data = append(data, pad)
	}
	out := binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(data))
	if flag >= 0 {
		out = append(out, byte(flag))
	}
	return append(out, data...)
}

func damaged(b []byte) []byte {
	b = append([]byte(nil), b...)
	b[len(b)/2] ^= 1
	return b
}

func writeFile(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// onFile is a selector on a file that holds the copies one after the other.
func onFile(t *testing.T, copies ...[]byte) (*Selector, string) {
	t.Helper()
	var content []byte
	c := Config{Scheme: OneShot, Locks: Locks{Root: t.TempDir()}}
	c.Open, c.SingleCopy = OpenMedium, len(copies) == 1
	for i, b := range copies {
		content = append(content, b...)
		c.Copies = append(c.Copies, Location{Offset: int64(i) * testSize, Size: testSize})
	}
	path := writeFile(t, content)
	for i := range c.Copies {
		c.Copies[i].Path = path
	}
	return mustNew(t, c), path
}

func mustNew(t *testing.T, c Config) *Selector {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRead(t *testing.T) {
	a, b := []string{"x=y=z", "fwu_active=a"}, []string{"fwu_active=b", "fwu_trial=a"}
	selA, selB := fwu.Selection{Default: fwu.BankA}, fwu.Selection{Default: fwu.BankB, Trial: fwu.BankA}
	for name, tt := range map[string]struct {
		copies [][]byte
		want   fwu.Selection
		lost   bool
	}{
		"single copy":                     {copies: [][]byte{image(-1, 0, a...)}, want: selA},
		"single copy damaged":             {copies: [][]byte{damaged(image(-1, 0, a...))}, lost: true},
		"first is newer":                  {copies: [][]byte{image(7, 0, a...), image(6, 0, b...)}, want: selA},
		"second is newer":                 {copies: [][]byte{image(7, 0, a...), image(8, 0, b...)}, want: selB},
		"equal flags":                     {copies: [][]byte{image(7, 0, a...), image(7, 0, b...)}, want: selA},
		"counter of the second wrapped":   {copies: [][]byte{image(255, 0, a...), image(0, 0, b...)}, want: selB},
		"counter of the first wrapped":    {copies: [][]byte{image(0, 0, a...), image(255, 0, b...)}, want: selA},
		"newer one damaged":               {copies: [][]byte{image(7, 0, a...), damaged(image(8, 0, b...))}, want: selA},
		"older one damaged":               {copies: [][]byte{damaged(image(7, 0, a...)), image(8, 0, b...)}, want: selB},
		"both damaged":                    {copies: [][]byte{damaged(image(7, 0, a...)), damaged(image(8, 0, b...))}, lost: true},
		"erased flash":                    {copies: [][]byte{[]byte(strings.Repeat("\xff", testSize)), []byte(strings.Repeat("\xff", testSize))}, lost: true},
		"padded as mkenvimage does":       {copies: [][]byte{image(7, 0xff, a...), image(8, 0xff, b...)}, want: selB},
		"variables missing":               {copies: [][]byte{image(1, 0, "bootcmd=x"), image(0, 0)}},
		"value that is no bank":           {copies: [][]byte{image(1, 0, "fwu_active=c", "fwu_trial=ab"), image(0, 0)}},
		"active twice, the last counts":   {copies: [][]byte{image(1, 0, "fwu_active=a", "fwu_active=b", "fwu_trial=a"), image(0, 0)}, want: selB},
		"value empty, as if deleted":      {copies: [][]byte{image(1, 0, "fwu_active=a", "fwu_trial=b", "fwu_trial="), image(0, 0)}, want: selA},
		"comment and blanks, as U-Boot's": {copies: [][]byte{image(1, 0, " fwu_active=a", "#fwu_active=b"), image(0, 0)}, want: selA},
	} {
		t.Run(name, func(t *testing.T) {
			s, path := onFile(t, tt.copies...)
			before := readFile(t, path)
			got, err := s.Read()
			if errors.Is(err, fwu.ErrNoSelection) != tt.lost || (err != nil) != tt.lost {
				t.Fatalf("error %v, lost %v", err, tt.lost)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(before, readFile(t, path)); diff != "" {
				t.Error("reading wrote", diff)
			}
		})
	}
}

func TestRepairBringsADamagedCopyBack(t *testing.T) {
	for name, damaged := range map[string]int{"the first": 0, "the second": 1} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "env")
			if err := os.WriteFile(path, make([]byte, 0x4000), 0o600); err != nil {
				t.Fatal(err)
			}
			base, err := ParseDefault([]byte("bootcmd=run fwu_ab\nother=1\n"))
			if err != nil {
				t.Fatal(err)
			}
			e := Environment{Copies: []Location{{path, 0, 0x2000}, {path, 0x2000, 0x2000}}, Open: OpenMedium}
			s, err := New(Config{Environment: e, Scheme: OneShot, Default: base, Locks: Locks{Root: t.TempDir()}})
			if err != nil {
				t.Fatal(err)
			}
			for _, sel := range []fwu.Selection{{Default: fwu.BankA, Trial: fwu.BankB}, {Default: fwu.BankB}} {
				if err := s.Commit(sel); err != nil {
					t.Fatal(err)
				}
			}
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			file[damaged*0x2000+100] ^= 1
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			before, err := s.Read()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Repair(); err != nil {
				t.Fatal(err)
			}
			after, err := s.Read()
			if err != nil || after != before {
				t.Fatalf("read %v, %v after the repair, %v before", after, err, before)
			}
			_, copies, err := e.Read()
			if err != nil || !copies[0].Valid || !copies[1].Valid || !copies[0].Env.Equal(copies[1].Env) {
				t.Fatalf("copies %+v, %v", copies, err)
			}
		})
	}
}
