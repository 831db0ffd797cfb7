package partition

import (
	"context"
	"fmt"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// discardSize is how much is discarded at a time, so that Erase can be cancelled.
const discardSize = 64 << 20

// Erase destroys the head, discards everything where that is wanted and the medium offers it, and overwrites the first and the last MiB with zeroes in any case: a discard is a hint,
// whatever the medium says of it. Without one the slot keeps the rest of what it held, and the next image is compared with that. The Writer has to be resumed afterwards.
func (m *image) Erase(ctx context.Context, progress func(done, total int64)) error {
	if err := m.Destroy(ctx); err != nil {
		return err
	}
	if err := m.discardAll(ctx, progress); err != nil {
		return fmt.Errorf("erase %s: %w", m.dev.name, err)
	}
	zeroes := fwu.Buffer(int(min(bufferSize, m.size)))
	n := int64(len(zeroes))
	for _, off := range []int64{0, n, m.size - 2*n, m.size - n} {
		if err := m.replace(zeroes, max(0, min(off, m.size-n))); err != nil {
			return fmt.Errorf("erase: %w", err)
		}
	}
	if progress != nil {
		progress(m.size, m.size)
	}
	return nil
}

// discardAll gives up at the first range that the medium does not take: nothing depends on it.
func (m *image) discardAll(ctx context.Context, progress func(done, total int64)) error {
	d, ok := m.dev.Device.(Discarder)
	ok = ok && m.options.Discard
	for off := int64(0); ok && off < m.size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(discardSize, m.size-off)
		ok = d.Discard(off, n) == nil
		off += n
		if ok && progress != nil && off < m.size {
			progress(off, m.size)
		}
	}
	return ctx.Err()
}
