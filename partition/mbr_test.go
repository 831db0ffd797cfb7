package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// mbrDisk makes an image with primary and logical partitions, by sfdisk.
func mbrDisk(t testing.TB, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	check(t, os.WriteFile(path, nil, 0o600))
	check(t, os.Truncate(path, 16*mib))
	cmd := exec.Command("sfdisk", "--quiet", path)
	cmd.Stdin = strings.NewReader("label: dos\nlabel-id: 0x9bdf2dc6\n" + script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	return path
}

const fourPlaces = "start=1MiB, size=1MiB, type=c\nstart=2MiB, size=2MiB\nstart=4MiB, size=10MiB, type=5\nstart=15MiB, size=1MiB\nstart=5MiB, size=2MiB\nstart=8MiB, size=1MiB\n"

// TestMBRAsOthersReadIt compares with partx, which has the kernel's rules, and with the nodes of a
// loop device.
func TestMBRAsOthersReadIt(t *testing.T) {
	needs(t, true, "sfdisk", "partx", "losetup")
	path := mbrDisk(t, fourPlaces)
	out := run(t, "partx", "--noheadings", "--raw", "--output", "NR,START,SECTORS,UUID", path)
	var want []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); f[0] != "3" { // the extended partition holds no image
			want = append(want, strings.Join(f, " "))
		}
	}
	parts, err := Finder{Disk: path}.Partitions(t.Context())
	check(t, err)
	var got []string
	for _, p := range parts {
		got = append(got, fmt.Sprintf("%d %d %d %s", p.Number, p.Start/512, p.Size/512, p.UUID))
	}
	sortByNumber(want)
	sortByNumber(got)
	equal(t, "partitions", strings.Join(got, "\n"), strings.Join(want, "\n"))

	dev := partitioned(t, path, 512)
	f := Finder{Disk: dev}
	for spec, node := range map[string]string{"PARTUUID=9bdf2dc6-02": "p2", "PARTUUID=9BDF2DC6-05": "p5"} {
		waitFor(t, dev+node)
		s := find(t, f, spec)
		id := "partuuid:" + strings.ToLower(strings.TrimPrefix(spec, "PARTUUID="))
		equal(t, "info", s.Info(), fwu.SlotInfo{ID: id, Path: dev + node, Size: 2 * mib})
		equal(t, "info by path", find(t, Finder{}, dev+node).Info(), s.Info())
		wholeUpdate(t, s, squashfs(2*mib-5))
	}
	if _, err := f.Find(t.Context(), "PARTUUID=9bdf2dc6-03"); err == nil {
		t.Error("the extended partition is a slot")
	}
}

func sortByNumber(lines []string) {
	for i := range lines {
		for j := i; j > 0 && lines[j] < lines[j-1]; j-- {
			lines[j], lines[j-1] = lines[j-1], lines[j]
		}
	}
}

// TestOldBackupGPTBehindAnMBR is of a disk that had a GUID partition table once: the kernel
// believes the MBR.
func TestOldBackupGPTBehindAnMBR(t *testing.T) {
	needs(t, true, "sfdisk", "partx", "losetup")
	path := mbrDisk(t, "start=1MiB, size=1MiB\nstart=2MiB, size=1MiB\n")
	old := readFile(t, twoSlots(t, 512))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	gpt := bytes.Clone(old[len(old)-512:]) // a header that says where it is on the larger disk
	last := uint64(16*mib/512 - 1)
	binary.LittleEndian.PutUint64(gpt[24:], last)
	binary.LittleEndian.PutUint64(gpt[72:], last-32)
	sumHeader(gpt)
	_, err = f.WriteAt(append(bytes.Clone(old[len(old)-33*512:len(old)-512]), gpt...), 16*mib-33*512)
	check(t, err)
	check(t, f.Close())
	b := readFile(t, path)
	if _, err := readGPT(bytes.NewReader(b), int64(len(b)), 512); err != nil {
		t.Fatal("the old backup is no good one:", err)
	}
	dev := partitioned(t, path, 512)
	equal(t, "identity", find(t, Finder{}, dev+"p2").Info().ID, "partuuid:9bdf2dc6-02")
	if _, err := (Finder{Disk: dev}).Find(t.Context(), "PARTLABEL=rootfs-b"); err == nil {
		t.Error("a label of a table that does not count was found")
	}

	clear(b[mbrEntries : mbrEntries+64]) // no table in the MBR either
	if _, err := readTable(bytes.NewReader(b), int64(len(b)), []int{512}); !errors.Is(err, errNoTable) || !strings.Contains(err.Error(), "protective MBR") {
		t.Error(err)
	}
}

