package fwu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/google/go-cmp/cmp"
)

// eventLog keeps the events that were logged, in words.
type eventLog struct {
	mu   sync.Mutex
	seen []string
}

func (l *eventLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *eventLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *eventLog) WithGroup(string) slog.Handler            { return l }

func (l *eventLog) Handle(_ context.Context, r slog.Record) error {
	attrs := map[string]string{}
	r.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value.String(); return true })
	if attrs[fwu.EventKey] == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", attrs["component"], attrs[fwu.EventKey], attrs["version"], attrs["reason"], attrs["needs"])))
	return nil
}

func (l *eventLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	l.seen = nil
	return seen
}

// logged is a device whose events are kept.
func logged(t *testing.T, comps ...fwu.Component) (*device, *eventLog) {
	d := newDevice(t, true, comps...)
	l := &eventLog{}
	d.Config.Log = slog.New(l)
	d.restart()
	l.take()
	return d, l
}

func TestEvents(t *testing.T) {
	image := randomImage(10, 50000)
	steps := []struct {
		name string
		do   func(*device)
		want []string
	}{
		{"a forged manifest", func(d *device) {
			m := d.manifest("rootfs", image, "2.0.0", 2)
			m[len(m)-1] ^= 1
			_ = d.Start(d.t.Context(), 0, m)
		}, []string{"rootfs refused  manifest-signature"}},
		{"a damaged image", func(d *device) {
			d.do(d.Start(d.t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)))
			_, err := d.WriteFrom(d.t.Context(), 0, 0, bytes.NewReader(randomImage(11, 50000)), 0)
			d.do(err)
			_ = d.Finish(d.t.Context(), 0)
		}, []string{"rootfs started 2.0.0", "rootfs refused 2.0.0 image-digest"}},
		{"clean", func(d *device) { d.do(d.Clean(d.t.Context(), 0)) }, []string{"rootfs cleaned"}},
		{"cancelled", func(d *device) {
			d.do(d.Start(d.t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)))
			d.do(d.Cancel(d.t.Context(), 0))
			d.do(d.Clean(d.t.Context(), 0))
		}, []string{"rootfs started 2.0.0", "rootfs cancelled 2.0.0 cancelled", "rootfs cleaned"}},
		{"installed", func(d *device) {
			d.candidate(0, "rootfs", image, "2.0.0", 2)
			d.installed(fwu.SuccessReboot)
		}, []string{"rootfs started 2.0.0", "rootfs candidate 2.0.0", "rootfs installed 2.0.0"}},
		{"rejected before the reboot", func(d *device) {
			_, err := d.Reject(d.t.Context(), fwu.Rejection{})
			d.do(err)
		}, []string{"rootfs rolled-back 2.0.0 rejected"}},
		{"on trial, reset", func(d *device) {
			d.do(d.Clean(d.t.Context(), 0))
			d.candidate(0, "rootfs", image, "2.0.0", 2)
			d.installed(fwu.SuccessReboot)
			d.reboot()
			d.reboot()
		}, []string{"rootfs cleaned", "rootfs started 2.0.0", "rootfs candidate 2.0.0", "rootfs installed 2.0.0", "rootfs trial 2.0.0", "rootfs rolled-back 2.0.0 trial-reset"}},
		{"on trial, rejected", func(d *device) {
			d.do(d.Clean(d.t.Context(), 0))
			d.candidate(0, "rootfs", image, "2.0.0", 2)
			d.installed(fwu.SuccessReboot)
			d.reboot()
			_, err := d.Reject(d.t.Context(), fwu.Rejection{Reason: fwu.ReasonTrialCheck})
			d.do(err)
			d.reboot()
		}, []string{"rootfs cleaned", "rootfs started 2.0.0", "rootfs candidate 2.0.0", "rootfs installed 2.0.0", "rootfs trial 2.0.0",
			"rootfs rejected 2.0.0 trial-check", "rootfs rolled-back 2.0.0 trial-check"}},
		{"kept", func(d *device) {
			d.do(d.Clean(d.t.Context(), 0))
			d.candidate(0, "rootfs", randomImage(12, 50000), "2.1.0", 2)
			d.installed(fwu.SuccessReboot)
			d.reboot()
			d.do(d.Accept(d.t.Context()))
			d.reboot()
			d.do(d.Clean(d.t.Context(), 0))
		}, []string{"rootfs cleaned", "rootfs started 2.1.0", "rootfs candidate 2.1.0", "rootfs installed 2.1.0", "rootfs trial 2.1.0", "rootfs accepted 2.1.0", "rootfs cleaned"}},
	}
	d, l := logged(t, bank("rootfs")...)
	for _, s := range steps {
		s.do(d)
		if diff := cmp.Diff(s.want, l.take()); diff != "" {
			t.Fatalf("%s: %s", s.name, diff)
		}
	}
}

