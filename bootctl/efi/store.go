package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Store is the file from which firmware that keeps its variables in memory reads them at the next
// boot. An implementation: ESP.
type Store interface {
	// Check says why the file cannot be written. It writes nothing.
	Check() error
	// Read returns the content as the medium has it. The error wraps fs.ErrNotExist if there is no
	// file.
	Read() ([]byte, error)
	// Write makes b the content, durably. Whatever happens, the old content is there afterwards, or
	// the new one.
	Write(b []byte) error
	// String is the path.
	String() string
}

// The variables of firmware that keeps the others in memory while a system runs (U-Boot with
// CONFIG_EFI_RT_VOLATILE_STORE, lib/efi_loader/efi_runtime.c).
const (
	volatileStore = "-b2ac5fc9-92b7-4acd-aeac-11e818c3130c"

	// name of the file on the EFI system partition
	RTStorageVolatile = "RTStorageVolatile" + volatileStore
	VarToFile         = "VarToFile" + volatileStore // content that the file is to hold
)

// MaxStore bounds a file of variables. U-Boot's holds 128 KiB at most, unless a board changes that.
const MaxStore = 1 << 20

const (
	storeHeader = 24
	entryHeader = 32
	storeMagic  = "UbEfiVa\x01" // with the revision
)

// Content has the variables of such a file, by the names that efivarfs gives them.
type Content map[string]Variable

// Read returns a variable.
func (c Content) Read(name string) (Variable, error) {
	v, ok := c[name]
	if !ok {
		return v, fmt.Errorf("variable %s: %w", name, fs.ErrNotExist)
	}
	return v, nil
}

// List returns the names of all variables.
func (c Content) List() ([]string, error) { return slices.Sorted(maps.Keys(c)), nil }

// ParseStore reads a file of variables (EBBR specification 2.2, chapter 5):
//
//	offset  size  content
//	0       8     zero
//	8       8     magic, with the revision
//	16      4     length of the header and all entries
//	20      4     CRC-32 of the entries
//	24            entries, each from a multiple of 8 on:
//	              0   4   size of the data
//	              4   4   attributes
//	              8   8   time
//	              16  16  GUID of the vendor
//	              32  n   name, UTF-16 with a zero
//	              32+n    data
//
// It is all or nothing, as for the firmware. The variables share memory with b.
func ParseStore(b []byte) (Content, error) {
	le := binary.LittleEndian
	switch {
	case len(b) > MaxStore:
		return nil, fmt.Errorf("%d bytes are too long for a file of variables", len(b))
	case len(b) < storeHeader || le.Uint64(b) != 0 || string(b[8:16]) != storeMagic:
		return nil, errors.New("it is no file of variables")
	}
	n := le.Uint32(b[16:])
	if n < storeHeader || uint64(n) > uint64(len(b)) {
		return nil, fmt.Errorf("it has %d bytes, and its header says %d", len(b), n)
	}
	b, want := b[storeHeader:n], le.Uint32(b[20:])
	if crc32.ChecksumIEEE(b) != want {
		return nil, errors.New("its checksum is wrong")
	}
	c := Content{}
	for len(b) > 0 {
		if len(b) < entryHeader {
			return nil, fmt.Errorf("%d bytes are left, too few for a variable", len(b))
		}
		name, rest, ok := cutText(b[entryHeader:])
		size := uint64(le.Uint32(b))
		if !ok || size > uint64(len(rest)) {
			return nil, errors.New("a variable in it does not end")
		}
		guid := mixed([16]byte(b[16:32]))
		key := fmt.Sprintf("%s-%x-%x-%x-%x-%x", name, guid[:4], guid[4:6], guid[6:8], guid[8:10], guid[10:])
		if _, known := c[key]; !known && size > 0 { // the first one counts
			c[key] = Variable{le.Uint32(b[4:]), rest[:size:size]}
		}
		used := len(b) - len(rest) + int(size)
		b = b[min((used+7)&^7, len(b)):]
	}
	return c, nil
}

// store is the file that the firmware names, nil if it keeps its variables by itself.
func (s *Selector) store() (Store, error) {
	v, err := s.config.Variables.Read(RTStorageVolatile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	name := strings.TrimSuffix(string(v.Data), "\x00")
	if !plainName(name) {
		return nil, fmt.Errorf("the firmware keeps its variables in memory, and in a file %q: want a plain name of at most %d letters, digits, dots, hyphens and underscores; "+
			"the board's firmware has to be changed", name, maxStoreName)
	}
	if s.config.Store == nil {
		return nil, fmt.Errorf("the firmware keeps its variables in memory, and in a file %s that nobody writes", name)
	}
	return s.config.Store(name)
}

const maxStoreName = 64

// plainName tells whether a file of that name lies in the directory itself, on every file system.
func plainName(name string) bool {
	return len(name) > 0 && len(name) <= maxStoreName && name[0] != '.' && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}

// lasting is the state that the firmware finds at the next boot: that of its variables, or of the
// file. A file that the firmware will not take holds none.
func (s *Selector) lasting(store Store) (state, error) {
	if store == nil {
		return s.load(s.config.Variables)
	}
	b, err := store.Read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return state{}, fmt.Errorf("read the firmware's variables in %s: %w", store, err)
	}
	c, err := ParseStore(b)
	if err != nil {
		c = nil
	}
	return s.load(c)
}

// persist writes the variables that the firmware has in memory to its file.
func (s *Selector) persist(store Store) error {
	if store == nil {
		return nil
	}
	v, err := s.config.Variables.Read(VarToFile)
	if err != nil {
		return err
	}
	if _, err := ParseStore(v.Data); err != nil {
		return fmt.Errorf("firmware variable %s: %w", VarToFile, err)
	}
	if old, err := store.Read(); err == nil && slices.Equal(old, v.Data) {
		return nil
	}
	if err := store.Write(v.Data); err != nil {
		return fmt.Errorf("write the firmware's variables to %s: %w", store, err)
	}
	got, err := store.Read()
	if err == nil && !slices.Equal(got, v.Data) {
		err = fwu.ErrReadBack
	}
	if err != nil {
		return fmt.Errorf("read the firmware's variables in %s back: %w", store, err)
	}
	return nil
}
