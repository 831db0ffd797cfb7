package partition

// reader reads from a medium before the bytes are wanted: beside other accesses, if the medium
// takes that.
type reader struct {
	dev metered
	in  chan *ahead // nil: who begins a read makes it
}

func newReader(dev metered) *reader {
	r := &reader{dev: dev}
	if isParallel(dev.Device) {
		r.in = make(chan *ahead, 2)
		go readAll(dev, r.in)
	}
	return r
}

func readAll(dev metered, in <-chan *ahead) {
	for a := range in {
		a.done <- dev.readFull(a.buf[:a.n], a.off)
	}
}

// end ends the goroutine. No read may be under way.
func (r *reader) end() {
	if r.in != nil {
		close(r.in)
	}
}

func isParallel(dev Device) bool {
	p, ok := dev.(Parallel)
	return ok && p.Parallel()
}

// ahead is a read that is under way, or whose bytes nobody asked for yet. It belongs to the reader
// until wait has returned.
type ahead struct {
	buf  []byte
	off  int64
	n    int // 0: there is none
	done chan error
}

func newAhead(buf []byte) *ahead { return &ahead{buf: buf, done: make(chan error, 1)} }

// begin begins a read of n bytes at off. It forgets the one before.
func (r *reader) begin(a *ahead, off int64, n int) {
	a.drop()
	a.off, a.n = off, n
	if r.in != nil {
		r.in <- a
		return
	}
	a.done <- r.dev.readFull(a.buf[:n], off)
}

// wait returns the bytes. They are valid until the next read begins.
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
