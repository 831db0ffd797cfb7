package fwu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fwu-ab/fwu-ab/suit"
)

// installation is the set of components that an install is about, each held.
type installation struct {
	live       bool
	candidates []*component
	carried    []*component // members of the bank that get a copy of their active image
	copies     map[ID]*imageRecord
}

func (i *installation) all() []*component { return append(slices.Clone(i.candidates), i.carried...) }

// Install is psa_fwu_install (section 5.6.2): all candidates, or none. Bank members are armed for one start of the other bank (SuccessReboot). Live
// components run with their new image when it returns.
func (s *Service) Install(ctx context.Context) (Status, error) {
	if err := s.healthy(ctx); err != nil {
		return 0, err
	}
	if err := s.install.take(ctx); err != nil {
		return 0, err
	}
	defer s.install.give()
	inst, err := s.holdCandidates(ctx)
	if err != nil {
		return 0, fmt.Errorf("install: %w", err)
	}
	defer s.giveUp(inst)
	opCtx := ctx
	for _, c := range inst.all() {
		var end func()
		opCtx, end = s.begin(opCtx, c, OpInstall)
		defer end()
	}
	status, err := s.installAll(opCtx, inst)
	if err != nil {
		return 0, s.ended(opCtx, fmt.Errorf("install: %w", err))
	}
	return status, nil
}

// giveUp ends an install. The slots that were carried over are held on if the bank is STAGED now.
// A transfer that is WRITING was in the way, and goes on.
func (s *Service) giveUp(inst *installation) {
	for _, c := range inst.carried {
		if c.transfer != nil || s.record().Trial != nil {
			continue
		}
		if err := s.release(c); err != nil {
			s.log.Warn("slot not given up cleanly", "component", c.Name, "err", err)
		}
	}
	for _, c := range inst.all() {
		c.op.give()
	}
}

func (s *Service) installAll(ctx context.Context, inst *installation) (Status, error) {
	if err := s.installable(inst); err != nil {
		return 0, err
	}
	if err := s.claimSecondBank(ctx, inst.candidates[0]); err != nil {
		return 0, err
	}
	for _, c := range inst.candidates {
		if err := s.verifyCandidate(ctx, c); err != nil {
			return 0, err
		}
	}
	if inst.live {
		defer s.inhibit(ctx, "an update is being put into use")()
		return s.installLive(ctx, inst)
	}
	for _, c := range inst.carried {
		if err := s.carryOver(ctx, c, inst); err != nil {
			return 0, err
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	defer s.inhibit(ctx, "an update is being armed")()
	return s.installBank(ctx, inst)
}

// inhibit keeps the system up while something is committed, if that can be done. A shutdown in the middle does no harm; it only is one that nobody wanted.
func (s *Service) inhibit(ctx context.Context, why string) (release func()) {
	i, ok := s.cfg.System.(Inhibitor)
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), inhibitTimeout)
	defer cancel()
	release, err := i.Inhibit(ctx, why)
	if err != nil {
		s.log.Debug("shutdown and sleep are not inhibited", "err", err)
		return func() {}
	}
	return release
}

// inhibitTimeout is how long logind may take: without an answer there is no inhibition, and everything else all the same.
const inhibitTimeout = 2 * time.Second

// holdCandidates finds what is to be installed and takes it. It waits for a candidate, and for nothing else.
func (s *Service) holdCandidates(ctx context.Context) (*installation, error) {
	inst, err := s.findCandidates()
	if err != nil {
		return nil, err
	}
	var taken []*component
	giveBack := func() {
		for _, c := range taken {
			c.op.give()
		}
	}
	for _, c := range inst.all() {
		if slices.Contains(inst.candidates, c) {
			err = c.op.take(ctx)
		} else if !c.op.try() {
			err = needs(c, "another operation runs on %s", c.Name)
		}
		if err != nil {
			giveBack()
			return nil, err
		}
		taken = append(taken, c)
	}
	now, err := s.findCandidates() // a cancel or a finish may have been faster
	if err == nil && !(slices.Equal(now.candidates, inst.candidates) && slices.Equal(now.carried, inst.carried)) {
		err = refuse(BadState, ReasonState, "the set of candidates changed meanwhile")
	}
	if err != nil {
		giveBack()
		return nil, err
	}
	return inst, nil
}

func needs(c *component, format string, args ...any) *Error {
	err := refuse(DependencyNeeded, ReasonDependency, format, args...)
	err.Components = []ID{c.ID}
	return err
}

