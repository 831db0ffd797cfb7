package conformance

import (
	"fmt"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Profile says what an implementation has chosen where the specification permits several outcomes.
type Profile struct {
	// Section 4.2.2: whether these states are volatile although staging is not.
	WritingVolatile, FailedVolatile, UpdatedVolatile bool
	// Sealed: before install, and after a failure, nothing in the second location can be booted. (Section 4.1 says what is there, not in which form.)
	Sealed bool
	// Bank: the components that need a reboot are installed as a whole. While one of them is WRITING, FAILED or UPDATED, install answers DEPENDENCY_NEEDED; while
	// one is STAGED, TRIAL or REJECTED, start of another is NOT_PERMITTED; with candidates that need a reboot and others that do not, install is NOT_PERMITTED
	// (section 5.6.2, install: which combinations are supported is implementation defined). Without Bank the walk never has a component that needs a reboot beside any other.
	Bank bool
	// Bypass: the implementation tells a boot that bypassed the bootloader from one that failed, and takes a component that was STAGED back to CANDIDATE,
	// and one that was TRIAL to REJECTED (section 4.2.4, last rule).
	Bypass bool
	// Location: the location field is the index, 0 or 1, of the active location (section 5.5.5: implementation defined).
	Location bool
	// Contiguous: what is bundled with its manifest is written from the beginning to the end without gaps, or again from where Info.Impl.Written says; and the image alone has to fit into the
	// location. Else the whole of it has to.
	Contiguous bool
	// Reasons: Info.Impl.Reason holds one of the reason codes of package fwu in FAILED and REJECTED.
	Reasons bool
	// Progress: Info.Impl.Written is in WRITING how much of the stream survives a restart; writing goes on there. It is a multiple of the alignment, unless it is all.
	Progress bool
	// Gapless: where no manifest names a digest, nothing would find what a restart has lost. So write after one is INVALID_ARGUMENT if it would leave a gap behind what
	// is left. It takes Progress: else nobody knows what is left.
	Gapless bool
	// Names: an error DEPENDENCY_NEEDED comes with the components that stand in the way. (The C interface has no room for them.)
	Names bool
	// MaxTrials is after how many lost trials start of an image is NOT_PERMITTED: a firmware update policy. 0: never.
	MaxTrials int
	// Unused is the status of accept, and of reject, where no component has a state for it (section 5.2.1): BAD_STATE or NOT_SUPPORTED.
	Unused fwu.Status
	// CancelError and LostError are the error field after cancel, and after a trial or an installation that a reboot ended (section 5.5.5: the reason).
	CancelError, LostError fwu.Status
	// Alignment and MaxWrite are the limits of write (PSA_FWU_LOG2_WRITE_ALIGN, PSA_FWU_MAX_WRITE_SIZE). The suite needs an alignment of at least 32.
	Alignment, MaxWrite int64
}

// DefaultProfile is that of this project's service.
func DefaultProfile() Profile {
	return Profile{
		Sealed: true, Bank: true, Bypass: true, Location: true, Contiguous: true, Reasons: true, Progress: true, Gapless: true, Names: true, MaxTrials: 3,
		Unused: fwu.BadState, CancelError: fwu.Success, LostError: fwu.GenericError,
		Alignment: fwu.WriteAlignment, MaxWrite: fwu.MaxWriteSize,
	}
}

// choice names a field of Profile that a row of a table rests on. A row of a choice that was not taken is left out.
type choice string

// The choices that rows rest on.
const (
	noChoice         choice = ""
	choiceBank       choice = "Bank"
	choiceBypass     choice = "Bypass"
	choiceContiguous choice = "Contiguous"
	choiceMaxTrials  choice = "MaxTrials"
	choiceProgress   choice = "Progress"
	choiceGapless    choice = "Gapless"
	choiceWriting    choice = "WritingVolatile is false"
	choiceFailed     choice = "FailedVolatile is false"
	choiceUpdated    choice = "UpdatedVolatile is false"
	choiceTamper     choice = "Tamperer"
)

// has tells whether all of the choices, separated by commas, were taken. Whether an implementation can tamper is not the profile's to say.
func (p Profile) has(all choice) bool {
	for c := range strings.SplitSeq(string(all), ", ") {
		if taken, ok := p.taken()[choice(c)]; ok && !taken {
			return false
		}
	}
	return true
}

func (p Profile) taken() map[choice]bool {
	return map[choice]bool{
		choiceBank: p.Bank, choiceBypass: p.Bypass, choiceContiguous: p.Contiguous, choiceMaxTrials: p.MaxTrials > 0, choiceProgress: p.Progress, choiceGapless: p.Gapless,
		choiceWriting: !p.WritingVolatile, choiceFailed: !p.FailedVolatile, choiceUpdated: !p.UpdatedVolatile,
	}
}

// Options control Run.
type Options struct {
	Profile Profile // the zero Profile means DefaultProfile
	Steps   int     // of the random walk; 0 means 100,000
	// Modes are the manifest modes that the implementation offers; nil means all three.
	Modes []fwu.ManifestMode
}

func (o Options) withDefaults() Options {
	if o.Profile == (Profile{}) {
		o.Profile = DefaultProfile()
	}
	if o.Steps == 0 {
		o.Steps = 100_000
	}
	if o.Modes == nil {
		o.Modes = []fwu.ManifestMode{fwu.Detached, fwu.Bundled, fwu.None}
	}
	return o
}

// Result is what a run has covered.
type Result struct {
	Rows, Reached     int // rows of the tables that apply, and those that were carried out to the end
	LeftOut           int // rows that rest on a choice that was not taken
	Transitions, Seen int // transitions of the eight figures, and those that were observed
	Steps, Walked     int // random steps, and the different changes of state that they made
}

func (r Result) String() string {
	return fmt.Sprintf("%d of %d rows reached, %d left out; %d of %d transitions seen; %d random steps with %d transitions", r.Reached, r.Rows, r.LeftOut, r.Seen, r.Transitions, r.Steps, r.Walked)
}
