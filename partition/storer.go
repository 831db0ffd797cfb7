package partition

import (
	"hash/maphash"
	"math"
	"sort"
	"sync/atomic"
)

// maxExtents bounds how many writes are remembered until they are read back. Where one more piece
// could exceed it they are read back first.
const maxExtents = 1024

// storer brings pieces to the medium, and reads back a part of those that the last flush made
// durable, while the next one is filled. It is the only one that has the medium meanwhile.
// Everything here belongs to its goroutine: see storing for the messages that it takes.
type storer struct {
	dev     metered
	size    int64
	piece   int
	options Options
	shared  *shared
	seed    maphash.Seed

	written []extent // and not flushed
	flushed []extent // and not read back, from checked on
	checked int
	skipped bool  // since the last flush a block was not written, as the medium has it
	odd     int64 // end of the last incomplete block that was read back

	reader    *reader
	old, back *ahead // what the medium has where the image goes on, and the bytes that are read back
	runs      []span
	// Where few blocks of a piece are those that the medium has, the next pause pieces are not
	// compared.
	pause, interval int
}

// shared are the parts of a storer that others look at at any time.
type shared struct {
	distrust                        *atomic.Bool // set by a failure: the medium may show bytes that it will lose
	equal, zeroed, stored, readBack atomic.Int64 // see fwu.Counts
}

// extent is a contiguous part of the image that was written to the medium. It begins at a block;
// the medium has zeroes from its end to the next one.
type extent struct {
	off, end int64
	sum      uint64 // of the stored bytes, the zeroes included
}

// piece is whole blocks of stored bytes at off, with zeroes from end on.
type piece struct {
	p        []byte
	off, end int64
	ordered  bool // whatever is read back after it was hashed when it was stored
}

// store brings a piece to the medium.
func (s *storer) store(j piece) error {
	if last := roundDown(s.odd); j.off <= last && last < j.off+int64(len(j.p)) {
		s.odd = 0
	}
	back := 0
	if j.ordered {
		back = len(j.p)
		if s.full() {
			if err := s.flush(); err != nil {
				return err
			}
			back = math.MaxInt
		}
	}
	runs := s.differing(j.p, j.off)
	if back > 0 {
		s.readAhead()
	}
	for _, r := range runs {
		if err := s.write(j.p[r.from:r.to], j.off+int64(r.from), j.end, r.zeroes); err != nil {
			return err
		}
	}
	for back > 0 && s.checked < len(s.flushed) {
		_, b, err := s.next()
		if err != nil {
			return err
		}
		back -= len(b)
	}
	return nil
}

// write writes stored bytes at off, and notes them.
func (s *storer) write(stored []byte, off, end int64, zeroes bool) error {
	n := int64(len(stored))
	switch z, ok := s.dev.Device.(Zeroer); {
	case zeroes && ok && z.WriteZeroes(off, n) == nil:
		s.shared.zeroed.Add(n)
	default: // zeroes, too, if the medium only takes them as they are
		if err := s.dev.writeFull(stored, off); err != nil {
			return err
		}
		s.shared.stored.Add(n)
	}
	e := extent{off: off, end: min(off+n, end)}
	if !s.options.NoReadBack {
		e.sum = maphash.Bytes(s.seed, stored)
	}
	s.written = append(s.written, e)
	return nil
}

// collides tells whether [off,end) has to wait until everything written before is read back.
func (s *storer) collides(off, end int64) bool {
	for _, list := range [2][]extent{s.written, s.flushed[s.checked:]} {
		for _, e := range list {
			if off < roundUp(e.end) && e.off < end {
				return true
			}
		}
	}
	return s.full()
}

// full tells whether one more piece could exceed maxExtents.
func (s *storer) full() bool {
	return len(s.written)+len(s.flushed)-s.checked > maxExtents-s.piece/blockSize/2
}

// pending tells whether something is not durable, or not read back.
func (s *storer) pending() bool {
	return len(s.written) > 0 || s.checked < len(s.flushed) || s.skipped
}

// flush makes durable everything that was written, and everything that was equal: who wrote that
// may not have.
func (s *storer) flush() error {
	if len(s.written) > 0 || s.skipped {
		if err := s.dev.flush(); err != nil {
			return err
		}
	}
	sort.Slice(s.written, func(i, j int) bool { return s.written[i].off < s.written[j].off })
	s.flushed = append(append(s.flushed[:0], s.flushed[s.checked:]...), s.written...)
	s.checked, s.written, s.skipped = 0, s.written[:0], false
	if s.options.NoReadBack {
		for _, e := range s.flushed {
			s.check(e)
		}
	}
	return nil
}

// readAhead begins to read back the next extent.
func (s *storer) readAhead() {
	if s.checked == len(s.flushed) {
		return
	}
	e := s.flushed[s.checked]
	if n := int(roundUp(e.end) - e.off); s.back.n != n || s.back.off != e.off {
		s.reader.begin(s.back, e.off, n)
	}
}

// next reads back the next extent of those that were flushed, and compares it. There are no bytes
// if there is none.
func (s *storer) next() (extent, []byte, error) {
	if s.checked == len(s.flushed) {
		return extent{}, nil, nil
	}
	s.readAhead()
	e := s.flushed[s.checked]
	b, err := s.back.wait()
	if err != nil {
		return e, nil, err
	}
	if maphash.Bytes(s.seed, b) != e.sum {
		return e, nil, s.dev.differs(e.off, e.end)
	}
	s.shared.readBack.Add(int64(len(b)))
	s.check(e)
	return e, b, nil
}

// check notes that the next extent is known to be on the medium.
func (s *storer) check(e extent) {
	if e.end%blockSize != 0 {
		s.odd = e.end
	}
	s.checked++
}

// end gives up everything that is not on the medium.
func (s *storer) end() {
	s.old.drop()
	s.back.drop()
	s.reader.end()
}