func (s *Service) findCandidates() (*installation, error) {
	r := s.record()
	inst := &installation{copies: map[ID]*imageRecord{}}
	var bank bool
	for _, c := range s.components {
		cr := r.Components[c.Name]
		if cr.State.bound() {
			err := refuse(BadState, ReasonState, "%s is %s, and waits for %s", c.Name, cr.State, cr.State.waitsFor())
			err.Components = []ID{c.ID}
			return nil, err
		}
		if cr.State == Candidate && !(c.Live && s.readOnly(c) != nil) { // a live component that is read-only is in nobody's way
			inst.candidates = append(inst.candidates, c)
			inst.live = inst.live || c.Live
			bank = bank || !c.Live
		}
	}
	switch {
	case len(inst.candidates) == 0:
		return nil, refuse(BadState, ReasonState, "no component is CANDIDATE")
	case inst.live && bank:
		err := refuse(NotPermitted, ReasonMixedInstall, "live components and members of a bank cannot be installed together; cancel one kind")
		for _, c := range inst.candidates {
			err.Components = append(err.Components, c.ID)
		}
		return nil, err
	}
	for _, c := range s.components {
		if bank && !c.Live && r.Components[c.Name].State != Candidate {
			inst.carried = append(inst.carried, c)
		}
	}
	return inst, nil
}

// installable checks what does not need the medium: the others of the bank, dependencies, policy.
func (s *Service) installable(inst *installation) error {
	r := s.record()
	for _, c := range inst.all() {
		if p := s.readOnly(c); p != nil {
			return p.refusal("%s is read-only", c.Name)
		}
	}
	var waiting []ID
	var names []string
	for _, c := range inst.carried {
		if st := r.Components[c.Name].State; st != Ready {
			waiting = append(waiting, c.ID)
			names = append(names, fmt.Sprintf("%s is %s", c.Name, st))
		}
	}
	if len(waiting) > 0 {
		return &Error{Status: DependencyNeeded, Reason: ReasonDependency, Components: waiting,
			Text: "every other member of the bank must be READY or CANDIDATE: " + strings.Join(names, ", ")}
	}
	for _, c := range inst.candidates {
		cr := r.Components[c.Name]
		if err := s.dependencies(r, c, cr); err != nil {
			return err
		}
		if err := s.charged(c, cr); err != nil {
			return err
		}
		if err := s.policy(c, cr, cr.next()); err != nil {
			return err
		}
	}
	return nil
}

// dependencies checks what c's candidate needs (section 4.4): a candidate of this install counts with its new version, everything else with its active one. What one manifest brings is
// installed together, or is there already.
func (s *Service) dependencies(r *record, c *component, cr *componentRecord) error {
	if err := s.needs(r, c, cr.next()); err != nil {
		return err
	}
	for _, w := range cr.next().With {
		other := r.Components[w.Component]
		if other == nil {
			return refuse(DependencyNeeded, ReasonDependency, "%s is installed together with %s only, which this device does not have", c.Name, w.Component)
		}
		have := other.image().Digest
		if other.State == Candidate {
			have = other.next().Digest
		}
		if have != w.Digest {
			err := refuse(DependencyNeeded, ReasonDependency, "%s is installed only together with the image of %s that its manifest has", c.Name, w.Component)
			err.Components = []ID{other.ID}
			return err
		}
	}
	return nil
}

// needs checks the versions that an image of c needs of other components.
func (s *Service) needs(r *record, c *component, img *imageRecord) error {
	for _, d := range img.Dependencies {
		other := r.Components[d.Component]
		if other == nil {
			return refuse(DependencyNeeded, ReasonDependency, "%s needs %s, which this device does not have", c.Name, d)
		}
		have := other.image().Version
		if other.State == Candidate && !d.Present {
			have = other.next().Version
		}
		if !d.Met(have) {
			err := refuse(DependencyNeeded, ReasonDependency, "%s needs %s, and that is %s", c.Name, d, have)
			err.Components = []ID{other.ID}
			return err
		}
	}
	return nil
}

// charged checks that the battery holds what c's candidate asks for.
func (s *Service) charged(c *component, cr *componentRecord) error {
	want := cr.next().Battery
	if want == 0 || s.cfg.Battery == nil {
		return nil
	}
	have, err := s.cfg.Battery()
	if err != nil {
		return &Error{Status: InsufficientPower, Reason: ReasonBattery, Text: fmt.Sprintf("%s needs a battery that holds %d mWh", c.Name, want), Err: err}
	}
	if have < want {
		return refuse(InsufficientPower, ReasonBattery, "%s needs a battery that holds %d mWh, and it holds %d", c.Name, want, have)
	}
	return nil
}

