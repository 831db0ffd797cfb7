package zstdframe

import (
	"bytes"
	"io"
	"math"
	"testing"
)

func BenchmarkDecode(b *testing.B) {
	const frames = 8
	image := testImage(frames * mib)
	stream := mustCompress(b, image, Default)
	d := New(math.MaxInt64)
	defer d.Close()
	out := func([]byte) error { return nil }
	b.SetBytes(int64(len(image)))
	b.ReportAllocs()
	for b.Loop() {
		for p := stream; len(p) > 0; {
			n := min(len(p), 64<<10)
			if err := d.Write(p[:n], out); err != nil {
				b.Fatal(err)
			}
			p = p[n:]
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	image := testImage(8 * mib)
	for _, level := range levels() {
		b.Run(level.String(), func(b *testing.B) {
			b.SetBytes(int64(len(image)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Compress(io.Discard, bytes.NewReader(image), level); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
