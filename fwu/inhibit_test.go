package fwu_test

import (
	"bytes"
	"testing"

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
