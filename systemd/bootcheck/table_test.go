package bootcheck

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/systemd"
)

// row is one of the table in docs/boot-check.md: a system as it is at first, how it is after a
// while, and its end.
type row struct {
	at first // what is wrong from the beginning
	// until is when all is well again, after the boot. 0: never.
	until time.Duration
	run   func(ctx context.Context, t Trial, states unitStates) error
	want  []string
	// within is when the end is reached at the latest, after the boot.
	within time.Duration
}

type unitStates = func(ctx context.Context, names ...string) ([]systemd.Unit, error)

// first is the fault.
type first struct {
	world
	units  error
	unit   string // its state, empty: active
	config error  // of reading the configuration
}

const testDeadline = 10 * time.Minute

func accept(ctx context.Context, t Trial, states unitStates) error {
	return t.Accept(ctx, []string{"gateway.service"}, states)
}

func watch(ctx context.Context, t Trial, _ unitStates) error { return t.Watch(ctx, testDeadline) }

// fails is the end that rejectFailed and a required check lead to.
func fails(ctx context.Context, t Trial, _ unitStates) error {
	return t.GiveUp(ctx, fwu.Rejection{Reason: fwu.ReasonTrialCheck, Text: "why"})
}

// checks is the question whether the checks are to be run.
func checks(ctx context.Context, t Trial, _ unitStates) error {
	on, err := t.On(ctx)
	if on {
		return errors.Join(err, fails(ctx, t, nil))
	}
	return err
}

func rows() map[string]row {
	onTrial := world{state: fwu.Trial, evidence: true}
	with := func(change func(*world)) first {
		w := onTrial
		change(&w)
		return first{world: w}
	}
	refused := errors.New("org.freedesktop.DBus.Error.LimitsExceeded")
	const soon = 3 * time.Minute
	const rejected, late = "reject trial-check: why", "reject trial-deadline: not accepted within 10m0s of its boot"
	return map[string]row{
		"on trial, and every check and unit is well":                          {first{world: onTrial}, 0, accept, []string{"accept"}, 0},
		"a required check fails":                                              {first{world: onTrial}, 0, checks, []string{rejected, "reboot"}, 0},
		"a unit that the configuration names has failed, or cannot be loaded": {first{world: onTrial, unit: "failed"}, 0, accept, []string{"reject trial-check: unit gateway.service has failed", "reboot"}, 0},
		"`boot-complete.target` is not reached":                               {first{world: onTrial}, 0, fails, []string{rejected, "reboot"}, 0},
		"not accepted at the deadline":                                        {first{world: onTrial}, 0, watch, []string{late, "reboot", "reset"}, testDeadline + downTimeout},

		"the configuration cannot be read, as a medium fails":                          {first{world: onTrial, config: syscall.EIO}, soon, accept, []string{"accept"}, soon},
		"the configuration cannot be read until the deadline":                          {first{world: onTrial, config: syscall.ENODATA}, 0, watch, []string{late, "reboot", "reset"}, testDeadline + downTimeout},
		"the configuration has a mistake":                                              {first{world: onTrial, config: errors.New("fwu-ab.toml:1: no")}, 0, fails, []string{rejected, "reboot"}, 0},
		"a check fails, and the service cannot start: the configuration has a mistake": {with(func(w *world) { w.call, w.hopeless = errUnreachable, true }), 0, fails, []string{"reset"}, 0},
		"the service refuses: LimitsExceeded":                                          {with(func(w *world) { w.call = refused }), soon, accept, []string{"accept"}, soon},
		"the service does not answer":                                                  {with(func(w *world) { w.mute = true }), soon, accept, []string{"accept"}, soon + callTimeout},
		"the bus is gone":                                                              {with(func(w *world) { w.call = errUnreachable }), soon, accept, []string{"accept"}, soon},
		"the service is degraded, and does not know of a trial":                        {with(func(w *world) { w.state, w.degraded = fwu.Ready, []fwu.Reason{fwu.ReasonMedium} }), soon, accept, []string{"accept"}, soon},
		"the service cannot accept: its medium fails":                                  {with(func(w *world) { w.fails = map[string]error{"accept": errors.New("medium")} }), 7 * time.Second, accept, []string{"accept", "accept", "accept"}, soon},
		"the service manager does not say how the units are":                           {first{world: onTrial, units: errUnreachable}, soon, accept, []string{"accept"}, soon},
		"the service is in trouble until the deadline":                                 {with(func(w *world) { w.call = refused }), 0, watch, []string{"reset"}, testDeadline},
		"a check fails, and the service is in trouble for a minute":                    {with(func(w *world) { w.call = refused }), 0, checks, []string{"reset"}, verdictPatience},
		"a check fails, and the service is in trouble for less":                        {with(func(w *world) { w.call = refused }), 20 * time.Second, checks, []string{rejected, "reboot"}, 20 * time.Second},

		"neither service nor evidence tells whether it is a trial":         {with(func(w *world) { w.call, w.noTrace = refused, errors.New("no disk") }), 0, checks, nil, testDeadline},
		"the service is in trouble, and evidence says that it is no trial": {with(func(w *world) { w.call, w.evidence = refused, false }), 0, accept, nil, 0},
		"the service says that it is no trial":                             {first{world: world{state: fwu.Ready}}, 0, accept, nil, 0},
		"a reboot led back to the rejected system":                         {with(func(w *world) { w.state, w.degraded = fwu.Rejected, []fwu.Reason{fwu.ReasonRollbackFailed} }), 0, fails, nil, 0},
		"the check is stopped, as the system shuts down": {with(func(w *world) { w.call = refused }), 0, func(ctx context.Context, t Trial, states unitStates) error {
			ctx, stop := context.WithTimeout(ctx, time.Minute)
			defer stop()
			return accept(ctx, t, states)
		}, nil, time.Minute},
	}
}

