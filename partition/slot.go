package partition

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/fwu-ab/fwu-ab/fwu"
)

var (
	_ fwu.Slot    = (*Slot)(nil)
	_ fwu.Metered = (*Slot)(nil)
	_ fwu.Image   = (*image)(nil)
	_ fwu.Holder  = (*image)(nil)
	_ fwu.Source  = (*source)(nil)
)

// Slot is one location of a component's image. It is safe for concurrent use, as far as its Opener is.
type Slot struct {
	info   fwu.SlotInfo
	open   Opener
	frozen func() error
	used   func() error

	writable func() error

	options  Options
	distrust atomic.Bool // an image of it failed
	meter    fwu.Meter
}

// Options are what a user may want of a slot.
type Options struct {
	Discard    bool // Erase discards the whole slot, and does not keep what the next image could have in common with it
	NoReadBack bool // what was written is flushed, and not read back
	// Piece is how many bytes of an image are stored at once: a multiple of 4096, or 0, which means
	// 512 KiB.
	Piece int
}

// NewSlot makes a slot of anything that open opens. frozen answers Source.Frozen; nil means that nobody else can change the medium.
func NewSlot(info fwu.SlotInfo, open Opener, frozen func() error) *Slot {
	return &Slot{info: info, open: open, frozen: frozen}
}

// Set sets the options, before the slot is used.
func (s *Slot) Set(o Options) { s.options = o }

// Info identifies the slot.
func (s *Slot) Info() fwu.SlotInfo { return s.info }

// Meter counts the errors of the slot's medium.
func (s *Slot) Meter() *fwu.Meter { return &s.meter }

// InUse tells what the kernel knows of others that use the slot, an error that wraps fwu.ErrSlotBusy, without opening it. It does not see who has it open just now.
func (s *Slot) InUse() error {
	if s.used == nil {
		return nil
	}
	return s.used()
}

// Writable returns an error that wraps fwu.ErrReadOnly if the kernel refuses writes to the slot,
// without opening it.
func (s *Slot) Writable() error {
	if s.writable == nil {
		return nil
	}
	return s.writable()
}

// Open takes the slot exclusively, to be written. It fails with fwu.ErrSlotBusy if somebody else uses it in any way.
func (s *Slot) Open(ctx context.Context) (fwu.Image, error) {
	dev, size, err := s.device(ctx, Exclusive)
	if err != nil {
		return nil, err
	}
	m := newImage(dev, size, s.options)
	m.shared.distrust = &s.distrust
	return m, nil
}

// Source opens the slot to copy the image that it holds, unsealed, from it. The slot may be mounted: see Frozen.
func (s *Slot) Source(ctx context.Context) (fwu.Source, error) {
	dev, size, err := s.device(ctx, ReadOnly)
	if err != nil {
		return nil, err
	}
	return &source{dev: dev, size: size, frozen: s.frozen}, nil
}

// device opens the medium, and returns its size as far as it consists of whole blocks.
func (s *Slot) device(ctx context.Context, mode Mode) (metered, int64, error) {
	dev, err := s.open(ctx, mode)
	if err != nil {
		return metered{}, 0, fmt.Errorf("open slot %s: %w", s.info.Path, err)
	}
	size := roundDown(dev.Size())
	if size < blockSize {
		dev.Close()
		return metered{}, 0, fmt.Errorf("open slot %s: it has %d bytes, too few to hold anything", s.info.Path, dev.Size())
	}
	s.meter.Begin()
	return metered{dev, s.info.Path, &s.meter}, size, nil
}

type source struct {
	dev    metered
	size   int64
	frozen func() error

	mu  sync.Mutex
	buf []byte // nil until it is needed
}

// ReadAt reads p, if it is aligned in memory and in the slot, else through a buffer that is. It
// returns fewer bytes than p has together with an error, and only then. It is safe for concurrent
// use.
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s at %d: negative offset", s.dev.name, off)
	}
	done := 0
	for done < len(p) {
		pos := off + int64(done)
		if pos >= s.size {
			return done, io.EOF
		}
		n, err := s.readSome(p[done:], pos)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (s *source) readSome(p []byte, pos int64) (int, error) {
	if n := min(roundDown(int64(len(p))), s.size-pos, bufferSize); n > 0 && pos%blockSize == 0 && isAligned(p) {
		if err := s.dev.readFull(p[:n], pos); err != nil {
			return 0, err
		}
		return int(n), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buf == nil {
		s.buf = fwu.Buffer(bufferSize)
	}
	start := roundDown(pos)
	want := min(roundUp(pos+int64(len(p)))-start, s.size-start, int64(len(s.buf)))
	if err := s.dev.readFull(s.buf[:want], start); err != nil {
		return 0, err
	}
	return copy(p, s.buf[pos-start:want]), nil
}

// Frozen returns nil while nobody can change the slot.
func (s *source) Frozen() error {
	if s.frozen == nil {
		return nil
	}
	return s.frozen()
}

// Close gives the medium up.
func (s *source) Close() error { return s.dev.Close() }
