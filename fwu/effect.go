package fwu

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// effect is one step of an operation: a value that says what is to be done. Every effect is idempotent, and durable before the next one begins, so that
// a cut between any two leaves something that reconcile knows.
type effect interface {
	apply(ctx context.Context, s *Service, n *news) error
	String() string
}

// plan is an operation as an ordered list of effects. If one of do fails, undo is applied as far as it goes.
type plan struct {
	do, undo []effect
}

// save commits a change of the record.
type save struct {
	what string
	edit func(*record)
}

// commit sets the boot selection. A lenient one repeats what is there already: if it fails, the next start, or the next change of the other bank, makes up for it.
type commit struct {
	Selection
	lenient bool
}

// destroy overwrites the head of a component's slot. A lenient one that fails is reported and does not stop the plan: it stands where the
// slot is already out of reach of the bootloader, and where clean will destroy it again.
type destroy struct {
	id      ID
	slot    int
	lenient bool
}

// disarm makes bank the default and no trial armed, unless that is so: then it does not even ask for the selector's lock.
type disarm struct{ bank Bank }

// claim fails unless bank is the default and no trial is armed, and commits that again: what is
// read may not be durable yet, if a commit of it failed before.
type claim struct{ bank Bank }

// seal masks the head of a prepared image, unseal makes it plain. A lenient seal that fails is reported and does not stop the plan.
type seal struct {
	id      ID
	slot    int
	head    Head
	lenient bool
}
type unseal struct {
	id   ID
	slot int
	head Head
}

// link points a live component's link to a slot and restarts its unit.
type link struct {
	id      ID
	slot    int
	lenient bool
}

// expire destroys what a reboot left of images in volatile staging (section 4.2.1: the second image is cleaned). Erasing the rest is left to the next update's clean.
type expire struct{}

// stamp records the boot, if the record does not have it yet, or if a copy of it has to be
// repaired.
type stamp struct{}

// confirm reads the selection back, and fails unless it is the one that a reboot is to obey.
type confirm struct{ Selection }

// reboot asks for the reboot that leads to a bank, and ends a trial which nobody can end otherwise.
type reboot struct{ bank Bank }

func (e save) String() string   { return "save " + e.what }
func (e commit) String() string { return fmt.Sprintf("commit default=%s trial=%s", e.Default, e.Trial) }
func (e disarm) String() string { return fmt.Sprintf("disarm, default=%s", e.bank) }
func (e destroy) String() string {
	return fmt.Sprintf("destroy head of component %d slot %d", e.id, e.slot)
}
func (e seal) String() string   { return fmt.Sprintf("seal component %d slot %d", e.id, e.slot) }
func (e unseal) String() string { return fmt.Sprintf("unseal component %d slot %d", e.id, e.slot) }
func (e link) String() string   { return fmt.Sprintf("link component %d to slot %d", e.id, e.slot) }
func (e expire) String() string { return "expire volatile staging" }
func (e claim) String() string  { return fmt.Sprintf("claim the bank beside %s", e.bank) }
func (e stamp) String() string  { return "record the boot" }
func (e confirm) String() string {
	return fmt.Sprintf("read back default=%s trial=%s", e.Default, e.Trial)
}
func (e reboot) String() string { return fmt.Sprintf("reboot into bank %s", e.bank) }

func (e save) apply(_ context.Context, s *Service, n *news) error { return s.update(e.edit, n) }

func (e commit) apply(_ context.Context, s *Service, _ *news) error {
	if err := s.cfg.Selector.Commit(e.Selection); err != nil {
		if e.lenient {
			s.log.Warn("boot selection not committed again", "err", err)
			return nil
		}
		return &Error{Status: StorageFailure, Reason: ReasonSelectorUnusable, Text: "commit the boot selection", Err: err}
	}
	s.mu.Lock()
	s.sel, s.settled = e.Selection, true
	s.mu.Unlock()
	return nil
}

func (e disarm) apply(ctx context.Context, s *Service, n *news) error {
	want := Selection{Default: e.bank}
	if sel, err := s.cfg.Selector.Read(); err == nil && sel == want {
		s.setSelection(sel)
		return nil
	}
	return commit{want, false}.apply(ctx, s, n)
}

