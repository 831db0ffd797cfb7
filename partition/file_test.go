package partition

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition/diskimage"
)

func newFileSlot(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "slot")
	check(t, os.WriteFile(path, nil, 0o644))
	check(t, os.Truncate(path, size))
	return path
}

func find(t testing.TB, f Finder, spec string) *Slot {
	t.Helper()
	s, err := f.Find(t.Context(), spec)
	check(t, err)
	return s
}

// wholeUpdate writes, verifies, unseals and reads an image through a real slot.
func wholeUpdate(t *testing.T, s *Slot, plain []byte) {
	t.Helper()
	m, err := s.Open(t.Context())
	check(t, err)
	_, err = s.Open(t.Context())
	wantErr(t, err, fwu.ErrSlotBusy)
	check(t, m.Destroy(t.Context()))
	wantBootable(t, s, false)
	check(t, m.Resume(t.Context(), sha256.New(), 0))
	for _, p := range pieces(len(plain), 100001) {
		check(t, m.WriteAt(t.Context(), plain[p.from:p.to], int64(p.from)))
	}
	sum, head, err := m.Sum(t.Context(), int64(len(plain)), nil)
	check(t, err)
	equal(t, "digest", sum, digest(plain))
	wantBootable(t, s, false)
	check(t, m.Unseal(t.Context(), head))
	wantBootable(t, s, true)
	check(t, m.Close())
	wantContent(t, s, plain)

	m, err = s.Open(t.Context())
	check(t, err)
	check(t, m.Erase(t.Context(), nil))
	check(t, m.Close())
	wantBootable(t, s, false)
}

func wantBootable(t testing.TB, s *Slot, want bool) {
	t.Helper()
	got, err := s.Bootable(t.Context())
	check(t, err)
	equal(t, "bootable", got, want)
}

func wantContent(t testing.TB, s *Slot, plain []byte) {
	t.Helper()
	src, err := s.Source(t.Context())
	check(t, err)
	defer src.Close()
	check(t, src.Frozen())
	got := make([]byte, len(plain))
	if _, err := src.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "content", got, plain)
}

// squashfs is an image that begins like one, of an odd size.
func squashfs(n int) []byte {
	b := content(n)
	copy(b, "hsqs")
	return b
}

func TestFileSlot(t *testing.T) {
	path := newFileSlot(t, 4*mib)
	s := find(t, Finder{}, path)
	equal(t, "info", s.Info(), fwu.SlotInfo{ID: path, Path: path, Size: 4 * mib})
	wholeUpdate(t, s, squashfs(2*mib+333))
}

func TestWindowsOfADiskImage(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		path, extents := newDisk(t, sector, diskimage.Partition{Name: "kernel", UUID: uuidA, Size: 2 * mib}, diskimage.Partition{Name: "größe", UUID: uuidB, Size: 3 * mib})
		before := readFile(t, path)
		f := Finder{Disk: path}
		s := find(t, f, "PARTLABEL=größe")
		equal(t, "id", s.Info().ID, "partuuid:"+uuidB)
		equal(t, "size", s.Info().Size, int64(3*mib))
		other, err := find(t, f, "PARTUUID="+strings.ToUpper(uuidA)).Open(t.Context())
		check(t, err)
		wholeUpdate(t, s, squashfs(3*mib))
		check(t, other.Close())

		plain := squashfs(mib)
		m, err := s.Open(t.Context())
		check(t, err)
		check(t, m.Resume(t.Context(), sha256.New(), 0))
		check(t, m.WriteAt(t.Context(), plain, 0))
		_, err = m.Sync(t.Context())
		check(t, err)
		after := readFile(t, path)
		at := extents[1].Offset
		sameBytes(t, "partition", after[at:at+mib], stored(plain))
		sameBytes(t, "before the partition", after[:at], before[:at])
		sameBytes(t, "behind the partition", after[at+3*mib:], before[at+3*mib:])
		check(t, m.Close())
	}
}

// TestWindowAtAnOddSector is of tables made by hand: O_DIRECT may not take what begins there, and all has to work.
func TestWindowAtAnOddSector(t *testing.T) {
	path := newFileSlot(t, 4*mib)
	for _, base := range []int64{512, 34 * 512, 1000} {
		tgt := target{path: path, window: true, base: base, size: 2 * mib}
		open := func() Device {
			d, err := host{}.openTarget(t.Context(), tgt, Exclusive)
			check(t, err)
			return d
		}
		d := open()
		plain := content(mib)
		buf := fwu.Buffer(mib)
		copy(buf, plain)
		n, err := d.WriteAt(buf, 4096)
		check(t, err)
		equal(t, "written", n, mib)
		check(t, d.Sync())
		got := fwu.Buffer(mib)
		check(t, fwu.ReadFull(d, got, 4096))
		sameBytes(t, "data", got, plain)
		check(t, d.Close())
		sameBytes(t, "file", readFile(t, path)[base+4096:base+4096+mib], plain)
	}
}

