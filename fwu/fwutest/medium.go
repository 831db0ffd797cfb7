package fwutest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
)

// Medium is a block device in memory that never fails. Safe for concurrent use.
type Medium struct {
	// OnWrite and OnSync are called first, with no lock held. They are set while nobody uses the medium. May be nil.
	OnWrite func(off int64)
	OnSync  func()
	// OnRead is called before n bytes are read at off. If it returns an error, so does the read.
	// May be nil.
	OnRead func(off int64, n int) error

	mu   sync.Mutex
	data []byte
	held bool // opened exclusively
}

var _ fwu.Medium = (*Medium)(nil)

// NewMedium makes a medium of zeroes.
func NewMedium(size int64) *Medium { return &Medium{data: make([]byte, size)} }

// ReadAt reads what was written last.
func (m *Medium) ReadAt(p []byte, off int64) (int, error) {
	if m.OnRead != nil {
		if err := m.OnRead(off, len(p)); err != nil {
			return 0, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n := copy(p, m.data[min(off, m.Size()):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes.
func (m *Medium) WriteAt(p []byte, off int64) (int, error) {
	if m.OnWrite != nil {
		m.OnWrite(off)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if off < 0 || off > m.Size()-int64(len(p)) {
		return 0, fmt.Errorf("write of %d bytes at %d: the medium has %d", len(p), off, m.Size())
	}
	return copy(m.data[off:], p), nil
}

// Sync has nothing to do but to call OnSync.
func (m *Medium) Sync() error {
	if m.OnSync != nil {
		m.OnSync()
	}
	return nil
}

// Size is the size in bytes.
func (m *Medium) Size() int64 { return int64(len(m.data)) }

// Bytes returns a copy of the first n bytes.
func (m *Medium) Bytes(n int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.data[:n])
}

// Held tells whether somebody has the medium open to write to it.
func (m *Medium) Held() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

// Mount makes the medium one that is in use, until unmount is called.
func (m *Medium) Mount() (unmount func()) {
	m.hold(true)
	return func() { m.hold(false) }
}

func (m *Medium) hold(held bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = held
}

// Slot makes the medium the slot that is called id.
func (m *Medium) Slot(id string) fwu.Slot {
	return partition.NewSlot(fwu.SlotInfo{ID: id, Path: "/dev/" + id, Size: m.Size()}, m.open, nil)
}

func (m *Medium) open(_ context.Context, mode partition.Mode) (partition.Device, error) {
	if mode == partition.ReadOnly {
		return handle{m, mode}, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held {
		return nil, fwu.ErrSlotBusy
	}
	m.held = true
	return handle{m, mode}, nil
}

// handle is a Medium that somebody opened.
type handle struct {
	*Medium
	mode partition.Mode
}

func (h handle) Close() error {
	if h.mode == partition.Exclusive {
		h.hold(false)
	}
	return nil
}
