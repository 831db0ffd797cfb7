package crash

import (
	"reflect"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/sim"
)

// TestStoriesAreRepeated plays each story on concurrent media twice: the case that a seed names has
// to be the same each time.
func TestStoriesAreRepeated(t *testing.T) {
	s := newSuite(t)
	for _, st := range stories() {
		if st.dev.media != concurrent {
			continue
		}
		first, err := s.w.play(s.ctx, st)
		check(t, err)
		again, err := s.w.play(s.ctx, st)
		check(t, err)
		if !reflect.DeepEqual(first.log, again.log) {
			t.Errorf("%s: %d operations, and then %d others", st.name, len(first.log), len(again.log))
		}
	}
}

// TestWhatStoriesReach: a suite whose images fit in one piece would say nothing of pieces,
// checkpoints, and commands of media beside writes.
func TestWhatStoriesReach(t *testing.T) {
	s := newSuite(t)
	for _, st := range stories() {
		if st.name != "twice" && st.name != "zeroes-twice" && st.name != "concurrent-twice" {
			continue
		}
		t.Run(st.name, func(t *testing.T) {
			var pieces, zeroed, checkpoints int
			flushed := false
			s.watch(t, st, func(a sim.Access) {
				switch {
				case a.Medium != mediumOf("root", 1):
				case a.Kind == sim.Flush:
					flushed = true
				case a.Kind == sim.Write && a.Len <= pieceSize: // a head is written whole
					if flushed && a.Off > 0 {
						checkpoints++
					}
					if a.Off >= fwu.HeadSize {
						pieces++
					}
					flushed = false
				}
				if a.Zero {
					zeroed++
				}
			})
			if pieces == 0 || checkpoints < fwu.HeadSize/checkpointInterval || (zeroed > 0) != (st.dev.media != plain) {
				t.Errorf("%d pieces behind the head, %d of them by a command to zero, and %d checkpoints", pieces, zeroed, checkpoints)
			}
		})
	}
}
