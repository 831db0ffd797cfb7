package partition

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math"
	"slices"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// span is a part of a store that is written in one access.
type span struct {
	from, to int
	zeroes   bool
}

// zeroRun is the least that is written by Zeroer, unless a piece is smaller.
const zeroRun = 64 << 10

// differing lists what of p, stored bytes at off, has to be written: all, or what differs from what the medium has. A block that is equal has been read back with that.
func (m *image) differing(p []byte, off int64) []span {
	old, err := m.oldContent(off, len(p))
	_, zeroer := m.dev.(Zeroer)
	// A block that cannot be read, or that failed before, is mended by a write of data. A command to have zeroes there may leave it as it is.
	zeroer = zeroer && err == nil && !m.distrust.Load()
	runs := m.work.runs[:0]
	run := min(zeroRun, m.piece)
	equal := 0
	for i, n := 0, 0; i < len(p); i += n {
		n = blockSize
		r := span{zeroes: zeroer && i%run == 0 && len(p)-i >= run && isZero(p[i:i+run]) && (old == nil || !alike(p[i:i+run], old[i:i+run]))}
		if r.zeroes {
			n = run
		}
		if old != nil && bytes.Equal(p[i:i+n], old[i:i+n]) {
			equal += n
			continue
		}
		r.from, r.to = i, i+n
		if last := len(runs) - 1; last >= 0 && runs[last].to == i && runs[last].zeroes == r.zeroes {
			runs[last].to = r.to
			continue
		}
		runs = append(runs, r)
	}
	if old == nil {
		return runs
	}
	m.equal.Add(int64(equal))
	m.skipped = m.skipped || equal > 0
	if equal < len(p)/8 {
		m.interval = min(max(1, 2*m.interval), 32)
		m.pause = m.interval
		return runs
	}
	m.interval = 0
	if next := off + int64(len(p)); next < m.size {
		m.read(&m.work.old, next, int(min(m.toPieceEnd(next), m.size-next)))
	}
	return runs
}

// alike tells whether a block of a is what b has.
func alike(a, b []byte) bool {
	for i := 0; i < len(a); i += blockSize {
		if bytes.Equal(a[i:i+blockSize], b[i:i+blockSize]) {
			return true
		}
	}
	return false
}

// isZero tells whether b, whose length is a multiple of 8, is all zeroes.
func isZero(b []byte) bool {
	for ; len(b) > 0; b = b[8:] {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
	}
	return true
}

