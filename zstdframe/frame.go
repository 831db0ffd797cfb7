package zstdframe

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Numbers of RFC 8878, sections 3.1.1, 3.1.1.2 and 3.1.2.
const (
	magicFrame      = 0xfd2fb528
	magicSkippable  = 0x184d2a50 // and the 15 above it
	magicDictionary = 0xec30a437

	// Magic numbers of the formats before 0.8, which the RFC does not have: 0.1, then 0.2 to 0.7.
	magicLegacyFirst = 0xfd2fb51e
	magicLegacyLow   = 0xfd2fb522
	magicLegacyHigh  = 0xfd2fb527

	maxBlock = 128 << 10

	blockRLE      = 1
	blockReserved = 3

	checksumLen    = 4
	blockHeaderLen = 3
)

// part is what the next step of the walk through a frame looks at.
type part int

const (
	partMagic part = iota
	partSkippable
	partDescriptor
	partHeader
	partBlock
	partEnd // nothing is left to look at: the frame is whole when its bytes are there
)

// A frame collects one frame. It looks at headers only, each of them once and as soon as it is whole: what it says, and when, does not depend on how the
// stream was cut. It takes no byte beyond the frame.
type frame struct {
	b    []byte // what came of the frame
	need int    // length of b at which the next part is whole
	part part

	room int64 // bytes of the image that are left
	skip int64 // bytes of skippable frames that are left

	content  int // Frame_Content_Size, 0 in a skippable frame
	block    int // Block_Maximum_Size
	limit    int // length that the frame cannot have more than
	checksum int // length of Content_Checksum
}

// begin makes ready for the next frame.
func (f *frame) begin(room, skip int64) {
	*f = frame{b: f.b[:0], need: 4, limit: 8 + MaxSkippable, room: room, skip: skip}
}

// feed takes bytes of p, up to the end of the frame at most, and tells how many, and whether the frame is whole.
func (f *frame) feed(p []byte) (n int, whole bool, err error) {
	for {
		k := min(f.need-len(f.b), len(p)-n)
		f.append(p[n : n+k])
		n += k
		switch {
		case len(f.b) < f.need:
			return n, false, nil
		case f.part == partEnd:
			return n, true, nil
		}
		if err := f.step(); err != nil {
			return n, false, err
		}
	}
}

// append grows the buffer by what has come, not by what a header promises, and never beyond the limit.
func (f *frame) append(p []byte) {
	if n := len(f.b) + len(p); n > cap(f.b) {
		f.b = append(make([]byte, 0, min(max(n, 2*cap(f.b)), f.limit)), f.b...)
	}
	f.b = append(f.b, p...)
}

// step looks at the part that has just become whole and says which is next.
func (f *frame) step() error {
	switch f.part {
	case partMagic:
		return f.magic(binary.LittleEndian.Uint32(f.b))
	case partSkippable:
		return f.skippable(binary.LittleEndian.Uint32(f.b[4:]))
	case partDescriptor:
		return f.descriptor(descriptor(f.b[4]))
	case partHeader:
		return f.header(descriptor(f.b[4]), f.b[5:])
	default:
		h := f.b[len(f.b)-blockHeaderLen:]
		return f.blockHeader(uint32(h[0]) | uint32(h[1])<<8 | uint32(h[2])<<16)
	}
}

func (f *frame) magic(m uint32) error {
	switch {
	case m == magicFrame:
		f.part, f.need = partDescriptor, 5
	case m&^15 == magicSkippable:
		f.part, f.need = partSkippable, 8
	case m == magicLegacyFirst, magicLegacyLow <= m && m <= magicLegacyHigh:
		return fmt.Errorf("legacy format, magic number %#x", m)
	case m == magicDictionary:
		return errors.New("dictionary where a frame should be")
	default:
		return fmt.Errorf("magic number %#x is not that of a frame", m)
	}
	return nil
}

func (f *frame) skippable(size uint32) error {
	if size > MaxSkippable {
		return fmt.Errorf("skippable frame of %d bytes, more than %d", size, MaxSkippable)
	}
	f.part, f.need = partEnd, 8+int(size)
	if int64(f.need) > f.skip {
		return fmt.Errorf("skippable frames of more than %d bytes in all", MaxSkipped)
	}
	return nil
}

// descriptor is a Frame_Header_Descriptor (section 3.1.1.1.1).
type descriptor byte

func (d descriptor) singleSegment() bool { return d&(1<<5) != 0 }
func (d descriptor) unusedBit() bool     { return d&(1<<4) != 0 }
func (d descriptor) reservedBit() bool   { return d&(1<<3) != 0 }
func (d descriptor) checksum() bool      { return d&(1<<2) != 0 }
func (d descriptor) dictionary() bool    { return d&3 != 0 }

// contentSizeLen is FCS_Field_Size.
func (d descriptor) contentSizeLen() int {
	if flag := d >> 6; flag != 0 {
		return 1 << flag
	}
	if d.singleSegment() {
		return 1
	}
	return 0
}

func (f *frame) descriptor(d descriptor) error {
	switch {
	case d.unusedBit():
		return errors.New("unused bit is set")
	case d.reservedBit():
		return errors.New("reserved bit is set")
	case d.dictionary():
		return errors.New("needs a dictionary")
	case d.contentSizeLen() == 0:
		return errors.New("does not state the size of its content")
	}
	if d.checksum() {
		f.checksum = checksumLen
	}
	f.part = partHeader
	f.need += d.contentSizeLen()
	if !d.singleSegment() {
		f.need++
	}
	return nil
}

// header reads what follows the descriptor: Window_Descriptor, where there is one, and Frame_Content_Size (sections 3.1.1.1.2 and 3.1.1.1.4).
func (f *frame) header(d descriptor, b []byte) error {
	window := uint64(MaxContent)
	if !d.singleSegment() {
		base := uint64(1) << (10 + b[0]>>3)
		window = base + base/8*uint64(b[0]&7)
		b = b[1:]
	}
	content := contentSize(b)
	if d.singleSegment() {
		window = content
	}
	switch {
	case content == 0:
		return errors.New("has no content")
	case content > MaxContent:
		return fmt.Errorf("content of %d bytes, more than %d", content, MaxContent)
	case window > MaxContent:
		return fmt.Errorf("window of %d bytes, more than %d", window, MaxContent)
	case int64(content) > f.room:
		return fmt.Errorf("content of %d bytes, where the image has %d left", content, f.room)
	}
	f.content = int(content)
	f.block = int(min(window, maxBlock))
	f.limit = f.content + f.content/256 + frameOverhead
	f.part = partBlock
	f.need += blockHeaderLen
	return nil
}

func contentSize(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b)) + 256
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

// blockHeader reads a Block_Header (section 3.1.1.2).
func (f *frame) blockHeader(h uint32) error {
	last, kind, size := h&1 != 0, h>>1&3, int(h>>3)
	switch {
	case kind == blockReserved:
		return errors.New("block of the reserved type")
	case size > f.block:
		return fmt.Errorf("block of %d bytes, more than %d", size, f.block)
	case kind == blockRLE:
		size = 1
	}
	f.need += size
	if last {
		f.part = partEnd
		f.need += f.checksum
	} else {
		f.need += blockHeaderLen
	}
	if f.need > f.limit {
		return fmt.Errorf("longer than %d bytes for %d bytes of content", f.limit, f.content)
	}
	return nil
}
