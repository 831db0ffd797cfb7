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

// signedBy records who signed the manifest of an image.
func (i *imageRecord) signedBy(signers []suit.Signer) {
	i.Signers = map[string][]string{}
	for _, s := range signers {
		i.Signers[s.Key] = s.Anchors
		for _, a := range s.Anchors {
			if !slices.Contains(i.Anchors, a) {
				i.Anchors = append(i.Anchors, a)
			}
		}
	}
}

// signers returns for each key that signed an image the trust anchors that vouched for it. Of an
// image that an older version recorded, only these are known: there, any of them is one signer.
func (i *imageRecord) signers() map[string][]string {
	if len(i.Signers) == 0 && len(i.Anchors) > 0 {
		return map[string][]string{"": i.Anchors}
	}
	return i.Signers
}

// endOrphan moves a component to FAILED whose image was signed by too few keys that are still
// trusted, and returns that as an error. An image without signers on record was verified when it
// came.
func (s *Service) endOrphan(ctx context.Context, c *component) error {
	keys, err := c.anchors()
	if err != nil {
		s.refused(c.Name, err)
		return err
	}
	anchors := map[string]bool{}
	for _, k := range keys {
		name, err := k.Fingerprint()
		if err != nil {
			return err
		}
		anchors[name] = true
	}
	signers := s.record().Components[c.Name].next().signers()
	trusted := 0
	for _, vouched := range signers {
		if slices.ContainsFunc(vouched, func(name string) bool { return anchors[name] }) {
			trusted++
		}
	}
	if len(signers) == 0 || trusted >= max(c.Signatures, 1) {
		return nil
	}
	orphan := refuse(InvalidSignature, ReasonTrustRemoved, "%s: of the keys that signed this image %d are still trusted, and %d are required",
		c.Name, trusted, max(c.Signatures, 1))
	orphan.Components = []ID{c.ID}
	return errors.Join(s.invalid(ctx, c, orphan), s.release(c))
}

// endOrphans ends candidates that too few trusted keys signed, at a start of the service.
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