// oldContent returns the n bytes that the medium has at off, or nil if they are not to be compared. With an error
// they cannot be read: all of them have to be written.
func (m *image) oldContent(off int64, n int) ([]byte, error) {
	a := &m.work.old
	switch {
	case m.distrust.Load():
		return nil, nil
	case m.pause > 0:
		m.pause--
		return nil, nil
	case a.n < n || a.off != off:
		m.read(a, off, n)
	}
	b, err := a.wait()
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// Sync makes everything written durable and reads it back. The prefix that it returns counts bytes of the image: it is no multiple of 4096 after a write that
// did not end at one. With an error it returns the prefix of the last good Sync, or 0 if something below that was rewritten since; Resume has to come next.
func (m *image) Sync(ctx context.Context) (int64, error) {
	err := m.ready(ctx)
	if err == nil {
		err = m.voiding(m.sync(ctx))
	}
	return m.prefix, err
}

// Checkpoint makes durable what was stored, and has it read back while the image goes on. The prefix that it returns is of what the Checkpoint before made durable: that is read back
// by now. An error is as of Sync.
func (m *image) Checkpoint(ctx context.Context) (int64, error) {
	err := m.ready(ctx)
	if err == nil {
		err = m.voiding(m.checkpoint(ctx))
	}
	return m.prefix, err
}

func (m *image) checkpoint(ctx context.Context) error {
	if err := m.settle(); err != nil {
		return err
	}
	if err := m.readBackSome(ctx, math.MaxInt); err != nil {
		return err
	}
	m.advance()
	return m.flush()
}

// voiding gives up what an error of the medium voids.
func (m *image) voiding(err error) error {
	if err != nil {
		m.fail(err)
	}
	return err
}

func (m *image) sync(ctx context.Context) error {
	if err := m.drain(ctx); err != nil {
		return err
	}
	return m.verify(ctx)
}

// verify flushes, and reads back everything that was written.
func (m *image) verify(ctx context.Context) error {
	if err := m.settle(); err != nil {
		return err
	}
	if err := m.flush(); err != nil {
		return err
	}
	if err := m.readBackSome(ctx, math.MaxInt); err != nil {
		return err
	}
	if m.work != nil {
		_ = m.work.hash.wait() // to hash does not fail
	}
	m.firm, m.loose = m.hashed, false
	m.advance()
	return nil
}

// flush makes what was stored durable.
func (m *image) flush() error {
	if err := m.flushWritten(); err != nil {
		return err
	}
	m.firm = m.hashed
	return nil
}

// flushWritten makes what was written durable, and what was equal: who wrote that may not have.
func (m *image) flushWritten() error {
	if len(m.written) > 0 || m.skipped {
		if err := flush(m.dev, m.name); err != nil {
			return err
		}
	}
	slices.SortFunc(m.written, func(a, b extent) int { return cmp.Compare(a.off, b.off) })
	m.flushed = append(append(m.flushed[:0], m.flushed[m.checked:]...), m.written...)
	m.checked, m.written, m.skipped = 0, m.written[:0], false
	if !m.options.NoReadBack {
		return nil
	}
	for _, e := range m.flushed {
		m.checkedTo(e)
	}
	return nil
}

// advance computes the prefix, when everything flushed is read back.
func (m *image) advance() {
	known := min(m.firm, m.hashed)
	m.prefix = max(m.prefix, known)
	if roundDown(m.odd) == known {
		m.prefix = max(m.prefix, m.odd)
	}
}

// readAhead begins to read back what comes next.
func (m *image) readAhead() {
	if m.checked == len(m.flushed) {
		return
	}
	e := m.flushed[m.checked]
	if n := int(roundUp(e.end) - e.off); m.work.back.n != n || m.work.back.off != e.off {
		m.read(&m.work.back, e.off, n)
	}
}

// readBackStored reads back n bytes or more of what was flushed, if there is as much: of what is hashed.
func (m *image) readBackStored(n int) error {
	for n > 0 && m.checked < len(m.flushed) {
		_, b, err := m.readBackNext()
		if err != nil {
			return err
		}
		n -= len(b)
	}
	return nil
}

// readBackSome does the same of whatever was stored, and continues the hash with it.
func (m *image) readBackSome(ctx context.Context, n int) error {
	for n > 0 && m.checked < len(m.flushed) {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.begin()
		e, b, err := m.readBackNext()
		if err != nil {
			return err
		}
		if m.hashed < roundDown(e.end) { // it did not come in order
			mask(b, e.off)
			m.feed(b, e.off, roundDown(e.end))
			if err := m.work.hash.wait(); err != nil {
				return err
			}
		}
		n -= len(b)
	}
	return nil
}

// readBackNext reads back the next extent, and compares it.
func (m *image) readBackNext() (extent, []byte, error) {
	m.readAhead()
	e := m.flushed[m.checked]
	b, err := m.work.back.wait()
	if err != nil {
		return e, nil, err
	}
	if maphash.Bytes(m.seed, b) != e.sum {
		return e, nil, fmt.Errorf("read back %s from %d to %d: %w", m.name, e.off, e.end, fwu.ErrReadBack)
	}
	m.readBack.Add(int64(len(b)))
	m.checkedTo(e)
	return e, b, nil
}

// checkedTo notes that the next extent is known to be on the medium.
func (m *image) checkedTo(e extent) {
	if e.end%blockSize != 0 {
		m.odd = e.end
	}
	m.checked++
}

// feed gives to the hash what of b, plain bytes at pos, continues what that has seen and lies below end. b must not change until it is hashed.
func (m *image) feed(b []byte, pos, end int64) {
	from, to := m.hashed-pos, min(end-pos, int64(len(b)))
	if from < 0 || from >= to {
		return
	}
	if m.hashed < fwu.HeadSize {
		copy(m.head[m.hashed:], b[from:])
	}
	m.work.hash.give(job{p: b[from:to], h: m.h})
	m.hashed = pos + to
}

// rehash has the hash begin anew.
func (m *image) rehash() {
	if m.work != nil {
		_ = m.work.hash.wait()
	}
	m.h.Reset()
	m.hashed, m.firm, m.prefix = 0, 0, 0
}

// hashTo reads the medium from what is hashed to end.
func (m *image) hashTo(ctx context.Context, end int64, progress func(done, total int64)) error {
	if m.hashed >= end {
		return nil
	}
	m.begin()
	w := m.work
	read := func(a *ahead, pos int64) { m.read(a, pos, int(min(roundUp(end)-pos, m.toPieceEnd(pos)))) }
	this, next := &w.old, &w.back
	pos := roundDown(m.hashed)
	read(this, pos)
	for m.hashed < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := this.wait()
		if err != nil {
			return err
		}
		w.hash.wait() // what is in the other buffer
		if to := pos + int64(len(b)); to < end {
			read(next, to)
		}
		mask(b, pos)
		m.feed(b, pos, end)
		pos += int64(len(b))
		this, next = next, this
		if progress != nil {
			progress(m.hashed, end)
		}
	}
	w.hash.wait()
	return nil
}

// Sum syncs, and returns the digest of the first size bytes as the medium returns them, with what identifies their head. It reads what was not read back and
// hashed in order before; everything, if size is less than that. Of memory and goroutines nothing is left.
func (m *image) Sum(ctx context.Context, size int64, progress func(done, total int64)) ([]byte, fwu.Head, error) {
	if err := m.ready(ctx); err != nil {
		return nil, fwu.Head{}, err
	}
	if err := m.inside(0, size); err != nil {
		return nil, fwu.Head{}, fmt.Errorf("hash %s: %w", m.name, err)
	}
	if err := m.voiding(m.sync(ctx)); err != nil {
		return nil, fwu.Head{}, err
	}
	if size < m.hashed {
		m.rehash()
	}
	if err := m.hashTo(ctx, size, progress); err != nil {
		return nil, fwu.Head{}, err
	}
	m.end()
	m.prefix = m.hashed
	return m.h.Sum(nil), newHead(m.head[:roundUp(min(size, fwu.HeadSize))]), nil
}

// newHead describes a plain head.
func newHead(plain []byte) fwu.Head {
	sum := sha256.Sum256(plain)
	h := fwu.Head{Sectors: len(plain) / fwu.SectorSize, SHA256: sum[:]}
	h.Bits = make([]byte, h.Sectors/8)
	for n := range h.Sectors {
		h.Bits[n/8] |= plain[n*fwu.SectorSize] & 1 << (n % 8)
	}
	return h
}
