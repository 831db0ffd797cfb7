package bootcheck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/systemd"
	"github.com/fwu-ab/fwu-ab/systemd/rundir"
)

// Service is the update service as the boot check needs it. The Client of package dbus is one.
type Service interface {
	Components() []fwu.ComponentInfo
	System() fwu.SystemInfo
	Query(ctx context.Context, id fwu.ID) (fwu.Info, error)
	Accept(ctx context.Context) error
	Reject(ctx context.Context, why fwu.Rejection) (fwu.Status, error)
	RequestReboot(ctx context.Context) error
}

// Trial is the trial of the running system, if it is on one. Nothing here reboots a system that is not TRIAL or REJECTED.
type Trial struct {
	// Call connects to the update service for the time of f.
	Call func(ctx context.Context, f func(Service) error) error
	// Evidence tells without the service whether the running bank is on trial, and can be left by a reset. It is asked where the service cannot be.
	Evidence func(ctx context.Context) (bool, error)
	// Reset reboots without the help of the service. It returns only if that did not work.
	Reset func(ctx context.Context) error
	// Deadline is the time since boot until which trouble with the service is waited out.
	Deadline time.Duration
	// Hopeless tells that the service cannot start in this system, as its configuration is of no
	// use: a system that failed a check is not kept up to wait for the service.
	Hopeless bool
	// SinceBoot is the time since the kernel started, with that of suspension.
	SinceBoot func() (time.Duration, error)
	Log       *slog.Logger
}

// How long things may take.
const (
	callTimeout   = 30 * time.Second // the answer of the service; its start is part of it
	watchInterval = 5 * time.Second
	retryInterval = 5 * time.Second
	// verdictPatience is how long the service is tried before a system that failed a check is reset
	// without it.
	verdictPatience = time.Minute
	downTimeout     = 10 * time.Minute // from the request for a reboot to the end of this process
	unitInterval    = 500 * time.Millisecond
)

// SinceBoot reads CLOCK_BOOTTIME (clock_gettime(2)).
func SinceBoot() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// What ends that which only a trial needs.
var (
	errNoTrial = errors.New("the system is not on trial")
	errStuck   = errors.New("a reboot was tried, and led back to this system, which stays up")
)

// phase is the state of the members of the bank: TRIAL or REJECTED, else READY.
func phase(ctx context.Context, s Service) (fwu.State, error) {
	st := fwu.Ready
	for _, c := range s.Components() {
		if c.Live {
			continue
		}
		info, err := s.Query(ctx, c.ID)
		if err != nil {
			return st, err
		}
		if info.State == fwu.Trial || info.State == fwu.Rejected {
			st = info.State
		}
	}
	return st, nil
}

// call calls f with the service and the state of the bank, within callTimeout.
func (t Trial) call(ctx context.Context, f func(ctx context.Context, s Service, st fwu.State) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return t.Call(ctx, func(s Service) error {
		st, err := phase(ctx, s)
		if err != nil {
			return err
		}
		return f(ctx, s, st)
	})
}

// errTrouble is wrapped by errors that say nothing of the system: the service is busy, refuses,
// cannot be reached, or is degraded; a medium fails. Trouble is no verdict; it is waited out.
var errTrouble = errors.New("trouble that says nothing of the system")

func trouble(err error) error { return fmt.Errorf("%w: %w", errTrouble, err) }

// persist repeats f while it ends in trouble, until the time since boot is until.
func (t Trial) persist(ctx context.Context, until time.Duration, f func(context.Context) error) error {
	said := ""
	for {
		err := f(ctx)
		if !errors.Is(err, errTrouble) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		now, clockErr := t.SinceBoot()
		if clockErr != nil {
			return errors.Join(err, clockErr)
		}
		if now >= until {
			return err
		}
		if text := err.Error(); text != said {
			t.Log.Warn("trying again", "left", (until - now).Round(time.Second), "err", err)
			said = text
		}
		if err := wait(ctx, min(retryInterval, until-now)); err != nil {
			return err
		}
	}
}

// Configure calls load, which reads the configuration. A medium that fails says nothing of the
// system: load is called again until the deadline. Any other error it returns at once.
func (t Trial) Configure(ctx context.Context, load func() error) error {
	return t.persist(ctx, t.Deadline, func(context.Context) error {
		err := load()
		if fwu.CauseOf(err) == fwu.CauseMedium {
			return trouble(err)
		}
		return err
	})
}

// ask asks the service for the state of the bank. A state that a degraded service does not know it
// answers with READY, so only TRIAL and REJECTED are believed then.
func (t Trial) ask(ctx context.Context) (fwu.State, error) {
	found := fwu.Ready
	err := t.call(ctx, func(_ context.Context, s Service, st fwu.State) error {
		found = st
		return believable(s, st)
	})
	if err != nil {
		return fwu.Ready, trouble(err)
	}
	return found, nil
}

