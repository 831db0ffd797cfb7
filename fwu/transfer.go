package fwu

import (
	"crypto"
	"slices"

	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/zstdframe"
)

// The stream is the bytes that the client writes: the image, the image compressed, or a bundle. The
// image is the bytes that lie in the slot; in a bundle its payload begins at transfer.payload.
// Written, as callers see it, is an offset in the stream; of a compressed one, it is where a frame
// begins.

// transfer is an image that is being written: how far its stream was taken, and where that is in
// the image. It decides and computes; write.go stores.
type transfer struct {
	image   Image
	header  []byte // bundled: the stream up to its payload, until the manifest is known
	known   bool   // the manifest is known: always of a detached one, never of none
	digest  suit.Digest
	size    int64              // of the image; 0 if not known
	payload int64              // where the image begins in the stream
	decoder *zstdframe.Decoder // of a compressed image; else nil
	next    int64              // in order: where the stream goes on
	// in order: end of the part that was taken; bytes from next to have came before, and are
	// dropped
	have int64
	end  int64 // highest byte of the image that was written, plus one
	// bytes of the image that were written, also before an interruption; twice where they came
	// twice
	taken int64
	dirty int64 // bytes of the image since the last checkpoint
	// it goes on after an interruption, which may have voided bytes that the client believes to be
	// written
	resumed bool
	marks   []mark // of a compressed image: the marks that are not on record yet
	// without a manifest: bytes were voided, and the client did not write again since
	lost bool
}

// newTransfer goes on with img where the first written bytes of its stream are durable. It has no
// slot yet.
func newTransfer(mode ManifestMode, img *imageRecord, written int64) (t *transfer, err error) {
	t = &transfer{digest: suit.Digest{Hash: crypto.SHA256}}
	if img.Manifest != "" {
		if t.digest, err = parseDigest(img.Digest); err != nil {
			return nil, err
		}
		t.known, t.size, t.payload = true, img.Size, img.Payload
	}
	if written <= t.payload && mode == Bundled {
		*t = transfer{digest: suit.Digest{Hash: crypto.SHA256}}
		written = 0
	}
	t.next, t.have, t.end = written, written, max(written-t.payload, 0)
	if t.known && img.Compression != "" {
		t.end = img.Decoded
		t.decoder = zstdframe.Resume(t.size, written-t.payload, t.end)
	}
	t.taken = t.end
	return t, nil
}

// follows checks that n bytes at off go on with the stream, or begin again where it is durable.
func (t *transfer) follows(off, n, durable int64) error {
	if off != t.next && off != durable {
		return refuse(InvalidArgument, ReasonOffset, "write at %d: what is bundled or compressed is written in order, and continues at %d", off, t.next)
	}
	if t.known && t.decoder == nil && off > t.payload+t.size-n {
		return refuse(InvalidArgument, ReasonSize, "write of %d bytes at %d: the bundle has %d", n, off, t.payload+t.size)
	}
	return nil
}

// advance takes p, the bytes at off, and returns the part that did not come before. The part that
// did lies in the slot, and will be verified there.
func (t *transfer) advance(off int64, p []byte) []byte {
	t.next = off + int64(len(p))
	p = p[min(t.have-off, int64(len(p))):]
	t.have = max(t.have, t.next)
	return p
}

// restart forgets the bytes of a stream of which nothing is durable.
func (t *transfer) restart(mode ManifestMode) {
	t.close()
	anew := transfer{image: t.image, digest: suit.Digest{Hash: crypto.SHA256}}
	if mode == Detached {
		anew.digest, anew.known, anew.size, anew.decoder = t.digest, true, t.size, zstdframe.New(t.size)
	}
	*t = anew
}

// complete checks that there is an image, of the size that it must have. end is where an image
// without manifest ends by the record.
func (t *transfer) complete(mode ManifestMode, end int64) error {
	switch {
	case mode == None && (t.lost || t.end < end):
		return refuse(InvalidArgument, ReasonImageSize, "finish: the transfer was interrupted, and continues at %d", t.end&^(WriteAlignment-1))
	case mode == None && t.end == 0:
		return refuse(InvalidArgument, ReasonImageSize, "finish: nothing was written")
	case mode == Bundled && !t.known:
		return refuse(InvalidArgument, ReasonManifestInvalid, "finish: the bundle ended within its manifest, after %d bytes", t.have)
	case t.known && t.end < t.size:
		return refuse(InvalidArgument, ReasonImageSize, "finish: the image has %d of %d bytes", t.end, t.size)
	case t.known && t.next < t.have:
		return refuse(InvalidArgument, ReasonImageSize, "finish: what was written was started again at an earlier offset and not completed")
	}
	if t.decoder != nil {
		if err := t.decoder.Complete(); err != nil {
			return &Error{Status: InvalidArgument, Reason: ReasonPayload, Text: "finish", Err: err}
		}
	}
	if !t.known {
		t.size = t.end
	}
	return nil
}

// ordered tells whether the stream of an image for c is written in order, each byte after the one
// before.
func ordered(c *component, img *imageRecord) bool {
	return c.Manifest == Bundled || img.Compression != ""
}

// mark is a place in a compressed stream where a frame ends: how much of the stream that is, and of
// the image.
type mark struct{ encoded, decoded int64 }

// marksOfACheckpoint bounds the marks that are remembered between two checkpoints.
const marksOfACheckpoint = 16

// mark remembers where the last frame ended, if that is distance bytes of the image or more from
// where the last one did.
func (t *transfer) mark(distance int64) {
	encoded, decoded := t.decoder.Position()
	if n := len(t.marks); n == 0 || decoded-t.marks[n-1].decoded >= distance {
		t.marks = append(t.marks, mark{encoded, decoded})
	}
}

// reached returns the last mark that is in the first prefix bytes of the image, and forgets the
// marks before it.
func (t *transfer) reached(prefix int64) (m mark, ok bool) {
	if encoded, decoded := t.decoder.Position(); decoded <= prefix {
		t.marks = t.marks[:0]
		return mark{encoded, decoded}, decoded > 0
	}
	i := 0
	for i < len(t.marks) && t.marks[i].decoded <= prefix {
		m = t.marks[i]
		i++
	}
	t.marks = slices.Delete(t.marks, 0, i)
	return m, m.decoded > 0
}

// close frees the decoder.
func (t *transfer) close() {
	if t.decoder != nil {
		t.decoder.Close()
	}
}

// continueAt is where a client continues: the end of the durable part, rounded down to the
// alignment unless the image is complete.
func continueAt(written int64, img *imageRecord) int64 {
	if img.Size > 0 && written == img.Payload+img.Size {
		return written
	}
	return written &^ (WriteAlignment - 1)
}
