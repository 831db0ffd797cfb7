package crash

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// states is a set of states.
type states []fwu.State

// rule says what a component may be found in after a cut, the boot that follows it, and the start of the service.
type rule struct {
	call   string // "": none on this component, or one that changes nothing of it
	live   bool
	trial  bool
	before fwu.State
	after  states
}

// rules are the states that the specification allows after a cut in a call, with non-volatile staging (figures 7, 9 and 10, section 4.2.5): a call that was cut
// happened or did not, the other bank is reached by an armed reboot only, and a trial that is not accepted ends in FAILED.
// What the specification leaves open is as the package fwu documents it: WRITING, CANDIDATE, FAILED and UPDATED survive.
func rules() []rule {
	const live, bank, trial, sure = true, false, true, false
	const ready, writing, candidate, staged, failed, onTrial, rejected, updated = fwu.Ready, fwu.Writing, fwu.Candidate, fwu.Staged, fwu.Failed, fwu.Trial, fwu.Rejected, fwu.Updated
	var out []rule
	for _, l := range []bool{live, bank} {
		for _, t := range []bool{trial, sure} {
			out = append(out,
				rule{"", l, t, ready, states{ready}},
				rule{"", l, t, writing, states{writing}},
				rule{"", l, t, candidate, states{candidate}},
				rule{"", l, t, failed, states{failed}},
				rule{"", l, t, updated, states{updated}},
				rule{"start", l, t, ready, states{ready, writing}},
				rule{"finish", l, t, writing, states{writing, candidate}},
				rule{"cancel", l, t, writing, states{writing, failed}},
				rule{"cancel", l, t, candidate, states{candidate, failed}},
				rule{"clean", l, t, failed, states{failed, ready}},
				rule{"clean", l, t, updated, states{updated, ready}},
			)
		}
	}
	return append(out,
		// An armed bank starts; the bootloader disarms before it starts it, and a cut between the two starts the old one.
		rule{"", bank, trial, staged, states{onTrial, failed}},
		rule{"", bank, sure, staged, states{updated, failed}},
		rule{"", bank, trial, onTrial, states{failed}},
		rule{"", bank, trial, rejected, states{failed}},
		rule{"install", bank, trial, candidate, states{candidate, failed, onTrial}},
		rule{"install", bank, sure, candidate, states{candidate, failed, updated}},
		rule{"accept", bank, trial, onTrial, states{failed, updated}},
		rule{"reject", bank, trial, staged, states{failed, onTrial}},
		rule{"reject", bank, sure, staged, states{failed, updated}},
		rule{"reject", bank, trial, onTrial, states{failed}},

		rule{"", live, trial, onTrial, states{onTrial}},
		rule{"install", live, trial, candidate, states{candidate, onTrial}},
		rule{"install", live, sure, candidate, states{candidate, updated}},
		rule{"accept", live, trial, onTrial, states{onTrial, updated}},
		rule{"reject", live, trial, onTrial, states{onTrial, failed}},
	)
}

// isGlobal tells which calls concern every component in the right state.
func isGlobal(call string) bool { return call == "install" || call == "accept" || call == "reject" }

// volatile turns what survives a reboot only with non-volatile staging into READY (section 4.2.5).
func volatile(c component, in states) states {
	var out states
	for _, s := range in {
		if s == fwu.Writing || s == fwu.Candidate || s == fwu.Failed || s == fwu.Updated || s == fwu.Trial && c.live {
			s = fwu.Ready
		}
		out = append(out, s)
	}
	return out
}

// allowed applies the rules to a component in a phase.
func (d device) allowed(c component, call string, own bool, before fwu.State) states {
	trial := d.trial
	if c.live {
		trial = c.trial
	}
	find := func(call string) states {
		for _, r := range rules() {
			if r.call == call && r.live == c.live && r.trial == trial && r.before == before {
				return r.after
			}
		}
		return nil
	}
	found := find("")
	if own {
		if f := find(call); f != nil {
			found = f
		}
	}
	if c.volatile {
		return volatile(c, found)
	}
	return found
}

// phase is a call of a story, or a boot: what was true before it and after it, and what may be found if the power fails in between.
type phase struct {
	from     int // position in the log
	call     string
	allowed  map[string]states
	defaults []fwu.Bank // before and after
	needed   []string   // slots that hold an image which is in use, or to which the device returns, before and after
	floors   map[string]uint64
	accepted map[string]int
	together []string // bank members that are installed together: they are found in one and the same state

	automatic int // reboots that the service asked for on its own, in this trial

	// What holds if nothing but the service dies: the system that runs, and the states.
	running *running
	killed  map[string]states
}

