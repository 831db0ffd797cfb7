package fwu

import (
	"context"
	"errors"
	"fmt"
)

// Repair is something that the service does not do by itself, because it gives something up.
type Repair string

// The repairs. In the two of the record, a copy of the record cannot be read
// (ReasonRecordUnreadable) and does not become readable by itself. The repair takes that copy for
// lost and overwrites it, which makes most media readable again. If the record can be read, nothing
// is changed.
const (
	// RepairRecord goes on with the copy that is good. The last change of the record may be lost;
	// it is made up for as far as the running system, the boot selector and the heads of the slots
	// tell of it. It is refused if no copy is good.
	RepairRecord Repair = "record"
	// RepairNewRecord goes on without a record if no copy is good, as RepairRecord does if one is.
	// Every rollback floor and every failed trial is forgotten, but for the floors of the running
	// image's release record.
	RepairNewRecord Repair = "new-record"
	// RepairSlots records the sizes that slots have now (ReasonSlotResized). Floors, versions and
	// failed trials stay. An image in preparation on such a component is given up: it is FAILED. It
	// is refused if a slot became smaller than the image in it, and while the component is STAGED,
	// TRIAL or REJECTED.
	RepairSlots Repair = "slots"
)

// Repair repairs a fault for which the service answers queries only, or does not write to a
// component for.
func (s *Service) Repair(ctx context.Context, what Repair) error {
	switch what {
	case RepairRecord, RepairNewRecord:
		return s.repairRecord(ctx, what)
	case RepairSlots:
		return s.repairSlots(ctx)
	}
	return refuse(InvalidArgument, ReasonRepair, "repair: %q is nothing that can be repaired", what)
}

func (s *Service) repairRecord(ctx context.Context, what Repair) error {
	var refused error
	err := s.reopen(ctx, func(ctx context.Context, p *problem) *problem {
		if p == nil || p.reason != ReasonRecordUnreadable {
			return p
		}
		r, stale, err := s.store.salvage()
		if stale && errors.Is(err, errRecordLost) && what != RepairNewRecord {
			refused = p.refusal("repair the record: no copy of it is good; the repair %q forgets every rollback floor", RepairNewRecord)
			return p
		}
		if stale {
			s.log.Warn("an unreadable copy of the record is overwritten; the last change of the record may be lost", "why", p.text)
		}
		if stale && err == nil {
			if err := s.catchUp(ctx, r); err != nil {
				return &problem{ReasonRecordUnreadable, err.Error(), true}
			}
		}
		return s.startWith(ctx, r, err)
	})
	if err = errors.Join(err, refused); err != nil {
		return err
	}
	p, err := s.condition()
	if err != nil || p == nil {
		return err
	}
	return p.refusal("repair the record")
}

// repairSlots records the sizes of all slots that have others than the record says. Either all
// components are repaired, or none.
func (s *Service) repairSlots(ctx context.Context) error {
	if err := s.healthy(ctx); err != nil {
		return err
	}
	if err := s.install.take(ctx); err != nil {
		return err
	}
	defer s.install.give()
	var resized []*component
	for _, c := range s.components {
		if p := s.readOnly(c); p == nil || p.reason != ReasonSlotResized {
			continue
		}
		if err := c.op.take(ctx); err != nil {
			return err
		}
		defer c.op.give()
		if err := s.resizable(c); err != nil {
			return err
		}
		resized = append(resized, c)
	}
	if len(resized) == 0 {
		return nil
	}
	s.bank.force()
	defer s.bank.give()
	if err := s.save(ctx, "slots", func(r *record) { s.resize(r, resized) }); err != nil {
		return fmt.Errorf("repair the slots: %w", err)
	}
	r := s.record()
	s.checkConfig(r)
	var p plan
	for _, c := range resized {
		if cr := r.Components[c.Name]; cr.State == Failed && (c.Live || s.readOnlyBank() == nil) {
			p.do = append(p.do, destroy{c.ID, 1 - cr.Active, true})
		}
	}
	return s.run(ctx, p)
}

