package fault_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/test/fault"
	"github.com/fwu-ab/fwu-ab/test/sim"
)

const slotSize = 4 << 20

// disk is a block device of the kernel, and the medium behind it.
type disk struct {
	device string
	media  *sim.Media
	medium *sim.Medium
}

func newDisk(t *testing.T, size int64) disk {
	t.Helper()
	d := disk{media: sim.New()}
	d.medium = d.media.Add("disk", size)
	d.device = fault.NewDisk(t, d.medium).Path
	return d
}

// lose makes everything from off on unreadable, until it is written or restored.
func (d disk) lose(t *testing.T, off int64) (restore func()) {
	t.Helper()
	return d.loseAs(off, unix.EIO)
}

func (d disk) loseAs(off int64, err error) (restore func()) {
	d.medium.Spoil(off, d.medium.Size()-off, sim.UntilWritten, err)
	return d.media.Mend
}

// content is the bytes on the medium, whether or not it can be read.
func (d disk) content() []byte {
	b := make([]byte, d.medium.Size())
	d.media.Quiet(func() { _, _ = d.medium.ReadAt(b, 0) })
	return b
}

// device is a bank of one component on real block devices, and its service.
type device struct {
	*fwutest.Machine
	slots    [2]disk
	store    disk
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
		d.slots[i] = newDisk(t, slotSize)
		s, err := partition.Finder{}.Find(t.Context(), d.slots[i].device)
		check(t, err)
		c.Slots[i] = s
	}
	d.slots[0].medium.Fill(old)
	d.store = newDisk(t, fwu.StoreSize)
	medium, err := partition.Finder{}.OpenDevice(t.Context(), d.store.device)
	check(t, err)
	t.Cleanup(func() { medium.Close() })
	d.Config.Components, d.Config.Store, d.Config.Trial = []fwu.Component{c}, medium, true
	d.Config.Release = fwu.ReleaseRecord{"rootfs": {Version: suit.Version{Major: 1}, Sequence: 50}}
	check(t, fwu.Provision(t.Context(), d.Config, map[string]int64{"rootfs": int64(len(old))}, false))
	d.image = image(2)
	d.manifest, err = d.Creator.Manifest(fwutest.Spec("rootfs", d.image, suit.Version{Major: 2}, 60))
	check(t, err)
	check(t, d.Reset())
	t.Cleanup(func() { _ = d.Stop() }) // it closes the slots, whatever it says of media that fail
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
	wantMediumErrorOf(t, err, unix.EIO)
}

func wantMediumErrorOf(t *testing.T, err, kernel error) {
	t.Helper()
	if fwu.StatusOf(err) != fwu.StorageFailure || fwu.ReasonOf(err) != fwu.ReasonMedium || !errors.Is(err, kernel) {
		t.Fatalf("got %v, %q: %v; want STORAGE_FAILURE because of the medium, with %v", fwu.StatusOf(err), fwu.ReasonOf(err), err, kernel)
	}
}

// TestImageThatCannotBeRead has the second half of a verified image unreadable at install. What
// another read left in memory is zeroes, as the image has there: the digest of that would be right.
func TestImageThatCannotBeRead(t *testing.T) {
	for name, lost := range map[string]struct {
		from int64
		err  error
	}{
		"all but the head":                 {fwu.HeadSize, unix.EIO},
		"the second half":                  {slotSize / 2, unix.EIO},
		"the second half, of an NVMe disk": {slotSize / 2, unix.ENODATA},
		"the last block":                   {slotSize - 4096, unix.EIO},
		"everything":                       {0, unix.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			check(t, d.prepare(t.Context()))
			check(t, d.Restart()) // nothing holds the slot since it was verified
			restore := d.slots[1].loseAs(lost.from, lost.err)
			_, err := d.Install(t.Context())
			wantMediumErrorOf(t, err, lost.err)
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
	if !bytes.Equal(d.slots[1].content(), d.image) {
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
		if d.slots[1].medium.Bad(0, slotSize) {
			t.Fatalf("lost from %d on: not all of it was written", lost)
		}
		_, err := d.Install(t.Context())
		check(t, err)
		if !bytes.Equal(d.slots[1].content(), d.image) {
			t.Fatalf("lost from %d on: the slot does not hold the image", lost)
		}
	}
}

// failing is a device that cannot be read after a flush.
type failing struct {
	partition.Device
	disk disk
}

func (f failing) Sync() error {
	err := f.Device.Sync()
	f.disk.loseAs(0, unix.EIO)
	return err
}

// TestReadBackThatFails has a medium that takes zeroes, and returns an error when they are read
// back into memory that has zeroes.
func TestReadBackThatFails(t *testing.T) {
	d := newDisk(t, slotSize)
	open := func(ctx context.Context, _ partition.Mode) (partition.Device, error) {
		m, err := partition.Finder{}.OpenDevice(ctx, d.device)
		return failing{m, d}, err
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
	d := newDisk(t, slotSize)
	s, err := partition.Finder{}.Find(t.Context(), d.device)
	check(t, err)
	src, err := s.Source(t.Context())
	check(t, err)
	defer src.Close()
	d.lose(t, slotSize/2)
	for _, p := range [][]byte{fwu.Buffer(slotSize), make([]byte, slotSize+1)[1:]} {
		// as it is, and through a buffer
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
	d := newDisk(t, fwu.StoreSize)
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
