package suit

import (
	"bytes"
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// Major types (RFC 8949, section 3.1) and the simple values in use.
const (
	majorUint   = 0
	majorNegInt = 1
	majorBytes  = 2
	majorText   = 3
	majorArray  = 4
	majorMap    = 5
	majorTag    = 6
	majorSimple = 7

	simpleFalse = 20
	simpleTrue  = 21
	simpleNull  = 22
)

// A reader takes deterministic CBOR apart (RFC 8949, section 4.2.1), one expected item after the other: definite and shortest lengths only.
// It never recurses and never copies, and it reads a prefix of a stream as well, which is why it is not a general decoder.
type reader struct {
	b   []byte
	pos int
}

// truncated says that the bytes end within an item.
type truncated struct{ what string }

func (t truncated) Error() string { return t.what + " ends early" }
func (t truncated) Unwrap() error { return ErrMalformed }

// head reads the head of an item: its major type and argument.
func (r *reader) head(what string) (major byte, arg uint64, err error) {
	if r.pos >= len(r.b) {
		return 0, 0, truncated{what}
	}
	major, info := r.b[r.pos]>>5, r.b[r.pos]&31
	if info < 24 {
		r.pos++
		return major, uint64(info), nil
	}
	if info > 27 {
		return 0, 0, malformed("%s: indefinite or reserved length", what)
	}
	n := 1 << (info - 24)
	if len(r.b)-r.pos-1 < n {
		return 0, 0, truncated{what}
	}
	var buf [8]byte
	copy(buf[8-n:], r.b[r.pos+1:])
	arg = binary.BigEndian.Uint64(buf[:])
	if shortest := headLen(arg); shortest != 1+n {
		return 0, 0, malformed("%s: number of %d bytes that needs %d", what, n, shortest-1)
	}
	r.pos += 1 + n
	return major, arg, nil
}

// headLen is the length of the shortest head with this argument.
func headLen(arg uint64) int {
	switch {
	case arg < 24:
		return 1
	case arg <= math.MaxUint8:
		return 2
	case arg <= math.MaxUint16:
		return 3
	case arg <= math.MaxUint32:
		return 5
	}
	return 9
}

func (r *reader) expect(want byte, what string) (uint64, error) {
	major, arg, err := r.head(what)
	if err == nil && major != want {
		err = malformed("%s is %s, not %s", what, majorName(major), majorName(want))
	}
	return arg, err
}

func majorName(m byte) string {
	return [...]string{"an unsigned number", "a negative number", "a byte string", "a text", "an array", "a map", "a tag", "a simple value"}[m&7]
}

// peek is the major type of the next item, majorSimple if there is none.
func (r *reader) peek() byte {
	if r.pos >= len(r.b) {
		return majorSimple
	}
	return r.b[r.pos] >> 5
}

func (r *reader) uint(what string) (uint64, error) { return r.expect(majorUint, what) }

// int reads a number that fits an int64: every label, command and algorithm does.
func (r *reader) int(what string) (int64, error) {
	major, arg, err := r.head(what)
	switch {
	case err != nil:
		return 0, err
	case major > majorNegInt:
		return 0, malformed("%s is %s, not a number", what, majorName(major))
	case arg > math.MaxInt64:
		return 0, malformed("%s: number too large", what)
	case major == majorNegInt:
		return -1 - int64(arg), nil
	}
	return int64(arg), nil
}

func (r *reader) bool(what string) (bool, error) {
	arg, err := r.expect(majorSimple, what)
	if err == nil && arg != simpleFalse && arg != simpleTrue {
		err = malformed("%s is neither true nor false", what)
	}
	return arg == simpleTrue, err
}

// take returns the next n bytes, without copying them.
func (r *reader) take(n uint64, what string) ([]byte, error) {
	if n > uint64(MaxHeader-min(r.pos, MaxHeader)) {
		return nil, malformed("%s of %d bytes: more than %d bytes in all", what, n, MaxHeader)
	}
	if n > uint64(len(r.b)-r.pos) {
		return nil, truncated{what}
	}
	p := r.b[r.pos : r.pos+int(n) : r.pos+int(n)]
	r.pos += int(n)
	return p, nil
}

func (r *reader) bytes(what string) ([]byte, error) {
	n, err := r.expect(majorBytes, what)
	if err != nil {
		return nil, err
	}
	return r.take(n, what)
}

func (r *reader) text(what string) (string, error) {
	n, err := r.expect(majorText, what)
	if err != nil {
		return "", err
	}
	p, err := r.take(n, what)
	if err == nil && !utf8.Valid(p) {
		err = malformed("%s is not UTF-8", what)
	}
	return string(p), err
}

// array reads the head of an array and returns the number of its elements, between lo and hi.
func (r *reader) array(what string, lo, hi uint64) (int, error) {
	return r.count(majorArray, what, lo, hi)
}

func (r *reader) count(major byte, what string, lo, hi uint64) (int, error) {
	n, err := r.expect(major, what)
	switch {
	case err != nil:
		return 0, err
	case n < lo || n > hi:
		return 0, malformed("%s has %d elements, want %d to %d", what, n, lo, hi)
	}
	return int(n), nil
}

// fields reads a map with numbers as keys, in ascending order of their encoding. It calls field for each key; field reads the value.
func (r *reader) fields(what string, field func(key int64) error) error {
	n, err := r.count(majorMap, what, 0, 64)
	if err != nil {
		return err
	}
	var last []byte
	for range n {
		start := r.pos
		key, err := r.int("key in " + what)
		if err != nil {
			return err
		}
		if bytes.Compare(last, r.b[start:r.pos]) >= 0 {
			return malformed("%s: key %d is out of order, or there twice", what, key)
		}
		last = r.b[start:r.pos]
		if err := field(key); err != nil {
			return err
		}
	}
	return nil
}

// nested reads a byte string that holds one CBOR item, and returns a reader of that.
func (r *reader) nested(what string) (*reader, error) {
	p, err := r.bytes(what)
	return &reader{b: p}, err
}

// done fails if bytes are left.
func (r *reader) done(what string) error {
	if n := len(r.b) - r.pos; n > 0 {
		return malformed("%d bytes after %s", n, what)
	}
	return nil
}

func appendHead(b []byte, major byte, arg uint64) []byte {
	major <<= 5
	switch headLen(arg) {
	case 1:
		return append(b, major|byte(arg))
	case 2:
		return append(b, major|24, byte(arg))
	case 3:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(arg))
	case 5:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(arg))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), arg)
}

func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		return appendHead(b, majorNegInt, uint64(-1-n))
	}
	return appendHead(b, majorUint, uint64(n))
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return appendHead(b, majorSimple, simpleTrue)
	}
	return appendHead(b, majorSimple, simpleFalse)
}

func appendBytes(b, p []byte) []byte {
	return append(appendHead(b, majorBytes, uint64(len(p))), p...)
}

func appendText(b []byte, s string) []byte {
	return append(appendHead(b, majorText, uint64(len(s))), s...)
}
