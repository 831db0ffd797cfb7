package suit

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// Labels of the draft, section "SUIT Envelope Elements".
const (
	tagEnvelope = 107

	memberAuthentication = 2
	memberManifest       = 3
)

// frame is an envelope taken apart, its members still as they came.
type frame struct {
	authentication []byte // content of the authentication wrapper
	manifest       []byte // content of the manifest member
	payload        string // key of the integrated payload, or empty
	size           int64  // length of the integrated payload
	end            int    // where the payload begins; without one, the end of the envelope
}

// readFrame reads an envelope up to its integrated payload, if it has one. What follows is not looked at.
func readFrame(b []byte) (frame, error) {
	r := &reader{b: b}
	var f frame
	if r.peek() == majorTag {
		tag, err := r.expect(majorTag, "envelope")
		if err != nil {
			return f, err
		}
		if tag != tagEnvelope {
			return f, malformed("tag %d is not that of an envelope", tag)
		}
	}
	n, err := r.count(majorMap, "envelope", 2, 64)
	if err != nil {
		return f, err
	}
	if f.authentication, err = r.member(memberAuthentication, "authentication wrapper"); err != nil {
		return f, err
	}
	if f.manifest, err = r.member(memberManifest, "manifest"); err != nil {
		return f, err
	}
	if n > 2 {
		if err := r.payload(&f); err != nil {
			return f, err
		}
	}
	if n > 3 {
		return f, unsupported("envelope with %d members after the manifest", n-2)
	}
	f.end = r.pos
	return f, nil
}

// member reads a key and its value. Both members are mandatory and have the lowest keys, so their places are known.
func (r *reader) member(want uint64, what string) ([]byte, error) {
	if r.peek() != majorUint {
		if _, _, err := r.head("key of the " + what); err != nil {
			return nil, err
		}
		return nil, malformed("envelope has no %s where one is expected", what)
	}
	key, err := r.uint("key of the " + what)
	if err != nil {
		return nil, err
	}
	if key != want {
		return nil, malformed("envelope has no %s where one is expected, but member %d", what, key)
	}
	return r.bytes(what)
}

// payload reads the key of the integrated payload and the head of its value.
func (r *reader) payload(f *frame) (err error) {
	if r.peek() <= majorNegInt {
		key, err := r.int("envelope key")
		if err != nil {
			return err
		}
		return unsupported("envelope member %s", memberName(key))
	}
	if f.payload, err = r.text("payload key"); err != nil {
		return err
	}
	if !validPayload(f.payload) {
		return unsupported("payload key %.64q", f.payload)
	}
	size, err := r.expect(majorBytes, "payload")
	if err != nil {
		return err
	}
	if size > math.MaxInt64-uint64(r.pos) {
		return malformed("payload of %d bytes", size)
	}
	f.size = int64(size)
	return nil
}

// validPayload tells whether s is the key of an integrated payload in the profile: "#" and a name.
func validPayload(s string) bool { return len(s) > 1 && s[0] == '#' && validName(s[1:]) }

// validName tells whether s can name a component: so few characters that it can stand in a terminal, a path and a log.
func validName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		case (c == '-' || c == '.') && i > 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

func appendEnvelope(b []byte, f frame) []byte {
	members := uint64(2)
	if f.payload != "" {
		members = 3
	}
	b = appendHead(b, majorTag, tagEnvelope)
	b = appendHead(b, majorMap, members)
	b = appendInt(b, memberAuthentication)
	b = appendBytes(b, f.authentication)
	b = appendInt(b, memberManifest)
	b = appendBytes(b, f.manifest)
	if f.payload != "" {
		b = appendText(b, f.payload)
		b = appendHead(b, majorBytes, uint64(f.size))
	}
	return b
}

// Bundle is the head of a stream that begins with an envelope.
type Bundle struct {
	// Envelope is the envelope without its integrated payload: what Open takes. It is framed anew (tagged, two members), the members unchanged.
	Envelope []byte
	// Payload is the key of the integrated payload, "#rootfs"; empty if there is none.
	Payload string
	// Offset is where the payload begins in the stream; without one, where the envelope ends.
	Offset int64
	// Size is the length of the payload. It is not authentic: the image size in the manifest is.
	Size int64
}

