package zstdframe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testImage makes n bytes that are a bit like a file system: text, zeros, and data that do not compress. It is the same everywhere and for ever.
func testImage(n int) []byte {
	src := rand.NewPCG(1, 2)
	b := make([]byte, 0, n+16<<10)
	for len(b) < n {
		kind, length := src.Uint64()%4, int(src.Uint64()%8192)
		switch kind {
		case 0:
			b = append(b, make([]byte, length)...)
		case 1:
			for range length / 8 {
				b = binary.LittleEndian.AppendUint64(b, src.Uint64())
			}
		default:
			for range length / 16 {
				b = fmt.Appendf(b, "line %d, word %d\n", src.Uint64()%100, src.Uint64()%1000)
			}
		}
	}
	return b[:n]
}

func mustCompress(t testing.TB, image []byte, level Level) []byte {
	t.Helper()
	var out bytes.Buffer
	n, encoded, err := Compress(&out, bytes.NewReader(image), level)
	if err != nil || n != int64(len(image)) || encoded != int64(out.Len()) {
		t.Fatalf("%d bytes of %d, encoded %d of %d: %v", n, len(image), encoded, out.Len(), err)
	}
	return out.Bytes()
}

// result is all that a decoder says about a stream.
type result struct {
	Image            []byte
	Encoded, Decoded int64
	Write, Complete  string
	err              error
}

// push gives a decoder the stream in pieces, whose lengths are those of cuts, over and over; without any, in one.
func push(d *Decoder, stream []byte, cuts ...int) result {
	var r result
	out := func(block []byte) error {
		r.Image = append(r.Image, block...)
		return nil
	}
	for i := 0; len(stream) > 0 && r.err == nil; i++ {
		n := len(stream)
		if len(cuts) > 0 {
			n = min(n, cuts[i%len(cuts)])
		}
		// A copy without room behind it: nothing reads beyond a piece, or after the call.
		piece := bytes.Clone(stream[:n:n])
		r.err = d.Write(piece, out)
		clear(piece)
		stream = stream[n:]
	}
	if r.err != nil {
		r.Write = r.err.Error()
	}
	r.Encoded, r.Decoded = d.Position()
	if err := d.Complete(); err != nil {
		r.Complete = err.Error()
		if r.err == nil {
			r.err = err
		}
	}
	return r
}

func decode(stream []byte, size int64, cuts ...int) result {
	d := New(size)
	defer d.Close()
	return push(d, stream, cuts...)
}

func diff(want, got result) string {
	return cmp.Diff(want, got, cmpopts.IgnoreUnexported(result{}), cmp.Comparer(bytes.Equal))
}

// sequence joins frames.
func sequence(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// raw is a frame of one raw block.
func raw(content string) []byte {
	return sequence(header(0x20, byte(len(content))), block(true, 0, len(content), content))
}

func header(descriptor byte, fields ...byte) []byte {
	return append([]byte{0x28, 0xb5, 0x2f, 0xfd, descriptor}, fields...)
}

func block(last bool, kind, size int, content string) []byte {
	h := size<<3 | kind<<1
	if last {
		h |= 1
	}
	return append([]byte{byte(h), byte(h >> 8), byte(h >> 16)}, content...)
}

func skippable(nibble byte, size int) []byte {
	b := append([]byte{0x50 + nibble, 0x2a, 0x4d, 0x18}, binary.LittleEndian.AppendUint32(nil, uint32(size))...)
	return append(b, make([]byte, size)...)
}

const mib = 1 << 20
