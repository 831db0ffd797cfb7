package fwu

import "math"

// The rollback floor of a component never goes down, so a single image with the highest sequence
// number there is would be the last one with a number of its own. Two bounds keep that from
// happening. Up to FreeSequence a manifest may have any number, so that a count, a date and a time
// in nanoseconds all do. Above it, a number exceeds the floor by MaxSequenceStep at most: the last
// number is more updates away than a device can take.
const (
	FreeSequence    uint64 = 1 << 62
	MaxSequenceStep uint64 = 1 << 32
)

// highestSequence returns the highest sequence number that is taken where the floor is that.
func highestSequence(floor uint64) uint64 {
	if floor > math.MaxUint64-MaxSequenceStep {
		return math.MaxUint64
	}
	return max(FreeSequence, floor+MaxSequenceStep)
}
