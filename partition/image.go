package partition

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// maxExtents bounds what is remembered of writes that do not follow each other. One more and they are read back first.
const maxExtents = 256

// image is an open slot. Bytes in buf and on the medium are stored bytes: those of the head are masked. Everything else is of the image.
type image struct {
	dev  Device
	name string
	size int64
	crc  *crc32.Table

	// The bytes that are to be written next: buf[:n] belongs at off, a multiple of blockSize. The medium has buf[:clean] already: the beginning of an incomplete block.
	buf      []byte
	off      int64
	n, clean int

	extents  []extent // written, but not yet read back
	readback []byte

	// What was read back in order: [0,hashed) went into h, whole blocks only, so that a client may write the last one again; Sum takes the rest. h is nil until Resume.
	h      hash.Hash
	hashed int64
	head   []byte // the head as it went into h, and the rest of its last block
	prefix int64  // what was written and read back in order: hashed, and the incomplete block behind it
	failed bool   // what is behind prefix is void
}

// extent is a contiguous part of the image that was written to the medium. It begins at a block; the medium has zeroes from its end to the next one.
type extent struct {
	off, end int64
	crc      uint32 // of the stored bytes, the zeroes included
}

func newImage(dev Device, name string, size int64) *image {
	n := int(min(bufferSize, size))
	return &image{
		dev: dev, name: name, size: size, crc: crc32.MakeTable(crc32.Castagnoli),
		buf: alignedBuffer(n), readback: alignedBuffer(n), head: make([]byte, fwu.HeadSize),
	}
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
	m.prefix, m.failed = n, false
	return nil
}

func (m *image) resume(ctx context.Context, n int64) error {
	m.off = roundDown(n)
	if err := m.hashTo(ctx, m.off, nil); err != nil || m.off == n {
		return err
	}
	if err := readFull(m.dev, m.name, m.buf[:blockSize], m.off); err != nil {
		return err
	}
	m.n, m.clean = int(n-m.off), int(n-m.off)
	return nil
}

// stop forgets what is not on the medium. Resume has to come next.
func (m *image) stop() {
	m.h = nil
	m.off, m.n, m.clean = 0, 0, 0
	m.extents = m.extents[:0]
}

// fail voids what came after the last good Sync.
func (m *image) fail() {
	m.stop()
	m.failed = true
}

func (m *image) pending() bool { return m.n > m.clean || len(m.extents) > 0 }

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

// WriteAt stores p at off, a multiple of 4096 or the end of the write before it (or what was given to Resume). It buffers up to 1 MiB. An error voids what Sync
// did not confirm, unless it says that the arguments are wrong.
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
	if off != m.off+int64(m.n) {
		if off%blockSize != 0 {
			return fmt.Errorf("write %s at %d: neither a multiple of %d nor the end of the write before", m.name, off, blockSize)
		}
		if err := m.drain(ctx); err != nil {
			m.fail()
			return err
		}
		m.off, m.n, m.clean = off, 0, 0
	}
	if err := m.fill(ctx, p); err != nil {
		m.fail()
		return err
	}
	return nil
}

// fill appends p to the buffer, and drains it each time it reaches a multiple of its size on the medium.
func (m *image) fill(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		limit := min(bufferSize-int(m.off%bufferSize), len(m.buf))
		k := copy(m.buf[m.n:limit], p)
		mask(m.buf[m.n:m.n+k], m.off+int64(m.n))
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

// drain writes the buffer to the medium, its last block filled with zeroes. The buffer keeps that block if it is incomplete.
func (m *image) drain(ctx context.Context) error {
	if m.n == m.clean {
		return nil
	}
	end := m.off + int64(m.n)
	stored := m.buf[:roundUp(int64(m.n))]
	clear(stored[m.n:])
	mask(stored[m.n:], end)
	if m.collides(m.off, roundUp(end)) {
		if err := m.verify(ctx); err != nil {
			return err
		}
	}
	if m.off < m.hashed { // what was hashed is about to change
		m.h.Reset()
		m.hashed, m.prefix = 0, 0
	}
	m.prefix = min(m.prefix, m.off+int64(m.clean))
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := writeFull(m.dev, m.name, stored, m.off); err != nil {
		return err
	}
	m.note(stored, end)
	tail := m.n % blockSize
	copy(m.buf, m.buf[m.n-tail:m.n])
	m.off, m.n, m.clean = end-int64(tail), tail, tail
	return nil
}

// collides tells whether [off,end) has to wait until what was written before is read back.
func (m *image) collides(off, end int64) bool {
	for _, e := range m.extents {
		if off < roundUp(e.end) && e.off < end {
			return true
		}
	}
	return len(m.extents) == maxExtents && m.extents[maxExtents-1].end != off
}

// note remembers what has just been written.
func (m *image) note(stored []byte, end int64) {
	if last := len(m.extents) - 1; last >= 0 && m.extents[last].end == m.off {
		e := &m.extents[last]
		e.end, e.crc = end, crc32.Update(e.crc, m.crc, stored)
		return
	}
	m.extents = append(m.extents, extent{off: m.off, end: end, crc: crc32.Checksum(stored, m.crc)})
}

// Close gives the slot up. What was not synced is lost.
func (m *image) Close() error {
	m.stop()
	if err := m.dev.Close(); err != nil {
		return fmt.Errorf("close %s: %w", m.name, err)
	}
	return nil
}
