package conformance

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// bench drives one device for the tables: it brings components into a state as a client would, and knows which images it delivered. It has no model.
type bench struct {
	Profile
	impl   Implementation
	units  []*unit
	serial uint64
	named  []fwu.ID // components that the last error named
	last   fwu.Status
	seen   func(transition)
	// rebooted: the last step was a reboot.
	rebooted bool
}

type componentInfo = fwu.ComponentInfo

// unit is a component of the bench.
type unit struct {
	Config
	old, new image // before the update, and delivered by it
	fresh    bool  // new is active
	away     bool  // the active location is not the one of the factory state
	floor    uint64
	del      *Delivery
	next     int64 // how much of the stream was written
}

func newBench(p Profile, impl Implementation, comps []Config) *bench {
	b := &bench{Profile: p, impl: impl}
	for _, c := range comps {
		b.units = append(b.units, &unit{Config: c, old: image{c.Image, c.Version, c.Sequence}, floor: c.Sequence})
	}
	return b
}

// rejectedWith is the error that the bench rejects with: nothing that a service would come up with.
const rejectedWith fwu.Status = -77

// absent is a component that no device of the suite has.
const absent fwu.ID = 200

func ctx() context.Context { return context.Background() }

// note keeps status and names of an answer.
func (b *bench) note(s fwu.Status, err error) fwu.Status {
	b.last, b.named = statusOf(s, err), namedIn(err)
	return b.last
}

func (b *bench) err(err error) fwu.Status { return b.note(fwu.Success, err) }

// image makes an image that was never delivered before: two and a bit units of the write alignment.
func (b *bench) image() []byte {
	b.serial++
	img := make([]byte, 2*b.Alignment+b.Alignment/2+1)
	fill(img, b.serial<<20)
	return img
}

// meta is a fresh version, and the lowest sequence number that is permitted.
func (b *bench) meta(u *unit) Meta {
	return Meta{Version: fwu.Version{Major: 2, Minor: uint8(b.serial >> 16), Patch: uint16(b.serial), Build: uint32(u.ID)}, Sequence: u.floor}
}

// deliver prepares a fresh delivery.
func (b *bench) deliver(u *unit, d Defect) error { return b.deliverImage(u, b.image(), d) }

func (b *bench) deliverImage(u *unit, img []byte, d Defect) error {
	m := b.meta(u)
	return b.deliverMeta(u, img, m, d)
}

func (b *bench) deliverMeta(u *unit, img []byte, m Meta, d Defect) error {
	del, err := deliver(b.impl, u.Config, img, m, d)
	if err != nil {
		return err
	}
	u.del, u.next = del, 0
	u.new = image{img, m.Version, m.Sequence}
	if u.Manifest == fwu.None {
		u.new = image{img, fwu.Version{}, u.floor}
	}
	return nil
}

func (b *bench) start(u *unit) fwu.Status {
	return b.err(b.impl.API().Start(ctx(), u.ID, u.del.Manifest))
}

// block is the next of the stream.
func (b *bench) block(u *unit) []byte {
	rest := u.del.Stream[min(u.next, int64(len(u.del.Stream))):]
	size := b.Alignment
	if int64(len(u.del.Stream)) > 64*b.Alignment {
		size = b.MaxWrite
	}
	return rest[:min(int64(len(rest)), size)]
}

// write writes the next block of the stream.
func (b *bench) write(u *unit) fwu.Status {
	block := b.block(u)
	s := b.err(b.impl.API().Write(ctx(), u.ID, u.next, block))
	if s == fwu.Success {
		u.next += int64(len(block))
	}
	return s
}

// writeRest writes until leave blocks are left, or until an error.
func (b *bench) writeRest(u *unit, leave int64) fwu.Status {
	for int64(len(u.del.Stream))-u.next > leave*b.Alignment {
		if s := b.write(u); s != fwu.Success {
			return s
		}
	}
	return fwu.Success
}

