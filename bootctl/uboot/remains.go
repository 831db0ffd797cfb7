package uboot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// contents classifies a location that was read and has no good checksum.
type contents uint8

const (
	foreign contents = iota // unknown: it is not overwritten
	blank                   // one byte repeated, 0x00 or 0xFF: never written, or erased
	headed                  // it begins with a variable where a copy of this geometry has its first one
	halved                  // its first sector is blank, and all others hold nothing but text
)

// classify looks at a location of a copy with a header of this size.
func classify(buf []byte, header int) contents {
	switch {
	case isBlank(buf):
		return blank
	case beginsWithVariable(buf[header:]):
		return headed
	case isText(buf[header:]) && bytes.IndexByte(buf[header:], 0) >= 0:
		return halved
	}
	return foreign
}

func isBlank(b []byte) bool {
	return (b[0] == 0 || b[0] == 0xff) && bytes.Count(b, b[:1]) == len(b)
}

// isText tells whether b holds only characters of variables, their ends, and padding.
func isText(b []byte) bool {
	for _, c := range b {
		if c != 0 && c != 0xff && !isPrintable(c) {
			return false
		}
	}
	return true
}

func isPrintable(c byte) bool { return c >= ' ' && c < 0x7f || c == '\t' || c == '\n' || c == '\r' }

// isNameByte tells whether c can begin the name of a variable.
func isNameByte(c byte) bool { return c > ' ' && c < 0x7f && c != '=' }

// beginsWithVariable tells whether b begins with name=value and NUL, in printable characters.
func beginsWithVariable(b []byte) bool {
	entry, _, found := bytes.Cut(b, []byte{0})
	name, _, assigned := bytes.Cut(entry, []byte{'='})
	return found && assigned && len(name) > 0 && isNameByte(name[0]) && isText(entry) && bytes.IndexByte(entry, 0xff) < 0
}

// replaceable returns nil if copy i, which has no good checksum, may be overwritten. proven tells
// whether the other copy is valid: that shows where a copy's first variable begins.
func (m *media) replaceable(copies []Copy, i int, proven bool) error {
	c := copies[i]
	if found := m.otherGeometry(i); found != "" {
		return fmt.Errorf("%w: %s", fwu.ErrNoSelection, found)
	}
	known := c.contents == blank || c.contents == headed || c.contents == halved && proven
	if !known || c.contents == headed && !proven && !m.hasFlag(copies, i) {
		return fmt.Errorf("%w: %s holds neither a copy of the U-Boot environment of %#x bytes nor blanks: it is not overwritten; "+
			"correct the place, the size or the number of copies, or erase the place if the environment belongs there", fwu.ErrNoSelection, c.Location, c.Size)
	}
	if m.free == nil {
		return nil
	}
	return m.free(c.Location)
}

// hasFlag tells whether the byte before the first variable is a flag, where there are two copies. A
// byte that could be the first letter of a name is one only if the other copy has another byte
// before the same name.
func (m *media) hasFlag(copies []Copy, i int) bool {
	if len(copies) == 1 || !isNameByte(copies[i].Flag) {
		return true
	}
	other := copies[1-i]
	return other.contents == headed && other.first == copies[i].first && other.Flag != copies[i].Flag
}

// geometry is a size and a number of copies.
type geometry struct {
	size   int64
	copies int
}

const (
	smallestSearched = 0x400
	searchStep       = 0x200
)

// findGeometry looks for sizes with which b begins with a copy that has a good checksum.
func findGeometry(b []byte) []geometry {
	var found []geometry
	if len(b) < smallestSearched || isBlank(b[:smallestSearched]) {
		return nil
	}
	want := binary.LittleEndian.Uint32(b)
	for n := 1; n <= 2; n++ {
		header := int(headerSize(n))
		sum := crc32.ChecksumIEEE(b[header:smallestSearched])
		for end := smallestSearched; ; end += searchStep {
			if sum == want {
				found = append(found, geometry{int64(end), n})
			}
			if end+searchStep > min(len(b), MaxSize) {
				break
			}
			sum = crc32.Update(sum, crc32.IEEETable, b[end:end+searchStep])
		}
	}
	return found
}

// otherGeometry says, for people, with which other geometry location i has a good checksum; "" if
// there is none.
func (m *media) otherGeometry(i int) string {
	l := m.locations[i]
	b := make([]byte, min(MaxSize, m.media[i].Size()-l.Offset))
	if err := fwu.ReadFull(m.media[i], b, l.Offset); err != nil {
		b = b[:l.Size] // the size that was configured was read before
		if err := fwu.ReadFull(m.media[i], b, l.Offset); err != nil {
			return ""
		}
	}
	var texts []string
	for _, g := range findGeometry(b) {
		texts = append(texts, fmt.Sprintf("%#x bytes and %s", g.size, count(g.copies)))
	}
	if len(texts) == 0 {
		return ""
	}
	return fmt.Sprintf("the U-Boot environment in %s has a good checksum with %s, and not with %#x bytes and %s: correct fw_env.config, or copies in the configuration",
		l, strings.Join(texts, ", or "), l.Size, count(len(m.locations)))
}

func count(copies int) string {
	if copies == 1 {
		return "one copy (no flag byte)"
	}
	return "two copies (a flag byte)"
}

// explain completes the error of an environment without a valid copy with the geometry that fits.
func (m *media) explain(err error) error {
	for i := range m.locations {
		if found := m.otherGeometry(i); found != "" {
			return fmt.Errorf("%w: %s", fwu.ErrNoSelection, found)
		}
	}
	return err
}
