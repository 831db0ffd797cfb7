package suit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sort"
	"time"
)

// Labels of the draft, section "SUIT Envelope Elements".
const (
	tagEnvelope = 107

	memberAuthentication = 2
	memberManifest       = 3
)

// maxPayloads bounds the payloads of an envelope.
const maxPayloads = 64

// frame is an envelope taken apart, its members still as they came.
type frame struct {
	authentication []byte           // content of the authentication wrapper
	manifest       []byte           // content of the manifest member
	moved          map[int64][]byte // severable members that lie here
	payloads       int              // how many there are
	payload        string           // key of the first one, or empty
	size           int64            // its length
	end            int              // where it begins; without one, the end of the envelope
}

// readFrame reads an envelope up to its first integrated payload, if it has one. What follows is not looked at.
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
	n, err := r.count(majorMap, "envelope", 2, 2+4+maxPayloads)
	if err != nil {
		return f, err
	}
	if f.authentication, err = r.member(memberAuthentication, "authentication wrapper"); err != nil {
		return f, err
	}
	if f.manifest, err = r.member(memberManifest, "manifest"); err != nil {
		return f, err
	}
	if f.payloads, err = r.moved(&f, n-2); err != nil {
		return f, err
	}
	if f.payloads > maxPayloads {
		return f, malformed("envelope with %d payloads, %d at most", f.payloads, maxPayloads)
	}
	if f.payloads > 0 {
		if f.payload, f.size, err = r.payload(""); err != nil {
			return f, err
		}
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

// moved reads the members that were moved here from the manifest, and returns how many of the n members are left.
func (r *reader) moved(f *frame, n int) (int, error) {
	last := int64(memberManifest)
	for ; n > 0; n-- {
		if r.pos < len(r.b) && r.peek() == majorText {
			return n, nil
		}
		key, err := r.int("envelope key")
		if err != nil {
			return 0, err
		}
		if !severable(key) {
			return 0, unsupported("envelope member %s", memberName(key))
		}
		if key <= last {
			return 0, malformed("envelope: key %d is out of order, or there twice", key)
		}
		last = key
		content, err := r.bytes(memberName(key))
		if err != nil {
			return 0, err
		}
		if f.moved == nil {
			f.moved = map[int64][]byte{}
		}
		f.moved[key] = content
	}
	return 0, nil
}

// payload reads the key of an integrated payload, which comes after the key last, and the head of its value.
func (r *reader) payload(last string) (key string, size int64, err error) {
	if key, err = r.text("payload key"); err != nil {
		return "", 0, err
	}
	if !validPayload(key) {
		return "", 0, unsupported("payload key %.64q", key)
	}
	if !payloadsInOrder(last, key) {
		return "", 0, malformed("payload %q is out of order, or there twice", key)
	}
	n, err := r.expect(majorBytes, "payload")
	if err != nil {
		return "", 0, err
	}
	if n > math.MaxInt64-uint64(r.pos) {
		return "", 0, malformed("payload of %d bytes", n)
	}
	return key, int64(n), nil
}

// payloadsInOrder tells whether payload b may come after payload a: as their encodings are sorted, the shorter key first.
func payloadsInOrder(a, b string) bool {
	return len(a) < len(b) || len(a) == len(b) && a < b
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

// sortKeys sorts keys of a map in place. sort.Slice is one function for all types, slices.Sort one
// for each.
func sortKeys(keys []int64) []int64 {
	sort.Slice(keys, func(i, j int) bool { return keys[i] < keys[j] })
	return keys
}

// appendEnvelope encodes the envelope up to the content of its first payload.
func appendEnvelope(b []byte, f frame) []byte {
	b = appendHead(b, majorTag, tagEnvelope)
	b = appendHead(b, majorMap, 2+uint64(len(f.moved))+uint64(f.payloads))
	b = appendInt(b, memberAuthentication)
	b = appendBytes(b, f.authentication)
	b = appendInt(b, memberManifest)
	b = appendBytes(b, f.manifest)
	for _, key := range sortKeys(slices.Collect(maps.Keys(f.moved))) {
		b = appendBytes(appendInt(b, key), f.moved[key])
	}
	if f.payloads > 0 {
		b = appendPayload(b, f.payload, f.size)
	}
	return b
}

// appendPayload encodes a payload up to its content.
func appendPayload(b []byte, key string, size int64) []byte {
	return appendHead(appendText(b, key), majorBytes, uint64(size))
}

// Header is the head of a stream that begins with an envelope.
type Header struct {
	// Envelope is the envelope without its integrated payloads: what Open takes. It is framed anew (tagged), the members unchanged.
	Envelope []byte
	// Payloads is how many integrated payloads there are.
	Payloads int
	// Payload is the key of the first one, "#rootfs"; empty if there is none.
	Payload string
	// Offset is where the first payload begins in the stream; without one, where the envelope ends.
	Offset int64
	// Size is the length of the first payload. It is not authentic: the image size in the manifest is.
	Size int64
}

// ReadHeader finds the envelope and its first payload at the begin of a stream. It returns ErrShort as long as prefix ends before the payload begins, for MaxHeader bytes
// at most: a longer header is refused. It checks no signature; what it returns depends on nothing but the bytes before Offset, so that
// it is the same for every longer prefix of the stream.
func ReadHeader(prefix []byte) (Header, error) {
	f, err := readFrame(prefix[:min(len(prefix), MaxHeader)])
	if t := (truncated{}); errors.As(err, &t) {
		if len(prefix) >= MaxHeader {
			return Header{}, malformed("header of more than %d bytes", MaxHeader)
		}
		return Header{}, ErrShort
	}
	if err != nil {
		return Header{}, err
	}
	return Header{
		Envelope: appendEnvelope(nil, frame{authentication: f.authentication, manifest: f.manifest, moved: f.moved}),
		Payloads: f.payloads,
		Payload:  f.payload,
		Offset:   int64(f.end),
		Size:     f.size,
	}, nil
}

// Single is the begin of an envelope that is this one with one payload of a key and a size, up to the payload: what a component expects to which payloads are given one by one.
func (h Header) Single(p Payload) ([]byte, error) {
	f, err := whole(h.Envelope)
	if err != nil {
		return nil, err
	}
	f.payloads, f.payload, f.size = 1, p.Key, p.Size
	return appendEnvelope(nil, f), nil
}

// Carries returns nil if the one payload is that of an image, as far as key and length tell.
func (h Header) Carries(i Image) error {
	if h.Payloads > 1 {
		return malformed("envelope with %d payloads, where one component's is expected", h.Payloads)
	}
	return carries(i, h.Payload, h.Size)
}

func carries(i Image, payload string, size int64) error {
	switch {
	case !i.Integrated():
		return malformed("the manifest names no integrated payload for %s", i.Component)
	case payload != i.URI:
		return malformed("envelope holds payload %q, the manifest names %q", payload, i.URI)
	case i.Compression == "" && size != i.Size:
		return malformed("envelope holds a payload of %d bytes, the image has %d", size, i.Size)
	case size == 0:
		return malformed("envelope holds an empty payload")
	}
	return nil
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
	case f.payloads > 0:
		return f, malformed("envelope with payload %q where one without is expected", f.payload)
	case f.end != len(envelope):
		return f, malformed("%d bytes after the envelope", len(envelope)-f.end)
	}
	return f, nil
}

// Open verifies an envelope and then reads its manifest, once, from a copy of the bytes that were verified. The envelope is one without integrated payload, with nothing
// after it; where there is a payload, it is Header.Envelope. One signature by one of the keys is
// enough, unless RequireSigners asks for more. A signature that names a key is checked against the
// keys with that identifier, any other against all keys of the right type. One that comes with
// certificates counts if a certificate authority among the keys vouches for them at that time: the
// latest of those that the caller can believe in, as clocks can be wrong. Errors wrap ErrMalformed,
// ErrUnsupported or ErrSignature.
func Open(envelope []byte, keys VerifyKeys, at time.Time) (*Manifest, error) {
	if len(envelope) <= MaxHeader {
		envelope = bytes.Clone(envelope)
	}
	f, err := whole(envelope)
	if err != nil {
		return nil, err
	}
	a, err := readAuthentication(f.authentication)
	if err != nil {
		return nil, err
	}
	if err := a.matches(f.manifest); err != nil {
		return nil, err
	}
	signers, notBefore, err := a.verify(keys, at)
	if err != nil {
		return nil, err
	}
	m, err := readManifest(f.manifest, f.moved)
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	m.digest, m.signers, m.notBefore = a.digest, signers, notBefore
	return m, nil
}

// Signers returns the keys that signed the manifest and are trusted, each once. There is at least
// one.
func (m *Manifest) Signers() []Signer { return m.signers }

// RequireSigners returns an error that wraps ErrSignature unless that many different keys signed.
func (m *Manifest) RequireSigners(n int) error {
	if len(m.signers) < n {
		return &signatureError{ErrSigners, fmt.Sprintf("signed by %d trusted keys, and %d are required", len(m.signers), n)}
	}
	return nil
}

// readUnverified reads an envelope without payload whose digest is right. Whether it is signed, and by whom, and whether the profile has what its manifest says, is not looked at.
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
	if m, err = readManifest(f.manifest, f.moved); err != nil {
		return f, a, nil, err
	}
	m.digest = a.digest
	return f, a, m, nil
}

