// Package sim is media for tests: block devices in memory that record every write and flush, lose what was not flushed when the power is cut, and fail on demand.
//
// Any number of media share one log, so that a cut is a position in one total order of writes over all of them. A Medium is at once what a slot, a store and a
// boot environment lie on. What was written is seen by reads at once, and is durable after the next flush of that medium; until then a cut may lose it, tear it at
// 512 bytes, or let it land after what was written later. Cuts enumerates what a cut can leave.
//
// Contents are pages that are shared and never changed in place: a State costs a few kilobytes, whatever the size of the media.
package sim

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"slices"
	"sync"
)

// PageSize is the unit of sharing, SectorSize the unit that a medium writes whole or not at all.
const (
	PageSize   = 4096
	SectorSize = 512
)

type page struct {
	data [PageSize]byte
	sum  uint64
}

// Media is a set of media that lose their power together. It is safe for concurrent use; which of
// two accesses comes first is decided by an Order, if it has one.
type Media struct {
	mu     sync.Mutex // of everything below, and of the media
	seed   maphash.Seed
	zero   *page
	media  []*Medium
	record bool
	log    []Op
	count  int
	fault  func(Access) *Fault
	order  *Order
	off    bool
	quiet  bool // somebody looks from outside
}

// Medium is one of them.
type Medium struct {
	owner      *Media
	index      int
	name       string
	view, disk []*page  // what reads see, and what a cut leaves
	pending    []change // written since the last flush
	bad        []bad    // the ranges that cannot be read
}

type change struct {
	index int
	page  *page
}

// Op is a write, or a flush, of the medium with that index.
type Op struct {
	Medium int
	Flush  bool
	Off    int64
	Data   []byte
}

func (o Op) sectors() int { return (len(o.Data) + SectorSize - 1) / SectorSize }

// New makes a set without members.
func New() *Media {
	m := &Media{seed: maphash.MakeSeed()}
	m.zero = &page{}
	m.zero.sum = maphash.Bytes(m.seed, m.zero.data[:])
	return m
}

// Add adds a medium of zeroes. size is a multiple of PageSize.
func (m *Media) Add(name string, size int64) *Medium {
	d := &Medium{owner: m, index: len(m.media), name: name, view: make([]*page, size/PageSize)}
	for i := range d.view {
		d.view[i] = m.zero
	}
	d.disk = slices.Clone(d.view)
	m.media = append(m.media, d)
	return d
}

// Medium returns the medium with that name.
func (m *Media) Medium(name string) *Medium {
	for _, d := range m.media {
		if d.name == name {
			return d
		}
	}
	panic("no medium " + name)
}

// State is the content of all media at one instant. It shares its pages and does not change.
type State struct {
	seed  maphash.Seed
	zero  *page
	names []string
	disks [][]*page
}

// Durable is what a cut leaves now if it loses everything that was not flushed.
func (m *Media) Durable() State {
	return m.state(func(d *Medium) []*page { return d.disk })
}

// Seen is what reads see now.
func (m *Media) Seen() State {
	return m.state(func(d *Medium) []*page { return d.view })
}

func (m *Media) state(of func(*Medium) []*page) State {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := State{seed: m.seed, zero: m.zero}
	for _, d := range m.media {
		s.names = append(s.names, d.name)
		s.disks = append(s.disks, slices.Clone(of(d)))
	}
	return s
}

// Use has o decide in which order accesses are made.
func (m *Media) Use(o *Order) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.order = o
}

// turn waits for the turn of an access.
func (m *Media) turn(medium int, a Access) {
	m.mu.Lock()
	o := m.order
	m.mu.Unlock()
	o.wait(medium, a)
}

// Power switches the access to all media off, so that every one fails and changes nothing, or on
// again.
func (m *Media) Power(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off = !on
}

var errOff = errors.New("the medium has no power")

// begin waits for the turn of an access, and tells how it fails, if it does. The caller unlocks the
// media when the access is over.
func (d *Medium) begin(a Access) *Fault {
	m := d.owner
	a.Medium = d.name
	m.turn(d.index, a)
	m.mu.Lock()
	if m.off {
		return &Fault{Err: errOff, Lose: Nothing}
	}
	return d.hit(a)
}

// Media makes media that hold s, with an empty log.
func (s State) Media() *Media {
	m := &Media{seed: s.seed, zero: s.zero}
	for i, name := range s.names {
		m.media = append(m.media, &Medium{owner: m, index: i, name: name, view: slices.Clone(s.disks[i]), disk: slices.Clone(s.disks[i])})
	}
	return m
}

// Sum identifies the content of s, for this process.
func (s State) Sum() uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, d := range s.disks {
		for _, p := range d {
			maphash.WriteComparable(&h, p.sum)
		}
	}
	return h.Sum64()
}

// Record begins to keep a log, or ends it.
func (m *Media) Record(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.record, m.log = on, nil
}

// Log is what was written and flushed since Record.
func (m *Media) Log() []Op {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log
}

// Position is the length of the log.
func (m *Media) Position() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.log)
}

// Settle makes everything durable that was written, as an orderly shutdown does. What a flush lost stays lost.
func (m *Media) Settle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.media {
		if len(d.pending) > 0 {
			d.land()
			m.note(Op{Medium: d.index, Flush: true})
		}
		d.view = slices.Clone(d.disk)
	}
}

func (m *Media) note(o Op) {
	if m.record {
		m.log = append(m.log, o)
	}
}

// Size is the size in bytes.
func (d *Medium) Size() int64 { return int64(len(d.view)) * PageSize }

