package partition

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// TestAnyCourse writes, syncs, resumes and fails at random, and compares with a model: the bytes
// that the client believes to be there.
func TestAnyCourse(t *testing.T) {
	const blocks = 80 // more than a head
	media := map[string]func(*sim) Device{
		"one access after the other": func(s *sim) Device { return s },
		"with a command to zero":     func(s *sim) Device { return &zeroer{sim: s} },
		"concurrent":                 func(s *sim) Device { return &parallel{sim: s} },
	}
	for name, medium := range media {
		for _, size := range []int{4096, 16384, 0} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) {
					dev := &sim{t: t, medium: make([]byte, blocks*blockSize)}
					m := newImage(onMeter(medium(dev)), dev.Size(), Options{Piece: size})
					defer m.stop()
					c := &course{m: m, dev: dev, model: bytes.Repeat([]byte{0xff}, fwu.HeadSize)}
					c.model = append(c.model, make([]byte, len(dev.medium)-len(c.model))...)
					if err := m.Resume(context.Background(), sha256.New(), 0); err != nil {
						t.Fatal(err)
					}
					t.Repeat(map[string]func(*rapid.T){
						"write": c.write, "append": c.append, "space": c.space, "sync": c.sync, "checkpoint": c.checkpoint, "resume": c.resume, "sum": c.sum, "fail": c.fail,
					})
				})
			})
		}
	}
}

type course struct {
	m     *image
	dev   *sim
	model []byte
	next  int64 // end of the write before
}

func (c *course) put(t *rapid.T, off int64) {
	n := rapid.Int64Range(1, 40000).Draw(t, "length")
	n = min(n, int64(len(c.model))-off)
	if n <= 0 {
		return
	}
	c.give(t, bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, int(n)), off)
}

// give writes p. The image may not keep it, nor change it.
func (c *course) give(t *rapid.T, p []byte, off int64) {
	before := bytes.Clone(p)
	if err := c.m.WriteAt(context.Background(), p, off); err != nil {
		t.Fatal(err)
	}
	end := copy(c.model[off:], before) + int(off)
	clear(c.model[end:roundUp(int64(end))])
	c.next = int64(end)
}

func (c *course) write(t *rapid.T) {
	c.put(t, rapid.Int64Range(0, int64(len(c.model)/blockSize)-1).Draw(t, "block")*blockSize)
}

func (c *course) append(t *rapid.T) { c.put(t, c.next) }

// space asks for memory anywhere, fills it, and writes it where it belongs, or elsewhere.
func (c *course) space(t *rapid.T) {
	block := rapid.Int64Range(0, int64(len(c.model)/blockSize)-1).Draw(t, "block") * blockSize
	off := rapid.SampledFrom([]int64{block, c.next}).Draw(t, "offset")
	p := c.m.Space(off)
	if off != c.next && p != nil {
		t.Fatalf("memory for %d, and the image goes on at %d", off, c.next)
	}
	if len(p) == 0 {
		return
	}
	p = p[:min(rapid.Int64Range(1, int64(len(p))).Draw(t, "length"), int64(len(c.model))-off)]
	for i := range p {
		p[i] = byte(i)
	}
	if block != c.next && block+int64(len(p)) <= int64(len(c.model)) {
		if err := c.m.WriteAt(context.Background(), p, block); err == nil {
			t.Fatalf("memory for %d was taken at %d", off, block)
		}
	}
	c.give(t, p, off)
}

// checkpoint promises nothing that the medium has not.
func (c *course) checkpoint(t *rapid.T) {
	prefix, err := c.m.Checkpoint(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(c.model[:prefix])
	mask(want, 0)
	sameBytes(t, "medium", c.dev.medium[:prefix], want)
}

func (c *course) sync(t *rapid.T) {
	prefix, err := c.m.Sync(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(c.model)
	mask(want, 0)
	sameBytes(t, "medium", c.dev.medium, want)
	if c.m.sum.n < roundDown(prefix) {
		t.Fatalf("%d bytes are hashed of a prefix of %d", c.m.sum.n, prefix)
	}
	c.m.sum.end()
	if !bytes.Equal(c.m.sum.sum(), digest(c.model[:c.m.sum.n])) {
		t.Fatalf("the hash is not that of the first %d bytes", c.m.sum.n)
	}
}

// resume goes on anywhere: the bytes behind n up to the next block are void for the client, but
// zero once it writes at n.
func (c *course) resume(t *rapid.T) {
	c.sync(t)
	n := rapid.Int64Range(0, int64(len(c.model))).Draw(t, "n")
	if err := c.m.Resume(context.Background(), sha256.New(), n); err != nil {
		t.Fatal(err)
	}
	c.next = n
}

func (c *course) sum(t *rapid.T) {
	n := rapid.Int64Range(0, int64(len(c.model))).Draw(t, "size")
	sum, head, err := c.m.Sum(context.Background(), n, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sum, digest(c.model[:n])) {
		t.Fatalf("digest of %d bytes is wrong", n)
	}
	equal(t, "head", head, newHead(c.model[:roundUp(min(n, fwu.HeadSize))]))
}

// fail lets a flush fail; the medium keeps its content, and the client goes on from the prefix.
func (c *course) fail(t *rapid.T) {
	c.put(t, 0)
	c.m.pending() // nobody has the medium
	c.dev.failSync = errMedium
	prefix, err := c.m.Sync(context.Background())
	if !errors.Is(err, errMedium) {
		t.Fatalf("sync: %v", err)
	}
	if err := c.m.Resume(context.Background(), sha256.New(), prefix); err != nil {
		t.Fatal(err)
	}
	copy(c.model, c.dev.medium)
	mask(c.model, 0)
	c.next = prefix
}
