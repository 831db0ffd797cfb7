package fwu

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Rejection is why an update is given up.
type Rejection struct {
	Error  Status // number that is reported as the components' error; 0: none
	Reason Reason // ReasonRejected, which is the default, ReasonTrialCheck or ReasonTrialDeadline
	Text   string // for people, MaxRejectText bytes at most; empty: the text of the reason
}

// MaxRejectText is how long the text of a Rejection may be, in bytes: it is kept in the record.
const MaxRejectText = 256

// complete fills in the parts that the client left out, and refuses those that cannot be recorded.
func (j Rejection) complete() (Rejection, error) {
	var text string
	switch j.Reason {
	case "", ReasonRejected:
		j.Reason, text = ReasonRejected, "rejected by the client"
	case ReasonTrialCheck:
		text = "a check of the new system failed"
	case ReasonTrialDeadline:
		text = "the new system was not accepted in time"
	default:
		return j, refuse(InvalidArgument, ReasonRejection, "reject: %q is not a reason to reject for", j.Reason)
	}
	if len(j.Text) > MaxRejectText || !utf8.ValidString(j.Text) || strings.ContainsFunc(j.Text, unicode.IsControl) {
		return j, refuse(InvalidArgument, ReasonRejection, "reject: the text must be one line of UTF-8 with %d bytes at most", MaxRejectText)
	}
	if j.Text == "" {
		j.Text = text
	}
	return j, nil
}

// Reject is psa_fwu_reject (section 5.6.3). Query tells the reason of the components in
// REJECTED and FAILED, in the previous system too. Where the previous bank cannot be started, a
// bank in trial stays, and is FAILED: the answer is Success, as there is nothing to reboot into.
func (s *Service) Reject(ctx context.Context, why Rejection) (Status, error) {
	why, err := why.complete()
	if err != nil {
		return 0, err
	}
	if err := s.healthy(ctx); err != nil {
		return 0, err
	}
	if err := s.install.take(ctx); err != nil {
		return 0, err
	}
	defer s.install.give()
	// both only where the new bank's configuration does not know a member as such: it is TRIAL then
	rejected := append(s.inState(Trial), s.inState(Staged)...)
	if len(rejected) == 0 {
		return 0, refuse(BadState, ReasonState, "reject: no component is STAGED or TRIAL: a candidate is given up by cancel")
	}
	members := rejected
	for _, c := range s.stagedMembers(s.record()) {
		if !slices.Contains(members, c) {
			members = append(members, c) // it was carried over
		}
	}
	for _, c := range members {
		if err := c.op.take(ctx); err != nil {
			return 0, err
		}
		defer c.op.give()
	}
	for _, c := range rejected {
		if p := s.readOnly(c); c.Live && p != nil { // the image before may not be there
			return 0, p.refusal("reject: %s is read-only", c.Name)
		}
	}
	first := rejected[0]
	_, status, err := s.variant(first.Component).next(s.record().Components[first.Name].State, evReject)
	if err != nil {
		return 0, err
	}
	p := s.rejection(rejected, why)
	if status == SuccessReboot && s.lookAtOther(ctx, s.record())&gone != 0 {
		p, status = s.rejectKept(why), Success
	}
	defer s.inhibit(ctx, "an update is being rejected")()
	if err := s.run(ctx, p); err != nil {
		return 0, fmt.Errorf("reject: %w", err)
	}
	s.giveUpStaged(members)
	return status, nil
}

// rejection is the plan to reject these components: a bank that is STAGED or in TRIAL, or live
// components in TRIAL.
func (s *Service) rejection(rejected []*component, why Rejection) plan {
	r := s.record()
	switch {
	case r.Trial == nil:
		return s.rejectLive(rejected, why)
	case stateOfBank(r, s.cfg.Components)&(staged|sure|rejecting) != 0:
		return s.rejectStaged(why)
	}
	return s.rejectTrial(why)
}

