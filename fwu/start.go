package fwu

import (
	"context"
	"errors"
	"fmt"
)

// Start is psa_fwu_start (section 5.6.1). A detached manifest is verified here, whole; it names the
// digest that the image must have.
func (s *Service) Start(ctx context.Context, id ID, manifest []byte) error {
	c, _, err := s.acquire(ctx, id, evStart)
	if err != nil {
		return err
	}
	defer c.op.give()
	img, err := s.startsWith(c, manifest)
	if err != nil {
		s.refused(c.Name, err)
		return fmt.Errorf("start: %w", err)
	}
	img.By = clientOf(ctx)
	return s.startWriting(ctx, c, img)
}

// startsWith returns the record of the image that an update of c starts with: the image of a
// detached manifest, else an empty one.
func (s *Service) startsWith(c *component, manifest []byte) (*imageRecord, error) {
	switch {
	case c.Manifest == Detached && len(manifest) == 0:
		return nil, refuse(InvalidArgument, ReasonManifestMissing, "%s expects a detached manifest, and none was given", c.Name)
	case c.Manifest != Detached && len(manifest) > 0:
		return nil, refuse(InvalidArgument, ReasonManifestUnexpected, "%s takes no detached manifest (manifest = %q)", c.Name, c.Manifest)
	case c.Manifest == Detached:
		return s.recipient().read(c, manifest, nil)
	}
	return &imageRecord{}, nil
}

func (s *Service) startWriting(ctx context.Context, c *component, img *imageRecord) error {
	if err := s.bank.take(ctx); err != nil {
		return err
	}
	defer s.bank.give()
	if err := s.claimSecondBank(ctx, c); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := s.release(c); err != nil {
		return s.slotError(c, 1-s.record().Components[c.Name].Active, err)
	}
	if err := s.openTransfer(ctx, c, img, 0); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	r := s.record()
	p := plan{do: append(s.destroySecond(r, c, false), save{"WRITING", func(r *record) {
		cr := r.Components[c.Name]
		cr.set(s.move(r, c.Component, evStart), Success, "", "")
		cr.Carried = false
		cr.second().Image = img
	}})}
	if err := s.run(ctx, p); err != nil {
		return fmt.Errorf("start: %w", errors.Join(err, s.release(c)))
	}
	s.setWritten(c, 0)
	if err := s.readOn(ctx, c); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return nil
}

// openTransfer opens c's second slot and goes on with img at written.
func (s *Service) openTransfer(ctx context.Context, c *component, img *imageRecord, written int64) (err error) {
	cr := s.record().Components[c.Name]
	t, err := newTransfer(c.Manifest, img, written)
	if err != nil {
		return &Error{Status: GenericError, Reason: ReasonManifestInvalid, Text: "record of " + c.Name, Err: err}
	}
	if t.image, err = c.Slots[1-cr.Active].Open(ctx); err != nil {
		return s.slotError(c, 1-cr.Active, err)
	}
	c.transfer = t
	s.setPrepared(c, t.end)
	s.counting(c, t.image)
	return nil
}

// readOn makes the slot ready to be written from where the transfer is. It reads the bytes before
// that again.
func (s *Service) readOn(ctx context.Context, c *component) error {
	t := c.transfer
	if err := t.image.Resume(ctx, t.digest.New(), t.end); err != nil {
		return s.void(c, err)
	}
	return nil
}

// resume makes sure that there is a transfer: a restart of the service, or an error of the medium,
// ended the one before.
func (s *Service) resume(ctx context.Context, c *component, cr *componentRecord) error {
	if c.transfer != nil {
		return nil
	}
	if err := s.openTransfer(ctx, c, cr.next(), s.durable(c)); err != nil {
		return err
	}
	c.transfer.resumed, c.transfer.lost = true, cr.next().Open
	return s.readOn(ctx, c)
}
