package fwu

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// situation is a finding, with the values that the steps of its rule need.
type situation struct {
	finding
	bank    Bank      // that runs
	sel     Selection // zero if the selector holds nothing valid
	settled bool      // the selection was committed in this boot
}

// start reads the store and reconciles. It never fails: it returns a problem if queries are all
// that can be answered.
func (s *Service) start(ctx context.Context) *problem {
	rec, err := s.store.load()
	if err != nil && !errors.Is(err, errNoRecord) && !errors.Is(err, errRecordUnreadable) {
		s.log.Error("record", "err", err)
	}
	return s.startWith(ctx, rec, err)
}

// startWith is start with a record that was read, or with the error that there is none.
func (s *Service) startWith(ctx context.Context, rec *record, err error) *problem {
	s.setEnding(serve)
	switch {
	case errors.Is(err, errRecordVersion):
		return &problem{reason: ReasonRecordVersion, text: fmt.Sprintf("%v; it was written by a newer service", err)}
	case errors.Is(err, errRecordUnreadable):
		s.publish(nil)
		return &problem{reason: ReasonRecordUnreadable, text: err.Error(), medium: true}
	case errors.Is(err, errNoRecord), errors.Is(err, errRecordLost):
		rec = nil
	case err != nil:
		return &problem{reason: ReasonReconcile, text: fmt.Sprintf("read the record: %v", err)}
	}
	sameBoot := rec != nil && rec.BootID == s.cfg.Boot.ID
	err = s.reconcile(ctx, rec, err)
	s.initComponents(ctx, sameBoot)
	if err != nil {
		return &problem{reasonOr(err, ReasonReconcile), err.Error(), StatusOf(err) == StorageFailure}
	}
	return s.holdAgain()
}

func reasonOr(err error, r Reason) Reason {
	if found := ReasonOf(err); found != "" {
		return found
	}
	return r
}

// reconcile brings record, boot and selector into agreement, once per boot. After a restart of the
// service within a boot it finds nothing to do, or the rest of an operation that a crash ended.
func (s *Service) reconcile(ctx context.Context, rec *record, lost error) error {
	var sel Selection
	if s.cfg.Selector != nil {
		if s.cfg.Boot.Bank == NoBank {
			s.publish(rec)
			return refuse(NotPermitted, ReasonBootedBankUnknown, "which bank is running is not known: %s", s.cfg.Boot.Why)
		}
		var err error
		sel, err = s.cfg.Selector.Read()
		if err != nil && !errors.Is(err, ErrNoSelection) {
			s.publish(rec)
			return &Error{Status: StorageFailure, Reason: ReasonSelectorUnusable, Text: "read the boot selection", Err: err}
		}
		s.setSelection(sel)
		s.repairSelector()
	}
	if rec == nil {
		return s.begun(ctx, sel, lost)
	}
	s.cfg.adopt(rec)
	s.publish(rec)
	s.checkConfig(rec)
	return s.settle(ctx, s.find(s.record(), sel), nil)
}

// find relates record, boot and selector to each other.
func (s *Service) find(r *record, sel Selection) situation {
	running := s.cfg.Boot.Bank
	sit := situation{bank: running, sel: sel, settled: r.Settled == s.cfg.Boot.ID, finding: finding{
		state: stateOfBank(r, s.cfg.Components), runs: oldBank, def: defaultOther,
		armed: notArmed, same: answerOf(r.BootID == s.cfg.Boot.ID), asked: rebootUnused}}
	switch {
	case sel.Trial != NoBank && sel.Trial != running:
		sit.armed = isArmed
	case r.Trial != nil && r.Trial.Arming:
		sit.armed = maybeArmed
	}
	switch sel.Default {
	case NoBank:
		sit.def = defaultNone
	case running:
		sit.def = defaultRuns
	}
	switch {
	case r.Trial != nil && r.Trial.Bank == running:
		sit.runs = newBank
	case r.Trial == nil && slices.ContainsFunc(s.cfg.Components, func(c Component) bool { return !c.Live && r.Components[c.Name].Active != running.Index() }):
		sit.runs = newBank
	}
	asked, in := r.Return != "", r.Return
	if r.Trial != nil {
		asked, in = r.Trial.Rebooted, r.Trial.Asked
	}
	switch {
	case asked && in == s.cfg.Boot.ID:
		sit.asked = rebootPending
	case asked:
		sit.asked = rebootUsed
	}
	return sit
}

