// Package kind recognises files that people hand over in place of an update: images, archives,
// keys, and the update files of other updaters.
//
// It looks at the first bytes, and for one kind at the last ones. A file that it does not know has
// no kind. Nothing is decided by a kind but a sentence for people, or a refusal that people can
// overrule.
package kind

import (
	"bytes"
	"encoding/binary"
	"io"
)

// Kind describes the format of a file.
type Kind struct {
	Name string // with its article: "an ext4 file system"; empty if it is not known
	Form Form
}

// Form says how a kind can be used.
type Form int

// The forms.
const (
	Unknown   Form = iota
	Content        // it can be written to a slot as it is: a file system, a kernel
	Packed         // it has to be unpacked before anything can start it: compressed, an archive, a sparse image
	WholeDisk      // it holds a partition table
	Foreign        // it is an update for another updater
	Other          // it is neither an image nor an update: a key, a text
)

// HeadSize is how many first bytes Of can use.
const HeadSize = 68 << 10

type signature struct {
	offset int
	magic  string
	kind   Kind
}

// signatures come from the formats' own documents and the file tool's database (magic(5)). The
// first that matches counts.
func signatures() []signature {
	return []signature{
		{0, "\x1f\x8b", Kind{"a gzip file", Packed}},
		{0, "\xfd7zXZ\x00", Kind{"an xz file", Packed}},
		{0, "\x28\xb5\x2f\xfd", Kind{"a zstd file", Packed}},
		{0, "BZh", Kind{"a bzip2 file", Packed}},
		{0, "\x04\x22\x4d\x18", Kind{"an lz4 file", Packed}},
		{0, "PK\x03\x04", Kind{"a zip archive", Packed}},
		{0, "7z\xbc\xaf\x27\x1c", Kind{"a 7z archive", Packed}},
		{0, "\x3a\xff\x26\xed", Kind{"an Android sparse image", Packed}},
		{0, "QFI\xfb", Kind{"a qcow2 disk image", Packed}},
		{0, "vhdxfile", Kind{"a VHDX disk image", Packed}},
		{0, "KDMV", Kind{"a VMDK disk image", Packed}},
		{0x40, "\x7f\x10\xda\xbe", Kind{"a VDI disk image", Packed}},
		{0, "CrAU", Kind{"an Android update payload", Foreign}},
		{512, "EFI PART", Kind{"a whole disk with its partition table (GPT)", WholeDisk}},
		{4096, "EFI PART", Kind{"a whole disk with its partition table (GPT)", WholeDisk}},
		{1080, "\x53\xef", Kind{"an ext4 file system", Content}},
		{0, "hsqs", Kind{"a squashfs file system", Content}},
		{1024, "\xe2\xe1\xf5\xe0", Kind{"an EROFS file system", Content}},
		{1024, "\x10\x20\xf5\xf2", Kind{"an F2FS file system", Content}},
		{0, "XFSB", Kind{"an XFS file system", Content}},
		{0x10040, "_BHRfS_M", Kind{"a btrfs file system", Content}},
		{0, "\x31\x18\x10\x06", Kind{"a UBIFS image", Content}},
		{0, "UBI#", Kind{"a UBI image", Content}},
		{3, "NTFS    ", Kind{"an NTFS file system", Content}},
		{3, "EXFAT   ", Kind{"an exFAT file system", Content}},
		{0x36, "FAT1", Kind{"a FAT file system", Content}},
		{0x52, "FAT32", Kind{"a FAT file system", Content}},
		{0, "LUKS\xba\xbe", Kind{"an encrypted volume (LUKS)", Content}},
		{0, "\xd0\x0d\xfe\xed", Kind{"a device tree or FIT image", Content}},
		{0, "\x27\x05\x19\x56", Kind{"a U-Boot image", Content}},
		{0, "MZ", Kind{"an EFI program or kernel", Content}},
		{0x38, "ARM\x64", Kind{"an arm64 kernel", Content}},
		{0x202, "HdrS", Kind{"an x86 kernel", Content}},
		{0, "\x7fELF", Kind{"an ELF program", Content}},
		{0x8001, "CD001", Kind{"an ISO 9660 image", Content}},
		{0, "-----BEGIN OPENSSH PRIVATE KEY", Kind{"a private key of OpenSSH", Other}},
		{0, "-----BEGIN CERTIFICATE", Kind{"a certificate", Other}},
		{0, "-----BEGIN PUBLIC KEY", Kind{"a public key", Other}},
		{0, "-----BEGIN PGP", Kind{"an OpenPGP file", Other}},
		{0, "#!", Kind{"a script", Other}},
		{0, "<!DOCTYPE", Kind{"a web page", Other}},
		{0, "<html", Kind{"a web page", Other}},
	}
}