// verifyCandidate reads a candidate again and compares it with its digest, unless its slot was held ever since that was done last.
func (s *Service) verifyCandidate(ctx context.Context, c *component) error {
	if err := s.endOrphan(ctx, c); err != nil {
		return err
	}
	if c.held != nil {
		if keepsAway(c.held) {
			return nil
		}
		if err := s.release(c); err != nil { // to be opened anew: somebody else may use it since
			return s.slotError(c, 1-s.record().Components[c.Name].Active, err)
		}
	}
	cr := s.record().Components[c.Name]
	want, err := parseDigest(cr.next().Digest)
	if err != nil {
		return &Error{Status: GenericError, Reason: ReasonImageDigest, Text: "record of " + c.Name, Err: err}
	}
	img, err := c.Slots[1-cr.Active].Open(ctx)
	if err != nil {
		return s.slotError(c, 1-cr.Active, err)
	}
	sum, _, err := resum(ctx, img, want, cr.next().Size, s.progress(c))
	if err != nil {
		return s.slotError(c, 1-cr.Active, closeQuietly(img, err))
	}
	c.held = img
	if !bytes.Equal(sum, want.Sum) {
		err := refuse(InvalidSignature, ReasonImageDigest, "%s: the slot no longer holds the image that was verified", c.Name)
		err.Components = []ID{c.ID}
		return errors.Join(s.invalid(ctx, c, err), s.release(c)) // not held, even if that could not be recorded
	}
	return nil
}

// resum reads a whole image from the medium.
func resum(ctx context.Context, img Image, d suit.Digest, size int64, progress func(done, total int64)) ([]byte, Head, error) {
	if err := img.Resume(ctx, d.New(), 0); err != nil {
		return nil, Head{}, err
	}
	return img.Sum(ctx, size, progress)
}

// carryOver copies the active image of c into its second slot, so that the new bank is whole. Nobody may write to the source meanwhile, and it must be what
// was verified when it was installed: a bank is made of known images only.
func (s *Service) carryOver(ctx context.Context, c *component, inst *installation) error {
	cr := s.record().Components[c.Name]
	active := cr.image()
	want, err := parseDigest(active.Digest)
	if err != nil || active.Size <= 0 {
		return s.notCarried(c, "what the active slot holds was never recorded (fwu-ab provision does it)")
	}
	if active.Size > maxSize(c) {
		return s.notCarried(c, "it is larger than the second slot")
	}
	src, err := c.Slots[cr.Active].Source(ctx)
	if err != nil {
		return s.slotError(c, cr.Active, err)
	}
	head, err := s.copySlot(ctx, c, cr, src, want, active.Size)
	if err = closeQuietly(src, err); err != nil {
		return s.slotError(c, 1-cr.Active, err)
	}
	img := *active
	img.Head, img.Payload, img.Written = &head, 0, 0
	inst.copies[c.ID] = &img
	return nil
}

func (s *Service) notCarried(c *component, why string) *Error {
	err := needs(c, "%s must be part of this update: its active image cannot be carried over to the new bank: %s", c.Name, why)
	err.Reason = ReasonCarryOver
	return err
}

func (s *Service) copySlot(ctx context.Context, c *component, cr *componentRecord, src Source, want suit.Digest, size int64) (Head, error) {
	if err := src.Frozen(); err != nil {
		return Head{}, s.notCarried(c, err.Error())
	}
	img, err := c.Slots[1-cr.Active].Open(ctx)
	if err != nil {
		return Head{}, err
	}
	c.held = img // until the install ends: nobody writes to what was verified
	head, sum, err := s.copyImage(ctx, img, src, want, size, s.progress(c))
	if err != nil {
		return Head{}, err
	}
	if err := src.Frozen(); err != nil {
		return Head{}, s.notCarried(c, err.Error())
	}
	if !bytes.Equal(sum, want.Sum) {
		return Head{}, s.notCarried(c, "it is not what was recorded when it was installed")
	}
	return head, nil
}

