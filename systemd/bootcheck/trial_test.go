package bootcheck

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/systemd"
	"github.com/fwu-ab/fwu-ab/systemd/rundir"
)

// world is a system with an update service, which notes what is done to it.
type world struct {
	state    fwu.State // of the bank member
	degraded []fwu.Reason
	call     error // the service cannot be reached
	mute     bool  // the service does not answer
	fails    map[string]error
	evidence bool
	hopeless bool
	noTrace  error
	done     []string
	started  time.Time
}

func (w *world) note(format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	w.done = append(w.done, what)
	return w.fails[strings.Fields(what)[0]]
}

func (w *world) Components() []fwu.ComponentInfo {
	return []fwu.ComponentInfo{{ID: 0, Name: "rootfs"}, {ID: 1, Name: "radio", Live: true}}
}

func (w *world) System() fwu.SystemInfo { return fwu.SystemInfo{Degraded: w.degraded} }

func (w *world) Query(_ context.Context, id fwu.ID) (fwu.Info, error) {
	if id == 1 { // a live component on trial is no business of the boot check
		return fwu.Info{State: fwu.Trial}, nil
	}
	return fwu.Info{State: w.state}, nil
}

func (w *world) Accept(context.Context) error {
	err := w.note("accept")
	if err == nil {
		w.state = fwu.Updated
	}
	return err
}

func (w *world) Reject(_ context.Context, why fwu.Rejection) (fwu.Status, error) {
	w.state = fwu.Rejected
	return fwu.SuccessReboot, w.note("reject %s: %s", why.Reason, why.Text)
}

func (w *world) RequestReboot(context.Context) error { return w.note("reboot") }

