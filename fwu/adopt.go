package fwu

import (
	"context"
	"errors"
	"fmt"
)

// fresh is the record of a device of which nothing is known but the release record of the running
// image.
func (cfg Config) fresh() *record {
	r := &record{Components: map[string]*componentRecord{}, minor: storeMinor}
	cfg.adopt(r)
	return r
}

// adopt adds to r each component and slot that is configured and not recorded yet, and raises the
// floors to those of the release record.
func (cfg Config) adopt(r *record) {
	if r.Components == nil {
		r.Components = map[string]*componentRecord{}
	}
	for _, c := range cfg.Components {
		cr := r.Components[c.Name]
		if cr == nil {
			cr = &componentRecord{ID: c.ID}
			if !c.Live {
				cr.Active = max(cfg.Boot.Bank.Index(), 0)
			}
			cfg.describe(c, cr)
			r.Components[c.Name] = cr
		}
		for i, slot := range c.Slots {
			info, recorded := slot.Info(), &cr.Slots[i]
			if _, missing := slot.(MissingSlot); missing || !recorded.is(info) {
				continue
			}
			if recorded.ID == "" { // new, or missing until now
				recorded.Size = info.Size
			}
			recorded.ID = info.ID
		}
		if rel, ok := cfg.Release[c.Name]; ok && !(r.Trial != nil && cfg.Boot.Bank == r.Trial.Bank) {
			cr.Floor = max(cr.Floor, rel.Sequence)
		}
	}
}

// describe fills in the release record of c's active image, where nothing is recorded of it.
func (cfg Config) describe(c Component, cr *componentRecord) {
	if cr.Slots[cr.Active].Image == nil {
		rel := cfg.Release[c.Name]
		cr.Slots[cr.Active].Image = &imageRecord{Version: rel.Version, Sequence: rel.Sequence}
	}
}

// checkConfig makes a component read-only whose slots or selector are not those of the record: two
// configurations that disagree must not write to each other's partitions.
func (s *Service) checkConfig(r *record) {
	for _, c := range s.components {
		var selector string
		if s.cfg.Selector != nil {
			selector = s.cfg.Selector.Kind()
		}
		p := differing(r, c.Component, selector)
		if p != nil {
			s.log.Warn("component is read-only", "component", c.Name, "reason", string(p.reason), "why", p.text)
		}
		s.mu.Lock()
		c.readOnly = p
		s.mu.Unlock()
	}
}

// differing says why nothing may be written to c: a slot is missing, or its configuration differs
// from the record. nil if it may.
func differing(r *record, c Component, selector string) *problem {
	for i, slot := range c.Slots {
		if m, ok := slot.(MissingSlot); ok {
			return &problem{reason: ReasonSlotMissing, text: fmt.Sprintf("slot %s cannot be found: %v", BankOf(i), m.Err)}
		}
	}
	cr := r.Components[c.Name]
	if cr == nil {
		return nil
	}
	if cr.ID != c.ID {
		return &problem{reason: ReasonConfigDiffers, text: fmt.Sprintf("its id is %d, and the record has %d", c.ID, cr.ID)}
	}
	if !c.Live && r.Selector != "" && r.Selector != selector {
		return &problem{reason: ReasonConfigDiffers, text: fmt.Sprintf("the boot selector is %q, and the record has %q", selector, r.Selector)}
	}
	var resized *problem
	for i, slot := range c.Slots {
		switch info := slot.Info(); {
		// it was missing when the component was recorded, and is there now
		case cr.Slots[i].ID == "":
		case !cr.Slots[i].is(info):
			return &problem{reason: ReasonConfigDiffers, text: fmt.Sprintf("slot %s is %s, and the record has %s", BankOf(i), info.ID, cr.Slots[i].ID)}
		case info.Size != cr.Slots[i].Size:
			resized = &problem{reason: ReasonSlotResized, text: fmt.Sprintf("slot %s has %d bytes, and the record has %d", BankOf(i), info.Size, cr.Slots[i].Size)}
		}
	}
	return resized
}

// begun makes the first record, or the first after the last one was lost.
func (s *Service) begun(ctx context.Context, sel Selection, lost error) error {
	if s.cfg.Release == nil {
		return refuse(NotPermitted, ReasonRecordLost, "%v, and the running system has no release record; fwu-ab provision makes one", lost)
	}
	r := s.cfg.fresh()
	if err := s.findLive(ctx, r); err != nil {
		return err
	}
	s.publish(r)
	sit := s.find(r, sel)
	sit.state = unrecorded
	return s.settle(ctx, sit, lost)
}

// first is the first record, or the first one after the last was lost. With trial, the running bank
// is not the default.
func (s *Service) first(lost error, trial bool) save {
	return save{"first record", func(r *record) {
		s.stampRecord(r)
		if trial {
			r.Trial = &trialRecord{Bank: s.cfg.Boot.Bank}
		}
		for _, c := range s.cfg.Components {
			cr := r.Components[c.Name]
			if trial { // the running image was never accepted
				cr.Floor = 0
			}
			switch {
			case trial && !c.Live:
				cr.set(Rejected, GenericError, ReasonRecordLost, "the record was lost while this bank was not the default")
			case errors.Is(lost, errRecordLost):
				cr.set(Ready, Success, ReasonRecordLost, "the record was lost; the version is that of the release record")
			}
		}
	}}
}

// findLive finds the active slots of live components, of which no record tells: a slot that cannot
// be started is not active. Where both can, it is the first one.
func (s *Service) findLive(ctx context.Context, r *record) error {
	for _, c := range s.cfg.Components {
		if !c.Live {
			continue
		}
		first, err := c.Slots[0].Bootable(ctx)
		if err != nil {
			return s.slotError(s.component(c.ID), 0, err)
		}
		if first {
			continue
		}
		second, err := c.Slots[1].Bootable(ctx)
		if err != nil {
			return s.slotError(s.component(c.ID), 1, err)
		}
		if second {
			cr := r.Components[c.Name]
			cr.Active, cr.Slots[0].Image = 1, nil
			s.cfg.describe(c, cr)
		}
	}
	return nil
}
