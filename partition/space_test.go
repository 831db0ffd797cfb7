package partition

import (
	"crypto/sha256"
	"testing"
)

// TestRewriteThatIsNotStored has a checkpoint while the first block is written again, and still in
// memory.
func TestRewriteThatIsNotStored(t *testing.T) {
	dev := newSim(t, mib)
	m := dev.resumed()
	check(t, m.WriteAt(t.Context(), content(mib/2), 0))
	prefix, err := m.Sync(t.Context())
	check(t, err)
	equal(t, "prefix", prefix, int64(mib/2))
	check(t, m.WriteAt(t.Context(), make([]byte, 100), 4096))
	prefix, err = m.Checkpoint(t.Context())
	check(t, err)
	equal(t, "prefix while a block is only in memory", prefix, int64(4096))
}

// TestSpaceIsForOneOffset lends memory where the image goes on, and takes it there only.
func TestSpaceIsForOneOffset(t *testing.T) {
	plain := content(16384)
	dev := newSim(t, mib)
	m := newImage(onMeter(dev), dev.Size(), Options{})
	check(t, m.Resume(t.Context(), sha256.New(), 0))
	check(t, m.WriteAt(t.Context(), plain[:5000], 0))
	for _, off := range []int64{0, 4096, 4999, 8192, mib} {
		if m.Space(off) != nil {
			t.Errorf("memory for %d, and the image goes on at 5000", off)
		}
	}
	p := m.Space(5000)[:3192]
	copy(p, plain[5000:])
	for off, bytes := range map[int64][]byte{8192: p, 4096: p, 5000: p[1:], 0: p[:100]} {
		if m.WriteAt(t.Context(), bytes, off) == nil {
			t.Errorf("taken at %d", off)
		}
	}
	check(t, m.WriteAt(t.Context(), p, 5000))
	if m.WriteAt(t.Context(), p, 8192) == nil {
		t.Error("memory of a call before was taken")
	}
	check(t, m.WriteAt(t.Context(), plain[8192:], 8192))
	sum, _, err := m.Sum(t.Context(), 16384, nil)
	check(t, err)
	equal(t, "digest", sum, digest(plain))
}
