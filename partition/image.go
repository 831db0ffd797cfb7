package partition

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync/atomic"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// image is an open slot. The medium has stored bytes: those of the head are masked. In memory
// everything is of the image.
//
// A piece of the image goes to the medium at once. The caller fills it (filling), a goroutine
// hashes it (hasher), and another one brings it to the medium and reads back a part of what the
// last flush made durable (storer), while the next piece is filled. Each of them has data of its
// own. There are no goroutines and no pieces while an image only is held.
type image struct {
	dev     metered
	size    int64
	options Options
	shared  shared
	places  []place // where the slot is sealed, beside its head

	fill  filling
	sum   hasher
	store *storing // nil: nothing was written since Resume
	spare *memory  // for the next storer; nil while one has it

	top    int64 // the highest end of a piece that was stored
	loose  bool  // a piece was stored that the hash did not continue with, or that ends within a block, and not read back
	firm   int64 // the part of sum.n that the last flush made durable
	odd    int64 // end of the last incomplete block that was read back
	prefix int64 // the image is durable, read back and hashed up to here, but for an incomplete block at its end
	failed bool  // everything behind prefix is void
}

func newImage(dev metered, size int64, o Options) *image {
	piece := max(int(roundDown(int64(o.Piece))), blockSize)
	if o.Piece == 0 {
		piece = bufferSize
	}
	return &image{dev: dev, size: size, options: o, places: placesOf(size), shared: shared{distrust: &atomic.Bool{}},
		fill: filling{piece: piece, size: int(min(int64(piece), size))}, sum: hasher{head: make([]byte, fwu.HeadSize)}}
}

// mask inverts what of b, the bytes at off, belongs to the head.
func mask(b []byte, off int64) {
	if off >= fwu.HeadSize {
		return
	}
	invert(b[:min(int64(len(b)), fwu.HeadSize-off)])
}

func invert(b []byte) {
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
		return fmt.Errorf("resume %s: %w", m.dev.name, err)
	}
	if m.failed && n > m.prefix {
		return fmt.Errorf("resume %s at %d: what is behind %d is void since the failure", m.dev.name, n, m.prefix)
	}
	m.stop()
	m.sum.start(h)
	if err := m.resume(ctx, n); err != nil {
		m.stop()
		return fmt.Errorf("resume %s at %d: %w", m.dev.name, n, err)
	}
	m.prefix, m.firm, m.failed = n, m.sum.n, false
	return nil
}

func (m *image) resume(ctx context.Context, n int64) error {
	whole := roundDown(n)
	m.fill.move(whole)
	if err := m.hashTo(ctx, whole, nil); err != nil || whole == n {
		return err
	}
	b := m.fill.buf()[:blockSize]
	if err := m.dev.readFull(b, whole); err != nil {
		return err
	}
	m.show(b, whole)
	m.fill.n, m.fill.clean = int(n-whole), int(n-whole)
	return nil
}

// stop forgets everything that is not on the medium. Resume has to come next.
func (m *image) stop() {
	m.end()
	m.sum.h = nil
	m.fill.move(0)
	m.firm, m.odd, m.top, m.loose = 0, 0, 0, false
}

// end gives up goroutines and memory, but for an incomplete block.
func (m *image) end() {
	m.endStorer()
	m.spare = nil
	m.sum.end()
	m.fill.release()
}

// endStorer gives up the storer. It must not have anything pending that counts.
func (m *image) endStorer() {
	if m.store == nil {
		return
	}
	m.spare, m.store = m.store.end(), nil
	for i := range m.fill.buffers {
		m.fill.buffers[i].stored = 0
	}
}

// memory returns the memory of a storer while there is none.
func (m *image) memory() *memory {
	mem := m.spare
	if m.spare = nil; mem == nil {
		mem = newMemory(m.fill.size)
	}
	return mem
}

// fail voids everything since the last good Sync.
func (m *image) fail(err error) {
	m.stop()
	m.failed = true
	if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		m.shared.distrust.Store(true)
	}
}

// ask waits for the reply of the storer. Without one nothing is pending.
func (m *image) ask(r request, p piece) reply {
	if m.store == nil {
		return reply{odd: m.odd}
	}
	a := m.store.ask(message{r, p})
	if a.err == nil {
		m.odd = a.odd
	}
	return a
}

// pending tells whether something is not on the medium and read back.
func (m *image) pending() bool {
	a := m.ask(isPending, piece{})
	return a.err != nil || a.yes || m.fill.n > m.fill.clean
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
	if !m.sum.started() {
		return fmt.Errorf("use %s: not resumed since it was opened, sealed or failed", m.dev.name)
	}
	return ctx.Err()
}

// Space returns the memory of the bytes that belong at off: WriteAt does not copy them. It is nil
// unless off is the end of the write before, or of the image that Resume was told of. It is valid
// until the next call.
func (m *image) Space(off int64) []byte {
	if !m.sum.started() || off >= m.size {
		return nil
	}
	return m.fill.space(off)
}

