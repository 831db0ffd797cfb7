package partition

import (
	"context"
	"io"
	"unsafe"

	"github.com/fwu-ab/fwu-ab/fwu"
)

const (
	// blockSize is what every access to a Device is a multiple of: offset, length and address. No medium wants more of O_DIRECT.
	blockSize = fwu.WriteAlignment
	// bufferSize is how much is read or written at once, if nothing smaller is asked for.
	bufferSize = 512 << 10
)

// Device is a raw medium of fixed size.
//
// An Image accesses it in multiples of 4096 bytes, from memory with that alignment. A write is durable, and may be relied upon, after
// the Sync that follows it returned nil, and not if it returned an error, whatever a later Sync returns. ReadAt reads the medium, not a cache of what was written, as far as the system allows.
//
// ReadAt returns fewer bytes than were asked for together with an error, and only then; at the end
// of the medium io.EOF may come with all of them. Every caller reads with fwu.ReadFull, which uses
// nothing of a read that failed. Any error counts: a block that a disk cannot read is EIO on one
// driver and ENODATA on another.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Size() int64
	Close() error
}

// Parallel is a Device that can be read while it is written, from another goroutine, elsewhere. Any other is accessed by one goroutine, in an order that depends on nothing but the calls.
type Parallel interface {
	Parallel() bool
}

// Holder is a Device that tells whether the kernel keeps everybody else away while it is open in
// Exclusive mode. Any other is taken for one that does.
type Holder interface {
	Exclusive() bool
}

// Zeroer is a Device that can be told to have zeroes in a range. It must then return zeroes, whatever it has on the medium; an error means that it did nothing.
type Zeroer interface {
	WriteZeroes(off, n int64) error
}

// Discarder is a Device that can be told that a range is no longer needed. What is read there afterwards is not defined.
type Discarder interface {
	Discard(off, n int64) error
}

// Mode says what a Device is opened for.
type Mode uint8

// The modes.
const (
	// Exclusive is to read and write, while nobody else uses the medium in any way.
	Exclusive Mode = iota
	// ReadOnly is to read, whoever else uses the medium.
	ReadOnly
)

// Opener opens a medium. It fails with an error that wraps fwu.ErrSlotBusy if mode is Exclusive and somebody else uses it.
type Opener func(ctx context.Context, mode Mode) (Device, error)

func isAligned(b []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%blockSize == 0
}

func roundDown(n int64) int64 { return n &^ (blockSize - 1) }

func roundUp(n int64) int64 { return roundDown(n + blockSize - 1) }
