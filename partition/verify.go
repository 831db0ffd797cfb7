package partition

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Sync makes everything written durable and reads it back. The prefix that it returns counts bytes of the image: it is no multiple of 4096 after a write that
// did not end at one. With an error it returns the prefix of the last good Sync, or 0 if something below that was rewritten since; Resume has to come next.
func (m *image) Sync(ctx context.Context) (int64, error) {
	if err := m.ready(ctx); err != nil {
		return m.prefix, err
	}
	if err := m.sync(ctx); err != nil {
		return m.prefix, err
	}
	return m.prefix, nil
}

func (m *image) sync(ctx context.Context) error {
	err := m.drain(ctx)
	if err == nil {
		err = m.verify(ctx)
	}
	if err != nil {
		m.fail()
	}
	return err
}

// verify flushes, and reads back every extent.
func (m *image) verify(ctx context.Context) error {
	if len(m.extents) == 0 {
		return nil
	}
	if err := flush(m.dev, m.name); err != nil {
		return err
	}
	slices.SortFunc(m.extents, func(a, b extent) int { return cmp.Compare(a.off, b.off) })
	prefix := m.prefix
	for _, e := range m.extents {
		follows := e.off <= m.hashed
		if err := m.verifyExtent(ctx, e); err != nil {
			return err
		}
		if follows {
			prefix = max(prefix, e.end)
		}
	}
	m.extents, m.prefix = m.extents[:0], prefix
	return nil
}

func (m *image) verifyExtent(ctx context.Context, e extent) error {
	crc := uint32(0)
	for pos := e.off; pos < e.end; {
		b, err := m.read(ctx, pos, e.end)
		if err != nil {
			return err
		}
		crc = crc32.Update(crc, m.crc, b)
		m.feed(b, pos, roundDown(e.end))
		pos += int64(len(b))
	}
	if crc != e.crc {
		return fmt.Errorf("read back %s from %d to %d: %w", m.name, e.off, e.end, fwu.ErrReadBack)
	}
	return nil
}

// read reads from pos, a multiple of blockSize, what is needed to reach end, up to the next multiple of bufferSize.
func (m *image) read(ctx context.Context, pos, end int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b := m.readback[:min(roundUp(end)-pos, bufferSize-pos%bufferSize)]
	return b, readFull(m.dev, m.name, b, pos)
}

// feed unmasks b, what the medium returned at pos, and gives to the hash what of it continues what that has seen and lies below end.
func (m *image) feed(b []byte, pos, end int64) {
	mask(b, pos)
	from, to := m.hashed-pos, min(end-pos, int64(len(b)))
	if from < 0 || from >= to {
		return
	}
	m.h.Write(b[from:to])
	if m.hashed < fwu.HeadSize {
		copy(m.head[m.hashed:], b[from:])
	}
	m.hashed = pos + to
}

// hashTo reads the medium from what is hashed to end.
func (m *image) hashTo(ctx context.Context, end int64, progress func(done, total int64)) error {
	for m.hashed < end {
		pos := roundDown(m.hashed)
		b, err := m.read(ctx, pos, end)
		if err != nil {
			return err
		}
		m.feed(b, pos, end)
		if progress != nil {
			progress(m.hashed, end)
		}
	}
	return nil
}

// Sum syncs, and returns the digest of the first size bytes as the medium returns them, with what identifies their head. It reads what was not read back and
// hashed in order before; everything, if size is less than that.
func (m *image) Sum(ctx context.Context, size int64, progress func(done, total int64)) ([]byte, fwu.Head, error) {
	if err := m.ready(ctx); err != nil {
		return nil, fwu.Head{}, err
	}
	if err := m.inside(0, size); err != nil {
		return nil, fwu.Head{}, fmt.Errorf("hash %s: %w", m.name, err)
	}
	if err := m.sync(ctx); err != nil {
		return nil, fwu.Head{}, err
	}
	if size < m.hashed {
		m.h.Reset()
		m.hashed, m.prefix = 0, 0
	}
	if err := m.hashTo(ctx, size, progress); err != nil {
		return nil, fwu.Head{}, err
	}
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
