package conformance

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
)

func modelOf(p Profile) NewFunc {
	return func(_ testing.TB, comps []Config) Implementation { return NewModel(p, comps) }
}

// smallProfile is ours, with blocks that cost little.
func smallProfile() Profile {
	p := DefaultProfile()
	p.Alignment, p.MaxWrite = 64, 256
	return p
}

func TestTheModelConforms(t *testing.T) {
	r := Run(t, modelOf(DefaultProfile()), Options{Steps: Steps(100_000, 4_000)})
	if r.LeftOut != 0 || r.Seen != r.Transitions || Full() && r.Walked < r.Transitions {
		t.Errorf("%v", r)
	}
}

// otherProfile takes the other side of every choice.
func otherProfile() Profile {
	return Profile{
		WritingVolatile: true, FailedVolatile: true, UpdatedVolatile: true,
		Unused: fwu.NotSupported, CancelError: -1, LostError: fwu.StorageFailure,
		Alignment: 64, MaxWrite: 256,
	}
}

func TestAModelOfOtherChoicesConforms(t *testing.T) {
	p := otherProfile()
	r := Run(t, modelOf(p), Options{Profile: p, Steps: Steps(20_000, 2_000)})
	if r.LeftOut == 0 || r.Seen != r.Transitions {
		t.Errorf("%v", r)
	}
}

func TestEachChoiceAloneConforms(t *testing.T) {
	if !Full() {
		t.Skip("FWUAB_CONFORMANCE=full")
	}
	for name, change := range map[string]func(*Profile){
		"WRITING is volatile":                 func(p *Profile) { p.WritingVolatile = true },
		"FAILED is volatile":                  func(p *Profile) { p.FailedVolatile = true },
		"UPDATED is volatile":                 func(p *Profile) { p.UpdatedVolatile = true },
		"the second location can be booted":   func(p *Profile) { p.Sealed = false },
		"components are independent":          func(p *Profile) { p.Bank = false },
		"a bypassed boot cannot be told":      func(p *Profile) { p.Bypass = false },
		"location says nothing":               func(p *Profile) { p.Location = false },
		"bundles are written in any order":    func(p *Profile) { p.Contiguous = false },
		"no reasons":                          func(p *Profile) { p.Reasons = false },
		"a gap may be left after a restart":   func(p *Profile) { p.Gapless = false },
		"progress is not told":                func(p *Profile) { p.Progress = false },
		"an image may be tried for ever":      func(p *Profile) { p.MaxTrials = 0 },
		"accept is not supported if not used": func(p *Profile) { p.Unused = fwu.NotSupported },
	} {
		t.Run(name, func(t *testing.T) {
			p := smallProfile()
			change(&p)
			if r := Run(t, modelOf(p), Options{Profile: p, Steps: 2_400}); r.Seen != r.Transitions {
				t.Errorf("%v", r)
			}
		})
	}
}

func TestAModelOfOtherChoicesDoesNotConformToOurs(t *testing.T) {
	o := Options{}.withDefaults()
	p := otherProfile()
	p.Alignment, p.MaxWrite = o.Profile.Alignment, o.Profile.MaxWrite
	all, err := sheets(o)
	if err != nil {
		t.Fatal(err)
	}
	run := tableRun{newImpl: modelOf(p), profile: o.Profile, seen: map[transition]bool{}}
	if errs := run.sheet(t, all[0]); len(errs) < 10 {
		t.Errorf("%d errors: %v", len(errs), errs)
	}
}

