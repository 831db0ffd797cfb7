package partition

import (
	"hash/maphash"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// storing is the other side of a storer: messages go in, and their replies come out in the same
// order. After an error nothing is done any more, and each reply is that error.
type storing struct {
	in         chan message // nil: the storer has no goroutine, as the medium takes one access after the other
	out        chan reply
	here       *storer // without a goroutine
	sent, seen int
	err        error
	memory     *memory // of the storer, who has it until end returns it
}

// memory is two pieces into which the medium is read.
type memory [2][]byte

func newMemory(n int) *memory { return &memory{fwu.Buffer(n), fwu.Buffer(n)} }

// request is a message to a storer.
type request uint8

const (
	store       request = iota // bring the piece to the medium
	toFlush                    // make everything durable
	nextBack                   // read back the next extent
	isPending                  // whether something is not durable or not read back
	isColliding                // whether the piece has to wait until everything is read back
)

type message struct {
	request
	piece
}

// reply answers a message.
type reply struct {
	err    error
	yes    bool
	extent extent
	b      []byte // the bytes that were read back: the caller's until the next message
	odd    int64  // end of the last incomplete block that was read back
}

// newStoring makes a storer for an image that is being written.
func (m *image) newStoring(mem *memory) *storing {
	s := &storer{dev: m.dev, size: m.size, piece: m.fill.piece, options: m.options, shared: &m.shared, seed: maphash.MakeSeed(),
		reader: newReader(m.dev), old: newAhead(mem[0]), back: newAhead(mem[1]), runs: make([]span, 0, m.fill.size/blockSize)}
	st := &storing{memory: mem}
	if !isParallel(m.dev.Device) {
		st.here = s
		return st
	}
	st.in, st.out = make(chan message, buffers), make(chan reply, buffers)
	go s.run(st.in, st.out)
	return st
}

func (s *storer) run(in <-chan message, out chan<- reply) {
	defer close(out)
	defer s.end()
	var failed error
	for m := range in {
		r := reply{err: failed}
		if failed == nil {
			r = s.do(m)
			failed = r.err
		}
		out <- r
	}
}

func (s *storer) do(m message) (r reply) {
	switch m.request {
	case store:
		r.err = s.store(m.piece)
	case toFlush:
		r.err = s.flush()
	case nextBack:
		r.extent, r.b, r.err = s.next()
	case isPending:
		r.yes = s.pending()
	case isColliding:
		r.yes = s.collides(m.off, m.end)
	}
	r.odd = s.odd
	return r
}

// give sends a message whose reply nobody waits for. The bytes of its piece belong to the storer
// until reach has returned for it.
func (s *storing) give(m message) {
	if s.in != nil {
		_ = s.reach(s.sent + 1 - buffers) // an error is returned to whoever asks next
		s.sent++
		s.in <- m
		return
	}
	s.sent, s.seen = s.sent+1, s.seen+1
	if s.err == nil {
		s.err = s.here.do(m).err
	}
}

// reach returns when the first n messages are done, with the first error that there was.
func (s *storing) reach(n int) error {
	for s.seen < n {
		s.receive()
	}
	return s.err
}

func (s *storing) receive() reply {
	r := <-s.out
	s.seen++
	if s.err == nil {
		s.err = r.err
	}
	return r
}

// ask sends a message and returns its reply, when everything that was sent before is done.
func (s *storing) ask(m message) reply {
	if err := s.reach(s.sent); err != nil {
		return reply{err: err}
	}
	s.sent++
	if s.in != nil {
		s.in <- m
		return s.receive()
	}
	s.seen++
	r := s.here.do(m)
	s.err = r.err
	return r
}

// end ends the storer, and returns its memory.
func (s *storing) end() *memory {
	_ = s.reach(s.sent) // who gives up asks no more
	if s.in == nil {
		s.here.end()
		return s.memory
	}
	close(s.in)
	for range s.out {
	}
	return s.memory
}
