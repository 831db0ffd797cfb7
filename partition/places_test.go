package partition

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// tool runs a command, and returns its output and whether it ended well.
func tool(t *testing.T, dir, line string) (string, bool) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-c", line)
	c.Dir = dir
	out, err := c.CombinedOutput()
	return string(out), err == nil
}

// format is a kind of image that a real tool makes, and opens.
type format struct {
	size  int64
	make  string
	opens string // ends well, or prints says, if the image can be opened by its second header
	says  string // "": the exit status tells
	first bool   // there is no second header
	edit  func(b []byte)
}

const blkid = "blkid -p image"

func formats() map[string]format {
	luks := func(size string) string {
		return "printf key > key; cryptsetup luksFormat -q --type luks2 --luks2-metadata-size " + size +
			" --luks2-keyslots-size 1m --pbkdf pbkdf2 --pbkdf-force-iterations 1000 image key"
	}
	le := binary.LittleEndian
	f := map[string]format{
		"LUKS2":        {8 * mib, luks("16k"), "cryptsetup luksDump image", "", true, nil},
		"btrfs":        {128 * mib, "mkfs.btrfs -q image", "btrfs inspect-internal dump-super -s 1 image", "", false, nil},
		"GPT":          {16 * mib, "sgdisk -n 1:2048:4095 image", "sgdisk -p image", "Backup partition table: OK", false, nil},
		"NTFS":         {16 * mib, "mkntfs -q -F -f image", "ntfsfix -n image", "bootsector is usable", false, nil},
		"NILFS2":       {140 * mib, "mkfs.nilfs2 -q image", blkid, "nilfs2", false, nil},
		"ext4":         {16 * mib, "mkfs.ext4 -q image", blkid, "ext4", true, nil},
		"f2fs":         {64 * mib, "mkfs.f2fs -q image", blkid, "f2fs", true, nil},
		"GFS2":         {64 * mib, "mkfs.gfs2 -q -O -p lock_nolock -j 1 -J 8 image", blkid, "gfs2", true, nil},
		"MD RAID 1.0":  {8 * mib, "", blkid, "linux_raid_member", false, nil},
		"MD RAID 0.90": {8 * mib, "", blkid, "linux_raid_member", false, nil},
		"ZFS":          {8 * mib, "", "grep -caF '" + zfsMagic + "' image", "", false, nil},
	}
	edit := func(name string, e func(b []byte)) {
		x := f[name]
		x.edit = e
		f[name] = x
	}
	edit("MD RAID 1.0", func(b []byte) {
		sector := len(b)/512 - 16
		copy(b[sector*512:], "\xfc\x4e\x2b\xa9\x01")
		le.PutUint64(b[sector*512+144:], uint64(sector))
	})
	edit("MD RAID 0.90", func(b []byte) { copy(b[len(b)-64<<10:], "\xfc\x4e\x2b\xa9\x00\x00\x00\x00\x5a\x00\x00\x00") })
	edit("ZFS", func(b []byte) {
		for _, label := range []int{0, 256 << 10, len(b) - 512<<10, len(b) - 256<<10} {
			copy(b[label+128<<10-40:], zfsMagic)
		}
	})
	for _, size := range []int64{128, 256, 512, 1024, 2048, 4096} {
		f[fmt.Sprintf("LUKS2, headers of %d KiB", size)] = format{16 * mib, luks(fmt.Sprint(size, "k")), "cryptsetup luksDump image", "", false, nil}
	}
	return f
}

// opened tells whether the tool of the format, or blkid, finds anything in a file.
func (f format) opened(t *testing.T, dir string) bool {
	t.Helper()
	out, ok := tool(t, dir, f.opens)
	if f.says != "" {
		ok = strings.Contains(out, f.says)
	}
	return ok
}

// slotOf makes a file with content that is a slot, too.
func slotOf(t *testing.T, dir string, content []byte) *Slot {
	t.Helper()
	path := filepath.Join(dir, "image")
	check(t, os.WriteFile(path, content, 0o600))
	return find(t, Finder{}, path)
}

