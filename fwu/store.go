package fwu

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The store is a medium of StoreSize bytes or more, preallocated, with two copies of the record that are overwritten in place in turn:
//
//	copy 0 at 0, copy 1 at 131072; each
//	  0  8   magic "FWUABREC"
//	  8  2   format version, major; a reader that does not know it touches nothing
//	 10  2   format version, minor; grows with fields that an older reader keeps and ignores
//	 12  4   length of the record in bytes
//	 16  8   generation; the valid copy with the higher one counts
//	 24 32   SHA-256 of bytes 0 to 23 and of the record
//	 56  8   zero
//	 64      the record: JSON, then zeroes up to a multiple of 4096
//
// Integers are little endian. A commit is one write to the copy that does not count, one flush, and a read-back; cut anywhere, the other copy still counts.
const (
	storeMagic      = "FWUABREC"
	storeMajor      = 1
	storeMinor      = 0
	storeCopySize   = 128 << 10
	storeHeaderSize = 64
	storeBlock      = 4096 // every access to the medium is a multiple of it
	// StoreSize is the least size of a store, in bytes.
	StoreSize = 2 * storeCopySize
)

// Medium is what a store lies on. Offsets and lengths are multiples of 4096. Implementation: package partition.
type Medium interface {
	// ReadAt is read with ReadFull: nothing of p counts if it returns an error.
	io.ReaderAt
	io.WriterAt
	// Sync returns when everything written is durable. After an error nothing since the last good Sync counts.
	Sync() error
	Size() int64
}

var (
	errNoRecord         = constError("no record")
	errRecordLost       = constError("both copies of the record are damaged")
	errRecordVersion    = constError("record of an unknown format version")
	errRecordUnreadable = constError("a copy of the record cannot be read, and it may be the newer one")
)

// Store keeps the record. Not safe for concurrent use.
type Store struct {
	medium     Medium
	generation uint64 // highest that was ever read or tried
	newest     int    // copy that counts, -1 if none
	good       [2]bool
	meters     [2]Meter // of the copies
}

// OpenStore takes a medium for a store. Nothing is read yet.
func OpenStore(m Medium) (*Store, error) {
	if m.Size() < StoreSize {
		return nil, fmt.Errorf("store of %d bytes: %d are needed", m.Size(), StoreSize)
	}
	return &Store{medium: m, newest: -1}, nil
}

type storeCopy struct {
	major, minor uint16
	generation   uint64
	payload      []byte
}

// A copy that holds no record is one of three. They are never taken for each other: a copy that is
// blank or damaged was read, and lost nothing that counts; one that is unreadable may hold the
// newest record.
var (
	errBlank      = constError("never written")
	errDamaged    = constError("damaged")
	errUnreadable = constError("unreadable")
)

// readCopy returns copy i, or an error that wraps errBlank, errDamaged or errUnreadable. It reads
// no more than the record, so that an unreadable block behind it does no harm. Of an unreadable
// copy it returns the generation, if at least the header was read, else 0.
func (s *Store) readCopy(i int) (storeCopy, error) {
	buf := make([]byte, storeCopySize)
	if err := s.readTwice(buf[:storeBlock], i, 0); err != nil {
		return storeCopy{}, fmt.Errorf("copy %d of the record is %w: %w", i, errUnreadable, err)
	}
	c, size, err := parseHeader(buf)
	if err != nil { // there is no record in it, whatever follows
		if err := s.readTwice(buf[storeBlock:], i, storeBlock); err == nil && (blank(buf, 0x00) || blank(buf, 0xff)) {
			return storeCopy{}, fmt.Errorf("copy %d of the record: %w", i, errBlank)
		}
		return storeCopy{}, fmt.Errorf("copy %d of the record is %w: %w", i, errDamaged, err)
	}
	end := wholeBlocks(storeHeaderSize + size)
	if err := s.readTwice(buf[storeBlock:end], i, storeBlock); err != nil {
		return storeCopy{generation: c.generation}, fmt.Errorf("copy %d of the record is %w: %w", i, errUnreadable, err)
	}
	c.payload = buf[storeHeaderSize : storeHeaderSize+size]
	if sum := copySum(buf[:24], c.payload); !bytes.Equal(sum[:], buf[24:56]) {
		return storeCopy{}, fmt.Errorf("copy %d of the record is %w: its checksum does not match", i, errDamaged)
	}
	return c, nil
}

