package fwu

import (
	"bytes"
	"context"
	"fmt"

	"github.com/fwu-ab/fwu-ab/suit"
)

// Finish is psa_fwu_finish (section 5.6.1): the image is read back from the medium, whole, and
// compared with its manifest.
func (s *Service) Finish(ctx context.Context, id ID) error {
	c, cr, err := s.acquire(ctx, id, evFinish)
	if err != nil {
		return err
	}
	defer c.op.give()
	ctx, end := s.begin(ctx, c, OpFinish)
	defer end()
	if err := s.resume(ctx, c, cr); err != nil {
		return s.ended(ctx, fmt.Errorf("finish: %w", err))
	}
	if err := c.transfer.complete(c.Manifest, s.record().Components[c.Name].next().End); err != nil {
		// Nobody said how long it is: no check of the image failed (4.2.4), and it can be
		// completed.
		if c.Manifest == None {
			return err
		}
		return s.invalid(ctx, c, err)
	}
	if err := s.verifyWritten(ctx, c); err != nil {
		return s.ended(ctx, err)
	}
	return nil
}

func (s *Service) verifyWritten(ctx context.Context, c *component) error {
	t := c.transfer
	sum, head, err := t.image.Sum(ctx, t.size, s.progress(c))
	if err != nil {
		return s.void(c, err)
	}
	if t.known && !bytes.Equal(sum, t.digest.Sum) {
		return s.invalid(ctx, c, refuse(InvalidSignature, ReasonImageDigest, "finish: the image has digest %s, and its manifest says %s",
			suit.Digest{Hash: t.digest.Hash, Sum: sum}, t.digest))
	}
	digest := suit.Digest{Hash: t.digest.Hash, Sum: sum}.String()
	if cr := s.record().Components[c.Name]; cr.failedTrials(digest) >= s.cfg.MaxTrials {
		return s.invalid(ctx, c, refuse(NotPermitted, ReasonFailedBefore, "finish: this image failed %d trials; fwu-ab reset forgets them", cr.failedTrials(digest)))
	}
	s.bank.force() // who prepares another member of the bank looks at held
	defer s.bank.give()
	written := t.payload + t.size
	if t.decoder != nil {
		written = t.have
	}
	err = s.save(ctx, "CANDIDATE", func(r *record) {
		cr := r.Components[c.Name]
		cr.set(s.move(r, c.Component, evFinish), Success, "", "")
		img := cr.next()
		img.Digest, img.Size, img.Head, img.Written, img.Decoded, img.End, img.Open = digest, t.size, &head, written, 0, 0, false
	})
	if err != nil {
		return err
	}
	t.close()
	s.counting(c, nil)
	c.held, c.transfer = t.image, nil
	s.setPrepared(c, 0)
	s.setWritten(c, written)
	return nil
}
