package fwu_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Whatever sequence number an image comes with, a device that accepts it takes a later one.
func TestNoSequenceNumberEndsUpdates(t *testing.T) {
	const free, step = fwu.FreeSequence, fwu.MaxSequenceStep
	for _, c := range []struct {
		floor, sequence uint64
		taken           bool
	}{
		{1, 2, true},
		{1, 1_764_374_400_000_000_000, true}, // nanoseconds since 1970
		{1, free, true},
		{1, free + 1, false},
		{1, math.MaxInt64, false},
		{1, math.MaxUint64, false},
		{free - 1, free - 1 + step, true},
		{free, free + step, true},
		{free, free + step + 1, false},
		{math.MaxInt64, math.MaxInt64 + step, true},
		{math.MaxInt64, math.MaxUint64, false},
	} {
		t.Run(fmt.Sprintf("%d after %d", c.sequence, c.floor), func(t *testing.T) {
			d := newDevice(t, true, bank("rootfs")...)
			d.Config.Release["rootfs"] = fwu.Release{Version: fwu.Version{Major: 1}, Sequence: c.floor}
			d.reboot()
			if !c.taken {
				m := d.manifest("rootfs", randomImage(1, 5000), "2.0.0", c.sequence)
				d.wantStatus(d.Start(t.Context(), 0, m), fwu.NotPermitted, fwu.ReasonSequenceTooHigh)
				d.want("rootfs READY 1.0.0")
				d.accepted(2, c.floor+1)
				return
			}
			d.accepted(1, c.sequence)
			d.accepted(2, c.sequence+1)
			m := d.manifest("rootfs", randomImage(1, 5000), "2.0.0", c.sequence)
			d.wantStatus(d.Start(t.Context(), 0, m), fwu.NotPermitted, fwu.ReasonSequenceRollback)
		})
	}
}

// A device that an earlier version left at the last number still takes images that have it.
func TestFloorAtTheLastSequenceNumber(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	d.Config.Release["rootfs"] = fwu.Release{Version: fwu.Version{Major: 1}, Sequence: math.MaxUint64}
	d.reboot()
	d.accepted(1, math.MaxUint64)
	d.accepted(2, math.MaxUint64)
}

// accepted makes an update of rootfs and accepts it.
func (d *device) accepted(seed, sequence uint64) {
	d.t.Helper()
	d.candidate(0, "rootfs", randomImage(seed, 5000), "2.0.0", sequence)
	d.installed(fwu.SuccessReboot)
	d.reboot()
	d.do(d.Accept(d.t.Context()))
	d.do(d.Clean(d.t.Context(), 0))
}
