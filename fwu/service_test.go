package fwu_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
	"github.com/fwu-ab/fwu-ab/suit"
)

// device is a machine and the test that it is in.
type device struct {
	*fwutest.Machine
	t *testing.T
}

const slotSize = 1 << 20

func newDevice(t *testing.T, trial bool, comps ...fwu.Component) *device {
	d := &device{fwutest.NewMachine(), t}
	d.Config.Trial = trial
	d.Config.Release["rootfs"] = fwu.Release{Version: fwu.Version{Major: 1}, Sequence: 1}
	for i, c := range comps {
		d.Add(c, slotSize, randomImage(uint64(i), slotSize))
	}
	d.do(fwu.Provision(t.Context(), d.Config, nil, false))
	d.reboot()
	return d
}

func (d *device) reboot() {
	d.t.Helper()
	d.do(d.Reset())
}

func (d *device) restart() {
	d.t.Helper()
	d.do(d.Restart())
}

func randomImage(seed uint64, size int) []byte {
	r := rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, seed)))
	b := make([]byte, size)
	_, _ = r.Read(b)
	return b
}

func (d *device) spec(name string, image []byte, version string, seq uint64) suit.Spec {
	d.t.Helper()
	v, err := suit.ParseVersion(version)
	d.do(err)
	return fwutest.Spec(name, image, v, seq)
}

func (d *device) manifest(name string, image []byte, version string, seq uint64, deps ...suit.Dependency) []byte {
	d.t.Helper()
	spec := d.spec(name, image, version, seq)
	spec.Dependencies = deps
	m, err := d.Creator.Manifest(spec)
	d.do(err)
	return m
}

func (d *device) states() string {
	var out []string
	for _, c := range d.Components() {
		info, err := d.Query(d.t.Context(), c.ID)
		if err != nil {
			d.t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %s %s", c.Name, info.State, info.Version))
	}
	return strings.Join(out, ", ")
}

func (d *device) want(states string) {
	d.t.Helper()
	if got := d.states(); got != states {
		d.t.Fatalf("states: got %s, want %s", got, states)
	}
}

func (d *device) do(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) wantStatus(err error, s fwu.Status, r fwu.Reason) {
	d.t.Helper()
	if fwu.StatusOf(err) != s || fwu.ReasonOf(err) != r {
		d.t.Fatalf("got %v (%v, %v), want %v, %v", err, fwu.StatusOf(err), fwu.ReasonOf(err), s, r)
	}
}

func (d *device) candidate(id fwu.ID, name string, image []byte, version string, seq uint64, deps ...suit.Dependency) {
	d.t.Helper()
	ctx := d.t.Context()
	d.do(d.Start(ctx, id, d.manifest(name, image, version, seq, deps...)))
	if _, err := d.WriteFrom(ctx, id, 0, bytes.NewReader(image), 0); err != nil {
		d.t.Fatal(err)
	}
	d.do(d.Finish(ctx, id))
}

func (d *device) installed(want fwu.Status) {
	d.t.Helper()
	st, err := d.Install(d.t.Context())
	if err != nil || st != want {
		d.t.Fatalf("install: %v, %v; want %v", st, err, want)
	}
}

func (d *device) holds(slot string, image []byte) {
	d.t.Helper()
	if !bytes.Equal(d.Slots[slot].Bytes(len(image)), image) {
		d.t.Fatalf("%s does not hold the image", slot)
	}
}

func bank(names ...string) (out []fwu.Component) {
	for i, n := range names {
		out = append(out, fwu.Component{ID: fwu.ID(i), Name: n, Manifest: fwu.Detached})
	}
	return out
}

func TestUpdateOfTwoComponentsIsAcceptedAfterItsTrial(t *testing.T) {
	d := newDevice(t, true, bank("rootfs", "bootfw")...)
	rootfs, bootfw := randomImage(10, 700000), randomImage(11, 4096*3+17)
	d.want("rootfs READY 1.0.0, bootfw READY 0.0.0")
	d.candidate(0, "rootfs", rootfs, "2.0.0", 2)
	d.candidate(1, "bootfw", bootfw, "2.1.0", 2)
	if bytes.Equal(d.Slots["rootfs_b"].Bytes(512), rootfs[:512]) {
		t.Fatal("a candidate is not sealed")
	}
	d.installed(fwu.SuccessReboot)
	d.want("rootfs STAGED 1.0.0, bootfw STAGED 0.0.0")
	d.holds("rootfs_b", rootfs)
	d.holds("bootfw_b", bootfw)
	d.reboot()
	d.want("rootfs TRIAL 2.0.0, bootfw TRIAL 2.1.0")
	d.do(d.Accept(t.Context()))
	d.want("rootfs UPDATED 2.0.0, bootfw UPDATED 2.1.0")
	d.reboot()
	d.want("rootfs UPDATED 2.0.0, bootfw UPDATED 2.1.0")
	d.do(d.Clean(t.Context(), 0))
	d.do(d.Clean(t.Context(), 1))
	d.wantStatus(d.Start(t.Context(), 0, d.manifest("rootfs", rootfs, "1.9.0", 1)), fwu.NotPermitted, fwu.ReasonSequenceRollback)
}

func TestTrialThatIsResetGivesThePreviousSystemBack(t *testing.T) {
	d := newDevice(t, true, bank("rootfs", "bootfw")...)
	image := randomImage(12, 300000)
	for n := range 3 {
		d.candidate(0, "rootfs", image, "2.0.0", 2)
		d.installed(fwu.SuccessReboot)
		d.reboot()
		d.want("rootfs TRIAL 2.0.0, bootfw READY 0.0.0")
		if !bytes.Equal(d.Slots["bootfw_a"].Bytes(slotSize), d.Slots["bootfw_b"].Bytes(slotSize)) {
			t.Fatal("bootfw was not carried over")
		}
		d.wantStatus(d.Start(t.Context(), 1, d.manifest("bootfw", image, "2.0.0", 2)), fwu.NotPermitted, fwu.ReasonBankBusy)
		d.reboot()
		d.want("rootfs FAILED 1.0.0, bootfw READY 0.0.0")
		info, _ := d.Query(t.Context(), 0)
		if info.Error != fwu.GenericError || info.Impl.Reason != fwu.ReasonTrialReset {
			t.Fatalf("round %d: error %v, reason %v", n, info.Error, info.Impl.Reason)
		}
		d.do(d.Clean(t.Context(), 0))
	}
	d.wantStatus(d.Start(t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)), fwu.NotPermitted, fwu.ReasonFailedBefore)
	d.do(d.Stop())
	d.do(fwu.ForgetFailures(d.Store))
	d.restart()
	d.do(d.Start(t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)))
}

