package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/fwu-ab/fwu-ab/partition/diskimage"
)

const (
	uuidA = "11111111-2222-4333-8444-55555555aaaa"
	uuidB = "11111111-2222-4333-8444-55555555bbbb"
)

// newDisk makes a disk image with partitions of 1 MiB.
func newDisk(t testing.TB, sector int, partitions ...diskimage.Partition) (string, []diskimage.Extent) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	for i := range partitions {
		if partitions[i].Size == 0 {
			partitions[i].Size = mib
		}
	}
	extents, err := diskimage.Create(path, diskimage.Layout{SectorSize: sector, GUID: "99999999-2222-4333-8444-555555555555", Partitions: partitions})
	check(t, err)
	return path, extents
}

func twoSlots(t testing.TB, sector int) string {
	path, _ := newDisk(t, sector, diskimage.Partition{Name: "rootfs-a", UUID: uuidA}, diskimage.Partition{Name: "rootfs-b", UUID: uuidB})
	return path
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	return b
}

// sumHeader makes the checksum of an edited header right.
func sumHeader(h []byte) {
	le := binary.LittleEndian
	n := le.Uint32(h[12:])
	clear(h[16:20])
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:min(int64(n), int64(len(h)))]))
}

func TestReadGPT(t *testing.T) {
	le := binary.LittleEndian
	const entries = 2 * 512
	last := 4*mib/512 - 1
	both := func(f func(h []byte)) func([]byte) {
		return func(b []byte) {
			for _, h := range [][]byte{b[512:1024], b[last*512:]} {
				f(h)
				sumHeader(h)
			}
		}
	}
	tests := map[string]struct {
		damage func(b []byte)
		want   string // in the error; "" if the table is read
	}{
		"intact":                        {func([]byte) {}, ""},
		"primary header overwritten":    {func(b []byte) { clear(b[512:1024]) }, ""},
		"a bit of the primary header":   {func(b []byte) { b[600] ^= 1 }, ""},
		"a bit of the primary entries":  {func(b []byte) { b[entries+300] ^= 1 }, ""},
		"backup header overwritten":     {func(b []byte) { clear(b[last*512:]) }, ""},
		"both headers overwritten":      {func(b []byte) { clear(b[512:1024]); clear(b[last*512:]) }, "no GUID partition table"},
		"both damaged":                  {func(b []byte) { b[600] ^= 1; b[last*512+88] ^= 1 }, "checksum"},
		"primary damaged, no backup":    {func(b []byte) { b[600] ^= 1; clear(b[last*512:]) }, "checksum"},
		"the backup at the primary":     {func(b []byte) { copy(b[512:1024], b[last*512:]); b[last*512] = 0 }, "belongs at sector"},
		"2^32-1 entries":                {both(func(h []byte) { le.PutUint32(h[80:], 1<<32-1) }), "entries of"},
		"no entries":                    {both(func(h []byte) { le.PutUint32(h[80:], 0) }), "entries of"},
		"1025 entries":                  {both(func(h []byte) { le.PutUint32(h[80:], 1025) }), "entries of"},
		"entries of 2^31 bytes":         {both(func(h []byte) { le.PutUint32(h[84:], 1<<31) }), "entries of"},
		"entries behind the end":        {both(func(h []byte) { le.PutUint64(h[72:], 1<<63) }), "entries at sector"},
		"entries across the end":        {both(func(h []byte) { le.PutUint64(h[72:], uint64(last)-31) }), "entries at sector"},
		"entries at the header":         {both(func(h []byte) { le.PutUint64(h[72:], 1) }), "entries at sector"},
		"a header of 2^32-1 bytes":      {both(func(h []byte) { le.PutUint32(h[12:], 1<<32-1) }), "size is"},
		"a header of 91 bytes":          {both(func(h []byte) { le.PutUint32(h[12:], 91) }), "size is"},
		"a header of 512 bytes":         {both(func(h []byte) { le.PutUint32(h[12:], 512) }), ""},
		"revision 2":                    {both(func(h []byte) { le.PutUint32(h[8:], 2<<16) }), "revision"},
		"usable sectors that end first": {both(func(h []byte) { le.PutUint64(h[48:], 33) }), "usable"},
		"usable sectors behind the end": {both(func(h []byte) { le.PutUint64(h[48:], 1<<40) }), "usable"},
		"a partition behind the end":    {partitionAt(2048, 1<<40), "lies from sector"},
		"a partition that ends first":   {partitionAt(2048, 2047), "lies from sector"},
		"a partition over the table":    {partitionAt(1, 4000), "lies from sector"},
		"a partition of 2^64-1 sectors": {partitionAt(2, 1<<64-1), "lies from sector"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := readFile(t, twoSlots(t, 512))
			tt.damage(b)
			got, err := readGPT(bytes.NewReader(b), int64(len(b)), 512)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("got error %v, want one with %q", err, tt.want)
				}
				return
			}
			check(t, err)
			equal(t, "first label", got.entries[0].label, "rootfs-a")
			equal(t, "second", got.entries[1], entry{2, "rootfs-b", uuidB, strings.ToLower(diskimage.LinuxFilesystem), 2 * mib, mib})
		})
	}
}