// rejectStaged records the reject before the bank is disarmed: a cut in between would make the
// image one that was armed and did not come up, which counts as a failed trial.
func (s *Service) rejectStaged(why Rejection) plan {
	p := plan{
		do: []effect{save{"REJECTING", func(r *record) {
			r.Trial.Rejecting, r.Trial.Error, r.Trial.Reason, r.Trial.Text = true, why.Error, why.Reason, why.Text
		}}, commit{Selection{Default: s.cfg.Boot.Bank}, false}},
	}
	p.do = append(p.do, s.finishReject(s.record())...)
	return p
}

// finishReject completes a reject that the record has: the images are destroyed before their
// components are FAILED.
func (s *Service) finishReject(r *record) []effect {
	return append(s.destroyTrial(r), save{"FAILED", s.rejectedStaged})
}

// rejectedStaged ends a STAGED bank with the error that was recorded.
func (s *Service) rejectedStaged(r *record) {
	why := Rejection{r.Trial.Error, r.Trial.Reason, r.Trial.Text}
	if why.Reason == "" { // recorded by a version that had one reason only
		why.Reason, why.Text = ReasonRejected, "rejected by the client"
	}
	s.dissolve(r, evReject, why.Error, why.Reason, why.Text)
	s.stampRecord(r)
}

func (s *Service) rejectTrial(why Rejection) plan {
	old := s.record().Trial.Bank.Other()
	return plan{
		do: []effect{
			save{"REJECTED", func(r *record) {
				s.each(r, Trial, func(cr *componentRecord) { cr.set(Rejected, why.Error, why.Reason, why.Text) })
			}},
			commit{Selection{Default: old}, false},
		},
		undo: []effect{save{"TRIAL", func(r *record) { s.each(r, Rejected, func(cr *componentRecord) { cr.set(Trial, Success, "", "") }) }}},
	}
}

// rejectKept rejects a bank in trial that there is no way back from: the old bank cannot be
// started, so that the running one stays.
func (s *Service) rejectKept(why Rejection) plan {
	p := s.rejectTrial(why)
	return plan{
		do: []effect{
			save{"KEEPING", func(r *record) {
				s.each(r, Trial, func(cr *componentRecord) { cr.set(Rejected, why.Error, why.Reason, why.Text) })
				r.Trial.Keeping = true
			}},
			commit{Selection{Default: s.cfg.Boot.Bank}, false},
			save{"FAILED", s.kept},
		},
		undo: append([]effect{disarm{s.cfg.Boot.Bank.Other()}, save{"REJECTED", func(r *record) { r.Trial.Keeping = false }}}, p.undo...),
	}
}

// destroyTrial destroys the heads of the bank in trial: of the images that were installed, and of
// those that were carried over.
func (s *Service) destroyTrial(r *record) []effect {
	var out []effect
	for _, c := range s.components {
		if cr := r.Components[c.Name]; !c.Live && (cr.State.bound() || cr.Carried) {
			out = append(out, destroy{c.ID, r.Trial.Bank.Index(), true})
		}
	}
	return out
}

// dissolve ends a trial without success: its members become READY or FAILED, as e says, and copies
// that were carried over become nothing again.
func (s *Service) dissolve(r *record, e event, status Status, reason Reason, text string) {
	defer r.endTrial(r.Trial.Bank.Other())
	old := r.Trial.Bank.Other().Index()
	for _, c := range s.components {
		cr := r.Components[c.Name]
		if c.Live {
			continue
		}
		if cr.State.bound() {
			to := s.move(r, c.Component, e)
			if e == evNotBooted || e == evRolledBack {
				cr.remember(imageIn(cr, r.Trial.Bank).Digest)
			}
			st, rs, tx := status, reason, text
			if cr.State == Rejected { // who rejected it gave the reason
				st, rs, tx = cr.Error, cr.Reason, cr.Text
			}
			cr.Active = old
			cr.fail(to, st, rs, tx)
		}
		cr.Active = old
		if cr.Carried {
			cr.Carried, cr.second().Image = false, nil
		}
	}
}
