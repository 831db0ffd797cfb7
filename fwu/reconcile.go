package fwu

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// situation is what a start of the service finds: the record says what was meant, the boot what came of it, the selector what the next reset will do.
type situation struct {
	booted   Bank
	settled  bool      // the selection was committed in this boot
	sameBoot bool      // the record was last reconciled in this boot: the service was restarted, not the system
	sel      Selection // zero if the selector holds nothing valid
	heads    HeadState // of the bank that is STAGED: while one is masked it was never armed
}

// verdict is what is to be done about it.
type verdict struct {
	effects []effect
	problem *problem // what cannot be mended
	reboot  bool     // the running bank lost its trial: ask for the one reboot that ends it
}

// start reads the store and reconciles. It never fails: what it cannot do makes the service degraded.
func (s *Service) start(ctx context.Context) {
	rec, err := s.store.load()
	if err != nil && !errors.Is(err, errNoRecord) {
		s.log.Error("record", "err", err)
	}
	switch {
	case errors.Is(err, errRecordVersion):
		s.degrade(ReasonRecordVersion, "%v; it was written by a newer service", err)
		return
	case errors.Is(err, errNoRecord), errors.Is(err, errRecordLost):
		rec = nil
	case err != nil:
		s.degrade(ReasonMedium, "read the record: %v", err)
		return
	}
	sameBoot := rec != nil && rec.BootID == s.cfg.Boot.ID
	if err := s.reconcile(ctx, rec, err); err != nil {
		s.degrade(reasonOr(err, ReasonReconcile), "%v", err)
	}
	s.initComponents(ctx, sameBoot)
}

func reasonOr(err error, r Reason) Reason {
	if found := ReasonOf(err); found != "" {
		return found
	}
	return r
}

// reconcile brings record, boot and selector into agreement (once per boot; after a restart of the service within a boot it finds nothing to do,
// or what a crash left).
func (s *Service) reconcile(ctx context.Context, rec *record, lost error) error {
	sit := situation{booted: s.cfg.Boot.Bank}
	if s.cfg.Selector != nil {
		if sit.booted == NoBank {
			s.publish(rec)
			return refuse(NotPermitted, ReasonBootedBankUnknown, "which bank is running is not known: %s", s.cfg.Boot.Why)
		}
		sel, err := s.cfg.Selector.Read()
		if err != nil && !errors.Is(err, ErrNoSelection) {
			s.publish(rec)
			return &Error{Status: StorageFailure, Reason: ReasonSelectorUnusable, Text: "read the boot selection", Err: err}
		}
		sit.sel = sel
		s.setSelection(sel)
		s.repairSelector()
	}
	if rec == nil {
		return s.begun(ctx, sit, lost)
	}
	s.publish(rec)
	s.checkConfig(rec)
	s.adopt(rec)
	sit.sameBoot, sit.settled = rec.BootID == s.cfg.Boot.ID, rec.Settled == s.cfg.Boot.ID
	if rec.Trial != nil && sit.booted != rec.Trial.Bank {
		sit.heads = s.headsOfTrial(ctx, rec)
	}
	return s.carryOut(ctx, s.judge(s.record(), sit))
}

func (s *Service) repairSelector() {
	if r, ok := s.cfg.Selector.(Repairer); ok {
		if err := r.Repair(); err != nil {
			s.log.Warn("damaged copy of the boot selection not repaired", "err", err)
		}
	}
}

func (s *Service) publish(rec *record) {
	s.mu.Lock()
	s.rec = rec
	s.mu.Unlock()
}

func (s *Service) carryOut(ctx context.Context, v verdict) error {
	if v.problem != nil {
		return refuse(NotPermitted, v.problem.reason, "%s", v.problem.text)
	}
	if err := s.run(ctx, plan{do: v.effects}); err != nil {
		return err
	}
	if err := s.stamp(); err != nil {
		return err
	}
	if v.reboot {
		return s.rollBack(ctx)
	}
	return nil
}

// stamp records the boot, if the record does not have it yet, or if a copy of it has to be repaired.
func (s *Service) stamp() error {
	r := s.record()
	s.mu.Lock()
	settled := s.settled && r.Settled != s.cfg.Boot.ID
	s.mu.Unlock()
	if r.BootID == s.cfg.Boot.ID && r.Bank == s.cfg.Boot.Bank && s.store.repaired() && !settled {
		return nil
	}
	err := s.update(func(r *record) { s.stampRecord(r) })
	if err == nil && !s.store.repaired() {
		err = s.update(func(*record) {})
	}
	return err
}

