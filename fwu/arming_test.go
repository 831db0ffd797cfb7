package fwu_test

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// moment has the content of a device's media at one moment.
type moment struct {
	slots     map[string][]byte
	store     []byte
	selection fwu.Selection
}

// tappedSelector calls after when a commit is done, whether it failed or not.
type tappedSelector struct {
	fwu.Selector
	after func()
}

func (s tappedSelector) Commit(sel fwu.Selection) error {
	err := s.Selector.Commit(sel)
	s.after()
	return err
}

func (d *device) now() moment {
	m := moment{map[string][]byte{}, d.Store.Bytes(fwu.StoreSize), d.Selector.Selection}
	for id, slot := range d.Slots {
		m.slots[id] = slot.Bytes(slotSize)
	}
	return m
}

// cuts returns the device's media at each write that f makes durable.
func (d *device) cuts(f func()) (out []moment) {
	d.t.Helper()
	d.do(d.Stop())
	take := func() { out = append(out, d.now()) }
	d.Config.Selector = tappedSelector{d.Selector, take}
	d.Store.OnSync = take
	for _, slot := range d.Slots {
		slot.OnSync = take
	}
	d.do(d.Restart())
	out = nil
	f()
	take()
	d.do(d.Stop())
	d.Config.Selector, d.Store.OnSync = d.Selector, nil
	for _, slot := range d.Slots {
		slot.OnSync = nil
	}
	return out
}

// switchOn puts m back and has the bootloader start the bank of its choice.
func (d *device) switchOn(m moment) error {
	_, err := d.Store.WriteAt(m.store, 0)
	for id, b := range m.slots {
		_, e := d.Slots[id].WriteAt(b, 0)
		err = errors.Join(err, e)
	}
	d.Selector.Selection = m.selection
	return errors.Join(err, d.Reset())
}

// An image counts as one that failed its trial only if the bootloader may have started it: power
// that is cut while the bank is armed, or disarmed, makes the image a candidate again.
func TestImageThatWasNeverStartedDidNotFail(t *testing.T) {
	prepared := func(t *testing.T) *device {
		d := newDevice(t, true, bank("rootfs", "bootfw")...)
		d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
		return d
	}
	for name, cuts := range map[string]func(d *device) []moment{
		"install": func(d *device) []moment { return d.cuts(func() { d.installed(fwu.SuccessReboot) }) },
		"an install that cannot be committed": func(d *device) []moment {
			return d.cuts(func() {
				d.Selector.Failing = 1
				_, err := d.Install(d.t.Context())
				d.wantStatus(err, fwu.StorageFailure, fwu.ReasonSelectorUnusable)
			})
		},
		"an install whose commit says that it failed": func(d *device) []moment {
			return d.cuts(func() {
				d.do(d.Stop())
				d.Config.Selector = landing{d.Config.Selector}
				d.do(d.Restart())
				_, err := d.Install(d.t.Context())
				d.wantStatus(err, fwu.StorageFailure, fwu.ReasonSelectorUnusable)
			})
		},
		"a boot that bypassed the bootloader": func(d *device) []moment {
			d.installed(fwu.SuccessReboot)
			return d.cuts(func() { d.do(d.Boot(fwu.BankA)) })
		},
		"a bank that cannot be verified again": func(d *device) []moment {
			d.installed(fwu.SuccessReboot)
			return d.cuts(func() {
				d.do(d.Stop())
				d.Slots["rootfs_b"].OnRead = func(off int64, _ int) error {
					if off >= fwu.HeadSize/2 {
						return unix.EIO
					}
					return nil
				}
				d.do(d.Restart())
				d.Slots["rootfs_b"].OnRead = nil
				d.want("rootfs CANDIDATE 1.0.0, bootfw READY 0.0.0")
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := prepared(t)
			armed := 0
			for i, m := range cuts(d) {
				if m.selection.Trial != fwu.NoBank {
					armed++
					continue // the bootloader starts it
				}
				d.do(d.switchOn(m))
				if got := d.states(); got != "rootfs CANDIDATE 1.0.0, bootfw READY 0.0.0" {
					info, _ := d.Query(t.Context(), 0)
					t.Errorf("cut %d: %s (%s)", i, got, info.Impl.Reason)
				}
			}
			t.Logf("armed at %d cuts", armed)
		})
	}
}

// landing is a selector whose commits for a trial are done, and return an error.
type landing struct{ fwu.Selector }

func (l landing) Commit(sel fwu.Selection) error {
	if err := l.Selector.Commit(sel); err != nil || sel.Trial == fwu.NoBank {
		return err
	}
	return errors.New("it is not known whether it was written")
}

// An accept, or a reject where there is no way back, that returned an error although the selector
// was committed, is not carried out by the next start.
func TestDecisionThatFailedIsNotCarriedOutLater(t *testing.T) {
	for name, decide := range map[string]func(ctx context.Context, d *device) error{
		"accept": func(ctx context.Context, d *device) error { return d.Accept(ctx) },
		"reject, and there is no way back": func(ctx context.Context, d *device) error {
			_, err := d.Slots["rootfs_a"].WriteAt(make([]byte, fwu.HeadSize), 0)
			d.do(err)
			_, err = d.Reject(ctx, fwu.Rejection{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, true, bank("rootfs")...)
			d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
			d.installed(fwu.SuccessReboot)
			d.reboot()
			d.want("rootfs TRIAL 2.0.0")
			d.do(d.Stop())
			d.Config.Selector = unsure{d.Selector}
			d.do(d.Restart())
			d.wantStatus(decide(t.Context(), d), fwu.StorageFailure, fwu.ReasonSelectorUnusable)
			d.want("rootfs TRIAL 2.0.0")
			d.do(d.Restart())
			d.want("rootfs TRIAL 2.0.0")
			if d.floor() != 1 {
				t.Errorf("floor %d", d.floor())
			}
		})
	}
}

// unsure is a selector whose commits for bank b are done, and return an error.
type unsure struct{ fwu.Selector }

func (u unsure) Commit(sel fwu.Selection) error {
	if err := u.Selector.Commit(sel); err != nil || sel.Default != fwu.BankB {
		return err
	}
	return errors.New("it is not known whether it was written")
}
