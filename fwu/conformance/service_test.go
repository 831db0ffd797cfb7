package conformance_test

import (
	"runtime/debug"
	"testing"

	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/fwu/conformance"
)

func TestServiceConforms(t *testing.T) {
	collectLess(t)
	whole(t, conformance.Run(t, newDevice, conformance.Options{Steps: conformance.Steps(100_000, 4_000)}))
}

func TestServiceConformsOverDBus(t *testing.T) {
	collectLess(t)
	newImpl := newRemote(privatebus.ForTest(t))
	if !conformance.Full() {
		conformance.Walk(t, newImpl, conformance.Options{Steps: 1_000})
		return
	}
	whole(t, conformance.Run(t, newImpl, conformance.Options{Steps: 20_000}))
}

// whole: no row of the tables rests on a choice that the service has not taken.
func whole(t *testing.T, r conformance.Result) {
	if r.LeftOut > 0 {
		t.Errorf("%d rows were left out", r.LeftOut)
	}
}

// collectLess: little is live, and every slot that is opened takes some hundred kilobytes, so that most of the time would go into collecting garbage.
func collectLess(t *testing.T) {
	percent := debug.SetGCPercent(1000)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
}
