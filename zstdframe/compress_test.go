package zstdframe

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func levels() []Level { return []Level{Fastest, Default, Better, Best} }

func TestRoundTrip(t *testing.T) {
	for name, image := range map[string][]byte{
		"empty":                     nil,
		"one byte":                  {7},
		"255 bytes":                 testImage(255),
		"256 bytes":                 testImage(256),
		"64 KiB and 255 bytes":      testImage(64<<10 + 255),
		"64 KiB and 256 bytes":      testImage(64<<10 + 256),
		"one frame, less a byte":    testImage(mib - 1),
		"one frame":                 testImage(mib),
		"one frame and a byte":      testImage(mib + 1),
		"three frames and some":     testImage(3*mib + 4321),
		"nothing but zeros":         make([]byte, 2*mib),
		"nothing that compresses":   incompressible(t, 2*mib),
		"a byte that no compressor": incompressible(t, mib+1),
	} {
		for _, level := range levels() {
			t.Run(fmt.Sprint(name, "/", level), func(t *testing.T) {
				stream := mustCompress(t, image, level)
				got := decode(stream, int64(len(image)), 10_000)
				if got.err != nil || !bytes.Equal(got.Image, image) || got.Encoded != int64(len(stream)) {
					t.Errorf("%d bytes of %d, to %d of %d: %v", len(got.Image), len(image), got.Encoded, len(stream), got.err)
				}
			})
		}
	}
}

// incompressible are n bytes of digests.
func incompressible(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, 0, n+sha256.Size)
	for sum := sha256.Sum256(nil); len(b) < n; sum = sha256.Sum256(sum[:]) {
		b = append(b, sum[:]...)
	}
	return b[:n]
}

// TestSameBytesEverywhere: who makes the same image again must get the same file. The digests change with the version of the library, and with nothing else.
func TestSameBytesEverywhere(t *testing.T) {
	image := testImage(5*mib + 4321)
	want := map[string]string{
		"fastest": "31877c9dac1735fc7cc29404ebb1b84652d7e25c703c4b7b61dffe098c1f5f6d",
		"default": "650db58034a9de13cf2310628cebeb44b5c7a8c50b2f31b948cf2dbd08ecfcce",
		"better":  "8dde56e6f39507f082d270a170cca5fa8c7bf738dc1019755287e6312284ed96",
		"best":    "372c8ef4feef3b976d28d1743e2c0cdf46b2177b0b5468238017d37c2a5bd2d1",
	}
	got := map[string]string{}
	for _, level := range levels() {
		sum := sha256.Sum256(mustCompress(t, image, level))
		got[level.String()] = hex.EncodeToString(sum[:])
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestSameBytesHoweverRead: the frames do not depend on what a read returns.
func TestSameBytesHoweverRead(t *testing.T) {
	image := testImage(mib + 4321)
	want := mustCompress(t, image, Default)
	var got bytes.Buffer
	if _, _, err := Compress(&got, iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(image))), Default); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got.Bytes()) {
		t.Error("the bytes differ")
	}
}

func TestCompressFails(t *testing.T) {
	image := testImage(mib + 4321)
	t.Run("reader ends too early, and says so", func(t *testing.T) {
		var out bytes.Buffer
		n, encoded, err := Compress(&out, io.MultiReader(bytes.NewReader(image), iotest.ErrReader(io.ErrUnexpectedEOF)), Default)
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(err.Error(), "image, after 1052897 bytes: ") {
			t.Error(err)
		}
		if n != mib || encoded != int64(out.Len()) {
			t.Errorf("%d, %d", n, encoded)
		}
	})
	t.Run("writer is full", func(t *testing.T) {
		full := errors.New("no space left")
		_, encoded, err := Compress(writer(func(p []byte) (int, error) { return 10, full }), bytes.NewReader(image), Default)
		if !errors.Is(err, full) || !strings.HasPrefix(err.Error(), "compressed image, after 10 bytes: ") || encoded != 10 {
			t.Error(err, encoded)
		}
	})
	t.Run("no such level", func(t *testing.T) {
		if _, _, err := Compress(io.Discard, bytes.NewReader(image), 0); err == nil {
			t.Error("no error")
		}
	})
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestParseLevel(t *testing.T) {
	for _, level := range levels() {
		if got, err := ParseLevel(level.String()); err != nil || got != level {
			t.Errorf("%v: %v, %v", level, got, err)
		}
	}
	for _, s := range []string{"", "Best", "invalid", "19"} {
		if _, err := ParseLevel(s); err == nil || !strings.Contains(err.Error(), "want fastest, default, better or best") {
			t.Errorf("%q: %v", s, err)
		}
	}
}
