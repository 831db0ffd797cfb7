package fwu

import (
	"context"
	"errors"
)

// Repair is something that the service does not do by itself, because it gives something up.
type Repair string

// The repairs. In the two of the record, a copy of the record cannot be read (ReasonRecordUnreadable) and does not become readable by itself. The repair takes that copy for lost and overwrites it, which
// makes most media readable again. If the record can be read, nothing is changed.
const (
	// RepairRecord goes on with the copy that is good. The last change of the record may be lost; it is made up for as far as the running system, the boot selector and the heads of the slots
	// tell of it. It is refused if no copy is good.
	RepairRecord Repair = "record"
	// RepairNewRecord goes on without a record if no copy is good, as RepairRecord does if one is. Every rollback floor and every failed trial is forgotten, but for the floors of the running image's
	// release record.
	RepairNewRecord Repair = "new-record"
)

// Repair repairs what the service answers queries only for, or does not write to a component for.
func (s *Service) Repair(ctx context.Context, what Repair) error {
	switch what {
	case RepairRecord, RepairNewRecord:
		return s.repairRecord(ctx, what)
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

// catchUp makes up for a change that a stale record does not have, where something else tells of it.
func (s *Service) catchUp(ctx context.Context, r *record) error {
	for _, c := range s.components {
		cr := r.Components[c.Name]
		if cr == nil || !c.Live {
			continue
		}
		if err := s.catchUpLive(ctx, c, cr); err != nil {
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

// catchUpLive finds the active slot of a live component whose install, or rejection, may be missing in the record. An install makes the head plain before it is recorded, a rejection destroys the head
// after it was recorded.
func (s *Service) catchUpLive(ctx context.Context, c *component, cr *componentRecord) error {
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
		to, _, _ := s.variant(c.Component).next(Candidate, evInstall)
		cr.Active = 1 - cr.Active
		cr.Floor = max(cr.Floor, cr.image().Sequence) // it may have been accepted
		cr.set(to, Success, "", "")
	case Trial:
		active, err := c.Slots[cr.Active].Bootable(ctx)
		if err != nil || active {
			return err
		}
		to, _, _ := s.variant(c.Component).next(Trial, evReject)
		cr.remember(cr.image().Digest)
		cr.Active = 1 - cr.Active
		cr.fail(to, GenericError, ReasonTrialReset, "the image was given up, and the record of it is lost")
	}
	return nil
}

// catchUpStaged finds a trial that began although the record does not have its install: bank runs, it is not the default, and the record has verified images for it that only an install makes bootable.
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
			to, _, _ := s.variant(c.Component).next(Candidate, evInstall)
			cr.set(to, Success, "", "")
		default:
			img := *cr.image()
			cr.Carried, cr.second().Image = true, &img
		}
	}
}
