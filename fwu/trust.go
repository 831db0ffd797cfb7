package fwu

import (
	"context"
	"errors"
	"slices"

	"github.com/fwu-ab/fwu-ab/suit"
)

// anchors returns the trust anchors of c as they are now. An error means that they cannot be read,
// and says nothing of any image.
func (c *component) anchors() (suit.VerifyKeys, error) {
	if c.Anchors == nil {
		return c.Keys, nil
	}
	keys, err := c.Anchors()
	if err != nil {
		return nil, &Error{Status: GenericError, Reason: ReasonTrustUnreadable, Text: "read the trust anchors of " + c.Name, Err: err}
	}
	return keys, nil
}

// trusted tells whether one of the trust anchors that vouched for an image is still one. An image
// that an older version recorded has none on record, and was verified when it came.
func trusted(keys suit.VerifyKeys, img *imageRecord) (bool, error) {
	if len(img.Anchors) == 0 {
		return true, nil
	}
	for _, k := range keys {
		name, err := k.Fingerprint()
		if err != nil {
			return false, err
		}
		if slices.Contains(img.Anchors, name) {
			return true, nil
		}
	}
	return false, nil
}

// endOrphan moves a component to FAILED whose image no trust anchor vouches for any more, and
// returns that as an error.
func (s *Service) endOrphan(ctx context.Context, c *component) error {
	keys, err := c.anchors()
	if err != nil {
		return err
	}
	ok, err := trusted(keys, s.record().Components[c.Name].next())
	if err != nil || ok {
		return err
	}
	orphan := refuse(InvalidSignature, ReasonTrustRemoved, "%s: the trust anchor that vouched for this image was removed", c.Name)
	orphan.Components = []ID{c.ID}
	return errors.Join(s.invalid(ctx, c, orphan), s.release(c))
}

// endOrphans ends candidates that no trust anchor vouches for any more, at a start of the service.
// Anchors that cannot be read end nothing.
func (s *Service) endOrphans(ctx context.Context) {
	for _, c := range s.components {
		cr := s.record().Components[c.Name]
		if cr == nil || cr.State != Writing && cr.State != Candidate || cr.second().Image == nil {
			continue
		}
		if err := s.endOrphan(ctx, c); err != nil {
			s.log.Warn("image", "component", c.Name, "err", err)
		}
	}
}