func (s *Service) stampRecord(r *record) {
	r.BootID, r.Bank = s.cfg.Boot.ID, s.cfg.Boot.Bank
	s.mu.Lock()
	if s.settled {
		r.Settled = s.cfg.Boot.ID
	}
	s.mu.Unlock()
	if s.cfg.Selector != nil && r.Selector == "" {
		r.Selector = s.cfg.Selector.Kind()
	}
	for _, c := range s.cfg.Components {
		if cr := r.Components[c.Name]; c.Live || cr.Active == s.cfg.Boot.Bank.Index() {
			s.describe(c, cr)
		}
	}
}

// judge decides what a start makes of the record.
func (s *Service) judge(r *record, sit situation) verdict {
	var v verdict
	switch {
	case s.cfg.Selector == nil:
	case r.Trial == nil:
		v = s.judgeIdle(r, sit)
	case sit.booted == r.Trial.Bank:
		v = s.judgeNew(r, sit)
	default:
		v = s.judgeOld(r, sit)
	}
	if v.problem == nil {
		v.effects = append(v.effects, s.judgeRest(r, sit)...)
	}
	return v
}

func differs(sit situation) verdict {
	return verdict{problem: &problem{ReasonDefaultDiffers, fmt.Sprintf(
		"bank %q is running, the boot selector has %q as default, and no trial explains it; reboot, or make the running bank the default", sit.booted, sit.sel.Default)}}
}

// settle makes bank the default and disarms. Once per boot it does so even if that is so: the boot may have used up what a commit gives, as attempts that
// the bootloader counts, and nothing may be written to the other bank's slots before it is out of reach of the bootloader.
func settle(sit situation, bank Bank) []effect {
	switch want := (Selection{Default: bank}); {
	case sit.sel != want:
		return []effect{commit{want, false}}
	case !sit.settled:
		return []effect{commit{want, true}}
	}
	return nil
}

// judgeIdle: no trial. The running bank is the default, or there is no default at all: then it becomes it.
func (s *Service) judgeIdle(r *record, sit situation) verdict {
	if sit.sel.Default != NoBank && sit.sel.Default != sit.booted {
		return differs(sit)
	}
	v := verdict{effects: settle(sit, sit.booted)}
	moved := false
	for _, c := range s.cfg.Components {
		moved = moved || !c.Live && r.Components[c.Name].Active != sit.booted.Index()
	}
	if moved {
		v.effects = append(v.effects, save{"other bank", s.follow})
	}
	return v
}

// follow accepts that the other bank was booted by other means than ours: what it holds is the active image now, and nothing is in preparation.
func (s *Service) follow(r *record) {
	for _, c := range s.cfg.Components {
		cr := r.Components[c.Name]
		if c.Live || cr.Active == s.cfg.Boot.Bank.Index() {
			continue
		}
		cr.Active = s.cfg.Boot.Bank.Index()
		cr.set(Ready, Success, ReasonDefaultDiffers, "the other bank was booted without an update")
	}
	s.stampRecord(r)
}

// describe fills in what the running system says of c's active image, where nothing is recorded of it.
func (s *Service) describe(c Component, cr *componentRecord) {
	if cr.Slots[cr.Active].Image == nil {
		rel := s.cfg.Release[c.Name]
		cr.Slots[cr.Active].Image = &imageRecord{Version: rel.Version, Sequence: rel.Sequence}
	}
}

// judgeNew: the bank that was installed is running.
func (s *Service) judgeNew(r *record, sit situation) verdict {
	old := r.Trial.Bank.Other()
	st := s.phase(r)
	switch {
	case st == Staged && r.Trial.Rejecting: // it was rejected, disarmed, and came up all the same
		return verdict{effects: settle(sit, old), reboot: true}
	case st == Staged && !r.Trial.NoTrial:
		return verdict{effects: append([]effect{save{"TRIAL", s.tried}}, settle(sit, old)...)}
	case st == Staged, st == Trial && sit.sel.Default == sit.booted:
		return verdict{effects: append(settle(sit, sit.booted), save{"UPDATED", func(r *record) { s.tried(r); s.accepted(r) }})}
	case st == Trial && sit.sameBoot:
		v := verdict{effects: settle(sit, old)}
		if r.Trial.Accepting {
			v.effects = append(v.effects, save{"TRIAL", func(r *record) { r.Trial.Accepting = false }})
		}
		return v
	case st == Rejected && sit.sameBoot: // who rejected it asks for the reboot, unless that was a start of ours that was cut short
		return verdict{effects: settle(sit, old), reboot: !r.Trial.Rebooted && s.rejectedByUs(r)}
	case st == Rejected:
		return verdict{effects: settle(sit, old), reboot: true}
	}
	return verdict{reboot: true, effects: append(settle(sit, old), save{"REJECTED", func(r *record) {
		for _, c := range s.cfg.Components {
			cr := r.Components[c.Name]
			if to, _, ok := s.variant(c).next(cr.State, evTrialBroken); ok {
				cr.set(to, GenericError, ReasonTrialReset, "the system was restarted before the trial was accepted")
			}
		}
		r.Trial.Accepting = false
	}})}
}

