package fwu_test

import (
	"bytes"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/google/go-cmp/cmp"
)

// TestQueryTellsOfTheSecondSlot: as long as an image waits or was given up, Query tells which it
// is, who signed it and who started it, over restarts and reboots.
func TestQueryTellsOfTheSecondSlot(t *testing.T) {
	image := randomImage(3, 40960)
	by := fwu.Client{Name: "agent.service", PID: 7, Since: 11}
	for _, mode := range []fwu.ManifestMode{fwu.Detached, fwu.Bundled, fwu.None} {
		t.Run(string(mode), func(t *testing.T) {
			d := newDevice(t, true, fwu.Component{ID: 0, Name: "rootfs", Manifest: mode})
			want := fwu.Second{Version: fwu.Version{Major: 2}, Sequence: 5, Signer: "key 63726561746f72", By: by}
			m := d.spec("rootfs", image, "2.0.0", 5)
			want.Digest = m.Images[0].Digest.String()
			manifest, stream := d.manifest("rootfs", image, "2.0.0", 5), image
			switch mode {
			case fwu.Bundled:
				manifest, stream = nil, d.bundle("rootfs", image, "2.0.0", 5)
			case fwu.None:
				manifest = nil
				want = fwu.Second{Digest: want.Digest, By: by}
			}
			check := func(state fwu.State, want fwu.Second) {
				t.Helper()
				info, err := d.Query(t.Context(), 0)
				d.do(err)
				got := info.Impl.Second
				if (mode != fwu.None) != (got.Manifest != "") {
					t.Errorf("%v: manifest %q", state, got.Manifest)
				}
				got.Manifest = ""
				if diff := cmp.Diff(want, got); diff != "" || info.State != state {
					t.Errorf("in %v, which should be %v: %s", info.State, state, diff)
				}
			}
			d.do(d.Start(fwu.WithClient(t.Context(), by), 0, manifest))
			if _, err := d.WriteFrom(t.Context(), 0, 0, bytes.NewReader(stream), 0); err != nil {
				t.Fatal(err)
			}
			writing := want
			if mode == fwu.None {
				writing.Digest = "" // nobody says which digest it is to have
			}
			check(fwu.Writing, writing)
			d.restart()
			check(fwu.Writing, writing)
			d.do(d.Finish(t.Context(), 0))
			check(fwu.Candidate, want)
			d.installed(fwu.SuccessReboot)
			d.restart()
			check(fwu.Staged, want)
			_, err := d.Reject(t.Context(), fwu.Rejection{})
			d.do(err)
			check(fwu.Failed, want)
		})
	}
}