// running is a booted system.
type running struct {
	bank  fwu.Bank
	id    string
	boots int
	links map[string]string

	current []uint16
}

func (m *machine) running() *running {
	return &running{m.booted, m.bootID, m.boots, maps.Clone(m.links), m.current}
}

// calls lists what each call makes of a component, as the specification has it (section 5.6): what the service finds when it is started again in the same boot
// is that, or what was before.
func (d device) calls(c component, call string, before fwu.State) (after fwu.State, ok bool) {
	type row struct {
		call   string
		before fwu.State
	}
	trial := d.trial
	if c.live {
		trial = c.trial
	}
	installed, rejected := fwu.Staged, fwu.Rejected
	if c.live {
		installed, rejected = fwu.Trial, fwu.Failed
	}
	if c.live && !trial {
		installed = fwu.Updated
	}
	after, ok = map[row]fwu.State{
		{"start", fwu.Ready}:       fwu.Writing,
		{"finish", fwu.Writing}:    fwu.Candidate,
		{"cancel", fwu.Writing}:    fwu.Failed,
		{"cancel", fwu.Candidate}:  fwu.Failed,
		{"clean", fwu.Failed}:      fwu.Ready,
		{"clean", fwu.Updated}:     fwu.Ready,
		{"install", fwu.Candidate}: installed,
		{"accept", fwu.Trial}:      fwu.Updated,
		{"reject", fwu.Staged}:     fwu.Failed,
		{"reject", fwu.Trial}:      rejected,
	}[row{call, before}]
	return after, ok
}

// needed lists "slot=build" of every slot that the device lives on or returns to: those of the default bank, the active slot of a live component, and the one
// before that while it is on trial.
func (m *machine) needed() []string {
	var out []string
	for _, c := range m.dev.components {
		var banks []int
		if !c.live {
			banks = []int{m.selection().Default.Index()}
		} else if info, err := m.service.Query(context.Background(), c.id); err == nil {
			banks = []int{int(info.Location)}
			if info.State == fwu.Trial {
				banks = append(banks, 1-int(info.Location))
			}
		}
		for _, b := range banks {
			if b >= 0 {
				out = append(out, fmt.Sprintf("%s=%d", mediumOf(c.name, b), m.build(c.name, b)))
			}
		}
	}
	return out
}

// holds tells whether a slot holds what needed says.
func (m *machine) holds(needed string) bool {
	for _, c := range m.dev.components {
		for b := range 2 {
			if needed == fmt.Sprintf("%s=%d", mediumOf(c.name, b), m.build(c.name, b)) {
				return true
			}
		}
	}
	return false
}

// leftIntact checks what a cut in p left, before anything was started.
func (m *machine) leftIntact(p *phase) error {
	for _, n := range p.needed {
		if !m.holds(n) {
			return fmt.Errorf("%s is lost", n)
		}
	}
	if m.envLost {
		return nil
	}
	sel := m.selection()
	if !slices.Contains(p.defaults, sel.Default) {
		return fmt.Errorf("the default bank is %q, want one of %q", sel.Default, p.defaults)
	}
	return m.defaultWhole(sel)
}

func (m *machine) defaultWhole(sel fwu.Selection) error {
	if set := m.combination(sel.Default.Index(), nil); !m.sets[set] {
		return fmt.Errorf("the default bank %s is %s, which nobody installed", sel.Default, set)
	}
	return nil
}

