package sim

import "slices"

// Kind is a kind of access.
type Kind uint8

// The kinds.
const (
	Read Kind = iota
	Write
	Flush
)

func (k Kind) String() string { return [...]string{"read", "write", "flush"}[k] }

// Access is what a medium is asked for.
type Access struct {
	N      int // number of the access, over all media, since Inject
	Medium string
	Kind   Kind
	Off    int64
	Len    int
	Zero   bool // a write by a command to zero
}

// Fault is how an access fails.
type Fault struct {
	Err  error // what the caller is told; nil is a medium that breaks its promise
	Half bool  // a read or write does half of it, else nothing
	Lie  bool  // a write claims to have done all of it
	Lose Loss  // what a flush does
}

// Loss is what becomes of what a failed flush should have made durable.
type Loss uint8

// The losses.
const (
	// Gone: reads see what was there before.
	Gone Loss = iota
	// Doomed: reads see what was written, later flushes succeed, and a cut loses it all the same.
	Doomed
	// Landed: it is durable, whatever the flush said.
	Landed
	// Nothing: it waits for the next flush.
	Nothing
)

func (f *Fault) flush(d *Medium) {
	switch f.Lose {
	case Gone:
		for _, c := range d.pending {
			d.view[c.index] = d.disk[c.index]
		}
		d.pending = nil
	case Doomed:
		d.pending = nil
	case Landed:
		d.land()
	}
}

// Accesses is their number since Inject.
func (m *Media) Accesses() int { return m.count }

// Inject has f decide on every access from now on: nil lets it be. A nil f ends it. The count begins at 0.
func (m *Media) Inject(f func(Access) *Fault) { m.fault, m.count = f, 0 }

func (m *Media) hit(a Access) *Fault {
	if m.fault == nil {
		return nil
	}
	a.N = m.count
	m.count++
	return m.fault(a)
}

// PowerOff loses what was not flushed.
func (m *Media) PowerOff() {
	for _, d := range m.media {
		d.view, d.pending = slices.Clone(d.disk), nil
	}
}

// Rest returns when all goroutines wait, if the media have an Order: until the caller waits for
// something itself, nobody makes an access.
func (m *Media) Rest() { m.order.wait(-1, Access{}) }

// Quiet calls f with no faults, and without counting accesses: for a look from outside.
func (m *Media) Quiet(f func()) {
	m.Rest()
	fault, count, order, off := m.fault, m.count, m.order, m.off
	m.fault, m.order, m.off = nil, nil, false
	defer func() { m.fault, m.count, m.order, m.off = fault, count, order, off }()
	f()
}