func answerOf(b bool) answer {
	if b {
		return isYes
	}
	return isNo
}

// settle looks at the heads if the choice of the rule needs them, and carries the rule out. lost is
// why there was no record before.
func (s *Service) settle(ctx context.Context, sit situation, lost error) error {
	if s.cfg.Selector == nil {
		return s.run(ctx, plan{do: append(s.withoutBank(sit, lost), stamp{})})
	}
	if sit.other = otherStartable; sit.decidesOther() {
		sit.other = s.lookAtOther(ctx, s.record())
	}
	return s.carryOut(ctx, sit, lost)
}

// withoutBank is the start on a device whose components are all live.
func (s *Service) withoutBank(sit situation, lost error) []effect {
	if lost != nil {
		return s.effects(recordFirst, s.record(), sit, lost)
	}
	return s.judgeRest(s.record(), sit)
}

// carryOut carries out the rule for a finding.
func (s *Service) carryOut(ctx context.Context, sit situation, lost error) error {
	found, err := judge(sit.finding)
	if err != nil {
		return err
	}
	if !found.end.untouched() {
		err = s.run(ctx, plan{do: s.planned(found, sit, lost)})
	}
	if err != nil {
		return err
	}
	s.setEnding(found.end)
	return s.refusal(found.end, sit)
}

// planned are the effects of a rule.
func (s *Service) planned(found rule, sit situation, lost error) []effect {
	r := s.record()
	var out []effect
	for _, st := range found.do {
		out = append(out, s.effects(st, r, sit, lost)...)
	}
	if lost == nil {
		out = append(out, s.judgeRest(r, sit)...)
	}
	out = append(out, stamp{})
	back, boot := sit.bank.Other(), s.cfg.Boot.ID
	switch found.end {
	case rebootOnce:
		out = append(out, confirm{Selection{Default: back}}, save{"REBOOTED", func(r *record) { r.Trial.Rebooted, r.Trial.Asked = true, boot }}, reboot{back})
	case returnOnce:
		out = append(out, confirm{Selection{Default: sit.bank, Trial: back}}, reboot{back})
	}
	return out
}