// sound checks what holds whenever no call runs.
func (m *machine) sound() error {
	sel := m.selection()
	if sel.Default == fwu.NoBank {
		return fmt.Errorf("the environment names no default bank")
	}
	if err := m.defaultWhole(sel); err != nil {
		return err
	}
	if set := m.combination(m.booted.Index(), nil); !m.sets[set] {
		return fmt.Errorf("the running bank %s is %s", m.booted, set)
	}
	if sys := m.service.System(); len(sys.Degraded) > 0 && !m.stranded() {
		return fmt.Errorf("degraded: %v", sys.Why)
	}
	for _, c := range m.dev.components {
		if err := m.soundComponent(c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// stranded tells that the service used up its one automatic reboot, and came up in the rejected bank again: with the environment lost by that boot too, the bootloader
// takes the bank that it finds first. The service stays up then, refuses writes, and leaves the next reboot to the client.
func (m *machine) stranded() bool {
	return m.envLost && m.lostTwice && slices.Equal(m.service.System().Degraded, []fwu.Reason{fwu.ReasonRollbackFailed})
}

func (m *machine) soundComponent(c component) error {
	info, err := m.service.Query(context.Background(), c.id)
	if err != nil {
		return err
	}
	build := m.build(c.name, int(info.Location))
	if second := 1 - int(info.Location); (info.State == fwu.Writing || info.State == fwu.Candidate) && m.opens(c.name, second) {
		return fmt.Errorf("slot %d is opened by its second header (%s)", second, info.State)
	}
	switch {
	case build < 0 && m.storeLost && c.live && m.forgotten[c.name] && m.torn[c.name]:
		// The record is gone, and with it the only thing that tells a torn head from a whole one.
		return nil
	case build < 0:
		return fmt.Errorf("active slot %d holds no whole image (%s)", info.Location, info.State)
	case c.live && m.links[c.name] != mediumOf(c.name, int(info.Location)):
		return fmt.Errorf("slot %d is active and %s is in use", info.Location, m.links[c.name])
	case !c.live && info.Location != uint32(m.booted.Index()):
		return fmt.Errorf("slot %d is active and bank %s runs", info.Location, m.booted)
	case !m.forgotten[c.name] && info.Version != version(build):
		return fmt.Errorf("version %v is reported and build %d is active", info.Version, build)
	case !(m.envLost && (m.lostTwice || m.storeLost)) && !(m.storeLost && c.live) && build < m.accepted[c.name]: // where a record is lost and both slots are whole nothing tells which was accepted
		return fmt.Errorf("build %d runs, and build %d was accepted", build, m.accepted[c.name])
	case info.Impl.Sequence < m.floors[c.name]:
		return fmt.Errorf("floor %d, and it was %d", info.Impl.Sequence, m.floors[c.name])
	}
	m.floors[c.name] = info.Impl.Sequence
	if info.State == fwu.Updated || info.State == fwu.Ready {
		m.accepted[c.name] = max(m.accepted[c.name], build)
	}
	return nil
}

// opens tells whether a second header in a slot is plain.
func (m *machine) opens(name string, bank int) bool {
	b := make([]byte, len(secondHeader))
	m.media.Quiet(func() { _, _ = m.media.Medium(mediumOf(name, bank)).ReadAt(b, fwu.HeadSize) })
	return string(b) == secondHeader
}

// permitted checks the states after a cut in p and the boot that followed.
func (m *machine) permitted(p *phase) error { return m.among(p, p.allowed) }

func (m *machine) among(p *phase, allowed map[string]states) error {
	found := map[string]fwu.State{}
	for _, c := range m.dev.components {
		info, err := m.service.Query(context.Background(), c.id)
		if err != nil {
			return err
		}
		found[c.name] = info.State
		if !slices.Contains(allowed[c.name], info.State) {
			return fmt.Errorf("%s is %s after a cut in %s, want one of %v", c.name, info.State, p.call, allowed[c.name])
		}
	}
	for _, name := range p.together {
		if found[name] != found[p.together[0]] {
			return fmt.Errorf("%s is %s and %s is %s: they were installed together", p.together[0], found[p.together[0]], name, found[name])
		}
	}
	return nil
}

// widen makes of a phase what it is where the environment or the record was lost with the cut.
func (p *phase) widen(m *machine, d device) *phase {
	w := *p
	w.allowed = maps.Clone(p.allowed)
	for _, c := range d.components {
		switch {
		case m.storeLost && c.live:
			w.allowed[c.name] = states{fwu.Ready}
		case m.storeLost: // a trial of which nothing is known is ended by a reboot
			w.allowed[c.name] = states{fwu.Ready, fwu.Failed}
		case m.envLost && !c.live: // the bootloader starts what it finds first, and that is the active bank then
			w.allowed[c.name] = append(slices.Clone(p.allowed[c.name]), fwu.Ready, fwu.Failed, fwu.Candidate)
		}
	}
	return &w
}

// asReleased checks that a service whose record was lost reports what the running image says of itself, and takes nothing older.
func (m *machine) asReleased() error {
	release := m.runningRelease()
	for _, c := range m.dev.components {
		if !m.forgotten[c.name] {
			continue
		}
		info, err := m.service.Query(context.Background(), c.id)
		if err != nil {
			return err
		}
		if r := release[c.name]; info.Version != r.Version || info.Impl.Sequence < r.Sequence {
			return fmt.Errorf("%s has version %v and floor %d, and the release record says %v and %d", c.name, info.Version, info.Impl.Sequence, r.Version, r.Sequence)
		}
	}
	return nil
}