// readUsable is readUnverified for a manifest that some device will take.
func readUsable(envelope []byte) (f frame, a authentication, m *Manifest, err error) {
	if f, a, m, err = readUnverified(envelope); err == nil {
		_, err = m.Targets()
	}
	return f, a, m, err
}

// Bundle reads a stream that is an envelope with integrated payloads, from front to back, and holds no more than a header of it.
type Bundle struct {
	Header
	r    io.Reader
	rest []byte // read ahead, of what comes next
	key  string // of the current payload; empty before the first
	left int64  // of it
	n    int    // payloads that were not begun
	pos  int64

	skipped bool  // something was skipped by seeking, which goes past the end of a file that was cut
	start   int64 // then: where in the file the stream began
}

// NewBundle reads the header.
func NewBundle(r io.Reader) (*Bundle, error) {
	buf := make([]byte, 0, MaxHeader)
	for {
		n, rerr := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		h, err := ReadHeader(buf)
		switch {
		case err == nil:
			return &Bundle{Header: h, r: r, rest: buf[h.Offset:], n: h.Payloads, pos: h.Offset}, nil
		case !errors.Is(err, ErrShort):
			return nil, err
		case rerr == io.EOF:
			return nil, ended("envelope", int64(len(buf)))
		case rerr != nil:
			return nil, rerr
		}
	}
}

