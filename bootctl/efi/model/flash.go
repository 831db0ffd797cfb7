package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
)

// Medium is what the firmware keeps its variables on.
type Medium interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Flash keeps variables on a medium as firmware does that promises what the specification asks for: a change of a variable that is cut leaves the old or the new one.
// All variables are in each of two copies of Size bytes, which are written in turn: CRC-32 of the rest, generation, length, and the variables by name. It remembers nothing.
type Flash struct {
	Medium Medium
	Size   int64
}

var _ efi.Variables = Flash{}

const flashHeader = 4 + 8 + 4

type content map[string]efi.Variable

// load returns what the newest copy has, and which one that is. Without a valid one there are no variables.
func (f Flash) load() (vars content, generation uint64, copy int64, err error) {
	b := make([]byte, 2*f.Size)
	if n, err := f.Medium.ReadAt(b, 0); n < len(b) {
		return nil, 0, 0, fmt.Errorf("flash of the firmware: %w", errors.Join(unix.EIO, err))
	}
	vars = content{}
	le := binary.LittleEndian
	for i := range int64(2) {
		c := b[i*f.Size : (i+1)*f.Size]
		n := int64(le.Uint32(c[12:]))
		if n > f.Size-flashHeader || crc32.ChecksumIEEE(c[4:flashHeader+n]) != le.Uint32(c) || le.Uint64(c[4:]) <= generation {
			continue
		}
		generation, copy = le.Uint64(c[4:]), i
		vars = parse(c[flashHeader : flashHeader+n])
	}
	return vars, generation, copy, nil
}

// parse reads what format wrote: its checksum was good.
func parse(b []byte) content {
	vars := content{}
	le := binary.LittleEndian
	for len(b) > 0 {
		name, data := int(le.Uint16(b)), int(le.Uint16(b[2:]))
		v := efi.Variable{Attributes: le.Uint32(b[4:]), Data: bytes.Clone(b[8+name : 8+name+data])}
		vars[string(b[8:8+name])] = v
		b = b[8+name+data:]
	}
	return vars
}

func (c content) format(b []byte) []byte {
	le := binary.LittleEndian
	for _, name := range slices.Sorted(maps.Keys(c)) {
		v := c[name]
		b = le.AppendUint16(b, uint16(len(name)))
		b = le.AppendUint16(b, uint16(len(v.Data)))
		b = le.AppendUint32(b, v.Attributes)
		b = append(append(b, name...), v.Data...)
	}
	return b
}

// change writes what do changed, if it says so.
func (f Flash) change(do func(content) bool) error {
	vars, generation, copy, err := f.load()
	if err != nil {
		return err
	}
	if !do(vars) {
		return nil
	}
	b := vars.format(make([]byte, flashHeader))
	if int64(len(b)) > f.Size {
		return unix.ENOSPC
	}
	le := binary.LittleEndian
	le.PutUint64(b[4:], generation+1)
	le.PutUint32(b[12:], uint32(len(b)-flashHeader))
	le.PutUint32(b, crc32.ChecksumIEEE(b[4:]))
	if n, err := f.Medium.WriteAt(b, (1-copy)*f.Size); err != nil || n < len(b) {
		return fmt.Errorf("flash of the firmware: %w", errors.Join(unix.EIO, err))
	}
	return f.Medium.Sync()
}

// Read returns a variable.
func (f Flash) Read(name string) (efi.Variable, error) {
	vars, _, _, err := f.load()
	v, ok := vars[name]
	if err == nil && !ok {
		err = fs.ErrNotExist
	}
	return v, err
}

// Write makes or replaces a variable.
func (f Flash) Write(name string, v efi.Variable) error {
	return f.change(func(c content) bool {
		c[name] = v
		return true
	})
}

// Delete deletes a variable.
func (f Flash) Delete(name string) error {
	return f.change(func(c content) bool {
		_, ok := c[name]
		delete(c, name)
		return ok
	})
}

// List returns the names of all variables.
func (f Flash) List() ([]string, error) {
	vars, _, _, err := f.load()
	return slices.Sorted(maps.Keys(vars)), err
}
