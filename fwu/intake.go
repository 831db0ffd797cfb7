package fwu

import (
	"io"
	"time"
)

// intakeSize is how much is read at once: what a slot stores at once.
const intakeSize = 512 << 10

// intake reads what is to be stored, a buffer ahead of what is being stored where the reader can be interrupted. It takes no byte beyond its limit.
type intake struct {
	r     io.Reader
	limit int64        // what may still be read; negative: all
	buf   []byte       // what next returned last
	ahead chan portion // nil: nothing is read ahead
	free  chan []byte
	ended bool // there is nothing more to read
	abort func()
}

type portion struct {
	p   []byte
	err error // io.EOF: p is the last
}

// deadliner is a reader that can be interrupted.
type deadliner interface {
	SetReadDeadline(time.Time) error
}

// interrupt ends a Read. A file that has no deadlines does not block either.
func interrupt(r deadliner) { _ = r.SetReadDeadline(time.Unix(1, 0)) }

// newIntake returns an intake of limit bytes of r, or of all if limit is negative. abort ends a read that waits; nil: it cannot be ended, and nothing is read ahead.
func newIntake(r io.Reader, limit int64, abort func()) *intake {
	in := &intake{r: r, limit: limit, abort: abort}
	size := intakeSize
	if limit >= 0 {
		size = int(min(limit, intakeSize))
	}
	if abort == nil {
		in.buf = Buffer(size)
		return in
	}
	in.ahead, in.free = make(chan portion, 1), make(chan []byte, 2)
	in.free <- Buffer(size)
	in.free <- Buffer(size)
	go func() {
		defer close(in.ahead)
		for b := range in.free {
			p, err := in.read(b)
			in.ahead <- portion{p, err}
			if err != nil {
				return
			}
		}
	}()
	return in
}

// read fills b, as far as there is something.
func (in *intake) read(b []byte) ([]byte, error) {
	if in.limit >= 0 {
		b = b[:min(in.limit, int64(len(b)))]
	}
	n, err := io.ReadFull(in.r, b)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	if in.limit >= 0 {
		if in.limit -= int64(n); in.limit == 0 && err == nil {
			err = io.EOF
		}
	}
	return b[:n], err
}

// next returns what comes next, valid until the call after. With an error, and io.EOF is one, there may still be bytes, and next is not to be called again.
func (in *intake) next() ([]byte, error) {
	if in.ahead == nil {
		return in.read(in.buf)
	}
	if in.buf != nil {
		in.free <- in.buf
	}
	x := <-in.ahead
	in.buf, in.ended = x.p[:cap(x.p)], x.err != nil
	return x.p, x.err
}

// stop ends what reads ahead.
func (in *intake) stop() {
	if in.ahead == nil {
		return
	}
	close(in.free)
	if !in.ended {
		in.abort()
	}
	for range in.ahead {
		continue
	}
}
