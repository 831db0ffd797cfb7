package partition

import (
	"errors"
	"hash"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// buffers is how many stores there are at once: one that is filled, and others that are hashed and on their way to the medium.
const buffers = 3

// work is the memory and the goroutines of an image that is being written or read: none while it only is held.
type work struct {
	buffers [buffers]buffer
	current int // which is filled
	hash    worker
	store   worker
	old     ahead // what the medium has where the image goes on
	back    ahead // what is read back
	reads   chan *ahead
	runs    []span
}

type buffer struct {
	b              []byte
	hashed, stored int // jobs that have to be done before it is filled again
}

// begin makes sure that there is work.
func (m *image) begin() {
	if m.work != nil {
		return
	}
	n := int(min(int64(m.piece), m.size))
	w := &work{old: newAhead(n), back: newAhead(n), runs: make([]span, 0, n/blockSize)}
	w.buffers[0].b = fwu.Buffer(n)
	w.hash = newWorker(hashJob, true)
	p, ok := m.dev.(Parallel)
	parallel := ok && p.Parallel()
	w.store = newWorker(m.put, parallel)
	if parallel {
		w.reads = make(chan *ahead, 2)
		go func() {
			for a := range w.reads {
				a.done <- readFull(m.dev, m.name, a.buf[:a.n], a.off)
			}
		}()
	}
	copy(w.buf(), m.rest)
	m.work, m.rest = w, nil
}

// end gives the work up, but for the incomplete block in the buffer.
func (m *image) end() {
	w := m.work
	if w == nil {
		return
	}
	w.store.end()
	w.hash.end()
	w.old.drop()
	w.back.drop()
	if w.reads != nil {
		close(w.reads)
	}
	if m.n > 0 {
		m.rest = append([]byte(nil), w.buf()[:m.n]...)
	}
	m.work = nil
}

func (w *work) buf() []byte { return w.buffers[w.current].b }

// turn has the next buffer filled, once it is free, and returns the one that was.
func (w *work) turn() (*buffer, error) {
	last := &w.buffers[w.current]
	w.current = (w.current + 1) % buffers
	next := &w.buffers[w.current]
	if next.b == nil {
		next.b = fwu.Buffer(len(last.b))
	}
	return last, errors.Join(w.hash.reach(next.hashed), w.store.reach(next.stored))
}

// job is whole blocks at off that are hashed, or stored: those have zeroes from end on.
type job struct {
	p        []byte
	off, end int64
	ordered  bool // what is read back after it was hashed when it was stored
	h        hash.Hash
}

func hashJob(j job) error {
	j.h.Write(j.p)
	return nil
}

// worker does jobs in turn, and none after one that failed.
type worker struct {
	do         func(job) error
	in         chan job // nil: who gives a job does it
	done       chan error
	sent, seen int // jobs that went in, and that came out
	err        error
}

// newWorker returns a worker with a goroutine of its own, or without. If do knows nothing of the image that is all that is left of one that nobody closes.
func newWorker(do func(job) error, goroutine bool) worker {
	w := worker{do: do}
	if goroutine {
		w.in, w.done = make(chan job, buffers), make(chan error, buffers)
		go doAll(w.in, w.done, do)
	}
	return w
}

func doAll(in <-chan job, done chan<- error, do func(job) error) {
	var err error
	for j := range in {
		if err == nil {
			err = do(j)
		}
		done <- err
	}
}

// give has a job done. What it uses must not change before reach has returned for it.
func (w *worker) give(j job) {
	w.sent++
	switch {
	case w.in != nil:
		w.reach(w.sent - buffers)
		w.in <- j
	case w.err == nil:
		w.err = w.do(j)
		fallthrough
	default:
		w.seen++
	}
}

// reach returns when the first n jobs are done, with the first error that there was.
func (w *worker) reach(n int) error {
	for ; w.seen < n; w.seen++ {
		if err := <-w.done; w.err == nil {
			w.err = err
		}
	}
	return w.err
}

// wait returns when all jobs are done.
func (w *worker) wait() error { return w.reach(w.sent) }

// end ends the goroutine.
func (w *worker) end() {
	_ = w.wait() // who gives up asks no more
	if w.in != nil {
		close(w.in)
	}
}

// ahead is a read that is made before it is wanted.
type ahead struct {
	buf  []byte
	off  int64
	n    int // 0: there is none
	done chan error
}

func newAhead(n int) ahead { return ahead{buf: fwu.Buffer(n), done: make(chan error, 1)} }

// read begins a read of n bytes at off: beside what else is done with the medium, if it is one that takes that.
func (m *image) read(a *ahead, off int64, n int) {
	a.drop()
	a.off, a.n = off, n
	if m.work.reads != nil {
		m.work.reads <- a
		return
	}
	a.done <- readFull(m.dev, m.name, a.buf[:n], off)
}

// wait returns what was read. It is valid until the next read.
func (a *ahead) wait() ([]byte, error) {
	err := <-a.done
	b := a.buf[:a.n]
	a.n = 0
	return b, err
}

// drop forgets a read.
func (a *ahead) drop() {
	if a.n > 0 {
		_, _ = a.wait()
	}
}
