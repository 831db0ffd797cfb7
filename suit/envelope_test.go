package suit

import (
	"bytes"
	"crypto"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// bundle is the envelope with the head of a payload and what follows it.
func bundle(t testing.TB, envelope []byte, key string, size int64, payload string) []byte {
	t.Helper()
	f, err := whole(envelope)
	if err != nil {
		t.Fatal(err)
	}
	f.payload, f.size = key, size
	return append(appendEnvelope(nil, f), payload...)
}

func TestHeader(t *testing.T) {
	envelope := mustSign(t, mustCreate(t, full()), edKey())
	untagged := envelope[2:]
	for name, c := range map[string]struct {
		stream []byte
		want   Bundle
	}{
		"no payload":               {envelope, Bundle{Envelope: envelope, Offset: int64(len(envelope))}},
		"no payload, no tag":       {untagged, Bundle{Envelope: envelope, Offset: int64(len(untagged))}},
		"something after":          {append(bytes.Clone(envelope), "more"...), Bundle{Envelope: envelope, Offset: int64(len(envelope))}},
		"a payload":                {bundle(t, envelope, "#rootfs", 5, "image"), Bundle{envelope, "#rootfs", int64(len(envelope) + 9), 5}},
		"a payload with trailer":   {bundle(t, envelope, "#rootfs", 5, "image and more"), Bundle{envelope, "#rootfs", int64(len(envelope) + 9), 5}},
		"an empty payload":         {bundle(t, envelope, "#rootfs", 0, ""), Bundle{envelope, "#rootfs", int64(len(envelope) + 9), 0}},
		"a payload above 4 GiB":    {bundle(t, envelope, "#rootfs", 5<<30, "image"), Bundle{envelope, "#rootfs", int64(len(envelope) + 17), 5 << 30}},
		"a payload up to 2^63 - 1": {bundle(t, envelope, "#a", math.MaxInt64-int64(len(envelope))-12, ""), Bundle{envelope, "#a", int64(len(envelope) + 12), math.MaxInt64 - int64(len(envelope)) - 12}},
	} {
		t.Run(name, func(t *testing.T) {
			for n := range len(c.stream) + 1 {
				got, err := Header(c.stream[:n])
				if int64(n) < c.want.Offset {
					if err != ErrShort { //nolint:errorlint // exactly this
						t.Fatalf("%d bytes: %+v, %v", n, got, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%d bytes: %v", n, err)
				}
				if d := cmp.Diff(c.want, got); d != "" {
					t.Fatalf("%d bytes: %s", n, d)
				}
				if got.End() < got.Offset {
					t.Fatalf("ends at %d", got.End())
				}
			}
		})
	}
}

func TestHeaderThatIsRefused(t *testing.T) {
	envelope := mustCreate(t, small())
	members := func(n byte, b []byte) []byte { b = bytes.Clone(b); b[2] = 0xa0 | n; return b }
	head := members(3, envelope)
	for name, c := range map[string]struct {
		stream []byte
		want   error
		text   string
	}{
		"another tag":                      {append([]byte{0xd9, 0x04, 0x2e}, envelope[2:]...), ErrMalformed, "tag 1070"},
		"two tags":                         {append([]byte{0xd8, 0x6b}, envelope...), ErrMalformed, "envelope is a tag"},
		"an array":                         {[]byte{0x82, 1, 2}, ErrMalformed, "envelope is an array"},
		"an empty map":                     {[]byte{0xa0}, ErrMalformed, "envelope has 0 elements"},
		"map of indefinite length":         {[]byte{0xbf}, ErrMalformed, "indefinite"},
		"map too large":                    {[]byte{0xbb, 255, 255, 255, 255, 255, 255, 255, 255}, ErrMalformed, "elements"},
		"text":                             {[]byte("<?xml version"), ErrMalformed, ""},
		"manifest first":                   {[]byte{0xa2, 3, 0x40, 2, 0x40}, ErrMalformed, "no authentication wrapper where one is expected, but member 3"},
		"no manifest":                      {[]byte{0xa2, 2, 0x40, 16, 0x40}, ErrMalformed, "no manifest where one is expected, but member 16"},
		"only a payload":                   {[]byte{0xa2, 0x61, '#'}, ErrMalformed, "no authentication wrapper"},
		"wrapper of indefinite length":     {[]byte{0xa2, 2, 0x5f}, ErrMalformed, "indefinite"},
		"wrapper above the bound":          {[]byte{0xa2, 2, 0x5a, 0, 1, 0, 0}, ErrMalformed, "more than 65536 bytes in all"},
		"wrapper of 2^64 - 1 bytes":        {[]byte{0xa2, 2, 0x5b, 255, 255, 255, 255, 255, 255, 255, 255}, ErrMalformed, "more than 65536 bytes in all"},
		"both above the bound":             {append([]byte{0xa2, 2, 0x59, 0x80, 0}, append(make([]byte, 0x8000), 3, 0x59, 0x80, 0)...), ErrMalformed, "more than 65536 bytes in all"},
		"severed text":                     {append(bytes.Clone(head), 23, 0x40), ErrUnsupported, "suit-text (23)"},
		"private member":                   {append(bytes.Clone(head), 0x20, 0x40), ErrUnsupported, "envelope member -1"},
		"manifest twice":                   {append(bytes.Clone(head), 3, 0x40), ErrUnsupported, "envelope member 3"},
		"two payloads":                     {append(members(4, envelope), 0x62, '#', 'a', 0x40, 0x62, '#', 'b', 0x40), ErrUnsupported, "2 members after the manifest"},
		"payload by uri":                   {append(bytes.Clone(head), 0x64, 'h', 't', 't', 'p', 0x40), ErrUnsupported, `payload key "http"`},
		"payload key that is not UTF-8":    {append(bytes.Clone(head), 0x62, '#', 0xff, 0x40), ErrMalformed, "not UTF-8"},
		"payload key with an escape":       {append(bytes.Clone(head), 0x63, '#', 0x1b, 'c', 0x40), ErrUnsupported, `"#\x1bc"`},
		"payload key above the bound":      {append(bytes.Clone(head), 0x7a, 1, 0, 0, 0), ErrMalformed, "more than 65536 bytes in all"},
		"payload of indefinite length":     {append(bytes.Clone(head), 0x62, '#', 'a', 0x5f), ErrMalformed, "indefinite"},
		"payload that is text":             {append(bytes.Clone(head), 0x62, '#', 'a', 0x61), ErrMalformed, "payload is a text"},
		"payload of 2^64 - 1 bytes":        {append(bytes.Clone(head), 0x62, '#', 'a', 0x5b, 255, 255, 255, 255, 255, 255, 255, 255), ErrMalformed, "payload of 18446744073709551615 bytes"},
		"payload whose end wraps":          {append(bytes.Clone(head), 0x62, '#', 'a', 0x5b, 127, 255, 255, 255, 255, 255, 255, 255), ErrMalformed, "payload of 9223372036854775807 bytes"},
		"length of payload takes too much": {append(bytes.Clone(head), 0x62, '#', 'a', 0x5b, 0, 0, 0, 0, 0, 0, 0, 5), ErrMalformed, "number of 8 bytes that needs 0"},
	} {
		t.Run(name, func(t *testing.T) {
			for n := range len(c.stream) {
				if _, err := Header(c.stream[:n]); err == nil {
					t.Fatalf("%d bytes are accepted", n)
				}
			}
			for _, more := range []int{0, 1, 100, 2 * MaxHeader} {
				_, err := Header(append(bytes.Clone(c.stream), make([]byte, more)...))
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
					t.Errorf("with %d bytes more: got %v, want %v with %q", more, err, c.want, c.text)
				}
			}
			if _, err := Open(c.stream, nil, time.Time{}); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnsupported) {
				t.Errorf("Open: %v", err)
			}
		})
	}
}

// TestHeaderIsBounded: the bound counts from the begin of the stream to the begin of the payload.
func TestHeaderIsBounded(t *testing.T) {
	padded := func(n int) []byte {
		p := smallParts(t)
		p.manifest[23] = make([]byte, n)
		return signRaw(t, p.encode(t))
	}
	rest := len(padded(1000)) - 1000
	largest := padded(MaxHeader - rest)
	if len(largest) != MaxHeader {
		t.Fatalf("%d bytes", len(largest))
	}
	if _, err := Header(largest); err != nil {
		t.Error(err)
	}
	if _, err := Open(largest, anchors(t, edKey()), time.Time{}); err != nil {
		t.Error(err)
	}
	over := padded(MaxHeader - rest + 1)
	if _, err := Header(over); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	if _, err := Open(over, anchors(t, edKey()), time.Time{}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	// The payload's head fits, and then it does not: its key ends where the bound is.
	for short, fits := range map[int]bool{4: true, 3: false} {
		_, err := Header(bundle(t, padded(MaxHeader-rest-short), "#a", 5, "image"))
		if fits != (err == nil) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes before the bound: %v", short, err)
		}
	}
	if _, err := Header(bundle(t, largest, "#a", 5, "image")); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	if err := WriteBundle(io.Discard, largest, "#a", 5, strings.NewReader("image")); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestOpenTakesNoPayload(t *testing.T) {
	envelope := mustSign(t, mustCreate(t, full()), edKey())
	if _, err := Open(bundle(t, envelope, "#rootfs", 5, "image"), anchors(t, edKey()), time.Time{}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestWriteBundle(t *testing.T) {
	envelope := mustSign(t, mustCreate(t, full()), edKey())
	var b bytes.Buffer
	if err := WriteBundle(&b, envelope, "#rootfs", 5, strings.NewReader("image")); err != nil {
		t.Fatal(err)
	}
	stream := b.Bytes()
	h, rest, err := ReadHeader(iotest.OneByteReader(bytes.NewReader(stream)))
	if err != nil {
		t.Fatal(err)
	}
	if len(rest) != 0 || h.End() != int64(len(stream)) || string(stream[h.Offset:]) != "image" {
		t.Errorf("%+v, rest %q, of %d bytes", h, rest, len(stream))
	}
	h, rest, err = ReadHeader(bytes.NewReader(stream))
	if err != nil || string(rest) != "image" {
		t.Errorf("rest %q, %v", rest, err)
	}
	opened, err := Open(h.Envelope, anchors(t, edKey()), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	i, err := opened.Image(full().Device, "rootfs")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Carries(i); err != nil {
		t.Error(err)
	}
}

type failingWriter struct{ after int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.after -= len(p); w.after < 0 {
		return 0, errors.New("no space left")
	}
	return len(p), nil
}

func TestBundleThatCannotBeWritten(t *testing.T) {
	integrated, detached := mustCreate(t, full()), mustCreate(t, small())
	broken := bytes.Clone(integrated)
	broken[len(broken)-1] ^= 1
	for name, c := range map[string]struct {
		envelope []byte
		key      string
		size     int64
		image    io.Reader
		text     string
		writer   io.Writer
	}{
		"short image":            {integrated, "#rootfs", 5, strings.NewReader("imag"), "ends after 4 bytes of 5", io.Discard},
		"long image":             {integrated, "#rootfs", 5, strings.NewReader("images"), "longer than 5 bytes", io.Discard},
		"another image":          {integrated, "#rootfs", 5, strings.NewReader("imagE"), "its digest is not", io.Discard},
		"another size":           {integrated, "#rootfs", 6, strings.NewReader("image!"), "payload of 6 bytes, the image has 5", io.Discard},
		"another key":            {integrated, "#boot", 5, strings.NewReader("image"), `payload "#boot", the manifest names "#rootfs"`, io.Discard},
		"manifest for no bundle": {detached, "#rootfs", 5, strings.NewReader("image"), "names no integrated payload", io.Discard},
		"manifest was changed":   {broken, "#rootfs", 5, strings.NewReader("image"), "does not have the digest", io.Discard},
		"already a bundle":       {bundle(t, integrated, "#rootfs", 5, ""), "#rootfs", 5, strings.NewReader("image"), "envelope with payload", io.Discard},
		"image not readable":     {integrated, "#rootfs", 5, iotest.ErrReader(errors.New("i/o error")), "after 0 bytes: i/o error", io.Discard},
		"no space for header":    {integrated, "#rootfs", 5, strings.NewReader("image"), "header of bundle: no space left", &failingWriter{100}},
		"no space for image":     {integrated, "#rootfs", 5, strings.NewReader("image"), "no space left", &failingWriter{len(integrated) + 10}},
	} {
		t.Run(name, func(t *testing.T) {
			err := WriteBundle(c.writer, c.envelope, c.key, c.size, c.image)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
}

func TestReadHeaderOfWhatIsNone(t *testing.T) {
	envelope := mustCreate(t, small())
	failing := errors.New("i/o error")
	for name, c := range map[string]struct {
		r    io.Reader
		want error
	}{
		"nothing":             {strings.NewReader(""), ErrMalformed},
		"cut":                 {bytes.NewReader(envelope[:100]), ErrMalformed},
		"text without end":    {strings.NewReader(strings.Repeat("a", 1<<20)), ErrMalformed},
		"device that fails":   {io.MultiReader(bytes.NewReader(envelope[:100]), iotest.ErrReader(failing)), failing},
		"map that never ends": {bytes.NewReader(append([]byte{0xa2, 2, 0x59, 0xff, 0xff}, make([]byte, 1<<20)...)), ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := ReadHeader(c.r); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestMeasure(t *testing.T) {
	d, n, err := Measure(strings.NewReader("image"), crypto.SHA256)
	if err != nil || n != 5 || d.String() != sum("image").String() {
		t.Errorf("%v, %d, %v", d, n, err)
	}
	if _, _, err := Measure(iotest.ErrReader(io.ErrClosedPipe), crypto.SHA512); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}
