package partition

import (
	"context"
	"fmt"
)

// Extent is where something lies: Size bytes from Start on in the device or file at Path.
type Extent struct {
	Path  string
	Start int64
	Size  int64
}

// Locate tells where spec lies, for somebody who opens it by other means than a Slot. Start is 0 if what spec names has a node of its own.
func (f Finder) Locate(ctx context.Context, spec string) (Extent, error) {
	if err := ctx.Err(); err != nil {
		return Extent{}, err
	}
	t, _, err := f.locate(spec)
	if err != nil {
		return Extent{}, fmt.Errorf("find %s: %w", spec, err)
	}
	return Extent{t.path, t.base, t.size}, nil
}
