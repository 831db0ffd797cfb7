package fwu

import (
	"fmt"
	"slices"
	"strings"
)

// The bank's state machine. A start of the service turns the record, the boot, the selector and the
// heads of the other bank into a finding. Exactly one rule matches a finding, and names the steps
// that bring the three into agreement. This file decides and does nothing; reconcile.go looks and
// acts. The table in docs/design.md is made from the rules.

// finding describes the device at a start of the service. In a finding each field is one value; in
// a rule it is the set of the values that the rule is for, and zero stands for all of them.
type finding struct {
	state bankState
	runs  runningBank
	def   defaultBank
	armed armedBank
	same  answer // the record was last reconciled in this boot: the service was restarted, not the system
	other otherBank
	asked rebootAsked
}

// bankState is the state of the bank as a whole, by the record.
type bankState uint16

const (
	unrecorded bankState = 1 << iota // there is no record
	idle                             // nothing is installed that waits for a boot or a decision
	staged                           // STAGED, and a trial begins with the first start
	sure                             // STAGED, and no trial is needed
	rejecting                        // STAGED, and a reject is recorded
	onTrial                          // TRIAL
	accepting                        // TRIAL, and an accept is recorded
	rejected                         // REJECTED by a client, which asks for the reboot itself
	broken                           // REJECTED by a check or by a start of the service
	keeping                          // given up, and kept for lack of a bank to go back to
)

// runningBank relates the running bank to the record: the new bank is the one that is in trial.
// Where none is, the old bank is the recorded one, and the new bank is any other.
type runningBank uint8

const (
	oldBank runningBank = 1 << iota
	newBank
)

// defaultBank is which bank the selector has as default.
type defaultBank uint8

const (
	defaultNone defaultBank = 1 << iota // the selector holds nothing valid
	defaultRuns
	defaultOther
)

// armedBank tells whether the bank that does not run is armed for one start.
type armedBank uint8

const (
	notArmed armedBank = 1 << iota // it was used up, or never armed
	isArmed
	maybeArmed // it is not, and the record says that it was being armed or disarmed
)

// answer is yes or no.
type answer uint8

const (
	isNo answer = 1 << iota
	isYes
)

// otherBank is the state of the bank that does not run, by its heads.
type otherBank uint8

const (
	otherStartable  otherBank = 1 << iota
	otherSealed               // at least one head is masked: the bank was never armed
	otherDead                 // its heads were read, and at least one cannot be started
	otherUnreadable           // nothing is known: this proves neither
)

// rebootAsked is the state of the one automatic reboot that leads back to the other bank.
type rebootAsked uint8

const (
	rebootUnused  rebootAsked = 1 << iota
	rebootPending             // it was asked for in this boot
	rebootUsed                // it was asked for in an earlier boot
)

// step is one thing that a rule does. Service.effects says how.
type step uint8

const (
	keepRunning     step = iota // default = running bank, nothing armed
	giveBack                    // default = other bank, nothing armed
	keepArmed                   // the selection stays: the other bank is armed
	beginTrial                  // record TRIAL
	endAccepted                 // record UPDATED, and raise the floors
	withdrawAccept              // record that the accept was not carried out
	breakTrial                  // record REJECTED, trial-reset
	sealOther                   // mask the heads of the bank that was staged
	unstageOther                // record CANDIDATE
	destroyOther                // destroy the heads of the bank in trial
	failRejected                // record FAILED, with the client's error
	failNotBooted               // record FAILED, trial-not-booted
	failReset                   // record FAILED, trial-reset or the recorded error
	followRunning               // record READY, with the running bank as the active one
	recordFirst                 // record READY, from the release record
	recordLostTrial             // record REJECTED, record-lost
	recordKeeping               // record that the running bank is kept
	failKept                    // record FAILED, with the running bank as the active one
	recordReturn                // record that a reboot into the accepted bank is asked for
	armOther                    // default = running bank, and the other one armed for one start
	recordDisarm                // record that the other bank is being disarmed
)

func (s step) String() string {
	return [...]string{"default = running bank", "default = other bank", "stays armed", "TRIAL", "UPDATED",
		"take ACCEPTING back", "REJECTED", "seal the other bank", "CANDIDATE",
		"destroy the other bank's heads", "FAILED (client's error)", "FAILED (trial-not-booted)",
		"FAILED (trial-reset, or its error)", "the running bank is the active one, READY",
		"READY from the release record", "REJECTED (record-lost)",
		"record that the running bank is kept", "FAILED (rollback-failed), the running bank stays",
		"record the reboot", "default = running bank, other armed",
		"record that it is disarmed"}[s]
}

