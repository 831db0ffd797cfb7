package fwu

import (
	"context"
	"fmt"
)

// Clean is psa_fwu_clean (section 5.6.1). The second slot is erased here, and nowhere else.
func (s *Service) Clean(ctx context.Context, id ID) error {
	c, cr, err := s.acquire(ctx, id, evClean)
	if err != nil {
		return err
	}
	defer c.op.give()
	ctx, end := s.begin(ctx, c, OpClean)
	defer end()
	second := 1 - cr.Active
	if err := s.destroyForClean(ctx, c); err != nil {
		return fmt.Errorf("clean: %w", err)
	}
	err = s.withImage(ctx, id, second, func(img Image) error { return img.Erase(ctx, s.progress(c)) })
	if err != nil {
		return s.ended(ctx, fmt.Errorf("clean: %w", err))
	}
	err = s.save(ctx, "READY", func(r *record) {
		cr := r.Components[c.Name]
		cr.set(s.move(r, c.Component, evClean), Success, "", "")
		cr.second().Image = nil
	})
	if err != nil {
		return fmt.Errorf("clean: %w", err)
	}
	return nil
}

func (s *Service) destroyForClean(ctx context.Context, c *component) error {
	if err := s.bank.take(ctx); err != nil {
		return err
	}
	defer s.bank.give()
	if err := s.claimSecondBank(ctx, c); err != nil {
		return err
	}
	return s.run(ctx, plan{do: s.destroySecond(s.record(), c, false)})
}