// Payload is where a payload of a bundle is.
type Payload struct {
	Key    string // "#rootfs"
	Offset int64  // in the stream
	Size   int64
}

// Next goes to the next payload, past what is left of the one before, and returns io.EOF after the last one: then the stream ends, too. Where the stream is an io.Seeker that can, what is
// left is not read.
func (b *Bundle) Next() (Payload, error) {
	b.seek()
	if _, err := io.Copy(io.Discard, b); err != nil {
		return Payload{}, err
	}
	if b.n == 0 {
		if n, err := io.ReadFull(b.raw(), make([]byte, 1)); n > 0 {
			return Payload{}, malformed("something comes after the envelope, which ends at %d", b.pos)
		} else if err != io.EOF {
			return Payload{}, err
		}
		return Payload{}, io.EOF
	}
	key, size := b.Header.Payload, b.Header.Size
	if b.key != "" {
		var err error
		if key, size, err = b.readPayload(); err != nil {
			return Payload{}, err
		}
	}
	b.n--
	b.key, b.left = key, size
	return Payload{Key: key, Offset: b.pos, Size: size}, nil
}

// seek skips what is left of the payload but for its last byte, without reading it, if that can be done.
func (b *Bundle) seek() {
	s, ok := b.r.(io.Seeker)
	n := b.left - int64(len(b.rest)) - 1
	if !ok || n <= 0 {
		return
	}
	at, err := s.Seek(n, io.SeekCurrent)
	if err != nil { // a pipe
		return
	}
	b.pos, b.left, b.rest = b.pos+b.left-1, 1, nil
	b.skipped, b.start = true, at-b.pos
}

// readPayload reads the key and the length of a payload, byte by byte: what follows belongs to others.
func (b *Bundle) readPayload() (string, int64, error) {
	var head []byte
	for {
		r := &reader{b: head}
		key, size, err := r.payload(b.key)
		if t := (truncated{}); !errors.As(err, &t) {
			if err == nil && size > math.MaxInt64-b.pos {
				err = malformed("payload of %d bytes", size)
			}
			return key, size, err
		}
		head = append(head, 0)
		if _, err := io.ReadFull(b.raw(), head[len(head)-1:]); err != nil {
			return "", 0, b.ended(err)
		}
		b.pos++
	}
}

