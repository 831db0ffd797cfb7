package fwu_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
)

func overwrite(t *testing.T, m *fwutest.Medium, p []byte, off int64) {
	t.Helper()
	if _, err := m.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

// A member was CANDIDATE when the other bank was flashed and made the default by hand: the start destroyed the head of the bank that was running.
func TestOtherBankIsFlashedByHandWhileAnUpdateIsPrepared(t *testing.T) {
	d := newDevice(t, true, bank("kernel", "rootfs")...)
	d.candidate(0, "kernel", randomImage(20, 400000), "2.0.0", 2)
	d.do(d.Stop())
	flashed := randomImage(21, slotSize)
	overwrite(t, d.Slots["kernel_b"], flashed, 0)
	overwrite(t, d.Slots["rootfs_b"], randomImage(22, slotSize), 0)
	d.Selector.Selection = fwu.Selection{Default: fwu.BankB}
	d.reboot()
	if !bytes.Equal(d.Slots["kernel_b"].Bytes(slotSize), flashed) {
		t.Fatal("the running bank was written to")
	}
	d.want("kernel READY 2.0.0, rootfs READY 1.0.0")
}

// failingStore is a store on which some writes fail.
type failingStore struct {
	*fwutest.Medium
	failing int
}

func (f *failingStore) WriteAt(p []byte, off int64) (int, error) {
	if f.failing > 0 {
		f.failing--
		return 0, errors.New("medium error")
	}
	return f.Medium.WriteAt(p, off)
}

// The slot stayed held after a mismatch that could not be recorded, and the next install took that for verified.
func TestChangedCandidateIsNotInstalledEvenIfItsFailureCannotBeRecorded(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	d.do(d.Stop())
	store := &failingStore{Medium: d.Store}
	d.Config.Store = store
	d.restart()
	d.candidate(0, "rootfs", randomImage(40, 700000), "2.0.0", 2)
	d.restart()
	overwrite(t, d.Slots["rootfs_b"], []byte("changed"), 300000)
	store.failing = 1
	for range 2 {
		_, err := d.Install(t.Context())
		if !errors.Is(err, fwu.InvalidSignature) && !errors.Is(err, fwu.BadState) {
			t.Fatalf("install: %v", err)
		}
	}
	d.want("rootfs FAILED 1.0.0")
}

// Without a manifest nothing finds a part that an interruption took: the image was cut short.
func TestImageWithoutManifestIsNotCutShortByAnInterruption(t *testing.T) {
	c := bank("rootfs")
	c[0].Manifest = fwu.None
	d := newDevice(t, true, c...)
	image := randomImage(50, 8192)
	d.do(d.Start(t.Context(), 0, nil))
	d.do(d.Write(t.Context(), 0, 4096, image[4096:]))
	d.restart() // what lies behind a gap does not survive
	d.do(d.Write(t.Context(), 0, 0, image[:4096]))
	d.wantStatus(d.Finish(t.Context(), 0), fwu.InvalidArgument, fwu.ReasonImageSize)
	d.do(d.Write(t.Context(), 0, 4096, image[4096:]))
	d.do(d.Finish(t.Context(), 0))
	d.want("rootfs CANDIDATE 1.0.0")
}

// Finish gave its handle from one field to another while the preparation of another member looked at both.
func TestFinishBesideThePreparationOfAnotherMember(t *testing.T) {
	d := newDevice(t, true, bank("kernel", "rootfs")...)
	ctx := t.Context()
	image := randomImage(61, 8192)
	rootfs, kernel := d.manifest("rootfs", image, "2.0.0", 2), d.manifest("kernel", image, "2.0.0", 2)
	for range 20 {
		d.do(d.Start(ctx, 1, rootfs))
		_, err := d.WriteFrom(ctx, 1, 0, bytes.NewReader(image), 0)
		d.do(err)
		var wg sync.WaitGroup
		var finished, prepared error
		wg.Go(func() { finished = d.Finish(ctx, 1) })
		wg.Go(func() {
			for range 3 {
				prepared = errors.Join(prepared, d.Start(ctx, 0, kernel), d.Cancel(ctx, 0), d.Clean(ctx, 0))
			}
		})
		wg.Wait()
		d.do(errors.Join(finished, prepared))
		d.do(d.Cancel(ctx, 1))
		d.do(d.Clean(ctx, 1))
	}
}

// The environment was locked by another program when the new system came up: the service refused everything, so that the trial could not be accepted.
func TestSelectorThatIsLockedAtTheFirstStartOfATrial(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	d.candidate(0, "rootfs", randomImage(70, 100000), "2.0.0", 2)
	d.installed(fwu.SuccessReboot)
	d.Selector.Failing = 1
	d.reboot()
	d.want("rootfs TRIAL 2.0.0")
	d.do(d.Accept(t.Context()))
	d.want("rootfs UPDATED 2.0.0")
}

// A component that only the new system has has no image in the old bank, and kept the service from going back to it.
func TestNewSystemWithAFurtherComponentIsRolledBack(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	d.candidate(0, "rootfs", randomImage(80, 100000), "2.0.0", 2)
	d.installed(fwu.SuccessReboot)
	d.do(d.Stop())
	d.Add(fwu.Component{ID: 1, Name: "kernel", Manifest: fwu.Detached}, slotSize, nil)
	overwrite(t, d.Slots["kernel_b"], randomImage(81, slotSize), 0)
	d.reboot()
	d.want("rootfs TRIAL 2.0.0, kernel READY 0.0.0")
	d.do(d.Boot(fwu.BankB)) // not by the bootloader
	d.want("rootfs REJECTED 2.0.0, kernel READY 0.0.0")
	if d.Machine.System.Reboots != 1 {
		t.Fatalf("%d reboots asked for", d.Machine.System.Reboots)
	}
}

// A member whose image begins with zeroes was taken for a destroyed one, and its bank for dead.
func TestBankWithAMemberOfZeroesCanBeReturnedTo(t *testing.T) {
	for _, reject := range []bool{true, false} {
		d := newDevice(t, true, bank("rootfs", "data")...)
		d.do(d.Stop())
		overwrite(t, d.Slots["data_a"], make([]byte, slotSize), 0)
		d.do(fwu.Provision(t.Context(), d.Config, nil, true))
		d.reboot()
		d.candidate(0, "rootfs", randomImage(90, 100000), "2.0.0", 2)
		d.installed(fwu.SuccessReboot)
		d.reboot()
		if !reject {
			d.do(d.Boot(fwu.BankB)) // not by the bootloader: the trial is lost
		} else if st, err := d.Reject(t.Context(), fwu.Rejection{}); err != nil || st != fwu.SuccessReboot {
			t.Fatalf("reject: %v, %v", st, err)
		}
		if want := map[bool]int{true: 0, false: 1}[reject]; d.Machine.System.Reboots != want {
			t.Fatalf("%d reboots asked for", d.Machine.System.Reboots)
		}
		d.reboot()
		d.want("rootfs FAILED 1.0.0, data READY 0.0.0")
	}
}