func (e claim) apply(ctx context.Context, s *Service, n *news) error {
	sel, err := s.cfg.Selector.Read()
	if err != nil {
		return &Error{Status: StorageFailure, Reason: ReasonSelectorUnusable, Text: "read the boot selection", Err: err}
	}
	s.setSelection(sel)
	if want := (Selection{Default: e.bank}); sel != want {
		return refuse(NotPermitted, ReasonDefaultDiffers, "the boot selector has default bank %q and trial bank %q, but bank %q is running: somebody else changed it; restart the service", sel.Default, sel.Trial, e.bank)
	}
	return commit{Selection{Default: e.bank}, false}.apply(ctx, s, n)
}

func (e destroy) apply(ctx context.Context, s *Service, _ *news) error {
	err := s.withImage(ctx, e.id, e.slot, func(img Image) error { return img.Destroy(ctx) })
	if err == nil {
		s.setSealed(e.id, true)
	}
	if err != nil && e.lenient && ctx.Err() == nil {
		s.log.Warn("head not destroyed, clean will try again", "component", s.component(e.id).Name, "err", err)
		return nil
	}
	return err
}

func (e seal) apply(ctx context.Context, s *Service, _ *news) error {
	destroyed := false
	err := s.withImage(ctx, e.id, e.slot, func(img Image) error {
		switch st, err := img.HeadState(ctx, e.head); {
		case err != nil || st == HeadMasked:
			return err
		case st == HeadOther: // a system that was started from it changed it, for instance: no image any more, and perhaps still bootable
			destroyed = true
			return img.Destroy(ctx)
		}
		return img.Seal(ctx, e.head)
	})
	if c := s.component(e.id); destroyed && c.held != nil { // it is not the image any more that was verified
		err = errors.Join(err, c.held.Close())
		c.held = nil
	}
	if err != nil && e.lenient && ctx.Err() == nil {
		s.log.Warn("head not masked again; the image was verified, and is verified again before it is installed", "component", s.component(e.id).Name, "err", err)
		return nil
	}
	return err
}

func (e unseal) apply(ctx context.Context, s *Service, _ *news) error {
	s.setSealed(e.id, false)
	return s.withImage(ctx, e.id, e.slot, func(img Image) error { return img.Unseal(ctx, e.head) })
}

func (e link) apply(ctx context.Context, s *Service, _ *news) error {
	c := s.component(e.id)
	err := func() error {
		if _, err := s.cfg.System.Link(ctx, c.Name, c.Slots[e.slot].Info().Path); err != nil {
			return &Error{Status: GenericError, Reason: ReasonUnitRestart, Text: fmt.Sprintf("link %s to its slot", c.Name), Err: err}
		}
		if c.Unit == "" {
			return nil
		}
		if err := s.cfg.System.Restart(ctx, c.Unit); err != nil {
			return &Error{Status: GenericError, Reason: ReasonUnitRestart, Text: fmt.Sprintf("restart %s", c.Unit), Err: err}
		}
		return nil
	}()
	if err != nil && e.lenient {
		s.log.Warn("previous image not put back into use", "component", c.Name, "err", err)
		return nil
	}
	return err
}

func (e expire) apply(ctx context.Context, s *Service, n *news) error {
	r := s.record()
	for _, c := range s.components {
		cr := r.Components[c.Name]
		if !c.Volatile || cr.State != Ready || !c.Live && (r.Trial != nil || s.readOnlyBank() != nil || cr.Active != s.cfg.Boot.Bank.Index()) {
			continue
		}
		second := c.Slots[1-cr.Active]
		if ok, err := second.Bootable(ctx); err == nil && !ok { // destroyed at an earlier boot, or sealed
			continue
		}
		if err := s.applyAll(ctx, s.destroySecond(r, c, true), n); err != nil {
			return err
		}
	}
	return nil
}

func (e stamp) apply(_ context.Context, s *Service, n *news) error {
	r := s.record()
	s.mu.Lock()
	settled := s.settled && r.Settled != s.cfg.Boot.ID
	s.mu.Unlock()
	if r.BootID == s.cfg.Boot.ID && r.Bank == s.cfg.Boot.Bank && s.store.repaired() && !settled {
		return nil
	}
	err := s.update(func(r *record) { s.stampRecord(r) }, n)
	if err == nil && !s.store.repaired() {
		err = s.update(func(*record) {}, n)
	}
	return err
}

