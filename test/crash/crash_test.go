package crash

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/test/sim"
)

// whole tells whether everything is to be tried, and not a sample that takes seconds.
func whole() bool { return os.Getenv("FWUAB_CRASH") == "full" || os.Getenv("FWUAB_TEST_ALL") != "" }

func depth() sim.Depth {
	if whole() {
		return sim.Full
	}
	return sim.Coarse
}

// sampled lets every nth cut through where only a sample is run.
func sampled(cuts func(func(sim.Cut) bool), n int) func(func(sim.Cut) bool) {
	return func(yield func(sim.Cut) bool) {
		i := 0
		for c := range cuts {
			if i++; i%n == 0 && !yield(c) {
				return
			}
		}
	}
}

func newSuite(t *testing.T) *suite {
	return &suite{ctx: t.Context(), w: newWorld(t), judged: map[uint64]bool{}}
}

func (s *suite) done(t *testing.T, begun time.Time) {
	t.Helper()
	for i, f := range s.report() {
		if i == 5 {
			t.Errorf("and %d more", len(s.failed)-i)
			break
		}
		t.Error(f)
	}
	t.Logf("%d cuts, which left %d different states, in %v", s.tried, s.unique, time.Since(begun).Round(time.Millisecond))
}

// TestPowerCut cuts every write of every story.
func TestPowerCut(t *testing.T) {
	s := newSuite(t)
	begun := time.Now()
	for _, st := range stories() {
		t.Run(st.name, func(t *testing.T) {
			from, err := s.w.play(s.ctx, st)
			check(t, err)
			tried, unique, at := s.tried, s.unique, time.Now()
			s.each(sim.Cuts(from.base, from.log, depth()), runtime.GOMAXPROCS(0), func(c sim.Cut) {
				s.one(from, trial{st.name, none, policy(c.Position+c.Shape) % 2, []sim.Cut{c}})
			})
			t.Logf("%d operations, %d cuts, %d different, in %v", len(from.log), s.tried-tried, s.unique-unique, time.Since(at).Round(time.Millisecond))
		})
	}
	s.done(t, begun)
}

// TestSeed replays the one case that FWUAB_CRASH_SEED names.
func TestSeed(t *testing.T) {
	seed := os.Getenv("FWUAB_CRASH_SEED")
	if seed == "" {
		t.Skip("FWUAB_CRASH_SEED names no case")
	}
	s := newSuite(t)
	check(t, s.replay(t, strings.Split(seed, "/")))
}
