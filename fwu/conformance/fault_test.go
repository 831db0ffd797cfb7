package conformance

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// fault is something that an implementation could get wrong.
type fault struct {
	name string
	// step changes what the model does; it gets the plainest outcome.
	step func(before system, c call, o *outcome)
	// tableOnly: the walk does not go where it would be seen.
	tableOnly bool
}

// each changes the components of an outcome; was is what they were.
func each(f func(c call, was component, is *component)) func(system, call, *outcome) {
	return func(before system, c call, o *outcome) {
		o.next = o.next.clone()
		for i := range o.next.comps {
			f(c, before.comps[i], &o.next.comps[i])
		}
	}
}

func rebooted(c call) bool { return strings.HasPrefix(c.event, "reboot") }

func accepted(o *outcome, next system) { *o = outcome{status: fwu.Success, next: next} }

// faults is what the suite has to find.
func faults() []fault {
	return []fault{
		{"write takes an unaligned offset", writeFault(func(s system, c call) bool { return c.off > 0 && c.off%s.Alignment != 0 }), false},
		{"write takes a negative offset", writeFault(func(s system, c call) bool { return c.off < 0 }), false},
		{"write takes a size of 0", writeFault(func(s system, c call) bool { return len(c.block) == 0 }), false},
		{"write takes more than the maximum", writeFault(func(s system, c call) bool { return int64(len(c.block)) > s.MaxWrite }), false},
		{"write takes an end that overflows", writeFault(func(s system, c call) bool { return c.off > 1<<62 && c.off%s.Alignment == 0 }), false},
		{"write takes what lies past the location", writeFault(func(s system, c call) bool { m := s.find(c.id); return m != nil && c.off == m.Size }), false},
		{"write takes what crosses the end of the location", writeFault(func(s system, c call) bool {
			m := s.find(c.id)
			return m != nil && c.off == m.Size-s.Alignment && int64(len(c.block)) == 2*s.Alignment
		}), false},
		{"write takes a gap in a bundle", writeFault(func(s system, c call) bool {
			m := s.find(c.id)
			return m.Manifest == fwu.Bundled && m.State == fwu.Writing && c.off != int64(len(m.Got)) && c.off%s.Alignment == 0 && c.off > 0 && c.off < m.Size && len(c.block) > 0
		}), false},
		{"write takes a gap after a restart, where no digest will find it", writeFault(func(s system, c call) bool {
			m := s.find(c.id)
			return m != nil && m.Manifest == fwu.None && m.State == fwu.Writing && m.Again && c.off > int64(len(m.Got)) && c.off < m.Size
		}), false},
		{"a bad argument of write ends the update", func(b system, c call, o *outcome) {
			if m := b.find(c.id); c.event == "write" && o.status == fwu.InvalidArgument && m.State == fwu.Writing {
				o.next = b.fail(c.id, o.status)[0].next
			}
		}, false},
		{"an unknown component is a bad state", func(_ system, _ call, o *outcome) {
			if o.status == fwu.DoesNotExist {
				o.status = fwu.BadState
			}
		}, false},
		{"start wants no manifest", func(b system, c call, o *outcome) {
			if m := b.find(c.id); c.event == "start" && m != nil && m.State == fwu.Ready && m.Manifest == fwu.Detached && len(c.manifest) == 0 {
				o.status = fwu.Success
			}
		}, false},
		{"a refused manifest fails the component", func(b system, c call, o *outcome) {
			if c.event == "start" && o.status == fwu.InvalidSignature {
				o.next = b.fail(c.id, o.status)[0].next
			}
		}, false},
		{"a manifest for another class is taken", func(b system, c call, o *outcome) {
			if c.event == "start" && o.status == fwu.NotPermitted && c.from != nil && c.from.Defect == WrongClass {
				c.from = &Delivery{Image: c.from.Image, Meta: c.from.Meta, Stream: c.from.Stream}
				*o = b.start(c)[0]
			}
		}, false},
		{"an older image is taken", func(b system, c call, o *outcome) {
			if m := b.find(c.id); c.event == "start" && o.status == fwu.NotPermitted && c.from != nil && c.from.Meta.Sequence < m.Floor {
				b = b.clone()
				b.find(c.id).Floor = 0
				*o = b.start(c)[0]
			}
		}, false},
		{"finish does not compare the digest", func(b system, c call, o *outcome) {
			if c.event == "finish" && o.status == fwu.InvalidSignature {
				d := b.find(c.id).From
				accepted(o, b.candidate(c.id, image{d.Image, d.Meta.Version, d.Meta.Sequence})[0].next)
			}
		}, false},
		{"finish takes an image that is too short", func(b system, c call, o *outcome) {
			if m := b.find(c.id); c.event == "finish" && o.status == fwu.InvalidArgument && m.Manifest == fwu.Detached {
				accepted(o, b.candidate(c.id, image{m.From.Image, m.From.Meta.Version, m.From.Meta.Sequence})[0].next)
			}
		}, false},
		{"finish takes a bundle that is too short", func(b system, c call, o *outcome) {
			if m := b.find(c.id); c.event == "finish" && o.status == fwu.InvalidArgument && m.Manifest == fwu.Bundled && m.From != nil {
				accepted(o, b.candidate(c.id, image{m.From.Image, m.From.Meta.Version, m.From.Meta.Sequence})[0].next)
			}
		}, false},
		{"a failed finish stays in WRITING", func(b system, c call, o *outcome) {
			if c.event == "finish" && o.status == fwu.InvalidSignature {
				o.next = b
			}
		}, false},
		{"cancel cleans as well", each(func(c call, was component, is *component) {
			if c.event == "cancel" && is.State == fwu.Failed && was.State != fwu.Failed {
				is.ready()
			}
		}), false},
		{"cancel leaves an error", each(func(c call, was component, is *component) {
			if c.event == "cancel" && was.State != is.State {
				is.Err = fwu.GenericError
			}
		}), false},
		{"cancel gives no reason", each(func(c call, was component, is *component) {
			if c.event == "cancel" && was.State != is.State {
				is.Reason = "other"
			}
		}), false},
		{"cancel does not take a candidate", func(b system, c call, o *outcome) {
			if m := b.find(c.id); c.event == "cancel" && m != nil && m.State == fwu.Candidate {
				*o = b.stay(fwu.BadState)[0]
			}
		}, false},
		{"a candidate can be booted before install", each(func(_ call, _ component, is *component) {
			if is.State == fwu.Candidate {
				*is.second() = is.New
			}
		}), false},
		{"a failed image can be booted", each(func(_ call, was component, is *component) {
			if is.State == fwu.Failed && was.State == fwu.Staged {
				*is.second() = was.New
			}
		}), false},
		{"clean leaves the previous image", each(func(c call, was component, is *component) {
			if c.event == "clean" && was.State == fwu.Updated && is.State == fwu.Ready {
				*is.second() = was.Slots[1-was.Act]
			}
		}), false},
		{"clean goes back to the previous image", each(func(c call, was component, is *component) {
			if c.event == "clean" && was.State == fwu.Updated && is.State == fwu.Ready {
				is.Slots = was.Slots
				is.Act = 1 - was.Act
			}
		}), false},
		{"the previous image is lost in a trial", each(func(_ call, was component, is *component) {
			if is.State == fwu.Trial && was.State != fwu.Trial {
				*is.second() = image{}
			}
		}), false},
		{"install takes one component only", each2(func(c call, before, after []component) {
			staged := false
			for i := range after {
				if c.event == "install" && before[i].State == fwu.Candidate && after[i].State == fwu.Staged {
					if staged {
						after[i] = before[i]
					}
					staged = true
				}
			}
		}), false},
		{"install says that no reboot is needed", func(_ system, c call, o *outcome) {
			if c.event == "install" && o.status == fwu.SuccessReboot {
				o.status = fwu.Success
			}
		}, false},
		{"install while another installation is under way", func(b system, c call, o *outcome) {
			if c.event != "install" || o.status != fwu.BadState {
				return
			}
			n, any := b.clone(), false
			for i := range n.comps {
				if m := &n.comps[i]; m.State == fwu.Candidate && !m.Variant.Reboot {
					any = true
					m.install(false)
				}
			}
			if any {
				accepted(o, n)
			}
		}, false},
		{"install does not look at the rest of the bank", func(b system, c call, o *outcome) {
			if c.event == "install" && o.status == fwu.DependencyNeeded {
				b.Bank = false
				*o = b.install()[0]
				o.next.Bank = true
			}
		}, false},
		{"install mixes what needs a reboot with what does not", func(b system, c call, o *outcome) {
			if c.event == "install" && o.status == fwu.NotPermitted {
				n := b.clone()
				for i := range n.comps {
					n.comps[i].install(true)
				}
				*o = outcome{status: fwu.SuccessReboot, next: n}
			}
		}, false},
		{"install does not look at dependencies", func(b system, c call, o *outcome) {
			if c.event == "install" && o.status == fwu.DependencyNeeded {
				n := b.clone()
				for i := range n.comps {
					if n.comps[i].From != nil {
						d := *n.comps[i].From
						d.Meta.Needs = nil
						n.comps[i].From = &d
					}
				}
				*o = n.install()[0]
			}
		}, false},
		{"a missing dependency fails the candidates", func(b system, c call, o *outcome) {
			if c.event == "install" && o.status == fwu.DependencyNeeded {
				for _, m := range b.comps {
					if m.State == fwu.Candidate {
						o.next = o.next.fail(m.ID, o.status)[0].next
					}
				}
			}
		}, false},
		{"a missing dependency is not named", func(_ system, _ call, o *outcome) { o.named = nil }, false},
		{"install does not verify again", func(b system, c call, o *outcome) {
			if c.event == "install" && o.status == fwu.InvalidSignature {
				n := b.clone()
				for i := range n.comps {
					n.comps[i].Tampered = false
				}
				*o = n.install()[0]
			}
		}, true},
		{"other members are not carried over", each(func(c call, was component, is *component) {
			if c.event == "install" && is.State == fwu.Ready {
				*is.second() = image{}
			}
		}), false},
		{"start while the bank is being installed", func(b system, c call, o *outcome) {
			if c.event == "start" && o.status == fwu.NotPermitted && b.busy(false) {
				b.Bank = false
				*o = b.start(c)[0]
				o.next.Bank = true
			}
		}, false},
		{"accept forgets a component", each2(func(c call, before, after []component) {
			n := 0
			for i := range after {
				if c.event == "accept" && before[i].State == fwu.Trial {
					if n++; n > 1 {
						after[i] = before[i]
					}
				}
			}
		}), false},
		{"accept where nothing is in TRIAL", func(_ system, c call, o *outcome) {
			if c.event == "accept" && o.status == fwu.BadState {
				o.status = fwu.Success
			}
		}, false},
		{"reject forgets the error", each(func(c call, was component, is *component) {
			if c.event == "reject" && was.State != is.State {
				is.Err = 0
			}
		}), false},
		{"reject of a trial needs no reboot", each(func(c call, was component, is *component) {
			if c.event == "reject" && is.State == fwu.Rejected {
				is.fail(c.err, is.Reason)
			}
		}), false},
		{"reject does not take what is STAGED", func(b system, c call, o *outcome) {
			if c.event == "reject" && o.status == fwu.Success && b.busy(false) {
				*o = b.stay(fwu.BadState)[0]
			}
		}, false},
		{"the error of reject is lost by the reboot", each(func(c call, was component, is *component) {
			if rebooted(c) && was.State == fwu.Rejected && is.State == fwu.Failed {
				is.Err = fwu.GenericError
			}
		}), false},
		{"a trial survives a reboot", each2(func(c call, before, after []component) {
			for i := range after {
				if c.event == "reboot" && before[i].State == fwu.Trial && before[i].Variant.Reboot {
					after[i] = before[i]
				}
			}
		}), false},
		{"a trial without reboot is rolled back by one", each(func(c call, was component, is *component) {
			if rebooted(c) && is.State == fwu.Trial && !is.Variant.Reboot {
				is.Act = 1 - is.Act
				is.fail(fwu.GenericError, "")
			}
		}), false},
		{"a trial without reboot survives one with volatile staging", each(func(c call, was component, is *component) {
			if rebooted(c) && was.State == fwu.Trial && !is.Variant.Reboot {
				*is = was
			}
		}), false},
		{"volatile staging keeps a candidate", each(func(c call, was component, is *component) {
			if rebooted(c) && was.State == fwu.Candidate {
				*is = was
			}
		}), false},
		{"volatile staging keeps FAILED", each(func(c call, was component, is *component) {
			if rebooted(c) && was.State == fwu.Failed {
				*is = was
			}
		}), false},
		{"volatile staging keeps a lost trial FAILED", each(func(c call, was component, is *component) {
			if c.event == "reboot" && was.State == fwu.Trial && is.State == fwu.Ready && is.Variant.Reboot {
				is.fail(fwu.GenericError, "")
			}
		}), false},
		{"a candidate is lost by a reboot", each(func(c call, was component, is *component) {
			if rebooted(c) && is.State == fwu.Candidate {
				is.ready()
			}
		}), false},
		{"volatile staging is lost by a restart of the service", each(func(c call, was component, is *component) {
			if c.event == "service-restart" && is.State == fwu.Candidate && is.Variant.Volatile {
				is.ready()
			}
		}), false},
		{"a restart loses what was said to be durable", each(func(c call, was component, is *component) {
			if c.event == "service-restart" && is.State == fwu.Writing {
				is.Got, is.Units = nil, nil
			}
		}), false},
		{"a boot past the bootloader counts as a failure", each(func(c call, was component, is *component) {
			if c.event == "reboot-bypassed" && was.State == fwu.Staged && is.State == fwu.Candidate {
				is.fail(fwu.GenericError, "")
			}
		}), false},
		{"a failing installation is not reported", each(func(c call, was component, is *component) {
			if c.event == "reboot-failing" && was.State == fwu.Staged && is.State == fwu.Failed {
				is.ready()
			}
		}), false},
		{"the new version is told before it is active", each(func(_ call, _ component, is *component) {
			if is.State == fwu.Staged {
				is.Slots[is.Act].Version = is.New.Version
			}
		}), false},
		{"the version stays after the image was changed", each(func(_ call, was component, is *component) {
			if was.Act != is.Act {
				is.Slots[is.Act].Version = was.Slots[was.Act].Version
			}
		}), false},
		{"the location stays after the image was changed", each(func(_ call, was component, is *component) {
			if was.Act != is.Act {
				is.Act = was.Act
				is.Slots[0], is.Slots[1] = is.Slots[1], is.Slots[0]
			}
		}), false},
		{"the lowest sequence number moves with the trial", each(func(_ call, was component, is *component) {
			if is.State == fwu.Trial {
				is.Floor = max(is.Floor, is.Slots[is.Act].Sequence)
			}
		}), false},
		{"the lowest sequence number never moves", each(func(_ call, was component, is *component) { is.Floor = was.Floor }), false},
		{"an image is tried for ever", func(_ system, _ call, o *outcome) { o.next.lost = nil }, true},
	}
}

