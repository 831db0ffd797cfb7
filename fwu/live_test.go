package fwu_test

import (
	"slices"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// live is a component that a unit of its name uses.
func live(id fwu.ID, name string, trial bool) fwu.Component {
	return fwu.Component{ID: id, Name: name, Manifest: fwu.Detached, Live: true, Trial: trial, Unit: name + ".service"}
}

// Record and link said that the new image is active, and the unit ran with the old one until somebody restarted it.
func TestUnitIsRestartedIfTheServiceDiedBeforeItsLinkChanged(t *testing.T) {
	d := newDevice(t, true, live(7, "app", false))
	d.candidate(7, "app", randomImage(14, 70000), "2.0.0", 2)
	d.System.BeforeLink = func(string) { panic("killed") }
	func() {
		defer func() { _ = recover() }()
		_, _ = d.Install(t.Context())
	}()
	d.System.BeforeLink = nil
	d.Kill()
	d.restart()
	d.want("app UPDATED 2.0.0")
	if d.System.Links["app"] != "/dev/app_b" || !slices.Equal(d.System.Started, []string{"app.service"}) {
		t.Fatalf("links %v, restarted %v", d.System.Links, d.System.Started)
	}
	d.restart()
	d.reboot()
	if len(d.System.Started) != 1 {
		t.Fatalf("restarted again: %v", d.System.Started)
	}
}

// Every image of an install that failed was counted as a failed trial, those that had started included.
func TestOnlyTheImageThatDidNotStartIsCountedAsFailed(t *testing.T) {
	d := newDevice(t, true, live(7, "app", true), live(8, "lib", true))
	d.System.Failing = "app.service"
	app, lib := randomImage(5, 40960), randomImage(6, 40960)
	for range 3 {
		d.candidate(7, "app", app, "2.0.0", 2)
		d.candidate(8, "lib", lib, "2.0.0", 2)
		_, err := d.Install(t.Context())
		d.wantStatus(err, fwu.GenericError, fwu.ReasonUnitRestart)
		d.want("app FAILED 0.0.0, lib FAILED 0.0.0")
		d.do(d.Clean(t.Context(), 7))
		d.do(d.Clean(t.Context(), 8))
	}
	d.wantStatus(d.Start(t.Context(), 7, d.manifest("app", app, "2.0.0", 2)), fwu.NotPermitted, fwu.ReasonFailedBefore)
	d.candidate(8, "lib", lib, "2.0.0", 2)
	d.installed(fwu.Success)
}

// An image that had failed, and was accepted later, was refused for its earlier failures.
func TestImageThatWasAcceptedNeverFailed(t *testing.T) {
	d := newDevice(t, true, live(7, "app", true))
	app := randomImage(5, 40960)
	install := func() error {
		d.candidate(7, "app", app, "2.0.0", 2)
		_, err := d.Install(t.Context())
		return err
	}
	for range 3 {
		d.System.Failing = "app.service"
		for range 2 {
			d.wantStatus(install(), fwu.GenericError, fwu.ReasonUnitRestart)
			d.do(d.Clean(t.Context(), 7))
		}
		d.System.Failing = ""
		d.do(install())
		d.do(d.Accept(t.Context()))
		d.do(d.Clean(t.Context(), 7))
	}
}

// A configuration that calls the slots of a live component the other way round put the second image into use, which nobody had verified.
func TestLinkIsThatOfTheRecord(t *testing.T) {
	d := newDevice(t, true, live(7, "app", false))
	slots := &d.Config.Components[0].Slots
	slots[0], slots[1] = slots[1], slots[0]
	d.reboot()
	d.want("app READY 0.0.0")
	if got := d.System.Links["app"]; got != "/dev/app_a" {
		t.Errorf("link to %s", got)
	}
	d.wantStatus(d.Start(t.Context(), 7, d.manifest("app", randomImage(9, 4096), "2.0.0", 2)), fwu.NotPermitted, fwu.ReasonConfigDiffers)
	slots[1] = slots[0]
	delete(d.System.Links, "app")
	d.reboot()
	if got, ok := d.System.Links["app"]; ok {
		t.Errorf("link to %s, though the active slot is not known", got)
	}
}
