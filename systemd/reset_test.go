package systemd

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestReset(t *testing.T) {
	for name, tc := range map[string]struct {
		signal error
		down   time.Duration // when the machine goes down
		want   []string
	}{
		"reboot.target works":           {nil, time.Minute, []string{"0s signal 39"}},
		"a unit does not end":           {nil, 5*time.Minute + 10*time.Second, []string{"0s signal 39", "5m0s signal 49"}},
		"process 1 is frozen":           {nil, time.Hour, []string{"0s signal 39", "5m0s signal 49", "5m30s restart"}},
		"process 1 cannot be signalled": {unix.EPERM, time.Hour, []string{"0s signal 39", "0s signal 49", "0s restart"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var got []string
				note := func(what string, args ...any) {
					got = append(got, fmt.Sprintf("%v ", time.Since(start))+fmt.Sprintf(what, args...))
				}
				i := TheInit()
				i.Signal = func(s unix.Signal) error { note("signal %d", int(s)); return tc.signal }
				i.Restart = func() error { note("restart"); return unix.EPERM }
				ctx, cancel := context.WithTimeout(t.Context(), tc.down)
				defer cancel()
				if err := i.Reset(ctx); err == nil {
					t.Error("returned without an error")
				} else if ctx.Err() == nil && !errors.Is(err, unix.EPERM) {
					t.Error(err)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Error("-want +got:\n" + diff)
				}
			})
		})
	}
}
