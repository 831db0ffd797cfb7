package fwu_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
)

// loses makes a slot of component i one that cannot be found. The function that it returns brings
// it back.
func (d *device) loses(i, slot int) (back func()) {
	c := &d.Config.Components[i]
	there := c.Slots[slot]
	c.Slots[slot] = fwu.MissingSlot{Path: "PARTLABEL=" + c.Name, Err: errors.New("no partition has this label")}
	return func() { d.Config.Components[i].Slots[slot] = there }
}

// wantReadOnly wants a component to say why nothing is written to it.
func (d *device) wantReadOnly(id fwu.ID, r fwu.Reason) {
	d.t.Helper()
	info, err := d.Query(d.t.Context(), id)
	if err != nil || info.Impl.ReadOnly != r || (info.Impl.ReadOnlyText == "") != (r == "") {
		d.t.Fatalf("read-only for %q, %q, %v; want %q", info.Impl.ReadOnly, info.Impl.ReadOnlyText, err, r)
	}
}

// withTones is a device with a bank member and a live component.
func withTones(t *testing.T) *device {
	comps := append(bank("rootfs"), fwu.Component{ID: 1, Name: "tones", Live: true, Manifest: fwu.Detached})
	return newDevice(t, true, comps...)
}

// A slot that was missing meant that there was no service: no update of anything else, and no
// accept of a trial.
func TestMissingSlotMakesItsComponentReadOnly(t *testing.T) {
	t.Run("of a live component", func(t *testing.T) {
		for slot := range 2 {
			d := withTones(t)
			back := d.loses(1, slot)
			d.restart()
			d.wantReadOnly(1, fwu.ReasonSlotMissing)
			d.wantStatus(d.Start(t.Context(), 1, d.manifest("tones", randomImage(10, 5000), "2.0.0", 2)), fwu.NotPermitted, fwu.ReasonSlotMissing)
			d.candidate(0, "rootfs", randomImage(11, 70000), "2.0.0", 2)
			d.installed(fwu.SuccessReboot)
			d.reboot()
			d.do(d.Accept(t.Context()))
			d.want("rootfs UPDATED 2.0.0, tones READY 0.0.0")
			back()
			d.restart()
			d.wantReadOnly(1, "")
			d.candidate(1, "tones", randomImage(12, 5000), "2.0.0", 2)
		}
	})
	t.Run("of the bank in trial", func(t *testing.T) {
		for slot := range 2 {
			d := withTones(t)
			d.candidate(0, "rootfs", randomImage(11, 70000), "2.0.0", 2)
			d.installed(fwu.SuccessReboot)
			d.loses(0, slot)
			d.reboot()
			d.wantReadOnly(0, fwu.ReasonSlotMissing)
			d.do(d.Accept(t.Context()))
			d.want("rootfs UPDATED 2.0.0, tones READY 0.0.0")
			if d.Selector.Default != fwu.BankB {
				t.Fatalf("default %q", d.Selector.Default)
			}
			d.candidate(1, "tones", randomImage(12, 5000), "2.0.0", 2)
			d.installed(fwu.Success)
		}
	})
	t.Run("of a component that the record does not have", func(t *testing.T) {
		d := withTones(t)
		d.do(d.Stop())
		d.Add(fwu.Component{ID: 2, Name: "bells", Live: true, Manifest: fwu.Detached}, slotSize, randomImage(13, slotSize))
		back := d.loses(2, 1)
		d.reboot()
		d.wantReadOnly(2, fwu.ReasonSlotMissing)
		d.candidate(1, "tones", randomImage(12, 5000), "2.0.0", 2) // the record has the new component now
		back()
		d.reboot()
		d.wantReadOnly(2, "")
		d.candidate(2, "bells", randomImage(14, 5000), "2.0.0", 2)
	})
	t.Run("of a candidate", func(t *testing.T) {
		d := withTones(t)
		d.candidate(1, "tones", randomImage(12, 5000), "2.0.0", 2)
		d.loses(1, 0)
		d.reboot()
		d.candidate(0, "rootfs", randomImage(11, 70000), "2.0.0", 2)
		d.installed(fwu.SuccessReboot) // it is not in the way
	})
	t.Run("of a live component in trial", func(t *testing.T) {
		d := withTones(t)
		d.do(d.Stop())
		d.Config.Components[1].Trial = true
		d.restart()
		d.candidate(1, "tones", randomImage(12, 5000), "2.0.0", 2)
		d.installed(fwu.Success)
		d.loses(1, 0)
		d.restart()
		_, err := d.Reject(t.Context(), fwu.Rejection{})
		d.wantStatus(err, fwu.NotPermitted, fwu.ReasonSlotMissing)
		d.do(d.Accept(t.Context()))
		d.want("rootfs READY 1.0.0, tones UPDATED 2.0.0")
	})
	t.Run("in a factory", func(t *testing.T) {
		d := withTones(t)
		d.do(d.Stop())
		d.Config.Store = fwutest.NewMedium(fwu.StoreSize)
		d.loses(0, 1)
		if err := fwu.Provision(t.Context(), d.Config, nil, false); err == nil {
			t.Fatal("provisioned")
		}
	})
}

