package fwu_test

import (
	"bytes"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
)

// The record was left in a state that no service could read again: a member that stays STAGED while no bank is in trial.
func TestTrialInWhichTheConfigurationLacksAMember(t *testing.T) {
	for name, at := range map[string]int{"the first": 0, "the last": 1} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, true, bank("kernel", "bootfw")...)
			d.candidate(0, "kernel", randomImage(10, 70000), "2.0.0", 2)
			d.candidate(1, "bootfw", randomImage(11, 40960), "2.0.0", 2)
			d.installed(fwu.SuccessReboot)
			both := d.Config.Components
			d.Config.Components = both[1-at : 2-at]
			d.reboot()
			known := both[1-at].Name
			d.want(known + " TRIAL 2.0.0")
			d.do(d.Accept(t.Context()))
			d.restart()
			d.want(known + " UPDATED 2.0.0")
			d.Config.Components = both
			d.restart()
			d.want([]string{"kernel READY 2.0.0, bootfw UPDATED 2.0.0", "kernel UPDATED 2.0.0, bootfw READY 2.0.0"}[at])
		})
	}
}

// The member that was STAGED all the time hid the one that is TRIAL, which then stayed so without a bank in trial.
func TestTrialInWhichTheConfigurationLacksAMemberIsReset(t *testing.T) {
	for name, at := range map[string]int{"the first": 0, "the last": 1} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, true, bank("kernel", "bootfw")...)
			d.candidate(0, "kernel", randomImage(10, 70000), "2.0.0", 2)
			d.candidate(1, "bootfw", randomImage(11, 40960), "2.0.0", 2)
			d.installed(fwu.SuccessReboot)
			both := d.Config.Components
			d.Config.Components = both[1-at : 2-at]
			d.reboot()
			d.Config.Components = both
			d.reboot()
			d.want("kernel FAILED 0.0.0, bootfw FAILED 0.0.0")
			info, _ := d.Query(t.Context(), both[1-at].ID)
			if info.Impl.Reason != fwu.ReasonTrialReset {
				t.Fatalf("reason %v", info.Impl.Reason)
			}
			for _, c := range both {
				d.do(d.Clean(t.Context(), c.ID))
			}
			d.candidate(0, "kernel", randomImage(12, 70000), "2.0.0", 3)
		})
	}
}

// The record was lost when a member of the bank had become a live component while it was STAGED.
func TestTrialInWhichAMemberIsConfiguredAsLive(t *testing.T) {
	for _, rejected := range []bool{false, true} {
		d := newDevice(t, true, bank("app", "rootfs")...)
		d.candidate(0, "app", randomImage(10, 40960), "2.0.0", 2)
		d.candidate(1, "rootfs", randomImage(11, 70000), "2.0.0", 2)
		d.installed(fwu.SuccessReboot)
		d.Config.Components[0].Live = true
		d.reboot()
		d.want("app STAGED 0.0.0, rootfs TRIAL 2.0.0")
		if rejected {
			if st, err := d.Reject(t.Context(), fwu.Rejection{Error: -7}); st != fwu.SuccessReboot || err != nil {
				t.Fatalf("reject: %v, %v", st, err)
			}
			d.Config.Components[0].Live = false
			d.reboot()
			d.want("app FAILED 0.0.0, rootfs FAILED 1.0.0")
			continue
		}
		d.do(d.Accept(t.Context()))
		d.restart()
		d.want("app READY 2.0.0, rootfs UPDATED 2.0.0")
	}
}