// resizable refuses to record the sizes of c's slots where that would change something under an
// image.
func (s *Service) resizable(c *component) error {
	r := s.record()
	cr := r.Components[c.Name]
	if cr.State.bound() || !c.Live && r.Trial != nil {
		err := refuse(NotPermitted, ReasonBankBusy, "repair the slots: %s is %s; accept or reject the update first", c.Name, cr.State)
		err.Components = []ID{c.ID}
		return err
	}
	if size, image := c.Slots[cr.Active].Info().Size, cr.image().Size; size < image || image == 0 && size < cr.Slots[cr.Active].Size {
		return refuse(NotPermitted, ReasonSlotResized, "repair the slots: slot %s of %s has %d bytes left, too few for the image in it", BankOf(cr.Active), c.Name, size)
	}
	return nil
}

func (s *Service) resize(r *record, resized []*component) {
	for _, c := range resized {
		cr := r.Components[c.Name]
		for i, slot := range c.Slots {
			cr.Slots[i].Size = slot.Info().Size
		}
		if cr.State == Writing || cr.State == Candidate {
			cr.set(s.move(r, c.Component, evCancel), Success, ReasonSlotResized, "a slot changed its size while an image was prepared")
		}
	}
}

// catchUp makes up for a change that a stale record does not have, where something else tells of
// it.
func (s *Service) catchUp(ctx context.Context, r *record) error {
	for _, c := range s.components {
		cr := r.Components[c.Name]
		if cr == nil || !c.Live {
			continue
		}
		if err := s.catchUpLive(ctx, r, c, cr); err != nil {
			return s.slotError(c, 1-cr.Active, err)
		}
	}
	if s.cfg.Selector == nil || r.Trial != nil {
		return nil
	}
	sel, err := s.cfg.Selector.Read()
	if err != nil {
		return &Error{Status: StorageFailure, Reason: ReasonSelectorUnusable, Text: "read the boot selection", Err: err}
	}
	if booted := s.cfg.Boot.Bank; booted != NoBank && sel.Default == booted.Other() {
		s.catchUpStaged(r, booted)
	}
	return nil
}

// catchUpLive finds the active slot of a live component whose install, or rejection, may be missing
// in the record. An install makes the head plain before it is recorded, a rejection destroys the
// head after it was recorded.
func (s *Service) catchUpLive(ctx context.Context, r *record, c *component, cr *componentRecord) error {
	switch cr.State {
	case Candidate:
		if cr.next().Head == nil {
			return nil
		}
		img, err := c.Slots[1-cr.Active].Open(ctx)
		if err != nil {
			return err
		}
		state, err := img.HeadState(ctx, *cr.next().Head)
		if err = closeQuietly(img, err); err != nil || state != HeadPlain {
			return err
		}
		to := s.move(r, c.Component, evInstall)
		cr.Active = 1 - cr.Active
		cr.Floor = max(cr.Floor, cr.image().Sequence) // it may have been accepted
		cr.set(to, Success, "", "")
	case Trial:
		active, err := c.Slots[cr.Active].Bootable(ctx)
		if err != nil || active {
			return err
		}
		to := s.move(r, c.Component, evReject)
		cr.remember(cr.image().Digest)
		cr.Active = 1 - cr.Active
		cr.fail(to, GenericError, ReasonTrialReset, "the image was given up, and the record of it is lost")
	}
	return nil
}

// catchUpStaged finds a trial that began although the record does not have its install: bank runs,
// it is not the default, and the record has verified images for it that only an install makes
// bootable.
func (s *Service) catchUpStaged(r *record, bank Bank) {
	candidates := 0
	for _, c := range s.components {
		cr := r.Components[c.Name]
		switch {
		case c.Live || cr == nil:
		case cr.Active == bank.Index():
			return
		case cr.State == Candidate:
			candidates++
		}
	}
	if candidates == 0 {
		return
	}
	r.Trial = &trialRecord{Bank: bank, NoTrial: !s.cfg.Trial}
	for _, c := range s.components {
		cr := r.Components[c.Name]
		switch {
		case c.Live || cr == nil:
		case cr.State == Candidate:
			cr.set(s.move(r, c.Component, evInstall), Success, "", "")
		default:
			img := *cr.image()
			cr.Carried, cr.second().Image = true, &img
		}
	}
}