// ending is how a start goes on after the steps.
type ending uint8

const (
	serve          ending = iota
	rebootOnce            // record the one automatic reboot out of a trial, and ask for it
	returnOnce            // ask for the reboot into the accepted bank, which was recorded
	returning             // queries only, until that reboot
	rollbackFailed        // queries only: the way back is not open
	differs               // queries only, and not even the boot is recorded
	unreadable            // the same, until the heads of the other bank can be read
)

func (e ending) String() string {
	return [...]string{"", "**reboot, once**", "**reboot, once**",
		"wait for the reboot", "queries only: rollback-failed",
		"queries only: default-bank-differs", "queries only: medium-error"}[e]
}

// reason is why the service answers queries only after that ending, empty if it serves.
func (e ending) reason() Reason {
	switch e {
	case rollbackFailed:
		return ReasonRollbackFailed
	case differs, returnOnce, returning:
		return ReasonDefaultDiffers
	case unreadable:
		return ReasonMedium
	}
	return ""
}

// untouched tells that nothing at all is done, and that not even the boot is recorded.
func (e ending) untouched() bool { return e == differs || e == unreadable || e == returning }

// rule is a row of the bank's state machine.
type rule struct {
	finding
	do  []step
	end ending
}

// Sets of values that rules share.
const (
	inTrial    = staged | sure | rejecting | onTrial | accepting | rejected | broken | keeping
	asStaged   = staged | sure
	asTrial    = onTrial | accepting
	asRejected = rejected | broken
	notOther   = defaultNone | defaultRuns
	gone       = otherSealed | otherDead
	notGone    = otherStartable | otherUnreadable
	unarmed    = notArmed | maybeArmed
)

// bankRules is the bank's state machine. The order of the rows means nothing: exactly one matches.
func bankRules() []rule {
	rules := slices.Concat(idleRules(), newBankRules())
	for _, r := range oldBankRules() {
		if r.runs = oldBank; r.def != 0 {
			rules = append(rules, r)
			continue
		}
		r.def = notOther
		rules = append(rules, r)
		// A default bank that cannot be started is none.
		if r.def, r.other = defaultOther, narrow(r.other, gone); r.other != 0 {
			rules = append(rules, r)
		}
	}
	return append(rules,
		rule{finding{state: inTrial, runs: oldBank, def: defaultOther, other: notGone}, nil, differs})
}

func narrow(set, to otherBank) otherBank {
	if set == 0 {
		return to
	}
	return set & to
}

// idleRules are for a device without a record, or without a trial.
func idleRules() []rule {
	return []rule{
		{finding{state: unrecorded, def: notOther}, []step{keepRunning, recordFirst}, serve},
		{finding{state: unrecorded, def: defaultOther, other: gone},
			[]step{keepRunning, recordFirst}, serve},
		{finding{state: unrecorded, def: defaultOther, other: otherStartable},
			[]step{recordLostTrial, giveBack}, rebootOnce},
		{finding{state: unrecorded, def: defaultOther, other: otherUnreadable},
			[]step{recordLostTrial, giveBack}, rollbackFailed},

		{finding{state: idle, runs: oldBank, def: notOther}, []step{keepRunning}, serve},
		{finding{state: idle, runs: oldBank, def: defaultOther, other: gone},
			[]step{keepRunning}, serve},
		{finding{state: idle, runs: oldBank, def: defaultOther, other: notGone, asked: rebootUnused},
			nil, differs},
		// The reboot into the accepted bank succeeded.
		{finding{state: idle, runs: oldBank, def: defaultOther, other: notGone, asked: rebootPending | rebootUsed},
			[]step{keepRunning}, serve},

		// The boot variables are lost, and the bootloader took a bank that is not the accepted one.
		// That is armed for one start. It becomes the default when it runs.
		{finding{state: idle, runs: newBank, def: defaultNone, other: otherStartable, asked: rebootUnused | rebootPending},
			[]step{recordReturn, armOther}, returnOnce},
		{finding{state: idle, runs: newBank, def: defaultNone, other: otherStartable, asked: rebootUsed},
			[]step{keepRunning, followRunning}, serve},
		{finding{state: idle, runs: newBank, def: defaultRuns, armed: isArmed, other: notGone, asked: rebootPending},
			nil, returning},
		{finding{state: idle, runs: newBank, def: defaultRuns, armed: isArmed, other: gone, asked: rebootPending},
			[]step{keepRunning, followRunning}, serve},
		// Somebody made the running bank the default.
		{finding{state: idle, runs: newBank, def: defaultRuns, armed: unarmed, asked: rebootPending},
			[]step{keepRunning, followRunning}, serve},
		{finding{state: idle, runs: newBank, def: defaultRuns, asked: rebootUnused | rebootUsed},
			[]step{keepRunning, followRunning}, serve},
		{finding{state: idle, runs: newBank, def: defaultNone, other: otherUnreadable}, nil, unreadable},
		{finding{state: idle, runs: newBank, def: defaultNone | defaultOther, other: gone},
			[]step{keepRunning, followRunning}, serve},
		// The recorded bank is the default, and was not started.
		{finding{state: idle, runs: newBank, def: defaultOther, other: notGone}, nil, differs},
	}
}

