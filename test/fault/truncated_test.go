package fault_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/test/fault"
)

const slotSize = 4 << 20

// disk is a loop device whose file can lose its end.
type disk struct{ file, device string }

// lose takes everything from off on away, and returns a function that brings it back.
func (d disk) lose(t *testing.T, off int64) (restore func()) {
	t.Helper()
	b, err := os.ReadFile(d.file)
	check(t, err)
	check(t, os.Truncate(d.file, off))
	return func() {
		t.Helper()
		f, err := os.OpenFile(d.file, os.O_WRONLY, 0)
		check(t, err)
		_, err = f.WriteAt(b[off:], off)
		check(t, errors.Join(err, f.Close()))
	}
}

func newDisk(t *testing.T, name string, size int64) disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	return disk{path, fault.Truncated(t, path, size)}
}

// device is a bank of one component on real block devices, and its service.
type device struct {
	*fwutest.Machine
	slots    [2]disk
	store    disk
	medium   partition.Device
	image    []byte
	manifest []byte
}

// newDevice makes a device that runs bank a and is provisioned with floor 50.
func newDevice(t *testing.T) *device {
	t.Helper()
	d := &device{Machine: fwutest.NewMachine()}
	old := image(1)
	c := fwu.Component{ID: 1, Name: "rootfs", Manifest: fwu.Detached, Device: fwutest.Board("example.com", "board"), Keys: d.Creator.Anchors()}
	for i := range d.slots {
		d.slots[i] = newDisk(t, "slot", slotSize)
		s, err := partition.Finder{}.Find(t.Context(), d.slots[i].device)
		check(t, err)
		c.Slots[i] = s
	}
	f, err := os.OpenFile(d.slots[0].file, os.O_WRONLY, 0)
	check(t, err)
	_, err = f.Write(old)
	check(t, errors.Join(err, f.Close()))
	d.store = newDisk(t, "store", fwu.StoreSize)
	d.medium, err = partition.Finder{}.OpenDevice(t.Context(), d.store.device)
	check(t, err)
	t.Cleanup(func() { d.medium.Close() })
	d.Config.Components, d.Config.Store, d.Config.Trial = []fwu.Component{c}, d.medium, true
	d.Config.Release = fwu.ReleaseRecord{"rootfs": {Version: suit.Version{Major: 1}, Sequence: 50}}
	check(t, fwu.Provision(t.Context(), d.Config, map[string]int64{"rootfs": int64(len(old))}, false))
	d.image = image(2)
	d.manifest, err = d.Creator.Manifest(fwutest.Spec("rootfs", d.image, suit.Version{Major: 2}, 60))
	check(t, err)
	check(t, d.Reset())
	return d
}

// image has content in its first half, and zeroes in its second, as most file systems have.
func image(seed byte) []byte {
	b := make([]byte, slotSize)
	rand.NewChaCha8([32]byte{seed}).Read(b[:slotSize/2])
	copy(b, "hsqs")
	return b
}

// prepare makes the image a candidate.
func (d *device) prepare(ctx context.Context) error {
	if err := d.Start(ctx, 1, d.manifest); err != nil {
		return err
	}
	if _, err := d.WriteFrom(ctx, 1, 0, bytes.NewReader(d.image), 0); err != nil {
		return err
	}
	return d.Finish(ctx, 1)
}

func (d *device) wantState(t *testing.T, want fwu.State) {
	t.Helper()
	info, err := d.Query(t.Context(), 1)
	check(t, err)
	if info.State != want {
		t.Fatalf("the state is %s (%s %s), want %s", info.State, info.Impl.Reason, info.Impl.Text, want)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantMediumError checks that a call was refused because a medium failed, with the kernel's error
// in it.
func wantMediumError(t *testing.T, err error) {
	t.Helper()
	if fwu.StatusOf(err) != fwu.StorageFailure || fwu.ReasonOf(err) != fwu.ReasonMedium || !errors.Is(err, unix.EIO) {
		t.Fatalf("got %v, %q: %v; want STORAGE_FAILURE because of the medium, with EIO", fwu.StatusOf(err), fwu.ReasonOf(err), err)
	}
}

// TestImageThatCannotBeRead has the second half of a verified image unreadable at install. What
// another read left in memory is zeroes, as the image has there: the digest of that would be right.
func TestImageThatCannotBeRead(t *testing.T) {
	for name, lost := range map[string]int64{"all but the head": fwu.HeadSize, "the second half": slotSize / 2, "the last block": slotSize - 4096, "everything": 0} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			check(t, d.prepare(t.Context()))
			check(t, d.Restart()) // nothing holds the slot since it was verified
			restore := d.slots[1].lose(t, lost)
			_, err := d.Install(t.Context())
			wantMediumError(t, err)
			if d.Selector.Trial != fwu.NoBank {
				t.Fatal("armed")
			}
			d.wantState(t, fwu.Candidate)
			restore()
			status, err := d.Install(t.Context())
			check(t, err)
			if status != fwu.SuccessReboot {
				t.Fatal(status)
			}
			check(t, d.Reset())
			d.wantState(t, fwu.Trial)
		})
	}
}

