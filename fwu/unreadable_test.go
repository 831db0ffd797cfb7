package fwu_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/test/fault"
	"github.com/fwu-ab/fwu-ab/test/sim"
)

// badBlocks is a store of which blocks cannot be read. A write mends them, unless they are dead.
// The service reads it from any goroutine.
type badBlocks struct {
	fwu.Medium
	dead bool

	mu     sync.Mutex
	bad    map[int64]error // by offset of a block of 4096 bytes
	writes int             // since the blocks went bad
}

func (b *badBlocks) ReadAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for at := off; at < off+int64(len(p)); at += 4096 {
		if err := b.bad[at]; err != nil {
			return int(at - off), err
		}
	}
	return b.Medium.ReadAt(p, off)
}

func (b *badBlocks) WriteAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writes++
	for at := off; at < off+int64(len(p)) && !b.dead; at += 4096 {
		delete(b.bad, at)
	}
	return b.Medium.WriteAt(p, off)
}

func (b *badBlocks) written() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.writes
}

const copySize = fwu.StoreSize / 2

// spoil makes the named copies of the record unreadable, and mends the others.
func (b *badBlocks) spoil(err error, copies ...int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad, b.writes = map[int64]error{}, 0
	for _, c := range copies {
		for at := int64(0); at < copySize; at += 4096 {
			b.bad[c*copySize+at] = err
		}
	}
}

// mend makes everything readable again.
func (b *badBlocks) mend() { b.spoil(nil) }

// newest returns the copy of the record with the higher generation.
func newest(d *device) int64 {
	b := d.Store.Bytes(fwu.StoreSize)
	if b[16] > b[copySize+16] { // a generation of a few commits
		return 0
	}
	return 1
}

// onBadBlocks puts a device's store on a medium that can get bad blocks.
func onBadBlocks(d *device) *badBlocks {
	d.do(d.Stop())
	b := &badBlocks{Medium: d.Store}
	d.Config.Store = b
	d.restart()
	return b
}

// openDegraded starts the service and wants it to answer queries only, for the reason that a copy
// of the record cannot be read.
func (d *device) openDegraded() {
	d.t.Helper()
	d.do(d.Stop())
	s, err := fwu.Open(d.t.Context(), d.Config)
	d.do(err)
	d.Service = s
	if got := s.System().Degraded; len(got) != 1 || got[0] != fwu.ReasonRecordUnreadable {
		d.t.Fatalf("degraded: %v", got)
	}
	info, err := s.Query(d.t.Context(), 0)
	if err != nil || info.Impl.Reason != fwu.ReasonRecordUnreadable || info.Impl.Text == "" {
		d.t.Fatalf("query: %+v, %v", info, err)
	}
}

// accepted brings rootfs 2.0.0 with sequence number 50 onto a device and has it accepted.
func accepted(t *testing.T) (*device, *badBlocks) {
	d := newDevice(t, true, bank("rootfs")...)
	b := onBadBlocks(d)
	d.candidate(0, "rootfs", randomImage(90, 300000), "2.0.0", 50)
	d.installed(fwu.SuccessReboot)
	d.reboot()
	d.do(d.Accept(t.Context()))
	return d, b
}

// floor is the rollback floor of component 0.
func (d *device) floor() uint64 {
	info, err := d.Query(d.t.Context(), 0)
	d.do(err)
	return info.Impl.Sequence
}