// readTwice reads at off of copy i, and once more after an error.
func (s *Store) readTwice(buf []byte, i int, off int64) error {
	err := s.read(buf, i, off)
	if err != nil {
		s.meters[i].Retry()
		err = s.read(buf, i, off)
	}
	return err
}

// read fills buf from off of copy i.
func (s *Store) read(buf []byte, i int, off int64) error {
	if len(buf) == 0 {
		return nil
	}
	off += int64(i) * storeCopySize
	err := ReadFull(s.medium, buf, off)
	if err != nil {
		s.meters[i].Read(fmt.Errorf("read the store at %d: %w", off, err))
	}
	return err
}

// parseHeader reads the header of a copy, and how many bytes its record has.
func parseHeader(buf []byte) (c storeCopy, size int, err error) {
	if string(buf[:8]) != storeMagic {
		return c, 0, errors.New("it does not begin like a record")
	}
	le := binary.LittleEndian
	c = storeCopy{major: le.Uint16(buf[8:]), minor: le.Uint16(buf[10:]), generation: le.Uint64(buf[16:])}
	n := le.Uint32(buf[12:])
	if n > storeCopySize-storeHeaderSize {
		return c, 0, fmt.Errorf("it claims a record of %d bytes", n)
	}
	return c, int(n), nil
}

// wholeBlocks rounds n up to the blocks that a medium is read and written by.
func wholeBlocks(n int) int { return (n + storeBlock - 1) &^ (storeBlock - 1) }

func blank(buf []byte, b byte) bool {
	for _, c := range buf {
		if c != b {
			return false
		}
	}
	return true
}

func copySum(header, payload []byte) [32]byte {
	h := sha256.New()
	h.Write(header)
	h.Write(payload)
	return [32]byte(h.Sum(nil))
}

// load returns the record that counts: errNoRecord if the store was never written, errRecordLost if
// it was and nothing is left, errRecordVersion if a version of the service wrote it that is too new
// to be understood, errRecordUnreadable if a copy cannot be read that may be the newest one. After
// that error nothing may be saved.
func (s *Store) load() (*record, error) {
	c, unreadable, err := s.readCopies()
	if unreadable != nil {
		return nil, fmt.Errorf("%w (%w)", errRecordUnreadable, unreadable)
	}
	if err != nil {
		return nil, err
	}
	return decodeCopy(c)
}

// salvage returns the newest record that can be read, and takes a copy that cannot be read for
// lost: the next save overwrites it. stale tells that this copy may have held a newer record. Where
// load would succeed, it is the same.
func (s *Store) salvage() (r *record, stale bool, err error) {
	c, unreadable, err := s.readCopies()
	if unreadable != nil {
		stale = true
		s.generation++ // that of the unreadable copy may be the next one
	}
	if err == nil {
		r, err = decodeCopy(c)
	}
	return r, stale, err
}

