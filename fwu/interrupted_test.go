package fwu_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// trusted is a device whose client is trusted: it has no digest to compare with.
func trusted(t *testing.T) *device {
	comps := bank("rootfs")
	comps[0].Manifest = fwu.None
	return newDevice(t, true, comps...)
}

// The image lost its tail: where it ends was recorded rounded down to the alignment.
func TestImageWithoutManifestKeepsItsSizeOverARestart(t *testing.T) {
	const size = 50001
	d := trusted(t)
	d.do(d.Start(t.Context(), 0, nil))
	_, err := d.WriteFrom(t.Context(), 0, 0, bytes.NewReader(randomImage(10, size)), 0)
	d.do(err)
	d.restart()
	d.do(d.Finish(t.Context(), 0))
	info, _ := d.Query(t.Context(), 0)
	if info.Impl.ImageSize != size {
		t.Fatalf("the image has %d bytes, want %d", info.Impl.ImageSize, size)
	}
}

// A service that left between two writes lost the first one, and nobody noticed: the candidate had a hole.
func TestImageWithoutManifestHasNoHoleAfterTheServiceLeft(t *testing.T) {
	d := trusted(t)
	image := randomImage(10, 80<<10)
	d.do(d.Start(t.Context(), 0, nil))
	d.do(d.Write(t.Context(), 0, 0, image[:40<<10]))
	d.restart()
	d.do(d.Write(t.Context(), 0, 40<<10, image[40<<10:]))
	d.do(d.Finish(t.Context(), 0))
	d.installed(fwu.SuccessReboot)
	d.holds("rootfs_b", image)
}

// The same, where the service had no time to make anything durable: what would leave a hole is refused.
func TestImageWithoutManifestHasNoHoleAfterTheServiceDied(t *testing.T) {
	d := trusted(t)
	image := randomImage(10, 80<<10)
	d.do(d.Start(t.Context(), 0, nil))
	d.do(d.Write(t.Context(), 0, 0, image[:40<<10]))
	d.Kill()
	d.restart()
	d.wantStatus(d.Write(t.Context(), 0, 40<<10, image[40<<10:]), fwu.InvalidArgument, fwu.ReasonOffset)
	d.do(d.Write(t.Context(), 0, 0, image))
	d.do(d.Finish(t.Context(), 0))
	d.installed(fwu.SuccessReboot)
	d.holds("rootfs_b", image)
}

// A service that left between the last write and finish made the whole transfer FAILED.
func TestFinishAfterTheServiceLeft(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	image := randomImage(10, 80<<10)
	d.do(d.Start(t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)))
	d.do(d.Write(t.Context(), 0, 0, image))
	d.restart()
	d.do(d.Finish(t.Context(), 0))
	d.want("rootfs CANDIDATE 1.0.0")
}

// A call that came late opened the slot again, and kept it from the next service.
func TestCallAfterCloseIsRefused(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	ctx := t.Context()
	image := randomImage(10, 40960)
	m := d.manifest("rootfs", image, "2.0.0", 2)
	d.do(d.Start(ctx, 0, m))
	d.do(d.Close())
	for name, call := range map[string]func() error{
		"start":      func() error { return d.Start(ctx, 0, m) },
		"write":      func() error { return d.Write(ctx, 0, 0, image[:4096]) },
		"write from": func() error { _, err := d.WriteFrom(ctx, 0, 0, bytes.NewReader(image), 0); return err },
		"finish":     func() error { return d.Finish(ctx, 0) },
		"cancel":     func() error { return d.Cancel(ctx, 0) },
		"clean":      func() error { return d.Clean(ctx, 0) },
		"install":    func() error { _, err := d.Install(ctx); return err },
		"accept":     func() error { return d.Accept(ctx) },
		"reject":     func() error { _, err := d.Reject(ctx, fwu.Rejection{}); return err },
	} {
		if err := call(); fwu.StatusOf(err) != fwu.CommunicationFailure {
			t.Errorf("%s: %v", name, err)
		}
		if d.Slots["rootfs_b"].Held() {
			t.Fatalf("%s opened the slot", name)
		}
	}
}

// A caller that went while a checkpoint was made voided all since the one before, although WriteFrom had promised to make durable what it says is stored.
func TestCallerThatGoesLosesNothingThatItWasToldIsStored(t *testing.T) {
	const size = fwu.CheckpointInterval + fwu.MaxWriteSize + 4096
	d := newDevice(t, true, bank("rootfs")...)
	d.Add(fwu.Component{ID: 1, Name: "data", Manifest: fwu.Detached}, size, nil)
	d.do(d.Stop())
	d.do(fwu.Provision(t.Context(), d.Config, map[string]int64{"data": 4096}, true))
	d.reboot()
	image := randomImage(10, size)
	d.do(d.Start(t.Context(), 1, d.manifest("data", image, "2.0.0", 2)))
	ctx, leave := context.WithCancel(t.Context())
	d.Slots["data_b"].OnSync = leave
	n, err := d.WriteFrom(ctx, 1, 0, bytes.NewReader(image), 0)
	info, _ := d.Query(t.Context(), 1)
	if err == nil || n != fwu.CheckpointInterval || info.Impl.Written != n {
		t.Fatalf("stored %d bytes, %d durable: %v", n, info.Impl.Written, err)
	}
	_, err = d.WriteFrom(t.Context(), 1, n, bytes.NewReader(image[n:]), 0)
	d.do(err)
	d.do(d.Finish(t.Context(), 1))
}
