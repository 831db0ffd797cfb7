package fwu

import "errors"

// variant is what appendix C of the specification distinguishes.
type variant struct {
	live     bool // needs no reboot
	trial    bool
	volatile bool
}

type event uint8

// Events: the calls of the API, what a check can find, and what a boot can turn out to be.
const (
	evStart event = iota
	evWrite
	evFinish
	evInvalid // manifest or image failed a check
	evCancel
	evClean
	evInstall
	evInstallFailed // a live component's unit does not run with the new image
	evAccept
	evReject
	evReboot      // any boot
	evInstalled   // STAGED, and the new bank was booted
	evNotBooted   // STAGED and armed, and the old bank was booted
	evNotArmed    // STAGED, and the bootloader never learnt of it
	evRolledBack  // TRIAL or REJECTED, and the old bank was booted
	evTrialBroken // TRIAL, and the new bank was booted again although it is not the default
	evKept        // the new bank was given up, and there is none to go back to
)

func (e event) String() string {
	return [...]string{"start", "write", "finish", "invalid", "cancel", "clean", "install", "install failed", "accept", "reject",
		"reboot", "installed", "not booted", "not armed", "rolled back", "trial broken", "kept"}[e]
}

// set is a set of booleans: which values of a variant's property a row is for.
type set uint8

const (
	no set = 1 << iota
	yes
	any2 = no | yes
)

func (s set) has(b bool) bool {
	if b {
		return s&yes != 0
	}
	return s&no != 0
}

// transition is a row of the state machine.
type transition struct {
	live, trial, volatile set
	from                  State
	on                    event
	to                    State
	status                Status
}

// transitions is the state machine: figures 7 and 9 to 15 of the specification, with the rules of section 4.2.4 for failed checks, and
// the choices that it leaves to an implementation: with non-volatile staging WRITING, FAILED and UPDATED survive a reboot.
// An event without a row is BAD_STATE for a call, and a mistake of ours for anything else.
func transitions() []transition {
	return []transition{
		{any2, any2, any2, Ready, evStart, Writing, Success},
		{any2, any2, any2, Writing, evWrite, Writing, Success},
		{any2, any2, any2, Writing, evFinish, Candidate, Success},
		{any2, any2, any2, Writing, evInvalid, Failed, Success},
		{any2, any2, any2, Candidate, evInvalid, Failed, Success},
		{any2, any2, any2, Writing, evCancel, Failed, Success},
		{any2, any2, any2, Candidate, evCancel, Failed, Success},
		{any2, any2, any2, Failed, evClean, Ready, Success},
		{any2, any2, any2, Updated, evClean, Ready, Success},

		{no, any2, any2, Candidate, evInstall, Staged, SuccessReboot},
		{yes, yes, any2, Candidate, evInstall, Trial, Success},
		{yes, no, any2, Candidate, evInstall, Updated, Success},
		{yes, yes, any2, Trial, evInstallFailed, Failed, Success},
		{yes, no, any2, Updated, evInstallFailed, Failed, Success},

		// What is TRIAL is on trial, whatever the configuration of the bank that is running says of it.
		{any2, any2, any2, Trial, evAccept, Updated, Success},
		{no, any2, any2, Staged, evReject, Failed, Success},
		{no, any2, any2, Trial, evReject, Rejected, SuccessReboot},
		{yes, any2, any2, Trial, evReject, Failed, Success},

		{any2, any2, yes, Writing, evReboot, Ready, Success},
		{any2, any2, yes, Candidate, evReboot, Ready, Success},
		{any2, any2, yes, Failed, evReboot, Ready, Success},
		{any2, any2, yes, Updated, evReboot, Ready, Success},
		{yes, any2, yes, Trial, evReboot, Ready, Success},
		{any2, any2, any2, Ready, evReboot, Ready, Success},
		{any2, any2, no, Writing, evReboot, Writing, Success},
		{any2, any2, no, Candidate, evReboot, Candidate, Success},
		{any2, any2, no, Failed, evReboot, Failed, Success},
		{any2, any2, no, Updated, evReboot, Updated, Success},
		{yes, any2, no, Trial, evReboot, Trial, Success},
		// A member of the bank in trial that this configuration calls live waits for the end of the
		// trial.
		{yes, any2, any2, Staged, evReboot, Staged, Success},
		{yes, any2, any2, Rejected, evReboot, Rejected, Success},

		{no, yes, any2, Staged, evInstalled, Trial, Success},
		{no, no, no, Staged, evInstalled, Updated, Success},
		{no, no, yes, Staged, evInstalled, Ready, Success},
		{no, any2, no, Staged, evNotBooted, Failed, Success},
		{no, any2, yes, Staged, evNotBooted, Ready, Success},
		{no, any2, no, Staged, evNotArmed, Candidate, Success},
		{no, any2, yes, Staged, evNotArmed, Ready, Success},
		{no, any2, any2, Trial, evTrialBroken, Rejected, SuccessReboot},
		{no, any2, no, Staged, evKept, Failed, Success},
		{no, any2, yes, Staged, evKept, Ready, Success},
		{no, any2, no, Rejected, evKept, Failed, Success},
		{no, any2, yes, Rejected, evKept, Ready, Success},
		{no, any2, no, Staged, evRolledBack, Failed, Success}, // of a member that the bank in trial did not know
		{no, any2, yes, Staged, evRolledBack, Ready, Success},
		{no, any2, no, Trial, evRolledBack, Failed, Success},
		{no, any2, yes, Trial, evRolledBack, Ready, Success},
		{no, any2, no, Rejected, evRolledBack, Failed, Success},
		{no, any2, yes, Rejected, evRolledBack, Ready, Success},
	}
}

// next returns the state that event e makes of state from, and the status of the call. The error is
// BAD_STATE where the table has no row.
func (v variant) next(from State, e event) (to State, status Status, err error) {
	for _, t := range transitions() {
		if t.from == from && t.on == e && t.live.has(v.live) && t.trial.has(v.trial) && t.volatile.has(v.volatile) {
			return t.to, t.status, nil
		}
	}
	return from, BadState, refuse(BadState, ReasonState, "%s: not in %s", e, from)
}

// move returns the state that event e makes of component c in r. Where the table has no row, r
// cannot be saved.
func (s *Service) move(r *record, c Component, e event) State {
	to, _, err := s.trialVariant(r, c).next(r.Components[c.Name].State, e)
	if err != nil {
		r.fault = errors.Join(r.fault, &Error{Status: GenericError, Reason: ReasonReconcile, Text: "component " + c.Name, Err: err})
	}
	return to
}

// bound tells that a component's bank waits for a boot, or for a decision, and must not be touched.
func (s State) bound() bool { return s == Staged || s == Trial || s == Rejected }
