package conformance

import (
	"crypto/sha256"
	"math"
	"slices"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// The model: what the specification lets a device be, and which outcomes it permits for a call. It is a value; next changes nothing.
// It was written from sections 4 and 5 and appendix C, and knows nothing of flash, files, formats or the table.

// image is what can be booted from a location; no Data: nothing can.
type image struct {
	Data     []byte
	Version  fwu.Version
	Sequence uint64
}

// component is one component of the model.
type component struct {
	Config
	State  fwu.State
	Err    fwu.Status
	Reason fwu.Reason
	Slots  [2]image // what can be booted from each location
	Act    int      // which of the two is active
	Floor  uint64   // lowest sequence number that may be installed

	// In preparation.
	From  *Delivery // whose manifest, or stream, it is; nil if none was seen
	Got   []byte    // what was written, at its offset
	Units []int     // of each unit of the write alignment, how many bytes are known
	Lost  bool      // a restart may have lost some of it
	Again bool      // it goes on after a restart
	// Tampered: the medium no longer holds it.
	Tampered bool
	New      image // the candidate
}

func (c *component) second() *image { return &c.Slots[1-c.Act] }

// system is the model of a device.
type system struct {
	Profile
	comps []component
	lost  map[[32]byte]int // how often the trial of an image was lost
}

func newSystem(p Profile, comps []Config) system {
	s := system{Profile: p, lost: map[[32]byte]int{}}
	for _, c := range comps {
		m := component{Config: c, Floor: c.Sequence}
		m.Slots[0] = image{c.Image, c.Version, c.Sequence}
		s.comps = append(s.comps, m)
	}
	return s
}

func (s system) clone() system {
	s.comps = slices.Clone(s.comps)
	return s
}

func (s system) find(id fwu.ID) *component {
	i := slices.IndexFunc(s.comps, func(c component) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return &s.comps[i]
}

// busy tells whether an installation of the components that need a reboot is under way, or of any.
func (s system) busy(any bool) bool {
	return slices.ContainsFunc(s.comps, func(c component) bool {
		return (any || c.Variant.Reboot) && (c.State == fwu.Staged || c.State == fwu.Trial || c.State == fwu.Rejected)
	})
}

// call is an event: a call of the API or a restart.
type call struct {
	event    string // as in the matrix of a figure
	id       fwu.ID
	manifest []byte
	from     *Delivery // what manifest, or block, was taken from
	off      int64
	block    []byte
	err      fwu.Status
	written  map[fwu.ID]int64 // after a restart: how much of what was being written is left, as the implementation says
}

// outcome is what the specification permits a call to do.
type outcome struct {
	status fwu.Status
	named  []fwu.ID // the components that stand in the way: at least one of them is named
	next   system
}

// next returns the outcomes that are permitted; the first is the plainest.
func (s system) next(c call) []outcome {
	switch c.event {
	case "install":
		return s.install()
	case "accept":
		return s.accept()
	case "reject":
		return s.reject(c.err)
	case "request-reboot":
		return s.stay(fwu.Success)
	case "reboot", "reboot-failing", "reboot-bypassed", "service-restart":
		return []outcome{{fwu.Success, nil, s.boot(c)}}
	}
	if s.find(c.id) == nil {
		return s.stay(wrong(fwu.DoesNotExist, s.badAnywhere(c))...)
	}
	switch c.event {
	case "start":
		return s.start(c)
	case "write":
		return s.write(c)
	case "finish":
		return s.finish(c)
	case "cancel":
		return s.cancel(c)
	case "clean":
		return s.clean(c)
	}
	return s.stay(fwu.Success) // query
}

// stay: nothing changes, with any of these statuses.
func (s system) stay(statuses ...fwu.Status) []outcome {
	var all []outcome
	for _, st := range statuses {
		all = append(all, outcome{status: st, next: s})
	}
	return all
}

// fail: the component goes to FAILED with any of these errors, which is also the status.
func (s system) fail(id fwu.ID, statuses ...fwu.Status) []outcome {
	var all []outcome
	for _, st := range statuses {
		n := s.clone()
		n.find(id).fail(st, "")
		all = append(all, outcome{status: st, next: n})
	}
	return all
}

func (c *component) fail(e fwu.Status, r fwu.Reason) {
	c.State, c.Err, c.Reason, c.New = fwu.Failed, e, r, image{}
	*c.second() = image{}
}

func (c *component) ready() {
	c.State, c.New = fwu.Ready, image{}
	*c.second() = image{}
}

func (c *component) updated() {
	c.State = fwu.Updated
	c.Floor = max(c.Floor, c.Slots[c.Act].Sequence)
}

// refusal is why the manifest of d is refused (sections 4.3.1 and 5.6.1), Success if it is not.
func (s system) refusal(c *component, d *Delivery) fwu.Status {
	switch d.Defect {
	case BadSignature, WrongKey:
		return fwu.InvalidSignature
	case Garbage, Truncated:
		return fwu.InvalidArgument
	case WrongVendor, WrongClass, WrongComponent:
		return fwu.NotPermitted
	}
	if int64(len(d.Image)) > c.Size {
		return fwu.InsufficientStorage
	}
	if d.Meta.Sequence < c.Floor || s.MaxTrials > 0 && len(s.lost) > 0 && s.lost[sha256.Sum256(d.Image)] >= s.MaxTrials {
		return fwu.NotPermitted
	}
	return fwu.Success
}

// start: section 5.6.1.
func (s system) start(a call) []outcome {
	c := s.find(a.id)
	bad := fwu.Success // what is wrong with the argument
	switch {
	case (len(a.manifest) > 0) != (c.Manifest == fwu.Detached):
		bad = fwu.InvalidArgument
	case c.Manifest == fwu.Detached:
		bad = s.refusal(c, a.from)
	}
	state := fwu.Success // what is wrong with the state
	switch {
	case c.State != fwu.Ready:
		state = fwu.BadState
	case s.Bank && c.Variant.Reboot && s.busy(false):
		state = fwu.NotPermitted
	}
	if state != fwu.Success || bad != fwu.Success {
		return s.stay(wrong(state, bad)...) // section 5.1.6: any that applies
	}
	n := s.clone()
	c = n.find(a.id)
	c.State, c.From, c.Got, c.Units, c.Lost, c.Again, c.Tampered = fwu.Writing, nil, nil, nil, false, false, false
	if c.Manifest == fwu.Detached {
		c.From = a.from
	}
	*c.second() = image{}
	return []outcome{{fwu.Success, nil, n}}
}

// wrong is what may be answered where several things are wrong.
func wrong(statuses ...fwu.Status) []fwu.Status {
	return slices.DeleteFunc(statuses, func(s fwu.Status) bool { return s == fwu.Success })
}

// limit is the end of the region that may be written.
func (c *component) limit() int64 {
	if c.Manifest == fwu.Detached && c.From != nil {
		return min(c.stated(), c.Size)
	}
	return c.Size
}

// stated is the size of the image that the manifest states.
func (c *component) stated() int64 {
	if c.From.Defect == WrongSize {
		return int64(len(c.From.Image)) + 1
	}
	return int64(len(c.From.Image))
}

// badAnywhere is INVALID_ARGUMENT for arguments of write that no component takes in any state.
func (s system) badAnywhere(a call) fwu.Status {
	size := int64(len(a.block))
	if a.event == "write" && (a.off < 0 || a.off%s.Alignment != 0 || size == 0 || size > s.MaxWrite || a.off > math.MaxInt64-size) {
		return fwu.InvalidArgument
	}
	return fwu.Success
}

// write: section 5.6.1.
func (s system) write(a call) []outcome {
	c := s.find(a.id)
	size := int64(len(a.block))
	bad, state := s.badAnywhere(a), fwu.Success
	switch {
	case bad != fwu.Success:
	case c.State == fwu.Writing && c.Manifest == fwu.Bundled && s.Contiguous && a.off != int64(len(c.Got)):
		bad = fwu.InvalidArgument
	case c.State == fwu.Writing && !(c.Manifest == fwu.Bundled && s.Contiguous) && a.off+size > c.limit():
		bad = fwu.InvalidArgument
	case c.State == fwu.Writing && c.Manifest == fwu.None && s.Gapless && s.Progress && c.Again && a.off > int64(len(c.Got)):
		bad = fwu.InvalidArgument
	}
	if c.State != fwu.Writing {
		state = fwu.BadState
	}
	if bad != fwu.Success || state != fwu.Success {
		return s.stay(wrong(state, bad)...)
	}
	n := s.clone()
	c = n.find(a.id)
	c.put(a.off, a.block, s.Alignment)
	if c.Manifest == fwu.Bundled {
		c.From = a.from
	}
	out := []outcome{{fwu.Success, nil, n}}
	if c.Manifest == fwu.Bundled { // it may be verified as soon as it is there
		if e := s.refusal(c, c.From); e != fwu.Success {
			out = append(out, s.fail(a.id, e)...)
		}
		if e := c.mismatch(); e != fwu.Success {
			out = append(out, s.fail(a.id, e)...)
		}
	}
	return out
}

// put remembers what was written. A short block makes the rest of its last unit unknown.
func (c *component) put(off int64, block []byte, unit int64) {
	end := off + int64(len(block))
	got := make([]byte, max(end, int64(len(c.Got))))
	copy(got, c.Got)
	copy(got[off:], block)
	units := make([]int, (int64(len(got))+unit-1)/unit)
	copy(units, c.Units)
	for at := off; at < end; at += unit {
		units[at/unit] = int(min(unit, end-at))
	}
	c.Got, c.Units = got, units
}

// prefix is how much is known from the beginning.
func (c *component) prefix(unit int64) int64 {
	var n int64
	for _, u := range c.Units {
		n += int64(u)
		if int64(u) < unit {
			break
		}
	}
	return n
}

// mismatch is what is wrong between an image and its manifest.
func (c *component) mismatch() fwu.Status {
	switch c.From.Defect {
	case WrongDigest:
		return fwu.InvalidSignature
	case WrongSize:
		return fwu.InvalidArgument
	}
	return fwu.Success
}

// finish: section 5.6.1. Dependencies are not checked.
func (s system) finish(a call) []outcome {
	c := s.find(a.id)
	switch {
	case c.State != fwu.Writing:
		return s.stay(fwu.BadState)
	case c.Manifest == fwu.None && len(c.Got) == 0:
		return s.stay(fwu.InvalidArgument)
	case c.Manifest == fwu.None:
		return s.candidate(a.id, image{Data: c.Got, Sequence: c.Floor})
	case c.From == nil:
		return s.fail(a.id, fwu.InvalidArgument)
	}
	good := image{c.From.Image, c.From.Meta.Version, c.From.Meta.Sequence}
	errs := wrong(s.refusal(c, c.From), c.mismatch())
	if c.Manifest == fwu.Bundled {
		if len(c.Got) < len(c.From.Stream) {
			errs = append(errs, fwu.InvalidArgument)
		}
	} else if known := c.prefix(s.Alignment); known < c.stated() {
		errs = []fwu.Status{fwu.InvalidArgument}
		if c.Lost || int64(len(c.Got)) == c.stated() { // it is there, but for a hole
			errs = append(errs, fwu.InvalidSignature)
		}
	} else if len(errs) == 0 && !slices.Equal(c.Got, c.From.Image) {
		errs = append(errs, fwu.InvalidSignature)
	}
	if len(errs) == 0 {
		return s.candidate(a.id, good)
	}
	out := s.fail(a.id, errs...)
	if c.Lost && c.From.Defect == Sound { // what a restart might have lost can still be there; it is looked at after install
		out = append(out, s.candidate(a.id, good)...)
	}
	return out
}

func (s system) candidate(id fwu.ID, i image) []outcome {
	n := s.clone()
	c := n.find(id)
	c.State, c.New = fwu.Candidate, i
	return []outcome{{fwu.Success, nil, n}}
}

// cancel: section 5.6.1.
func (s system) cancel(a call) []outcome {
	c := s.find(a.id)
	if c.State != fwu.Writing && c.State != fwu.Candidate {
		return s.stay(fwu.BadState)
	}
	n := s.clone()
	n.find(a.id).fail(s.CancelError, fwu.ReasonCancelled)
	return []outcome{{fwu.Success, nil, n}}
}

// clean: section 5.6.1.
func (s system) clean(a call) []outcome {
	c := s.find(a.id)
	if c.State != fwu.Failed && c.State != fwu.Updated {
		return s.stay(fwu.BadState)
	}
	n := s.clone()
	n.find(a.id).ready()
	return []outcome{{fwu.Success, nil, n}}
}

// install: section 5.6.2.
func (s system) install() []outcome {
	var bank, live bool
	for _, c := range s.comps {
		bank = bank || c.State == fwu.Candidate && c.Variant.Reboot
		live = live || c.State == fwu.Candidate && !c.Variant.Reboot
	}
	if s.busy(true) || !bank && !live {
		return s.stay(fwu.BadState)
	}
	out := []outcome{}
	if s.Bank && bank && live {
		out = append(out, outcome{status: fwu.NotPermitted, next: s})
	}
	if need := s.needed(s.Bank && bank); len(need) > 0 {
		out = append(out, outcome{fwu.DependencyNeeded, need, s})
	}
	if len(out) > 0 {
		return out
	}
	n := s.clone()
	if n.tampered() {
		return []outcome{{fwu.InvalidSignature, nil, n}}
	}
	for i := range n.comps {
		n.comps[i].install(s.Bank && bank)
	}
	status := fwu.Success
	if bank {
		status = fwu.SuccessReboot
	}
	return []outcome{{status, nil, n}}
}

// tampered fails the candidates whose image does not pass verification, and tells whether there are any. The others stay.
func (s *system) tampered() bool {
	any := false
	for i := range s.comps {
		if c := &s.comps[i]; c.State == fwu.Candidate && c.Tampered {
			any = true
			c.fail(fwu.InvalidSignature, "")
		}
	}
	return any
}

// needed are the components that must be updated first: those of the bank that are neither READY nor CANDIDATE, and dependencies (section 4.4).
func (s system) needed(bank bool) []fwu.ID {
	var ids []fwu.ID
	for _, c := range s.comps {
		if bank && c.Variant.Reboot && c.State != fwu.Ready && c.State != fwu.Candidate {
			ids = append(ids, c.ID)
		}
		if c.State != fwu.Candidate || c.From == nil {
			continue
		}
		for _, need := range c.From.Meta.Needs {
			if d := s.find(need.ID); d == nil || d.willBe().Compare(need.Min) < 0 {
				ids = append(ids, need.ID)
			}
		}
	}
	return ids
}

// willBe is the version after an install.
func (c *component) willBe() fwu.Version {
	if c.State == fwu.Candidate {
		return c.New.Version
	}
	return c.Slots[c.Act].Version
}

// install does a component's part. bank: the other members of the bank are carried over.
func (c *component) install(bank bool) {
	switch {
	case c.State == fwu.Candidate && c.Variant.Reboot:
		*c.second(), c.State = c.New, fwu.Staged
	case c.State == fwu.Candidate:
		*c.second() = c.New
		c.Act, c.State = 1-c.Act, fwu.Trial
		if !c.Variant.Trial {
			c.updated()
		}
	case bank && c.Variant.Reboot:
		*c.second() = c.Slots[c.Act]
	}
}

// accept: section 5.6.3.
func (s system) accept() []outcome {
	n, any := s.clone(), false
	for i := range n.comps {
		if c := &n.comps[i]; c.State == fwu.Trial {
			any = true
			c.updated()
		}
	}
	return s.unless(any, n, fwu.Success, func(v Variant) bool { return v.Trial })
}

// reject: section 5.6.2.
func (s system) reject(e fwu.Status) []outcome {
	n, any, status := s.clone(), false, fwu.Success
	for i := range n.comps {
		c := &n.comps[i]
		switch {
		case c.State == fwu.Staged:
			c.fail(e, fwu.ReasonRejected)
		case c.State == fwu.Trial && c.Variant.Reboot:
			c.State, c.Err, c.Reason = fwu.Rejected, e, fwu.ReasonRejected
			status = fwu.SuccessReboot
		case c.State == fwu.Trial:
			c.Act = 1 - c.Act
			c.fail(e, fwu.ReasonRejected)
		default:
			continue
		}
		any = true
	}
	return s.unless(any, n, status, func(v Variant) bool { return v.Trial || v.Reboot })
}

// unless: n, unless nothing was in the state for the call; that is BAD_STATE, or NOT_SUPPORTED where no component has such a state (section 5.2.1).
func (s system) unless(any bool, n system, status fwu.Status, has func(Variant) bool) []outcome {
	if any {
		return []outcome{{status, nil, n}}
	}
	if slices.ContainsFunc(s.comps, func(c component) bool { return has(c.Variant) }) {
		return s.stay(fwu.BadState)
	}
	return s.stay(s.Unused)
}

// boot: sections 4.2.2 and 4.6, and the marks in the figures.
func (s system) boot(a call) system {
	n := s.clone()
	n.lost = map[[32]byte]int{}
	for k, v := range s.lost {
		n.lost[k] = v
	}
	if a.event != "service-restart" {
		if a.event != "reboot-bypassed" {
			n.bootloader(a.event == "reboot-failing")
		}
		for i := range n.comps {
			n.comps[i].restarted(n.Profile, a.event == "reboot-bypassed")
		}
	}
	for i := range n.comps {
		if c := &n.comps[i]; c.State == fwu.Writing {
			c.Again = true
			if left := a.written[c.ID]; left < int64(len(c.Got)) || !s.Progress {
				c.Lost, c.Got, c.Units = true, c.Got[:left:left], c.Units[:(left+n.Alignment-1)/n.Alignment]
				if c.Manifest == fwu.Bundled && left == 0 {
					c.From = nil
				}
			}
		}
	}
	return n
}

// bootloader: sections 4.6.2 and 4.6.3. The bank is switched as a whole.
func (s *system) bootloader(failing bool) {
	staged := slices.ContainsFunc(s.comps, func(c component) bool { return c.State == fwu.Staged })
	flip := s.busy(false) && !(staged && failing)
	for i := range s.comps {
		c := &s.comps[i]
		own := c.State == fwu.Staged || c.State == fwu.Trial || c.State == fwu.Rejected
		if flip && c.Variant.Reboot && (s.Bank || own) {
			c.Act = 1 - c.Act
		}
		switch {
		case c.State == fwu.Staged && failing:
			c.fail(s.LostError, fwu.ReasonTrialNotBooted)
		case c.State == fwu.Staged && c.Variant.Trial:
			c.State = fwu.Trial
		case c.State == fwu.Staged:
			c.updated()
		case c.State == fwu.Trial && c.Variant.Reboot:
			s.lost[sha256.Sum256(c.second().Data)]++
			c.fail(s.LostError, fwu.ReasonTrialReset)
		case c.State == fwu.Rejected:
			c.fail(c.Err, c.Reason)
		}
	}
}

// restarted: what a reboot does without the bootloader, and what is volatile.
func (c *component) restarted(p Profile, bypassed bool) {
	switch {
	case bypassed && c.State == fwu.Staged:
		c.State = fwu.Candidate
		*c.second() = image{}
	case bypassed && c.State == fwu.Trial && c.Variant.Reboot:
		c.State, c.Err, c.Reason = fwu.Rejected, p.LostError, ""
	case c.State == fwu.Trial && !c.Variant.Reboot && c.Variant.Volatile:
		c.Act = 1 - c.Act
		c.ready()
	}
	lost := false
	switch c.State {
	case fwu.Candidate:
		lost = c.Variant.Volatile
	case fwu.Writing:
		lost = c.Variant.Volatile || p.WritingVolatile
	case fwu.Failed:
		lost = c.Variant.Volatile || p.FailedVolatile
	case fwu.Updated:
		lost = c.Variant.Volatile || p.UpdatedVolatile
	}
	if lost {
		c.ready()
	}
}