func TestDamagedTablesAreMentioned(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(b []byte) []byte
		err    string
		note   string
	}{
		"intact":                    {func(b []byte) []byte { return b }, "", ""},
		"primary damaged":           {func(b []byte) []byte { b[600] ^= 1; return b }, "", "primary GUID partition table is damaged"},
		"backup damaged":            {func(b []byte) []byte { b[len(b)-500] ^= 1; return b }, "", "backup of the GUID partition table is damaged"},
		"the disk has grown":        {func(b []byte) []byte { return append(b, make([]byte, mib)...) }, "", "not at the end of the disk"},
		"cut by a smaller disk":     {func(b []byte) []byte { return b[:len(b)-mib] }, "this one has 6144", ""},
		"protected, and no table":   {func(b []byte) []byte { clear(b[512:]); return b }, "protective MBR, and there is no GUID partition table", ""},
		"protective MBR is missing": {func(b []byte) []byte { clear(b[:512]); return b }, "no protective MBR", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := tt.change(readFile(t, twoSlots(t, 512)))
			got, err := readTable(bytes.NewReader(b), int64(len(b)), []int{512, 4096})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				return
			}
			check(t, err)
			equal(t, "partitions", len(got.entries), 2)
			if notes := strings.Join(got.notes, "; "); !strings.Contains(notes, tt.note) || tt.note == "" && notes != "" {
				t.Errorf("notes %q, want %q", notes, tt.note)
			}
		})
	}
}

// TestMBRAtItsLimits has chains that lead out of the disk, or nowhere.
func TestMBRAtItsLimits(t *testing.T) {
	base := readFile(t, mbrDisk(t, fourPlaces))
	ebr := func(n int) int { // offset of the record of logical partition n
		m, err := readTable(bytes.NewReader(base), int64(len(base)), []int{512})
		check(t, err)
		return int(m.places[n-4].Start)
	}
	le := binary.LittleEndian
	for name, tt := range map[string]struct {
		change     func(b []byte)
		partitions int
		err        string
	}{
		"as it was made":              {func([]byte) {}, 5, ""},
		"a chain that ends early":     {func(b []byte) { clear(b[ebr(5)+mbrEntries+16 : ebr(5)+mbrEntries+32]) }, 4, ""},
		"a chain without a signature": {func(b []byte) { b[ebr(6)+510] = 0 }, 4, ""},
		"a chain that leads out":      {func(b []byte) { le.PutUint32(b[ebr(5)+mbrEntries+16+8:], 1<<31) }, 0, "the disk has"},
		"a chain to itself": {func(b []byte) {
			le.PutUint32(b[ebr(6)+mbrEntries+16+8:], 1)
			b[ebr(6)+mbrEntries+16+4] = 5
			b[ebr(6)+mbrEntries+16+12] = 1
		}, -1, ""},
		"a partition behind the end": {func(b []byte) { le.PutUint32(b[mbrEntries+16+8:], 1<<20) }, 4, ""},
		"a FAT file system":          {func(b []byte) { b[mbrEntries] = 0x20 }, 0, "no partition table"},
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(base)
			tt.change(b)
			got, err := readTable(bytes.NewReader(b), int64(len(b)), []int{512})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			check(t, err)
			if tt.partitions >= 0 {
				equal(t, "partitions", len(got.entries), tt.partitions)
			}
		})
	}
}

func FuzzReadTable(f *testing.F) {
	gpt := readFile(f, twoSlots(f, 512))
	f.Add(gpt[:34*512], uint16(0), []byte{})
	mbr := make([]byte, 512)
	mbr[510], mbr[511] = 0x55, 0xaa
	copy(mbr[mbrEntries:], []byte{0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 100, 0, 0, 0})
	f.Add(mbr, uint16(512), mbr)
	f.Fuzz(func(t *testing.T, first []byte, at uint16, second []byte) {
		disk := make([]byte, 128<<10)
		copy(disk, first)
		copy(disk[at:], second)
		got, err := readTable(bytes.NewReader(disk), int64(len(disk)), []int{512, 4096})
		if err != nil {
			return
		}
		for _, e := range got.entries {
			if e.start <= 0 || e.size <= 0 || e.start+e.size > int64(len(disk)) {
				t.Errorf("partition outside of the disk: %+v", e)
			}
		}
	})
}
