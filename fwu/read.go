package fwu

import (
	"errors"
	"io"
)

// ReadFull reads all of p at off. It is the one way in which this program reads a medium: it
// returns nil only if r returned all of p, without an error or with io.EOF. After any other result
// nothing of p may be used: a driver may have put part of the data there, or left in it what
// another read put there before.
func ReadFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p) && (err == nil || errors.Is(err, io.EOF)):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}
