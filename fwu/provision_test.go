package fwu_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
)

// blank is a machine as the factory has it before Provision.
func blank(t *testing.T) *device {
	d := &device{fwutest.NewMachine(), t}
	d.Config.Trial = true
	for i, c := range bank("rootfs", "bootfw") {
		d.Add(c, slotSize, randomImage(uint64(i), slotSize))
		d.Config.Release[c.Name] = fwu.Release{Version: fwu.Version{Major: 1}, Sequence: 5}
	}
	return d
}

func (d *device) storeBytes() []byte { return d.Store.Bytes(fwu.StoreSize) }

func TestProvisionOfAStoreThatHasARecord(t *testing.T) {
	newer := func(d *device) { d.Config.Release["rootfs"] = fwu.Release{Version: fwu.Version{Major: 3}, Sequence: 9} }
	older := func(d *device) { d.Config.Release["rootfs"] = fwu.Release{Version: fwu.Version{Major: 1}, Sequence: 2} }
	damaged := func(n int64) func(*device) {
		return func(d *device) {
			for i := range n {
				_, err := d.Store.WriteAt(bytes.Repeat([]byte{0xA5}, 4096), i*fwu.StoreSize/2)
				d.do(err)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*device)
		force  bool
		err    error
		floor  uint64
	}{
		{name: "by the same image", change: func(*device) {}, err: fwu.ErrProvisioned, floor: 5},
		{name: "by a newer image", change: newer, err: fwu.ErrProvisioned, floor: 9}, // the service adopts it
		{name: "by an older image", change: older, err: fwu.ErrProvisioned, floor: 5},
		{name: "by an older image, with force", change: older, force: true, floor: 2},
		{name: "one copy is damaged", change: damaged(1), err: fwu.ErrProvisioned, floor: 5},
		{name: "both copies are damaged", change: damaged(2), floor: 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := blank(t)
			d.do(fwu.Provision(t.Context(), d.Config, nil, false))
			tt.change(d)
			before := d.storeBytes()
			if err := fwu.Provision(t.Context(), d.Config, nil, tt.force); !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if same := bytes.Equal(d.storeBytes(), before); same != (tt.err != nil) {
				t.Fatalf("store unchanged: %v", same)
			}
			d.reboot()
			if info, _ := d.Query(t.Context(), 0); info.Impl.Sequence != tt.floor {
				t.Fatalf("floor %d, want %d", info.Impl.Sequence, tt.floor)
			}
		})
	}
}

func TestProvisionRecordsWhatWasMeasured(t *testing.T) {
	const size = 70000
	d := blank(t)
	d.do(fwu.Provision(t.Context(), d.Config, map[string]int64{"bootfw": size}, false))
	d.reboot()
	for id, n := range []int{slotSize, size} {
		info, _ := d.Query(t.Context(), fwu.ID(id))
		if want := fmt.Sprintf("sha256:%x", sha256.Sum256(randomImage(uint64(id), slotSize)[:n])); info.Impl.Digest != want {
			t.Errorf("component %d has digest %s, want %s", id, info.Impl.Digest, want)
		}
	}
	d.candidate(0, "rootfs", randomImage(10, 40960), "2.0.0", 6)
	d.installed(fwu.SuccessReboot)
	image := randomImage(1, slotSize)
	d.holds("bootfw_b", image[:size])
	if rest := d.Slots["bootfw_b"].Bytes(slotSize)[size:]; bytes.Contains(rest, image[size:size+4096]) {
		t.Error("more was carried over than the image")
	}
}

func TestProvisionThatFailsLeavesNoRecord(t *testing.T) {
	d := blank(t)
	for name, once := range map[string]func() error{
		"image larger than its slot": func() error {
			err := fwu.Provision(t.Context(), d.Config, map[string]int64{"bootfw": slotSize + 1}, false)
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %v", err)
			}
			return err
		},
		"selector cannot be committed": func() error {
			d.Selector.Failing = 1
			return fwu.Provision(t.Context(), d.Config, nil, false)
		},
	} {
		if err := once(); err == nil {
			t.Errorf("%s: no error", name)
		}
		if !bytes.Equal(d.storeBytes(), make([]byte, fwu.StoreSize)) {
			t.Fatalf("%s: something was written", name)
		}
	}
	d.do(fwu.Provision(t.Context(), d.Config, nil, false))
	d.reboot()
	d.want("rootfs READY 1.0.0, bootfw READY 1.0.0")
}