// copyImage writes size bytes of src to img, as an image that a client would have written.
func (s *Service) copyImage(ctx context.Context, img Image, src Source, d suit.Digest, size int64, progress func(done, total int64)) (Head, []byte, error) {
	if err := img.Destroy(ctx); err != nil {
		return Head{}, nil, err
	}
	if err := img.Resume(ctx, d.New(), 0); err != nil {
		return Head{}, nil, err
	}
	for off, dirty := int64(0), int64(0); off < size; {
		p := img.Space(off)
		p = p[:min(size-off, int64(len(p)))]
		if err := ReadFull(src, p, off); err != nil {
			return Head{}, nil, fmt.Errorf("copy from %d on: %w", off, err)
		}
		if err := img.WriteAt(ctx, p, off); err != nil {
			return Head{}, nil, err
		}
		off += int64(len(p))
		if dirty += int64(len(p)); dirty >= s.cfg.Checkpoint {
			dirty = 0
			if _, err := img.Checkpoint(ctx); err != nil {
				return Head{}, nil, err
			}
		}
		if err := ctx.Err(); err != nil {
			return Head{}, nil, err
		}
		progress(off, size)
	}
	sum, head, err := img.Sum(ctx, size, nil)
	return head, sum, err
}

// installBank arms the other bank. The order is: record, heads, selector, and the record again, which
// says that nothing is under way any more. Until the selector is committed a reset starts the bank
// that runs now; until the last step an old bank that comes up is no failed trial.
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

// arming records that the selector is being armed or disarmed for the new bank, or that this is done.
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

// installLive makes the candidates the active images, and restarts what uses them. If something does not start with its new image, all get their old ones back.
func (s *Service) installLive(ctx context.Context, inst *installation) (Status, error) {
	ids, before := s.staged(inst)
	p := plan{
		do: append(unsealAll(before, ids), save{"live install", func(r *record) {
			for _, c := range inst.candidates {
				cr := r.Components[c.Name]
				to := s.move(r, c.Component, evInstall)
				cr.Active = 1 - cr.Active
				cr.set(to, Success, "", "")
				if to == Updated {
					cr.raiseFloor(r)
				}
			}
		}}),
		undo: append([]effect{save{"CANDIDATE", func(*record) {}}}, sealAll(before, ids)...), // the record of the install may be on the medium
	}
	var n news
	if err := s.perform(ctx, p, &n); err != nil {
		return 0, err
	}
	for _, c := range inst.candidates {
		if err := s.release(c); err != nil {
			s.log.Warn("slot not given up cleanly", "component", c.Name, "err", err)
		}
	}
	for _, c := range inst.candidates {
		if err := s.perform(ctx, plan{do: []effect{link{c.ID, 1 - before[c.ID].Active, false}}}, &n); err != nil {
			back := s.perform(ctx, s.putBack(inst, before, c), &n)
			if back == nil {
				s.tell(n)
			}
			return 0, errors.Join(err, back)
		}
	}
	s.tell(n)
	return Success, nil
}

// putBack gives the live components of an install their old images, because culprit does not run with its new one.
func (s *Service) putBack(inst *installation, before map[ID]*componentRecord, culprit *component) plan {
	p := plan{do: []effect{save{"FAILED", func(r *record) {
		for _, c := range inst.candidates {
			cr := r.Components[c.Name]
			to := s.move(r, c.Component, evInstallFailed)
			cr.Active, cr.Floor = before[c.ID].Active, before[c.ID].Floor
			cr.set(to, GenericError, ReasonUnitRestart, culprit.Name+" did not start with its new image")
			if c == culprit {
				cr.remember(cr.next().Digest)
			}
		}
	}}}}
	for _, c := range inst.candidates {
		p.do = append(p.do, link{c.ID, before[c.ID].Active, true})
	}
	for _, c := range inst.candidates {
		p.do = append(p.do, destroy{c.ID, 1 - before[c.ID].Active, true})
	}
	return p
}

// raiseFloor forbids what is older than the active image, from now on. The record is written in this version's format again: the version before
// it is not coming back.
func (c *componentRecord) raiseFloor(r *record) {
	img := c.image()
	c.Floor, img.Head = max(c.Floor, img.Sequence), nil
	c.forget(img.Digest)
	c.Bypassed = nil // reboots pass the bootloader
	r.Signed = max(r.Signed, img.Signed)
	r.minor = max(r.minor, storeMinor)
}

// inState lists the components in a state.
func (s *Service) inState(st State) []*component { return s.inStateOf(s.record(), st) }

func (s *Service) inStateOf(r *record, st State) []*component {
	var out []*component
	for _, c := range s.components {
		if r.Components[c.Name].State == st {
			out = append(out, c)
		}
	}
	return out
}