func TestUnreadableRecordIsWaitedForAndNothingIsWritten(t *testing.T) {
	for name, copies := range map[string][]int64{"both copies": {0, 1}, "the newest copy": {-1}} {
		t.Run(name, func(t *testing.T) {
			d, b := accepted(t)
			if copies[0] < 0 {
				copies = []int64{newest(d)}
			}
			for _, medium := range []error{unix.EIO, unix.ENODATA} {
				b.spoil(medium, copies...)
				d.openDegraded()
				before := d.Store.Bytes(fwu.StoreSize)
				for range 3 {
					d.wantStatus(d.Start(t.Context(), 0, nil), fwu.NotPermitted, fwu.ReasonRecordUnreadable)
					d.wantStatus(d.Accept(t.Context()), fwu.NotPermitted, fwu.ReasonRecordUnreadable)
				}
				if b.written() != 0 || string(before) != string(d.Store.Bytes(fwu.StoreSize)) {
					t.Fatalf("%d writes to a store that could not be read", b.written())
				}
				b.mend()
				d.wantStatus(d.Accept(t.Context()), fwu.BadState, fwu.ReasonState) // the call that finds it readable
				d.want("rootfs UPDATED 2.0.0")
				if f := d.floor(); f != 50 {
					t.Fatalf("floor %d", f)
				}
			}
			d.do(d.Clean(t.Context(), 0))
			d.wantStatus(d.Start(t.Context(), 0, d.manifest("rootfs", randomImage(91, 5000), "1.5.0", 49)), fwu.NotPermitted, fwu.ReasonSequenceRollback)
		})
	}
}

func TestUnreadableRecordEndsNoTrial(t *testing.T) {
	for name, copies := range map[string][]int64{"both copies": {0, 1}, "the newest copy": {-1}} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, true, bank("rootfs")...)
			b := onBadBlocks(d)
			d.candidate(0, "rootfs", randomImage(92, 300000), "2.0.0", 50)
			d.installed(fwu.SuccessReboot)
			d.do(d.Stop())
			if copies[0] < 0 {
				copies = []int64{newest(d)}
			}
			b.spoil(unix.EIO, copies...)
			if err := d.Reset(); err == nil {
				t.Fatal("not degraded")
			}
			selection, before := d.Selector.Selection, b.written()
			if before != 0 || d.Machine.System.Reboots != 0 {
				t.Fatalf("%d writes, %d reboots asked for", before, d.Machine.System.Reboots)
			}
			b.mend()
			d.do(d.Accept(t.Context()))
			d.want("rootfs UPDATED 2.0.0")
			if selection.Default != fwu.BankA || d.Selector.Default != fwu.BankB {
				t.Fatalf("selection %+v, then %+v", selection, d.Selector.Selection)
			}
		})
	}
}

func TestServiceReadsTheRecordAgainByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, b := accepted(t)
		b.spoil(unix.EIO, 0, 1)
		d.openDegraded()
		time.Sleep(time.Hour)
		if got := d.Service.System().Degraded; len(got) == 0 {
			t.Fatal("healthy without a record")
		}
		b.mend()
		time.Sleep(2 * time.Minute)
		if got := d.Service.System().Degraded; len(got) != 0 {
			t.Fatalf("degraded: %v", got)
		}
		d.want("rootfs UPDATED 2.0.0")
		d.do(d.Stop()) // and its goroutine has ended, or the bubble does not
	})
}

func TestServiceThatWaitsForItsRecordCanBeClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, b := accepted(t)
		b.spoil(unix.EIO, 0)
		d.openDegraded()
		d.do(d.Stop())
	})
}

// A selection that could not be read once left the service degraded until it was restarted.
func TestSelectionThatCannotBeReadIsReadAgain(t *testing.T) {
	d, _ := accepted(t)
	d.do(d.Stop())
	sel := &unreadableSelector{Selector: d.Selector}
	sel.unreadable.Store(true)
	d.Config.Selector = sel
	s, err := fwu.Open(t.Context(), d.Config)
	d.do(err)
	d.Service = s
	d.wantStatus(d.Clean(t.Context(), 0), fwu.NotPermitted, fwu.ReasonSelectorUnusable)
	d.want("rootfs UPDATED 2.0.0")
	sel.unreadable.Store(false)
	d.do(d.Clean(t.Context(), 0))
}

type unreadableSelector struct {
	*fwutest.Selector
	unreadable atomic.Bool
}

func (u *unreadableSelector) Read() (fwu.Selection, error) {
	if u.unreadable.Load() {
		return fwu.Selection{}, unix.EIO
	}
	return u.Selector.Read()
}