func (b *bench) finish(u *unit) fwu.Status { return b.err(b.impl.API().Finish(ctx(), u.ID)) }
func (b *bench) cancel(u *unit) fwu.Status { return b.err(b.impl.API().Cancel(ctx(), u.ID)) }
func (b *bench) clean(u *unit) fwu.Status  { return b.err(b.impl.API().Clean(ctx(), u.ID)) }
func (b *bench) install() fwu.Status       { return b.note(b.impl.API().Install(ctx())) }
func (b *bench) accept() fwu.Status        { return b.err(b.impl.API().Accept(ctx())) }
func (b *bench) reject(e fwu.Status) fwu.Status {
	return b.note(b.impl.API().Reject(ctx(), fwu.Rejection{Error: e}))
}

// reboot restarts, and checks that what was said to be durable is still there.
func (b *bench) reboot(how Reboot) error {
	promised, err := b.written()
	if err != nil {
		return err
	}
	if err := b.impl.Reboot(how); err != nil {
		return fmt.Errorf("%v: %w", how, err)
	}
	left, err := b.written()
	if err != nil {
		return err
	}
	for id, n := range left {
		if was, ok := promised[id]; ok && n < was {
			return fmt.Errorf("component %d: %d bytes left after a %v, %d were said to be durable", id, n, how, was)
		}
	}
	b.last, b.named, b.rebooted = fwu.Success, nil, how != Restart
	return nil
}

// written is what the components that are WRITING say is durable.
func (b *bench) written() (map[fwu.ID]int64, error) {
	w := map[fwu.ID]int64{}
	for _, u := range b.units {
		info, err := b.query(u)
		if err != nil {
			return nil, err
		}
		if b.Progress && info.State == fwu.Writing {
			w[u.ID] = info.Impl.Written
		}
	}
	return w, nil
}

func (b *bench) query(u *unit) (fwu.Info, error) { return b.impl.API().Query(ctx(), u.ID) }

// event carries out a line of the matrix; u is what it is about, if it is about one component. finish writes first what is left.
func (b *bench) event(name string, u *unit) error {
	switch name {
	case "start":
		saved := *u
		if err := b.deliver(u, Sound); err != nil {
			return err
		}
		if b.start(u) != fwu.Success {
			*u = saved // what was delivered before still counts
		}
	case "write":
		if u.del == nil || len(b.block(u)) == 0 { // valid arguments, whatever the state is
			b.err(b.impl.API().Write(ctx(), u.ID, 0, make([]byte, b.Alignment)))
			return nil
		}
		b.write(u)
	case "finish":
		if u.del != nil {
			if s := b.writeRest(u, 0); s != fwu.Success && s != fwu.BadState {
				return fmt.Errorf("write: %v", s)
			}
		}
		b.finish(u)
	case "cancel":
		b.cancel(u)
	case "clean":
		b.clean(u)
	case "install":
		b.install()
	case "accept":
		b.accept()
	case "reject":
		b.reject(rejectedWith)
	case "request-reboot":
		b.err(b.impl.API().RequestReboot(ctx()))
	case "reboot":
		return b.reboot(Normal)
	case "reboot-failing":
		return b.reboot(Failing)
	case "reboot-bypassed":
		return b.reboot(Bypassed)
	case "service-restart":
		return b.reboot(Restart)
	default:
		return fmt.Errorf("%q is no event", name)
	}
	return nil
}

// must turns an unexpected status of a preparing step into an error.
func must(what string, got fwu.Status, want ...fwu.Status) error {
	if slices.Contains(want, got) {
		return nil
	}
	return fmt.Errorf("%s: got %v, want %v", what, got, orStatuses(want))
}

func orStatuses(all []fwu.Status) string {
	var words []string
	for _, s := range all {
		words = append(words, s.String())
	}
	return strings.Join(words, " or ")
}

// ready brings every component to READY, as a client would that knows nothing but the API.
func (b *bench) ready() error {
	for range 6 {
		idle := true
		for _, u := range b.units {
			info, err := b.query(u)
			if err != nil {
				return err
			}
			if info.State != fwu.Ready {
				idle = false
			}
			if err := b.towardsReady(u, info.State); err != nil {
				return fmt.Errorf("component %d, %v: %w", u.ID, info.State, err)
			}
		}
		if idle {
			return nil
		}
	}
	return fmt.Errorf("a component does not come back to READY")
}

