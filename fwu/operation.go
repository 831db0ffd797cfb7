package fwu

import (
	"context"
	"errors"
)

// acquire takes component id for an operation that event e stands for, and checks its state. The
// caller gives c.op back.
func (s *Service) acquire(ctx context.Context, id ID, e event) (*component, *componentRecord, error) {
	c := s.component(id)
	if c == nil {
		return nil, nil, refuse(DoesNotExist, ReasonNoSuch, "component %d does not exist", id)
	}
	if err := s.healthy(ctx); err != nil {
		return nil, nil, err
	}
	if err := c.op.take(ctx); err != nil {
		return nil, nil, err
	}
	cr, err := s.admitCall(c, e)
	if err == nil {
		_, err = s.condition() // it may have been closed while we waited
	}
	if err != nil {
		c.op.give()
		return nil, nil, err
	}
	return c, cr, nil
}

// admitCall checks the state of a component that is held.
func (s *Service) admitCall(c *component, e event) (*componentRecord, error) {
	r := s.record()
	cr := r.Components[c.Name]
	if _, _, err := s.variant(c.Component).next(cr.State, e); err != nil {
		err := refuse(BadState, ReasonState, "%s: %s is %s, and waits for %s", e, c.Name, cr.State, cr.State.waitsFor())
		err.Components = []ID{c.ID}
		return nil, err
	}
	if p := s.readOnly(c); p != nil {
		return nil, p.refusal("%s: %s is read-only", e, c.Name)
	}
	if !c.Live && r.Trial != nil {
		return nil, refuse(NotPermitted, ReasonBankBusy, "%s: bank %s waits for a reboot or a decision, and its slots are not touched until then", e, r.Trial.Bank)
	}
	return cr, nil
}

// begin makes name the operation that runs on c, for the holder of c.op. The context that it
// returns ends when ctx does, or when Cancel or Close wants the operation to end; end takes it
// back.
func (s *Service) begin(ctx context.Context, c *component, name string) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	beginOn(c.Component)
	s.mu.Lock()
	c.operation, c.done, c.total, c.interrupt = name, 0, 0, cancel
	s.working++
	switch { // they were faster than we
	case c.cancels > 0:
		cancel(errCancelled)
	case s.closed:
		cancel(errClosed)
	}
	s.mu.Unlock()
	s.cfg.Changed(c.ID)
	return ctx, func() {
		s.mu.Lock()
		c.operation, c.done, c.total, c.interrupt = "", 0, 0, nil
		s.working--
		s.mu.Unlock()
		cancel(nil)
		s.cfg.Changed(c.ID)
	}
}

func (s *Service) interrupt(c *component, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.interrupt != nil {
		c.interrupt(cause)
	}
}

// progress publishes how far c's operation is.
func (s *Service) progress(c *component) func(done, total int64) {
	return func(done, total int64) {
		s.mu.Lock()
		c.done, c.total = done, total
		s.steps++
		s.mu.Unlock()
		s.cfg.Changed(c.ID)
	}
}

// ended gives the error of an operation that was interrupted its reason.
func (s *Service) ended(ctx context.Context, err error) error {
	var found *Error
	if err == nil || ctx.Err() == nil || errors.As(err, &found) {
		return err
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errCancelled):
		return &Error{Status: BadState, Reason: ReasonCancelled, Text: "the update of this component was cancelled"}
	case errors.Is(cause, errClosed):
		return &Error{Status: CommunicationFailure, Text: "the service is closing; the transfer continues at what was written", Err: cause}
	default:
		return &Error{Status: CommunicationFailure, Text: "the transfer was ended; it can be continued at what was written", Err: cause}
	}
}

// Pulse tells whether the service works on something, and how many steps it has made since it was
// opened: blocks of an image, changes of the record or the selector. A service that works and makes
// no step for long stands still. One that waits for a client does not work.
func (s *Service) Pulse() (steps uint64, working bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.steps, s.working > 0
}

// works notes n more things that run, and a step.
func (s *Service) works(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working += n
	s.steps++
}
