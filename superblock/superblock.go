// Package superblock reads the identity of a file system from its superblock, as root=UUID= and
// root=LABEL= on a kernel command line mean it.
//
// It reads a few sectors at fixed places, mounts nothing, and asks neither udev nor libblkid.
// Formats: ext2, ext3, ext4 (fs/ext4/ext4.h of the kernel), squashfs, erofs, xfs, btrfs, f2fs, FAT,
// and LUKS. Squashfs has no identity.
package superblock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// ErrUnknown: there is no file system that this package knows.
var ErrUnknown = errors.New("no known file system")

// Superblock has the names by which a file system is found.
type Superblock struct {
	Type  string // "ext4" for ext2 and ext3 too
	UUID  string // in lower case; of FAT as 12AB-34CD, in upper case; empty if it has none
	Label string
}

// headSize is how much is read: btrfs has its superblock at 64 KiB.
const headSize = 0x10000 + 0x400

// format is where a file system has its magic, identifier and label.
type format struct {
	name          string
	at            int
	magic         string
	uuid          int // offset; 0: none
	label, length int
}

func formats() []format {
	return []format{
		{"ext4", 0x438, "\x53\xef", 0x468, 0x478, 16},
		{"squashfs", 0, "hsqs", 0, 0, 0},
		{"erofs", 0x400, "\xe2\xe1\xf5\xe0", 0x430, 0x440, 16},
		{"xfs", 0, "XFSB", 32, 108, 12},
		{"btrfs", 0x10040, "_BHRfS_M", 0x10020, 0x1012b, 256},
		{"crypto_LUKS", 0, "LUKS\xba\xbe", 0, 0, 0},
	}
}

// Read reads the superblock of the file system that begins at offset 0 of r. The error wraps
// ErrUnknown if there is none.
func Read(r io.ReaderAt) (Superblock, error) {
	b := make([]byte, headSize)
	n, err := r.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Superblock{}, fmt.Errorf("read superblock: %w", err)
	}
	clear(b[n:])
	return parse(b)
}

// parse reads a head of headSize bytes.
func parse(b []byte) (Superblock, error) {
	for _, f := range formats() {
		if !bytes.HasPrefix(b[f.at:], []byte(f.magic)) {
			continue
		}
		s := Superblock{Type: f.name}
		if f.uuid != 0 {
			s.UUID = uuid(b[f.uuid:])
			s.Label = text(b[f.label:][:f.length])
		}
		if f.name == "crypto_LUKS" { // both versions (docs of cryptsetup)
			s.UUID = text(b[168:208])
		}
		return s, nil
	}
	if binary.LittleEndian.Uint32(b[0x400:]) == 0xf2f52010 {
		var units []uint16
		for i := 0x47c; i < 0x47c+1024; i += 2 {
			units = append(units, binary.LittleEndian.Uint16(b[i:]))
		}
		label, _, _ := strings.Cut(string(utf16.Decode(units)), "\x00")
		return Superblock{Type: "f2fs", UUID: uuid(b[0x46c:]), Label: label}, nil
	}
	return fat(b)
}

func fat(b []byte) (Superblock, error) {
	id := 0
	switch {
	case b[510] != 0x55 || b[511] != 0xaa:
	case string(b[0x52:0x57]) == "FAT32":
		id = 0x43
	case string(b[0x36:0x39]) == "FAT":
		id = 0x27
	}
	if id == 0 {
		return Superblock{}, ErrUnknown
	}
	serial := binary.LittleEndian.Uint32(b[id:])
	label := strings.TrimRight(text(b[id+4:][:11]), " ")
	if label == "NO NAME" {
		label = ""
	}
	return Superblock{Type: "vfat", UUID: fmt.Sprintf("%04X-%04X", serial>>16, serial&0xffff), Label: label}, nil
}

func uuid(b []byte) string {
	if bytes.Count(b[:16], []byte{0}) == 16 {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