func (s *Service) rejectedByUs(r *record) (ours bool) {
	s.each(r, Rejected, func(cr *componentRecord) { ours = cr.Reason != ReasonRejected })
	return ours
}

// tried makes the new bank the active one.
func (s *Service) tried(r *record) {
	for _, c := range s.cfg.Components {
		cr := r.Components[c.Name]
		if c.Live {
			continue
		}
		cr.Active = s.cfg.Boot.Bank.Index()
		if to, _, ok := s.trialVariant(r, c).next(cr.State, evInstalled); ok && to == Trial {
			cr.set(to, Success, "", "")
		}
	}
	s.stampRecord(r)
}

// judgeOld: a bank was installed, and the one before it is running.
func (s *Service) judgeOld(r *record, sit situation) verdict {
	if sit.sel.Default == r.Trial.Bank {
		return differs(sit)
	}
	back := settle(sit, sit.booted)
	st := s.phase(r)
	if st == Staged {
		switch armed := sit.sel.Trial == r.Trial.Bank; {
		case r.Trial.Rejecting:
			return verdict{effects: append(back, s.finishReject(r)...)}
		case armed && sit.sameBoot:
			return verdict{}
		case armed, sit.sameBoot, sit.heads == HeadMixed:
			return verdict{effects: append(append(back, s.sealTrial(r)...), save{"CANDIDATE", func(r *record) { s.unstage(r); s.stampRecord(r) }})}
		case sit.heads == HeadUnknown: // an image that cannot be read is not one that was started and failed
			return verdict{problem: &problem{ReasonMedium, "the head of the installed image cannot be read, so that it is not known whether it was armed; it is kept"}}
		}
	}
	e, reason, text := evRolledBack, ReasonTrialReset, "the system was restarted before the trial was accepted"
	if st == Staged {
		e, reason, text = evNotBooted, ReasonTrialNotBooted, "the new system was armed, and the old one came up again"
	}
	return verdict{effects: append(append(back, s.destroyTrial(r)...), save{"FAILED", func(r *record) {
		s.dissolve(r, e, GenericError, reason, text)
		s.stampRecord(r)
	}})}
}

// phase is the state of the members that are in trial. One that is still STAGED beside others is one that the configuration of the new bank does not know.
func (s *Service) phase(r *record) State {
	st := Rejected // a record of a trial without members: end it
	for _, c := range s.cfg.Components {
		switch cr := r.Components[c.Name]; {
		case c.Live || !cr.State.bound():
		case cr.State != Staged:
			return cr.State
		default:
			st = Staged
		}
	}
	return st
}

// sealTrial masks the heads of a bank that was staged and will not be started.
func (s *Service) sealTrial(r *record) []effect {
	m := map[ID]*componentRecord{}
	var ids []ID
	for _, c := range s.cfg.Components {
		if cr := r.Components[c.Name]; !c.Live && (cr.State == Staged || cr.Carried) {
			m[c.ID] = cr
			ids = append(ids, c.ID)
		}
	}
	return sealAll(m, ids)
}

// judgeRest: live components, volatile staging, and candidates whose heads a crash left plain.
func (s *Service) judgeRest(r *record, sit situation) []effect {
	var out []effect
	for _, c := range s.cfg.Components {
		cr := r.Components[c.Name]
		ours := c.Live || cr.Active == sit.booted.Index() && s.readOnlyBank() == ""
		if cr.State == Candidate && cr.next().Head != nil && ours {
			out = append(out, seal{c.ID, 1 - cr.Active, *cr.next().Head, true})
		}
	}
	if sit.sameBoot {
		return out
	}
	return append(out, save{"reboot", s.rebooted}, expire{})
}

// rebooted applies what every boot does: volatile staging ends, and with it the trial of a live component.
func (s *Service) rebooted(r *record) {
	for _, c := range s.cfg.Components {
		cr := r.Components[c.Name]
		to, _, ok := s.variant(c).next(cr.State, evReboot)
		if !ok || !c.Live && r.Trial != nil && cr.State.bound() {
			continue
		}
		if cr.State == Trial {
			cr.remember(cr.image().Digest)
			cr.Active = 1 - cr.Active
		}
		cr.fail(to, Success, "", "")
	}
	s.stampRecord(r)
}

