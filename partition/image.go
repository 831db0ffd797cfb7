package partition

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"math"
	"sync/atomic"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// maxExtents bounds what is remembered of writes that were not read back. Where one more store could exceed it they are read back first.
const maxExtents = 1024

// image is an open slot. What lies on the medium are stored bytes: those of the head are masked. In memory everything is of the image.
//
// A store is a piece of the image that goes to the medium at once: as many bytes as piece says at most, which lie between two multiples of it. One goroutine hashes it and another one brings
// it to the medium, and reads back a part of what the last flush made durable, while the next one is filled. What the latter uses meanwhile is marked so below: nobody else looks at
// it before settle has returned.
type image struct {
	dev      Device
	name     string
	size     int64
	options  Options
	piece    int
	distrust *atomic.Bool // set by a failure: what the medium shows may be what it will lose
	seed     maphash.Seed
	work     *work  // nil unless it is needed
	rest     []byte // what was in the buffer when work was given up

	// The bytes that are to be stored next: work.buf()[:n] belongs at off, a multiple of blockSize. The medium has work.buf()[:clean] already: the beginning of an incomplete block.
	off      int64
	n, clean int
	top      int64 // the highest end of a store
	loose    bool  // something was stored that the hash did not continue with, or that ends within a block, and not read back

	// Of the goroutine that stores.
	written []extent // and not flushed
	flushed []extent // and not read back, from checked on
	checked int
	skipped bool // since the last flush: a block was not written, as the medium has it
	// Where few blocks of a store are what the medium has, the next pause stores are not compared.
	pause, interval int

	// [0,hashed) went into h, whole blocks only, so that a client may write the last one again; Sum takes the rest. h is nil until Resume.
	h      hash.Hash
	hashed int64
	firm   int64  // the part of hashed that the last flush made durable
	head   []byte // the head as it went into h, and the rest of its last block
	odd    int64  // end of the last incomplete block that was read back
	prefix int64  // what is durable, read back, and hashed but for an incomplete block at its end
	failed bool   // what is behind prefix is void

	equal, zeroed, stored, readBack atomic.Int64 // see fwu.Counts
}

// extent is a contiguous part of the image that was written to the medium. It begins at a block; the medium has zeroes from its end to the next one.
type extent struct {
	off, end int64
	sum      uint64 // of the stored bytes, the zeroes included
}

func newImage(dev Device, name string, size int64, o Options) *image {
	piece := max(int(roundDown(int64(o.Piece))), blockSize)
	if o.Piece == 0 {
		piece = bufferSize
	}
	return &image{dev: dev, name: name, size: size, options: o, piece: piece, distrust: &atomic.Bool{}, seed: maphash.MakeSeed(), head: make([]byte, fwu.HeadSize)}
}

// mask inverts what of b, the bytes at off, belongs to the head.
func mask(b []byte, off int64) {
	if off >= fwu.HeadSize {
		return
	}
	b = b[:min(int64(len(b)), fwu.HeadSize-off)]
	for ; len(b) >= 8; b = b[8:] {
		binary.NativeEndian.PutUint64(b, ^binary.NativeEndian.Uint64(b))
	}
	for i := range b {
		b[i] = ^b[i]
	}
}

// Resume reads [0,n) from the medium and hashes it with h. If n is no multiple of 4096 the incomplete block is kept, so that the next write may begin at n.
// After a failure it refuses an n beyond the prefix that Sync returned then.
func (m *image) Resume(ctx context.Context, h hash.Hash, n int64) error {
	if err := m.inside(0, n); err != nil {
		return fmt.Errorf("resume %s: %w", m.name, err)
	}
	if m.failed && n > m.prefix {
		return fmt.Errorf("resume %s at %d: what is behind %d is void since the failure", m.name, n, m.prefix)
	}
	m.stop()
	m.h, m.hashed = h, 0
	h.Reset()
	if err := m.resume(ctx, n); err != nil {
		m.stop()
		return fmt.Errorf("resume %s at %d: %w", m.name, n, err)
	}
	m.prefix, m.firm, m.failed = n, m.hashed, false
	return nil
}

