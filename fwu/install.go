package fwu

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// installation is the set of components that an install is about, each held.
type installation struct {
	live       bool
	candidates []*component
	carried    []*component // members of the bank that get a copy of their active image
	copies     map[ID]*imageRecord
}

func (i *installation) all() []*component { return append(slices.Clone(i.candidates), i.carried...) }

// Install is psa_fwu_install (section 5.6.2): all candidates, or none. Bank members are armed for
// one start of the other bank (SuccessReboot). Live components run with their new image when it
// returns.
func (s *Service) Install(ctx context.Context) (Status, error) {
	status, done, err := s.installAlone(ctx)
	if err == nil {
		s.afterwards(ctx, done)
	}
	return status, err
}

// installAlone is Install without the hooks that follow. It returns the call for them.
func (s *Service) installAlone(ctx context.Context) (Status, *HookCall, error) {
	if err := s.healthy(ctx); err != nil {
		return 0, nil, err
	}
	if err := s.install.take(ctx); err != nil {
		return 0, nil, err
	}
	defer s.install.give()
	status, done, err := s.installCandidates(ctx)
	if err != nil {
		s.notInstalled(err)
	}
	return status, done, err
}

func (s *Service) installCandidates(ctx context.Context) (Status, *HookCall, error) {
	inst, err := s.holdCandidates(ctx)
	if err != nil {
		return 0, nil, fmt.Errorf("install: %w", err)
	}
	defer s.giveUp(inst)
	opCtx := ctx
	for _, c := range inst.all() {
		var end func()
		opCtx, end = s.begin(opCtx, c, OpInstall)
		defer end()
	}
	done := s.hookCall(HookPostInstall, inst.candidates)
	status, err := s.installAll(opCtx, inst)
	if err != nil {
		return 0, nil, s.ended(opCtx, fmt.Errorf("install: %w", err))
	}
	return status, done, nil
}

// giveUp ends an install. The slots that were carried over are held on if the bank is STAGED now.
// A transfer that is WRITING was in the way, and goes on.
func (s *Service) giveUp(inst *installation) {
	for _, c := range inst.carried {
		if c.transfer != nil || s.record().Trial != nil {
			continue
		}
		if err := s.release(c); err != nil {
			s.log.Warn("slot not given up cleanly", "component", c.Name, "err", err)
		}
	}
	for _, c := range inst.all() {
		c.op.give()
	}
}

func (s *Service) installAll(ctx context.Context, inst *installation) (Status, error) {
	if err := s.installable(inst); err != nil {
		return 0, err
	}
	if err := s.mayInstall(ctx, inst); err != nil {
		return 0, err
	}
	if err := s.claimSecondBank(ctx, inst.candidates[0]); err != nil {
		return 0, err
	}
	for _, c := range inst.candidates {
		if err := s.verifyCandidate(ctx, c); err != nil {
			return 0, err
		}
	}
	if inst.live {
		defer s.inhibit(ctx, "an update is being put into use")()
		return s.installLive(ctx, inst)
	}
	for _, c := range inst.carried {
		if err := s.carryOver(ctx, c, inst); err != nil {
			return 0, err
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	defer s.inhibit(ctx, "an update is being armed")()
	return s.installBank(ctx, inst)
}

// inhibit keeps the system up during a commit, if that can be done. A shutdown in the middle does
// no harm; but nobody wants it then.
func (s *Service) inhibit(ctx context.Context, why string) (release func()) {
	i, ok := s.cfg.System.(Inhibitor)
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), inhibitTimeout)
	defer cancel()
	release, err := i.Inhibit(ctx, why)
	if err != nil {
		s.log.Debug("shutdown and sleep are not inhibited", "err", err)
		return func() {}
	}
	return release
}

// inhibitTimeout is how long logind may take: without an answer there is no inhibition, and the
// commit goes on.
const inhibitTimeout = 2 * time.Second

// holdCandidates finds the components of an install and takes them. It waits for a candidate, and
// for nothing else.
func (s *Service) holdCandidates(ctx context.Context) (*installation, error) {
	inst, err := s.findCandidates()
	if err != nil {
		return nil, err
	}
	var taken []*component
	giveBack := func() {
		for _, c := range taken {
			c.op.give()
		}
	}
	for _, c := range inst.all() {
		if slices.Contains(inst.candidates, c) {
			err = c.op.take(ctx)
		} else if !c.op.try() {
			err = needs(c, "another operation runs on %s", c.Name)
		}
		if err != nil {
			giveBack()
			return nil, err
		}
		taken = append(taken, c)
	}
	now, err := s.findCandidates() // a cancel or a finish may have been faster
	if err == nil && !(slices.Equal(now.candidates, inst.candidates) && slices.Equal(now.carried, inst.carried)) {
		err = refuse(BadState, ReasonState, "the set of candidates changed meanwhile: call install again")
	}
	if err != nil {
		giveBack()
		return nil, err
	}
	return inst, nil
}

func (s *Service) findCandidates() (*installation, error) {
	r := s.record()
	inst := &installation{copies: map[ID]*imageRecord{}}
	var bank bool
	for _, c := range s.components {
		cr := r.Components[c.Name]
		if cr.State.bound() {
			err := refuse(BadState, ReasonState, "%s is %s, and waits for %s", c.Name, cr.State, cr.State.waitsFor())
			err.Components = []ID{c.ID}
			return nil, err
		}
		if cr.State == Candidate && !(c.Live && s.readOnly(c) != nil) { // a live component that is read-only is in nobody's way
			inst.candidates = append(inst.candidates, c)
			inst.live = inst.live || c.Live
			bank = bank || !c.Live
		}
	}
	switch {
	case len(inst.candidates) == 0:
		return nil, refuse(BadState, ReasonState, "no component is CANDIDATE: write and finish an image first")
	case inst.live && bank:
		err := refuse(NotPermitted, ReasonMixedInstall, "live components and members of a bank cannot be installed together; cancel one kind")
		for _, c := range inst.candidates {
			err.Components = append(err.Components, c.ID)
		}
		return nil, err
	}
	for _, c := range s.components {
		if bank && !c.Live && r.Components[c.Name].State != Candidate {
			inst.carried = append(inst.carried, c)
		}
	}
	return inst, nil
}

// installable checks everything that does not need the medium: the others of the bank,
// dependencies, policy.
func (s *Service) installable(inst *installation) error {
	r := s.record()
	for _, c := range inst.all() {
		if p := s.readOnly(c); p != nil {
			return p.refusal("%s is read-only", c.Name)
		}
	}
	if err := othersWait(r, s.components, inst.candidates[0]); err != nil {
		return err
	}
	for _, c := range inst.candidates {
		cr := r.Components[c.Name]
		if err := dependencies(r, c, cr); err != nil {
			return err
		}
		if err := charged(s.cfg.Battery, c, cr); err != nil {
			return err
		}
		if err := s.policy().permits(c, cr, cr.next()); err != nil {
			s.refused(c.Name, err)
			return err
		}
	}
	return nil
}

// inState lists the components in a state.
func (s *Service) inState(st State) []*component { return s.inStateOf(s.record(), st) }

func (s *Service) inStateOf(r *record, st State) []*component {
	var out []*component
	for _, c := range s.components {
		if r.Components[c.Name].State == st {
			out = append(out, c)
		}
	}
	return out
}

// each calls f for every component of r in a state.
func (s *Service) each(r *record, st State, f func(*componentRecord)) {
	for _, c := range s.components {
		if cr := r.Components[c.Name]; cr.State == st {
			f(cr)
		}
	}
}