func believable(s Service, st fwu.State) error {
	if st == fwu.Trial || st == fwu.Rejected {
		return nil
	}
	if reasons := s.System().Degraded; len(reasons) > 0 {
		return fmt.Errorf("the service is degraded: %v", reasons)
	}
	return nil
}

// On tells whether the system waits to be accepted. Where the service is in trouble, the evidence
// decides; where there is none either, both are asked again until the deadline.
func (t Trial) On(ctx context.Context) (bool, error) {
	on := false
	err := t.persist(ctx, t.Deadline, func(ctx context.Context) error {
		st, err := t.ask(ctx)
		if err == nil {
			on = st == fwu.Trial
			return nil
		}
		var unknown error
		if on, unknown = t.Evidence(ctx); unknown != nil {
			return errors.Join(err, unknown)
		}
		t.Log.Warn("the update service cannot be asked", "err", err)
		return nil
	})
	return on, err
}

// GiveUp rejects the running system and reboots into the previous one: through the service; where
// that is in trouble for longer than verdictPatience, by a reset, which does the same as nothing
// but an accepted system is started twice. A service that cannot start is tried once. It returns
// nil if a reboot was asked for, or if there is no trial.
func (t Trial) GiveUp(ctx context.Context, why fwu.Rejection) error {
	now, err := t.SinceBoot()
	if err != nil {
		return err
	}
	until := min(now+verdictPatience, max(now, t.Deadline))
	if t.Hopeless {
		until = now
	}
	_, err = t.giveUp(ctx, why, until)
	return err
}

// giveUp tells whether a reboot was asked for. It waits trouble out until the time since boot is
// until.
func (t Trial) giveUp(ctx context.Context, why fwu.Rejection, until time.Duration) (asked bool, err error) {
	why.Text = oneLine(why.Text)
	t.Log.Error("giving the new system up", "reason", why.Reason, "text", why.Text)
	err = t.persist(ctx, until, func(ctx context.Context) error { return t.rejectOnce(ctx, why) })
	switch {
	case errors.Is(err, errNoTrial):
		t.Log.Info("nothing to give up: the system is not on trial")
		return false, nil
	case err == nil:
		return true, nil
	case !errors.Is(err, errTrouble):
		return false, err
	}
	t.Log.Error("the update service could not do it", "err", err)
	return false, t.reset(ctx)
}

// rejectOnce rejects the running system through the service, and asks for the reboot.
func (t Trial) rejectOnce(ctx context.Context, why fwu.Rejection) error {
	err := t.call(ctx, func(ctx context.Context, s Service, st fwu.State) error {
		switch {
		case st != fwu.Trial && st != fwu.Rejected:
			return cmp.Or(believable(s, st), errNoTrial)
		case slices.Contains(s.System().Degraded, fwu.ReasonRollbackFailed):
			return errStuck
		case st == fwu.Trial:
			if _, err := s.Reject(ctx, why); err != nil {
				return err
			}
		}
		return s.RequestReboot(ctx)
	})
	if err == nil || errors.Is(err, errNoTrial) || errors.Is(err, errStuck) {
		return err
	}
	if on, unknown := t.Evidence(ctx); unknown == nil && !on {
		return errNoTrial
	}
	return trouble(err)
}

// reset leaves a system that is on trial by evidence.
func (t Trial) reset(ctx context.Context) error {
	on, err := t.Evidence(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("it is not known whether the system is on trial, and it stays up: %w", err)
	case !on:
		t.Log.Info("nothing to give up: the system is not on trial")
		return nil
	}
	t.Log.Error("resetting the system: the bootloader starts the previous one")
	return t.Reset(ctx)
}

// Accept accepts the running system if it is on trial and none of the units has failed. It waits
// for units that are still starting. Trouble with the service is waited out until the deadline:
// only a unit that failed is a reason to give the system up here.
func (t Trial) Accept(ctx context.Context, units []string, states func(ctx context.Context, names ...string) ([]systemd.Unit, error)) error {
	err := t.persist(ctx, t.Deadline, func(ctx context.Context) error { return t.acceptOnce(ctx, units, states) })
	if errors.Is(err, errNoTrial) {
		t.Log.Info("nothing to accept: the system is not on trial")
		return nil
	}
	return err
}