// End is where the envelope ends in the stream. The payload comes last, so that nothing may follow.
func (b Bundle) End() int64 { return b.Offset + b.Size }

// Carries returns nil if the payload is the image that an authenticated manifest describes, as far as key and length tell.
func (b Bundle) Carries(i Image) error {
	switch {
	case i.Payload == "":
		return malformed("the manifest names no integrated payload")
	case b.Payload != i.Payload:
		return malformed("envelope holds payload %q, the manifest names %q", b.Payload, i.Payload)
	case b.Size != i.Size:
		return malformed("envelope holds a payload of %d bytes, the image has %d", b.Size, i.Size)
	}
	return nil
}

// Header finds the envelope and its payload at the begin of a stream. It returns ErrShort as long as prefix ends before the payload begins, for MaxHeader bytes
// at most: a longer header is refused. It checks no signature; what it returns depends on nothing but the bytes before Offset, so that
// it is the same for every longer prefix of the stream.
func Header(prefix []byte) (Bundle, error) {
	f, err := readFrame(prefix[:min(len(prefix), MaxHeader)])
	if t := (truncated{}); errors.As(err, &t) {
		if len(prefix) >= MaxHeader {
			return Bundle{}, malformed("header of more than %d bytes", MaxHeader)
		}
		return Bundle{}, ErrShort
	}
	if err != nil {
		return Bundle{}, err
	}
	return Bundle{
		Envelope: appendEnvelope(nil, frame{authentication: f.authentication, manifest: f.manifest}),
		Payload:  f.payload,
		Offset:   int64(f.end),
		Size:     f.size,
	}, nil
}

// ReadHeader reads from r what Header needs and returns what was read beyond the header as rest: the begin of the payload.
func ReadHeader(r io.Reader) (h Bundle, rest []byte, err error) {
	buf := make([]byte, 0, MaxHeader)
	for {
		n, rerr := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		h, err := Header(buf)
		switch {
		case err == nil:
			return h, buf[h.Offset:], nil
		case !errors.Is(err, ErrShort):
			return Bundle{}, nil, err
		case rerr == io.EOF:
			return Bundle{}, nil, malformed("envelope ends early, after %d bytes", len(buf))
		case rerr != nil:
			return Bundle{}, nil, rerr
		}
	}
}

// whole reads an envelope that has no payload and nothing after it.
func whole(envelope []byte) (frame, error) {
	if len(envelope) > MaxHeader {
		return frame{}, malformed("envelope of %d bytes, more than %d", len(envelope), MaxHeader)
	}
	f, err := readFrame(envelope)
	switch {
	case err != nil:
		return f, err
	case f.payload != "":
		return f, malformed("envelope with payload %q where one without is expected", f.payload)
	case f.end != len(envelope):
		return f, malformed("%d bytes after the envelope", len(envelope)-f.end)
	}
	return f, nil
}

// readUnverified reads an envelope without payload whose digest is right. Whether it is signed, and by whom, is not looked at.
func readUnverified(envelope []byte) (f frame, a authentication, m *Manifest, err error) {
	if f, err = whole(envelope); err != nil {
		return f, a, nil, err
	}
	if a, err = readAuthentication(f.authentication); err != nil {
		return f, a, nil, err
	}
	if err = a.matches(f.manifest); err != nil {
		return f, a, nil, err
	}
	if m, err = parseManifest(f.manifest); err != nil {
		return f, a, nil, err
	}
	m.digest = a.digest
	return f, a, m, nil
}

// WriteBundle writes the envelope with the image, size bytes from r, integrated as payload payloadName. It holds no more than a block of the image. Key, size
// and digest must be those of the manifest: after an error, what was written is of no use. The signature is not checked, and may be missing.
func WriteBundle(w io.Writer, envelope []byte, payloadName string, size int64, r io.Reader) error {
	f, _, m, err := readUnverified(envelope)
	if err != nil {
		return err
	}
	if err := (Bundle{Payload: payloadName, Size: size}).Carries(m.image); err != nil {
		return err
	}
	f.payload, f.size = payloadName, size
	head := appendEnvelope(nil, f)
	if _, err := Header(head); err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("write header of bundle: %w", err)
	}
	return m.image.Check(io.TeeReader(r, w))
}