// writeFault answers SUCCESS to arguments of write that are wrong, and does nothing.
func writeFault(when func(system, call) bool) func(system, call, *outcome) {
	return func(before system, c call, o *outcome) {
		if c.event == "write" && o.status == fwu.InvalidArgument && when(before, c) {
			accepted(o, before)
		}
	}
}

func each2(f func(c call, before, after []component)) func(system, call, *outcome) {
	return func(before system, c call, o *outcome) {
		o.next = o.next.clone()
		f(c, before.comps, o.next.comps)
	}
}

func (f fault) device(_ testing.TB, comps []Config) Implementation {
	d := newModelDevice(smallProfile(), comps)
	d.step = func(s system, c call) []outcome {
		out := s.next(c)[0]
		out.next = out.next.clone()
		f.step(s, c, &out)
		return []outcome{out}
	}
	return d
}

// seeded is a source that needs no rapid.
type seeded struct{ r *rand.Rand }

func (s seeded) intn(_ string, n int) int { return s.r.IntN(n) }

func TestTheTableFindsEveryFault(t *testing.T) {
	o := Options{Profile: smallProfile()}.withDefaults()
	all, err := sheets(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			run := tableRun{newImpl: f.device, profile: o.Profile, first: true, seen: map[transition]bool{}}
			for _, s := range all {
				if errs := run.sheet(t, s); len(errs) > 0 {
					t.Logf("%s: %v", s.name, errs[0])
					return
				}
			}
			t.Error("no row fails")
		})
	}
}

func TestTheWalkFindsFaults(t *testing.T) {
	o := Options{Profile: smallProfile()}.withDefaults()
	for _, f := range faults() {
		if f.tableOnly {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			steps := 0
			for seed := range uint64(400) {
				src := seeded{rand.New(rand.NewPCG(seed, 0))}
				comps := randomComponents(src, o, variants()[seed%8])
				n, err := newWalker(src, f.device(t, comps), o.Profile, comps).walk(125)
				if steps += n; err != nil {
					t.Logf("found after %d steps", steps)
					return
				}
			}
			t.Errorf("not found in %d steps", steps)
		})
	}
}

func TestTheWalkIsReproducible(t *testing.T) {
	trace := func() string {
		o := Options{}.withDefaults()
		src := seeded{rand.New(rand.NewPCG(7, 7))}
		comps := randomComponents(src, o, Variant{Reboot: true, Trial: true})
		w := newWalker(src, NewModel(o.Profile, comps), o.Profile, comps)
		if _, err := w.walk(200); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(w.trace)
	}
	if first, second := trace(), trace(); first != second {
		t.Error("the same seed made two different walks")
	}
}
