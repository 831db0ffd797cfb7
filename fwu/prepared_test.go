package fwu_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// TestPreparedIsAShareOfTheImage: whatever a stream is, and however it arrives, Prepared says how
// much of the image is there. It grows with the stream, is never more than what was sent stands
// for, and is all of the image when the stream is complete: 49 % sent is not shown as 6 %, and a
// complete image not as 33 %.
func TestPreparedIsAShareOfTheImage(t *testing.T) {
	for seed := range uint64(24) {
		r := rand.New(rand.NewPCG(seed, 1))
		packed, mode := seed%2 == 0, []fwu.ManifestMode{fwu.Detached, fwu.Bundled}[seed/2%2]
		d, image, manifest, stream := streamDevice(t, mode, packed, nil)
		head := int64(0)
		if mode == fwu.Bundled {
			head = int64(bytes.Index(stream, image[:512]))
			if packed {
				head = 4096 // at most
			}
		}
		d.do(d.Start(t.Context(), 1, manifest))
		last := int64(0)
		for sent := int64(0); sent < int64(len(stream)); {
			n := min(4096*(1+r.Int64N(300)), int64(len(stream))-sent)
			if r.IntN(2) == 0 {
				for off := int64(0); off < n; off += 4096 {
					d.do(d.Write(t.Context(), 1, sent+off, stream[sent+off:min(sent+off+4096, sent+n)]))
				}
			} else if _, err := d.WriteFrom(t.Context(), 1, sent, bytes.NewReader(stream[sent:sent+n]), n); err != nil {
				t.Fatal(err)
			}
			sent += n
			info, err := d.Query(t.Context(), 1)
			d.do(err)
			got, size := info.Impl.Prepared, int64(len(image))
			slack := int64(0)
			if packed { // a frame counts when all of it is there
				slack = frame + 8192
			}
			// The content does not compress, so the bytes sent are as many bytes of the image.
			if want := max(sent-head, 0); got > size || got < last || got < want-slack || got > sent {
				t.Fatalf("compressed %v, %s: %d bytes of %d sent: %d of the image's %d, before it were %d", packed, mode, sent, len(stream), got, size, last)
			}
			if info.Impl.ImageSize != size && sent > head {
				t.Fatalf("the image has %d bytes, not %d", size, info.Impl.ImageSize)
			}
			last = got
		}
		if last != int64(len(image)) {
			t.Fatalf("all is sent, and that is %d of %d", last, len(image))
		}
		d.do(d.Finish(t.Context(), 1))
		info, err := d.Query(t.Context(), 1)
		d.do(err)
		if i := info.Impl; i.Prepared != int64(len(image)) || i.Written != int64(len(stream)) {
			t.Fatalf("candidate: %d of %d prepared, %d of %d written", i.Prepared, len(image), i.Written, len(stream))
		}
		d.restart()
		info, err = d.Query(t.Context(), 1)
		d.do(err)
		if i := info.Impl; i.Prepared != int64(len(image)) || i.Written != int64(len(stream)) {
			t.Fatalf("after a restart: %d of %d prepared, %d of %d written", i.Prepared, len(image), i.Written, len(stream))
		}
	}
}
