package model

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
)

// StoreName is the name that Stored gives its file.
const StoreName = "ubootefi.var"

// Stored is firmware that keeps its variables in memory while a system runs, and reads them from a
// file when it starts (U-Boot with CONFIG_EFI_RT_VOLATILE_STORE). Before it has started a system it
// writes the file at each change; U-Boot's own write is not atomic, which is left out here.
type Stored struct {
	Memory  Flash // forgets nothing by itself: Start does that
	File    efi.Store
	Running bool // the file is the system's: ExitBootServices was called
}

var _ efi.Variables = Stored{}

// Start reads the file into memory. One that is not valid holds no variables.
func (s Stored) Start() error {
	b, err := s.File.Read()
	if errors.Is(err, ErrPowerCut) {
		return err
	}
	c, err := efi.ParseStore(b)
	if err != nil {
		c = nil
	}
	return s.Memory.change(func(memory content) bool {
		clear(memory)
		maps.Copy(memory, c)
		return true
	})
}

// Read returns a variable.
func (s Stored) Read(name string) (efi.Variable, error) {
	switch name {
	case efi.RTStorageVolatile:
		return efi.Variable{Attributes: 2 | 4, Data: []byte(StoreName + "\x00")}, nil
	case efi.VarToFile:
		b, err := s.format()
		return efi.Variable{Attributes: 2 | 4, Data: b}, err
	}
	return s.Memory.Read(name)
}

func (s Stored) format() ([]byte, error) {
	vars, _, _, err := s.Memory.load()
	return FormatStore(vars), err
}

// Write makes or replaces a variable.
func (s Stored) Write(name string, v efi.Variable) error {
	if name == efi.RTStorageVolatile || name == efi.VarToFile {
		return unix.EROFS // EFI_WRITE_PROTECTED
	}
	return s.changed(s.Memory.Write(name, v))
}

// Delete deletes a variable.
func (s Stored) Delete(name string) error { return s.changed(s.Memory.Delete(name)) }

func (s Stored) changed(err error) error {
	if err != nil || s.Running {
		return err
	}
	b, err := s.format()
	if err != nil {
		return err
	}
	return s.File.Write(b)
}

// List returns the names of all variables.
func (s Stored) List() ([]string, error) {
	names, err := s.Memory.List()
	return append(names, efi.RTStorageVolatile, efi.VarToFile), err
}

// FormatStore makes a file that efi.ParseStore reads, of variables with names as in efivarfs.
func FormatStore(c map[string]efi.Variable) []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 8), "UbEfiVa\x01\x00\x00\x00\x00\x00\x00\x00\x00"...)
	for _, key := range slices.Sorted(maps.Keys(c)) {
		v := c[key]
		name, guid := key[:len(key)-37], strings.ReplaceAll(key[len(key)-36:], "-", "")
		g, err := hex.DecodeString(guid)
		if err != nil || len(g) != 16 {
			panic("not the name of a variable: " + key)
		}
		slices.Reverse(g[0:4])
		slices.Reverse(g[4:6])
		slices.Reverse(g[6:8])
		b = le.AppendUint32(b, uint32(len(v.Data)))
		b = le.AppendUint32(b, v.Attributes)
		b = le.AppendUint64(b, 0)
		b = append(b, g...)
		for _, u := range utf16.Encode([]rune(name + "\x00")) {
			b = le.AppendUint16(b, u)
		}
		b = append(b, v.Data...)
		b = append(b, make([]byte, -len(b)&7)...)
	}
	le.PutUint32(b[16:], uint32(len(b)))
	le.PutUint32(b[20:], crc32.ChecksumIEEE(b[24:]))
	return b
}

// File is a file that has the old or the new content after a cut, on the medium of a Flash.
type File struct{ Flash Flash }

var _ efi.Store = File{}

func (f File) String() string { return StoreName }

// Check finds nothing.
func (f File) Check() error { return nil }

// Read returns the content.
func (f File) Read() ([]byte, error) {
	v, err := f.Flash.Read(StoreName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	return v.Data, err
}

// Write makes b the content.
func (f File) Write(b []byte) error {
	return f.Flash.Write(StoreName, efi.Variable{Data: slices.Clone(b)})
}
