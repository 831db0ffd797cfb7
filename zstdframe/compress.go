package zstdframe

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Level says how much work Compress does for a better ratio.
type Level int

// The levels, those of the library.
const (
	Fastest = Level(zstd.SpeedFastest)
	Default = Level(zstd.SpeedDefault)
	Better  = Level(zstd.SpeedBetterCompression)
	Best    = Level(zstd.SpeedBestCompression)
)

// Content is how much of an image goes into a frame: 1 MiB, or MaxContent for the levels that are asked for a better ratio, which larger frames improve more than work does. What a device takes in memory to
// decode is about twice as much.
func (l Level) Content() int64 {
	if l >= Better {
		return MaxContent
	}
	return 1 << 20
}

// String returns what ParseLevel reads: fastest, default, better or best.
func (l Level) String() string { return zstd.EncoderLevel(l).String() }

// ParseLevel reads what String writes.
func ParseLevel(s string) (Level, error) {
	for l := Fastest; l <= Best; l++ {
		if l.String() == s {
			return l, nil
		}
	}
	return 0, fmt.Errorf("compression level %q: want %v, %v, %v or %v", s, Fastest, Default, Better, Best)
}

// Compress reads an image to its end and writes it compressed: frames of level.Content() bytes of content, the last one of what is left, each with its content
// size, a checksum and a single segment. It returns the length of the image and of what was written. The same image and level give the same bytes on every
// machine, as long as the version of the library is the same. An empty image has no frames.
func Compress(w io.Writer, r io.Reader, level Level) (n, encoded int64, err error) {
	// One encoder at a time: what several give depends on nothing but their input either, but they would take memory by the number of processors.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevel(level)), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(MaxContent), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(true))
	if err != nil {
		return 0, 0, fmt.Errorf("zstd encoder: %w", err)
	}
	defer enc.Close()
	var content bytes.Buffer
	var out []byte
	for {
		content.Reset()
		// Not io.ReadFull: it takes an io.ErrUnexpectedEOF of r for the end.
		k, rerr := io.CopyN(&content, r, level.Content())
		if rerr != nil && rerr != io.EOF {
			return n, encoded, fmt.Errorf("image, after %d bytes: %w", n+k, rerr)
		}
		if k > 0 {
			out = enc.EncodeAll(content.Bytes(), out[:0])
			m, err := w.Write(out)
			n, encoded = n+k, encoded+int64(m)
			if err != nil {
				return n, encoded, fmt.Errorf("compressed image, after %d bytes: %w", encoded, err)
			}
		}
		if rerr == io.EOF {
			return n, encoded, nil
		}
	}
}
