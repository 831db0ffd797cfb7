package fwu_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
)

// A system that mounted its root and died changed the head, which was taken for an install that was never armed: no trial was counted, and the device rebooted for ever.
func TestSystemThatChangesItsHeadAndDiesIsCountedAsFailed(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	image := randomImage(12, 70000)
	for n := range 3 {
		d.candidate(0, "rootfs", image, "2.0.0", 2)
		d.installed(fwu.SuccessReboot)
		d.do(d.Stop())
		if b := d.Selector.Next(); b != fwu.BankB {
			t.Fatalf("round %d: the bootloader takes %v", n, b)
		}
		_, err := d.Slots["rootfs_b"].WriteAt([]byte{^image[1024+0x34]}, 1024+0x34) // mount count of ext4
		d.do(err)
		d.reboot()
		d.want("rootfs FAILED 1.0.0")
		d.failedFor(0, fwu.ReasonTrialNotBooted)
		d.do(d.Clean(t.Context(), 0))
	}
	d.wantStatus(d.Start(t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)), fwu.NotPermitted, fwu.ReasonFailedBefore)
}

// What the first attempt to clear up after a lost trial had destroyed made the second one take the trial for a client's reject.
func TestTrialThatWasNotBootedIsClearedUpAgainAfterACut(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
	d.installed(fwu.SuccessReboot)
	d.do(d.Stop())
	d.Selector.Next()
	_, err := d.Slots["rootfs_b"].WriteAt(make([]byte, fwu.HeadSize), 0)
	d.do(err)
	d.reboot()
	d.want("rootfs FAILED 1.0.0")
	d.failedFor(0, fwu.ReasonTrialNotBooted)
}

// A selector that was locked for a moment stopped the install half way: STAGED without being armed, until the service was restarted.
func TestInstallWhoseSelectorCannotBeCommittedIsTakenBack(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	image := randomImage(10, 70000)
	d.candidate(0, "rootfs", image, "2.0.0", 2)
	d.Selector.Failing = 2
	for range 2 {
		_, err := d.Install(t.Context())
		d.wantStatus(err, fwu.StorageFailure, fwu.ReasonSelectorUnusable)
		d.want("rootfs CANDIDATE 1.0.0")
		if d.Slots["rootfs_b"].Bytes(1)[0] != ^image[0] {
			t.Fatal("the candidate is not sealed")
		}
	}
	d.installed(fwu.SuccessReboot)
	d.reboot()
	d.want("rootfs TRIAL 2.0.0")
}

// A reboot after such an install counted as a failed trial of an image that was never started.
func TestRebootAfterAnInstallThatWasNotArmed(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	d.candidate(0, "rootfs", randomImage(10, 70000), "2.0.0", 2)
	d.Selector.Failing = 2
	_, err := d.Install(t.Context())
	d.wantStatus(err, fwu.StorageFailure, fwu.ReasonSelectorUnusable)
	d.Selector.Failing = 0
	d.reboot()
	d.want("rootfs CANDIDATE 1.0.0")
	d.installed(fwu.SuccessReboot)
}

func (d *device) failedFor(id fwu.ID, r fwu.Reason) {
	d.t.Helper()
	info, err := d.Query(d.t.Context(), id)
	if err != nil || info.Error != fwu.GenericError || info.Impl.Reason != r {
		d.t.Fatalf("error %v, reason %v, want %v (%v)", info.Error, info.Impl.Reason, r, err)
	}
}

func TestWhyATrialWasRejectedIsKnownInThePreviousSystem(t *testing.T) {
	for name, tc := range map[string]struct {
		why  fwu.Rejection
		want string
	}{
		"by a client":                     {fwu.Rejection{Error: -7}, "rejected: rejected by the client"},
		"by a check":                      {fwu.Rejection{Reason: fwu.ReasonTrialCheck, Text: "10-network: no default route"}, "trial-check: 10-network: no default route"},
		"by a deadline":                   {fwu.Rejection{Reason: fwu.ReasonTrialDeadline}, "trial-deadline: the new system was not accepted in time"},
		"by a check, before it had begun": {fwu.Rejection{Reason: fwu.ReasonTrialCheck, Text: "no"}, "trial-check: no"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, true, bank("rootfs")...)
			d.candidate(0, "rootfs", randomImage(10, 40960), "2.0.0", 2)
			d.installed(fwu.SuccessReboot)
			if !strings.HasSuffix(name, "begun") {
				d.reboot()
			}
			if _, err := d.Reject(t.Context(), tc.why); err != nil {
				t.Fatal(err)
			}
			d.reboot()
			d.want("rootfs FAILED 1.0.0")
			info, err := d.Query(t.Context(), 0)
			if got := fmt.Sprintf("%s: %s", info.Impl.Reason, info.Impl.Text); err != nil || got != tc.want || info.Error != tc.why.Error {
				t.Errorf("the previous system says %q, error %v, %v; want %q", got, info.Error, err, tc.want)
			}
		})
	}
}