// resizeSlot gives a slot of component i another size. Its content stays.
func (d *device) resizeSlot(i, slot int, size int64) {
	d.t.Helper()
	d.do(d.Stop())
	id := d.Config.Components[i].Slots[slot].Info().ID
	m := fwutest.NewMedium(size)
	_, err := m.WriteAt(d.Slots[id].Bytes(int(min(size, slotSize))), 0)
	d.do(err)
	d.Slots[id] = m
	d.Config.Components[i].Slots[slot] = m.Slot(id)
	d.restart()
}

// A slot that had grown made every update refused, while Query had nothing to say.
func TestSlotThatGrewIsAdoptedOnDemand(t *testing.T) {
	for name, c := range map[string]struct {
		slots   []int
		prepare func(d *device)
		states  string
	}{
		"both slots":      {[]int{0, 1}, func(*device) {}, "rootfs UPDATED 2.0.0"},
		"the active slot": {[]int{1}, func(*device) {}, "rootfs UPDATED 2.0.0"},
		"the second slot": {[]int{0}, func(*device) {}, "rootfs UPDATED 2.0.0"},
		"while an image is made": {[]int{0}, func(d *device) {
			d.do(d.Clean(d.t.Context(), 0))
			d.candidate(0, "rootfs", randomImage(16, 5000), "3.0.0", 60)
		}, "rootfs FAILED 2.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, true, bank("rootfs")...)
			d.candidate(0, "rootfs", randomImage(15, 70000), "2.0.0", 50)
			d.installed(fwu.SuccessReboot)
			d.reboot()
			d.do(d.Accept(t.Context()))
			c.prepare(d)
			for _, slot := range c.slots {
				d.resizeSlot(0, slot, 2*slotSize)
			}
			d.wantReadOnly(0, fwu.ReasonSlotResized)
			refused := d.Clean
			if strings.HasPrefix(d.states(), "rootfs CANDIDATE") {
				refused = d.Cancel
			}
			d.wantStatus(refused(t.Context(), 0), fwu.NotPermitted, fwu.ReasonSlotResized)
			d.do(d.Repair(t.Context(), fwu.RepairSlots))
			d.wantReadOnly(0, "")
			d.want(c.states)
			if f := d.floor(); f != 50 {
				t.Fatalf("floor %d", f)
			}
			d.do(d.Clean(t.Context(), 0))
			d.wantStatus(d.Start(t.Context(), 0, d.manifest("rootfs", randomImage(16, 5000), "1.9.0", 49)), fwu.NotPermitted, fwu.ReasonSequenceRollback)
			d.candidate(0, "rootfs", randomImage(17, 70000), "3.0.0", 61)
			d.restart()
			d.installed(fwu.SuccessReboot)
		})
	}
}

func TestSlotsThatCannotBeAdopted(t *testing.T) {
	t.Run("too small for its image", func(t *testing.T) {
		d := newDevice(t, true, bank("rootfs")...)
		d.resizeSlot(0, 0, slotSize/2)
		d.wantReadOnly(0, fwu.ReasonSlotResized)
		d.wantStatus(d.Repair(t.Context(), fwu.RepairSlots), fwu.NotPermitted, fwu.ReasonSlotResized)
	})
	t.Run("in trial", func(t *testing.T) {
		d := newDevice(t, true, bank("rootfs")...)
		d.candidate(0, "rootfs", randomImage(18, 70000), "2.0.0", 2)
		d.installed(fwu.SuccessReboot)
		d.reboot()
		d.resizeSlot(0, 0, 2*slotSize)
		d.wantStatus(d.Repair(t.Context(), fwu.RepairSlots), fwu.NotPermitted, fwu.ReasonBankBusy)
		d.do(d.Accept(t.Context()))
		d.do(d.Repair(t.Context(), fwu.RepairSlots))
		d.do(d.Clean(t.Context(), 0))
	})
	t.Run("another partition", func(t *testing.T) {
		d := newDevice(t, true, bank("rootfs")...)
		d.Config.Components[0].Slots[1] = fwutest.NewMedium(2 * slotSize).Slot("userdata")
		d.restart()
		d.wantReadOnly(0, fwu.ReasonConfigDiffers)
		d.do(d.Repair(t.Context(), fwu.RepairSlots)) // there is none to repair
		d.wantReadOnly(0, fwu.ReasonConfigDiffers)
	})
}
