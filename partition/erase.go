package partition

import (
	"context"
	"fmt"
)

// discardSize is how much is discarded at a time, so that Erase can be cancelled.
const discardSize = 64 << 20

// Erase destroys the head, discards everything where the medium offers that, and overwrites the first and the last MiB with zeroes in any case: a discard is a hint,
// whatever the medium says of it. A slot whose medium takes no discard keeps the rest of what it held. The Writer has to be resumed afterwards.
func (m *image) Erase(ctx context.Context, progress func(done, total int64)) error {
	if err := m.Destroy(ctx); err != nil {
		return err
	}
	if err := m.discard(ctx, progress); err != nil {
		return fmt.Errorf("erase %s: %w", m.name, err)
	}
	zeroes := m.buf[:min(bufferSize, m.size)]
	clear(zeroes)
	for _, off := range []int64{0, m.size - int64(len(zeroes))} {
		if err := m.replace(zeroes, off); err != nil {
			return fmt.Errorf("erase: %w", err)
		}
	}
	if progress != nil {
		progress(m.size, m.size)
	}
	return nil
}

// discard gives up at the first range that the medium does not take: nothing depends on it.
func (m *image) discard(ctx context.Context, progress func(done, total int64)) error {
	d, ok := m.dev.(Discarder)
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