// readCopies reads both copies and returns the one that counts. unreadable is the error of a copy
// that cannot be read and is not proved to be the older one: the good copy is newer than the
// generation in its header, which lies in one sector and so is whole. err says why no copy counts.
func (s *Store) readCopies() (c storeCopy, unreadable, err error) {
	var copies [2]storeCopy
	var errs [2]error
	s.newest = -1
	for i := range copies {
		s.meters[i].Begin()
		copies[i], errs[i] = s.readCopy(i)
		s.good[i] = errs[i] == nil
		s.generation = max(s.generation, copies[i].generation)
		if s.good[i] && (s.newest < 0 || copies[i].generation > copies[s.newest].generation) {
			s.newest = i
		}
	}
	for i, err := range errs {
		older := s.newest >= 0 && copies[i].generation > 0 && copies[i].generation < copies[s.newest].generation
		switch {
		case !errors.Is(err, errUnreadable) || older:
		case unreadable == nil:
			unreadable = err
		default:
			unreadable = fmt.Errorf("%w; %w", unreadable, err)
		}
	}
	switch {
	case s.newest >= 0:
		return copies[s.newest], unreadable, nil
	case errors.Is(errs[0], errBlank) && errors.Is(errs[1], errBlank):
		return storeCopy{}, unreadable, errNoRecord
	}
	return storeCopy{}, unreadable, fmt.Errorf("%w (%w; %w)", errRecordLost, errs[0], errs[1])
}

func decodeCopy(c storeCopy) (*record, error) {
	if c.major != storeMajor {
		return nil, fmt.Errorf("%w: %d.%d", errRecordVersion, c.major, c.minor)
	}
	r := &record{minor: c.minor}
	if err := json.Unmarshal(c.payload, r); err != nil {
		return nil, fmt.Errorf("%w (%w)", errRecordLost, err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%w (%w)", errRecordLost, err)
	}
	return r, nil
}

// repaired tells that both copies are good; if not, save brings the other one back.
func (s *Store) repaired() bool { return s.newest >= 0 && s.good[1-s.newest] }

// save makes r the record that counts. On an error the one before it counts, or r, nothing else; the next save goes to the same copy again.
func (s *Store) save(r *record) error {
	if err := r.check(); err != nil { // what could not be read again is never written
		return fmt.Errorf("record: %w", err)
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the record: %w", err)
	}
	if len(payload) > storeCopySize-storeHeaderSize {
		return &Error{Status: InsufficientStorage, Reason: ReasonRecordTooLarge, Text: fmt.Sprintf("record of %d bytes: %d is the most", len(payload), storeCopySize-storeHeaderSize)}
	}
	s.generation++
	buf := encodeCopy(storeCopy{storeMajor, r.minor, s.generation, payload})
	target := 0
	if s.newest >= 0 {
		target = 1 - s.newest
	}
	if err := s.writeCopy(target, buf); err != nil {
		s.good[target] = false
		return &Error{Status: StorageFailure, Reason: ReasonMedium, Text: fmt.Sprintf("write copy %d of the record", target), Err: err}
	}
	s.newest, s.good[target] = target, true
	return nil
}

func encodeCopy(c storeCopy) []byte {
	buf := make([]byte, wholeBlocks(storeHeaderSize+len(c.payload)))
	copy(buf, storeMagic)
	le := binary.LittleEndian
	le.PutUint16(buf[8:], c.major)
	le.PutUint16(buf[10:], c.minor)
	le.PutUint32(buf[12:], uint32(len(c.payload)))
	le.PutUint64(buf[16:], c.generation)
	sum := copySum(buf[:24], c.payload)
	copy(buf[24:], sum[:])
	copy(buf[storeHeaderSize:], c.payload)
	return buf
}

func (s *Store) writeCopy(i int, buf []byte) error {
	off := int64(i) * storeCopySize
	s.meters[i].Begin()
	if _, err := s.medium.WriteAt(buf, off); err != nil {
		s.meters[i].Write(fmt.Errorf("write the store at %d: %w", off, err))
		return err
	}
	if err := s.medium.Sync(); err != nil {
		s.meters[i].Flush(fmt.Errorf("flush the store: %w", err))
		return err
	}
	back := make([]byte, len(buf))
	if err := s.read(back, i, 0); err != nil {
		return err
	}
	if !bytes.Equal(back, buf) {
		s.meters[i].Read(fmt.Errorf("read the store back at %d: %w", off, ErrReadBack))
		return ErrReadBack
	}
	return nil
}
