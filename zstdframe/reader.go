package zstdframe

import (
	"bufio"
	"fmt"
	"io"
)

type reader struct {
	d   *Decoder
	r   *bufio.Reader
	out []byte // of the last frame, what has not been read
	err error
}

// NewReader returns a reader of the image of size bytes that r has compressed. It reads r to its end, and its own end is io.EOF only if the image is
// complete. To close it frees its memory, and does not close r.
func NewReader(r io.Reader, size int64) io.ReadCloser {
	return &reader{d: New(size), r: bufio.NewReaderSize(r, 64<<10)}
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.out) == 0 && r.err == nil {
		r.err = r.fill()
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// fill gives the decoder what there is, one frame at most: what is left waits until the content of that was read.
func (r *reader) fill() error {
	_, err := r.r.Peek(1)
	switch {
	case err == io.EOF:
		if err := r.d.Complete(); err != nil {
			return err
		}
		return io.EOF
	case err != nil:
		encoded, _ := r.d.Position()
		return fmt.Errorf("compressed image, in the frame at %d: %w", encoded, err)
	}
	p, err := r.r.Peek(r.r.Buffered())
	if err != nil {
		return err
	}
	n, err := r.d.next(p, func(block []byte) error {
		r.out = block
		return nil
	})
	if err != nil {
		return err
	}
	_, err = r.r.Discard(n)
	return err
}

func (r *reader) Close() error {
	r.d.Close()
	r.out, r.err = nil, r.d.err
	return nil
}