// Name is the name it was added with.
func (d *Medium) Name() string { return d.name }

// ReadAt reads what was written last, flushed or not.
func (d *Medium) ReadAt(p []byte, off int64) (int, error) {
	f := d.begin(Access{Kind: Read, Off: off, Len: len(p)})
	defer d.owner.mu.Unlock()
	if f != nil {
		n := 0
		if f.Half {
			n = d.read(p[:len(p)/2], off)
		}
		return n, f.Err
	}
	n := d.read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *Medium) read(p []byte, off int64) int {
	n := 0
	for n < len(p) && off < d.Size() {
		k := copy(p[n:], d.view[off/PageSize].data[off%PageSize:])
		n, off = n+k, off+int64(k)
	}
	return n
}

// WriteAt writes. What it wrote is durable after Sync.
func (d *Medium) WriteAt(p []byte, off int64) (int, error) { return d.writeAt(p, off, false) }

func (d *Medium) writeAt(p []byte, off int64, zero bool) (int, error) {
	if off < 0 || off+int64(len(p)) > d.Size() {
		return 0, fmt.Errorf("write of %d bytes at %d: outside of %s", len(p), off, d.name)
	}
	f := d.begin(Access{Kind: Write, Off: off, Len: len(p), Zero: zero})
	defer d.owner.mu.Unlock()
	if f != nil {
		n := 0
		if f.Half {
			n = len(p) / 2 &^ (SectorSize - 1)
			d.write(p[:n], off)
		}
		if f.Lie {
			n = len(p)
		}
		return n, f.Err
	}
	d.write(p, off)
	return len(p), nil
}

func (d *Medium) write(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	d.mend(off, int64(len(p)))
	if d.owner.record {
		d.owner.note(Op{Medium: d.index, Off: off, Data: slices.Clone(p)})
	}
	overlay(d.owner.seed, d.owner.zero, d.view, p, off, func(i int, n *page) {
		d.view[i] = n
		d.pending = append(d.pending, change{i, n})
	})
}

// overlay calls set for each page of disk that p at off changes.
func overlay(seed maphash.Seed, zero *page, disk []*page, p []byte, off int64, set func(int, *page)) {
	for len(p) > 0 {
		i, at := int(off/PageSize), int(off%PageSize)
		if at == 0 && len(p) >= PageSize && bytes.Equal(p[:PageSize], zero.data[:]) {
			set(i, zero)
			p, off = p[PageSize:], off+PageSize
			continue
		}
		n := &page{}
		if at != 0 || len(p) < PageSize {
			n.data = disk[i].data
		}
		k := copy(n.data[at:], p)
		n.sum = maphash.Bytes(seed, n.data[:])
		set(i, n)
		p, off = p[k:], off+int64(k)
	}
}

// Discard forgets a range: what is read there is neither what was there nor zeroes.
func (d *Medium) Discard(off, n int64) error {
	p := make([]byte, n)
	for i := range p {
		p[i] = 0xa5
	}
	_, err := d.WriteAt(p, off)
	return err
}

// Zero writes zeroes, as a command of the medium would.
func (d *Medium) Zero(off, n int64) error {
	_, err := d.writeAt(make([]byte, n), off, true)
	return err
}

// Sync makes durable what was written since the last one.
func (d *Medium) Sync() error {
	f := d.begin(Access{Kind: Flush})
	defer d.owner.mu.Unlock()
	if f != nil {
		f.flush(d)
		return f.Err
	}
	d.land()
	d.owner.note(Op{Medium: d.index, Flush: true})
	return nil
}

func (d *Medium) land() {
	for _, c := range d.pending {
		d.disk[c.index] = c.page
	}
	d.pending = d.pending[:0]
}

// Close does nothing: who keeps handles exclusive does it.
func (d *Medium) Close() error { return nil }

// Fill replaces the whole content, durably, and is in no log.
func (d *Medium) Fill(content []byte) {
	d.owner.mu.Lock()
	defer d.owner.mu.Unlock()
	overlay(d.owner.seed, d.owner.zero, d.view, content, 0, func(i int, n *page) { d.view[i] = n })
	for i := (len(content) + PageSize - 1) / PageSize; i < len(d.view); i++ {
		d.view[i] = d.owner.zero
	}
	d.disk, d.pending = slices.Clone(d.view), nil
}

// Content identifies bytes by their pages, the last one filled with zeroes.
type Content []uint64

// Content returns what identifies b.
func (m *Media) Content(b []byte) Content {
	var c Content
	for len(b) > 0 {
		var p [PageSize]byte
		b = b[copy(p[:], b):]
		c = append(c, maphash.Bytes(m.seed, p[:]))
	}
	return c
}

// Begins tells whether what reads see begins with c.
func (d *Medium) Begins(c Content) bool {
	d.owner.mu.Lock()
	defer d.owner.mu.Unlock()
	if len(c) > len(d.view) {
		return false
	}
	for i, sum := range c {
		if d.view[i].sum != sum {
			return false
		}
	}
	return true
}

// Names lists the media in the order of Op.Medium.
func (m *Media) Names() []string {
	var names []string
	for _, d := range m.media {
		names = append(names, d.name)
	}
	return names
}

// Differs lists the media on which s and t hold different content.
func (s State) Differs(t State) []string {
	found := map[string]bool{}
	for i := range s.disks {
		for j := range s.disks[i] {
			if s.disks[i][j].sum != t.disks[i][j].sum {
				found[s.names[i]] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}
