package fwu

import (
	"bytes"
	"context"
	"fmt"

	"github.com/fwu-ab/fwu-ab/suit"
)

// carryOver copies the active image of a component into its second slot, so that the new bank is
// whole. Nobody may write to the source meanwhile, and it must be the image that was verified when
// it was installed: a bank is made of known images only.
type carryOver struct {
	c          *component
	from       int          // slot of the active image
	active     *imageRecord // the image
	want       suit.Digest
	checkpoint int64 // bytes between two checkpoints
	progress   func(done, total int64)
}

// carryOver makes the copy, and leaves the second slot held until the install ends.
func (s *Service) carryOver(ctx context.Context, c *component, inst *installation) error {
	cr := s.record().Components[c.Name]
	o := carryOver{c: c, from: cr.Active, active: cr.image(), checkpoint: s.cfg.Checkpoint, progress: s.progress(c)}
	var err error
	if o.want, err = parseDigest(o.active.Digest); err != nil || o.active.Size <= 0 {
		return o.refused("what the active slot holds was never recorded (fwu-ab provision does it)")
	}
	if o.active.Size > maxSize(c) {
		return o.refused("it is larger than the second slot")
	}
	src, err := c.Slots[o.from].Source(ctx)
	if err != nil {
		return s.slotError(c, o.from, err)
	}
	head, err := o.run(ctx, src)
	if err = closeQuietly(src, err); err != nil {
		return s.slotError(c, 1-o.from, err)
	}
	img := *o.active
	img.Head, img.Payload, img.Written = &head, 0, 0
	inst.copies[c.ID] = &img
	return nil
}

// refused is why the active image cannot be copied.
func (o carryOver) refused(why string) *Error {
	err := needs(o.c, "%s must be part of this update: its active image cannot be carried over to the new bank: %s", o.c.Name, why)
	err.Reason = ReasonCarryOver
	return err
}

// run copies the image, and checks that the source was not changed meanwhile.
func (o carryOver) run(ctx context.Context, src Source) (Head, error) {
	if err := src.Frozen(); err != nil {
		return Head{}, o.refused(err.Error())
	}
	img, err := o.c.Slots[1-o.from].Open(ctx)
	if err != nil {
		return Head{}, err
	}
	o.c.held = img // until the install ends: nobody writes to the verified copy
	sum, head, err := o.copy(ctx, img, src)
	if err != nil {
		return Head{}, err
	}
	if err := src.Frozen(); err != nil {
		return Head{}, o.refused(err.Error())
	}
	if !bytes.Equal(sum, o.want.Sum) {
		return Head{}, o.refused("it is not what was recorded when it was installed")
	}
	return head, nil
}

// copy writes the image to img as a client would have written it.
func (o carryOver) copy(ctx context.Context, img Image, src Source) (sum []byte, head Head, err error) {
	if err := img.Destroy(ctx); err != nil {
		return nil, Head{}, err
	}
	if err := img.Resume(ctx, o.want.New(), 0); err != nil {
		return nil, Head{}, err
	}
	size := o.active.Size
	for off, dirty := int64(0), int64(0); off < size; {
		p := img.Space(off)
		p = p[:min(size-off, int64(len(p)))]
		if err := ReadFull(src, p, off); err != nil {
			return nil, Head{}, fmt.Errorf("copy from %d on: %w", off, err)
		}
		if err := img.WriteAt(ctx, p, off); err != nil {
			return nil, Head{}, err
		}
		off += int64(len(p))
		if dirty += int64(len(p)); dirty >= o.checkpoint {
			dirty = 0
			if _, err := img.Checkpoint(ctx); err != nil {
				return nil, Head{}, err
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, Head{}, err
		}
		o.progress(off, size)
	}
	return img.Sum(ctx, size, nil)
}
