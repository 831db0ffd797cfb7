package partition

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"sync/atomic"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// maxExtents bounds what is remembered of writes that were not read back. Where one more store could exceed it they are read back first.
const maxExtents = 1024

// image is an open slot. What lies on the medium are stored bytes: those of the head are masked. In memory everything is of the image.
//
// A store is a piece of the image that goes to the medium at once: bufferSize bytes at most, which lie between two multiples of it. While it is written, it is hashed by another
// goroutine; and while it is written, a part of what the last flush made durable is read back. See store.
type image struct {
	dev      Device
	name     string
	size     int64
	options  Options
	distrust *atomic.Bool // set by a failure: what the medium shows may be what it will lose
	seed     maphash.Seed
	work     *work  // nil unless it is needed
	rest     []byte // what was in the buffer when work was given up

	// The bytes that are to be stored next: work.buf[:n] belongs at off, a multiple of blockSize. The medium has work.buf[:clean] already: the beginning of an incomplete block.
	off      int64
	n, clean int

	written []extent // and not flushed
	flushed []extent // and not read back, from checked on
	checked int
	skipped bool // since the last flush: a block was not written, as the medium has it

	// [0,hashed) went into h, whole blocks only, so that a client may write the last one again; Sum takes the rest. h is nil until Resume.
	h      hash.Hash
	hashed int64
	firm   int64  // the part of hashed that the last flush made durable
	head   []byte // the head as it went into h, and the rest of its last block
	odd    int64  // end of the last incomplete block that was read back
	prefix int64  // what is durable, read back, and hashed but for an incomplete block at its end
	failed bool   // what is behind prefix is void

	// Where few blocks of a store are what the medium has, the next pause stores are not compared.
	pause, interval int

	equal, zeroed, stored, readBack atomic.Int64 // see fwu.Counts
}

// extent is a contiguous part of the image that was written to the medium. It begins at a block; the medium has zeroes from its end to the next one.
type extent struct {
	off, end int64
	sum      uint64 // of the stored bytes, the zeroes included
}

func newImage(dev Device, name string, size int64) *image {
	return &image{dev: dev, name: name, size: size, distrust: &atomic.Bool{}, seed: maphash.MakeSeed(), head: make([]byte, fwu.HeadSize)}
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
	if err := readFull(m.dev, m.name, m.work.buf[:blockSize], m.off); err != nil {
		return err
	}
	mask(m.work.buf[:blockSize], m.off)
	m.n, m.clean = int(n-m.off), int(n-m.off)
	return nil
}

// stop forgets what is not on the medium. Resume has to come next.
func (m *image) stop() {
	m.end()
	m.h, m.rest = nil, nil
	m.off, m.n, m.clean = 0, 0, 0
	m.written, m.flushed, m.checked, m.skipped = m.written[:0], m.flushed[:0], 0, false
	m.firm, m.odd = 0, 0
}

// fail voids what came after the last good Sync.
func (m *image) fail(err error) {
	m.stop()
	m.failed = true
	if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		m.distrust.Store(true)
	}
}

func (m *image) pending() bool {
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

// WriteAt stores p at off, a multiple of 4096 or the end of the write before it (or what was given to Resume). It buffers up to 512 KiB; what is aligned in memory (fwu.Buffer) and on
// the medium it does not copy. An error voids what Sync did not confirm, unless it says that the arguments are wrong.
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

// fill stores what of p makes a whole store, and keeps the rest in the buffer.
func (m *image) fill(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		limit := min(bufferSize-int(m.off%bufferSize), len(m.work.buf))
		if m.n == 0 && len(p) >= limit && m.off >= fwu.HeadSize && isAligned(p) {
			err := m.store(ctx, p[:limit], m.off+int64(limit))
			m.work.hash.wait()
			if err != nil {
				return err
			}
			m.off += int64(limit)
			p = p[limit:]
			continue
		}
		k := copy(m.work.buf[m.n:limit], p)
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

// drain stores the buffer, its last block filled with zeroes. The buffer keeps that block if it is incomplete.
func (m *image) drain(ctx context.Context) error {
	if m.n == m.clean {
		return nil
	}
	m.begin()
	p := m.work.buf[:roundUp(int64(m.n))]
	clear(p[m.n:])
	end := m.off + int64(m.n)
	if err := m.store(ctx, p, end); err != nil {
		return err
	}
	m.work.swap() // it may still be hashed
	tail := m.n % blockSize
	copy(m.work.buf, p[m.n-tail:m.n])
	m.off, m.n, m.clean = end-int64(tail), tail, tail
	return nil
}

// store brings p to the medium: whole blocks of the image at off, with zeroes from end on. The hasher may use p until it has been waited for.
func (m *image) store(ctx context.Context, p []byte, end int64) error {
	off := m.off
	if m.collides(off, off+int64(len(p))) {
		if err := m.verify(ctx); err != nil {
			return err
		}
	}
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
	m.feed(p, off, roundDown(end))
	if off < fwu.HeadSize {
		m.work.hash.wait()
		mask(p, off)
		defer mask(p, off)
	}
	runs := m.differing(p, off)
	m.readAhead()
	for _, r := range runs {
		if err := m.write(p[r.from:r.to], off+int64(r.from), end, r.zeroes); err != nil {
			return err
		}
	}
	return m.readBackSome(ctx, len(p))
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
	m.written = append(m.written, extent{off, min(off+n, end), maphash.Bytes(m.seed, stored)})
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
	return len(m.written)+len(m.flushed)-m.checked > maxExtents-bufferSize/blockSize/2
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