// ended says where the stream ended.
func (b *Bundle) ended(err error) error {
	if err != io.EOF && err != io.ErrUnexpectedEOF { //nolint:errorlint // of io.ReadFull
		return err
	}
	at := b.pos
	if b.skipped { // past the end
		end, seekErr := b.r.(io.Seeker).Seek(0, io.SeekEnd)
		if seekErr != nil {
			return seekErr
		}
		at = end - b.start
	}
	return ended("bundle", at)
}

// raw is the stream.
func (b *Bundle) raw() io.Reader { return rawBundle{b} }

type rawBundle struct{ *Bundle }

func (b rawBundle) Read(p []byte) (int, error) {
	if len(b.rest) > 0 {
		n := copy(p, b.rest)
		b.rest = b.rest[n:]
		return n, nil
	}
	return b.r.Read(p)
}

// Read reads the current payload, and returns io.EOF at its end. A stream that ends before it does wraps ErrMalformed.
func (b *Bundle) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.raw().Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.pos += int64(n)
	if err == io.EOF && b.left > 0 {
		err = b.ended(err)
	} else if err == io.EOF {
		err = nil // said by the next call
	}
	return n, err
}

// PayloadSource is a payload that is to be put into a bundle.
type PayloadSource struct {
	Key  string
	Size int64 // how many bytes Open's reader gives
	Open func() (io.ReadCloser, error)
}

// WriteBundle writes the envelope with payloads integrated, one for each image that the manifest names one for. It holds no more than a block of them. Keys, sizes
// and digests must be those of the manifest: after an error, what was written is of no use. The signature is not checked, and may be missing.
func WriteBundle(w io.Writer, envelope []byte, payloads []PayloadSource) error {
	f, _, m, err := readUsable(envelope)
	if err != nil {
		return err
	}
	images, err := m.payloads(payloads)
	if err != nil {
		return err
	}
	sorted := slices.Clone(payloads)
	sort.Slice(sorted, func(i, j int) bool { return payloadsInOrder(sorted[i].Key, sorted[j].Key) })
	f.payloads, f.payload, f.size = len(sorted), sorted[0].Key, sorted[0].Size
	head := appendEnvelope(nil, f)
	if _, err := ReadHeader(head); err != nil {
		return err
	}
	for i, p := range sorted {
		if i > 0 {
			head = appendPayload(nil, p.Key, p.Size)
		}
		if _, err := w.Write(head); err != nil {
			return fmt.Errorf("write header of bundle: %w", err)
		}
		if err := p.copy(w, images[p.Key]); err != nil {
			return fmt.Errorf("payload %s: %w", p.Key, err)
		}
	}
	return nil
}

// payloads gives each payload its image. There has to be one for each image.
func (m *Manifest) payloads(list []PayloadSource) (map[string]Image, error) {
	targets, err := m.Targets()
	if err != nil {
		return nil, err
	}
	images := map[string]Image{}
	for _, t := range targets {
		for _, i := range t.Images {
			if i.Integrated() {
				images[i.URI] = i
			}
		}
	}
	given := map[string]bool{}
	for _, p := range list {
		i, ok := images[p.Key]
		if !ok {
			return nil, malformed("the manifest names no integrated payload %q", p.Key)
		}
		if given[p.Key] {
			return nil, malformed("payload %q is there twice", p.Key)
		}
		given[p.Key] = true
		if err := carries(i, p.Key, p.Size); err != nil {
			return nil, err
		}
	}
	for key := range images {
		if !given[key] {
			return nil, malformed("the manifest names a payload %q, which is not there", key)
		}
	}
	if len(list) == 0 {
		return nil, malformed("the manifest names no integrated payload")
	}
	return images, nil
}

// copy writes the payload, and checks that it is the image.
func (p PayloadSource) copy(w io.Writer, i Image) error {
	r, err := p.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	counted := &countedReader{r: r}
	if err := i.CheckPayload(io.TeeReader(counted, w)); err != nil {
		return err
	}
	if counted.n != p.Size {
		return malformed("payload of %d bytes, expected were %d", counted.n, p.Size)
	}
	return nil
}

type countedReader struct {
	r io.Reader
	n int64
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