func (w *world) trial() Trial {
	w.started = time.Now()
	return Trial{
		Call: func(ctx context.Context, f func(Service) error) error {
			if w.call != nil {
				return w.call
			}
			if w.mute {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return f(w)
		},
		Hopeless:  w.hopeless,
		Evidence:  func(context.Context) (bool, error) { return w.evidence, w.noTrace },
		Reset:     func(context.Context) error { return w.note("reset") },
		SinceBoot: func() (time.Duration, error) { return time.Since(w.started), nil },
		Log:       slog.New(slog.DiscardHandler),
	}
}

func (w *world) want(t *testing.T, done ...string) {
	t.Helper()
	if diff := cmp.Diff(done, w.done); diff != "" {
		t.Error("what was done, -want +got:\n" + diff)
	}
}

var errUnreachable = errors.New("no bus")

func TestGiveUp(t *testing.T) {
	const rejected = "reject trial-check: why"
	for name, tc := range map[string]struct {
		w    world
		want []string
		err  bool
	}{
		"on trial":                                      {world{state: fwu.Trial}, []string{rejected, "reboot"}, false},
		"rejected already":                              {world{state: fwu.Rejected}, []string{"reboot"}, false},
		"not on trial":                                  {world{state: fwu.Ready}, nil, false},
		"not on trial, though evidence says so":         {world{state: fwu.Updated, evidence: true}, nil, false},
		"a reboot led back":                             {world{state: fwu.Rejected, degraded: []fwu.Reason{fwu.ReasonRollbackFailed}, evidence: true}, nil, true},
		"no service, on trial by evidence":              {world{call: errUnreachable, evidence: true}, []string{"reset"}, false},
		"no service, not on trial by evidence":          {world{call: errUnreachable}, nil, false},
		"no service, no evidence":                       {world{call: errUnreachable, noTrace: errors.New("no environment")}, nil, true},
		"the service cannot reject":                     {world{state: fwu.Trial, fails: map[string]error{"reject": errors.New("medium")}, evidence: true}, []string{rejected, "reset"}, false},
		"nobody reboots":                                {world{state: fwu.Trial, fails: map[string]error{"reboot": errors.New("no logind")}, evidence: true}, []string{rejected, "reboot", "reset"}, false},
		"nobody reboots, and the reset does not either": {world{state: fwu.Trial, fails: map[string]error{"reboot": errUnreachable, "reset": errUnreachable}, evidence: true}, []string{rejected, "reboot", "reset"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.w.trial().GiveUp(t.Context(), fwu.Rejection{Reason: fwu.ReasonTrialCheck, Text: "why"})
			if (err != nil) != tc.err {
				t.Errorf("error is %v", err)
			}
			tc.w.want(t, tc.want...)
		})
	}
}

func TestTextOfARejection(t *testing.T) {
	w := world{state: fwu.Trial}
	long := "one\ntwo\x1b[31m " + strings.Repeat("ä", 200)
	if err := w.trial().GiveUp(t.Context(), fwu.Rejection{Reason: fwu.ReasonTrialCheck, Text: long}); err != nil {
		t.Fatal(err)
	}
	text := strings.TrimPrefix(w.done[0], "reject trial-check: ")
	if len(text) > fwu.MaxRejectText || !strings.HasPrefix(text, "one; two [31m ää") || !strings.HasSuffix(text, "ä...") {
		t.Errorf("%d bytes: %q", len(text), text)
	}
}

func TestAccept(t *testing.T) {
	unit := func(load, active string, busy bool) systemd.Unit {
		return systemd.Unit{Name: "gateway.service", Load: load, Active: active, Busy: busy}
	}
	for name, tc := range map[string]struct {
		w     world
		units [][]systemd.Unit // one after the other
		want  []string
		err   bool
	}{
		"on trial":                      {world{state: fwu.Trial}, nil, []string{"accept"}, false},
		"not on trial":                  {world{state: fwu.Ready}, nil, nil, false},
		"rejected":                      {world{state: fwu.Rejected}, nil, nil, false},
		"no service":                    {world{call: errUnreachable, evidence: true}, nil, nil, true}, // OnFailure= gives up
		"the selector fails":            {world{state: fwu.Trial, fails: map[string]error{"accept": errors.New("medium")}}, nil, []string{"accept"}, true},
		"a unit is active":              {world{state: fwu.Trial}, [][]systemd.Unit{{unit("loaded", "active", false)}}, []string{"accept"}, false},
		"a oneshot unit is done":        {world{state: fwu.Trial}, [][]systemd.Unit{{unit("loaded", "inactive", false)}}, []string{"accept"}, false},
		"a unit starts":                 {world{state: fwu.Trial}, [][]systemd.Unit{{unit("loaded", "activating", false)}, {unit("loaded", "inactive", true)}, {unit("loaded", "active", false)}}, []string{"accept"}, false},
		"a unit has failed":             {world{state: fwu.Trial}, [][]systemd.Unit{{unit("loaded", "failed", false)}}, []string{"reject trial-check: unit gateway.service has failed", "reboot"}, true},
		"a unit starts, and fails":      {world{state: fwu.Trial}, [][]systemd.Unit{{unit("loaded", "activating", true)}, {unit("loaded", "failed", false)}}, []string{"reject trial-check: unit gateway.service has failed", "reboot"}, true},
		"a unit is not there":           {world{state: fwu.Trial}, [][]systemd.Unit{{unit("not-found", "inactive", false)}}, []string{"reject trial-check: unit gateway.service cannot be loaded: not-found", "reboot"}, true},
		"a unit failed in a plain boot": {world{state: fwu.Ready}, [][]systemd.Unit{{unit("loaded", "failed", false)}}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var names []string
				if tc.units != nil {
					names = []string{"gateway.service"}
				}
				n := -1
				err := tc.w.trial().Accept(t.Context(), names, func(context.Context, ...string) ([]systemd.Unit, error) {
					n++
					return tc.units[n], nil
				})
				if (err != nil) != tc.err {
					t.Errorf("error is %v", err)
				}
				tc.w.want(t, tc.want...)
			})
		})
	}
}

