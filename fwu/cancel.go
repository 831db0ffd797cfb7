package fwu

import (
	"context"
	"errors"
	"fmt"
)

var errCancelled = constError("cancelled")

// Cancel is psa_fwu_cancel (section 5.6.1). It ends a WriteFrom, a Finish or an Install that uses
// the component, and does not wait for the client of it.
func (s *Service) Cancel(ctx context.Context, id ID) error {
	c := s.component(id)
	if c == nil {
		return refuse(DoesNotExist, ReasonNoSuch, "component %d does not exist", id)
	}
	if err := s.healthy(ctx); err != nil {
		return err
	}
	if st := s.record().Components[c.Name].State; st != Writing && st != Candidate {
		err := refuse(BadState, ReasonState, "cancel: %s is %s, and waits for %s", c.Name, st, st.waitsFor())
		err.Components = []ID{id}
		return err
	}
	if err := s.stopAndTake(ctx, c); err != nil {
		return err
	}
	defer c.op.give()
	if _, err := s.admitCall(c, evCancel); err != nil {
		return err
	}
	if err := s.abandon(ctx, c, evCancel, Success, ReasonCancelled, "cancelled by the client"); err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	return nil
}

// stopAndTake ends the operation that runs on c, or is about to begin, and takes c.
func (s *Service) stopAndTake(ctx context.Context, c *component) error {
	s.mu.Lock()
	c.cancels++
	if c.interrupt != nil {
		c.interrupt(errCancelled)
	}
	s.mu.Unlock()
	err := c.op.take(ctx)
	s.mu.Lock()
	c.cancels--
	s.mu.Unlock()
	return err
}

// invalid moves a component to FAILED, because a check failed with cause, and returns cause.
func (s *Service) invalid(ctx context.Context, c *component, cause error) error {
	err := s.abandon(ctx, c, evInvalid, StatusOf(cause), ReasonOf(cause), cause.Error())
	if err != nil {
		return errors.Join(cause, err)
	}
	return cause
}

// abandon moves a component to FAILED and destroys the image in preparation. The record comes
// first: a component that is WRITING or CANDIDATE has its image, whatever instant the power is cut
// at.
func (s *Service) abandon(ctx context.Context, c *component, e event, status Status, reason Reason, text string) error {
	s.bank.force()
	defer s.bank.give()
	cr := s.record().Components[c.Name]
	to, _, err := s.variant(c.Component).next(cr.State, e)
	if err != nil {
		return err
	}
	err = s.run(ctx, plan{do: []effect{
		save{to.String(), func(r *record) { r.Components[c.Name].set(to, status, reason, text) }},
		destroy{c.ID, 1 - cr.Active, true},
	}})
	if err != nil {
		return err
	}
	if err := s.release(c); err != nil {
		s.log.Warn("slot not given up cleanly", "component", c.Name, "err", err)
	}
	return nil
}
