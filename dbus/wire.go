package dbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	godbus "github.com/godbus/dbus/v5"
)

// Message header (D-Bus Specification, "Message Format"): byte order, type, flags, protocol version, length of the body, serial; then an
// array of (field code, variant), padded to eight bytes; then the body.
const (
	fixedSize      = 16
	maxHeaderArray = 64 << 10
)

// fixed is the part of a message that has a constant size, without what is not needed.
type fixed struct {
	order   binary.ByteOrder
	kind    godbus.Type
	flags   godbus.Flags
	body    uint32 // bytes
	serial  uint32
	headers uint32 // bytes, without the padding
}

func parseFixed(b []byte) (fixed, error) {
	var f fixed
	if len(b) < fixedSize {
		return f, errors.New("message is shorter than its header")
	}
	switch b[0] {
	case 'l':
		f.order = binary.LittleEndian
	case 'B':
		f.order = binary.BigEndian
	default:
		return f, fmt.Errorf("byte order is %#x", b[0])
	}
	f.kind, f.flags = godbus.Type(b[1]), godbus.Flags(b[2])
	f.body, f.serial, f.headers = f.order.Uint32(b[4:]), f.order.Uint32(b[8:]), f.order.Uint32(b[12:])
	if b[3] != 1 {
		return f, fmt.Errorf("protocol version is %d", b[3])
	}
	return f, nil
}

// rest is how many bytes of header follow the fixed part.
func (f fixed) rest() uint64 { return (uint64(f.headers) + 7) &^ 7 }

// header is what the fields of a message's header say.
type header struct {
	path, iface, member, sender, signature string
	descriptors                            uint32
}

// parseHeader reads the array of fields that follows the fixed part. Fields that are not known are ignored, as the specification demands.
func parseHeader(f fixed, b []byte) (header, error) {
	var h header
	if uint64(f.headers) > uint64(len(b)) {
		return h, errors.New("header is cut off")
	}
	c := cursor{data: b[:f.headers], order: f.order}
	for c.err == nil && c.pos < len(c.data) {
		c.align(8)
		code, text, number := c.field()
		switch godbus.HeaderField(code) {
		case godbus.FieldPath:
			h.path = text
		case godbus.FieldInterface:
			h.iface = text
		case godbus.FieldMember:
			h.member = text
		case godbus.FieldSender:
			h.sender = text
		case godbus.FieldSignature:
			h.signature = text
		case godbus.FieldUnixFDs:
			h.descriptors = number
		}
	}
	return h, c.err
}

// cursor reads values in the D-Bus wire format. The first error stays; what is read after it is zero.
type cursor struct {
	data  []byte
	pos   int
	order binary.ByteOrder
	err   error
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *cursor) take(n uint64) []byte {
	if c.err == nil && n > uint64(len(c.data)-c.pos) {
		c.fail("value at byte %d is cut off", c.pos)
	}
	if c.err != nil {
		return nil
	}
	b := c.data[c.pos : c.pos+int(n)]
	c.pos += int(n)
	return b
}

func (c *cursor) align(n int) { c.take(uint64(-c.pos & (n - 1))) }

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	c.align(4)
	if b := c.take(4); b != nil {
		return c.order.Uint32(b)
	}
	return 0
}

func (c *cursor) int32() int32 { return int32(c.uint32()) }

func (c *cursor) uint64() uint64 {
	c.align(8)
	if b := c.take(8); b != nil {
		return c.order.Uint64(b)
	}
	return 0
}

// bytes reads an array of bytes. It shares memory with the message.
func (c *cursor) bytes() []byte { return c.take(uint64(c.uint32())) }

func (c *cursor) string() string { return c.text(uint64(c.uint32())) }

func (c *cursor) signature() string { return c.text(uint64(c.byte())) }

func (c *cursor) text(n uint64) string {
	b := c.take(n)
	if c.byte() != 0 || !utf8.Valid(b) {
		c.fail("string that ends at byte %d is not one", c.pos)
	}
	return string(b)
}

// field reads a header field: its code, and the value of its variant, which has a basic type.
func (c *cursor) field() (code byte, text string, number uint32) {
	code = c.byte()
	switch sig := c.signature(); sig {
	case "s", "o":
		text = c.string()
	case "g":
		text = c.signature()
	case "y":
		c.byte()
	case "n", "q":
		c.align(2)
		c.take(2)
	case "b", "i", "u", "h":
		number = c.uint32()
	case "x", "t", "d":
		c.uint64()
	default:
		c.fail("header field %d has the type %q", code, sig)
	}
	return code, text, number
}

// options reads an a{sv}. The keys that we know have strings as values. It stops at the first other one and returns that in unknown: the rest is of no interest then.
func (c *cursor) options(known ...string) (values map[string]string, unknown *string) {
	n := c.uint32()
	c.align(8)
	if n == 0 || c.err != nil {
		return nil, nil
	}
	values = map[string]string{}
	for end := uint64(c.pos) + uint64(n); c.err == nil && uint64(c.pos) < end; {
		c.align(8)
		key := c.string()
		if c.err == nil && !slices.Contains(known, key) {
			return values, &key
		}
		if sig := c.signature(); c.err == nil && sig != "s" {
			c.fail("option %q has the type %q, not s", key, sig)
		}
		if _, twice := values[key]; twice {
			c.fail("option %q is given twice", key)
		}
		values[key] = c.string()
	}
	return values, nil
}

// end reports what was wrong with the arguments, and that nothing follows them.
func (c *cursor) end() error {
	if c.err == nil && c.pos != len(c.data) {
		c.fail("%d bytes follow the arguments", len(c.data)-c.pos)
	}
	return c.err
}
