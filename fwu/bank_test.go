package fwu_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
)

// resize gives component i slots of other sizes, and the device a new record.
func (d *device) resize(i int, sizes ...int64) {
	d.t.Helper()
	d.do(d.Stop())
	c := &d.Config.Components[i]
	for b, size := range sizes {
		id := c.Name + "_" + string(fwu.BankOf(b))
		d.Slots[id] = fwutest.NewMedium(size)
		_, err := d.Slots[id].WriteAt(randomImage(uint64(i), int(size)), 0)
		d.do(err)
		c.Slots[b] = d.Slots[id].Slot(id)
	}
	d.do(fwu.Provision(d.t.Context(), d.Config, nil, true))
	d.reboot()
}

// names wants err to name the components that stand in the way.
func (d *device) names(err error, ids ...fwu.ID) {
	d.t.Helper()
	var e *fwu.Error
	if !errors.As(err, &e) || !slices.Equal(e.Components, ids) {
		d.t.Fatalf("%v: does not name %v", err, ids)
	}
}

// The copy was begun, and failed in its middle with an error of the medium.
func TestMemberThatDoesNotFitIntoItsSecondSlotIsNotCarriedOver(t *testing.T) {
	d := newDevice(t, true, bank("rootfs", "bootfw")...)
	d.resize(1, slotSize, slotSize-8192)
	before := d.Slots["bootfw_b"].Bytes(slotSize - 8192)
	d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
	_, err := d.Install(t.Context())
	d.wantStatus(err, fwu.DependencyNeeded, fwu.ReasonCarryOver)
	d.names(err, 1)
	d.want("rootfs CANDIDATE 1.0.0, bootfw READY 0.0.0")
	if !bytes.Equal(d.Slots["bootfw_b"].Bytes(len(before))[fwu.HeadSize:], before[fwu.HeadSize:]) {
		t.Fatal("the copy was begun")
	}
}

// The copy was given up after it was verified: whoever changed it before it was armed had it booted unverified.
func TestMemberThatIsCarriedOverIsHeldUntilTheReboot(t *testing.T) {
	d := newDevice(t, true, bank("rootfs", "bootfw")...)
	d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
	d.do(d.Stop())
	var held []bool
	d.Store.OnSync = func() { held = append(held, d.Slots["bootfw_b"].Held()) }
	d.restart()
	held = nil
	d.installed(fwu.SuccessReboot)
	if len(held) == 0 || slices.Contains(held, false) {
		t.Fatalf("held while the record is written: %v", held)
	}
	for _, slot := range []string{"bootfw_b", "rootfs_b"} {
		if !d.Slots[slot].Held() {
			t.Errorf("%s is not held after the install", slot)
		}
	}
	_, err := d.Reject(t.Context(), fwu.Rejection{})
	d.do(err)
	for _, slot := range []string{"bootfw_b", "rootfs_b"} {
		if d.Slots[slot].Held() {
			t.Errorf("%s is held after the reject", slot)
		}
	}
}

// A candidate whose head could not be masked again, because its slot was mounted, was a kernel that the bootloader could load while the rest of its bank was written.
func TestMemberIsNotWrittenBesideACandidateThatCannotBeSealed(t *testing.T) {
	d := newDevice(t, true, bank("kernel", "rootfs")...)
	kernel, rootfs := randomImage(10, 40960), randomImage(11, 70000)
	d.candidate(0, "kernel", kernel, "2.0.0", 2)
	d.installed(fwu.SuccessReboot)
	d.do(d.Stop())
	unmount := d.Slots["kernel_b"].Mount()
	d.do(d.Boot(fwu.BankA)) // by kexec: what was armed is disarmed
	d.want("kernel CANDIDATE 0.0.0, rootfs READY 1.0.0")
	d.holds("kernel_b", kernel)
	before := d.Slots["rootfs_b"].Bytes(slotSize)
	m := d.manifest("rootfs", rootfs, "2.0.0", 2)
	err := d.Start(t.Context(), 1, m)
	d.wantStatus(err, fwu.NotPermitted, fwu.ReasonSlotBusy)
	d.names(err, 0)
	d.want("kernel CANDIDATE 0.0.0, rootfs READY 1.0.0")
	if !bytes.Equal(d.Slots["rootfs_b"].Bytes(slotSize), before) {
		t.Fatal("the slot was written to")
	}
	unmount()
	d.do(d.Start(t.Context(), 1, m))
	if d.Slots["kernel_b"].Bytes(1)[0] != ^kernel[0] {
		t.Fatal("the candidate is not sealed")
	}
}

// The same, by way of a clean.
func TestMemberIsNotCleanedBesideACandidateThatCannotBeSealed(t *testing.T) {
	d := newDevice(t, true, bank("kernel", "rootfs")...)
	d.candidate(0, "kernel", randomImage(10, 40960), "2.0.0", 2)
	d.candidate(1, "rootfs", randomImage(11, 70000), "2.0.0", 2)
	d.installed(fwu.SuccessReboot)
	d.do(d.Stop())
	unmount := d.Slots["kernel_b"].Mount()
	d.do(d.Boot(fwu.BankA))
	d.do(d.Cancel(t.Context(), 1))
	err := d.Clean(t.Context(), 1)
	d.wantStatus(err, fwu.NotPermitted, fwu.ReasonSlotBusy)
	d.names(err, 0)
	d.want("kernel CANDIDATE 0.0.0, rootfs FAILED 1.0.0")
	unmount()
	d.do(d.Clean(t.Context(), 1))
}
