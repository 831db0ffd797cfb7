package bootcheck

import (
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
	// SinceBoot is the time since the kernel started, with that of suspension.
	SinceBoot func() (time.Duration, error)
	Log       *slog.Logger
}

// How long things may take.
const (
	callTimeout   = 30 * time.Second // the answer of the service; its start is part of it
	watchInterval = 5 * time.Second
	downTimeout   = 10 * time.Minute // from the request for a reboot to the end of this process
	unitInterval  = 500 * time.Millisecond
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

// On tells whether the system waits to be accepted. Where the service cannot be reached, the evidence decides.
func (t Trial) On(ctx context.Context) (bool, error) {
	on := false
	err := t.call(ctx, func(_ context.Context, _ Service, st fwu.State) error {
		on = st == fwu.Trial
		return nil
	})
	if err == nil {
		return on, nil
	}
	t.Log.Warn("the update service cannot be asked", "err", err)
	return t.Evidence(ctx)
}

// GiveUp rejects the running system and reboots into the previous one: through the service, else by a reset, which does the same as nothing but an accepted system is started
// twice. It returns nil if a reboot was asked for, or if there is no trial.
func (t Trial) GiveUp(ctx context.Context, why fwu.Rejection) error {
	_, err := t.giveUp(ctx, why)
	return err
}

// giveUp tells whether a reboot was asked for.
func (t Trial) giveUp(ctx context.Context, why fwu.Rejection) (asked bool, err error) {
	why.Text = oneLine(why.Text)
	t.Log.Error("giving the new system up", "reason", why.Reason, "text", why.Text)
	err = t.call(ctx, func(ctx context.Context, s Service, st fwu.State) error {
		switch {
		case st != fwu.Trial && st != fwu.Rejected:
			return errNoTrial
		case slices.Contains(s.System().Degraded, fwu.ReasonRollbackFailed):
			return errStuck
		case st == fwu.Trial:
			if _, err := s.Reject(ctx, why); err != nil {
				return err
			}
		}
		return s.RequestReboot(ctx)
	})
	switch {
	case errors.Is(err, errNoTrial):
		t.Log.Info("nothing to give up: the system is not on trial")
		return false, nil
	case err == nil, errors.Is(err, errStuck):
		return err == nil, err
	}
	t.Log.Error("the update service could not do it", "err", err)
	return false, t.reset(ctx)
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

// Accept accepts the running system if it is on trial and none of the units has failed. It waits for units that are still starting.
func (t Trial) Accept(ctx context.Context, units []string, states func(ctx context.Context, names ...string) ([]systemd.Unit, error)) error {
	err := t.call(ctx, func(_ context.Context, _ Service, st fwu.State) error {
		if st != fwu.Trial {
			return errNoTrial
		}
		return nil
	})
	if err == nil {
		err = t.acceptWith(ctx, units, states)
	}
	if errors.Is(err, errNoTrial) {
		t.Log.Info("nothing to accept: the system is not on trial")
		return nil
	}
	return err
}

func (t Trial) acceptWith(ctx context.Context, units []string, states func(ctx context.Context, names ...string) ([]systemd.Unit, error)) error {
	if err := settled(ctx, units, states); err != nil {
		return errors.Join(err, t.GiveUp(ctx, fwu.Rejection{Reason: fwu.ReasonTrialCheck, Text: err.Error()}))
	}
	return t.call(ctx, func(ctx context.Context, s Service, st fwu.State) error {
		if st != fwu.Trial { // a client was faster
			return errNoTrial
		}
		if err := s.Accept(ctx); err != nil {
			return err
		}
		t.Log.Info("the new system is accepted")
		return nil
	})
}

// settled waits until none of the units is starting, and returns an error if one has failed or is not there.
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
				return fmt.Errorf("unit %s cannot be loaded: %s", u.Name, u.Load)
			case u.Active == "failed":
				return fmt.Errorf("unit %s has failed", u.Name)
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
func (t Trial) Checks(ctx context.Context, root string, r Runner) error {
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

func (t Trial) runAll(ctx context.Context, root string, r Runner) error {
	checks, err := Find(root)
	if err != nil {
		return err
	}
	var failed []error
	for _, c := range checks {
		err := r.Run(ctx, c)
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
	asked, err := t.giveUp(ctx, fwu.Rejection{Reason: fwu.ReasonTrialDeadline, Text: fmt.Sprintf("not accepted within %v of its boot", deadline)})
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
