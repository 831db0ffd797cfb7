package suit

import (
	"bytes"
	"crypto"
	"fmt"
	"io"
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