// newBankRules are for the bank in trial, when it runs.
func newBankRules() []rule {
	rules := []rule{
		{finding{state: staged}, []step{beginTrial, giveBack}, serve},
		{finding{state: sure}, []step{keepRunning, endAccepted}, serve},
		{finding{state: asTrial, def: defaultRuns}, []step{keepRunning, endAccepted}, serve},
		{finding{state: onTrial, def: defaultNone | defaultOther, same: isYes}, []step{giveBack}, serve},
		{finding{state: accepting, def: defaultNone | defaultOther, same: isYes},
			[]step{giveBack, withdrawAccept}, serve},
		// The client that rejected it asks for the reboot.
		{finding{state: rejected, same: isYes, other: otherStartable, asked: rebootUnused | rebootPending},
			[]step{giveBack}, serve},
		{finding{state: rejected, same: isYes, other: otherUnreadable, asked: rebootPending},
			[]step{giveBack}, serve},
		{finding{state: rejected, same: isYes, other: otherUnreadable, asked: rebootUnused},
			[]step{giveBack}, rollbackFailed},
		{finding{state: rejected, same: isYes, other: notGone, asked: rebootUsed},
			[]step{giveBack}, rollbackFailed},
		// There is nothing to go back to: the bank that runs is kept.
		{finding{state: rejecting | asRejected, other: gone},
			[]step{recordKeeping, keepRunning, failKept}, serve},
		{finding{state: keeping}, []step{keepRunning, failKept}, serve},
	}
	for _, lost := range []rule{
		{finding: finding{state: rejecting | broken}, do: []step{giveBack}},
		{finding: finding{state: rejected, same: isNo}, do: []step{giveBack}},
		{finding: finding{state: asTrial, def: defaultNone | defaultOther, same: isNo},
			do: []step{giveBack, breakTrial}},
	} {
		for _, way := range []struct {
			other otherBank
			asked rebootAsked
			end   ending
		}{
			{otherStartable, rebootUnused, rebootOnce},
			{otherUnreadable, rebootUnused, rollbackFailed},
			{notGone, rebootPending, serve},
			{notGone, rebootUsed, rollbackFailed},
		} {
			r := lost
			r.other, r.asked, r.end = way.other, way.asked, way.end
			rules = append(rules, r)
		}
	}
	rules = append(rules, rule{
		finding{state: asTrial, def: defaultNone | defaultOther, same: isNo, other: gone},
		[]step{recordKeeping, keepRunning, failKept}, serve})
	for i := range rules {
		rules[i].runs = newBank
	}
	return rules
}

// oldBankRules are for the old bank, when it runs: the installed bank was not started, or was left.
func oldBankRules() []rule {
	candidate := []step{keepRunning, sealOther, unstageOther}
	disarmed := append([]step{recordDisarm}, candidate...)
	return []rule{
		{finding{state: rejecting}, []step{keepRunning, destroyOther, failRejected}, serve},
		{finding{state: asStaged, def: notOther, armed: isArmed, same: isYes}, []step{keepArmed}, serve},
		{finding{state: asStaged, def: defaultOther, armed: isArmed, same: isYes, other: gone}, disarmed, serve},
		{finding{state: asStaged, armed: isArmed, same: isNo}, disarmed, serve},
		// It was perhaps never started.
		{finding{state: asStaged, armed: maybeArmed, same: isNo}, candidate, serve},
		{finding{state: asStaged, armed: unarmed, same: isYes}, candidate, serve},
		{finding{state: asStaged, armed: notArmed, same: isNo, other: otherSealed}, candidate, serve},
		{finding{state: asStaged, armed: notArmed, same: isNo, other: otherStartable | otherDead},
			[]step{keepRunning, destroyOther, failNotBooted}, serve},
		// An image that cannot be read is not one that was started and failed: it is left as it is.
		{finding{state: asStaged, armed: notArmed, same: isNo, other: otherUnreadable}, nil, unreadable},
		{finding{state: asTrial | asRejected | keeping},
			[]step{keepRunning, destroyOther, failReset}, serve},
	}
}

