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
	f.payloads, f.payload, f.size = 1, key, size
	return append(appendEnvelope(nil, f), payload...)
}

func TestHeader(t *testing.T) {
	envelope := mustSign(t, mustCreate(t, full()), edKey())
	untagged := envelope[2:]
	for name, c := range map[string]struct {
		stream []byte
		want   Header
	}{
		"no payload":               {envelope, Header{Envelope: envelope, Offset: int64(len(envelope))}},
		"no payload, no tag":       {untagged, Header{Envelope: envelope, Offset: int64(len(untagged))}},
		"something after":          {append(bytes.Clone(envelope), "more"...), Header{Envelope: envelope, Offset: int64(len(envelope))}},
		"a payload":                {bundle(t, envelope, "#rootfs", 5, "image"), Header{envelope, 1, "#rootfs", int64(len(envelope) + 9), 5}},
		"a payload with trailer":   {bundle(t, envelope, "#rootfs", 5, "image and more"), Header{envelope, 1, "#rootfs", int64(len(envelope) + 9), 5}},
		"an empty payload":         {bundle(t, envelope, "#rootfs", 0, ""), Header{envelope, 1, "#rootfs", int64(len(envelope) + 9), 0}},
		"a payload above 4 GiB":    {bundle(t, envelope, "#rootfs", 5<<30, "image"), Header{envelope, 1, "#rootfs", int64(len(envelope) + 17), 5 << 30}},
		"a payload up to 2^63 - 1": {bundle(t, envelope, "#a", math.MaxInt64-int64(len(envelope))-12, ""), Header{envelope, 1, "#a", int64(len(envelope) + 12), math.MaxInt64 - int64(len(envelope)) - 12}},
	} {
		t.Run(name, func(t *testing.T) {
			for n := range len(c.stream) + 1 {
				got, err := ReadHeader(c.stream[:n])
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
		"severed validate":                 {append(bytes.Clone(head), 7, 0x40), ErrUnsupported, "suit-validate (7)"},
		"severed text twice":               {append(members(4, envelope), 23, 0x40, 23, 0x40), ErrMalformed, "key 23 is out of order, or there twice"},
		"severed members out of order":     {append(members(4, envelope), 23, 0x40, 20, 0x40), ErrMalformed, "key 20 is out of order, or there twice"},
		"severed text after a payload":     {append(members(4, envelope), 23, 0x40, 0x20), ErrUnsupported, "envelope member -1"},
		"private member":                   {append(bytes.Clone(head), 0x20, 0x40), ErrUnsupported, "envelope member -1"},
		"manifest twice":                   {append(bytes.Clone(head), 3, 0x40), ErrUnsupported, "envelope member 3"},
		"too many payloads":                {append(append([]byte{0xd8, 0x6b, 0xb8, 67}, envelope[3:]...), 0x62, '#', 'a', 0x40), ErrMalformed, "65 payloads, 64 at most"},
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
				if _, err := ReadHeader(c.stream[:n]); err == nil {
					t.Fatalf("%d bytes are accepted", n)
				}
			}
			for _, more := range []int{0, 1, 100, 2 * MaxHeader} {
				_, err := ReadHeader(append(bytes.Clone(c.stream), make([]byte, more)...))
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
	if _, err := ReadHeader(largest); err != nil {
		t.Error(err)
	}
	if _, err := Open(largest, anchors(t, edKey()), time.Time{}); err != nil {
		t.Error(err)
	}
	over := padded(MaxHeader - rest + 1)
	if _, err := ReadHeader(over); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	if _, err := Open(over, anchors(t, edKey()), time.Time{}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	// The payload's head fits, and then it does not: its key ends where the bound is.
	for short, fits := range map[int]bool{4: true, 3: false} {
		_, err := ReadHeader(bundle(t, padded(MaxHeader-rest-short), "#a", 5, "image"))
		if fits != (err == nil) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes before the bound: %v", short, err)
		}
	}
	if _, err := ReadHeader(bundle(t, largest, "#a", 5, "image")); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestOpenTakesNoPayload(t *testing.T) {
	envelope := mustSign(t, mustCreate(t, full()), edKey())
	if _, err := Open(bundle(t, envelope, "#rootfs", 5, "image"), anchors(t, edKey()), time.Time{}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func source(key, content string) PayloadSource {
	return PayloadSource{Key: key, Size: int64(len(content)), Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }}
}

// uncompressed is two() without compression.
func uncompressed() Spec {
	s := two()
	s.Images[1].Compression = ""
	return s
}

// The keys of payloads are in the order of their encodings, in whatever order they are given.
func TestWriteBundle(t *testing.T) {
	envelope := mustSign(t, mustCreate(t, uncompressed()), edKey())
	var b bytes.Buffer
	if err := WriteBundle(&b, envelope, []PayloadSource{source("#rootfs", "image"), source("#app", "other image")}); err != nil {
		t.Fatal(err)
	}
	stream := b.Bytes()
	if err := deterministic(stream); err != nil {
		t.Error(err)
	}
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream)), "with its end": iotest.DataErrReader(bytes.NewReader(stream))} {
		t.Run(name, func(t *testing.T) {
			got, err := NewBundle(r)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Envelope, envelope) || got.Payloads != 2 {
				t.Errorf("%d payloads, envelope %x", got.Payloads, got.Envelope)
			}
			for _, want := range []struct{ key, content string }{{"#app", "other image"}, {"#rootfs", "image"}} {
				p, err := got.Next()
				if err != nil {
					t.Fatal(err)
				}
				content, err := io.ReadAll(got)
				if err != nil || p.Key != want.key || string(content) != want.content || p.Size != int64(len(content)) {
					t.Errorf("%+v %q, %v", p, content, err)
				}
				if at := stream[p.Offset : p.Offset+p.Size]; string(at) != want.content {
					t.Errorf("%q at %d", at, p.Offset)
				}
			}
			if _, err := got.Next(); err != io.EOF { //nolint:errorlint // exactly this
				t.Error(err)
			}
		})
	}
}

// What is not read of a payload is skipped.
func TestBundleIsReadInPart(t *testing.T) {
	var b bytes.Buffer
	if err := WriteBundle(&b, mustCreate(t, uncompressed()), []PayloadSource{source("#rootfs", "image"), source("#app", "other image")}); err != nil {
		t.Fatal(err)
	}
	got, err := NewBundle(&b)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := got.Next(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(got, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
	}
	rest, err := io.ReadAll(got)
	if err != nil || string(rest) != "age" {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestBundleThatIsRefused(t *testing.T) {
	var whole bytes.Buffer
	if err := WriteBundle(&whole, mustCreate(t, uncompressed()), []PayloadSource{source("#rootfs", "image"), source("#app", "other image")}); err != nil {
		t.Fatal(err)
	}
	good := whole.String()
	change := func(old, new string) string {
		if strings.Count(good, old) != 1 {
			t.Fatalf("%q is there %d times", old, strings.Count(good, old))
		}
		return strings.Replace(good, old, new, 1)
	}
	second := "\x67#rootfs\x45image"
	for name, c := range map[string]struct {
		stream string
		text   string
	}{
		"second payload missing":      {strings.TrimSuffix(good, second), "bundle ends early"},
		"cut in the second key":       {good[:len(good)-10], "bundle ends early"},
		"cut in the second payload":   {good[:len(good)-2], "bundle ends early"},
		"cut in the first payload":    {good[:strings.Index(good, "other image")+3], "bundle ends early"},
		"something after":             {good + "x", "comes after the envelope"},
		"a third payload":             {good + "\x68#rootfs2\x41x", "comes after the envelope"},
		"same key again":              {change(second, "\x64#app\x41x"), "out of order, or there twice"},
		"key out of order":            {change(second, "\x62#z\x41x"), "out of order, or there twice"},
		"key that is a number":        {change(second, "\x18\x19\x41x"), "payload key is an unsigned number"},
		"key that is no name":         {change(second, "\x6b#../x\x1b[31mx\x41x"), "payload key"},
		"key that never ends":         {change(second, "\x79\xff\xff"+strings.Repeat("a", 1<<20)), "payload key"},
		"payload that is text":        {change(second, "\x67#rootfs\x65image"), "payload is a text"},
		"length of 2^64 - 1":          {change(second, "\x67#rootfs\x5b\xff\xff\xff\xff\xff\xff\xff\xffimage"), "payload of 18446744073709551615 bytes"},
		"length that wraps the whole": {change(second, "\x67#rootfs\x5b\x7f\xff\xff\xff\xff\xff\xff\x00image"), "payload of 9223372036854775552 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := NewBundle(strings.NewReader(c.stream))
			for err == nil {
				_, err = b.Next()
			}
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
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
	failing := func(r io.Reader, err error) []PayloadSource {
		return []PayloadSource{{Key: "#rootfs", Size: 5, Open: func() (io.ReadCloser, error) { return io.NopCloser(r), err }}}
	}
	good := []PayloadSource{source("#rootfs", "image")}
	for name, c := range map[string]struct {
		envelope []byte
		payloads []PayloadSource
		text     string
		writer   io.Writer
	}{
		"short image":            {integrated, failing(strings.NewReader("imag"), nil), "ends after 4 bytes of 5", io.Discard},
		"long image":             {integrated, failing(strings.NewReader("images"), nil), "longer than 5 bytes", io.Discard},
		"another image":          {integrated, []PayloadSource{source("#rootfs", "imagE")}, "its digest is not", io.Discard},
		"another size":           {integrated, []PayloadSource{source("#rootfs", "image!")}, "payload of 6 bytes, the image has 5", io.Discard},
		"another key":            {integrated, []PayloadSource{source("#boot", "image")}, `no integrated payload "#boot"`, io.Discard},
		"the same twice":         {integrated, append(good, good...), `"#rootfs" is there twice`, io.Discard},
		"one of two":             {mustCreate(t, uncompressed()), good, `names a payload "#app", which is not there`, io.Discard},
		"none":                   {integrated, nil, `names a payload "#rootfs", which is not there`, io.Discard},
		"manifest for no bundle": {detached, good, "names no integrated payload", io.Discard},
		"none for no bundle":     {detached, nil, "names no integrated payload", io.Discard},
		"manifest was changed":   {broken, good, "does not have the digest", io.Discard},
		"already a bundle":       {bundle(t, integrated, "#rootfs", 5, ""), good, "envelope with payload", io.Discard},
		"image cannot be opened": {integrated, failing(nil, errors.New("no such file")), "no such file", io.Discard},
		"image not readable":     {integrated, failing(iotest.ErrReader(errors.New("i/o error")), nil), "after 0 bytes: i/o error", io.Discard},
		"no space for header":    {integrated, good, "header of bundle: no space left", &failingWriter{100}},
		"no space for image":     {integrated, good, "no space left", &failingWriter{len(integrated) + 10}},
	} {
		t.Run(name, func(t *testing.T) {
			err := WriteBundle(c.writer, c.envelope, c.payloads)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
}

func TestNewBundleOfWhatIsNone(t *testing.T) {
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
			if _, err := NewBundle(c.r); !errors.Is(err, c.want) {
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