func TestEventsOfOtherComponents(t *testing.T) {
	image := randomImage(10, 50000)
	t.Run("live with trial", func(t *testing.T) {
		d, l := logged(t, live(7, "app", true))
		d.candidate(7, "app", image, "2.0.0", 2)
		d.installed(fwu.Success)
		d.do(d.Accept(t.Context()))
		d.do(d.Clean(t.Context(), 7))
		d.candidate(7, "app", randomImage(11, 50000), "2.1.0", 3)
		d.installed(fwu.Success)
		_, err := d.Reject(t.Context(), fwu.Rejection{})
		d.do(err)
		want := []string{"app started 2.0.0", "app candidate 2.0.0", "app installed 2.0.0", "app accepted 2.0.0", "app cleaned",
			"app started 2.1.0", "app candidate 2.1.0", "app installed 2.1.0", "app rolled-back 2.1.0 rejected"}
		if diff := cmp.Diff(want, l.take()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("volatile", func(t *testing.T) {
		comps := bank("rootfs")
		comps[0].Volatile = true
		d, l := logged(t, comps...)
		d.do(d.Start(t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)))
		d.reboot()
		d.candidate(0, "rootfs", image, "2.0.0", 2)
		d.installed(fwu.SuccessReboot)
		d.reboot()
		d.do(d.Accept(t.Context()))
		want := []string{"rootfs started 2.0.0", "rootfs dropped 2.0.0", "rootfs started 2.0.0", "rootfs candidate 2.0.0", "rootfs installed 2.0.0", "rootfs trial 2.0.0", "rootfs accepted 2.0.0"}
		if diff := cmp.Diff(want, l.take()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestRefusedInstallIsLogged: whoever reads the log finds why nothing was installed, and which
// components stand in the way. The C interface has no other way to say so.
func TestRefusedInstallIsLogged(t *testing.T) {
	d, l := logged(t, bank("rootfs", "bootfw")...)
	_, err := d.Install(t.Context())
	d.wantStatus(err, fwu.BadState, fwu.ReasonState)
	dep, err := suit.ParseDependency("bootfw>=2.0.0")
	d.do(err)
	d.candidate(0, "rootfs", randomImage(3, 40960), "2.0.0", 2, dep)
	_, err = d.Install(t.Context())
	d.wantStatus(err, fwu.DependencyNeeded, fwu.ReasonDependency)
	want := []string{"not-installed  state", "rootfs started 2.0.0", "rootfs candidate 2.0.0", "rootfs not-installed 2.0.0 dependency bootfw"}
	if diff := cmp.Diff(want, l.take()); diff != "" {
		t.Error(diff)
	}
}

// Query tells since when a component has been in its state, also after a restart of the service.
func TestSince(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	now := time.Unix(2_000_000_000, 0)
	d.Config.Time = func() time.Time { return now }
	d.restart()
	since := func() int64 {
		info, err := d.Query(t.Context(), 0)
		d.do(err)
		return info.Impl.Since
	}
	if n := since(); n != 0 {
		t.Errorf("since %d, and nothing has happened", n)
	}
	d.do(d.Start(t.Context(), 0, d.manifest("rootfs", randomImage(10, 50000), "2.0.0", 2)))
	now = now.Add(time.Hour)
	d.do(d.Write(t.Context(), 0, 0, randomImage(10, 50000)[:40960]))
	d.restart()
	if n := since(); n != 2_000_000_000 {
		t.Errorf("WRITING since %d", n)
	}
	d.do(d.Cancel(t.Context(), 0))
	if n := since(); n != 2_000_003_600 {
		t.Errorf("FAILED since %d", n)
	}
}

// The log said that an image was installed, or rejected, when the record said so. An operation that
// failed after that, and was taken back, stood there as well. Of an install only the failure is
// there.
func TestOperationThatIsTakenBackHasNoEvent(t *testing.T) {
	image := randomImage(10, 50000)
	staged := func(d *device) {
		d.candidate(0, "rootfs", image, "2.0.0", 2)
		d.installed(fwu.SuccessReboot)
	}
	onTrial := func(d *device) { staged(d); d.reboot() }
	for name, c := range map[string]struct {
		before, do func(*device)
		want       []string
	}{
		"install": {func(d *device) { d.candidate(0, "rootfs", image, "2.0.0", 2) }, func(d *device) {
			d.Selector.Failing = 0
			d.do(d.Stop())
			d.Config.Selector = unarmed{d.Selector}
			d.restart()
			_, err := d.Install(d.t.Context())
			d.wantStatus(err, fwu.StorageFailure, fwu.ReasonSelectorUnusable)
			d.reboot()
			d.want("rootfs CANDIDATE 1.0.0")
		}, []string{"rootfs not-installed 2.0.0 selector-unusable"}},
		"accept": {onTrial, func(d *device) {
			d.wantStatus(d.Accept(d.t.Context()), fwu.StorageFailure, fwu.ReasonSelectorUnusable)
		}, nil},
		"reject on trial": {onTrial, func(d *device) {
			_, err := d.Reject(d.t.Context(), fwu.Rejection{})
			d.wantStatus(err, fwu.StorageFailure, fwu.ReasonSelectorUnusable)
			d.want("rootfs TRIAL 2.0.0")
		}, nil},
		"reject before the reboot": {staged, func(d *device) {
			_, err := d.Reject(d.t.Context(), fwu.Rejection{})
			d.wantStatus(err, fwu.StorageFailure, fwu.ReasonSelectorUnusable)
		}, nil},
		"reject on trial, and the old bank is dead": {onTrial, func(d *device) {
			d.Selector.Failing = 0
			overwrite(d.t, d.Slots["rootfs_a"], make([]byte, slotSize), 0)
			_, err := d.Reject(d.t.Context(), fwu.Rejection{})
			d.do(err)
			d.want("rootfs FAILED 2.0.0")
		}, []string{"rootfs kept 2.0.0 rollback-failed"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, l := logged(t, bank("rootfs")...)
			c.before(d)
			l.take()
			d.Selector.Failing = 1
			c.do(d)
			if diff := cmp.Diff(c.want, l.take()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// unarmed is a selector that cannot be armed.
type unarmed struct{ *fwutest.Selector }

func (u unarmed) Commit(sel fwu.Selection) error {
	if sel.Trial != fwu.NoBank {
		return errors.New("write error")
	}
	return u.Selector.Commit(sel)
}

// The unit of a live component that does not start with its new image gets the old one back: that
// image was never in use.
func TestLiveImageThatDoesNotStartWasNotInstalled(t *testing.T) {
	for _, trial := range []bool{true, false} {
		c := live(7, "app", trial)
		c.Unit = "app.service"
		d, l := logged(t, c)
		d.System.Failing = c.Unit
		d.candidate(7, "app", randomImage(14, 50000), "2.0.0", 2)
		_, err := d.Install(t.Context())
		d.wantStatus(err, fwu.GenericError, fwu.ReasonUnitRestart)
		want := []string{"app started 2.0.0", "app candidate 2.0.0", "app rolled-back 2.0.0 unit-restart"}
		if diff := cmp.Diff(want, l.take()); diff != "" {
			t.Errorf("trial %v: %s", trial, diff)
		}
	}
}

// At the time of an event, nothing is left to be done that could fail.
func TestEventsFollowTheCommit(t *testing.T) {
	d, l := logged(t, bank("rootfs")...)
	d.do(d.Stop())
	sel := &watchedSelector{Selector: d.Selector, log: l}
	d.Config.Selector = sel
	d.restart()
	d.candidate(0, "rootfs", randomImage(10, 50000), "2.0.0", 2)
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { _, err := d.Install(t.Context()); return err }, "rootfs installed 2.0.0"},
		{func() error { d.reboot(); return nil }, "rootfs trial 2.0.0"},
		{func() error { _, err := d.Reject(t.Context(), fwu.Rejection{}); return err }, "rootfs rejected 2.0.0 rejected"},
	} {
		l.take()
		d.do(step.do())
		if diff := cmp.Diff([]string{step.want}, l.take()); diff != "" {
			t.Error(diff)
		}
	}
	if len(sel.early) > 0 {
		t.Errorf("logged before a commit of the same operation: %q", sel.early)
	}
}

// watchedSelector keeps the events that stand in the log when a selection is committed.
type watchedSelector struct {
	*fwutest.Selector
	log   *eventLog
	early []string
}

func (w *watchedSelector) Commit(sel fwu.Selection) error {
	w.early = append(w.early, w.log.take()...)
	return w.Selector.Commit(sel)
}

// A bank that was flashed by hand is followed. Nothing was cleaned there.
func TestBankThatIsFollowedIsNotCleaned(t *testing.T) {
	d, l := logged(t, bank("rootfs")...)
	d.do(d.Start(t.Context(), 0, d.manifest("rootfs", randomImage(10, 50000), "2.0.0", 2)))
	d.do(d.Cancel(t.Context(), 0))
	overwrite(t, d.Slots["rootfs_b"], randomImage(11, slotSize), 0)
	l.take()
	d.Selector.Selection = fwu.Selection{Default: fwu.BankB}
	d.reboot()
	d.want("rootfs READY 2.0.0")
	if seen := l.take(); len(seen) > 0 {
		t.Errorf("%q", seen)
	}
}