func TestRecordThatStaysUnreadableIsRepairedOnDemand(t *testing.T) {
	t.Run("one copy is good", func(t *testing.T) {
		for range 2 { // either copy is the newest
			d, b := accepted(t)
			for _, c := range []int64{0, 1} {
				b.spoil(unix.EIO, c)
				d.openDegraded()
				d.do(d.Repair(t.Context(), fwu.RepairRecord))
				d.want("rootfs UPDATED 2.0.0")
				if f := d.floor(); f != 50 {
					t.Fatalf("floor %d", f)
				}
				d.restart()
			}
			d.do(d.Clean(t.Context(), 0))
		}
	})
	t.Run("no copy is good", func(t *testing.T) {
		d, b := accepted(t)
		d.Config.Release["rootfs"] = fwu.Release{Version: fwu.Version{Major: 2}, Sequence: 50}
		b.spoil(unix.EIO, 0, 1)
		d.openDegraded()
		d.wantStatus(d.Repair(t.Context(), fwu.RepairRecord), fwu.NotPermitted, fwu.ReasonRecordUnreadable)
		if b.written() != 0 {
			t.Fatalf("%d writes", b.written())
		}
		d.do(d.Repair(t.Context(), fwu.RepairNewRecord))
		d.want("rootfs READY 2.0.0")
		if f := d.floor(); f != 50 {
			t.Fatalf("floor %d", f)
		}
		d.restart()
	})
	t.Run("the medium does not take it", func(t *testing.T) {
		d, b := accepted(t)
		b.dead = true
		b.spoil(unix.EIO, newest(d))
		good := string(d.Store.Bytes(fwu.StoreSize)[(1-newest(d))*copySize:][:copySize])
		d.openDegraded()
		if err := d.Repair(t.Context(), fwu.RepairRecord); err == nil {
			t.Fatal("repaired")
		}
		if string(d.Store.Bytes(fwu.StoreSize)[(1-newest(d))*copySize:][:copySize]) == good {
			return
		}
		t.Fatal("the copy that was good was overwritten")
	})
	t.Run("nothing to repair", func(t *testing.T) {
		d, b := accepted(t)
		b.mend()
		d.do(d.Repair(t.Context(), fwu.RepairRecord))
		d.do(d.Repair(t.Context(), fwu.RepairNewRecord))
		if b.written() != 0 {
			t.Fatalf("%d writes", b.written())
		}
		d.wantStatus(d.Repair(t.Context(), "roof"), fwu.InvalidArgument, fwu.ReasonRepair)
	})
}

// The copy that is lost is the newest one, after each step of an update: the content of the older
// one is behind the device.
func TestRepairWithTheOlderCopyFollowsTheDevice(t *testing.T) {
	image := randomImage(94, 300000)
	steps := map[string]struct {
		live   bool
		do     func(d *device)
		states []string // any of them
		floor  uint64
	}{
		"staged":   {false, func(d *device) { d.installed(fwu.SuccessReboot) }, []string{"rootfs STAGED 1.0.0"}, 1},
		"booted":   {false, func(d *device) { d.installed(fwu.SuccessReboot); d.do(d.Stop()) }, []string{"rootfs TRIAL 2.0.0"}, 1},
		"accepted": {false, func(d *device) { d.installed(fwu.SuccessReboot); d.reboot(); d.do(d.Accept(d.t.Context())) }, []string{"rootfs UPDATED 2.0.0"}, 50},
		"live":     {true, func(d *device) { d.installed(fwu.Success) }, []string{"rootfs UPDATED 2.0.0"}, 50},
	}
	for name, c := range steps {
		t.Run(name, func(t *testing.T) {
			comps := bank("rootfs")
			comps[0].Live = c.live
			d := newDevice(t, true, comps...)
			b := onBadBlocks(d)
			d.candidate(0, "rootfs", image, "2.0.0", 50)
			c.do(d)
			b.spoil(unix.EIO, newest(d))
			if name == "booted" {
				if err := d.Reset(); err == nil {
					t.Fatal("not degraded")
				}
			} else {
				d.openDegraded()
			}
			d.do(d.Repair(t.Context(), fwu.RepairRecord))
			d.want(c.states[0])
			if f := d.floor(); f != c.floor {
				t.Fatalf("floor %d, want %d", f, c.floor)
			}
			if c.live {
				d.holds("rootfs_b", image)
			}
			d.restart()
			if name == "booted" {
				d.do(d.Accept(t.Context()))
			}
		})
	}
}

