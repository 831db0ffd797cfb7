package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/sim"
)

// portion is one write of a client: n bytes at off, of the image or others, by Write or by
// WriteFrom.
type portion struct {
	off, n int64
	other  bool
	from   bool
}

// writeInAnyOrder writes portions, then every block that is not that of the image, and finishes.
func (w *world) writeInAnyOrder(media mediaKind, seed uint64, portions []portion) (err error) {
	w.ordered(device{media: media}, seed, func(o *sim.Order) {
		err = func() error {
			m, err := w.factory(context.Background(), bankDevice(true, false, fwu.Detached).onMedia(media), o)
			if err != nil {
				return err
			}
			defer m.die()
			c := &client{ctx: context.Background(), m: m}
			if err := errors.Join(c.reboot(), c.start(root, 2)); err != nil {
				return err
			}
			want := c.image(root, 2).content
			if err := c.writePortions(want, portions); err != nil {
				return err
			}
			if err := c.finish(root); err != nil {
				return err
			}
			d := m.media.Medium(mediumOf("root", 1))
			got := make([]byte, len(want))
			m.media.Quiet(func() { _, err = d.ReadAt(got, 0) })
			if err != nil {
				return err
			}
			const sealed = fwu.HeadSize + fwu.SectorSize // the head, and the second header behind it
			if !bytes.Equal(got, append(inverted(want[:sealed]), want[sealed:]...)) {
				return errors.New("the slot does not hold the image")
			}
			return nil
		}()
	})
	return err
}

// writePortions keeps a model of the slot: a write that ends within a block leaves zeroes behind
// its end.
func (c *client) writePortions(want []byte, portions []portion) error {
	const block = fwu.WriteAlignment
	model := make([]byte, (len(want)+block-1)/block*block)
	put := func(p portion) error {
		b := bytes.Clone(want[p.off : p.off+p.n])
		if p.other {
			for i := range b {
				b[i] ^= 0x55
			}
		}
		end := p.off + int64(copy(model[p.off:], b))
		clear(model[end : (end+block-1)/block*block])
		if p.from {
			_, err := c.m.service.WriteFrom(c.ctx, root, p.off, bytes.NewReader(b), 0)
			return err
		}
		return c.m.service.Write(c.ctx, root, p.off, b)
	}
	for _, p := range portions {
		if err := put(p); err != nil {
			return fmt.Errorf("%+v: %w", p, err)
		}
	}
	for off := int64(0); off < int64(len(want)); off += block {
		n := min(block, int64(len(want))-off)
		if !bytes.Equal(model[off:off+n], want[off:off+n]) || off+block > int64(len(want)) {
			if err := put(portion{off: off, n: n}); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestMemoryOfASlotIsForOneOffset asks for the memory of the slot where the last write did not end:
// the bytes were overwritten with zeroes there, and Finish said that the image is another one.
func TestMemoryOfASlotIsForOneOffset(t *testing.T) {
	w := newWorld(t)
	for _, media := range []mediaKind{plain, zeroes, concurrent} {
		check(t, w.writeInAnyOrder(media, 1, []portion{{n: 8192}, {n: 5000}, {off: 8192, n: 150_001 - 8192, from: true}, {off: 4096, n: 4096}}))
	}
}

// TestAnyOrderOfWrites makes an image of any writes.
func TestAnyOrderOfWrites(t *testing.T) {
	w := newWorld(t)
	const size = 150_001
	rapid.Check(t, func(r *rapid.T) {
		portions := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) portion {
			off := rapid.Int64Range(0, (size-1)/fwu.WriteAlignment).Draw(r, "block") * fwu.WriteAlignment
			return portion{off, rapid.Int64Range(1, min(size-off, 50_000)).Draw(r, "length"), rapid.Bool().Draw(r, "other"), rapid.Bool().Draw(r, "from")}
		}), 0, 12).Draw(r, "portions")
		media := mediaKind(rapid.IntRange(int(plain), int(concurrent)).Draw(r, "media"))
		if err := w.writeInAnyOrder(media, rapid.Uint64().Draw(r, "seed"), portions); err != nil {
			r.Fatal(err)
		}
	})
}