// partitionAt changes the bounds of the first partition in both tables.
func partitionAt(first, last uint64) func([]byte) {
	return func(b []byte) {
		le := binary.LittleEndian
		end := len(b)/512 - 1
		for _, at := range []struct{ header, entries int }{{512, 1024}, {end * 512, (end - 32) * 512}} {
			le.PutUint64(b[at.entries+32:], first)
			le.PutUint64(b[at.entries+40:], last)
			h := b[at.header : at.header+512]
			le.PutUint32(h[88:], crc32.ChecksumIEEE(b[at.entries:at.entries+128*128]))
			sumHeader(h)
		}
	}
}

// TestRelocatedEntries is of boards that keep a bootloader where the entries usually are.
func TestRelocatedEntries(t *testing.T) {
	b := readFile(t, twoSlots(t, 512))
	h := b[512:1024]
	copy(b[100*512:], b[2*512:34*512])
	clear(b[2*512 : 34*512])
	binary.LittleEndian.PutUint64(h[72:], 100)
	sumHeader(h)
	got, err := readGPT(bytes.NewReader(b), int64(len(b)), 512)
	check(t, err)
	equal(t, "partitions", len(got.entries), 2)
}

func TestGPTOfDisksThatAreTooSmall(t *testing.T) {
	b := readFile(t, twoSlots(t, 512))
	for _, n := range []int64{0, 1, 511, 512, 1024, 2048, 3071} {
		if _, err := readGPT(bytes.NewReader(b[:n]), n, 512); !errors.Is(err, errNoGPT) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func FuzzReadGPT(f *testing.F) {
	b := readFile(f, twoSlots(f, 512))
	f.Add(b[512:1024], b[1024:1536])
	f.Add(b[len(b)-512:], b[1024:1536])
	f.Fuzz(func(t *testing.T, header, entries []byte) {
		disk := make([]byte, 256<<10)
		copy(disk[512:], header)
		copy(disk[1024:], entries)
		if len(header) >= 512 { // the interesting ones have right checksums
			h := disk[512:1024]
			if n, first := binary.LittleEndian.Uint32(h[80:]), binary.LittleEndian.Uint64(h[72:]); n <= maxGPTEntries && first < 200 {
				end := min(int(first)*512+int(n)*gptEntrySize, len(disk))
				binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(disk[first*512:end]))
			}
			sumHeader(h)
		}
		got, err := readGPT(bytes.NewReader(disk), int64(len(disk)), 512)
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

// TestEntriesAreThoseOfAnotherReader compares each entry with go-diskfs:
// numbers with gaps, names that are not ASCII, names of full length, and GUIDs whose
// bytes all differ.
func TestEntriesAreThoseOfAnotherReader(t *testing.T) {
	path, _ := newDisk(t, 512,
		diskimage.Partition{Name: "größe-\U0001f600", UUID: "01234567-89ab-cdef-0123-456789abcdef"},
		diskimage.Partition{Name: "gone", UUID: uuidA},
		diskimage.Partition{Name: strings.Repeat("x", 36), UUID: "fedcba98-7654-3210-fedc-ba9876543210"})
	disk := readFile(t, path)
	clear(disk[1024+128 : 1024+2*128])
	binary.LittleEndian.PutUint32(disk[512+88:], crc32.ChecksumIEEE(disk[1024:1024+128*128]))
	sumHeader(disk[512:1024])
	check(t, os.WriteFile(path, disk, 0o600))
	ours, err := readGPT(bytes.NewReader(disk), int64(len(disk)), 512)
	check(t, err)
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	theirs, err := gpt.Read(f, 512, 512)
	check(t, err)
	var want []entry
	for _, p := range theirs.Partitions {
		want = append(want, entry{p.Index, p.Name, strings.ToLower(p.GUID), strings.ToLower(string(p.Type)), int64(p.Start) * 512, int64(p.Size)})
	}
	equal(t, "entries", ours.entries, want)
	equal(t, "numbers", []int{ours.entries[0].index, ours.entries[1].index}, []int{1, 3})
}
