package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Variables are the variables of a firmware. Their names are those of the files in efivarfs: the name, a hyphen, and the GUID of the vendor in lower case.
// An implementation: Directory.
type Variables interface {
	// Read returns a variable. The error wraps fs.ErrNotExist if there is none of that name.
	Read(name string) (Variable, error)
	// Write makes or replaces a variable. Whatever happens, the old one is there afterwards, or the new one.
	Write(name string, v Variable) error
	// Delete deletes a variable. It is no error if there is none of that name.
	Delete(name string) error
	// List returns the names of all variables, in any order.
	List() ([]string, error)
}

// readable is the part of Variables that changes nothing.
type readable interface {
	Read(name string) (Variable, error)
	List() ([]string, error)
}

// Variable is what a variable holds.
type Variable struct {
	Attributes uint32
	Data       []byte // never empty: for the firmware that is a deletion
}

func (v Variable) equal(o Variable) bool {
	return v.Attributes == o.Attributes && slices.Equal(v.Data, o.Data)
}

// Attributes of a variable that the firmware goes by: it survives a reset, and is seen before and after the system was started
// (UEFI specification 2.11, section 8.2 and table 3.1).
const Attributes = 1 | 2 | 4

// maxVariable is how much of a variable is read. Firmware takes less.
const maxVariable = 64 << 10

// The variables of the boot manager (section 3.3 of the UEFI specification).
const (
	global = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"

	BootOrder   = "BootOrder" + global   // numbers of the entries that are tried, the first one first
	BootNext    = "BootNext" + global    // number of the entry that is tried once, before the others
	BootCurrent = "BootCurrent" + global // number of the entry that was started; of this boot only
)

// EntryName is the name of the variable with entry n.
func EntryName(n uint16) string { return fmt.Sprintf("Boot%04X", n) + global }

// entryNumber is the number of an entry by the name of its variable. The specification has upper case digits.
func entryNumber(name string) (n uint16, ok bool) {
	if len(name) != len("Boot0000")+len(global) {
		return 0, false
	}
	for _, c := range []byte(name[4:8]) {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | uint16(c-'0')
		case c >= 'A' && c <= 'F':
			n = n<<4 | uint16(c-'A'+10)
		default:
			return 0, false
		}
	}
	return n, EntryName(n) == name
}

// ParseNumbers reads what BootOrder, BootNext and BootCurrent hold. An odd byte at the end is no number.
func ParseNumbers(b []byte) []uint16 {
	var out []uint16
	for ; len(b) >= 2; b = b[2:] {
		out = append(out, binary.LittleEndian.Uint16(b))
	}
	return out
}

// AppendNumbers writes what ParseNumbers reads.
func AppendNumbers(b []byte, numbers ...uint16) []byte {
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint16(b, n)
	}
	return b
}

var errTooLong = errors.New("it is longer than any variable of the boot manager")
