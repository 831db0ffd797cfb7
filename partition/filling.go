package partition

import (
	"unsafe"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// buffers is how many pieces there are at once: one that is filled, and others that are hashed and
// stored.
const buffers = 3

// filling is the piece of an image that is filled now, and the memory of all pieces. It belongs to
// the caller of the image.
type filling struct {
	piece   int // between two multiples of it lies what is stored at once
	size    int // of the memory of a piece: less, if the slot is smaller
	buffers [buffers]buffer
	current int
	rest    []byte // the incomplete block, while there is no memory

	// buf()[:n] belongs at off, a multiple of blockSize. The medium has buf()[:clean] already: the
	// beginning of an incomplete block.
	off      int64
	n, clean int
}

type buffer struct {
	b              []byte
	hashed, stored int // how much has to be done before it is filled again
}

// end is the offset at which the image goes on.
func (f *filling) end() int64 { return f.off + int64(f.n) }

// buf is the memory of the piece that is filled.
func (f *filling) buf() []byte {
	b := &f.buffers[f.current]
	if b.b == nil {
		b.b = fwu.Buffer(f.size)
		copy(b.b, f.rest)
		f.rest = nil
	}
	return b.b
}

// limit is how much of the memory is filled before it is stored.
func (f *filling) limit() int { return min(f.piece-int(f.off%int64(f.piece)), f.size) }

// space returns the memory of the bytes that belong at off, nil if the image does not go on there.
func (f *filling) space(off int64) []byte {
	if off != f.end() {
		return nil
	}
	limit := f.limit()
	return f.buf()[f.n:limit:limit]
}

// owns tells whether p lies in the memory of a piece, and continues whether it is the memory that
// space returns for off.
func (f *filling) owns(p []byte, off int64) (owns, continues bool) {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	for i := range f.buffers {
		b := f.buffers[i].b
		first := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
		if len(b) == 0 || at < first || at >= first+uintptr(len(b)) {
			continue
		}
		return true, i == f.current && off == f.end() && at == first+uintptr(f.n) && len(p) <= f.limit()-f.n
	}
	return false, false
}

// move goes on elsewhere.
func (f *filling) move(off int64) { f.off, f.n, f.clean, f.rest = off, 0, 0, nil }

// turn returns the piece that was filled, whole blocks, and has the next one filled. That begins
// with the last block, if it is incomplete. free waits until a buffer can be filled again.
func (f *filling) turn(free func(*buffer) error) (b *buffer, p []byte, err error) {
	b = &f.buffers[f.current]
	p = f.buf()[:roundUp(int64(f.n))]
	clear(p[f.n:])
	next := (f.current + 1) % buffers
	if err := free(&f.buffers[next]); err != nil {
		return nil, nil, err
	}
	tail := f.n % blockSize
	f.current = next
	copy(f.buf(), p[f.n-tail:f.n])
	f.off, f.n, f.clean = f.off+int64(f.n-tail), tail, tail
	return b, p, nil
}

// release gives the memory up, but for the incomplete block.
func (f *filling) release() {
	if b := f.buffers[f.current].b; b != nil {
		f.rest = append([]byte(nil), b[:f.n]...)
	}
	f.buffers, f.current = [buffers]buffer{}, 0
}