// A real medium error: the kernel returns EIO for blocks that cannot be read until they are written
// again.
func TestRecordOnABlockDeviceThatCannotBeRead(t *testing.T) {
	media := sim.New()
	medium := media.Add("store", fwu.StoreSize)
	disk := fault.NewDisk(t, medium)
	d := newDevice(t, true, bank("rootfs")...)
	d.do(d.Stop())
	device, err := partition.Finder{}.OpenDevice(t.Context(), disk.Path)
	d.do(err)
	t.Cleanup(func() { device.Close() })
	d.Config.Store = device
	d.do(fwu.Provision(t.Context(), d.Config, nil, false))
	d.restart()
	d.candidate(0, "rootfs", randomImage(95, 300000), "2.0.0", 50)
	d.installed(fwu.SuccessReboot)
	d.reboot()
	d.do(d.Accept(t.Context()))
	for _, from := range []int64{0, copySize} { // both copies; copy 1
		medium.Spoil(from, fwu.StoreSize-from, sim.UntilWritten, unix.EIO)
		d.openDegraded()
		d.wantStatus(d.Accept(t.Context()), fwu.NotPermitted, fwu.ReasonRecordUnreadable)
		media.Mend()
		d.wantStatus(d.Accept(t.Context()), fwu.BadState, fwu.ReasonState)
		if f := d.floor(); f != 50 {
			t.Fatalf("floor %d", f)
		}
		d.restart()
	}
	medium.Spoil(copySize, fwu.StoreSize-copySize, sim.UntilWritten, unix.EIO)
	d.openDegraded()
	d.do(d.Repair(t.Context(), fwu.RepairRecord)) // the write mends it
	d.restart()
	d.want("rootfs UPDATED 2.0.0")
}

// The heads of the old bank cannot be read when a trial has to end: no reboot is asked for while
// nothing is known of that bank, and one is as soon as it is.
func TestRollbackIsTriedAgainWhenTheHeadsCanBeRead(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	d.candidate(0, "rootfs", randomImage(90, 70000), "2.0.0", 2)
	d.installed(fwu.SuccessReboot)
	d.reboot()
	d.want("rootfs TRIAL 2.0.0")
	d.do(d.Stop())
	var readable atomic.Bool // the service tries again by itself
	d.Slots["rootfs_a"].OnRead = func(int64, int) error {
		if readable.Load() {
			return nil
		}
		return unix.EIO
	}
	if err := d.Boot(fwu.BankB); err == nil { // and not the default
		t.Fatal("the service is healthy")
	}
	d.want("rootfs REJECTED 2.0.0")
	if got := d.Service.System().Degraded; len(got) != 1 || got[0] != fwu.ReasonRollbackFailed {
		t.Fatalf("degraded: %v", got)
	}
	reboots := d.System.Reboots
	d.wantStatus(d.Clean(t.Context(), 0), fwu.NotPermitted, fwu.ReasonRollbackFailed)
	if n := d.System.Reboots; n != reboots {
		t.Fatal("a reboot was asked for into a bank of which nothing is known")
	}
	readable.Store(true)
	_ = d.Clean(t.Context(), 0) // any call has it tried again
	if n := d.System.Reboots; n != reboots+1 {
		t.Fatalf("%d reboots were asked for, want one", n-reboots)
	}
	d.reboot()
	d.want("rootfs FAILED 1.0.0")
}