// giveUpOther takes the bank that does not run for one that cannot be started, because a client
// says so: the heads cannot prove it, so the service does not do it by itself. The running bank
// becomes the default, and the other one can be written.
func (s *Service) giveUpOther(ctx context.Context) error {
	defer s.inhibit(ctx, "the running bank is being kept")()
	var failed error
	err := s.reopen(ctx, func(ctx context.Context, p *problem) *problem {
		if p == nil || !s.bankStuck() { // another caller was faster
			return p
		}
		if failed = s.keepRunningBank(ctx); failed != nil {
			return p
		}
		return nil
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	return nil
}

func (s *Service) keepRunningBank(ctx context.Context) error {
	sel, err := s.cfg.Selector.Read()
	if err != nil && !errors.Is(err, ErrNoSelection) {
		return &Error{Status: StorageFailure, Reason: ReasonSelectorUnusable, Text: "read the boot selection", Err: err}
	}
	s.setSelection(sel)
	sit := s.find(s.record(), sel)
	sit.other = otherDead
	return s.carryOut(ctx, sit, nil)
}

// bankStuck tells that the service answers queries only because of the other bank, which a client
// can give up.
func (s *Service) bankStuck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && s.degraded != nil && s.ending.reason() == s.degraded.reason
}

func (s *Service) setEnding(e ending) {
	s.mu.Lock()
	s.ending = e
	s.mu.Unlock()
}

// refusal is why the service answers queries only, nil if it does not.
func (s *Service) refusal(end ending, sit situation) error {
	if end.reason() == "" {
		return nil
	}
	refused := refuse(NotPermitted, end.reason(), "")
	if end == unreadable || end == rollbackFailed && sit.other == otherUnreadable {
		refused.Status = StorageFailure // it is tried again
	}
	other := sit.bank.Other()
	switch {
	case end == returnOnce, end == returning:
		refused.Text = fmt.Sprintf("the boot variables were lost, and bank %s was started; a reboot was asked for that leads back to the accepted bank %s", sit.bank, other)
	case end == differs:
		refused.Text = fmt.Sprintf("bank %s is running, the boot selector has %q as default, and no trial explains it; reboot, or accept to keep the running bank", sit.bank, sit.sel.Default)
	case end == unreadable:
		refused.Text = fmt.Sprintf("the heads of bank %s cannot be read, and nothing is done until they can; accept keeps the running bank and gives bank %s up", other, other)
	case sit.asked != rebootUnused:
		refused.Text = stays(sit.bank, "one was, and this bank came up again; reboot to try again, or accept to keep the running bank").Text
	default:
		refused.Text = stays(sit.bank, "the heads of bank %s cannot be read; reboot to try again, or accept to keep the running bank", other).Text
	}
	return refused
}

// stays is why no reboot was asked for that would end the trial of a bank.
func stays(b Bank, format string, args ...any) *Error {
	return refuse(NotPermitted, ReasonRollbackFailed, "bank %s runs and should not, and no reboot was asked for: %s", b, fmt.Sprintf(format, args...))
}

// effects says how a step is done.
func (s *Service) effects(st step, r *record, sit situation, lost error) []effect {
	switch st {
	case keepRunning:
		return commitOnce(sit, sit.bank)
	case giveBack:
		return commitOnce(sit, sit.bank.Other())
	case beginTrial:
		return []effect{save{"TRIAL", s.tried}}
	case endAccepted:
		return []effect{save{"UPDATED", func(r *record) { s.tried(r); s.accepted(r) }}}
	case withdrawAccept:
		return []effect{save{"TRIAL", func(r *record) { r.Trial.Accepting = false }}}
	case breakTrial:
		return []effect{save{"REJECTED", s.trialBroken}}
	case sealOther:
		return s.sealTrial(r)
	case unstageOther:
		// the bootloader would have started the other bank, or have disarmed it
		bypassed := sit.armed == isArmed && sit.same == isNo
		return []effect{save{"CANDIDATE", func(r *record) { s.unstage(r, bypassed); s.stampRecord(r) }}}
	case destroyOther:
		return s.destroyTrial(r)
	case failRejected:
		return []effect{save{"FAILED", s.rejectedStaged}}
	case failNotBooted:
		return []effect{s.failed(evNotBooted, ReasonTrialNotBooted, "the new system was armed, and the old one came up again")}
	case failReset:
		return []effect{s.failed(evRolledBack, ReasonTrialReset, "the system was restarted before the trial was accepted")}
	case followRunning:
		return []effect{save{"other bank", s.follow}}
	case recordFirst:
		return []effect{s.first(lost, false)}
	case recordLostTrial:
		return []effect{s.first(lost, true)}
	case recordKeeping:
		return []effect{save{"KEEPING", s.keeping}}
	case failKept:
		return []effect{save{"FAILED", s.kept}}
	case recordReturn:
		return []effect{save{"RETURN", func(r *record) { r.Return = s.cfg.Boot.ID }}}
	case armOther:
		return []effect{commit{Selection{Default: sit.bank, Trial: sit.bank.Other()}, false}}
	case recordDisarm:
		return []effect{s.arming(true)}
	}
	if r.Trial.Arming { // keepArmed
		return []effect{s.arming(false)}
	}
	return nil
}

// keeping records that the new bank is given up, and kept.
func (s *Service) keeping(r *record) {
	s.trialBroken(r)
	r.Trial.Keeping = true
}

// kept ends the trial of a bank that was given up and goes on running, as there is no other one.
// The floors do not move: its images were not accepted.
func (s *Service) kept(r *record) {
	defer r.endTrial(r.Trial.Bank)
	for _, c := range s.cfg.Components {
		cr := r.Components[c.Name]
		if c.Live {
			continue
		}
		if cr.State.bound() {
			e, text := cr.Error, cr.Text
			if cr.State == Staged { // who rejected it gave the reason
				e, text = r.Trial.Error, r.Trial.Text
			}
			to := s.move(r, c, evKept)
			cr.remember(imageIn(cr, r.Trial.Bank).Digest)
			cr.Active = r.Trial.Bank.Index()
			cr.fail(to, e, ReasonRollbackFailed, fmt.Sprintf("%s; the image stays, as bank %s cannot be started", text, r.Trial.Bank.Other()))
		}
		cr.Active, cr.Carried = r.Trial.Bank.Index(), false
		if img := cr.Slots[cr.Active].Image; img != nil {
			img.Head = nil
		}
	}
	r.minor = max(r.minor, storeMinor)
	s.stampRecord(r)
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
	home := true
	for _, c := range s.cfg.Components {
		if cr := r.Components[c.Name]; c.Live || cr.Active == s.cfg.Boot.Bank.Index() {
			s.cfg.describe(c, cr)
		} else {
			home = false
		}
	}
	if home {
		r.Return = ""
	}
}

// commitOnce makes bank the default and disarms. Once per boot it does so even if that is so: the
// boot may have used up a part of the selection, as attempts that the bootloader counts, and
// nothing may be written to the other bank's slots before it is out of reach of the bootloader.
func commitOnce(sit situation, bank Bank) []effect {
	switch want := (Selection{Default: bank}); {
	case sit.sel != want:
		return []effect{commit{want, false}}
	case !sit.settled:
		return []effect{commit{want, true}}
	}
	return nil
}

// follow accepts that the other bank was booted by other means than ours: its images are the active
// ones now, and nothing is in preparation.
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

// trialBroken gives the new bank up: it was restarted before it was accepted.
func (s *Service) trialBroken(r *record) {
	for _, c := range s.cfg.Components {
		if cr := r.Components[c.Name]; !c.Live && cr.State == Trial {
			cr.set(s.move(r, c, evTrialBroken), GenericError, ReasonTrialReset, "the system was restarted before the trial was accepted")
		}
	}
	r.Trial.Accepting = false
}

// failed ends the trial of a bank that does not run.
func (s *Service) failed(e event, reason Reason, text string) save {
	return save{"FAILED", func(r *record) {
		s.dissolve(r, e, GenericError, reason, text)
		s.stampRecord(r)
	}}
}

// tried makes the new bank the active one.
func (s *Service) tried(r *record) {
	r.Trial.Arming = false
	for _, c := range s.cfg.Components {
		cr := r.Components[c.Name]
		if c.Live {
			continue
		}
		cr.Active = s.cfg.Boot.Bank.Index()
		if cr.State == Staged && !r.Trial.NoTrial {
			cr.set(s.move(r, c, evInstalled), Success, "", "")
		}
	}
	s.stampRecord(r)
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
		ours := c.Live || cr.Active == sit.bank.Index() && s.readOnlyBank() == nil
		if cr.State == Candidate && cr.next().Head != nil && ours {
			out = append(out, seal{c.ID, 1 - cr.Active, *cr.next().Head, true})
		}
	}
	if sit.same == isYes {
		return out
	}
	return append(out, save{"reboot", s.rebooted}, expire{})
}

// rebooted applies the effects of every boot: volatile staging ends, and with it the trial of a
// live component.
func (s *Service) rebooted(r *record) {
	for _, c := range s.cfg.Components {
		cr := r.Components[c.Name]
		if !c.Live && cr.State.bound() { // the rules of the bank decide over it
			continue
		}
		from, to := cr.State, s.move(r, c, evReboot)
		if to == from {
			continue
		}
		if from == Trial {
			cr.remember(cr.image().Digest)
			cr.Active = 1 - cr.Active
		}
		cr.fail(to, Success, "", "")
	}
	s.stampRecord(r)
}

// putLinkBack makes the link to a live component's active slot. The record names the slot by its
// identity, as a configuration may have another order. If the link had to be changed in the same
// boot, an install was cut short before the unit was restarted.
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

// initComponents sets the values that are kept in memory, and puts the links of live components
// back.
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