// TestHeadThatCannotBeReadAtStart has a service start while the head of a candidate cannot be read.
func TestHeadThatCannotBeReadAtStart(t *testing.T) {
	d := newDevice(t)
	check(t, d.prepare(t.Context()))
	check(t, d.Stop())
	restore := d.slots[1].lose(t, 0)
	_ = d.Restart() // it may answer queries only
	d.wantState(t, fwu.Candidate)
	restore()
	check(t, d.Restart())
	d.wantState(t, fwu.Candidate)
	_, err := d.Install(t.Context())
	check(t, err)
}

// TestHeadsOfAStagedBankThatCannotBeRead has the old bank come up again: only the heads tell
// whether the new one was armed.
func TestHeadsOfAStagedBankThatCannotBeRead(t *testing.T) {
	d := newDevice(t)
	check(t, d.prepare(t.Context()))
	_, err := d.Install(t.Context())
	check(t, err)
	restore := d.slots[1].lose(t, 0)
	d.Selector.Trial = fwu.NoBank // the bootloader used it up
	if err := d.Boot(fwu.BankA); err == nil {
		t.Fatal("the service knows what became of an image that it cannot read")
	}
	d.wantState(t, fwu.Staged)
	restore()
	after, err := os.ReadFile(d.slots[1].file)
	check(t, err)
	if !bytes.Equal(after, d.image) {
		t.Fatal("the image was changed")
	}
}

// TestBlocksThatCannotBeReadAreWritten has a slot that lost its end, and an image whose blocks
// there are the bytes that a read left in memory.
func TestBlocksThatCannotBeReadAreWritten(t *testing.T) {
	for _, lost := range []int64{0, 4096, fwu.HeadSize, slotSize / 2, slotSize - 4096} {
		d := newDevice(t)
		d.slots[1].lose(t, lost)
		check(t, d.prepare(t.Context()))
		info, err := os.Stat(d.slots[1].file)
		check(t, err)
		if info.Size() != slotSize {
			t.Fatalf("lost from %d on: the file has %d bytes, so that nothing was written behind that", lost, info.Size())
		}
		_, err = d.Install(t.Context())
		check(t, err)
		got, err := os.ReadFile(d.slots[1].file)
		check(t, err)
		if !bytes.Equal(got, d.image) {
			t.Fatalf("lost from %d on: the slot does not hold the image", lost)
		}
	}
}

// shrinking is a device whose file loses its content with each flush.
type shrinking struct {
	partition.Device
	file string
}

func (s shrinking) Sync() error { return errors.Join(s.Device.Sync(), os.Truncate(s.file, 0)) }

// TestReadBackThatFails has a medium that takes zeroes, and returns an error when they are read
// back into memory that has zeroes.
func TestReadBackThatFails(t *testing.T) {
	d := newDisk(t, "slot", slotSize)
	open := func(ctx context.Context, _ partition.Mode) (partition.Device, error) {
		m, err := partition.Finder{}.OpenDevice(ctx, d.device)
		return shrinking{m, d.file}, err
	}
	img, err := partition.NewSlot(fwu.SlotInfo{ID: "slot", Path: d.device, Size: slotSize}, open, nil).Open(t.Context())
	check(t, err)
	defer img.Close()
	if err := img.Destroy(t.Context()); !errors.Is(err, unix.EIO) {
		t.Fatalf("a head that cannot be read back is destroyed: %v", err)
	}
}

// TestSourceThatCannotBeRead copies from an active image.
func TestSourceThatCannotBeRead(t *testing.T) {
	d := newDisk(t, "slot", slotSize)
	s, err := partition.Finder{}.Find(t.Context(), d.device)
	check(t, err)
	src, err := s.Source(t.Context())
	check(t, err)
	defer src.Close()
	d.lose(t, slotSize/2)
	for _, p := range [][]byte{fwu.Buffer(slotSize), make([]byte, slotSize+1)[1:]} { // as it is, and through a buffer
		n, err := src.ReadAt(p, 0)
		if !errors.Is(err, unix.EIO) || n > slotSize/2 {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	if _, err := s.Bootable(t.Context()); err != nil {
		t.Error(err)
	}
	d.lose(t, 0)
	if ok, err := s.Bootable(t.Context()); !errors.Is(err, unix.EIO) {
		t.Errorf("a head that cannot be read is bootable: %v, %v", ok, err)
	}
}

// TestMediumWithAnUnreadableFirstBlock opens it, and mends it by writing.
func TestMediumWithAnUnreadableFirstBlock(t *testing.T) {
	d := newDisk(t, "store", fwu.StoreSize)
	d.lose(t, 0)
	m, err := partition.Finder{}.OpenDevice(t.Context(), d.device)
	check(t, err)
	defer m.Close()
	b := fwu.Buffer(fwu.StoreSize)
	for i := range b {
		b[i] = 0xa5
	}
	if err := fwu.ReadFull(m, b, 0); !errors.Is(err, unix.EIO) {
		t.Fatalf("reading gives %v, want EIO", err)
	}
	_, err = m.WriteAt(b, 0)
	check(t, err)
	check(t, m.Sync())
	back := fwu.Buffer(fwu.StoreSize)
	check(t, fwu.ReadFull(m, back, 0))
	if !bytes.Equal(back, b) {
		t.Fatal("what was written is not what is read")
	}
}