func (t Trial) acceptOnce(ctx context.Context, units []string, states func(ctx context.Context, names ...string) ([]systemd.Unit, error)) error {
	st, err := t.ask(ctx)
	if err != nil {
		if on, unknown := t.Evidence(ctx); unknown == nil && !on {
			return errNoTrial
		}
		return err
	}
	if st != fwu.Trial {
		return errNoTrial
	}
	if err := settled(ctx, units, states); errors.Is(err, errUnit) {
		return errors.Join(err, t.GiveUp(ctx, fwu.Rejection{Reason: fwu.ReasonTrialCheck, Text: err.Error()}))
	} else if err != nil {
		return trouble(err)
	}
	err = t.call(ctx, func(ctx context.Context, s Service, st fwu.State) error {
		if st != fwu.Trial { // a client was faster
			return cmp.Or(believable(s, st), errNoTrial)
		}
		// Of a service that answers queries only, an accept gives the other bank up: that is a
		// decision of a client, not of a check.
		if sys := s.System(); len(sys.Degraded) > 0 {
			return &fwu.Error{Status: fwu.NotPermitted, Reason: sys.Degraded[0], Text: "the new system is not accepted: the service answers queries only"}
		}
		if err := s.Accept(ctx); err != nil {
			return err
		}
		t.Log.Info("the new system is accepted")
		return nil
	})
	if err != nil && !errors.Is(err, errNoTrial) {
		return trouble(err)
	}
	return err
}

// errUnit is wrapped by errors of units that stand in the way of an acceptance.
var errUnit = errors.New("unit")

// settled waits until none of the units is starting. The error wraps errUnit if one has failed or
// is not there; any other says that units could not be asked for.
func settled(ctx context.Context, names []string, states func(ctx context.Context, names ...string) ([]systemd.Unit, error)) error {
	if len(names) == 0 {
		return nil
	}
	for {
		units, err := states(ctx, names...)
		if err != nil {
			return err
		}
		waiting := false
		for _, u := range units {
			switch {
			case u.Load == "not-found", u.Load == "error", u.Load == "bad-setting":
				return fmt.Errorf("%w %s cannot be loaded: %s", errUnit, u.Name, u.Load)
			case u.Active == "failed":
				return fmt.Errorf("%w %s has failed", errUnit, u.Name)
			case u.Busy, u.Active == "activating", u.Active == "reloading", u.Active == "deactivating":
				waiting = true
			}
		}
		if !waiting {
			return nil
		}
		if err := wait(ctx, unitInterval); err != nil {
			return err
		}
	}
}

// Checks runs the health checks, of a system that is on trial. If a required one fails it gives the system up; the error says why.
func (t Trial) Checks(ctx context.Context, root string, r rundir.Runner) error {
	on, err := t.On(ctx)
	if err != nil {
		return err
	}
	if !on {
		t.Log.Info("the system is not on trial: no health check is run")
		return nil
	}
	err = t.runAll(ctx, root, r)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return errors.Join(err, t.GiveUp(ctx, fwu.Rejection{Reason: fwu.ReasonTrialCheck, Text: err.Error()}))
}

func (t Trial) runAll(ctx context.Context, root string, r rundir.Runner) error {
	checks, err := Find(root)
	if err != nil {
		return err
	}
	var failed []error
	for _, c := range checks {
		err := r.Run(ctx, c.Program)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			t.Log.Info("healthy", "check", c.Name)
		case c.Required:
			t.Log.Error("not healthy", "check", c.Name, "err", err)
			failed = append(failed, err)
		default:
			t.Log.Warn("not healthy, which does not decide", "check", c.Name, "err", err)
		}
	}
	return errors.Join(failed...)
}

// Watch waits until the running system was accepted, and gives it up if that did not happen within deadline of its boot. On a system that is not on trial it returns at once.
func (t Trial) Watch(ctx context.Context, deadline time.Duration) error {
	told := false
	for {
		on, err := t.Evidence(ctx)
		if err == nil && !on {
			return nil
		}
		now, clockErr := t.SinceBoot()
		if clockErr != nil {
			return clockErr
		}
		if now >= deadline {
			break
		}
		if !told && err == nil {
			t.Log.Info("the system is on trial", "deadline", deadline, "left", (deadline - now).Round(time.Second))
			told = true
		}
		if err := wait(ctx, min(watchInterval, deadline-now)); err != nil {
			return nil // it was stopped
		}
	}
	asked, err := t.giveUp(ctx, fwu.Rejection{Reason: fwu.ReasonTrialDeadline, Text: fmt.Sprintf("not accepted within %v of its boot", deadline)}, 0)
	if err != nil || !asked {
		return err
	}
	if err := wait(ctx, downTimeout); err != nil {
		return nil // the system goes down
	}
	return t.reset(ctx)
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// oneLine makes a text that a Rejection can have.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(strings.ReplaceAll(s, "\n", "; "), "?"))
	if len(s) <= fwu.MaxRejectText {
		return s
	}
	const dots = "..."
	n := fwu.MaxRejectText - len(dots)
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + dots
}