// headsOfTrial tells what the heads of the staged bank are: HeadMixed if one is masked, even in part, else HeadUnknown if one cannot be read, else HeadPlain. What is neither counts as
// plain: a system that was started changes its superblock.
func (s *Service) headsOfTrial(ctx context.Context, r *record) HeadState {
	all, unknown := HeadPlain, false
	for _, c := range s.components {
		cr := r.Components[c.Name]
		img := imageIn(cr, r.Trial.Bank)
		if c.Live || img.Head == nil || !(cr.State == Staged || cr.Carried) {
			continue
		}
		state := HeadPlain
		err := s.withImage(ctx, c.ID, r.Trial.Bank.Index(), func(i Image) (err error) {
			state, err = i.HeadState(ctx, *img.Head)
			return err
		})
		switch {
		case err != nil:
			s.log.Warn("head of the installed image not read", "component", c.Name, "err", err)
			unknown = true
		case state == HeadMasked || state == HeadMixed:
			all = HeadMixed
		}
	}
	if unknown && all != HeadMixed {
		return HeadUnknown
	}
	return all
}

// begun makes the first record, or the first after the last one was lost.
func (s *Service) begun(ctx context.Context, sit situation, lost error) error {
	isLost := errors.Is(lost, errRecordLost)
	if s.cfg.Release == nil {
		return refuse(NotPermitted, ReasonRecordLost, "%v, and the running system has no release record; fwu-ab provision makes one", lost)
	}
	trial := s.cfg.Selector != nil && sit.sel.Default != NoBank && sit.sel.Default != sit.booted
	r := s.fresh()
	if err := s.findLive(ctx, r); err != nil {
		return err
	}
	s.publish(r)
	v := verdict{reboot: trial}
	if s.cfg.Selector != nil && !trial {
		v.effects = settle(sit, sit.booted)
	}
	v.effects = append(v.effects, save{"first record", func(r *record) {
		s.stampRecord(r)
		if trial {
			r.Trial = &trialRecord{Bank: sit.booted}
		}
		for _, c := range s.cfg.Components {
			cr := r.Components[c.Name]
			if trial { // what the running image says of itself was never accepted
				cr.Floor = 0
			}
			switch {
			case trial && !c.Live:
				cr.set(Rejected, GenericError, ReasonRecordLost, "the record was lost while this bank was not the default")
			case isLost:
				cr.set(Ready, Success, ReasonRecordLost, "the record was lost; the version is that of the release record")
			}
		}
	}})
	return s.carryOut(ctx, v)
}

// findLive finds the active slots of live components, of which no record tells: what cannot be started is not active. Where both can, it is the first one.
func (s *Service) findLive(ctx context.Context, r *record) error {
	for _, c := range s.cfg.Components {
		if !c.Live {
			continue
		}
		first, err := c.Slots[0].Bootable(ctx)
		if err != nil {
			return s.slotError(s.component(c.ID), 0, err)
		}
		if first {
			continue
		}
		second, err := c.Slots[1].Bootable(ctx)
		if err != nil {
			return s.slotError(s.component(c.ID), 1, err)
		}
		if second {
			cr := r.Components[c.Name]
			cr.Active, cr.Slots[0].Image = 1, nil
			s.describe(c, cr)
		}
	}
	return nil
}

// fresh is the record of a device of which nothing is known but what the running image says.
func (s *Service) fresh() *record {
	r := &record{Components: map[string]*componentRecord{}, minor: storeMinor}
	s.adopt(r)
	return r
}

// adopt adds to r what is configured and not recorded yet, and raises the floors to what the running image says.
func (s *Service) adopt(r *record) {
	if r.Components == nil {
		r.Components = map[string]*componentRecord{}
	}
	for _, c := range s.cfg.Components {
		cr := r.Components[c.Name]
		if cr == nil {
			cr = &componentRecord{ID: c.ID}
			for i, slot := range c.Slots {
				info := slot.Info()
				cr.Slots[i] = slotRecord{ID: info.ID, Size: info.Size}
			}
			if !c.Live {
				cr.Active = max(s.cfg.Boot.Bank.Index(), 0)
			}
			s.describe(c, cr)
			r.Components[c.Name] = cr
		}
		if rel, ok := s.cfg.Release[c.Name]; ok && !(r.Trial != nil && s.cfg.Boot.Bank == r.Trial.Bank) {
			cr.Floor = max(cr.Floor, rel.Sequence)
		}
	}
}