// contains tells whether the finding g is one of those that the sets of f stand for.
func (f finding) contains(g finding) bool {
	in := func(set, v uint16) bool { return set == 0 || set&v != 0 }
	return in(uint16(f.state), uint16(g.state)) && in(uint16(f.runs), uint16(g.runs)) &&
		in(uint16(f.def), uint16(g.def)) && in(uint16(f.armed), uint16(g.armed)) &&
		in(uint16(f.same), uint16(g.same)) && in(uint16(f.other), uint16(g.other)) &&
		in(uint16(f.asked), uint16(g.asked))
}

// matching returns the rules for a finding. There is exactly one, or the table is wrong.
func matching(f finding) []rule {
	var out []rule
	for _, r := range bankRules() {
		if r.contains(f) {
			out = append(out, r)
		}
	}
	return out
}

// judge returns the rule for a finding.
func judge(f finding) (rule, error) {
	found := matching(f)
	if len(found) != 1 {
		return rule{}, &Error{Status: GenericError, Reason: ReasonReconcile,
			Text: fmt.Sprintf("%d rules for %s", len(found), f)}
	}
	return found[0], nil
}

// decidesOther tells whether the heads of the other bank decide which rule is for f. Where they do
// not, a start does not read them.
func (f finding) decidesOther() bool {
	seen := ""
	for v := otherStartable; v <= otherUnreadable; v <<= 1 {
		f.other = v
		r, err := judge(f)
		if err != nil {
			return true
		}
		if outcome := r.outcome(); seen == "" {
			seen = outcome
		} else if outcome != seen {
			return true
		}
	}
	return false
}

// outcome describes a rule for people.
func (r rule) outcome() string {
	var out []string
	for _, s := range r.do {
		out = append(out, s.String())
	}
	if r.end != serve {
		out = append(out, r.end.String())
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, "; ")
}

// columns are the values of a finding, or of a rule, for people; "" stands for any.
func (f finding) columns() []string {
	return []string{
		words(uint16(f.state), "none", "READY etc.", "STAGED", "STAGED, no trial",
			"STAGED, reject recorded", "TRIAL", "TRIAL, ACCEPTING", "REJECTED by the client", "REJECTED",
			"kept"),
		words(uint16(f.runs), "old", "new"),
		words(uint16(f.def), "none", "running", "other"),
		words(uint16(f.armed), "no", "yes", "perhaps"),
		words(uint16(f.same), "no", "yes"),
		words(uint16(f.other), "startable", "sealed", "dead", "unreadable"),
		words(uint16(f.asked), "unused", "asked", "used"),
	}
}

// headings name the columns.
func headings() []string {
	return []string{"record", "running bank", "default", "other armed", "same boot", "other bank", "reboot"}
}

func words(set uint16, names ...string) string {
	var out []string
	for i, n := range names {
		if set&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return strings.Join(out, " / ")
}

func (f finding) String() string {
	var out []string
	for i, c := range f.columns() {
		out = append(out, headings()[i]+": "+c)
	}
	return strings.Join(out, ", ")
}

// stateOfBank derives the bank's state from the record. A member that is still STAGED beside others
// is one that the new bank's configuration does not know.
func stateOfBank(r *record, components []Component) bankState {
	switch {
	case r == nil:
		return unrecorded
	case r.Trial == nil:
		return idle
	}
	st := Ready
	var reason Reason
	for _, c := range components {
		cr := r.Components[c.Name]
		if c.Live || !cr.State.bound() {
			continue
		}
		if st = cr.State; st == Rejected {
			reason = cr.Reason
		}
		if st != Staged {
			break
		}
	}
	switch t := r.Trial; {
	case t.Keeping:
		return keeping
	case st == Staged && t.Rejecting:
		return rejecting
	case st == Staged && t.NoTrial:
		return sure
	case st == Staged:
		return staged
	case st == Trial && t.Accepting:
		return accepting
	case st == Trial:
		return onTrial
	case st == Rejected && reason == ReasonRejected:
		return rejected
	}
	return broken // or a trial without members: it is ended like one
}