func (m *image) resume(ctx context.Context, n int64) error {
	m.off = roundDown(n)
	if err := m.hashTo(ctx, m.off, nil); err != nil || m.off == n {
		return err
	}
	m.begin()
	b := m.work.buf()[:blockSize]
	if err := readFull(m.dev, m.name, b, m.off); err != nil {
		return err
	}
	mask(b, m.off)
	m.n, m.clean = int(n-m.off), int(n-m.off)
	return nil
}

// stop forgets what is not on the medium. Resume has to come next.
func (m *image) stop() {
	m.end()
	m.h, m.rest = nil, nil
	m.off, m.n, m.clean = 0, 0, 0
	m.written, m.flushed, m.checked, m.skipped = m.written[:0], m.flushed[:0], 0, false
	m.firm, m.odd, m.top, m.loose = 0, 0, 0, false
}

// fail voids what came after the last good Sync.
func (m *image) fail(err error) {
	m.stop()
	m.failed = true
	if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		m.distrust.Store(true)
	}
}

// pending tells whether something is not on the medium and read back. What was given to be stored is, when it returns.
func (m *image) pending() bool {
	if m.settle() != nil {
		return true
	}
	return m.n > m.clean || len(m.written) > 0 || m.checked < len(m.flushed) || m.skipped
}

// inside checks that [off, off+n) lies in the slot.
func (m *image) inside(off, n int64) error {
	if off < 0 || n < 0 || off > m.size || n > m.size-off {
		return fmt.Errorf("%d bytes at %d are not inside the slot of %d bytes", n, off, m.size)
	}
	return nil
}

// ready checks that there is a Writer to use.
func (m *image) ready(ctx context.Context) error {
	if m.h == nil {
		return fmt.Errorf("use %s: not resumed since it was opened, sealed or failed", m.name)
	}
	return ctx.Err()
}

// Space returns what follows in the buffer that is filled now. What was put there WriteAt does not copy, if it continues the write before. nil: there is no such buffer.
func (m *image) Space() []byte {
	if m.h == nil {
		return nil
	}
	m.begin()
	return m.work.buf()[m.n:m.limit()]
}

// toPieceEnd is how far it is from off to the end of its piece.
func (m *image) toPieceEnd(off int64) int64 { return int64(m.piece) - off%int64(m.piece) }

// limit is how much of the buffer is filled before it is stored.
func (m *image) limit() int { return min(int(m.toPieceEnd(m.off)), len(m.work.buf())) }

// WriteAt stores p at off, a multiple of 4096 or the end of the write before it (or what was given to Resume). It buffers up to a piece, and does not wait for the medium. An error,
// which may be that of a write before, voids what Sync did not confirm, unless it says that the arguments are wrong.
func (m *image) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := m.ready(ctx); err != nil {
		return err
	}
	if err := m.inside(off, int64(len(p))); err != nil {
		return fmt.Errorf("write %s: %w", m.name, err)
	}
	if len(p) == 0 {
		return nil
	}
	m.begin()
	if off != m.off+int64(m.n) {
		if off%blockSize != 0 {
			return fmt.Errorf("write %s at %d: neither a multiple of %d nor the end of the write before", m.name, off, blockSize)
		}
		if err := m.drain(ctx); err != nil {
			m.fail(err)
			return err
		}
		m.off, m.n, m.clean = off, 0, 0
	}
	if err := m.fill(ctx, p); err != nil {
		m.fail(err)
		return err
	}
	return nil
}

// fill puts p into the buffer, and stores that as often as it is full.
func (m *image) fill(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		limit := m.limit()
		k := min(limit-m.n, len(p))
		if to := m.work.buf()[m.n:limit]; &to[0] != &p[0] {
			copy(to, p)
		}
		m.n += k
		p = p[k:]
		if m.n < limit {
			continue
		}
		if err := m.drain(ctx); err != nil {
			return err
		}
	}
	return nil
}

// drain gives the buffer to be stored, its last block filled with zeroes. The next one begins with that block if it is incomplete.
func (m *image) drain(ctx context.Context) error {
	if m.n == m.clean {
		return nil
	}
	m.begin()
	p := m.work.buf()[:roundUp(int64(m.n))]
	clear(p[m.n:])
	tail := m.n % blockSize
	last, err := m.work.turn()
	if err != nil {
		return err
	}
	copy(m.work.buf(), p[m.n-tail:m.n])
	if err := m.store(ctx, last, p, m.off+int64(m.n)); err != nil {
		return err
	}
	m.off, m.n, m.clean = m.off+int64(m.n-tail), tail, tail
	return nil
}