// The matrix of a figure and its arrows are two transcriptions of one drawing.
func TestTheMatricesSayWhatTheArrowsSay(t *testing.T) {
	for _, p := range []Profile{DefaultProfile(), otherProfile()} {
		for _, f := range figures() {
			cells, err := f.cells(p)
			if err != nil {
				t.Fatal(err)
			}
			arrows, err := f.transitions(p)
			if err != nil {
				t.Fatal(err)
			}
			fromArrows, fromMatrix := map[string]bool{}, map[string]bool{}
			for _, a := range arrows {
				fromArrows[a.String()] = true
			}
			for _, c := range cells {
				if c.choice == choiceBypass || c.status[0] < 0 || c.from == c.to && c.event != "write" {
					continue // no arrow is drawn for what does not change, nor for a boot past the bootloader
				}
				fromMatrix[transitionOf(f.variant, c.from.state, c.event, c.to).String()] = true
			}
			if d := cmp.Diff(fromArrows, fromMatrix); d != "" {
				t.Errorf("%s (-arrows +matrix):\n%s", f.name, d)
			}
		}
	}
}

// Every call is in every matrix, and every state of the variant.
func TestTheMatricesAreComplete(t *testing.T) {
	if len(figures()) != len(variants()) {
		t.Fatalf("%d figures", len(figures()))
	}
	seen := map[Variant]bool{}
	for _, f := range figures() {
		seen[f.variant] = true
		states := 8
		if !f.variant.Reboot {
			states -= 2 // STAGED, REJECTED
		} else if !f.variant.Trial {
			states-- // REJECTED
		}
		if !f.variant.Trial {
			states-- // TRIAL
		}
		if f.variant.Reboot && !f.variant.Trial && f.variant.Volatile {
			states-- // UPDATED: a reboot goes past it
		}
		cells, err := f.cells(DefaultProfile())
		if err != nil {
			t.Fatal(err)
		}
		if want := states * 13; len(cells) != want {
			t.Errorf("%s: %d cells, want %d", f.name, len(cells), want)
		}
	}
	if len(seen) != 8 {
		t.Errorf("%d variants", len(seen))
	}
}

func TestAScriptThatIsWrongIsAnError(t *testing.T) {
	p := DefaultProfile()
	comps := []Config{config(p, 1, Variant{}, fwu.Detached, smallSize)}
	for _, script := range []string{
		"no-such-command", "start = NO_STATUS", "deliver no-such-option", "deliver; start = SUCCESS NOWHERE", "deliver; start; write x 1",
		"deliver; start; write 0 x", "unknown-install", "deliver units=x", "deliver; start; write-block x", "deliver; start; cancel = SUCCESS FAILED!x",
		"deliver; start = SUCCESS READY", "deliver; start = BAD_STATE", "deliver; start; cancel = SUCCESS FAILED!7",
	} {
		b := newBench(p, NewModel(p, comps), comps)
		if err := b.run(script); err == nil {
			t.Errorf("%q passes", script)
		}
	}
}

func TestARowThatCannotBeReachedIsNotCountedAsReached(t *testing.T) {
	p := DefaultProfile()
	s := sheet{comps: []Config{config(p, 1, Variant{}, fwu.Detached, smallSize)}}
	s.rows = []row{{name: "unreachable", run: func(b *bench) error { return b.cell(cell{from: place{fwu.Staged, false}, event: "clean"}) }}}
	run := tableRun{newImpl: modelOf(p), profile: p, seen: map[transition]bool{}}
	errs := run.sheet(t, s)
	if len(errs) != 1 || run.result.Rows != 1 || run.result.Reached != 0 || !strings.Contains(errs[0].Error(), "not reached") {
		t.Errorf("%v; %v", run.result, errs)
	}
}

func TestNoSectionIsMissing(t *testing.T) {
	for _, g := range append(argumentGroups(DefaultProfile()), largeGroups()...) {
		if g.section == "" || len(g.rows) == 0 {
			t.Errorf("group %q has %d rows", g.section, len(g.rows))
		}
		for _, a := range g.rows {
			used := false
			for _, v := range variants() {
				used = used || applies(a.only, v)
			}
			if !used || a.modes == "" {
				t.Errorf("%s: %s: applies to no component", g.section, a.name)
			}
		}
	}
}
