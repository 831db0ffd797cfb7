package conformance

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// A script is a story in one line: steps separated by semicolons, each
//
//	[n:]command [arguments] [= STATUS[|STATUS] [STATE['][!error]]]
//
// n is the component, 1 if it is left out. Without "=" the status must be a success. Commands are
//
//	deliver [defect] [option]   prepare a fresh image; options: seq+1 and seq-1 (relative to the lowest sequence number that is permitted), again (the image
//	                            before), units=N (its size in units), whole and too-large (as large as a location, and one byte more), needs=N:active,
//	                            needs=N:newer and needs=N:never (depends on component N, which has to have at least the version that is active, a newer one,
//	                            or one that nobody makes)
//	start                       with the manifest that goes with the image
//	start-bare, start-empty, start-with-manifest
//	                            with nil, with an empty slice, with a manifest whether one is expected or not
//	write OFFSET SIZE           with the bytes of the stream at OFFSET
//	write-block N, write-wrong N
//	                            the Nth block of the stream; another content of the same size
//	write-rest                  all that is left
//	send                        all that is left, then finish; its status is the first error. Where the manifest is bundled, write or finish may find a fault
//	resume                      go on where the service says, if it says so, else from the beginning
//	unknown-CALL                CALL for a component that does not exist
//	reject=N                    reject with that error
//	tamper                      change what the second location holds, behind the service's back
//	cleaned                     clean, if the component is FAILED or UPDATED
//	settle                      what is active now is the old image
//
// and the events of the matrices in figures.go. Offsets: a number, or unit, half (a unit), slot (the size of a location), end (of the image, rounded up), last
// (the beginning of the last unit of the image), rest (what the image has from there), tail (the beginning of the last unit of the location), overflow (the highest offset), far (2^40), next (how far the stream was written); "-" before and "+unit" after them. Sizes: the same, and max (of write).
// A state that the profile makes volatile is READY after a reboot. Errors: 0 after a cancel, g after a loss to a reboot, e after reject, s the status of the step itself, or a number.

// run carries out a script.
func (b *bench) run(script string) error {
	for i, step := range strings.Split(script, ";") {
		if err := b.step(strings.TrimSpace(step)); err != nil {
			return fmt.Errorf("step %d, %q: %w", i+1, strings.TrimSpace(step), err)
		}
	}
	return nil
}

func (b *bench) step(step string) error {
	do, want, _ := strings.Cut(step, " = ")
	u := b.units[0]
	if n, rest, ok := strings.Cut(do, ":"); ok && len(n) == 1 {
		u, do = b.units[n[0]-'1'], rest
	}
	words := strings.Fields(do)
	b.rebooted = false
	if err := b.command(u, words[0], words[1:]); err != nil {
		return err
	}
	if want == "" {
		return must(words[0], b.last, fwu.Success, fwu.SuccessReboot)
	}
	status, state, _ := strings.Cut(want, " ")
	allowed, err := parseStatuses(status)
	if err != nil {
		return err
	}
	if err := must(words[0], b.last, allowed...); err != nil {
		return err
	}
	if state == "" {
		return nil
	}
	return b.checkPlace(u, state)
}

// checkPlace checks a component against STATE['][!error].
func (b *bench) checkPlace(u *unit, s string) error {
	name, e, hasErr := strings.Cut(s, "!")
	p, err := parsePlace(name)
	if err != nil {
		return err
	}
	u.fresh = p.fresh
	if b.rebooted && b.lost(p.state) {
		p.state = fwu.Ready
	}
	if !hasErr {
		return b.check(u, p, nil)
	}
	want, err := b.errorOf(e)
	if err != nil {
		return err
	}
	return b.check(u, p, &want)
}

// lost tells whether a state is volatile although staging is not.
func (p Profile) lost(s fwu.State) bool {
	return s == fwu.Writing && p.WritingVolatile || s == fwu.Failed && p.FailedVolatile || s == fwu.Updated && p.UpdatedVolatile
}

func (b *bench) errorOf(e string) (fwu.Status, error) {
	switch e {
	case "0":
		return b.CancelError, nil
	case "g":
		return b.LostError, nil
	case "e":
		return rejectedWith, nil
	case "s":
		return b.last, nil
	}
	n, err := strconv.ParseInt(e, 10, 32)
	return fwu.Status(n), err
}