// Of names the kind of a file by its first bytes.
func Of(head []byte) Kind {
	switch {
	case len(head) == 0:
		return Kind{"an empty file", Other}
	case len(head) >= 512 && !nonZero(head):
		return Kind{"a file that begins with zeros only", Unknown}
	case bytes.HasPrefix(head, []byte("-----BEGIN ")) && bytes.Contains(head[:min(len(head), 80)], []byte("PRIVATE KEY-----")):
		return Kind{"a private key", Other}
	case hasAt(head, 257, "ustar"):
		if bytes.HasPrefix(head, []byte("version\x00")) { // the first member of a Mender artifact
			return Kind{"a Mender artifact", Foreign}
		}
		return Kind{"a tar archive", Packed}
	case bytes.HasPrefix(head, []byte("070701")), bytes.HasPrefix(head, []byte("070702")):
		if hasAt(head, 110, "sw-description") {
			return Kind{"an SWUpdate image", Foreign}
		}
		return Kind{"a cpio archive", Packed}
	}
	for _, s := range signatures() {
		if hasAt(head, s.offset, s.magic) {
			return s.kind
		}
	}
	switch {
	case hasPartitions(head):
		return Kind{"a whole disk with its partition table (MBR)", WholeDisk}
	case isText(head):
		return Kind{"a text", Other}
	case head[0] != 0xd8 && head[0]>>5 != 5: // an envelope is a map in CBOR, with a tag or without
		return Kind{"a file of an unknown format", Unknown}
	}
	return Kind{}
}

func nonZero(b []byte) bool { return bytes.ContainsFunc(b, func(r rune) bool { return r != 0 }) }

func hasAt(b []byte, offset int, magic string) bool {
	return len(b) >= offset+len(magic) && string(b[offset:offset+len(magic)]) == magic
}

// hasPartitions tells whether a sector is an MBR with at least one partition: each entry is empty
// or has a status byte of 0 or 0x80, a type and a size.
func hasPartitions(head []byte) bool {
	if !hasAt(head, 510, "\x55\xaa") {
		return false
	}
	found := false
	for i := range 4 {
		e := head[446+16*i : 462+16*i]
		switch {
		case !nonZero(e):
		case e[0]&0x7f != 0 || e[4] == 0 || binary.LittleEndian.Uint32(e[12:]) == 0:
			return false
		default:
			found = true
		}
	}
	return found
}

// isText tells whether the first bytes are printable ASCII.
func isText(head []byte) bool {
	head = head[:min(len(head), 512)]
	return !bytes.ContainsFunc(head, func(r rune) bool { return r != '\n' && r != '\r' && r != '\t' && (r < ' ' || r > '~') })
}

// OfFile names the kind of a file of that size.
func OfFile(r io.ReaderAt, size int64) (Kind, error) {
	head := make([]byte, min(max(size, 0), HeadSize))
	if n, err := r.ReadAt(head, 0); n < len(head) {
		return Kind{}, err
	}
	k := Of(head)
	if k.Name != "a squashfs file system" {
		return k, nil
	}
	signed, err := isRAUC(r, size)
	if signed {
		k = Kind{"a RAUC bundle", Foreign}
	}
	return k, err
}

// isRAUC tells whether a squashfs ends with a CMS signature and its length, as RAUC's bundles do.
func isRAUC(r io.ReaderAt, size int64) (bool, error) {
	tail := make([]byte, 8)
	if size < 4096 {
		return false, nil
	}
	if n, err := r.ReadAt(tail, size-8); n < len(tail) {
		return false, err
	}
	length := binary.BigEndian.Uint64(tail)
	if length < 64 || length > 64<<10 || int64(length) > size-4096 {
		return false, nil
	}
	if n, err := r.ReadAt(tail, size-8-int64(length)); n < len(tail) {
		return false, err
	}
	return tail[0] == 0x30 && tail[1] == 0x82, nil // an ASN.1 SEQUENCE with a length of two bytes
}