func TestReasonThatCannotBeRecordedIsRefused(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	d.candidate(0, "rootfs", randomImage(10, 40960), "2.0.0", 2)
	d.installed(fwu.SuccessReboot)
	for _, why := range []fwu.Rejection{{Reason: "weather"}, {Text: "two\nlines"}, {Text: "\xff"}, {Text: strings.Repeat("x", fwu.MaxRejectText+1)}} {
		_, err := d.Reject(t.Context(), why)
		d.wantStatus(err, fwu.InvalidArgument, fwu.ReasonRejection)
	}
	d.want("rootfs STAGED 1.0.0")
}

// powerCut is a selector whose device loses its power right before or right after a commit.
type powerCut struct {
	*fwutest.Selector
	before, after bool
}

func (p *powerCut) Commit(sel fwu.Selection) error {
	if p.before {
		panic("power cut")
	}
	err := p.Selector.Commit(sel)
	if p.after {
		panic("power cut")
	}
	return err
}

// A cut after the disarming, and before the record said why, made a healthy image one that did not
// come up: after three of them it was refused.
func TestRejectOfAStagedImageThatIsCutIsNoFailedTrial(t *testing.T) {
	for name, cut := range map[string]powerCut{"before it is disarmed": {before: true}, "after it was disarmed": {after: true}} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, true, bank("rootfs")...)
			d.do(d.Stop())
			sel := &powerCut{Selector: d.Selector}
			d.Config.Selector = sel
			d.restart()
			image := randomImage(13, 70000)
			for range 3 {
				d.candidate(0, "rootfs", image, "2.0.0", 2)
				d.installed(fwu.SuccessReboot)
				sel.before, sel.after = cut.before, cut.after
				func() {
					defer func() {
						if recover() == nil {
							t.Fatal("no cut")
						}
					}()
					_, _ = d.Reject(t.Context(), fwu.Rejection{Text: "not now"})
				}()
				sel.before, sel.after = false, false
				d.Kill()
				d.reboot()
				if d.Config.Boot.Bank == fwu.BankB { // it was armed all the same
					if d.Machine.System.Reboots == 0 {
						t.Fatal("the rejected bank runs, and no reboot was asked for")
					}
					d.reboot()
				}
				d.want("rootfs FAILED 1.0.0")
				if info, err := d.Query(t.Context(), 0); err != nil || info.Impl.Reason != fwu.ReasonRejected || info.Impl.Text != "not now" {
					t.Fatalf("%+v, %v", info, err)
				}
				d.do(d.Clean(t.Context(), 0))
			}
			d.candidate(0, "rootfs", image, "2.0.0", 2)
		})
	}
}

// A reboot that bypasses the bootloader left a candidate without a reason, and an agent that
// installs and reboots whatever is CANDIDATE did so for ever.
func TestRebootsThatBypassTheBootloaderAreCounted(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	image := randomImage(14, 70000)
	d.candidate(0, "rootfs", image, "2.0.0", 2)
	reboots := 0
	for {
		if _, err := d.Install(t.Context()); err != nil {
			d.wantStatus(err, fwu.NotPermitted, fwu.ReasonBootBypassed)
			break
		}
		if reboots++; reboots > 3 {
			t.Fatal("one more reboot")
		}
		d.do(d.Boot(fwu.BankA)) // kexec: the bootloader is not asked
		d.want("rootfs CANDIDATE 1.0.0")
		if info, err := d.Query(t.Context(), 0); err != nil || info.Impl.Reason != fwu.ReasonBootBypassed || info.Impl.Text == "" {
			t.Fatalf("%+v, %v", info.Impl, err)
		}
		if d.Selector.Trial != fwu.NoBank {
			t.Fatal("still armed")
		}
	}
	if reboots != 3 {
		t.Fatalf("%d reboots", reboots)
	}
	d.do(d.Cancel(t.Context(), 0)) // nor does it help to bring the image again
	d.do(d.Clean(t.Context(), 0))
	d.wantStatus(d.Start(t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)), fwu.NotPermitted, fwu.ReasonBootBypassed)
	d.do(d.Stop())
	d.do(fwu.ForgetFailures(d.Store))
	d.restart()
	d.candidate(0, "rootfs", image, "2.0.0", 2)
	d.installed(fwu.SuccessReboot)
	d.reboot()
	d.want("rootfs TRIAL 2.0.0")
	d.do(d.Accept(t.Context()))
}
