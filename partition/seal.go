package partition

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Destroy overwrites the head with zeroes, and each second header outside of it. The Writer has to
// be resumed afterwards; its buffered data is lost.
func (m *image) Destroy(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.stop()
	zeroes := fwu.Buffer(int(min(fwu.HeadSize, m.size)))
	if err := m.replace(zeroes, 0); err != nil {
		return fmt.Errorf("destroy head: %w", err)
	}
	if err := m.destroyPlaces(); err != nil {
		return fmt.Errorf("destroy what is outside of the head: %w", err)
	}
	return nil
}

// Seal masks each sector of the head that is plain, and then each second header. If the head is not
// h's it wraps fwu.ErrReadBack and writes nothing: the caller then uses Destroy.
func (m *image) Seal(ctx context.Context, h fwu.Head) error {
	return m.seal(ctx, h, "seal", true)
}

// Unseal makes each second header plain that is masked, and then each sector of the head. If the
// head is not h's it wraps fwu.ErrReadBack and writes nothing.
func (m *image) Unseal(ctx context.Context, h fwu.Head) error {
	return m.seal(ctx, h, "unseal", false)
}

func (m *image) seal(ctx context.Context, h fwu.Head, verb string, masked bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.pending() {
		return fmt.Errorf("%s %s: there are writes that were not synced", verb, m.dev.name)
	}
	m.stop()
	plain, _, err := m.plainHead(h)
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if !isHead(plain, h) {
		return fmt.Errorf("%s %s: the head is not the one that was recorded: %w", verb, m.dev.name, fwu.ErrReadBack)
	}
	if masked {
		mask(plain, 0)
	} else if err := m.maskPlaces(false); err != nil { // the head is the last write
		return fmt.Errorf("%s: %w", verb, err)
	}
	// Even what seems to be done is written: what was read may be of a write whose flush failed.
	if err := m.replace(plain, 0); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if masked {
		if err := m.maskPlaces(true); err != nil {
			return fmt.Errorf("%s: %w", verb, err)
		}
	}
	return nil
}

// HeadState returns the state of the head on the medium, whatever is still buffered. A head of no
// sectors, that of an empty image, is plain. A head that cannot be read is HeadUnknown, with the
// error: it is never HeadOther. The slot is HeadMasked only if each second header is masked, too.
func (m *image) HeadState(ctx context.Context, h fwu.Head) (fwu.HeadState, error) {
	if err := ctx.Err(); err != nil {
		return fwu.HeadUnknown, err
	}
	head, masked, err := m.plainHead(h)
	switch {
	case err != nil:
		return fwu.HeadUnknown, fmt.Errorf("look at the head: %w", err)
	case !isHead(head, h):
		return fwu.HeadOther, nil
	case masked == 0:
		return fwu.HeadPlain, nil
	case masked < h.Sectors:
		return fwu.HeadMixed, nil
	}
	// A cut unmasking begins with the second headers, a cut sealing ends with them.
	plain, err := m.anyPlacePlain()
	switch {
	case err != nil:
		return fwu.HeadUnknown, fmt.Errorf("look at the second headers: %w", err)
	case plain:
		return fwu.HeadMixed, nil
	}
	return fwu.HeadMasked, nil
}

// plainHead reads the head, inverts each sector that is masked according to h, and counts those.
func (m *image) plainHead(h fwu.Head) (head []byte, masked int, err error) {
	if h.Sectors < 0 || int64(h.Sectors) > min(fwu.HeadSize, m.size)/fwu.SectorSize || h.Sectors%(blockSize/fwu.SectorSize) != 0 ||
		len(h.Bits) != h.Sectors/8 || len(h.SHA256) != sha256.Size {
		return nil, 0, fmt.Errorf("record of a head of %d sectors, %d bytes of bits and a digest of %d bytes does not fit %s",
			h.Sectors, len(h.Bits), len(h.SHA256), m.dev.name)
	}
	head = fwu.Buffer(h.Sectors * fwu.SectorSize)
	if len(head) == 0 {
		return head, 0, nil
	}
	if err := m.dev.readFull(head, 0); err != nil {
		return nil, 0, err
	}
	for n := range h.Sectors {
		sector := head[n*fwu.SectorSize : (n+1)*fwu.SectorSize]
		if sector[0]&1 != h.Bits[n/8]>>(n%8)&1 {
			mask(sector, 0)
			masked++
		}
	}
	return head, masked, nil
}

func isHead(plain []byte, h fwu.Head) bool {
	sum := sha256.Sum256(plain)
	return bytes.Equal(sum[:], h.SHA256)
}

// replace writes stored in one write, flushes and reads it back.
func (m *image) replace(stored []byte, off int64) error {
	if len(stored) == 0 {
		return nil
	}
	if err := m.dev.writeFull(stored, off); err != nil {
		return err
	}
	if err := m.dev.flush(); err != nil {
		return err
	}
	got := fwu.Buffer(len(stored))
	if err := m.dev.readFull(got, off); err != nil {
		return err
	}
	if !bytes.Equal(got, stored) {
		return m.dev.differs(off, off+int64(len(got)))
	}
	return nil
}
