package conformance_test

import (
	"errors"
	"testing"

	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/conformance"
	"github.com/fwu-ab/fwu-ab/test/capi"
)

// throughC is a device on a bus that is asked through the C library. The program with the library goes through reboots as it is: it does not notice that the
// service was away.
type throughC struct {
	*remote
	driver *capi.Driver
}

// cAPI has the calls of the library. What components there are is nothing that its API tells.
type cAPI struct {
	*capi.Driver
	components []fwu.ComponentInfo
}

func (a cAPI) Components() []fwu.ComponentInfo { return a.components }

func (c throughC) API() conformance.API { return cAPI{c.driver, c.client.Components()} }

func (c throughC) Close() error { return errors.Join(c.driver.Close(), c.remote.Close()) }

// TestServiceConformsThroughC: the library adds nothing to the service and takes nothing away, but the names of the components that stand in the way, for which its API has no room.
func TestServiceConformsThroughC(t *testing.T) {
	collectLess(t)
	library := capi.Build(t, "../..", "gcc")
	driver := library.Program(t, "psa/tests/driver.c")
	address := privatebus.ForTest(t)
	onBus := newRemote(address)
	newImpl := func(t testing.TB, comps []conformance.Config) conformance.Implementation {
		d, err := capi.Drive(address, driver)
		if err != nil {
			t.Fatal(err)
		}
		return throughC{onBus(t, comps).(*remote), d}
	}
	p := conformance.DefaultProfile()
	p.Names = false
	if !conformance.Full() {
		conformance.Walk(t, newImpl, conformance.Options{Profile: p, Steps: 300})
		return
	}
	whole(t, conformance.Run(t, newImpl, conformance.Options{Profile: p, Steps: 20_000}))
}
