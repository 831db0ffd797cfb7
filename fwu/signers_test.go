package fwu_test

import (
	"context"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
	"github.com/fwu-ab/fwu-ab/suit"
)

// signedBy makes a manifest for rootfs that the creators with these names signed.
func (d *device) signedBy(image []byte, sequence uint64, names ...string) []byte {
	d.t.Helper()
	m, err := suit.Create(d.spec("rootfs", image, "2.0.0", sequence))
	d.do(err)
	for _, name := range names {
		c := fwutest.NewCreator(name)
		m, err = suit.Sign(m, c.Key, suit.Identity{KID: c.KID})
		d.do(err)
	}
	return m
}

// anchored has rootfs trust the creators with these names, from the next start on.
func (d *device) anchored(names ...string) {
	var keys suit.VerifyKeys
	for _, name := range names {
		keys = append(keys, fwutest.NewCreator(name).Anchors()...)
	}
	d.Config.Components[0].Keys = keys
}

func (d *device) prepared(manifest, image []byte) {
	d.t.Helper()
	ctx := d.t.Context()
	d.do(d.Start(ctx, 0, manifest))
	d.do(d.Write(ctx, 0, 0, image))
	d.do(d.Finish(ctx, 0))
}

func threshold(t *testing.T) *device {
	d := newDevice(t, true, bank("rootfs")...)
	d.Config.Components[0].Signatures = 2
	d.anchored("a", "b", "c")
	d.restart()
	return d
}

func TestTwoOfThreeKeysHaveToSign(t *testing.T) {
	image := randomImage(1, 5000)
	for _, c := range []struct {
		name    string
		signers []string
		taken   bool
	}{
		{"one", []string{"a"}, false},
		{"one, and a stranger", []string{"a", "stranger"}, false},
		{"two strangers", []string{"stranger", "other stranger"}, false},
		{"two", []string{"c", "a"}, true},
		{"two, and a stranger", []string{"stranger", "a", "b"}, true},
		{"three", []string{"a", "b", "c"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := threshold(t)
			err := d.Start(t.Context(), 0, d.signedBy(image, 2, c.signers...))
			if c.taken {
				d.do(err)
				return
			}
			d.wantStatus(err, fwu.InvalidSignature, fwu.ReasonManifestSignature)
			d.want("rootfs READY 1.0.0")
		})
	}
}

// Keys are exchanged one after the other: as long as two are left that signed, an image is taken,
// and one that is prepared stays.
func TestKeysOfAThresholdAreExchanged(t *testing.T) {
	d := threshold(t)
	image := randomImage(1, 5000)
	d.prepared(d.signedBy(image, 2, "a", "b", "c"), image)
	d.anchored("b", "c", "d")
	d.restart()
	d.want("rootfs CANDIDATE 1.0.0")
	d.installed(fwu.SuccessReboot)
	d.reboot()
	d.do(d.Accept(t.Context()))
	d.do(d.Clean(t.Context(), 0))

	second := randomImage(2, 5000)
	d.wantStatus(d.Start(t.Context(), 0, d.signedBy(second, 3, "a", "b")), fwu.InvalidSignature, fwu.ReasonManifestSignature)
	d.prepared(d.signedBy(second, 3, "b", "c"), second)
	d.anchored("c", "d", "e") // only one of its signers is left
	d.restart()
	d.want("rootfs FAILED 2.0.0")
	d.do(d.Clean(t.Context(), 0))
	d.prepared(d.signedBy(second, 3, "d", "e"), second)
	d.installed(fwu.SuccessReboot)
}

// A prepared image is looked at by the number that is required when it is installed.
func TestARaisedThresholdEndsAnImage(t *testing.T) {
	d := threshold(t)
	d.Config.Components[0].Signatures = 0
	d.restart()
	image := randomImage(1, 5000)
	d.prepared(d.signedBy(image, 2, "a"), image)
	d.Config.Components[0].Signatures = 2
	d.restart()
	info, err := d.Query(context.Background(), 0)
	d.do(err)
	if info.State != fwu.Failed || info.Impl.Reason != fwu.ReasonTrustRemoved || info.Impl.Signatures != 2 {
		t.Errorf("%v, %v, %d signatures", info.State, info.Impl.Reason, info.Impl.Signatures)
	}
}
