package conformance

// several is a row of the table for devices with more than one component, whose manifests are detached.
//
// Components are written as letters: b needs a reboot, l does not; then t or n, with or without trial, and v or k, volatile or non-volatile (kept) staging. What
// is left open is run through, the same for all components; only restricts that.
// before and after are the components' states, as in figures.go, with | between states that are both permitted; script is as in script.go; names are the components that an error
// must name.
type several struct {
	components string
	only       string
	before     string
	script     string
	after      string
	names      string
	choice     choice
}

// severalGroup is a group of rows that rest on the same section of the specification.
type severalGroup struct {
	section string
	rows    []several
}

// severalGroups is the table for more than one component.
func severalGroups() []severalGroup {
	return []severalGroup{
		{"5.6.2 psa_fwu_install: atomically all that are CANDIDATE; 4.2.3: the others are not affected", []several{
			{"b b", "", "CANDIDATE CANDIDATE", "install = SUCCESS_REBOOT", "STAGED STAGED", "", ""},
			{"b b", "", "CANDIDATE READY", "install = SUCCESS_REBOOT", "STAGED READY", "", ""},
			{"b b b", "", "CANDIDATE READY CANDIDATE", "install = SUCCESS_REBOOT", "STAGED READY STAGED", "", ""},
			{"b l", "", "CANDIDATE READY", "install = SUCCESS_REBOOT", "STAGED READY", "", ""},
			{"b l", "", "CANDIDATE WRITING", "install = SUCCESS_REBOOT", "STAGED WRITING", "", ""},
			{"b l", "", "CANDIDATE FAILED", "install = SUCCESS_REBOOT", "STAGED FAILED!0", "", ""},
			{"b l", "", "CANDIDATE UPDATED'", "install = SUCCESS_REBOOT", "STAGED UPDATED'", "", ""},
			{"l l", "trial", "CANDIDATE CANDIDATE", "install = SUCCESS", "TRIAL' TRIAL'", "", ""},
			{"l l", "trial", "CANDIDATE READY", "install = SUCCESS", "TRIAL' READY", "", ""},
			{"l l", "trial", "CANDIDATE WRITING", "install = SUCCESS", "TRIAL' WRITING", "", ""},
			{"l l", "trial", "CANDIDATE FAILED", "install = SUCCESS", "TRIAL' FAILED!0", "", ""},
			{"l l", "trial", "CANDIDATE UPDATED'", "install = SUCCESS", "TRIAL' UPDATED'", "", ""},
			{"l l l", "no-trial", "CANDIDATE READY CANDIDATE", "install = SUCCESS", "UPDATED' READY UPDATED'", "", ""},
			{"lt ln", "", "CANDIDATE CANDIDATE", "install = SUCCESS", "TRIAL' UPDATED'", "", ""},
			{"l b", "trial", "CANDIDATE WRITING", "install = SUCCESS", "TRIAL' WRITING", "", ""},
			{"l b", "trial", "CANDIDATE FAILED", "install = SUCCESS", "TRIAL' FAILED!0", "", ""},
			{"l b", "trial", "CANDIDATE UPDATED'", "install = SUCCESS", "TRIAL' UPDATED'", "", ""},
			{"l b", "no-trial", "CANDIDATE WRITING", "install = SUCCESS", "UPDATED' WRITING", "", ""},
		}},
		{"5.6.2 psa_fwu_install: BAD_STATE if no component is CANDIDATE", []several{
			{"b b", "", "READY READY", "install = BAD_STATE", "READY READY", "", ""},
			{"b b", "", "WRITING FAILED", "install = BAD_STATE", "WRITING FAILED!0", "", ""},
			{"b l", "", "WRITING WRITING", "install = BAD_STATE", "WRITING WRITING", "", ""},
			{"l l", "", "UPDATED' FAILED", "install = BAD_STATE", "UPDATED' FAILED!0", "", ""},
		}},
		{"5.6.2 psa_fwu_install: BAD_STATE if any component is STAGED, TRIAL or REJECTED", []several{
			{"b l", "", "STAGED CANDIDATE", "install = BAD_STATE", "STAGED CANDIDATE", "", ""},
			{"b l", "trial", "TRIAL' CANDIDATE", "install = BAD_STATE", "TRIAL' CANDIDATE", "", ""},
			{"b l", "trial", "REJECTED' CANDIDATE", "install = BAD_STATE", "REJECTED'!e CANDIDATE", "", ""},
			{"l l", "trial", "TRIAL' CANDIDATE", "install = BAD_STATE", "TRIAL' CANDIDATE", "", ""},
			{"l b", "trial", "TRIAL' CANDIDATE", "install = BAD_STATE", "TRIAL' CANDIDATE", "", ""},
			{"b b", "", "STAGED STAGED", "install = BAD_STATE", "STAGED STAGED", "", ""},
			{"b b", "trial", "TRIAL' TRIAL'", "install = BAD_STATE", "TRIAL' TRIAL'", "", ""},
		}},
		{"5.6.2 psa_fwu_install: which combinations are supported is implementation defined; candidates stay", []several{
			{"b b", "", "CANDIDATE WRITING", "install = DEPENDENCY_NEEDED", "CANDIDATE WRITING", "2", choiceBank},
			{"b b", "", "CANDIDATE FAILED", "install = DEPENDENCY_NEEDED", "CANDIDATE FAILED!0", "2", choiceBank},
			{"b b", "", "WRITING CANDIDATE", "install = DEPENDENCY_NEEDED", "WRITING CANDIDATE", "1", choiceBank},
			{"b b", "trial", "CANDIDATE UPDATED'", "install = DEPENDENCY_NEEDED", "CANDIDATE UPDATED'", "2", choiceBank},
			{"bk bk", "no-trial", "CANDIDATE UPDATED'", "install = DEPENDENCY_NEEDED", "CANDIDATE UPDATED'", "2", choiceBank + ", " + choiceUpdated},
			{"b b b", "", "CANDIDATE WRITING FAILED", "install = DEPENDENCY_NEEDED", "CANDIDATE WRITING FAILED!0", "2 3", choiceBank},
			{"b b b", "", "CANDIDATE CANDIDATE WRITING", "install = DEPENDENCY_NEEDED", "CANDIDATE CANDIDATE WRITING", "3", choiceBank},
			{"b b", "", "CANDIDATE WRITING", "install = DEPENDENCY_NEEDED; 2:cancel; 2:clean; install = SUCCESS_REBOOT", "STAGED READY", "", choiceBank},
			{"b l", "", "CANDIDATE CANDIDATE", "install = NOT_PERMITTED", "CANDIDATE CANDIDATE", "", choiceBank},
			{"l b", "", "CANDIDATE CANDIDATE", "install = NOT_PERMITTED; cancel; install = SUCCESS_REBOOT", "FAILED!0 STAGED", "", choiceBank},
		}},
		{"5.6.1: while the bank is being installed none of its members can be prepared (NOT_PERMITTED)", []several{
			{"b b", "", "STAGED READY", "2:deliver; 2:start = NOT_PERMITTED", "STAGED READY", "", choiceBank},
			{"b b", "trial", "TRIAL' READY", "2:deliver; 2:start = NOT_PERMITTED", "TRIAL' READY", "", choiceBank},
			{"b b", "trial", "REJECTED' READY", "2:deliver; 2:start = NOT_PERMITTED", "REJECTED'!e READY", "", choiceBank},
			{"b b", "trial", "UPDATED' READY", "2:deliver; 2:start = SUCCESS", "UPDATED' WRITING", "", choiceBank},
			{"b b", "", "FAILED READY", "2:deliver; 2:start = SUCCESS", "FAILED!0 WRITING", "", ""},
			{"b b", "", "STAGED READY", "2:clean = BAD_STATE", "STAGED READY", "", ""},
			{"b b", "", "STAGED READY", "2:write 0 unit = BAD_STATE", "STAGED READY", "", ""},
			{"b b", "", "STAGED READY", "2:finish = BAD_STATE", "STAGED READY", "", ""},
			{"b b", "", "STAGED READY", "2:cancel = BAD_STATE", "STAGED READY", "", ""},
			{"b b", "", "STAGED READY", "start = BAD_STATE|INVALID_ARGUMENT", "STAGED READY", "", ""},
		}},
		{"5.6.1: these calls act on a single component; another's installation does not keep one that is independent from being prepared", []several{
			{"b l", "", "STAGED READY", "2:deliver; 2:start = SUCCESS", "STAGED WRITING", "", ""},
			{"b l", "trial", "TRIAL' READY", "2:deliver; 2:start = SUCCESS; 2:send = SUCCESS", "TRIAL' CANDIDATE", "", ""},
			{"b l", "trial", "REJECTED' WRITING", "2:send = SUCCESS", "REJECTED'!e CANDIDATE", "", ""},
			{"b l", "", "STAGED FAILED", "2:clean = SUCCESS", "STAGED READY", "", ""},
			{"b l", "", "STAGED UPDATED'", "2:clean = SUCCESS", "STAGED READY'", "", ""},
			{"b l", "", "STAGED CANDIDATE", "2:cancel = SUCCESS", "STAGED FAILED!0", "", ""},
			{"l b", "trial", "TRIAL' READY", "2:deliver; 2:start = SUCCESS; 2:send = SUCCESS", "TRIAL' CANDIDATE", "", ""},
			{"l l", "trial", "TRIAL' READY", "2:deliver; 2:start = SUCCESS", "TRIAL' WRITING", "", ""},
			{"l l", "trial", "TRIAL' FAILED", "2:clean = SUCCESS", "TRIAL' READY", "", ""},
			{"b b", "", "WRITING CANDIDATE", "2:cancel = SUCCESS", "WRITING FAILED!0", "", ""},
		}},
		{"5.6.3 psa_fwu_accept: all that are TRIAL, and only those", []several{
			{"b b", "trial", "TRIAL' TRIAL'", "accept = SUCCESS", "UPDATED' UPDATED'", "", ""},
			{"b b", "trial", "TRIAL' READY", "accept = SUCCESS", "UPDATED' READY", "", ""},
			{"l l", "trial", "TRIAL' TRIAL'", "accept = SUCCESS", "UPDATED' UPDATED'", "", ""},
			{"l l", "trial", "TRIAL' CANDIDATE", "accept = SUCCESS", "UPDATED' CANDIDATE", "", ""},
			{"lt ln", "", "TRIAL' UPDATED'", "accept = SUCCESS", "UPDATED' UPDATED'", "", ""},
			{"b l", "trial", "TRIAL' CANDIDATE", "accept = SUCCESS", "UPDATED' CANDIDATE", "", ""},
			{"l b", "trial", "TRIAL' WRITING", "accept = SUCCESS", "UPDATED' WRITING", "", ""},
			{"l b", "trial", "TRIAL' FAILED", "accept = SUCCESS", "UPDATED' FAILED!0", "", ""},
			{"b l", "trial", "STAGED CANDIDATE", "accept = BAD_STATE", "STAGED CANDIDATE", "", ""},
			{"b l", "trial non-volatile", "REJECTED' UPDATED'", "accept = BAD_STATE", "REJECTED'!e UPDATED'", "", choiceUpdated},
			{"b b", "trial", "WRITING CANDIDATE", "accept = BAD_STATE", "WRITING CANDIDATE", "", ""},
		}},
		{"5.6.2 psa_fwu_reject: all that are STAGED or TRIAL, and only those", []several{
			{"b b", "", "STAGED STAGED", "reject = SUCCESS", "FAILED!e FAILED!e", "", ""},
			{"b b", "", "STAGED READY", "reject = SUCCESS", "FAILED!e READY", "", ""},
			{"b b", "trial", "TRIAL' TRIAL'", "reject = SUCCESS_REBOOT", "REJECTED'!e REJECTED'!e", "", ""},
			{"b b", "trial", "TRIAL' READY", "reject = SUCCESS_REBOOT", "REJECTED'!e READY", "", ""},
			{"l l", "trial", "TRIAL' TRIAL'", "reject = SUCCESS", "FAILED!e FAILED!e", "", ""},
			{"l l", "trial", "TRIAL' CANDIDATE", "reject = SUCCESS", "FAILED!e CANDIDATE", "", ""},
			{"lt ln", "", "TRIAL' UPDATED'", "reject = SUCCESS", "FAILED!e UPDATED'", "", ""},
			{"b l", "", "STAGED CANDIDATE", "reject = SUCCESS", "FAILED!e CANDIDATE", "", ""},
			{"b l", "trial", "TRIAL' WRITING", "reject = SUCCESS_REBOOT", "REJECTED'!e WRITING", "", ""},
			{"l b", "trial", "TRIAL' CANDIDATE", "reject = SUCCESS", "FAILED!e CANDIDATE", "", ""},
			{"l b", "trial", "TRIAL' FAILED", "reject = SUCCESS", "FAILED!e FAILED!0", "", ""},
			{"b l", "trial", "REJECTED' CANDIDATE", "reject = BAD_STATE", "REJECTED'!e CANDIDATE", "", ""},
			{"b b", "", "CANDIDATE CANDIDATE", "reject = BAD_STATE", "CANDIDATE CANDIDATE", "", ""},
		}},
		{"4.6.2 Install components: all STAGED components or none", []several{
			{"b b", "trial", "STAGED STAGED", "reboot", "TRIAL' TRIAL'", "", ""},
			{"b b", "trial", "STAGED READY", "reboot", "TRIAL' READY", "", ""},
			{"b b b", "trial", "STAGED READY STAGED", "reboot", "TRIAL' READY TRIAL'", "", ""},
			{"b b", "no-trial non-volatile", "STAGED STAGED", "reboot", "UPDATED' UPDATED'", "", choiceUpdated},
			{"b b", "no-trial non-volatile", "STAGED READY", "reboot", "UPDATED' READY", "", choiceUpdated},
			{"b b", "no-trial volatile", "STAGED STAGED", "reboot", "READY' READY'", "", ""},
			{"b b", "non-volatile", "STAGED STAGED", "reboot-failing", "FAILED!g FAILED!g", "", choiceFailed},
			{"b b", "non-volatile", "STAGED READY", "reboot-failing", "FAILED!g READY", "", choiceFailed},
			{"b b", "volatile", "STAGED STAGED", "reboot-failing", "READY READY", "", ""},
			{"bv bk", "trial", "STAGED STAGED", "reboot-failing", "READY FAILED!g", "", choiceFailed},
			{"bv bk", "trial", "STAGED STAGED", "reboot", "TRIAL' TRIAL'", "", ""},
			{"bv bk", "no-trial", "STAGED STAGED", "reboot", "READY' UPDATED'", "", choiceUpdated},
			{"b b", "non-volatile", "STAGED STAGED", "reboot-bypassed", "CANDIDATE CANDIDATE", "", choiceBypass},
			{"b b", "non-volatile", "STAGED READY", "reboot-bypassed", "CANDIDATE READY", "", choiceBypass},
			{"bv bk", "", "STAGED STAGED", "reboot-bypassed", "READY CANDIDATE", "", choiceBypass},
		}},
		{"4.6.3 Rollback trial components", []several{
			{"b b", "trial non-volatile", "TRIAL' TRIAL'", "reboot", "FAILED!g FAILED!g", "", choiceFailed},
			{"b b", "trial non-volatile", "TRIAL' READY", "reboot", "FAILED!g READY", "", choiceFailed},
			{"b b", "trial non-volatile", "REJECTED' REJECTED'", "reboot", "FAILED!e FAILED!e", "", choiceFailed},
			{"b b", "trial non-volatile", "REJECTED' READY", "reboot", "FAILED!e READY", "", choiceFailed},
			{"b b", "trial volatile", "TRIAL' READY", "reboot", "READY READY", "", ""},
			{"bv bk", "trial", "TRIAL' TRIAL'", "reboot", "READY FAILED!g", "", choiceFailed},
			{"bv bk", "trial", "REJECTED' REJECTED'", "reboot", "READY FAILED!e", "", choiceFailed},
			{"bv bk", "trial", "UPDATED' UPDATED'", "reboot", "READY' UPDATED'", "", choiceUpdated},
			{"b b", "trial non-volatile", "TRIAL' READY", "accept; clean; reboot", "READY' READY", "", ""},
			{"b b", "trial non-volatile", "TRIAL' READY", "accept; clean; settle; 2:deliver; 2:start; 2:send; install; reboot", "READY TRIAL'", "", ""},
		}},
		{"4.2.2, C: what a reboot does to the components that have no part in an installation", []several{
			{"bt lk", "", "STAGED CANDIDATE", "reboot", "TRIAL' CANDIDATE", "", ""},
			{"bt lv", "", "STAGED CANDIDATE", "reboot", "TRIAL' READY", "", ""},
			{"bt lk", "", "STAGED WRITING", "reboot", "TRIAL' WRITING", "", choiceWriting},
			{"bt lv", "", "STAGED WRITING", "reboot", "TRIAL' READY", "", ""},
			{"btk lk", "", "TRIAL' UPDATED'", "reboot", "FAILED!g UPDATED'", "", choiceUpdated},
			{"btk lv", "", "TRIAL' CANDIDATE", "reboot", "FAILED!g READY", "", choiceFailed},
			{"ltk bk", "", "TRIAL' CANDIDATE", "reboot", "TRIAL' CANDIDATE", "", ""},
			{"ltv bk", "", "TRIAL' CANDIDATE", "reboot", "READY CANDIDATE", "", ""},
			{"ltv ltk", "", "TRIAL' TRIAL'", "reboot", "READY TRIAL'", "", ""},
			{"ltk bv", "", "TRIAL' CANDIDATE", "reboot", "TRIAL' READY", "", ""},
		}},
		{"4.4, 5.6.1 psa_fwu_finish, 5.6.2 psa_fwu_install: dependencies are checked by install, against candidates and otherwise what is active; candidates stay", []several{
			{"b b", "", "READY READY", "deliver needs=2:active; start; send = SUCCESS CANDIDATE; install = SUCCESS_REBOOT", "STAGED READY", "", ""},
			{"b b", "", "READY READY", "deliver needs=2:newer; start; send = SUCCESS CANDIDATE; install = DEPENDENCY_NEEDED", "CANDIDATE READY", "2", ""},
			{"b b", "", "READY READY", "deliver needs=2:newer; start; send; install = DEPENDENCY_NEEDED; 2:deliver; 2:start; 2:send; install = SUCCESS_REBOOT", "STAGED STAGED", "", ""},
			{"b b", "", "READY READY", "deliver needs=2:newer; start; send; 2:deliver needs=1:newer; 2:start; 2:send; install = SUCCESS_REBOOT", "STAGED STAGED", "", ""},
			{"b b", "", "READY CANDIDATE", "deliver needs=2:never; start; send = SUCCESS CANDIDATE; install = DEPENDENCY_NEEDED", "CANDIDATE CANDIDATE", "2", ""},
			{"b b", "", "READY CANDIDATE", "deliver needs=2:never; start; send; install = DEPENDENCY_NEEDED; cancel; clean; install = SUCCESS_REBOOT", "READY STAGED", "", ""},
			{"b b b", "", "READY CANDIDATE READY", "deliver needs=2:newer needs=3:newer; start; send; install = DEPENDENCY_NEEDED", "CANDIDATE CANDIDATE READY", "3", ""},
			{"l l", "trial", "READY READY", "deliver needs=2:active; start; send; install = SUCCESS", "TRIAL' READY", "", ""},
			{"l l", "", "READY READY", "deliver needs=2:newer; start; send; install = DEPENDENCY_NEEDED", "CANDIDATE READY", "2", ""},
			{"l l", "trial", "READY READY", "deliver needs=2:newer; start; send; install = DEPENDENCY_NEEDED; 2:deliver; 2:start; 2:send; install = SUCCESS", "TRIAL' TRIAL'", "", ""},
			{"l l", "no-trial", "READY UPDATED'", "deliver needs=2:newer; start; send; install = SUCCESS", "UPDATED' UPDATED'", "", ""},
			{"l l", "", "READY CANDIDATE", "deliver needs=2:never; start; send; install = DEPENDENCY_NEEDED", "CANDIDATE CANDIDATE", "2", ""},
			{"l b", "", "READY READY", "deliver needs=2:never; start; send; install = DEPENDENCY_NEEDED", "CANDIDATE READY", "2", ""},
			{"b l", "", "READY READY", "deliver needs=2:newer; start; send; install = DEPENDENCY_NEEDED", "CANDIDATE READY", "2", ""},
			{"b l", "", "READY UPDATED'", "deliver needs=2:newer; start; send; install = SUCCESS_REBOOT", "STAGED UPDATED'", "", ""},
			{"b l", "", "READY WRITING", "deliver needs=2:active; start; send; install = SUCCESS_REBOOT", "STAGED WRITING", "", ""},
		}},
		{"5.6.2 psa_fwu_install, 4.2.4: if one image cannot be installed, none is", []several{
			{"l l", "non-volatile", "CANDIDATE CANDIDATE", "2:tamper; reboot; install = INVALID_SIGNATURE|INVALID_ARGUMENT|STORAGE_FAILURE", "CANDIDATE|FAILED FAILED", "", choiceTamper},
			{"b b", "non-volatile", "CANDIDATE CANDIDATE", "2:tamper; reboot; install = INVALID_SIGNATURE|INVALID_ARGUMENT|STORAGE_FAILURE", "CANDIDATE|FAILED FAILED", "", choiceTamper},
			{"b b", "non-volatile", "CANDIDATE CANDIDATE", "1:tamper; reboot; install = INVALID_SIGNATURE|INVALID_ARGUMENT|STORAGE_FAILURE", "FAILED CANDIDATE|FAILED", "", choiceTamper},
		}},
		{"5.5.1: no component but those that exist", []several{
			{"b l", "", "READY WRITING", "unknown-query = DOES_NOT_EXIST", "READY WRITING", "", ""},
			{"b l", "", "READY WRITING", "unknown-write = DOES_NOT_EXIST", "READY WRITING", "", ""},
			{"b l", "", "CANDIDATE FAILED", "unknown-clean = DOES_NOT_EXIST", "CANDIDATE FAILED!0", "", ""},
		}},
	}
}
