package fwu

import (
	"context"
	"fmt"
)

// Accept is psa_fwu_accept (section 5.6.3). The commit of the selector makes the new bank the
// default. Where the service answers queries only because of the bank that does not run, it keeps
// the running bank: that becomes the default, the other one is given up, and a rejected component
// is FAILED.
func (s *Service) Accept(ctx context.Context) error {
	if err := s.healthy(ctx); err != nil {
		if s.bankStuck() {
			return s.giveUpOther(ctx)
		}
		return err
	}
	done, err := s.acceptTrial(ctx)
	if err == nil {
		s.afterwards(ctx, done)
	}
	return err
}

// acceptTrial makes the components in trial UPDATED, and returns the call for the hooks that
// follow.
func (s *Service) acceptTrial(ctx context.Context) (*HookCall, error) {
	if err := s.install.take(ctx); err != nil {
		return nil, err
	}
	defer s.install.give()
	trial := s.inState(Trial)
	if len(trial) == 0 {
		return nil, refuse(BadState, ReasonState, "accept: no component is TRIAL: one is after an install, in the boot that a reboot began")
	}
	r := s.record()
	done := s.hookCall(HookPostAccept, trial)
	updated := save{"UPDATED", s.accepted}
	p := plan{do: []effect{updated}}
	if r.Trial != nil {
		p = plan{
			do:   []effect{save{"ACCEPTING", func(r *record) { r.Trial.Accepting = true }}, commit{Selection{Default: r.Trial.Bank}, false}, updated},
			undo: []effect{disarm{r.Trial.Bank.Other()}, save{"TRIAL", func(r *record) { r.Trial.Accepting = false }}},
		}
	}
	defer s.inhibit(ctx, "an update is being accepted")()
	if err := s.run(ctx, p); err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	return done, nil
}

// accepted makes each component that is TRIAL (STAGED, for a bank without trial) UPDATED, and moves
// the floors.
func (s *Service) accepted(r *record) {
	if r.Trial != nil {
		defer r.endTrial(r.Trial.Bank)
	}
	for _, c := range s.components {
		cr := r.Components[c.Name]
		switch {
		case cr.State == Trial:
			s.keep(r, c.Component, evAccept)
		case cr.State == Staged && !c.Live:
			s.keep(r, c.Component, evInstalled)
		}
		if cr.Carried {
			cr.Carried, cr.image().Head = false, nil
		}
	}
}

// keep makes the active image of a component the one that is kept.
func (s *Service) keep(r *record, c Component, e event) {
	cr := r.Components[c.Name]
	to := s.move(r, c, e)
	cr.set(to, Success, "", "")
	cr.raiseFloor(r)
	if to == Ready {
		cr.second().Image = nil
	}
}

// raiseFloor forbids images that are older than the active one, from now on. The record is written
// in the format of this version again: the version before it is not coming back.
func (c *componentRecord) raiseFloor(r *record) {
	img := c.image()
	c.Floor, img.Head = max(c.Floor, img.Sequence), nil
	c.forget(img.Digest)
	c.Bypassed = nil // reboots pass the bootloader
	r.Signed = max(r.Signed, img.Signed)
	r.minor = max(r.minor, storeMinor)
}