func (e confirm) apply(_ context.Context, s *Service, _ *news) error {
	switch sel, err := s.cfg.Selector.Read(); {
	case err != nil:
		return stays(s.cfg.Boot.Bank, "the boot selection cannot be read: %v", err)
	case sel != e.Selection:
		return stays(s.cfg.Boot.Bank, "the boot selector has default bank %q and trial bank %q after %q and %q were committed", sel.Default, sel.Trial, e.Default, e.Trial)
	}
	return nil
}

func (e reboot) apply(ctx context.Context, s *Service, _ *news) error {
	if err := s.cfg.System.Reboot(ctx); err != nil {
		return stays(e.bank.Other(), "%v", err)
	}
	return nil
}

// save commits a change of the record, as a plan of its own.
func (s *Service) save(ctx context.Context, what string, edit func(*record)) error {
	return s.run(ctx, plan{do: []effect{save{what, edit}}})
}

// run applies a plan, and logs the outcome for the components. It is not interrupted once it began:
// it leaves behind either the whole or the result of undo.
func (s *Service) run(ctx context.Context, p plan) error {
	var n news
	err := s.perform(ctx, p, &n)
	if err == nil || len(p.undo) == 0 { // without undo, each save of the plan stays
		s.tell(n)
	}
	return err
}

// perform is run for an operation of several plans: it adds the changes of the record to n, and
// logs no event.
func (s *Service) perform(ctx context.Context, p plan, n *news) error {
	ctx = context.WithoutCancel(ctx)
	s.works(1)
	defer s.works(-1)
	err := s.applyAll(ctx, p.do, n)
	if err == nil || len(p.undo) == 0 {
		return err
	}
	if undoErr := s.applyAll(ctx, p.undo, n); undoErr != nil {
		return errors.Join(err, fmt.Errorf("and taking it back: %w", undoErr))
	}
	return err
}

func (s *Service) applyAll(ctx context.Context, effects []effect, n *news) error {
	for _, e := range effects {
		s.log.Debug("effect", "do", e.String())
		s.works(0)
		if err := e.apply(ctx, s, n); err != nil {
			return fmt.Errorf("%s: %w", e, err)
		}
	}
	return nil
}

// The order of heads. The bootloader loads what it starts from the bank member with the lowest id. That slot is destroyed first and made plain last:
// while it is plain, every other slot of the bank is plain too, whatever instant the power is cut at.

// destroySecond destroys the head of c's second slot and, where c is a bank member, of the second slots of all others that hold no image in
// preparation: what they hold of a previous bank is of no use without c. What they hold for the next one has to be sealed. The holder of s.bank calls it.
func (s *Service) destroySecond(r *record, c *component, lenient bool) []effect {
	if c.Live {
		return []effect{destroy{c.ID, 1 - r.Components[c.Name].Active, lenient}}
	}
	var out []effect
	for _, m := range s.components {
		cr := r.Components[m.Name]
		switch {
		case m.Live, m != c && cr.State == Writing:
		case cr.State == Candidate:
			if h := cr.next().Head; h != nil {
				out = append(out, seal{m.ID, 1 - cr.Active, *h, lenient})
			}
		case m == c || !s.isSealed(m):
			out = append(out, destroy{m.ID, 1 - cr.Active, lenient})
		}
	}
	return out
}

// unsealAll makes the second slots of the named components plain, sealAll masks them. ids is ascending.
func unsealAll(r map[ID]*componentRecord, ids []ID) []effect {
	var out []effect
	for _, id := range slices.Backward(ids) {
		if h := r[id].next().Head; h != nil {
			out = append(out, unseal{id, 1 - r[id].Active, *h})
		}
	}
	return out
}

func sealAll(r map[ID]*componentRecord, ids []ID) []effect {
	var out []effect
	for _, id := range ids {
		if h := r[id].next().Head; h != nil {
			out = append(out, seal{id, 1 - r[id].Active, *h, true})
		}
	}
	return out
}