// TestNothingOpensASealedSlot has the tools of many formats look at slots whose images they made.
func TestNothingOpensASealedSlot(t *testing.T) {
	needs(t, false, "blkid", "cryptsetup", "mkfs.btrfs", "btrfs", "sgdisk", "mkntfs", "ntfsfix", "mkfs.nilfs2", "mkfs.ext4", "mkfs.f2fs", "mkfs.gfs2")
	for name, f := range formats() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "image")
			slotOf(t, dir, make([]byte, f.size))
			if f.make != "" {
				if out, ok := tool(t, dir, f.make); !ok {
					t.Fatal(out)
				}
			}
			plain, err := os.ReadFile(path)
			check(t, err)
			if f.edit != nil {
				f.edit(plain)
			}

			headless := bytes.Clone(plain)
			clear(headless[:fwu.HeadSize])
			s := slotOf(t, dir, headless)
			equal(t, "opened without its head", f.opened(t, dir), !f.first)
			sealed := func(when string) {
				t.Helper()
				if out, found := tool(t, dir, blkid); found || f.opened(t, dir) {
					t.Fatalf("%s it is opened; blkid says %q", when, out)
				}
			}

			m, err := s.Open(t.Context())
			check(t, err)
			defer m.Close()
			check(t, m.Destroy(t.Context()))
			sealed("when the image of before is destroyed")
			check(t, m.Resume(t.Context(), sha256.New(), 0))
			for _, p := range pieces(len(plain), mib) {
				check(t, m.WriteAt(t.Context(), plain[p.from:p.to], int64(p.from)))
			}
			sum, head, err := m.Sum(t.Context(), f.size, nil)
			check(t, err)
			equal(t, "digest", sum, digest(plain))
			sealed("when it is written")
			check(t, m.Resume(t.Context(), sha256.New(), 0))
			sum, _, err = m.Sum(t.Context(), f.size, nil)
			check(t, err)
			equal(t, "digest that is read again", sum, digest(plain))
			for range 2 {
				check(t, m.Unseal(t.Context(), head))
				got, err := os.ReadFile(path)
				check(t, err)
				if !bytes.Equal(got, plain) {
					t.Fatal("it is not the image when it is unsealed")
				}
				check(t, m.Seal(t.Context(), head))
				sealed("when it is sealed")
			}
			check(t, m.Destroy(t.Context()))
			sealed("when it is destroyed")
		})
	}
}

// TestSecondHeaderAcrossACut cuts sealing and unsealing before and after each of their writes, and
// does the same once more.
func TestSecondHeaderAcrossACut(t *testing.T) {
	plain := content(mib)
	copy(plain[256<<10:], "SKUL\xba\xbe")
	copy(plain[mib-512:], "EFI PART")
	dev := newSim(t, mib)
	m, h := sealed(t, dev, plain)
	masked := bytes.Clone(dev.medium)
	for _, off := range []int{256 << 10, mib - 512} {
		if bytes.Equal(masked[off:off+512], plain[off:off+512]) {
			t.Fatalf("the header at %d is plain", off)
		}
	}
	tests := map[string]struct {
		before, after []byte
		do            func() error
	}{
		"unseal": {masked, plain, func() error { return m.Unseal(t.Context(), h) }},
		"seal":   {plain, masked, func() error { return m.Seal(t.Context(), h) }},
	}
	for name, tt := range tests {
		for n := range 3 { // two second headers, and the head
			copy(dev.medium, tt.before)
			dev.ops = nil
			check(t, tt.do())
			writes := dev.ops
			copy(dev.medium, tt.before)
			for _, o := range writes[:2*n] {
				copy(dev.medium[o.off:], o.data)
			}
			want := fwu.HeadMixed
			if n == 0 {
				want = map[string]fwu.HeadState{"unseal": fwu.HeadMasked, "seal": fwu.HeadPlain}[name]
			}
			wantState(t, m, h, want)
			check(t, tt.do())
			sameBytes(t, fmt.Sprint(name, " after ", n, " writes"), dev.medium, tt.after)
			other := map[string]string{"seal": "unseal", "unseal": "seal"}[name]
			check(t, tests[other].do())
			sameBytes(t, fmt.Sprint(name, " taken back after ", n, " writes"), dev.medium, tt.before)
		}
	}
}

// TestUnreadablePlaces: a block that cannot be read may have a header. It is overwritten, and
// nothing is unsealed.
func TestUnreadablePlaces(t *testing.T) {
	dev := newSim(t, mib)
	copy(dev.medium, content(mib))
	m, h := sealed(t, dev, content(mib))
	before := bytes.Clone(dev.medium)
	reads := dev.readOps
	check(t, m.Unseal(t.Context(), h))
	places := dev.readOps - reads - 2 // the head, and the head read back
	check(t, m.Seal(t.Context(), h))
	for i := range places {
		dev.failReads = i + 2 // the first one is of the head
		err := m.Unseal(t.Context(), h)
		wantErr(t, err, errMedium)
		sameBytes(t, "medium", dev.medium, before)
	}
	for _, p := range m.(*image).places {
		dev.failAt = p.off
		check(t, m.Destroy(t.Context()))
		block := roundDown(p.off)
		equal(t, "zeroes", bytes.Count(dev.medium[block:block+blockSize], []byte{0}), blockSize)
		dev.failAt = 0
	}
}
