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
	Bad  Bad   // whether a read that failed fails again
}

// Bad says the fate of sectors that could not be read.
type Bad uint8

// The kinds of bad sectors.
const (
	// Once: the next read succeeds.
	Once Bad = iota
	// UntilWritten: every read fails until the sectors are written, as those of a disk that has
	// spare ones.
	UntilWritten
	// ForEver: every read fails, until Mend.
	ForEver
)

// bad is a range that cannot be read.
type bad struct {
	from, to int64
	kind     Bad
	err      error
}

// Spoil makes a range unreadable: every read that touches it returns err, as long as kind says.
func (d *Medium) Spoil(off, n int64, kind Bad, err error) {
	d.owner.mu.Lock()
	defer d.owner.mu.Unlock()
	d.spoil(off, n, kind, err)
}

func (d *Medium) spoil(off, n int64, kind Bad, err error) {
	from := off / SectorSize * SectorSize
	to := (off + n + SectorSize - 1) / SectorSize * SectorSize
	d.bad = append(d.bad, bad{from, to, kind, err})
}

// Mend makes everything readable.
func (m *Media) Mend() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.media {
		d.bad = nil
	}
}

// Bad tells whether a range has sectors that cannot be read.
func (d *Medium) Bad(off, n int64) bool {
	d.owner.mu.Lock()
	defer d.owner.mu.Unlock()
	return d.unreadable(off, n) != nil
}

func (d *Medium) unreadable(off, n int64) error {
	for _, b := range d.bad {
		if off < b.to && b.from < off+n {
			return b.err
		}
	}
	return nil
}

// mend makes the sectors readable that a write replaces.
func (d *Medium) mend(off, n int64) {
	var left []bad
	for _, b := range d.bad {
		if b.kind == ForEver || b.to <= off || off+n <= b.from {
			left = append(left, b)
			continue
		}
		if b.from < off {
			left = append(left, bad{b.from, off, b.kind, b.err})
		}
		if off+n < b.to {
			left = append(left, bad{off + n, b.to, b.kind, b.err})
		}
	}
	d.bad = left
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
func (m *Media) Accesses() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// Inject has f decide on every access from now on: nil lets it be. A nil f ends it. The count
// begins at 0. f uses nothing of the media: they are locked.
func (m *Media) Inject(f func(Access) *Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault, m.count = f, 0
}

func (d *Medium) hit(a Access) *Fault {
	m := d.owner
	if m.fault != nil {
		a.N = m.count
		m.count++
		if f := m.fault(a); f != nil {
			if f.Bad != Once {
				d.spoil(a.Off, int64(a.Len), f.Bad, f.Err)
			}
			return f
		}
	}
	if a.Kind == Read && !m.quiet {
		if err := d.unreadable(a.Off, int64(a.Len)); err != nil {
			return &Fault{Err: err}
		}
	}
	return nil
}

// PowerOff loses what was not flushed.
func (m *Media) PowerOff() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.media {
		d.view, d.pending = slices.Clone(d.disk), nil
	}
}

// Rest returns when all goroutines wait, if the media have an Order: until the caller waits for
// something itself, nobody makes an access.
func (m *Media) Rest() {
	m.turn(-1, Access{})
	m.mu.Lock() // so that who decides about the next access sees the effects of the caller
	defer m.mu.Unlock()
}

// Quiet calls f with no faults, and without counting accesses: for a look from outside.
func (m *Media) Quiet(f func()) {
	m.Rest()
	m.mu.Lock()
	fault, count, order, off, quiet := m.fault, m.count, m.order, m.off, m.quiet
	m.fault, m.order, m.off, m.quiet = nil, nil, false, true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.fault, m.count, m.order, m.off, m.quiet = fault, count, order, off, quiet
	}()
	f()
}
