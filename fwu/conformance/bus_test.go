package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu/conformance"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
)

// remote is a device whose service is on a bus. What is tested is the client at the other end.
type remote struct {
	device
	address string
	client  *dbus.Client
	stop    func() error // ends the server
}

// newRemote returns what makes devices on the bus at address, one at a time.
func newRemote(address string) conformance.NewFunc {
	return func(t testing.TB, comps []conformance.Config) conformance.Implementation {
		r := &remote{device: device{fwutest.NewMachine()}, address: address}
		r.provision(t, comps)
		if err := errors.Join(r.run(r.Reset), r.dial()); err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// run starts the service with start, and serves it.
func (r *remote) run(start func() error) error {
	ready := make(chan struct{})
	server := dbus.New(dbus.Options{Ready: func() { close(ready) }})
	r.Config.Changed = server.Changed
	if err := start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	service := r.Service
	go func() { ended <- server.Serve(ctx, r.address, service) }()
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		return fmt.Errorf("serve: %w", err)
	}
	r.stop = func() error {
		cancel()
		r.stop = func() error { return nil }
		return <-ended
	}
	return nil
}

func (r *remote) dial() (err error) {
	r.client, err = dbus.Dial(context.Background(), r.address)
	return err
}

func (r *remote) API() conformance.API { return r.client }

// Reboot ends the service before the machine. A client is not rebooted with it if only the service restarts.
func (r *remote) Reboot(how conformance.Reboot) error {
	if err := r.stop(); err != nil {
		return err
	}
	if err := r.run(func() error { return r.device.Reboot(how) }); err != nil || how == conformance.Restart {
		return err
	}
	return errors.Join(r.client.Close(), r.dial())
}

func (r *remote) Close() error {
	return errors.Join(r.client.Close(), r.stop(), r.device.Close())
}