func TestTransferGoesOnWhereItWasInterrupted(t *testing.T) {
	for _, mode := range []fwu.ManifestMode{fwu.Detached, fwu.Bundled, fwu.None} {
		t.Run(string(mode), func(t *testing.T) {
			comps := bank("rootfs")
			comps[0].Manifest = mode
			d := newDevice(t, true, comps...)
			ctx := t.Context()
			image := randomImage(13, 500001)
			manifest := d.manifest("rootfs", image, "2.0.0", 2)
			stream := image
			switch mode {
			case fwu.Bundled:
				stream, manifest = d.bundle("rootfs", image, "2.0.0", 2), nil
			case fwu.None:
				manifest = nil
			}
			d.do(d.Start(ctx, 0, manifest))
			n, err := d.WriteFrom(ctx, 0, 0, bytes.NewReader(stream[:200123]), 0)
			if err != nil || n != 200123 {
				t.Fatal(n, err)
			}
			for _, disturb := range []func(){func() {}, d.restart, d.reboot} {
				disturb()
				info, _ := d.Query(ctx, 0)
				w := info.Impl.Written
				if info.State != fwu.Writing || w%fwu.WriteAlignment != 0 || w < 200123-4096*2 {
					t.Fatalf("%v, written %d", info.State, w)
				}
				if n, err := d.WriteFrom(ctx, 0, w, bytes.NewReader(stream[w:w+100000]), 0); err != nil || n != 100000 {
					t.Fatal(n, err)
				}
			}
			info, _ := d.Query(ctx, 0)
			if _, err := d.WriteFrom(ctx, 0, info.Impl.Written, bytes.NewReader(stream[info.Impl.Written:]), 0); err != nil {
				t.Fatal(err)
			}
			d.do(d.Finish(ctx, 0))
			d.reboot()
			d.installed(fwu.SuccessReboot)
			d.holds("rootfs_b", image)
		})
	}
}

func TestBlockThatIsWrittenAgainIsNotPromised(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	image := randomImage(18, 200000)
	d.do(d.Start(t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)))
	d.do(d.Write(t.Context(), 0, 0, image[:65536]))
	written := func() int64 {
		info, err := d.Query(t.Context(), 0)
		d.do(err)
		return info.Impl.Written
	}
	for _, step := range []struct{ off, before, after int64 }{{16384, 16384, 16384}, {8192, 8192, 8192}, {12288, 8192, 8192}, {8192, 8192, 12288}} {
		d.restart()
		d.do(d.Write(t.Context(), 0, step.off, image[step.off:step.off+4096]))
		before := written()
		d.restart()
		if after := written(); before != step.before || after != step.after {
			t.Errorf("write at %d: written %d, then %d; want %d, %d", step.off, before, after, step.before, step.after)
		}
	}
	n := written()
	if _, err := d.WriteFrom(t.Context(), 0, n, bytes.NewReader(image[n:]), 0); err != nil {
		t.Fatal(err)
	}
	d.do(d.Finish(t.Context(), 0))
}

func (d *device) bundle(name string, image []byte, version string, seq uint64) []byte {
	d.t.Helper()
	spec := d.spec(name, image, version, seq)
	spec.Images[0].URI = "#" + name
	m, err := d.Creator.Manifest(spec)
	d.do(err)
	var b bytes.Buffer
	d.do(suit.WriteBundle(&b, m, []suit.PayloadSource{{Key: "#" + name, Size: int64(len(image)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(image)), nil }}}))
	return b.Bytes()
}

