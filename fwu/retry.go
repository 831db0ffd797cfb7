package fwu

import (
	"context"
	"time"
)

// A service that a medium kept from reconciling tries again: at the next call that changes
// something, and by itself after firstRetry, then at intervals that double up to lastRetry.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// keepTrying reconciles again until no medium is at fault any more, or ctx ends.
func (s *Service) keepTrying(ctx context.Context) {
	timer := time.NewTimer(firstRetry)
	defer timer.Stop()
	for wait := firstRetry; ; timer.Reset(wait) {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if err := s.tryAgain(ctx); err != nil {
			return // ctx ended
		}
		if p := s.problem(); p == nil || !p.medium {
			return
		}
		wait = min(2*wait, lastRetry)
	}
}

// tryAgain reconciles again, as a start of the service does, if a medium kept it from that. An
// error means that ctx ended.
func (s *Service) tryAgain(ctx context.Context) error {
	return s.reopen(ctx, func(ctx context.Context, p *problem) *problem {
		if p == nil || !p.medium {
			return p // another caller was faster
		}
		return s.start(ctx)
	})
}

// reopen replaces the service's problem by the one that f returns, while nobody else reconciles. No
// operation runs meanwhile: a problem lets none begin.
func (s *Service) reopen(ctx context.Context, f func(context.Context, *problem) *problem) error {
	if err := s.opening.take(ctx); err != nil {
		return err
	}
	if before, err := s.condition(); err == nil { // not closed meanwhile
		s.setProblem(f(context.WithoutCancel(ctx), before))
	}
	s.opening.give()
	for _, c := range s.components {
		s.cfg.Changed(c.ID)
	}
	return nil
}

// problem says why queries alone are answered, nil if the service is healthy.
func (s *Service) problem() *problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.degraded
}

// setProblem replaces it, and logs the change.
func (s *Service) setProblem(p *problem) {
	s.mu.Lock()
	before := s.degraded
	s.degraded = p
	s.mu.Unlock()
	switch {
	case p == nil && before != nil:
		s.log.Info("the service is healthy again", "reason", string(before.reason))
	case p != nil && (before == nil || *before != *p):
		s.log.Error("queries only", "reason", string(p.reason), "why", p.text)
	}
}