func TestEveryRowOfTheTable(t *testing.T) {
	for name, r := range rows() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &r.at.world
				trial := w.trial()
				trial.Deadline = testDeadline
				well := func() bool { return r.until > 0 && time.Since(w.started) >= r.until }
				call := trial.Call
				trial.Call = func(ctx context.Context, f func(Service) error) error {
					if well() {
						w.call, w.mute, w.degraded, w.fails = nil, false, nil, nil
						if w.state == fwu.Ready || w.state == fwu.Updated { // it knows again
							w.state = fwu.Trial
						}
					}
					return call(ctx, f)
				}
				states := func(context.Context, ...string) ([]systemd.Unit, error) {
					if r.at.units != nil && !well() {
						return nil, r.at.units
					}
					active := r.at.unit
					if active == "" {
						active = "active"
					}
					return []systemd.Unit{{Name: "gateway.service", Load: "loaded", Active: active}}, nil
				}
				err := trial.Configure(t.Context(), func() error {
					if well() {
						return nil
					}
					return r.at.config
				})
				if errors.Is(err, errTrouble) != (r.until == 0 && fwu.CauseOf(r.at.config) == fwu.CauseMedium) {
					t.Errorf("configuration: %v", err)
				}
				err = r.run(t.Context(), trial, states)
				took := time.Since(w.started)
				if took < r.until || took > r.within+2*retryInterval {
					t.Errorf("took %v, want %v (%v)", took, r.within, err)
				}
				if diff := cmp.Diff(r.want, w.done); diff != "" {
					t.Errorf("what was done, -want +got: %s (%v)", diff, err)
				}
			})
		})
	}
}

// The table in the documentation is the one that is tested.
func TestTableOfTheDocumentation(t *testing.T) {
	b, err := os.ReadFile("../../docs/boot-check.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "| observation | end |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	tested := rows()
	documented := []string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		documented = append(documented, strings.TrimSpace(cells[1]))
	}
	for name := range tested {
		if !slices.Contains(documented, name) {
			t.Errorf("not documented: %s", name)
		}
	}
	for _, name := range documented {
		if _, ok := tested[name]; !ok {
			t.Errorf("not tested: %s", name)
		}
	}
}