// statuses are those of section 5.2.
func statuses() []fwu.Status {
	return []fwu.Status{fwu.Success, fwu.SuccessReboot, fwu.SuccessRestart, fwu.GenericError, fwu.NotPermitted, fwu.NotSupported, fwu.InvalidArgument, fwu.BadState,
		fwu.DoesNotExist, fwu.InsufficientMemory, fwu.InsufficientStorage, fwu.CommunicationFailure, fwu.StorageFailure, fwu.InvalidSignature,
		fwu.DependencyNeeded, fwu.FlashAbuse, fwu.InsufficientPower}
}

func parseStatuses(s string) ([]fwu.Status, error) {
	var all []fwu.Status
	for _, name := range strings.Split(s, "|") {
		i := slices.IndexFunc(statuses(), func(st fwu.Status) bool { return st.String() == name })
		if i < 0 {
			return nil, fmt.Errorf("%q is no status", name)
		}
		all = append(all, statuses()[i])
	}
	return all, nil
}

func (b *bench) command(u *unit, name string, args []string) error {
	if u.del == nil && slices.Contains([]string{"start", "start-with-manifest", "write-block", "write-wrong", "write-rest", "send", "resume"}, name) {
		return fmt.Errorf("%s: nothing was delivered", name)
	}
	api := b.impl.API()
	switch name {
	case "deliver":
		b.last = fwu.Success
		return b.deliverAs(u, args)
	case "start":
		b.start(u)
	case "start-bare":
		b.err(api.Start(ctx(), u.ID, nil))
	case "start-empty":
		b.err(api.Start(ctx(), u.ID, []byte{}))
	case "start-with-manifest":
		b.err(api.Start(ctx(), u.ID, append([]byte("manifest of no known format"), u.del.Manifest...)))
	case "write":
		return b.writeSymbolic(u, args)
	case "write-block", "write-wrong":
		return b.writeBlock(u, name, args)
	case "write-rest":
		b.writeRest(u, 0)
	case "send":
		if b.writeRest(u, 0) == fwu.Success {
			b.finish(u)
		}
	case "resume":
		return b.resume(u)
	case "finish": // unlike the event, without writing
		b.finish(u)
	case "settle":
		b.last = fwu.Success
		return b.settle()
	case "cleaned":
		b.last = fwu.Success
		return b.cleaned(u)
	case "tamper":
		b.last = fwu.Success
		return b.impl.(Tamperer).Tamper(u.ID)
	default:
		if call, ok := strings.CutPrefix(name, "unknown-"); ok {
			return b.unknown(call)
		}
		if n, ok := strings.CutPrefix(name, "reject="); ok {
			e, err := strconv.ParseInt(n, 10, 32)
			b.reject(fwu.Status(e))
			return err
		}
		return b.event(name, u)
	}
	return nil
}

// cleaned: with volatile staging a reboot has cleaned already.
func (b *bench) cleaned(u *unit) error {
	info, err := b.query(u)
	if err == nil && (info.State == fwu.Failed || info.State == fwu.Updated) {
		b.clean(u)
	}
	return err
}

// unknown makes a call for a component that does not exist, with arguments that are otherwise good.
func (b *bench) unknown(name string) error {
	api := b.impl.API()
	switch name {
	case "query":
		_, err := api.Query(ctx(), absent)
		b.err(err)
	case "start":
		b.err(api.Start(ctx(), absent, nil))
	case "write":
		b.err(api.Write(ctx(), absent, 0, make([]byte, b.Alignment)))
	case "finish":
		b.err(api.Finish(ctx(), absent))
	case "cancel":
		b.err(api.Cancel(ctx(), absent))
	case "clean":
		b.err(api.Clean(ctx(), absent))
	default:
		return fmt.Errorf("%q is no call with a component", name)
	}
	return nil
}