// store has p, the content of b, hashed and brought to the medium: whole blocks of the image at off, with zeroes from end on.
func (m *image) store(ctx context.Context, b *buffer, p []byte, end int64) error {
	off := m.off
	if off < m.top || m.loose {
		if err := m.settle(); err != nil {
			return err
		}
		if m.full() || m.collides(off, off+int64(len(p))) {
			if err := m.verify(ctx); err != nil {
				return err
			}
		}
	}
	m.top = max(m.top, off+int64(len(p)))
	if off < m.hashed { // what was hashed is about to change
		m.rehash()
	}
	m.prefix = min(m.prefix, off+int64(m.clean))
	if last := roundDown(m.odd); off <= last && last < off+int64(len(p)) {
		m.odd = 0
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w := m.work
	m.feed(p, off, roundDown(end))
	b.hashed = w.hash.sent
	if off < fwu.HeadSize {
		if err := w.hash.wait(); err != nil {
			return err
		}
		mask(p, off)
	}
	m.loose = m.loose || m.hashed < roundDown(end) || end%blockSize != 0
	w.store.give(job{p: p, off: off, end: end, ordered: !m.loose})
	b.stored = w.store.sent
	if !m.loose {
		return nil
	}
	if err := m.settle(); err != nil {
		return err
	}
	return m.readBackSome(ctx, len(p))
}

// settle returns when everything that was given to be stored is, or with the error that the first of it met.
func (m *image) settle() error {
	if m.work == nil {
		return nil
	}
	return m.work.store.wait()
}

// put brings stored bytes to the medium.
func (m *image) put(j job) error {
	back := 0
	if j.ordered {
		back = len(j.p)
		if m.full() {
			if err := m.flushWritten(); err != nil {
				return err
			}
			back = math.MaxInt
		}
	}
	runs := m.differing(j.p, j.off)
	if back > 0 {
		m.readAhead()
	}
	for _, r := range runs {
		if err := m.write(j.p[r.from:r.to], j.off+int64(r.from), j.end, r.zeroes); err != nil {
			return err
		}
	}
	return m.readBackStored(back)
}

// write writes stored bytes at off, and notes them.
func (m *image) write(stored []byte, off, end int64, zeroes bool) error {
	n := int64(len(stored))
	switch z, ok := m.dev.(Zeroer); {
	case zeroes && ok && z.WriteZeroes(off, n) == nil:
		m.zeroed.Add(n)
	default: // zeroes, too, if the medium only takes them as they are
		if err := writeFull(m.dev, m.name, stored, off); err != nil {
			return err
		}
		m.stored.Add(n)
	}
	e := extent{off: off, end: min(off+n, end)}
	if !m.options.NoReadBack {
		e.sum = maphash.Bytes(m.seed, stored)
	}
	m.written = append(m.written, e)
	return nil
}

// collides tells whether [off,end) has to wait until what was written before is read back.
func (m *image) collides(off, end int64) bool {
	for _, list := range [2][]extent{m.written, m.flushed[m.checked:]} {
		for _, e := range list {
			if off < roundUp(e.end) && e.off < end {
				return true
			}
		}
	}
	return false
}

// full tells whether one more store could exceed maxExtents.
func (m *image) full() bool {
	return len(m.written)+len(m.flushed)-m.checked > maxExtents-m.piece/blockSize/2
}

// Counts tells what became of the bytes of the image since the slot was opened.
func (m *image) Counts() fwu.Counts {
	return fwu.Counts{Equal: m.equal.Load(), Zeroed: m.zeroed.Load(), Written: m.stored.Load(), ReadBack: m.readBack.Load()}
}

// Close gives the slot up. What was not synced is lost.
func (m *image) Close() error {
	m.stop()
	if err := m.dev.Close(); err != nil {
		return fmt.Errorf("close %s: %w", m.name, err)
	}
	return nil
}