func (b *bench) towardsReady(u *unit, s fwu.State) error {
	switch s {
	case fwu.Writing, fwu.Candidate:
		return must("cancel", b.cancel(u), fwu.Success)
	case fwu.Staged, fwu.Trial:
		return must("reject", b.reject(0), fwu.Success, fwu.SuccessReboot)
	case fwu.Rejected:
		return b.reboot(Normal)
	case fwu.Failed, fwu.Updated:
		return must("clean", b.clean(u), fwu.Success)
	}
	return nil
}

// settle makes what is active after ready the old image.
func (b *bench) settle() error {
	for _, u := range b.units {
		info, err := b.query(u)
		if err != nil {
			return err
		}
		u.away = info.Location == 1
		active, err := b.impl.Slot(u.ID, Active, len(u.new.Data))
		if err != nil {
			return err
		}
		if u.new.Data != nil && bytes.Equal(active, u.new.Data) {
			u.old = u.new
			if u.Manifest != fwu.None {
				u.floor = max(u.floor, u.old.Sequence)
			}
		}
		u.fresh, u.new, u.del, u.next = false, image{}, nil, 0
	}
	return nil
}

// stages are the calls that lead from READY to a state. What is left of a stream in WRITING is its last block.
func stages(v Variant, s fwu.State) []string {
	prepared := []string{"start", "write-most"}
	candidate := append(slices.Clone(prepared), "write", "finish")
	staged := append(slices.Clone(candidate), "install")
	trial := staged
	if v.Reboot {
		trial = append(slices.Clone(staged), "reboot")
	}
	switch s {
	case fwu.Writing:
		return prepared
	case fwu.Candidate:
		return candidate
	case fwu.Staged:
		return staged
	case fwu.Failed:
		return append(slices.Clone(prepared), "cancel")
	case fwu.Trial:
		return trial
	case fwu.Rejected:
		return append(slices.Clone(trial), "reject")
	case fwu.Updated:
		if v.Trial {
			return append(slices.Clone(trial), "accept")
		}
		return trial
	}
	return nil
}

// bring brings components from READY to states. Those that are installed come first: those that need a reboot before the others, for a reboot would change the others,
// and UPDATED before TRIAL, for there is only one installation at a time.
func (b *bench) bring(want []place) error {
	rank := func(i int) int {
		v := b.units[i].Variant
		switch want[i].state {
		case fwu.Updated:
			if v.Reboot {
				return 0
			}
			return 1
		case fwu.Staged, fwu.Trial, fwu.Rejected:
			return 2
		}
		return 3
	}
	for r := range 4 {
		var group []int
		for i := range want {
			if rank(i) == r && want[i].state != fwu.Ready {
				group = append(group, i)
			}
		}
		if err := b.bringGroup(group, want); err != nil {
			return err
		}
	}
	return b.checkAll(want)
}

// checkAll compares all components with what is wanted.
func (b *bench) checkAll(want []place) error {
	for i, u := range b.units {
		u.fresh = want[i].fresh
	}
	for i, u := range b.units {
		if err := b.check(u, want[i], nil); err != nil {
			return err
		}
	}
	return nil
}

// flipped tells whether the active location is not the one that it was before the update.
func (b *bench) flipped(u *unit) bool {
	return u.fresh || b.Bank && u.Variant.Reboot && slices.ContainsFunc(b.units, func(o *unit) bool { return o.Variant.Reboot && o.fresh })
}

// bringGroup takes components of one rank forward together, as whole-system calls do.
func (b *bench) bringGroup(group []int, want []place) error {
	longest := 0
	for _, i := range group {
		longest = max(longest, len(stages(b.units[i].Variant, want[i].state)))
	}
	for n := range longest {
		done := map[string]bool{}
		for _, i := range group {
			steps := stages(b.units[i].Variant, want[i].state)
			if n >= len(steps) || done[steps[n]] {
				continue
			}
			if err := b.stage(steps[n], b.units[i]); err != nil {
				return fmt.Errorf("preparation: component %d: %s: %w", b.units[i].ID, steps[n], err)
			}
			switch steps[n] {
			case "install", "accept", "reject", "reboot":
				done[steps[n]] = true
			}
		}
	}
	return nil
}