// Accept is psa_fwu_accept (section 5.6.3). The commit of the selector makes the new bank
// the default. Where the service answers queries only because of the bank that does not run, it
// keeps the running bank: that becomes the default, the other one is given up, and what was
// rejected is FAILED.
func (s *Service) Accept(ctx context.Context) error {
	if err := s.healthy(ctx); err != nil {
		if s.bankStuck() {
			return s.giveUpOther(ctx)
		}
		return err
	}
	if err := s.install.take(ctx); err != nil {
		return err
	}
	defer s.install.give()
	trial := s.inState(Trial)
	if len(trial) == 0 {
		return refuse(BadState, ReasonState, "accept: no component is TRIAL")
	}
	r := s.record()
	updated := save{"UPDATED", s.accepted}
	p := plan{do: []effect{updated}}
	if r.Trial != nil {
		p = plan{
			do:   []effect{save{"ACCEPTING", func(r *record) { r.Trial.Accepting = true }}, commit{Selection{Default: r.Trial.Bank}, false}, updated},
			undo: []effect{disarm{r.Trial.Bank.Other()}, save{"TRIAL", func(r *record) { r.Trial.Accepting = false }}},
		}
	}
	defer s.inhibit(ctx, "an update is being accepted")()
	if err := s.run(ctx, p); err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	return nil
}

// accepted makes what is TRIAL (STAGED, for a bank without trial) UPDATED, and moves the floors.
func (s *Service) accepted(r *record) {
	if r.Trial != nil {
		defer r.endTrial(r.Trial.Bank)
	}
	for _, c := range s.components {
		cr := r.Components[c.Name]
		switch {
		case cr.State == Trial:
			s.keep(r, c.Component, evAccept)
		case cr.State == Staged && !c.Live:
			s.keep(r, c.Component, evInstalled)
		}
		if cr.Carried {
			cr.Carried, cr.image().Head = false, nil
		}
	}
}

// keep makes the active image of a component the one that is kept.
func (s *Service) keep(r *record, c Component, e event) {
	cr := r.Components[c.Name]
	to := s.move(r, c, e)
	cr.set(to, Success, "", "")
	cr.raiseFloor(r)
	if to == Ready {
		cr.second().Image = nil
	}
}

// Rejection is why an update is given up.
type Rejection struct {
	Error  Status // number that is reported as the components' error; 0: none
	Reason Reason // ReasonRejected, which is the default, ReasonTrialCheck or ReasonTrialDeadline
	Text   string // for people, MaxRejectText bytes at most; empty: what the reason says by itself
}

// MaxRejectText is how long the text of a Rejection may be, in bytes: it is kept in the record.
const MaxRejectText = 256

// complete fills in what is not said, and refuses what cannot be recorded.
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
	rejected := append(s.inState(Trial), s.inState(Staged)...) // both only where the new bank's configuration does not know a member as such: it is TRIAL then
	if len(rejected) == 0 {
		return 0, refuse(BadState, ReasonState, "reject: no component is STAGED or TRIAL")
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

// rejection is what a reject of these components is made of: a bank that is STAGED or in TRIAL, or live components in TRIAL.
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

// finishReject is what is left of a reject once the record has it: the images are destroyed before their components are FAILED.
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

func (s *Service) rejectLive(trial []*component, why Rejection) plan {
	r := s.record()
	p := plan{do: []effect{save{"FAILED", func(r *record) {
		for _, c := range trial {
			cr := r.Components[c.Name]
			to := s.move(r, c.Component, evReject)
			cr.remember(cr.image().Digest)
			cr.Active = 1 - cr.Active
			cr.fail(to, why.Error, why.Reason, why.Text)
		}
	}}}}
	for _, c := range trial {
		p.do = append(p.do, link{c.ID, 1 - r.Components[c.Name].Active, true})
	}
	for _, c := range trial {
		p.do = append(p.do, destroy{c.ID, r.Components[c.Name].Active, true})
	}
	return p
}

// each calls f for every component of r in a state.
func (s *Service) each(r *record, st State, f func(*componentRecord)) {
	for _, c := range s.components {
		if cr := r.Components[c.Name]; cr.State == st {
			f(cr)
		}
	}
}

// destroyTrial destroys the heads of the bank in trial: of the images that were installed, and of those that were carried over.
func (s *Service) destroyTrial(r *record) []effect {
	var out []effect
	for _, c := range s.components {
		if cr := r.Components[c.Name]; !c.Live && (cr.State.bound() || cr.Carried) {
			out = append(out, destroy{c.ID, r.Trial.Bank.Index(), true})
		}
	}
	return out
}

// dissolve ends a trial without success: its members become what e makes of their state, what was carried over becomes nothing again.
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

func imageIn(cr *componentRecord, b Bank) *imageRecord {
	if img := cr.Slots[b.Index()].Image; img != nil {
		return img
	}
	return &imageRecord{}
}