// The configuration of the new bank decided anew: a bank that was installed for good went on trial, was reset, and could neither be accepted nor rejected.
func TestWhetherATrialIsDueIsDecidedByTheInstall(t *testing.T) {
	t.Run("installed without", func(t *testing.T) {
		d := newDevice(t, false, bank("kernel", "rootfs")...)
		before := d.Slots["kernel_a"].Bytes(slotSize)
		d.candidate(0, "kernel", randomImage(10, 40960), "2.0.0", 2)
		d.candidate(1, "rootfs", randomImage(11, 70000), "2.0.0", 2)
		d.installed(fwu.SuccessReboot)
		d.Config.Trial = true
		d.reboot()
		d.want("kernel UPDATED 2.0.0, rootfs UPDATED 2.0.0")
		d.reboot()
		d.want("kernel UPDATED 2.0.0, rootfs UPDATED 2.0.0")
		if !bytes.Equal(d.Slots["kernel_a"].Bytes(slotSize), before) {
			t.Fatal("the previous bank was changed")
		}
	})
	installedWith := func(t *testing.T) *device {
		d := newDevice(t, true, bank("rootfs")...)
		d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
		d.installed(fwu.SuccessReboot)
		d.Config.Trial = false
		d.reboot()
		d.want("rootfs TRIAL 2.0.0")
		return d
	}
	t.Run("installed with, accepted", func(t *testing.T) {
		d := installedWith(t)
		d.do(d.Accept(t.Context()))
		d.want("rootfs UPDATED 2.0.0")
	})
	t.Run("installed with, rejected", func(t *testing.T) {
		d := installedWith(t)
		if st, err := d.Reject(t.Context(), fwu.Rejection{Error: -7}); st != fwu.SuccessReboot || err != nil {
			t.Fatalf("reject: %v, %v", st, err)
		}
		d.reboot()
		d.want("rootfs FAILED 1.0.0")
	})
	t.Run("installed with, reset", func(t *testing.T) {
		d := installedWith(t)
		d.reboot()
		d.want("rootfs FAILED 1.0.0")
	})
}

// A start of another member, and a boot alone where its staging is volatile, destroyed the head of a partition that the configuration named by mistake.
func TestSlotThatTheRecordDoesNotHaveIsNotTouched(t *testing.T) {
	for name, volatile := range map[string]bool{"staging stays": false, "staging is volatile": true} {
		t.Run(name, func(t *testing.T) {
			comps := bank("rootfs", "bootfw")
			comps[1].Volatile = volatile
			d := newDevice(t, true, comps...)
			userdata := fwutest.NewMedium(slotSize)
			before := randomImage(99, slotSize)
			_, err := userdata.WriteAt(before, 0)
			d.do(err)
			d.Config.Components[1].Slots[1] = userdata.Slot("userdata")
			d.reboot()
			for id, c := range d.Components() {
				d.wantStatus(d.Start(t.Context(), fwu.ID(id), d.manifest(c.Name, before, "2.0.0", 2)), fwu.NotPermitted, fwu.ReasonConfigDiffers)
			}
			if !bytes.Equal(userdata.Bytes(slotSize), before) {
				t.Fatal("it was written to")
			}
		})
	}
}

// An older version recorded the path of a partition in an MBR, which has an identity of its own
// now. The path of another disk is another slot.
func TestSlotThatWasRecordedByItsPath(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	d.do(d.Stop())
	c := &d.Config.Components[0]
	named := func(slot int, id, path string) {
		c.Slots[slot] = renamed{c.Slots[slot], fwu.SlotInfo{ID: id, Path: path, Size: slotSize}}
	}
	named(0, "/dev/mmcblk0p2", "/dev/mmcblk0p2")
	named(1, "/dev/mmcblk0p3", "/dev/mmcblk0p3")
	d.do(fwu.Provision(t.Context(), d.Config, nil, true))
	d.restart()
	named(0, "partuuid:9bdf2dc6-02", "/dev/mmcblk0p2")
	named(1, "partuuid:9bdf2dc6-03", "/dev/mmcblk0p3")
	d.reboot()
	d.wantReadOnly(0, "")
	d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
	named(0, "partuuid:9bdf2dc6-02", "/dev/mmcblk1p2") // it is known by its identity now
	named(1, "partuuid:9bdf2dc6-03", "/dev/mmcblk1p3")
	d.reboot()
	d.wantReadOnly(0, "")
	named(1, "partuuid:00000000-03", "/dev/mmcblk0p3")
	d.reboot()
	d.wantReadOnly(0, fwu.ReasonConfigDiffers)
}

// renamed is a slot with another identity.
type renamed struct {
	fwu.Slot
	info fwu.SlotInfo
}

func (r renamed) Info() fwu.SlotInfo { return r.info }
