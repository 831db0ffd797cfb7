package fwu

import (
	"context"
)

// Components lists the configured components, by id.
func (s *Service) Components() []ComponentInfo {
	var out []ComponentInfo
	for _, c := range s.components {
		out = append(out, ComponentInfo{ID: c.ID, Name: c.Name, Manifest: c.Manifest, Live: c.Live})
	}
	return out
}

// System returns the state of the whole.
func (s *Service) System() SystemInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := SystemInfo{Booted: s.cfg.Boot.Bank, Default: s.sel.Default, Trial: s.sel.Trial}
	if s.cfg.Selector != nil {
		info.Selector = s.cfg.Selector.Kind()
	}
	if l, ok := s.cfg.Selector.(Limiter); ok {
		info.Limits = l.Limits()
	}
	if s.rec != nil && s.rec.Trial != nil {
		info.Trial = s.rec.Trial.Bank
	}
	if s.degraded != nil {
		info.Degraded, info.Why = []Reason{s.degraded.reason}, []string{s.degraded.text}
	}
	return info
}

// Query is psa_fwu_query (section 5.5.5). It waits for nothing.
func (s *Service) Query(_ context.Context, id ID) (Info, error) {
	c := s.component(id)
	if c == nil {
		return Info{}, refuse(DoesNotExist, ReasonNoSuch, "component %d does not exist", id)
	}
	info := s.snapshot(c)
	info.Impl.ActiveErrors, info.Impl.SecondErrors = mediumErrors(c.Slots[info.Location]), mediumErrors(c.Slots[1-info.Location])
	for i := range s.store.meters {
		info.Impl.StoreErrors[i] = s.store.meters[i].Errors()
	}
	return info, nil
}

// snapshot is the answer of Query for c, without the errors of its media.
func (s *Service) snapshot(c *component) Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := Info{MaxSize: maxSize(c)}
	if c.Volatile {
		info.Flags |= FlagVolatileStaging
	}
	info.Impl = Impl{Operation: c.operation, Done: c.done, Total: c.total}
	if c.readOnly != nil {
		info.Impl.ReadOnly, info.Impl.ReadOnlyText = c.readOnly.reason, c.readOnly.text
	}
	if c.Manifest != None {
		info.Impl.Signatures = max(c.Signatures, 1)
	}
	if s.rec == nil || s.rec.Components[c.Name] == nil {
		info.Location = uint32(max(s.cfg.Boot.Bank.Index(), 0))
		if !c.Live {
			info.Version = s.cfg.Release[c.Name].Version
		}
		if s.degraded != nil {
			info.Impl.Reason, info.Impl.Text = s.degraded.reason, s.degraded.text
		}
		return info
	}
	cr := s.rec.Components[c.Name]
	active, next := cr.image(), cr.next()
	info.State, info.Error, info.Version, info.Location = cr.State, cr.Error, active.Version, uint32(cr.Active)
	i := &info.Impl
	i.Digest, i.Sequence, i.Since, i.Reason, i.Text = active.Digest, cr.Floor, cr.Since, cr.Reason, cr.Text
	i.Second = secondOf(s.rec, s.components, c)
	i.ActiveSlot, i.SecondSlot = c.Slots[cr.Active].Info().Path, c.Slots[1-cr.Active].Info().Path
	if cr.State == Writing || cr.State == Candidate {
		i.ManifestDigest, i.ImageSize, i.Written, i.Counts = next.Manifest, next.Size, continueAt(c.written, next), c.counted()
		i.Prepared = max(c.prepared, next.prepared())
	}
	if cr.State == Candidate { // all of it is durable, whatever its size
		i.Written, i.Prepared = c.written, next.Size
	}
	return info
}

// prepared is how many bytes of the image are durable.
func (i *imageRecord) prepared() int64 {
	if i.Compression != "" {
		return i.Decoded
	}
	return max(i.Written-i.Payload, 0)
}

// setPrepared says how many bytes of the image in preparation were taken.
func (s *Service) setPrepared(c *component, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.prepared = n
}

// counted tells how many bytes of the image in preparation were equal, zeroed, stored and read
// back. The caller holds s.mu.
func (c *component) counted() Counts {
	n := c.counts
	if c.writing != nil {
		n = c.writing.Counts()
		n.Received = c.counts.Received
	}
	return n
}

// counting has the bytes counted that are written to img; nil ends that, and keeps the counts.
func (s *Service) counting(c *component, img Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if img != nil {
		c.counts = Counts{}
	} else {
		c.counts = c.counted()
	}
	c.writing = img
}

func (s *Service) setWritten(c *component, n int64) {
	s.mu.Lock()
	c.written = n
	s.mu.Unlock()
	s.cfg.Changed(c.ID)
}

// maxSize is the largest image that either slot of c takes.
func maxSize(c *component) int64 {
	return min(c.Slots[0].Info().Size, c.Slots[1].Info().Size) &^ (WriteAlignment - 1)
}
