package zstdframe

import (
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/zstd"
)

// A Decoder takes a stream as it comes and gives out the image, frame by frame. It has no goroutine. It takes memory for a frame as the frame comes,
// MaxFrame and MaxContent bytes at most and what decoding a block needs, and keeps it for the next one.
//
// A Decoder that has returned an error from Write returns that error ever after. To go on, make another one by Resume.
type Decoder struct {
	size             int64
	encoded, decoded int64
	skipped          int64
	frame            frame
	zstd             *zstd.Decoder // made for the first frame
	image            []byte        // content of the last frame
	err              error
}

// New returns a decoder of an image of size bytes.
func New(size int64) *Decoder { return Resume(size, 0, 0) }

// Resume returns a decoder that goes on where the Position of another was encoded and decoded, for an image of size bytes. The next bytes that it takes
// are those of the stream from encoded on. What it says of them, and of skippable frames, it says without knowing those before.
func Resume(size, encoded, decoded int64) *Decoder {
	d := &Decoder{size: size, encoded: encoded, decoded: decoded}
	d.begin()
	return d
}

func (d *Decoder) begin() { d.frame.begin(d.size-d.decoded, MaxSkipped-d.skipped) }

// Position is the last boundary between two frames: the bytes of the stream up to there, and the bytes of the image that they are. A frame counts once out
// has returned nil for it.
func (d *Decoder) Position() (encoded, decoded int64) { return d.encoded, d.decoded }

// Write takes the next bytes of the stream, any number of them, and calls out with the content of each frame that they make whole. A block is valid during
// the call only. An error of out is wrapped; so is ErrFrame where the stream is not of the format, and then out has had all frames before that place.
func (d *Decoder) Write(p []byte, out func(block []byte) error) error {
	for len(p) > 0 || d.err != nil {
		n, err := d.next(p, out)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// next takes bytes of p, up to the end of one frame at most.
func (d *Decoder) next(p []byte, out func(block []byte) error) (n int, err error) {
	if d.err != nil {
		return 0, d.err
	}
	n, whole, err := d.frame.feed(p)
	switch {
	case err != nil:
		d.err = d.refuse(err)
	case whole:
		d.err = d.take(out)
	}
	return n, d.err
}

// take decodes the frame that has become whole.
func (d *Decoder) take(out func(block []byte) error) error {
	if d.frame.content > 0 {
		block, err := d.decode()
		if err != nil {
			return err
		}
		if err := out(block); err != nil {
			return fmt.Errorf("%d bytes of the image at %d: %w", len(block), d.decoded, err)
		}
	} else {
		d.skipped += int64(len(d.frame.b))
	}
	d.encoded += int64(len(d.frame.b))
	d.decoded += int64(d.frame.content)
	d.begin()
	return nil
}

// decode lets the library decode the frame: it verifies what the walk did not look at.
func (d *Decoder) decode() ([]byte, error) {
	if d.zstd == nil {
		var err error
		d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(MaxContent), zstd.WithDecoderMaxMemory(MaxContent))
		if err != nil {
			return nil, fmt.Errorf("zstd decoder: %w", err)
		}
	}
	if cap(d.image) < d.frame.content {
		d.image = make([]byte, 0, d.frame.content)
	}
	block, err := d.zstd.DecodeAll(d.frame.b, d.image[:0])
	switch {
	case err != nil:
		return nil, d.refuse(err)
	case len(block) != d.frame.content:
		return nil, d.refuse(fmt.Errorf("content of %d bytes, where its header says %d", len(block), d.frame.content))
	}
	return block, nil
}

func (d *Decoder) refuse(err error) error {
	return fmt.Errorf("%w: frame at %d: %w", ErrFrame, d.encoded, err)
}

// Complete returns nil if the whole image came out and no part of a frame is left. It returns the error of Write if there was one. Where the stream only
// ends too early the error wraps io.ErrUnexpectedEOF, not ErrFrame: more of the stream may still come.
func (d *Decoder) Complete() error {
	switch n := len(d.frame.b); {
	case d.err != nil:
		return d.err
	case n > 0:
		return fmt.Errorf("%w: %d bytes of a frame at %d, where the image has %d bytes of %d", io.ErrUnexpectedEOF, n, d.encoded, d.decoded, d.size)
	case d.decoded != d.size:
		return fmt.Errorf("%w: the image has %d bytes of %d", io.ErrUnexpectedEOF, d.decoded, d.size)
	}
	return nil
}

// Close frees the memory. Write and Complete are of no use after it, Position is.
func (d *Decoder) Close() {
	if d.zstd != nil {
		d.zstd.Close()
	}
	if d.err == nil {
		d.err = fmt.Errorf("zstd decoder: %w", fs.ErrClosed)
	}
	d.zstd, d.image, d.frame = nil, nil, frame{}
}
