package fwu

// policy is the part of the configuration that a valid manifest can fail.
type policy struct{ maxTrials int }

func (s *Service) policy() policy { return policy{s.cfg.MaxTrials} }

// permits tells whether img may be installed on c: it is no rollback, leaves numbers for later
// images, did not fail too often, and fits into the slots.
func (p policy) permits(c *component, cr *componentRecord, img *imageRecord) error {
	switch {
	case img.Manifest != "" && img.Sequence < cr.Floor:
		return refuse(NotPermitted, ReasonSequenceRollback, "sequence number %d is lower than %d, which %s has reached", img.Sequence, cr.Floor, c.Name)
	case img.Sequence > highestSequence(cr.Floor):
		return refuse(NotPermitted, ReasonSequenceTooHigh, "sequence number %d is higher than %d, the highest that %s takes after %d",
			img.Sequence, highestSequence(cr.Floor), c.Name, cr.Floor)
	case cr.failedTrials(img.Digest) >= p.maxTrials:
		return refuse(NotPermitted, ReasonFailedBefore, "this image failed %d trials; fwu-ab reset forgets them", cr.failedTrials(img.Digest))
	case counted(cr.Bypassed, img.Digest) >= p.maxTrials:
		return refuse(NotPermitted, ReasonBootBypassed, "%d reboots into this image bypassed the bootloader; have reboots pass it, and fwu-ab reset forgets them", counted(cr.Bypassed, img.Digest))
	case img.Size > maxSize(c):
		return refuse(InsufficientStorage, ReasonImageTooLarge, "image of %d bytes: the slots of %s take %d", img.Size, c.Name, maxSize(c))
	}
	return nil
}