func TestDeviceTakesAnyMemory(t *testing.T) {
	d, err := Finder{}.OpenDevice(t.Context(), newFileSlot(t, 3*mib))
	check(t, err)
	defer d.Close()
	plain := content(3 * mib)
	memory := make([]byte, 3*mib+1)[1:] // as odd as can be
	copy(memory, plain)
	for _, p := range []put{{0, 4096}, {4096, 3 * mib}, {8192, 16384}} {
		n, err := d.WriteAt(memory[p.from:p.to], int64(p.from))
		check(t, err)
		equal(t, "written", n, p.to-p.from)
	}
	check(t, d.Sync())
	for _, p := range []put{{0, 1}, {1, 3*mib - 1}, {4095, 4097}, {8192, 12288}, {3*mib - 5, 3 * mib}} {
		got := make([]byte, p.to-p.from)
		check(t, fwu.ReadFull(d, got, int64(p.from)))
		sameBytes(t, "data", got, plain[p.from:p.to])
	}
	for _, off := range []int64{-1, 3 * mib, 3*mib - 4095, 1<<63 - 1} {
		if _, err := d.WriteAt(make([]byte, 4096), off); err == nil {
			t.Errorf("write at %d accepted", off)
		}
	}
	got := make([]byte, 10)
	if n, err := d.ReadAt(got, 3*mib-4); n != 4 || err == nil {
		t.Errorf("read across the end: %d, %v", n, err)
	}
}

func TestDeviceOfAnOddSize(t *testing.T) {
	d, err := Finder{}.OpenDevice(t.Context(), newFileSlot(t, 10000))
	check(t, err)
	defer d.Close()
	_, err = d.WriteAt(content(8192), 0)
	check(t, err)
	check(t, d.Sync())
	got := make([]byte, 10000)
	check(t, fwu.ReadFull(d, got, 0))
	sameBytes(t, "data", got[:8192], content(8192))
}

func TestWithoutDirectAccess(t *testing.T) {
	for name, base := range map[string]int64{"a file": 0, "a window at an odd sector": 512} {
		t.Run(name, func(t *testing.T) {
			tgt := target{path: newFileSlot(t, 4*mib), window: base > 0, base: base, size: 4*mib - base}
			opened, err := host{}.openTarget(t.Context(), tgt, Exclusive)
			check(t, err)
			d := opened.(*file)
			d.setDirect(false)
			buf := fwu.Buffer(mib)
			copy(buf, content(mib))
			_, err = d.WriteAt(buf, 0)
			check(t, err)
			check(t, d.Sync())
			cached := make([]byte, 257) // a page each
			mem, err := unix.Mmap(int(d.f.Fd()), 0, mib+4096, unix.PROT_READ, unix.MAP_SHARED)
			check(t, err)
			defer unix.Munmap(mem)
			check(t, mincore(mem, cached))
			if n := bytes.Count(cached, []byte{1}); n > 0 {
				t.Errorf("%d pages are still cached after a flush: reading back would not reach the medium", n)
			}
			check(t, d.Close())
		})
	}
}

func TestSlotThatMovedIsNotOpened(t *testing.T) {
	tests := map[string]func(disk []byte){
		"the partition lies elsewhere":  partitionAt(2048+8, 4095),
		"the disk has no table anymore": func(disk []byte) { clear(disk) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			path := twoSlots(t, 512)
			s := find(t, Finder{Disk: path}, "PARTLABEL=rootfs-a")
			disk := readFile(t, path)
			change(disk)
			check(t, os.WriteFile(path, disk, 0o644))
			if m, err := s.Open(t.Context()); err == nil {
				m.Close()
				t.Error("opened for writing")
			}
			if src, err := s.Source(t.Context()); err == nil {
				src.Close()
				t.Error("opened for reading")
			}
		})
	}
}

