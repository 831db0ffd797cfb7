package partition

import (
	"crypto/sha256"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// TestErrorsOfASlotAreCounted has a medium fail once in each way.
func TestErrorsOfASlotAreCounted(t *testing.T) {
	for name, tt := range map[string]struct {
		fault func(s *sim)
		want  fwu.MediumErrors
	}{
		"none":       {func(*sim) {}, fwu.MediumErrors{}},
		"write":      {func(s *sim) { s.failWrite = errMedium }, fwu.MediumErrors{Write: 1}},
		"flush":      {func(s *sim) { s.failSync = errMedium }, fwu.MediumErrors{Flush: 1}},
		"read back":  {func(s *sim) { s.onFlush = func([]byte) { s.failRead = errMedium } }, fwu.MediumErrors{Read: 1}},
		"other data": {func(s *sim) { s.onFlush = func(b []byte) { b[777] ^= 1 } }, fwu.MediumErrors{Read: 1}},
		"compare":    {func(s *sim) { s.failRead = errMedium }, fwu.MediumErrors{Read: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			dev := newSim(t, mib)
			slot := dev.slot()
			img, err := slot.Open(t.Context())
			check(t, err)
			defer img.Close()
			check(t, img.Resume(t.Context(), sha256.New(), 0))
			tt.fault(dev)
			check(t, img.WriteAt(t.Context(), content(8192), 0))
			_, err = img.Sync(t.Context())
			if failed := tt.want.Total() > 0 && name != "compare"; (err != nil) != failed {
				t.Errorf("sync: %v", err)
			}
			if diff := cmp.Diff(tt.want, slot.Meter().Errors()); diff != "" {
				t.Error("-want +got:\n" + diff)
			}
		})
	}
}
