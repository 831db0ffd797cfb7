package partition

import (
	"hash"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// work is the memory and the goroutines of an image that is being written or read: none while it only is held.
type work struct {
	buf, other []byte
	until      int // what the hasher has to have done before other is filled again
	hash       hasher
	old        ahead // what the medium has where the image goes on
	back       ahead // what is read back
	reads      chan *ahead
	runs       []span
}

// begin makes sure that there is work.
func (m *image) begin() {
	if m.work != nil {
		return
	}
	n := int(min(bufferSize, m.size))
	w := &work{buf: fwu.Buffer(n), other: fwu.Buffer(n), hash: newHasher(), old: newAhead(n), back: newAhead(n), runs: make([]span, 0, bufferSize/blockSize)}
	go hashAll(w.hash.in, w.hash.done)
	if p, ok := m.dev.(Parallel); ok && p.Parallel() {
		w.reads = make(chan *ahead, 2)
		go func() {
			for a := range w.reads {
				a.done <- readFull(m.dev, m.name, a.buf[:a.n], a.off)
			}
		}()
	}
	copy(w.buf, m.rest)
	m.work, m.rest = w, nil
}

// end gives the work up, but for the incomplete block in the buffer.
func (m *image) end() {
	w := m.work
	if w == nil {
		return
	}
	w.old.drop()
	w.back.drop()
	if w.reads != nil {
		close(w.reads)
	}
	w.hash.wait()
	close(w.hash.in)
	if m.n > 0 {
		m.rest = append([]byte(nil), w.buf[:m.n]...)
	}
	m.work = nil
}

// swap has the other buffer filled next, once it is hashed.
func (w *work) swap() {
	w.hash.reach(w.until)
	w.buf, w.other, w.until = w.other, w.buf, w.hash.sent
}

// hasher hashes in a goroutine of its own.
type hasher struct {
	in         chan portion
	done       chan struct{}
	sent, seen int // portions that went in, and that came out
}

type portion struct {
	h hash.Hash
	p []byte
}

// queue is how many portions may wait to be hashed.
const queue = 2

func newHasher() hasher {
	return hasher{in: make(chan portion, queue), done: make(chan struct{}, queue)}
}

func hashAll(in <-chan portion, done chan<- struct{}) {
	for x := range in {
		x.h.Write(x.p)
		done <- struct{}{}
	}
}

// small is what is hashed at once: to hand it over would take longer.
const small = 16 << 10

// write hashes p, which must not change before it is done.
func (w *hasher) write(h hash.Hash, p []byte) {
	if len(p) <= small {
		w.wait()
		h.Write(p)
		return
	}
	w.reach(w.sent + 1 - queue)
	w.sent++
	w.in <- portion{h, p}
}

// wait returns when everything is hashed.
func (w *hasher) wait() { w.reach(w.sent) }

// reach returns when the first n portions are hashed.
func (w *hasher) reach(n int) {
	for ; w.seen < n; w.seen++ {
		<-w.done
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