func TestLiveComponentWhoseUnitDoesNotStartGetsItsImageBack(t *testing.T) {
	d := newDevice(t, true, fwu.Component{ID: 7, Name: "app", Manifest: fwu.Detached, Live: true, Trial: true, Unit: "app.service"})
	image := randomImage(14, 200000)
	d.System.Failing = "app.service"
	d.candidate(7, "app", image, "2.0.0", 2)
	_, err := d.Install(t.Context())
	d.wantStatus(err, fwu.GenericError, fwu.ReasonUnitRestart)
	d.want("app FAILED 0.0.0")
	if d.System.Links["app"] != "/dev/app_a" {
		t.Fatal(d.System.Links)
	}
	d.System.Failing = ""
	d.do(d.Clean(t.Context(), 7))
	d.candidate(7, "app", image, "2.0.0", 2)
	d.installed(fwu.Success)
	d.want("app TRIAL 2.0.0")
	d.holds("app_b", image)
	if d.System.Links["app"] != "/dev/app_b" {
		t.Fatal(d.System.Links)
	}
	d.reboot()
	d.want("app TRIAL 2.0.0")
	if st, err := d.Reject(t.Context(), fwu.Rejection{Error: -7}); st != fwu.Success || err != nil {
		t.Fatal(st, err)
	}
	d.want("app FAILED 0.0.0")
	if d.System.Links["app"] != "/dev/app_a" {
		t.Fatal(d.System.Links)
	}
}

func TestInstallThatWaitsForAnotherMemberLeavesItsTransferAlone(t *testing.T) {
	d := newDevice(t, true, bank("rootfs", "bootfw")...)
	image := randomImage(17, 200000)
	d.candidate(0, "rootfs", image, "2.0.0", 2)
	d.do(d.Start(t.Context(), 1, d.manifest("bootfw", image, "2.0.0", 2)))
	d.do(d.Write(t.Context(), 1, 0, image[:8192]))
	_, err := d.Install(t.Context())
	d.wantStatus(err, fwu.DependencyNeeded, fwu.ReasonDependency)
	d.do(d.Write(t.Context(), 1, 8192, image[8192:]))
	d.do(d.Finish(t.Context(), 1))
	d.installed(fwu.SuccessReboot)
}

func TestForgedImageAndForgedManifestAreRefused(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	image := randomImage(15, 200000)
	m := d.manifest("rootfs", image, "2.0.0", 2)
	bad := bytes.Clone(m)
	bad[len(bad)-20] ^= 1
	if err := d.Start(t.Context(), 0, bad); err == nil {
		t.Fatal("a changed manifest was taken")
	}
	d.want("rootfs READY 1.0.0")
	d.do(d.Start(t.Context(), 0, m))
	image[100000] ^= 1
	if _, err := d.WriteFrom(t.Context(), 0, 0, bytes.NewReader(image), 0); err != nil {
		t.Fatal(err)
	}
	d.wantStatus(d.Finish(t.Context(), 0), fwu.InvalidSignature, fwu.ReasonImageDigest)
	d.want("rootfs FAILED 1.0.0")
}

func TestCancelEndsATransferThatWaitsForData(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	image := randomImage(16, 200000)
	d.do(d.Start(t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)))
	r := &stalled{wake: make(chan struct{})}
	done := make(chan error)
	go func() {
		_, err := d.WriteFrom(context.Background(), 0, 0, r, 0)
		done <- err
	}()
	for {
		if info, _ := d.Query(t.Context(), 0); info.Impl.Operation == fwu.OpWrite {
			break
		}
	}
	d.do(d.Cancel(t.Context(), 0))
	d.wantStatus(<-done, fwu.BadState, fwu.ReasonCancelled)
	d.want("rootfs FAILED 1.0.0")
}

// stalled is a pipe that nobody writes to.
type stalled struct{ wake chan struct{} }

func (s *stalled) Read([]byte) (int, error) {
	<-s.wake
	return 0, errors.New("deadline")
}

func (s *stalled) SetReadDeadline(time.Time) error {
	close(s.wake)
	return nil
}

// TestWriteFromTakesNoMore: what is behind the length is somebody else's.
func TestWriteFromTakesNoMore(t *testing.T) {
	d := newDevice(t, true, bank("rootfs")...)
	image := randomImage(19, 900000)
	d.do(d.Start(t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)))
	r := bytes.NewReader(image)
	for _, n := range []int64{4096, 655360, 4096} {
		if got, err := d.WriteFrom(t.Context(), 0, r.Size()-int64(r.Len()), r, n); got != n || err != nil {
			t.Fatalf("%d bytes, and %v", got, err)
		}
	}
	if n := r.Size() - int64(r.Len()); n != 663552 {
		t.Errorf("%d bytes were taken", n)
	}
	got, err := d.WriteFrom(t.Context(), 0, 663552, r, 300000)
	d.wantStatus(err, fwu.CommunicationFailure, fwu.ReasonSize)
	if want := int64(900000 - 663552); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
	d.do(d.Finish(t.Context(), 0))
}
