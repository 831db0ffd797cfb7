package partition

import (
	"hash"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// hasher has the hash of an image from its first byte on. A goroutine of its own hashes while the
// image goes on; the hash belongs to that goroutine until wait has returned, and to the hasher
// while there is no goroutine.
type hasher struct {
	h    hash.Hash // nil before Resume, and while a goroutine has it
	n    int64     // [0,n) was fed: whole blocks, unless it is the whole image
	head []byte    // the head as it was fed, and the rest of its last block

	in         chan []byte    // nil: there is no goroutine
	done       chan struct{}  // one for each piece
	back       chan hash.Hash // the hash, when the goroutine ends
	sent, seen int            // pieces, of all goroutines
}

// started tells whether there is a hash.
func (d *hasher) started() bool { return d.h != nil || d.in != nil }

// start begins anew with h.
func (d *hasher) start(h hash.Hash) {
	h.Reset()
	d.h, d.n = h, 0
}

// feed hashes the part of b, plain bytes at pos, that continues the hash and lies below end. b must
// not change until reach or wait has returned for it.
func (d *hasher) feed(b []byte, pos, end int64) {
	from, to := d.n-pos, min(end-pos, int64(len(b)))
	if from < 0 || from >= to {
		return
	}
	if d.n < fwu.HeadSize {
		copy(d.head[d.n:], b[from:])
	}
	d.give(b[from:to])
	d.n = pos + to
}

func (d *hasher) give(p []byte) {
	if d.in == nil {
		d.in, d.done, d.back = make(chan []byte, buffers), make(chan struct{}, buffers), make(chan hash.Hash, 1)
		go hashAll(d.h, d.in, d.done, d.back)
		d.h = nil
	}
	d.sent++
	d.reach(d.sent - buffers)
	d.in <- p
}

// hashAll knows nothing of the image, so that an image that nobody closes can be collected.
func hashAll(h hash.Hash, in <-chan []byte, done chan<- struct{}, back chan<- hash.Hash) {
	for p := range in {
		h.Write(p)
		done <- struct{}{}
	}
	back <- h
}

// reach returns when the first n pieces are hashed.
func (d *hasher) reach(n int) {
	for ; d.seen < n; d.seen++ {
		<-d.done
	}
}

// wait returns when everything that was fed is hashed.
func (d *hasher) wait() { d.reach(d.sent) }

// restart begins anew with the same hash.
func (d *hasher) restart() {
	d.end()
	d.start(d.h)
}

// end ends the goroutine.
func (d *hasher) end() {
	if d.in == nil {
		return
	}
	d.wait()
	close(d.in)
	d.h, d.in = <-d.back, nil
}

// sum is the digest of [0,n). There must be no goroutine.
func (d *hasher) sum() []byte { return d.h.Sum(nil) }
