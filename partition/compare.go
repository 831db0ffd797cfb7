package partition

import (
	"bytes"
	"encoding/binary"
)

// span is a part of a store that is written in one access.
type span struct {
	from, to int
	zeroes   bool
}

// zeroRun is the least that is written by Zeroer, unless a piece is smaller.
const zeroRun = 64 << 10

// differing lists what of p, stored bytes at off, has to be written: all, or what differs from what
// the medium has. A block that is equal has been read back with that.
func (s *storer) differing(p []byte, off int64) []span {
	old, err := s.oldContent(off, len(p))
	_, zeroer := s.dev.Device.(Zeroer)
	// A block that cannot be read, or that failed before, is mended by a write of data. A command
	// to have zeroes there may leave it as it is.
	zeroer = zeroer && err == nil && !s.shared.distrust.Load()
	runs := s.runs[:0]
	run := min(zeroRun, s.piece)
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
	s.shared.equal.Add(int64(equal))
	s.skipped = s.skipped || equal > 0
	if equal < len(p)/8 {
		s.interval = min(max(1, 2*s.interval), 32)
		s.pause = s.interval
		return runs
	}
	s.interval = 0
	if next := off + int64(len(p)); next < s.size {
		s.reader.begin(s.old, next, int(min(int64(s.piece)-next%int64(s.piece), s.size-next)))
	}
	return runs
}

// alike tells whether a block of a is the same in b.
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

// oldContent returns the n bytes that the medium has at off, or nil if they are not to be compared.
// With an error they cannot be read: all of them have to be written.
func (s *storer) oldContent(off int64, n int) ([]byte, error) {
	a := s.old
	switch {
	case s.shared.distrust.Load():
		return nil, nil
	case s.pause > 0:
		s.pause--
		return nil, nil
	case a.n < n || a.off != off:
		s.reader.begin(a, off, n)
	}
	b, err := a.wait()
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}
