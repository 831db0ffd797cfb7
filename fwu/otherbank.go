package fwu

import (
	"bytes"
	"context"
	"slices"
)

// lookAtOther looks at the heads of the bank that does not run.
func (s *Service) lookAtOther(ctx context.Context, r *record) otherBank {
	other := s.cfg.Boot.Bank.Other()
	seen := otherStartable
	for _, c := range s.components {
		if c.Live {
			continue
		}
		switch s.lookAt(ctx, r, c, other) {
		case otherSealed:
			return otherSealed
		case otherDead:
			seen = otherDead
		case otherUnreadable:
			if seen == otherStartable {
				seen = otherUnreadable
			}
		}
	}
	return seen
}

// lookAt looks at the head of a member in the other bank. A member that is STAGED, or was carried
// over, has a head on record. A head that is neither masked nor plain is that of a system that was
// started: it changes its superblock.
func (s *Service) lookAt(ctx context.Context, r *record, c *component, other Bank) otherBank {
	cr := r.Components[c.Name]
	img := imageIn(cr, other)
	if r.Trial != nil && r.Trial.Bank == other && (cr.State == Staged || cr.Carried) {
		if img.Head == nil {
			return otherStartable
		}
		var state HeadState
		err := s.withImage(ctx, c.ID, other.Index(), func(i Image) (err error) {
			state, err = i.HeadState(ctx, *img.Head)
			return err
		})
		switch {
		case err != nil:
			s.log.Warn("head of the installed image not read", "component", c.Name, "err", err)
			return otherUnreadable
		case state == HeadMasked || state == HeadMixed:
			return otherSealed
		}
		return otherStartable
	}
	// A member that is new in this bank has nothing in the other one. Where the record knows
	// nothing of the other bank at all, each slot is looked at.
	known := slices.ContainsFunc(s.components, func(c *component) bool { return !c.Live && holds(r, c, other) })
	if known && !holds(r, c, other) {
		return otherStartable
	}
	switch ok, err := c.Slots[other.Index()].Bootable(ctx); {
	case err != nil:
		s.log.Warn("head not read", "component", c.Name, "slot", string(other), "err", err)
		return otherUnreadable
	case ok:
		return otherStartable
	}
	// Nothing that is known begins so. That is no proof where the image on record does, as one of
	// zeroes.
	switch whole, err := isRecorded(ctx, c.Slots[other.Index()], img); {
	case err != nil:
		s.log.Warn("slot not read", "component", c.Name, "slot", string(other), "err", err)
		return otherUnreadable
	case whole:
		return otherStartable
	}
	return otherDead
}

// isRecorded tells whether a slot holds the image that is on record, by its digest.
func isRecorded(ctx context.Context, slot Slot, img *imageRecord) (bool, error) {
	want, err := parseDigest(img.Digest)
	if err != nil || img.Size <= 0 || img.Size > slot.Info().Size {
		return false, nil // nothing to compare with
	}
	src, err := slot.Source(ctx)
	if err != nil {
		return false, err
	}
	h, buf := want.New(), Buffer(MaxWriteSize)
	for off := int64(0); off < img.Size; off += int64(len(buf)) {
		buf = buf[:min(img.Size-off, int64(len(buf)))]
		if err := ReadFull(src, buf, off); err != nil {
			return false, closeQuietly(src, err)
		}
		h.Write(buf)
		if err := ctx.Err(); err != nil {
			return false, closeQuietly(src, err)
		}
	}
	return bytes.Equal(h.Sum(nil), want.Sum), src.Close()
}

// holds tells whether the record knows of an image of c in a bank.
func holds(r *record, c *component, b Bank) bool {
	return r.Components[c.Name].Slots[b.Index()].Image != nil
}
