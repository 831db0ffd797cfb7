package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// LoadOption is an EFI_LOAD_OPTION (UEFI specification 2.11, section 3.1.3), the content of a Boot#### variable.
type LoadOption struct {
	Attributes  uint32
	Description string
	Path        []byte // device path, packed
	Optional    []byte // what is handed to the loader
}

// Active is the attribute of an option that the boot manager tries (LOAD_OPTION_ACTIVE).
const Active = 1

// ParseLoadOption reads what a variable holds. What it returns shares memory with b.
func ParseLoadOption(b []byte) (LoadOption, error) {
	if len(b) < 6 {
		return LoadOption{}, fmt.Errorf("load option of %d bytes", len(b))
	}
	o := LoadOption{Attributes: binary.LittleEndian.Uint32(b)}
	n := int(binary.LittleEndian.Uint16(b[4:]))
	text, rest, ok := cutText(b[6:])
	if !ok {
		return o, errors.New("load option with a description that does not end")
	}
	o.Description = text
	if n > len(rest) {
		return o, fmt.Errorf("load option with a device path of %d bytes, and %d are left", n, len(rest))
	}
	o.Path, o.Optional = rest[:n:n], rest[n:]
	return o, nil
}

// Append writes what ParseLoadOption reads.
func (o LoadOption) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, o.Attributes)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(o.Path)))
	b = appendText(b, o.Description+"\x00")
	b = append(b, o.Path...)
	return append(b, o.Optional...)
}

// cutText reads UTF-16 up to its zero.
func cutText(b []byte) (text string, rest []byte, ok bool) {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			return string(utf16.Decode(units)), b[2:], true
		}
		units = append(units, u)
	}
	return "", nil, false
}

func appendText(b []byte, s string) []byte {
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// Partition is a partition of a GUID partition table, as a device path names it.
type Partition struct {
	Number uint32
	UUID   [16]byte // PARTUUID, in the order of its text
	Start  uint64   // in sectors
	Size   uint64   // in sectors
}

// Types and subtypes of the nodes of a device path (section 10.3 of the specification).
const (
	typeMedia, typeEnd                    = 4, 0x7f
	subtypeHardDrive, subtypeFile, endAll = 1, 4, 0xff
	hardDriveSize                         = 42
	formatGPT, signatureGUID              = 2, 2
)

// FilePath is the device path of a file on a partition: HD(...)/File(...), which firmware completes by itself.
func FilePath(p Partition, file string) []byte {
	le := binary.LittleEndian
	b := []byte{typeMedia, subtypeHardDrive, hardDriveSize, 0}
	b = le.AppendUint32(b, p.Number)
	b = le.AppendUint64(b, p.Start)
	b = le.AppendUint64(b, p.Size)
	uuid := mixed(p.UUID)
	b = append(b, uuid[:]...)
	b = append(b, formatGPT, signatureGUID)
	name := appendText(nil, file+"\x00")
	b = append(b, typeMedia, subtypeFile)
	b = le.AppendUint16(b, uint16(4+len(name)))
	b = append(b, name...)
	return append(b, typeEnd, endAll, 4, 0)
}

// mixed exchanges the order of a UUID's text and that of the firmware, whose first three fields are little-endian.
func mixed(u [16]byte) [16]byte {
	slices.Reverse(u[0:4])
	slices.Reverse(u[4:6])
	slices.Reverse(u[6:8])
	return u
}

// File is the file that the option names on a partition of a GUID partition table. ok is false if it names something else. Nodes before the partition, which some
// firmware adds, do not matter.
func (o LoadOption) File() (p Partition, file string, ok bool) {
	b, found := o.Path, false
	for len(b) >= 4 {
		kind, subtype, n := b[0], b[1], int(binary.LittleEndian.Uint16(b[2:]))
		if n < 4 || n > len(b) || kind == typeEnd {
			return p, file, found && file != "" && kind == typeEnd && subtype == endAll
		}
		node := b[4:n]
		switch {
		case kind == typeMedia && subtype == subtypeHardDrive && !found:
			if p, found = hardDrive(node); !found {
				return p, "", false
			}
		case kind == typeMedia && subtype == subtypeFile && found:
			text, _, ended := cutText(node)
			if !ended {
				return p, "", false
			}
			file = joinFile(file, text)
		case found: // something else on the partition
			return p, "", false
		}
		b = b[n:]
	}
	return p, "", false
}

func hardDrive(node []byte) (p Partition, ok bool) {
	if len(node) != hardDriveSize-4 || node[36] != formatGPT || node[37] != signatureGUID {
		return p, false
	}
	le := binary.LittleEndian
	p = Partition{Number: le.Uint32(node), Start: le.Uint64(node[4:]), Size: le.Uint64(node[12:])}
	p.UUID = mixed([16]byte(node[20:36]))
	return p, true
}

// joinFile puts a name that is spread over nodes together.
func joinFile(a, b string) string {
	if a == "" || strings.HasSuffix(a, `\`) || strings.HasPrefix(b, `\`) {
		return a + b
	}
	return a + `\` + b
}

// commandLine is the text of optional data, and whether it is text at all.
func commandLine(optional []byte) (string, bool) {
	text, rest, ended := cutText(append(slices.Clip(optional), 0, 0))
	return text, ended && len(rest) <= 2 && len(optional)%2 == 0
}
