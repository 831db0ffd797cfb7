package crash

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/test/sim"
)

// whole tells whether everything is to be tried, and not a sample that takes seconds.
func whole() bool { return os.Getenv("FWUAB_CRASH") == "full" }

// depth is how many shapes a cut has. With UEFI firmware the medium of the selection is another, whose changes are whole or were not; the rest is as on other devices.
// A cut does not see whether zeroes were written by a command.
func (st story) depth() sim.Depth {
	if whole() && !st.dev.efi && st.dev.media != zeroes {
		return sim.Full
	}
	return sim.Coarse
}

// sample selects which cases of the suite a sample has. make test takes another one each day.
func sample() int {
	text := os.Getenv("FWUAB_SAMPLE")
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		panic(fmt.Errorf("FWUAB_SAMPLE: %w", err))
	}
	return int(n)
}

// sampled lets every nth cut through.
func sampled(cuts func(func(sim.Cut) bool), n int) func(func(sim.Cut) bool) {
	return func(yield func(sim.Cut) bool) {
		i := sample() % n
		for c := range cuts {
			if i++; i%n == 0 && !yield(c) {
				return
			}
		}
	}
}

// newSuite has a context without an end: an event from outside does not fit into an order of
// accesses.
func newSuite(t *testing.T) *suite {
	return &suite{ctx: context.Background(), w: newWorld(t), judged: map[uint64]bool{}}
}

func (s *suite) done(t *testing.T, what string, begun time.Time) {
	t.Helper()
	for i, f := range s.report() {
		if i == 5 {
			t.Errorf("and %d more", len(s.failed)-i)
			break
		}
		t.Error(f)
	}
	t.Logf("%d %s, %d different, in %v", s.tried, what, s.unique, time.Since(begun).Round(time.Millisecond))
}

// stories runs do for each story, with what was recorded of it, and reports.
func (s *suite) stories(t *testing.T, do func(story, *session)) {
	t.Helper()
	begun := time.Now()
	for _, st := range stories() {
		t.Run(st.name, func(t *testing.T) {
			from, err := s.w.play(s.ctx, st)
			check(t, err)
			tried, unique, at := s.tried, s.unique, time.Now()
			do(st, from)
			t.Logf("%d operations, %d cuts, %d different, in %v", len(from.log), s.tried-tried, s.unique-unique, time.Since(at).Round(time.Millisecond))
		})
	}
	s.done(t, "cuts", begun)
}

// TestPowerCut cuts every write of every story.
func TestPowerCut(t *testing.T) {
	s := newSuite(t)
	s.stories(t, func(st story, from *session) {
		n := st.thin(one(9))
		if st.dev.media == concurrent { // here the order matters
			n = one(9)
		}
		s.each(sampled(sim.Cuts(from.base, from.log, st.depth()), n), func(c sim.Cut) {
			s.one(from, trial{story: st.name, loss: none, policy: policyOf(c), at: []sim.Cut{c}})
		})
	})
}

// TestPowerCutWithLoss loses more than what was in flight: every boot variable, or the record; or has a newer service in the other bank that wrote the record.
func TestPowerCutWithLoss(t *testing.T) {
	for l := environment; l <= newerMinor; l++ {
		t.Run(l.String(), func(t *testing.T) {
			s := newSuite(t)
			s.stories(t, func(st story, from *session) {
				if !l.survivable(st.dev) {
					return
				}
				s.each(sampled(sim.Cuts(from.base, from.log, sim.Coarse), st.thin(one(20))), func(c sim.Cut) {
					s.one(from, trial{story: st.name, loss: l, policy: policyOf(c), at: []sim.Cut{c}})
				})
			})
		})
	}
}

// TestSecondPowerCut cuts the recovery from a cut, too.
func TestSecondPowerCut(t *testing.T) {
	s := newSuite(t)
	s.stories(t, func(st story, from *session) {
		s.each(sampled(sim.Cuts(from.base, from.log, sim.Coarse), st.thin(2*one(17))), func(c sim.Cut) {
			s.second(from, trial{story: st.name, loss: none, policy: policyOf(c), at: []sim.Cut{c}}, 7*one(2))
		})
	})
}

// TestSecondPowerCutWithLoss loses the environment with both cuts, or the record with the first.
func TestSecondPowerCutWithLoss(t *testing.T) {
	for _, l := range []loss{environment, recordZeroed} {
		t.Run(l.String(), func(t *testing.T) {
			s := newSuite(t)
			s.stories(t, func(st story, from *session) {
				if !l.survivable(st.dev) {
					return
				}
				s.each(sampled(sim.Cuts(from.base, from.log, sim.Coarse), st.thin(5*one(20))), func(c sim.Cut) {
					s.second(from, trial{story: st.name, loss: l, policy: policyOf(c), at: []sim.Cut{c}}, 7*one(2))
				})
			})
		})
	}
}

// TestUnknownMajorVersion finds a record that this service cannot read, after any cut: something boots, the service answers queries and touches nothing.
func TestUnknownMajorVersion(t *testing.T) {
	s := newSuite(t)
	s.stories(t, func(st story, from *session) {
		s.each(sampled(sim.Cuts(from.base, from.log, sim.Coarse), st.thin(one(20))), func(c sim.Cut) {
			if err := s.unknown(from, c); err != nil {
				s.fail(trial{story: st.name, loss: newerMajor, policy: 0, at: []sim.Cut{c}}, err)
			}
		})
	})
}

// TestKilledService ends the service before each of its writes, and starts it again in the same boot.
func TestKilledService(t *testing.T) {
	s := newSuite(t)
	s.stories(t, func(st story, from *session) {
		between := func(yield func(sim.Cut) bool) {
			for c := range sim.Cuts(from.base, from.log, sim.Coarse) {
				if c.Shape == 0 && !yield(c) { // everything issued before has landed
					return
				}
			}
		}
		s.each(sampled(between, st.thin(one(5))), func(c sim.Cut) {
			for _, p := range []policy{abandon, carryOn} {
				t := trial{story: st.name, loss: service, policy: p, at: []sim.Cut{c}}
				s.mu.Lock()
				s.tried, s.unique = s.tried+1, s.unique+1
				s.mu.Unlock()
				if err := s.kill(from, t); err != nil {
					s.fail(t, err)
				}
			}
		})
	})
}

// thin takes fewer cases of a story that another one differs from in a detail only: the way in
// which firmware uses the variables that it finds, or a medium orders its accesses.
func (st story) thin(n int) int {
	switch {
	case st.dev.first, st.dev.stored:
		return 5 * n
	case st.dev.media != plain:
		return 3 * n
	}
	return n
}

// one is 1 where everything is to be tried, else more than n: only every so many cases are.
func one(n int) int {
	switch {
	case whole():
		return 1
	case os.Getenv("FWUAB_CRASH") == "deep": // six times a sample
		return max(1, n/2)
	case raced, testing.Short(): // everything is ten times as slow, and something else is looked for
		return 40 * n
	}
	return 3 * n
}

func policyOf(c sim.Cut) policy { return policy(c.Position+c.Shape) % 2 }

// TestSeed replays the one case that FWUAB_CRASH_SEED names.
func TestSeed(t *testing.T) {
	seed := os.Getenv("FWUAB_CRASH_SEED")
	if seed == "" {
		t.Skip("FWUAB_CRASH_SEED names no case")
	}
	s := newSuite(t)
	if isMishap(seed) {
		check(t, s.replayMishap(t, strings.Split(seed, "/")))
		return
	}
	check(t, s.replay(t, strings.Split(seed, "/")))
}
