package fwu_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/google/go-cmp/cmp"
)

var errHook = errors.New("post.d/10-x: exit status 1: the lift moves")

// hook is one of a device.
type hook = func(ctx context.Context, call *fwu.HookCall) error

// hooked is a device with a hook, the same one at each stage.
func hooked(t *testing.T, f hook, comps ...fwu.Component) *device {
	d := newDevice(t, true, comps...)
	d.Config.Hooks = func(ctx context.Context, call *fwu.HookCall, step func()) error {
		before, _ := d.Pulse()
		step()
		if after, _ := d.Pulse(); after == before {
			t.Error("the watchdog sees no step")
		}
		return f(ctx, call)
	}
	d.restart()
	return d
}

func TestHooksAreToldOfTheUpdate(t *testing.T) {
	var told []string
	d := hooked(t, func(_ context.Context, c *fwu.HookCall) error {
		line := fmt.Sprintf("%s, bank %q:", c.Stage, c.Bank)
		for _, v := range c.Components {
			line += fmt.Sprintf(" %s %s", v.Component, v.Version)
		}
		told = append(told, line)
		return nil
	}, bank("rootfs", "bootfw", "app")...)
	d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
	d.candidate(1, "bootfw", randomImage(11, 40960), "2.1.0", 2)
	d.installed(fwu.SuccessReboot)
	d.reboot()
	d.do(d.Accept(t.Context()))
	want := []string{
		`pre-install, bank "b": rootfs 2.0.0 bootfw 2.1.0`,
		`post-install, bank "b": rootfs 2.0.0 bootfw 2.1.0`,
		`post-accept, bank "b": rootfs 2.0.0 bootfw 2.1.0`,
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
}

// While a hook runs before the install everything can be asked, and one that fails leaves the
// candidate as it is: nothing was written.
func TestHookRefusesAnInstall(t *testing.T) {
	for name, live := range map[string]bool{"of a bank": false, "of a live component": true} {
		t.Run(name, func(t *testing.T) {
			refused := true
			var d *device
			components := bank("rootfs", "bootfw")
			components[0].Live, components[1].Live = live, live
			d = hooked(t, func(ctx context.Context, c *fwu.HookCall) error {
				if c.Stage != fwu.HookPreInstall || !refused {
					return nil
				}
				if info, err := d.Query(ctx, 0); err != nil || info.State != fwu.Candidate || info.Impl.Operation != fwu.OpInstall {
					t.Errorf("a hook is told %+v, %v", info, err)
				}
				return errHook
			}, components...)
			image := randomImage(10, 70000)
			d.candidate(0, "rootfs", image, "2.0.0", 2)
			before := []string{string(d.Slots["rootfs_b"].Bytes(slotSize)), string(d.Slots["bootfw_b"].Bytes(slotSize)), fmt.Sprint(d.Selector.Read())}
			_, err := d.Install(t.Context())
			d.wantStatus(err, fwu.NotPermitted, fwu.ReasonHook)
			if !errors.Is(err, errHook) || !strings.Contains(err.Error(), "the lift moves") {
				t.Errorf("the error is %v", err)
			}
			after := []string{string(d.Slots["rootfs_b"].Bytes(slotSize)), string(d.Slots["bootfw_b"].Bytes(slotSize)), fmt.Sprint(d.Selector.Read())}
			if before[0] != after[0] || before[1] != after[1] || before[2] != after[2] {
				t.Error("slots or selector were changed")
			}
			d.want("rootfs CANDIDATE 1.0.0, bootfw READY 0.0.0")
			refused = false
			d.installed(map[bool]fwu.Status{false: fwu.SuccessReboot, true: fwu.Success}[live])
		})
	}
}

// After the commit a hook changes nothing by failing. No lock is held: it may call the service.
func TestHookFailsAfterTheCommit(t *testing.T) {
	var d *device
	var stages []fwu.HookStage
	d = hooked(t, func(ctx context.Context, c *fwu.HookCall) error {
		stages = append(stages, c.Stage)
		switch c.Stage {
		case fwu.HookPreInstall:
			return nil
		case fwu.HookPostInstall:
			d.want("rootfs STAGED 1.0.0")
			_, err := d.Install(ctx)
			d.wantStatus(err, fwu.BadState, fwu.ReasonState)
		case fwu.HookPostAccept:
			d.want("rootfs UPDATED 2.0.0")
			d.wantStatus(d.Accept(ctx), fwu.BadState, fwu.ReasonState)
		}
		return errHook
	}, bank("rootfs")...)
	d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
	d.installed(fwu.SuccessReboot)
	d.reboot()
	d.do(d.Accept(t.Context()))
	d.want("rootfs UPDATED 2.0.0")
	if diff := cmp.Diff(fwu.HookStages(), stages); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
}

// An install that fails has no hooks after it.
func TestNoHookAfterAnInstallThatFails(t *testing.T) {
	var d *device
	d = hooked(t, func(_ context.Context, c *fwu.HookCall) error {
		if c.Stage != fwu.HookPreInstall {
			t.Errorf("%s was called", c.Stage)
		}
		d.Selector.Failing = 2
		return nil
	}, bank("rootfs")...)
	d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
	_, err := d.Install(t.Context())
	d.wantStatus(err, fwu.StorageFailure, fwu.ReasonSelectorUnusable)
	d.want("rootfs CANDIDATE 1.0.0")
}

func TestCancelEndsAHook(t *testing.T) {
	runs := make(chan struct{})
	d := hooked(t, func(ctx context.Context, _ *fwu.HookCall) error {
		close(runs)
		<-ctx.Done()
		return ctx.Err()
	}, bank("rootfs")...)
	d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
	ended := make(chan error)
	go func() {
		_, err := d.Install(t.Context())
		ended <- err
	}()
	<-runs
	d.do(d.Cancel(t.Context(), 0))
	d.wantStatus(<-ended, fwu.BadState, fwu.ReasonCancelled)
	d.want("rootfs FAILED 1.0.0")
}

// After the commit a hook goes on where its caller has gone, until the service closes.
func TestCloseEndsAHookAfterTheCommit(t *testing.T) {
	runs := make(chan struct{})
	caller, leaves := context.WithCancel(t.Context())
	d := hooked(t, func(ctx context.Context, c *fwu.HookCall) error {
		if c.Stage != fwu.HookPostInstall {
			return nil
		}
		leaves()
		if err := ctx.Err(); err != nil {
			t.Errorf("ended with its caller: %v", err)
		}
		close(runs)
		<-ctx.Done()
		return ctx.Err()
	}, bank("rootfs")...)
	d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
	ended := make(chan error)
	service := d.Service
	go func() {
		_, err := service.Install(caller)
		ended <- err
	}()
	<-runs
	d.do(d.Stop())
	d.do(<-ended)
	d.reboot()
	d.want("rootfs TRIAL 2.0.0")
}