func TestChecks(t *testing.T) {
	for name, tc := range map[string]struct {
		w              world
		required, want string // bodies of checks
		wanted         string
		done           []string
		err            bool
	}{
		"healthy":                               {w: world{state: fwu.Trial}, required: "true", wanted: "true"},
		"a required check fails":                {w: world{state: fwu.Trial}, required: "echo no route; exit 1", wanted: "true", done: []string{"reject trial-check: required.d/10: exit status 1: no route", "reboot"}, err: true},
		"a wanted check fails":                  {w: world{state: fwu.Trial}, required: "true", wanted: "false"},
		"not on trial":                          {w: world{state: fwu.Ready}, required: "false", wanted: "false"},
		"no service, on trial by evidence":      {w: world{call: errUnreachable, evidence: true}, required: "false", wanted: "true", done: []string{"reset"}, err: true},
		"no service, healthy":                   {w: world{call: errUnreachable, evidence: true}, required: "true", wanted: "true"},
		"neither service nor evidence":          {w: world{call: errUnreachable, noTrace: errors.New("no")}, required: "false", wanted: "true", err: true},
		"no service, not on trial, check fails": {w: world{call: errUnreachable}, required: "false", wanted: "true"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			script(t, root, "etc/fwu-ab/check.d/required.d/10", tc.required)
			script(t, root, "etc/fwu-ab/check.d/wanted.d/10", tc.wanted)
			err := tc.w.trial().Checks(t.Context(), root, rundir.Runner{Timeout: 20 * time.Second, Trust: func(string) error { return nil }, Output: func(string, string) {}})
			if (err != nil) != tc.err {
				t.Errorf("error is %v", err)
			}
			tc.w.want(t, tc.done...)
		})
	}
}

func TestWatch(t *testing.T) {
	const late = "reject trial-deadline: not accepted within 10m0s of its boot"
	for name, tc := range map[string]struct {
		w         world
		meanwhile func(*world) // after five minutes
		took      time.Duration
		want      []string
		err       bool
	}{
		"not on trial":                               {w: world{}},
		"accepted":                                   {w: world{state: fwu.Trial, evidence: true}, meanwhile: func(w *world) { w.evidence = false }, took: 5 * time.Minute},
		"never accepted":                             {w: world{state: fwu.Trial, evidence: true}, took: 20 * time.Minute, want: []string{late, "reboot", "reset"}},
		"no service":                                 {w: world{call: errUnreachable, evidence: true}, took: 10 * time.Minute, want: []string{"reset"}},
		"disk that comes late, not a trial":          {w: world{noTrace: errors.New("no disk")}, meanwhile: func(w *world) { w.noTrace = nil }, took: 5 * time.Minute},
		"disk that never comes, no service":          {w: world{noTrace: errors.New("no disk"), call: errUnreachable}, took: 10 * time.Minute, err: true},
		"disk that never comes, the service says no": {w: world{noTrace: errors.New("no disk")}, took: 10 * time.Minute},
		"default differs without a trial":            {w: world{evidence: true, state: fwu.Ready}, took: 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				trial := tc.w.trial()
				evidence := trial.Evidence
				trial.Evidence = func(ctx context.Context) (bool, error) {
					if tc.meanwhile != nil && time.Since(tc.w.started) >= 5*time.Minute {
						tc.meanwhile(&tc.w)
					}
					return evidence(ctx)
				}
				err := trial.Watch(t.Context(), 10*time.Minute)
				if (err != nil) != tc.err {
					t.Errorf("error is %v", err)
				}
				if took := time.Since(tc.w.started); took < tc.took || took > tc.took+watchInterval {
					t.Errorf("took %v, want %v", took, tc.took)
				}
				tc.w.want(t, tc.want...)
			})
		})
	}
}

func TestWatchThatIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := world{state: fwu.Trial, evidence: true}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.trial().Watch(ctx, 10*time.Minute); err != nil {
			t.Error(err)
		}
		w.want(t)
	})
}
