package fwu

import "sync"

// MediumErrors counts the accesses to a medium that failed since the service was started. D-Bus and
// JSON have it as it is.
type MediumErrors struct {
	Read  uint64 `json:"read"` // an error, or other data than was written
	Write uint64 `json:"write"`
	Flush uint64 `json:"flush"`
	// reads that were repeated after an error; those of a slot never are
	Retried uint64 `json:"retried"`
}

// Total is the number of accesses that failed.
func (n MediumErrors) Total() uint64 { return n.Read + n.Write + n.Flush }

// Metered is a Slot that counts the errors of its medium.
type Metered interface {
	Meter() *Meter
}

// Meter counts the errors of one medium, and reports some of them for the journal: the first one of
// an operation, unless it is word for word the one that was reported last. A medium that is broken
// fails at each sector, and at each try. Its zero value is ready to use, from several goroutines.
type Meter struct {
	mu       sync.Mutex
	n        MediumErrors
	reported bool   // an error of this operation was reported
	last     string // the error that was reported last
	report   func(err error)
}

// Begin begins an operation.
func (m *Meter) Begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reported = false
}

// Errors returns the counts.
func (m *Meter) Errors() MediumErrors {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n
}

// Read, Write and Flush count an access that failed.
func (m *Meter) Read(err error)  { m.count(&m.n.Read, err) }
func (m *Meter) Write(err error) { m.count(&m.n.Write, err) }
func (m *Meter) Flush(err error) { m.count(&m.n.Flush, err) }

// Retry counts a read that is repeated.
func (m *Meter) Retry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n.Retried++
}

// reportTo names the function that gets the errors that are reported. It is called while a medium
// is accessed, and may neither wait nor use the medium.
func (m *Meter) reportTo(f func(error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.report = f
}

func (m *Meter) count(n *uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*n++
	if text := err.Error(); !m.reported && text != m.last && m.report != nil {
		m.last = text
		m.report(err)
	}
	m.reported = true
}

// mediumErrors returns the counts of a slot, which are zero if it counts nothing.
func mediumErrors(slot Slot) (n MediumErrors) {
	if m, ok := slot.(Metered); ok {
		n = m.Meter().Errors()
	}
	return n
}

// watchMedia has the errors of all media written to the journal. They are returned to a caller as
// well, where they have a consequence: a block that cannot be read and is written anew has none.
func (s *Service) watchMedia() {
	watch := func(m *Meter, which ...any) {
		m.reportTo(func(err error) { s.log.Warn("medium error", append(which[:len(which):len(which)], "err", err)...) })
	}
	for _, c := range s.components {
		for i, slot := range c.Slots {
			if m, ok := slot.(Metered); ok {
				watch(m.Meter(), "component", c.Name, "slot", string(BankOf(i)))
			}
		}
	}
	for i := range s.store.meters {
		watch(&s.store.meters[i], "record", i)
	}
}

// beginOn begins an operation on the slots of a component.
func beginOn(c Component) {
	for _, slot := range c.Slots {
		if m, ok := slot.(Metered); ok {
			m.Meter().Begin()
		}
	}
}
