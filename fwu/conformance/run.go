package conformance

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// NewFunc makes a device with these components in its factory state. It may use t for what has to be cleaned up; Close is called before.
type NewFunc func(t testing.TB, comps []Config) Implementation

// Run tests an implementation: the tables, then the random walk. It fails t if an answer was wrong, a row was not reached or a transition of a figure was
// not seen, logs the counts in one line, and returns them.
func Run(t *testing.T, newImpl NewFunc, o Options) Result {
	o = o.withDefaults()
	var r Result
	t.Run("table", func(t *testing.T) { r = runTable(t, newImpl, o) })
	if r.Reached != r.Rows {
		t.Errorf("%d rows were not reached", r.Rows-r.Reached)
	}
	r.walk(t, newImpl, o)
	t.Logf("conformance of %s: %v", t.Name(), r)
	return r
}

// Walk makes the random walk alone: a look at an implementation whose calls take long. It fails t and logs as Run does.
func Walk(t *testing.T, newImpl NewFunc, o Options) Result {
	var r Result
	r.walk(t, newImpl, o.withDefaults())
	t.Logf("conformance of %s: no tables; %d random steps with %d transitions", t.Name(), r.Steps, r.Walked)
	return r
}

func (r *Result) walk(t *testing.T, newImpl NewFunc, o Options) {
	t.Run("walk", func(t *testing.T) { r.Steps, r.Walked = runWalk(t, newImpl, o) })
	if r.Steps < o.Steps {
		t.Errorf("%d random steps, want %d", r.Steps, o.Steps)
	}
}

// runTable carries out all sheets as subtests.
func runTable(t *testing.T, newImpl NewFunc, o Options) Result {
	all, err := sheets(o)
	if err != nil {
		t.Fatal(err)
	}
	run := tableRun{newImpl: newImpl, profile: o.Profile, seen: map[transition]bool{}}
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			for _, f := range run.sheet(t, s) {
				t.Error(f)
			}
		})
	}
	missing, err := run.unseen()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range missing {
		t.Errorf("transition not seen: %v", m)
	}
	return run.result
}

// tableRun is a run of the tables.
type tableRun struct {
	newImpl NewFunc
	profile Profile
	first   bool // stop a sheet at the first wrong answer
	seen    map[transition]bool
	result  Result
}

// unseen counts the transitions of the figures, and returns those that were not seen.
func (r *tableRun) unseen() ([]transition, error) {
	var missing []transition
	for _, f := range figures() {
		arrows, err := f.transitions(r.profile)
		if err != nil {
			return nil, err
		}
		for _, a := range arrows {
			r.result.Transitions++
			if r.seen[a] {
				r.result.Seen++
			} else {
				missing = append(missing, a)
			}
		}
	}
	return missing, nil
}

// sheet carries out the rows of one device and returns what was wrong. After a wrong answer it goes on with a new device.
func (r *tableRun) sheet(t testing.TB, s sheet) []error {
	var b *bench
	var errs []error
	end := func() {
		if b == nil {
			return
		}
		if err := b.impl.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close: %w", err))
		}
		b = nil
	}
	for _, row := range s.rows {
		if b == nil {
			b = newBench(r.profile, r.newImpl(t, s.comps), s.comps)
			b.seen = func(tr transition) { r.seen[tr] = true }
			if err := b.checkFactory(); err != nil {
				errs = append(errs, fmt.Errorf("factory state: %w", err))
				break
			}
		}
		if err := r.row(b, row); err != nil {
			errs = append(errs, err)
			if r.first {
				break
			}
			end()
		}
	}
	end()
	return errs
}

// row carries out one row and counts it.
func (r *tableRun) row(b *bench, row row) error {
	if !b.can(row.choice) {
		r.result.LeftOut++
		return nil
	}
	r.result.Rows++
	err := b.row(row)
	if !errors.Is(err, errPreparation) {
		r.result.Reached++
	}
	if err != nil {
		return fmt.Errorf("section %s\n\t%s\n\t%w", row.section, row.name, err)
	}
	return nil
}

// errPreparation: a row was not reached.
var errPreparation = errors.New("not reached")

// can tells whether rows with a choice apply.
func (b *bench) can(c choice) bool {
	if c == choiceTamper {
		_, ok := b.impl.(Tamperer)
		return ok
	}
	return b.Profile.has(c)
}

// row carries out a row, from READY.
func (b *bench) row(r row) error {
	if err := b.ready(); err != nil {
		return fmt.Errorf("%w: %w", errPreparation, err)
	}
	if err := b.settle(); err != nil {
		return fmt.Errorf("%w: %w", errPreparation, err)
	}
	return r.run(b)
}

// checkFactory: what the components say of themselves, and that all are READY.
func (b *bench) checkFactory() error {
	infos := b.impl.API().Components()
	if len(infos) != len(b.units) {
		return fmt.Errorf("%d components, want %d", len(infos), len(b.units))
	}
	for _, u := range b.units {
		i := slices.IndexFunc(infos, func(c componentInfo) bool { return c.ID == u.ID })
		if i < 0 {
			return fmt.Errorf("component %d is not among the components", u.ID)
		}
		if infos[i].Live == u.Variant.Reboot || infos[i].Manifest != u.Manifest {
			return fmt.Errorf("component %d: got %+v, want that of %+v", u.ID, infos[i], u.Variant)
		}
		info, err := b.query(u)
		if err != nil {
			return err
		}
		u.away = info.Location == 1
		if err := b.check(u, place{}, nil); err != nil {
			return err
		}
	}
	return nil
}
