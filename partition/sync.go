package partition

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Sync makes everything written durable and reads it back. The prefix that it returns counts bytes
// of the image: it is no multiple of 4096 after a write that did not end at one. With an error it
// returns the prefix of the last good Sync, or 0 if something below that was rewritten since;
// Resume has to come next.
func (m *image) Sync(ctx context.Context) (int64, error) {
	err := m.ready(ctx)
	if err == nil {
		err = m.voiding(m.sync(ctx))
	}
	return m.prefix, err
}

// Checkpoint makes the stored bytes durable, and has them read back while the image goes on. The
// prefix that it returns is that of the Checkpoint before: that is read back by now.
// An error is as of Sync.
func (m *image) Checkpoint(ctx context.Context) (int64, error) {
	err := m.ready(ctx)
	if err == nil {
		err = m.voiding(m.checkpoint(ctx))
	}
	return m.prefix, err
}

func (m *image) checkpoint(ctx context.Context) error {
	if err := m.readBack(ctx, math.MaxInt); err != nil {
		return err
	}
	m.advance()
	if err := m.ask(toFlush, piece{}).err; err != nil {
		return err
	}
	m.firm = m.sum.n
	return nil
}

// voiding gives up the bytes that an error of the medium voids.
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
	if err := m.ask(toFlush, piece{}).err; err != nil {
		return err
	}
	if err := m.readBack(ctx, math.MaxInt); err != nil {
		return err
	}
	m.sum.wait()
	m.firm, m.loose = m.sum.n, false
	m.advance()
	return nil
}

// advance computes the prefix, when everything flushed is read back. Bytes that were taken, and not
// stored yet, may belong below it: then the medium still has others there.
func (m *image) advance() {
	known := min(m.firm, m.sum.n)
	if roundDown(m.odd) == known {
		known = max(known, m.odd)
	}
	m.prefix = max(m.prefix, known)
	if m.fill.n > m.fill.clean {
		m.prefix = min(m.prefix, m.fill.off+int64(m.fill.clean))
	}
}

// readBack reads back n bytes or more of those that were flushed, if there are as many, and
// continues the hash with them.
func (m *image) readBack(ctx context.Context, n int) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		a := m.ask(nextBack, piece{})
		if a.err != nil || len(a.b) == 0 {
			return a.err
		}
		if end := roundDown(a.extent.end); m.sum.n < end { // it did not come in order
			m.show(a.b, a.extent.off)
			m.sum.feed(a.b, a.extent.off, end)
			m.sum.wait()
		}
		n -= len(a.b)
	}
	return nil
}

// hashTo reads the medium from the end of the hashed bytes to end. The storer has to be idle: it is
// given up.
func (m *image) hashTo(ctx context.Context, end int64, progress func(done, total int64)) error {
	if m.sum.n >= end {
		return nil
	}
	m.endStorer()
	m.spare = m.memory()
	r := newReader(m.dev)
	defer r.end()
	this, next := newAhead(m.spare[0]), newAhead(m.spare[1])
	defer this.drop()
	defer next.drop()
	read := func(a *ahead, pos int64) {
		r.begin(a, pos, int(min(roundUp(end)-pos, int64(m.fill.piece)-pos%int64(m.fill.piece))))
	}
	pos := roundDown(m.sum.n)
	read(this, pos)
	for m.sum.n < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := this.wait()
		if err != nil {
			return err
		}
		m.sum.wait() // for the bytes in the other buffer
		if to := pos + int64(len(b)); to < end {
			read(next, to)
		}
		m.show(b, pos)
		m.sum.feed(b, pos, end)
		pos += int64(len(b))
		this, next = next, this
		if progress != nil {
			progress(m.sum.n, end)
		}
	}
	m.sum.wait()
	return nil
}

// Sum syncs, and returns the digest of the first size bytes as the medium returns them, with what
// identifies their head. It reads what was not read back and hashed in order before; everything, if
// size is less than that. Of memory and goroutines nothing is left.
func (m *image) Sum(ctx context.Context, size int64, progress func(done, total int64)) ([]byte, fwu.Head, error) {
	if err := m.ready(ctx); err != nil {
		return nil, fwu.Head{}, err
	}
	if err := m.inside(0, size); err != nil {
		return nil, fwu.Head{}, fmt.Errorf("hash %s: %w", m.dev.name, err)
	}
	if err := m.voiding(m.sync(ctx)); err != nil {
		return nil, fwu.Head{}, err
	}
	if size < m.sum.n {
		m.rehash()
	}
	if err := m.hashTo(ctx, size, progress); err != nil {
		return nil, fwu.Head{}, err
	}
	m.end()
	m.prefix = m.sum.n
	return m.sum.sum(), newHead(m.sum.head[:roundUp(min(size, fwu.HeadSize))]), nil
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
