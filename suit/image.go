package suit

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"

	"github.com/fwu-ab/fwu-ab/zstdframe"
)

// Measure reads an image to its end and returns its digest by a hash and its size, for a Spec.
func Measure(r io.Reader, hash crypto.Hash) (Digest, int64, error) {
	h := hash.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return Digest{}, n, fmt.Errorf("image, after %d bytes: %w", n, err)
	}
	return Digest{Hash: hash, Sum: h.Sum(nil)}, n, nil
}

// Check reads r to its end, or to the first byte too many, and returns an error that wraps ErrImage if that is not the image.
func (i Image) Check(r io.Reader) error {
	h := i.Digest.New()
	n, err := io.Copy(h, io.LimitReader(r, i.Size))
	switch {
	case err != nil:
		return fmt.Errorf("image, after %d bytes: %w", n, err)
	case n < i.Size:
		return fmt.Errorf("%w: it ends after %d bytes of %d", ErrImage, n, i.Size)
	case !bytes.Equal(h.Sum(nil), i.Digest.Sum):
		return fmt.Errorf("%w: its digest is not %v", ErrImage, i.Digest)
	}
	switch more, err := io.ReadFull(r, make([]byte, 1)); {
	case more > 0:
		return fmt.Errorf("%w: it is longer than %d bytes", ErrImage, i.Size)
	case err != io.EOF:
		return fmt.Errorf("image, after %d bytes: %w", n, err)
	}
	return nil
}

// CheckPayload is Check for what travels: the image, or what it is compressed to.
func (i Image) CheckPayload(r io.Reader) error { return i.Unpack(io.Discard, r) }

// Unpack writes the image that travels as r, and checks it as Check does. After an error, what was written is of no use.
func (i Image) Unpack(w io.Writer, r io.Reader) error {
	if i.Compression == "" {
		return i.Check(io.TeeReader(r, w))
	}
	image := zstdframe.NewReader(r, i.Size)
	defer image.Close()
	err := i.Check(io.TeeReader(image, w))
	if errors.Is(err, zstdframe.ErrFrame) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %w", ErrImage, err)
	}
	return err
}
