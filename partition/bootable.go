package partition

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Bootable looks at the head without a record of it: false if it is one byte repeated (zeroes: destroyed; ones: erased flash), or if a superblock or header
// that it knows is there inverted. What it does not know is taken for bootable.
func (s *Slot) Bootable(ctx context.Context) (bool, error) {
	dev, size, err := s.device(ctx, ReadOnly)
	if err != nil {
		return false, err
	}
	defer dev.Close()
	head := fwu.Buffer(int(min(fwu.HeadSize, size)))
	if err := dev.readFull(head, 0); err != nil {
		return false, err
	}
	if bytes.Count(head, head[:1]) == len(head) {
		return false, nil
	}
	mask(head, 0)
	return !hasHeader(head), nil
}

// mark is a byte string that has to be at an offset.
type mark struct {
	off   int
	magic string
}

func (m mark) in(head []byte) bool {
	return m.off+len(m.magic) <= len(head) && string(head[m.off:m.off+len(m.magic)]) == m.magic
}

// hasHeader tells whether head begins with something that a kernel, a firmware or a bootloader knows.
func hasHeader(head []byte) bool {
	if isPE(head) || isMBR(head) {
		return true
	}
	for _, marks := range headers() {
		found := 0
		for _, m := range marks {
			if m.in(head) {
				found++
			}
		}
		if found == len(marks) {
			return true
		}
	}
	return false
}

// headers lists what identifies a format: all marks of a line. Magics of two bytes are backed by another field, so that chance does not find them.
func headers() [][]mark {
	return [][]mark{
		{{0x438, "\x53\xef"}, {0x44c, "\x00\x00\x00\x00"}}, // ext2, revision 0
		{{0x438, "\x53\xef"}, {0x44c, "\x01\x00\x00\x00"}}, // ext2, ext3, ext4
		{{0, "hsqs"}},                        // squashfs
		{{0x400, "\xe2\xe1\xf5\xe0"}},        // erofs
		{{0x10040, "_BHRfS_M"}},              // btrfs
		{{0, "XFSB"}},                        // xfs
		{{0x400, "\x10\x20\xf5\xf2"}},        // f2fs
		{{0x1018, "\xc6\x85\x73\xf6"}},       // bcachefs
		{{0, "\x45\x3d\xcd\x28"}},            // cramfs
		{{0, "-rom1fs-"}},                    // romfs
		{{0, "UBI#"}},                        // UBI
		{{0, "\x31\x18\x10\x06"}},            // UBIFS
		{{0x8001, "CD001"}},                  // ISO 9660
		{{3, "NTFS    "}},                    // NTFS
		{{3, "EXFAT   "}},                    // exFAT
		{{0x36, "FAT"}, {0x1fe, "\x55\xaa"}}, // FAT12, FAT16
		{{0x52, "FAT32"}},                    // FAT32
		{{0x200, "EFI PART"}},                // GUID partition table, sectors of 512 bytes
		{{0x1000, "EFI PART"}},               // the same, 4096
		{{0, "LUKS\xba\xbe"}},                // LUKS
		{{0, "verity\x00\x00"}},              // dm-verity
		{{0x200, "LABELONE"}},                // LVM
		{{0x1000, "\xfc\x4e\x2b\xa9"}},       // MD RAID, metadata 1.2
		{{0, "\xfc\x4e\x2b\xa9"}},            // MD RAID, metadata 1.1
		{{0xff6, "SWAPSPACE2"}},              // swap, pages of 4 KiB
		{{0, "\xd0\x0d\xfe\xed"}},            // device tree, FIT image
		{{0, "\x27\x05\x19\x56"}},            // U-Boot legacy image
		{{0, "ANDROID!"}},                    // Android boot image
		{{0x38, "ARM\x64"}},                  // arm64 Image
		{{0x24, "\x18\x28\x6f\x01"}},         // arm zImage
		{{0x38, "RSC\x05"}},                  // riscv Image
		{{0x202, "HdrS"}},                    // x86 bzImage
		{{0, "\x7fELF"}},                     // ELF
		{{0, "\x1f\x8b\x08"}},                // gzip
		{{0, "\x28\xb5\x2f\xfd"}},            // zstd
		{{0, "\xfd7zXZ\x00"}},                // xz
		{{0, "BZh"}},                         // bzip2
		{{0, "\x89LZO\x00"}},                 // lzop
		{{0, "\x04\x22\x4d\x18"}},            // lz4
		{{0, "\x02\x21\x4c\x18"}},            // lz4, legacy
		{{0, "070701"}},                      // cpio
		{{0, "070702"}},                      // cpio with checksums
	}
}

// isPE tells whether head is a PE executable (a UKI, a boot manager): "MZ", and the offset of "PE\0\0" in the word at 0x3c.
func isPE(head []byte) bool {
	if !(mark{0, "MZ"}).in(head) || len(head) < 0x40 {
		return false
	}
	off := binary.LittleEndian.Uint32(head[0x3c:])
	return off < fwu.HeadSize && mark{int(off), "PE\x00\x00"}.in(head)
}

// isMBR tells whether head is a master boot record: its signature, and four entries whose first byte is 0 or 0x80, at least one of them of some type.
func isMBR(head []byte) bool {
	if !(mark{0x1fe, "\x55\xaa"}).in(head) {
		return false
	}
	used := false
	for off := 0x1be; off < 0x1fe; off += 16 {
		if head[off]&0x7f != 0 {
			return false
		}
		used = used || head[off+4] != 0
	}
	return used
}
