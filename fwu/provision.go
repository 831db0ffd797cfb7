package fwu

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/fwu-ab/fwu-ab/suit"
)

// ErrProvisioned is returned by Provision if the store has a record already.
var ErrProvisioned = constError("the store has a record already")

// Provision writes the first record of a device, in a factory or while its disk image is built: what runs is cfg.Boot.Bank with the versions of cfg.Release.
// The active image of each component is read and its digest recorded, over its size in sizes or, where that names none, over the whole slot: with it, the image can be carried over
// to the other bank by an update that does not bring it. The selector is made to start cfg.Boot.Bank. With force, a record that is there is overwritten, and with it every floor.
func Provision(ctx context.Context, cfg Config, sizes map[string]int64, force bool) error {
	store, err := OpenStore(cfg.Store)
	if err != nil {
		return err
	}
	switch _, err := store.load(); {
	case errors.Is(err, errNoRecord), errors.Is(err, errRecordLost), force:
	case err == nil, errors.Is(err, errRecordVersion):
		return ErrProvisioned
	default:
		return err
	}
	for _, c := range cfg.Components {
		for i, slot := range c.Slots {
			if m, ok := slot.(MissingSlot); ok {
				return fmt.Errorf("provision %s: slot %s cannot be found: %w", c.Name, BankOf(i), m.Err)
			}
		}
	}
	r := cfg.fresh()
	r.Bank = cfg.Boot.Bank
	for _, c := range cfg.Components {
		if err := provisionComponent(ctx, c, r.Components[c.Name], sizes[c.Name]); err != nil {
			return fmt.Errorf("provision %s: %w", c.Name, err)
		}
	}
	if cfg.Selector != nil {
		r.Selector = cfg.Selector.Kind()
		if err := cfg.Selector.Commit(Selection{Default: cfg.Boot.Bank}); err != nil {
			return fmt.Errorf("provision: commit the boot selection: %w", err)
		}
		if rep, ok := cfg.Selector.(Repairer); ok {
			if err := rep.Repair(); err != nil {
				return fmt.Errorf("provision: %w", err)
			}
		}
	}
	for range 2 { // both copies
		if err := store.save(r); err != nil {
			return fmt.Errorf("provision: %w", err)
		}
	}
	return nil
}

func provisionComponent(ctx context.Context, c Component, cr *componentRecord, size int64) error {
	slot := c.Slots[cr.Active]
	if size == 0 {
		size = slot.Info().Size
	}
	src, err := slot.Source(ctx)
	if err != nil {
		return err
	}
	d := suit.Digest{Hash: crypto.SHA256}
	h := d.New()
	n, err := io.CopyBuffer(h, io.NewSectionReader(src, 0, size), make([]byte, MaxWriteSize))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err = closeQuietly(src, err); err != nil {
		return fmt.Errorf("read %s: %w", slot.Info().Path, err)
	}
	d.Sum = h.Sum(nil)
	img := *cr.image()
	img.Digest, img.Size = d.String(), size
	cr.Slots[cr.Active].Image = &img
	cr.Floor = max(cr.Floor, img.Sequence)
	return nil
}

// ForgetFailures makes a store forget which images failed their trials, and how many reboots
// bypassed the bootloader, so that they can be started again. No service may have the store open.
func ForgetFailures(m Medium) error {
	store, err := OpenStore(m)
	if err != nil {
		return err
	}
	r, err := store.load()
	if err != nil {
		return err
	}
	for _, c := range r.Components {
		c.Failed, c.Bypassed = nil, nil
	}
	return store.save(r)
}

// StoreReport says what a store holds, for people.
type StoreReport struct {
	Copies     [2]string // what each copy is
	Format     string    // of the record that counts
	Generation uint64
	Trial      Bank // that is STAGED, on trial or rejected; NoBank if there is none
	Rebooted   bool // the one automatic reboot out of that trial was used up

	record *record // that counts, nil if there is none
}

// ReadOnly says why the service would not write to c: its configuration differs from the record.
// reason is empty if it would. selector is the kind of the configured selector.
func (r StoreReport) ReadOnly(c Component, selector string) (reason Reason, text string) {
	if r.record == nil {
		return "", ""
	}
	if p := differing(r.record, c, selector); p != nil {
		return p.reason, p.text
	}
	return "", ""
}

// Refusal says why a service with this record answers queries only, by the rules of a start; nil if
// it serves. It opens slots to read them, and changes nothing.
func (r StoreReport) Refusal(ctx context.Context, cfg Config) error {
	if r.record == nil || cfg.Selector == nil || cfg.Boot.Bank == NoBank {
		return nil
	}
	sel, err := cfg.Selector.Read()
	if err != nil && !errors.Is(err, ErrNoSelection) {
		return err
	}
	rec := r.record.clone()
	cfg.adopt(rec)
	s := &Service{cfg: cfg, log: slog.New(slog.DiscardHandler), rec: rec}
	for _, c := range cfg.Components {
		s.components = append(s.components, &component{Component: c})
	}
	sit := s.find(rec, sel)
	if sit.other = otherStartable; sit.decidesOther() {
		look := rec.clone()
		// to compare the heads of a STAGED bank, a start opens its slots to be written
		look.Trial = nil
		sit.other = s.lookAtOther(ctx, look)
		if sit.state&(staged|sure|rejecting) != 0 && sit.other != otherUnreadable {
			sit.other = otherStartable
		}
	}
	found, err := judge(sit.finding)
	if err != nil {
		return err
	}
	return s.refusal(found.end, sit)
}

// InspectStore looks at a store and changes nothing. The error says why there is no record that counts.
func InspectStore(m Medium) (StoreReport, error) {
	var rep StoreReport
	store, err := OpenStore(m)
	if err != nil {
		return rep, err
	}
	for i := range rep.Copies {
		c, err := store.readCopy(i)
		switch {
		case err != nil:
			rep.Copies[i] = err.Error()
		default:
			rep.Copies[i] = fmt.Sprintf("good, format %d.%d, generation %d, %d bytes", c.major, c.minor, c.generation, len(c.payload))
			if c.generation > rep.Generation {
				rep.Format, rep.Generation = fmt.Sprintf("%d.%d", c.major, c.minor), c.generation
			}
		}
	}
	r, err := store.load()
	rep.record = r
	if err == nil && r.Trial != nil {
		rep.Trial, rep.Rebooted = r.Trial.Bank, r.Trial.Rebooted
	}
	return rep, err
}
