package fwu_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/google/go-cmp/cmp"
)

// Shutdown waits for decisions, and for nothing that can be continued.
func TestInhibition(t *testing.T) {
	for _, free := range []bool{false, true} {
		d := newDevice(t, true, bank("rootfs")...)
		d.System.Free = free
		image := randomImage(10, 50000)
		d.do(d.Start(t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)))
		_, err := d.WriteFrom(t.Context(), 0, 0, bytes.NewReader(image), 0)
		d.do(err)
		d.do(d.Finish(t.Context(), 0))
		if len(d.System.Held) > 0 {
			t.Errorf("inhibited: %q", d.System.Held)
		}
		d.installed(fwu.SuccessReboot)
		_, err = d.Reject(t.Context(), fwu.Rejection{})
		d.do(err)
		d.do(d.Clean(t.Context(), 0))
		d.candidate(0, "rootfs", image, "2.0.0", 2)
		d.installed(fwu.SuccessReboot)
		d.reboot()
		d.do(d.Accept(t.Context()))
		var want []string
		if !free {
			want = []string{"an update is being armed", "", "an update is being rejected", "", "an update is being armed", "", "an update is being accepted", ""}
		}
		if diff := cmp.Diff(want, d.System.Held); diff != "" {
			t.Error(diff)
		}
	}
}

// A service that waits for its client does not work, one that writes does, and makes steps.
func TestPulse(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	image := randomImage(10, 300000)
	d.do(d.Start(t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)))
	before, working := d.Pulse()
	if before == 0 || working {
		t.Errorf("%d steps, working: %v", before, working)
	}
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := d.WriteFrom(t.Context(), 0, 0, r, 0)
		done <- err
	}()
	if _, err := w.Write(image[:1000]); err != nil { // the other side has taken them, and waits for more
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		if _, working := d.Pulse(); !working {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it works while it waits")
		}
	}
	if _, err := w.Write(image[1000:]); err != nil {
		t.Fatal(err)
	}
	d.do(w.Close())
	d.do(<-done)
	d.do(d.Finish(t.Context(), 0))
	if after, working := d.Pulse(); after <= before || working {
		t.Errorf("%d steps after %d, working: %v", after, before, working)
	}
}