// WriteAt stores p at off, a multiple of 4096 or the end of the write before it (or what was given
// to Resume). It buffers up to a piece, and does not wait for the medium. An error, which may be
// that of a write before, voids what Sync did not confirm, unless it says that the arguments are
// wrong.
func (m *image) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := m.ready(ctx); err != nil {
		return err
	}
	if err := m.inside(off, int64(len(p))); err != nil {
		return fmt.Errorf("write %s: %w", m.dev.name, err)
	}
	if len(p) == 0 {
		return nil
	}
	if owns, continues := m.fill.owns(p, off); owns && !continues {
		return fmt.Errorf("write %s at %d: the bytes are in memory that Space returned for another offset", m.dev.name, off)
	}
	if off != m.fill.end() {
		if off%blockSize != 0 {
			return fmt.Errorf("write %s at %d: neither a multiple of %d nor the end of the write before", m.dev.name, off, blockSize)
		}
		if err := m.drain(ctx); err != nil {
			m.fail(err)
			return err
		}
		m.fill.move(off)
	}
	if err := m.put(ctx, p); err != nil {
		m.fail(err)
		return err
	}
	return nil
}

// put puts p into the piece that is filled, and stores that as often as it is full.
func (m *image) put(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		limit := m.fill.limit()
		k := min(limit-m.fill.n, len(p))
		if to := m.fill.buf()[m.fill.n:limit]; &to[0] != &p[0] {
			copy(to, p)
		}
		m.fill.n += k
		p = p[k:]
		if m.fill.n < limit {
			continue
		}
		if err := m.drain(ctx); err != nil {
			return err
		}
	}
	return nil
}

// drain has the piece that is filled stored, its last block completed with zeroes.
func (m *image) drain(ctx context.Context) error {
	if m.fill.n == m.fill.clean {
		return nil
	}
	if m.store == nil {
		m.store = m.newStoring(m.memory())
	}
	j := piece{off: m.fill.off, end: m.fill.end()}
	clean := m.fill.clean
	b, p, err := m.fill.turn(func(b *buffer) error {
		m.sum.reach(b.hashed)
		return m.store.reach(b.stored)
	})
	if err != nil {
		return err
	}
	j.p = p
	return m.hashAndStore(ctx, b, j, clean)
}

// hashAndStore gives a piece, which lies in b, to be hashed and to be stored. The medium has its
// first clean bytes.
func (m *image) hashAndStore(ctx context.Context, b *buffer, j piece, clean int) error {
	if err := m.makeRoom(ctx, j); err != nil {
		return err
	}
	m.top = max(m.top, j.off+int64(len(j.p)))
	if j.off < m.sum.n { // bytes that were hashed are about to change
		m.rehash()
	}
	m.prefix = min(m.prefix, j.off+int64(clean))
	if last := roundDown(m.odd); j.off <= last && last < j.off+int64(len(j.p)) {
		m.odd = 0
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	whole := roundDown(j.end)
	m.sum.feed(j.p, j.off, whole)
	b.hashed = m.sum.sent
	if m.isSealed(j.p, j.off) {
		m.sum.wait()
		m.hide(j.p, j.off)
	}
	m.loose = m.loose || m.sum.n < whole || j.end%blockSize != 0
	j.ordered = !m.loose
	m.store.give(message{store, j})
	b.stored = m.store.sent
	if !m.loose {
		return nil
	}
	return m.readBack(ctx, len(j.p))
}

// makeRoom has everything read back if j is written over bytes that were not, or if too many were
// not.
func (m *image) makeRoom(ctx context.Context, j piece) error {
	if j.off >= m.top && !m.loose {
		return nil
	}
	a := m.ask(isColliding, piece{off: j.off, end: j.off + int64(len(j.p))})
	if a.err != nil || !a.yes {
		return a.err
	}
	return m.verify(ctx)
}

// rehash has the hash begin anew.
func (m *image) rehash() {
	m.sum.restart()
	m.firm, m.prefix = 0, 0
}

// Counts tells what became of the bytes of the image since the slot was opened.
func (m *image) Counts() fwu.Counts {
	return fwu.Counts{Equal: m.shared.equal.Load(), Zeroed: m.shared.zeroed.Load(), Written: m.shared.stored.Load(), ReadBack: m.shared.readBack.Load()}
}

// Exclusive tells whether the kernel refuses everybody else who would write to the slot or mount
// it.
func (m *image) Exclusive() bool {
	h, ok := m.dev.Device.(Holder)
	return !ok || h.Exclusive()
}

// Close gives the slot up. What was not synced is lost.
func (m *image) Close() error {
	m.stop()
	if err := m.dev.Close(); err != nil {
		return fmt.Errorf("close %s: %w", m.dev.name, err)
	}
	return nil
}