func TestSlotThatChanged(t *testing.T) {
	path := newFileSlot(t, 4*mib)
	s := find(t, Finder{}, path)
	for _, size := range []int64{3 * mib, 5 * mib} {
		check(t, os.Truncate(path, size))
		if _, err := s.Open(t.Context()); err == nil {
			t.Errorf("opened though it has %d bytes now", size)
		}
	}
	check(t, os.Remove(path))
	check(t, os.Mkdir(path, 0o755))
	if _, err := s.Open(t.Context()); err == nil {
		t.Error("opened a directory")
	}
}

func TestFindRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	check(t, unix.Mkfifo(fifo, 0o644))
	disk, _ := newDisk(t, 512,
		diskimage.Partition{Name: "rootfs-a", UUID: uuidA}, diskimage.Partition{Name: "rootfs-b", UUID: uuidB},
		diskimage.Partition{Name: "twice", UUID: "11111111-2222-4333-8444-55555555cccc"}, diskimage.Partition{Name: "twice", UUID: "11111111-2222-4333-8444-55555555dddd"})
	overlap := readFile(t, twoSlots(t, 512))
	partitionAt(2048, 4096)(overlap)
	overlapping := filepath.Join(dir, "overlapping")
	check(t, os.WriteFile(overlapping, overlap, 0o644))
	blank := newFileSlot(t, mib)
	tests := map[string]struct {
		disk, spec string
		want       []string // in the error
	}{
		"no such label":           {disk, "PARTLABEL=data", []string{"PARTLABEL=data", "0 partitions of " + disk, `"rootfs-a" "rootfs-b" "twice" "twice"`}},
		"two such labels":         {disk, "PARTLABEL=twice", []string{"2 partitions"}},
		"a label in other case":   {disk, "PARTLABEL=ROOTFS-A", []string{"0 partitions"}},
		"no such uuid":            {disk, "PARTUUID=00000000-2222-4333-8444-55555555aaaa", []string{"0 partitions"}},
		"an empty label":          {disk, "PARTLABEL=", []string{"0 partitions"}},
		"partitions that overlap": {overlapping, "PARTLABEL=rootfs-b", []string{"partitions 2 and 1", "overlap"}},
		"a disk without a table":  {blank, "PARTLABEL=x", []string{"partition table of " + blank, "no partition table"}},
		"no such disk":            {dir + "/none", "PARTLABEL=x", []string{dir + "/none", "no such file"}},
		"no such path":            {"", dir + "/none", []string{"find " + dir + "/none", "no such file"}},
		"a directory":             {"", dir, []string{"neither a block device nor a regular file"}},
		"a FIFO":                  {"", fifo, []string{"neither a block device nor a regular file"}},
		"a terminal":              {"", "/dev/null", []string{"neither a block device nor a regular file"}},
		"nothing":                 {"", "", []string{"no such file"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Finder{Disk: tt.disk}.Find(t.Context(), tt.spec)
			_, errOpen := Finder{Disk: tt.disk}.OpenDevice(t.Context(), tt.spec)
			if err == nil || errOpen == nil {
				t.Fatal("found")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestPartitions(t *testing.T) {
	path := twoSlots(t, 4096)
	got, err := Finder{Disk: path}.Partitions(t.Context())
	check(t, err)
	kind := strings.ToLower(diskimage.LinuxFilesystem)
	equal(t, "partitions", got, []Partition{
		{1, "rootfs-a", uuidA, kind, mib, mib, 4096, path + "@1048576"},
		{2, "rootfs-b", uuidB, kind, 2 * mib, mib, 4096, path + "@2097152"},
	})
}

func TestLocate(t *testing.T) {
	path := twoSlots(t, 512)
	tests := map[string]Extent{
		"PARTLABEL=rootfs-b": {path, 2 * mib, mib},
		path:                 {path, 0, 4 * mib},
	}
	for spec, want := range tests {
		got, err := Finder{Disk: path}.Locate(t.Context(), spec)
		check(t, err)
		equal(t, spec, got, want)
	}
}

func TestLockedByAnotherOpenFile(t *testing.T) {
	path := twoSlots(t, 512)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	check(t, lock(f, mib, mib)) // the first partition
	_, err = find(t, Finder{Disk: path}, "PARTLABEL=rootfs-a").Open(t.Context())
	wantErr(t, err, fwu.ErrSlotBusy)
	_, err = find(t, Finder{}, path).Open(t.Context())
	wantErr(t, err, fwu.ErrSlotBusy)
	m, err := find(t, Finder{Disk: path}, "PARTLABEL=rootfs-b").Open(t.Context())
	check(t, err)
	check(t, m.Close())
}
