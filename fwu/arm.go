package fwu

import (
	"context"
	"slices"
)

// installBank arms the other bank. The order is: record, heads, selector, and the record again,
// which says that nothing is under way any more. Until the selector is committed a reset starts the
// bank that runs now; until the last step an old bank that comes up is no failed trial.
func (s *Service) installBank(ctx context.Context, inst *installation) (Status, error) {
	booted := s.cfg.Boot.Bank
	ids, after := s.staged(inst)
	arm := Selection{Default: booted, Trial: booted.Other()}
	p := plan{
		do: append(append([]effect{save{"STAGED", func(r *record) {
			r.Trial = &trialRecord{Bank: booted.Other(), NoTrial: !s.cfg.Trial, Arming: true}
			for _, c := range inst.candidates {
				r.Components[c.Name].set(s.move(r, c.Component, evInstall), Success, "", "")
			}
			for _, c := range inst.carried {
				cr := r.Components[c.Name]
				cr.Carried, cr.second().Image = true, inst.copies[c.ID]
			}
		}}}, unsealAll(after, ids)...), commit{arm, false}, s.arming(false)),
		undo: append(append([]effect{disarm{booted}}, sealAll(after, ids)...), save{"CANDIDATE", func(r *record) { s.unstage(r, false) }}),
	}
	if err := s.run(ctx, p); err != nil {
		return 0, err
	}
	return SuccessReboot, nil // with all slots held: see hold.go
}

// arming records that the selector is being armed or disarmed for the new bank, or that this is
// done.
func (s *Service) arming(underWay bool) effect {
	if underWay {
		return save{"DISARMING", func(r *record) { r.Trial.Arming = true }}
	}
	return save{"ARMED", func(r *record) { r.Trial.Arming = false }}
}

// staged returns the members of an install as the record will have them.
func (s *Service) staged(inst *installation) ([]ID, map[ID]*componentRecord) {
	r := s.record().clone()
	after := map[ID]*componentRecord{}
	var ids []ID
	all := inst.all()
	for _, c := range s.components { // in the order of ids
		if !slices.Contains(all, c) {
			continue
		}
		cr := r.Components[c.Name]
		if img := inst.copies[c.ID]; img != nil {
			cr.second().Image = img
		}
		after[c.ID] = cr
		ids = append(ids, c.ID)
	}
	return ids, after
}

// unstage takes STAGED back: the candidates are candidates again, and a member that was carried
// over is nothing again. bypassed tells that the system was started without the bootloader while
// they were armed.
func (s *Service) unstage(r *record, bypassed bool) {
	if r.Trial == nil { // it was never recorded
		return
	}
	defer r.endTrial(r.Trial.Bank.Other())
	for _, c := range s.components {
		cr := r.Components[c.Name]
		if cr.State == Staged && !c.Live {
			to := s.move(r, c.Component, evNotArmed)
			if s.cfg.Boot.ID == r.BootID { // nothing volatile is lost while the system runs
				to = Candidate
			}
			reason, text := Reason(""), ""
			if bypassed {
				reason, text = ReasonBootBypassed, "the system was started again without its bootloader, by kexec for instance, so that the new bank was not tried"
				cr.Bypassed = count(cr.Bypassed, imageIn(cr, r.Trial.Bank).Digest)
			}
			cr.fail(to, Success, reason, text)
		}
		if cr.Carried {
			cr.Carried, cr.second().Image = false, nil
		}
	}
}