// checkConfig makes a component read-only whose slots or selector are not those of the record: two configurations that disagree must not
// write to each other's partitions.
func (s *Service) checkConfig(r *record) {
	for _, c := range s.components {
		cr := r.Components[c.Name]
		if cr == nil {
			continue
		}
		for i, slot := range c.Slots {
			if info := slot.Info(); info.ID != cr.Slots[i].ID || info.Size != cr.Slots[i].Size {
				c.readOnly = fmt.Sprintf("%s: slot %s is %s of %d bytes, and the record has %s of %d bytes", c.Name, BankOf(i), info.ID, info.Size, cr.Slots[i].ID, cr.Slots[i].Size)
			}
		}
		if cr.ID != c.ID {
			c.readOnly = fmt.Sprintf("%s has id %d, and the record has %d", c.Name, c.ID, cr.ID)
		}
		if !c.Live && r.Selector != "" && r.Selector != s.cfg.Selector.Kind() {
			c.readOnly = fmt.Sprintf("%s: the boot selector is %q, and the record has %q", c.Name, s.cfg.Selector.Kind(), r.Selector)
		}
		if c.readOnly != "" {
			s.log.Warn("component is read-only", "why", c.readOnly)
		}
	}
}

// putLinkBack makes the link to a live component's active slot, which the record names: a configuration may call another one so. If it had to be changed in the same boot, an
// install was cut short before the unit was restarted.
func (s *Service) putLinkBack(ctx context.Context, c *component, cr *componentRecord, sameBoot bool) {
	active := slices.IndexFunc(c.Slots[:], func(slot Slot) bool { return slot.Info().ID == cr.Slots[cr.Active].ID })
	if active < 0 {
		s.log.Error("active image not put into use: the configuration does not have its slot", "component", c.Name, "slot", cr.Slots[cr.Active].ID)
		return
	}
	changed, err := s.cfg.System.Link(ctx, c.Name, c.Slots[active].Info().Path)
	if err == nil && changed && sameBoot && c.Unit != "" {
		err = s.cfg.System.Restart(ctx, c.Unit)
	}
	if err != nil {
		s.log.Error("active image not put into use", "component", c.Name, "err", err)
	}
}

// initComponents sets what is kept in memory, and puts the links of live components back.
func (s *Service) initComponents(ctx context.Context, sameBoot bool) {
	r := s.record()
	if r == nil {
		return
	}
	for _, c := range s.components {
		cr := r.Components[c.Name]
		if cr == nil {
			continue
		}
		if cr.State == Writing || cr.State == Candidate {
			s.setWritten(c, cr.next().Written)
		}
		if c.Live {
			s.putLinkBack(ctx, c, cr, sameBoot)
		}
	}
}

// rollBack asks for the reboot that ends a lost trial: once, recorded before, and only if it leads to a bank that can be started.
func (s *Service) rollBack(ctx context.Context) error {
	r := s.record()
	stay := func(format string, args ...any) error {
		return refuse(NotPermitted, ReasonRollbackFailed, "bank %s lost its trial, and no reboot was asked for: %s", r.Trial.Bank, fmt.Sprintf(format, args...))
	}
	if r.Trial.Rebooted {
		return stay("one was, and this bank came up again")
	}
	sel, err := s.cfg.Selector.Read()
	if err != nil {
		return stay("the boot selection cannot be read: %v", err)
	}
	if sel.Default == NoBank || sel.Default == s.cfg.Boot.Bank {
		return stay("it would start bank %q", sel.Default)
	}
	// A member that is new in this bank has nothing in the other one. Where the record knows nothing of the other bank at all, each slot is looked at.
	known := slices.ContainsFunc(s.components, func(c *component) bool { return !c.Live && holds(r, c, sel.Default) })
	for _, c := range s.components {
		if c.Live || known && !holds(r, c, sel.Default) {
			continue
		}
		if ok, err := c.Slots[sel.Default.Index()].Bootable(ctx); err != nil || !ok {
			return stay("slot %s of %s cannot be started", sel.Default, c.Name)
		}
	}
	if err := s.update(func(r *record) { r.Trial.Rebooted = true }); err != nil {
		return err
	}
	if err := s.run(ctx, plan{do: []effect{reboot{}}}); err != nil {
		return stay("%v", err)
	}
	return nil
}

// holds tells whether the record knows of an image of c in a bank.
func holds(r *record, c *component, b Bank) bool {
	return r.Components[c.Name].Slots[b.Index()].Image != nil
}
