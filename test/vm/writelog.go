package vm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// The log that QEMU's driver blklogwrites keeps, in the format of dm-log-writes (Linux, Documentation/admin-guide/device-mapper/log-writes.rst, drivers/md/dm-log-writes.c): sectors of
// 512 bytes; the first has magic, version, number of entries and sector size; each entry is a sector with place, length and flags, and the data.
const (
	logMagic   = 0x6a736677736872
	logSector  = 512
	logFlush   = 1
	logFUA     = 2
	logDiscard = 4
)

// logged is a write, a discard or a flush.
type logged struct {
	at    int64 // of the data on the disk, in bytes
	size  int64
	flags uint64
	data  int64 // where it is in the log
}

// flush tells whether what was written before is on the medium once it is done.
func (l logged) flush() bool { return l.flags&logFlush != 0 }

// readLog reads the entries that a log has room for: a log that is being written ends in the middle of one.
func readLog(path string) ([]logged, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var head [32]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	le := binary.LittleEndian
	if le.Uint64(head[:]) != logMagic || le.Uint32(head[24:]) != logSector {
		return nil, fmt.Errorf("%s is not a log of writes with sectors of %d bytes", path, logSector)
	}
	var all []logged
	for at, n := int64(logSector), le.Uint64(head[16:]); n > 0; n-- {
		if _, err := f.ReadAt(head[:], at); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		l := logged{at: int64(le.Uint64(head[:])) * logSector, size: int64(le.Uint64(head[8:])) * logSector, flags: le.Uint64(head[16:]), data: at + logSector}
		at += logSector
		if l.flags&logDiscard == 0 {
			at += l.size
		}
		if at > info.Size() {
			return nil, fmt.Errorf("%s is cut off", path)
		}
		all = append(all, l)
	}
	return all, nil
}

// logEntries is the number of entries of a log that QEMU is writing.
func logEntries(f *os.File) (int, error) {
	var b [8]byte
	if _, err := f.ReadAt(b[:], 16); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return int(binary.LittleEndian.Uint64(b[:])), nil
}

// replay does to a disk what a log says, for those entries of which keep says so.
func replay(disk, log string, entries []logged, keep func(i int) bool) (err error) {
	from, err := os.Open(log)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	for i, e := range entries {
		if e.size == 0 || !keep(i) {
			continue
		}
		var data io.Reader = io.NewSectionReader(from, e.data, e.size)
		if e.flags&logDiscard != 0 {
			data = io.LimitReader(zeroes{}, e.size)
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, e.at), bufio.NewReader(data)); err != nil {
			return err
		}
	}
	return nil
}
