package fwu

import (
	"bytes"
	"context"
	"errors"

	"github.com/fwu-ab/fwu-ab/suit"
)

// verifyCandidate reads a candidate again and compares it with its digest, unless its slot was held
// ever since that was done last.
func (s *Service) verifyCandidate(ctx context.Context, c *component) error {
	if err := s.endOrphan(ctx, c); err != nil {
		return err
	}
	if c.held != nil {
		if keepsAway(c.held) {
			return nil
		}
		if err := s.release(c); err != nil { // to be opened anew: somebody else may use it since
			return s.slotError(c, 1-s.record().Components[c.Name].Active, err)
		}
	}
	cr := s.record().Components[c.Name]
	want, err := parseDigest(cr.next().Digest)
	if err != nil {
		return &Error{Status: GenericError, Reason: ReasonImageDigest, Text: "record of " + c.Name, Err: err}
	}
	img, err := c.Slots[1-cr.Active].Open(ctx)
	if err != nil {
		return s.slotError(c, 1-cr.Active, err)
	}
	sum, _, err := resum(ctx, img, want, cr.next().Size, s.progress(c))
	if err != nil {
		return s.slotError(c, 1-cr.Active, closeQuietly(img, err))
	}
	c.held = img
	if !bytes.Equal(sum, want.Sum) {
		err := refuse(InvalidSignature, ReasonImageDigest, "%s: the slot no longer holds the image that was verified", c.Name)
		err.Components = []ID{c.ID}
		// not held, even if that could not be recorded
		return errors.Join(s.invalid(ctx, c, err), s.release(c))
	}
	return nil
}

// resum reads a whole image from the medium.
func resum(ctx context.Context, img Image, d suit.Digest, size int64, progress func(done, total int64)) ([]byte, Head, error) {
	if err := img.Resume(ctx, d.New(), 0); err != nil {
		return nil, Head{}, err
	}
	return img.Sum(ctx, size, progress)
}
