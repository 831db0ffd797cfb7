package fwu

import (
	"bytes"
	"context"
	"fmt"

	"github.com/fwu-ab/fwu-ab/suit"
)

// A bank that is STAGED lies plain in its slots until the reboot: anybody could mount and change
// it, and the bootloader would start the change. So install keeps the slots open, and the service
// stays until the reboot or a reject. A service that was away meanwhile (it crashed, or was
// replaced) takes the slots again and compares them with the digests, as anybody may have been
// there.

// Holder is an Image that knows how well its slot is held. Without it, nobody else can write to the
// slot or mount it while the Image is open.
type Holder interface {
	// Exclusive is false if only those who ask for a lock are kept away, as from a regular file.
	Exclusive() bool
}

// keepsAway tells whether nobody can have changed a slot while img was open.
func keepsAway(img Image) bool {
	h, ok := img.(Holder)
	return !ok || h.Exclusive()
}

// Holding tells whether the service holds the slots of a bank that waits for its first start. While
// it does it has to stay.
func (s *Service) Holding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.degraded == nil && s.armed()
}

// armed tells whether a bank is STAGED and armed. The caller holds s.mu.
func (s *Service) armed() bool {
	r := s.rec
	return r != nil && r.Trial != nil && r.Trial.Bank != s.cfg.Boot.Bank && !r.Trial.Rejecting &&
		s.sel == Selection{Default: s.cfg.Boot.Bank, Trial: r.Trial.Bank}
}

// stagedMembers are the members of the bank that an install made, those that were carried over
// included.
func (s *Service) stagedMembers(r *record) []*component {
	var out []*component
	for _, c := range s.components {
		if cr := r.Components[c.Name]; !c.Live && (cr.State == Staged || cr.Carried) {
			out = append(out, c)
		}
	}
	return out
}

// giveUpStaged gives up the slots of a bank that was staged. The holder of the op of all members
// calls it.
func (s *Service) giveUpStaged(members []*component) {
	for _, c := range members {
		if err := s.release(c); err != nil {
			s.log.Warn("slot not given up cleanly", "component", c.Name, "err", err)
		}
	}
}

// holdAgain takes the slots of an armed bank, and verifies them. A bank that it cannot take or
// verify it disarms; it returns the problem that it could not even do that. It reads in a goroutine
// of its own if cfg.Background is set: until that ends it has s.install, so that nothing else is
// done to the bank.
func (s *Service) holdAgain() *problem {
	s.mu.Lock()
	armed := s.armed()
	s.mu.Unlock()
	if !armed {
		return nil
	}
	s.install.force()
	members := s.stagedMembers(s.record())
	err := s.takeStaged(s.life, members)
	verify := func() *problem {
		defer s.install.give()
		s.works(1)
		defer s.works(-1)
		if err == nil {
			err = s.verifyStaged(s.life, members)
		}
		if err == nil || s.life.Err() != nil {
			return nil
		}
		return s.giveBank(members, err)
	}
	if !s.cfg.Background {
		return verify()
	}
	s.tasks.Go(func() {
		if p := verify(); p != nil {
			s.setProblem(p)
		}
	})
	return nil
}

// takeStaged opens the slots of a bank that is STAGED.
func (s *Service) takeStaged(ctx context.Context, members []*component) error {
	bank := s.record().Trial.Bank.Index()
	for _, c := range members {
		if c.held != nil {
			continue
		}
		img, err := c.Slots[bank].Open(ctx)
		if err != nil {
			return s.slotError(c, bank, err)
		}
		c.held = img
	}
	return nil
}

// verifyStaged compares each slot of a bank that is STAGED with its digest.
func (s *Service) verifyStaged(ctx context.Context, members []*component) error {
	bank := s.record().Trial.Bank.Index()
	for _, c := range members {
		if err := s.verifyPlain(ctx, c, bank); err != nil {
			return s.slotError(c, bank, err)
		}
	}
	return nil
}

// giveBank disarms a bank that cannot be verified, and gives its slots up.
func (s *Service) giveBank(members []*component, why error) *problem {
	s.log.Error("the bank that was armed cannot be verified again: it is disarmed", "err", why)
	for _, c := range members {
		c.op.force()
		defer c.op.give()
	}
	err := s.run(context.Background(), s.disarmed(why))
	s.giveUpStaged(members)
	if err != nil {
		return &problem{reasonOr(err, ReasonReconcile), fmt.Sprintf("disarm a bank that cannot be verified: %v", err), StatusOf(err) == StorageFailure}
	}
	return nil
}

// verifyPlain compares an image that is not sealed with its digest.
func (s *Service) verifyPlain(ctx context.Context, c *component, slot int) error {
	img := imageIn(s.record().Components[c.Name], BankOf(slot))
	want, err := parseDigest(img.Digest)
	if err != nil {
		return &Error{Status: GenericError, Reason: ReasonImageDigest, Text: "record of " + c.Name, Err: err}
	}
	src, err := c.Slots[slot].Source(ctx)
	if err != nil {
		return err
	}
	sum, err := s.digestOf(ctx, src, want, img.Size)
	if err = closeQuietly(src, err); err != nil {
		return err
	}
	if !bytes.Equal(sum, want.Sum) {
		err := refuse(InvalidSignature, ReasonImageDigest, "%s: slot %s was changed after it was installed", c.Name, BankOf(slot))
		err.Components = []ID{c.ID}
		return err
	}
	return nil
}

// digestOf reads an image as it lies in its slot.
func (s *Service) digestOf(ctx context.Context, src Source, d suit.Digest, size int64) ([]byte, error) {
	h, buf := d.New(), Buffer(MaxWriteSize)
	for off := int64(0); off < size; {
		s.works(0)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p := buf[:min(int64(len(buf)), size-off)]
		if err := ReadFull(src, p, off); err != nil {
			return nil, err
		}
		h.Write(p)
		off += int64(len(p))
	}
	return h.Sum(nil), nil
}

// disarmed takes an armed bank back. One that differs from the installed image is FAILED. One that
// cannot be looked at is a candidate again: install verifies it once more.
func (s *Service) disarmed(why error) plan {
	if StatusOf(why) == InvalidSignature {
		return s.rejectStaged(Rejection{InvalidSignature, ReasonImageDigest, why.Error()})
	}
	p := plan{do: []effect{s.arming(true), disarm{s.cfg.Boot.Bank}}}
	p.do = append(p.do, s.sealTrial(s.record())...)
	p.do = append(p.do, save{"CANDIDATE", func(r *record) {
		members := s.inStateOf(r, Staged)
		s.unstage(r, false)
		for _, c := range members {
			if cr := r.Components[c.Name]; cr.State == Candidate {
				cr.set(Candidate, Success, ReasonOf(why), fmt.Sprintf("it was armed, and is not any more: %v", why))
			}
		}
	}})
	return p
}
