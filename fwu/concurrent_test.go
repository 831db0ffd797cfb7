package fwu_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// notArmed makes rootfs a candidate whose install was taken back: what became of its head is for the next start of another member to look at.
func (d *device) notArmed(image []byte) {
	d.t.Helper()
	d.candidate(0, "rootfs", image, "2.0.0", 2)
	d.Selector.Failing = 1
	_, err := d.Install(d.t.Context())
	d.wantStatus(err, fwu.StorageFailure, fwu.ReasonSelectorUnusable)
}

// A cancel and a start of another member changed the head of the slot that was cancelled at the same time, through one handle.
func TestCancelAndStartOfAnotherMemberTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, true, bank("rootfs", "bootfw")...)
		image := randomImage(10, 40960)
		m := d.manifest("bootfw", image, "2.0.0", 2)
		d.notArmed(image)
		var writing atomic.Int32
		medium := make(chan struct{})
		d.Slots["rootfs_b"].OnWrite = func(int64) {
			writing.Add(1)
			<-medium
			writing.Add(-1)
		}
		cancelled, started := make(chan error, 1), make(chan error, 1)
		go func() { cancelled <- d.Cancel(t.Context(), 0) }()
		synctest.Wait()
		go func() { started <- d.Start(t.Context(), 1, m) }()
		synctest.Wait()
		if n := writing.Load(); n != 1 {
			t.Errorf("%d write at a time", n)
		}
		close(medium)
		d.do(<-cancelled)
		d.do(<-started)
		d.want("rootfs FAILED 1.0.0, bootfw WRITING 0.0.0")
	})
}

// The same, for the race detector.
func TestCancelBesideAStartOfAnotherMember(t *testing.T) {
	d := newDevice(t, true, bank("rootfs", "bootfw")...)
	d.resize(0, 8192, 8192) // there is less to clean
	d.resize(1, 8192, 8192)
	image := randomImage(10, 4096)
	m := d.manifest("bootfw", image, "2.0.0", 2)
	for range 50 {
		d.notArmed(image)
		cancelled := make(chan error)
		go func() { cancelled <- d.Cancel(context.Background(), 0) }()
		err := d.Start(t.Context(), 1, m)
		d.do(<-cancelled)
		d.do(err)
		d.do(d.Cancel(t.Context(), 1))
		d.do(d.Clean(t.Context(), 0))
		d.do(d.Clean(t.Context(), 1))
	}
}

// A cancel that came between the admission of a transfer and its begin had nothing to interrupt, and waited for the client.
func TestCancelEndsATransferThatIsAboutToBegin(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	d.resize(0, 8192, 8192)
	m := d.manifest("rootfs", randomImage(10, 4096), "2.0.0", 2)
	for n := range 50 {
		d.do(d.Start(t.Context(), 0, m))
		r := &stalled{wake: make(chan struct{})}
		written := make(chan error, 1)
		go func() {
			_, err := d.WriteFrom(context.Background(), 0, 0, r, 0)
			written <- err
		}()
		for range n {
			runtime.Gosched()
		}
		if err := d.Cancel(t.Context(), 0); err != nil {
			t.Fatalf("round %d: %v", n, err)
		}
		if err := <-written; fwu.StatusOf(err) != fwu.BadState { // cancelled, or not WRITING any more
			t.Fatalf("round %d: %v", n, err)
		}
		d.do(d.Clean(t.Context(), 0))
	}
}

// A reject did not hold its component: while the unit restarted, the next candidate could be prepared, and what the reject still had to destroy was that one.
func TestNothingIsPreparedWhileARejectedUnitRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, true, live(7, "app", true))
		d.candidate(7, "app", randomImage(14, 70000), "2.0.0", 2)
		d.installed(fwu.Success)
		restarted := make(chan struct{})
		d.System.BeforeRestart = func(string) { <-restarted }
		rejected, cleaned := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := d.Reject(t.Context(), fwu.Rejection{Error: -7})
			rejected <- err
		}()
		synctest.Wait()
		go func() { cleaned <- d.Clean(t.Context(), 7) }()
		synctest.Wait()
		select {
		case err := <-cleaned:
			t.Fatalf("clean did not wait: %v", err)
		default:
		}
		close(restarted)
		d.do(<-rejected)
		d.do(<-cleaned)
		d.candidate(7, "app", randomImage(15, 70000), "3.0.0", 3)
		d.want("app CANDIDATE 0.0.0")
		d.installed(fwu.Success)
		d.holds("app_b", randomImage(15, 70000))
	})
}
