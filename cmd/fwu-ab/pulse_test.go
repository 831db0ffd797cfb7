package main

import (
	"testing"
	"time"
)

// A service that works without a step for too long is given up, one that rests or goes slowly is not.
func TestPulse(t *testing.T) {
	now := time.Unix(1000, 0)
	var steps uint64
	working := false
	p := &pulse{of: func() (uint64, bool) { return steps, working }, now: func() time.Time { return now }}
	for i, s := range []struct {
		after   time.Duration
		steps   uint64
		working bool
		want    bool
	}{
		{0, 0, false, true},
		{time.Hour, 0, false, true}, // rests
		{standstill - 1, 0, true, true},
		{time.Second, 1, true, true}, // one step, slow
		{standstill - 1, 1, true, true},
		{1, 1, true, false}, // stands still
		{time.Hour, 1, true, false},
		{time.Second, 2, true, true}, // and goes on
		{time.Hour, 2, false, true},
	} {
		now, steps, working = now.Add(s.after), s.steps, s.working
		if got := p.beats(); got != s.want {
			t.Errorf("%d: %v", i, got)
		}
	}
}