func (b *bench) deliverAs(u *unit, args []string) error {
	img, defect, seq, needs := b.image(), Sound, int64(0), []Need(nil)
	for _, a := range args {
		key, val, _ := strings.Cut(a, "=")
		switch key {
		case "seq+1":
			seq = 1
		case "seq-1":
			seq = -1
		case "again":
			img = u.del.Image
		case "units":
			n, err := strconv.ParseInt(val, 10, 32)
			if err != nil {
				return err
			}
			img = grown(img, n*b.Alignment)
		case "whole":
			img = grown(img, u.Size)
		case "too-large":
			img = grown(img, u.Size+1)
		case "needs":
			needs = append(needs, b.need(val))
		default:
			for defect = BadSignature; defect <= Truncated; defect++ {
				if strings.ReplaceAll(defect.String(), " ", "-") == key {
					break
				}
			}
			if defect > Truncated {
				return fmt.Errorf("%q is no defect and no option", key)
			}
		}
	}
	m := b.meta(u)
	m.Sequence, m.Needs = uint64(int64(m.Sequence)+seq), needs
	return b.deliverMeta(u, img, m, defect)
}

// grown is an image of n bytes that begins like img, or is its beginning.
func grown(img []byte, n int64) []byte {
	g := make([]byte, n)
	fill(g, uint64(img[0])<<8|uint64(img[1]))
	copy(g, img)
	return g
}

// need reads N:active, N:newer or N:never.
func (b *bench) need(s string) Need {
	n, which, _ := strings.Cut(s, ":")
	u := b.units[n[0]-'1']
	v := u.old.Version
	switch which {
	case "newer":
		v.Build++
	case "never":
		v = fwu.Version{Major: 250}
	}
	return Need{u.ID, v}
}

func (b *bench) writeSymbolic(u *unit, args []string) error {
	off, err := b.number(u, args[0])
	if err != nil {
		return err
	}
	size, err := b.number(u, args[1])
	if err != nil {
		return err
	}
	block := make([]byte, size)
	if u.del != nil && off >= 0 && off < int64(len(u.del.Stream)) {
		copy(block, u.del.Stream[off:])
	}
	if b.err(b.impl.API().Write(ctx(), u.ID, off, block)) == fwu.Success {
		u.next = max(u.next, off+size)
	}
	return nil
}

func (b *bench) writeBlock(u *unit, name string, args []string) error {
	n, err := strconv.ParseInt(args[0], 10, 32)
	if err != nil {
		return err
	}
	off := n * b.Alignment
	block := append([]byte{}, u.del.Stream[off:min(off+b.Alignment, int64(len(u.del.Stream)))]...)
	if name == "write-wrong" {
		block[len(block)-1] ^= 1
	}
	if b.err(b.impl.API().Write(ctx(), u.ID, off, block)) == fwu.Success {
		u.next = max(u.next, off+int64(len(block)))
	}
	return nil
}

// resume goes on where Info.Impl.Written says.
func (b *bench) resume(u *unit) error {
	info, err := b.query(u)
	if err != nil {
		return err
	}
	u.next = 0
	if b.Progress {
		u.next = info.Impl.Written
	}
	b.writeRest(u, 0)
	return nil
}

func imageSize(u *unit) int64 {
	if u.del == nil {
		return 0
	}
	return int64(len(u.del.Image))
}

// number reads an offset or a size.
func (b *bench) number(u *unit, s string) (int64, error) {
	name, plus, _ := strings.Cut(s, "+")
	name, negative := strings.CutPrefix(name, "-")
	end := (imageSize(u) + b.Alignment - 1) / b.Alignment * b.Alignment
	n, ok := map[string]int64{
		"unit": b.Alignment, "half": b.Alignment / 2, "slot": u.Size, "end": end, "last": end - b.Alignment, "rest": b.Alignment - end + imageSize(u), "tail": u.Size - b.Alignment, "far": 1 << 40, "next": u.next,
		"overflow": math.MaxInt64 - b.Alignment + 1, "max": b.MaxWrite,
	}[name]
	if !ok {
		var err error
		if n, err = strconv.ParseInt(name, 10, 64); err != nil {
			return 0, err
		}
	}
	if negative {
		n = -n
	}
	switch plus {
	case "":
	case "unit":
		n += b.Alignment
	default:
		d, err := strconv.ParseInt(plus, 10, 64)
		if err != nil {
			return 0, err
		}
		n += d
	}
	return n, nil
}