func (b *bench) stage(step string, u *unit) error {
	if step == "write-most" {
		return must(step, b.writeRest(u, 1), fwu.Success)
	}
	if err := b.event(step, u); err != nil {
		return err
	}
	return must(step, b.last, fwu.Success, fwu.SuccessReboot)
}

// check compares a component with what is wanted; u.fresh says which image is active. err may be nil: any.
func (b *bench) check(u *unit, want place, errField *fwu.Status) error {
	info, err := b.query(u)
	if err != nil {
		return fmt.Errorf("query component %d: %w", u.ID, err)
	}
	active, other := u.old, u.new
	if u.fresh {
		active, other = u.new, u.old
	}
	var bad []string
	differ := func(what string, got, want any) {
		if got != want {
			bad = append(bad, fmt.Sprintf("%s: got %v, want %v", what, got, want))
		}
	}
	differ("state", info.State, want.state)
	differ("version", info.Version, active.Version)
	differ("maximum size", info.MaxSize, u.Size)
	differ("volatile-staging flag", info.Flags&fwu.FlagVolatileStaging != 0, u.Variant.Volatile)
	differ("encryption flag", info.Flags&fwu.FlagEncryption != 0, false)
	if b.Location {
		differ("location is the second of the device", info.Location == 1, u.away != b.flipped(u))
	}
	if errField != nil && (want.state == fwu.Failed || want.state == fwu.Rejected) {
		differ("error", info.Error, *errField)
	}
	if b.Progress && want.state == fwu.Writing {
		whole := u.del != nil && info.Impl.Written == int64(len(u.del.Stream))
		differ("written is a multiple of the alignment, or all", whole || info.Impl.Written%b.Alignment == 0, true)
		differ("written too large", info.Impl.Written > u.next, false)
	}
	if len(bad) > 0 {
		return fmt.Errorf("component %d: %s", u.ID, strings.Join(bad, "; "))
	}
	if int64(len(other.Data)) > u.Size { // no location can hold it
		other.Data = nil
	}
	h := holds{state: want.state, active: active.Data, other: other.Data, sealed: b.Sealed, carried: b.Bank && u.Variant.Reboot && len(b.units) > 1}
	return h.check(b.impl, u.ID)
}

// holds is what the two locations hold (section 4.1; table 4).
type holds struct {
	state   fwu.State
	active  []byte
	other   []byte // the image of the update that is not active: candidate, or previous; nil: none
	sealed  bool   // nothing can be booted from the second location unless the state says so
	carried bool   // READY does not rule out a second copy of the active image: the component follows its bank
}

func (h holds) check(impl Implementation, id fwu.ID) error {
	got, err := impl.Slot(id, Active, len(h.active))
	if err != nil {
		return fmt.Errorf("component %d: read active location: %w", id, err)
	}
	if !bytes.Equal(got, h.active) {
		return fmt.Errorf("component %d, %v: the active location does not hold the image that ought to be active", id, h.state)
	}
	must, mustNot := h.second()
	for _, img := range append(slices.Clone(mustNot), must...) {
		if len(img) == 0 {
			continue
		}
		got, err := impl.Slot(id, Second, len(img))
		if err != nil {
			return fmt.Errorf("component %d: read second location: %w", id, err)
		}
		wanted := len(must) > 0
		if bytes.Equal(got, img) != wanted {
			return fmt.Errorf("component %d, %v: the second location holds the other image: %v, want %v", id, h.state, !wanted, wanted)
		}
	}
	return nil
}

// second is which image the second location must hold so that it can be booted, and which it must not.
func (h holds) second() (must, mustNot [][]byte) {
	switch h.state {
	case fwu.Staged, fwu.Trial, fwu.Rejected:
		return [][]byte{h.other}, nil
	case fwu.Updated:
		return nil, nil
	}
	if !h.sealed {
		return nil, nil
	}
	mustNot = [][]byte{h.other}
	if !h.carried {
		mustNot = append(mustNot, h.active)
	}
	return nil, mustNot
}
