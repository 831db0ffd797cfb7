package partition

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// over writes plain over what the medium has, with a checkpoint at each MiB, and checks what is there then.
func over(t *testing.T, dev *sim, s *Slot, plain []byte) fwu.Counts {
	t.Helper()
	m, err := s.Open(t.Context())
	check(t, err)
	check(t, m.Destroy(t.Context()))
	dev.ops, dev.readOps = nil, 0
	check(t, m.Resume(t.Context(), sha256.New(), 0))
	for _, p := range pieces(len(plain), mib) {
		b := fwu.Buffer(p.to - p.from)
		copy(b, plain[p.from:p.to])
		check(t, m.WriteAt(t.Context(), b, int64(p.from)))
		if _, err := m.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		sameBytes(t, "the memory of the client", b, plain[p.from:p.to])
	}
	sum, _, err := m.Sum(t.Context(), int64(len(plain)), nil)
	check(t, err)
	equal(t, "digest", sum, digest(plain))
	sameBytes(t, "medium", dev.medium[:roundUp(int64(len(plain)))], stored(plain))
	counts := m.Counts()
	check(t, m.Close())
	return counts
}

// changed is content with other blocks in the place of some.
func changed(plain []byte, every int) []byte {
	out := bytes.Clone(plain)
	for off := 0; off < len(out); off += every * blockSize {
		out[off] ^= 0xff
	}
	return out
}

func TestEqualBlocksAreNotWritten(t *testing.T) {
	const size = 4 * mib
	plain := content(size - 1000)
	tests := map[string]struct {
		old, plain []byte
		want       fwu.Counts
	}{
		"the same":           {stored(plain), plain, fwu.Counts{Equal: size - fwu.HeadSize, Written: fwu.HeadSize, ReadBack: fwu.HeadSize}},
		"every eighth block": {stored(changed(plain, 8)), plain, fwu.Counts{Equal: (size - fwu.HeadSize) / 8 * 7, Written: fwu.HeadSize + (size-fwu.HeadSize)/8, ReadBack: fwu.HeadSize + (size-fwu.HeadSize)/8}},
		"nothing":            {content(2 * size)[size:], plain, fwu.Counts{Written: size, ReadBack: size}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dev := newSim(t, size)
			copy(dev.medium, tt.old)
			got := over(t, dev, dev.slot(), tt.plain)
			equal(t, "counts", got, tt.want)
			n := int64(0)
			for _, o := range dev.ops {
				n += int64(len(o.data))
			}
			equal(t, "bytes written", n, tt.want.Written)
		})
	}
}

// TestComparingStopsAndBeginsAgain: where nothing is equal few stores are compared, and where something is again it is found.
func TestComparingStopsAndBeginsAgain(t *testing.T) {
	plain := content(64 * mib)
	dev := newSim(t, len(plain))
	copy(dev.medium[48*mib:], plain[48*mib:])
	got := over(t, dev, dev.slot(), plain)
	compared := dev.readOps - int(got.ReadBack/bufferSize)
	if compared > 50 || got.Equal < 8*mib {
		t.Errorf("%d reads to compare, and %d bytes of %d were equal", compared, got.Equal, 16*mib)
	}
}

// TestFailureStopsComparing: what the medium shows after a flush failed may be what it will lose. Who opened the slot again has to write it.
func TestFailureStopsComparing(t *testing.T) {
	plain := content(mib)
	dev := newSim(t, mib)
	s := dev.slot()
	m, err := s.Open(t.Context())
	check(t, err)
	check(t, m.Resume(t.Context(), sha256.New(), 0))
	check(t, m.WriteAt(t.Context(), plain, 0))
	dev.failSync = errMedium
	_, err = m.Sync(t.Context())
	wantErr(t, err, errMedium)
	check(t, m.Close())
	copy(dev.medium, stored(plain)) // it shows what it does not keep
	equal(t, "counts", over(t, dev, s, plain), fwu.Counts{Written: mib, ReadBack: mib})
}

// TestEqualIsMadeDurable: a block that was not written is promised like one that was. Who wrote it may not have flushed.
func TestEqualIsMadeDurable(t *testing.T) {
	plain := content(mib)
	dev := newSim(t, mib)
	copy(dev.medium, stored(plain))
	m := dev.resumed()
	check(t, m.WriteAt(t.Context(), plain, 0))
	prefix, err := m.Sync(t.Context())
	check(t, err)
	equal(t, "prefix", prefix, int64(mib))
	if len(dev.ops) != 1 || !dev.ops[0].flush {
		t.Errorf("%d operations, want a flush", len(dev.ops))
	}
}

// TestUnreadableBlocksAreWritten: what cannot be compared is no error.
func TestUnreadableBlocksAreWritten(t *testing.T) {
	dev := newSim(t, mib)
	m := dev.resumed()
	dev.failRead = errMedium
	check(t, m.WriteAt(t.Context(), content(mib/2), 0))
	_, err := m.Sync(t.Context())
	check(t, err)
}

func TestCheckpointPromisesWhatTheOneBeforeFlushed(t *testing.T) {
	plain := content(4 * mib)
	dev := newSim(t, 4*mib)
	m := dev.resumed()
	want := int64(0)
	for _, p := range pieces(len(plain), mib) {
		check(t, m.WriteAt(t.Context(), plain[p.from:p.to], int64(p.from)))
		flushes := 0
		prefix, err := m.Checkpoint(t.Context())
		check(t, err)
		equal(t, "prefix", prefix, want)
		for _, o := range dev.ops {
			if o.flush {
				flushes++
			}
		}
		equal(t, "flushes", flushes, int(want/mib)+1)
		want = int64(p.to)
	}
	prefix, err := m.Sync(t.Context())
	check(t, err)
	equal(t, "prefix", prefix, int64(len(plain)))
}

// TestCheckpointFindsOtherData: it does so one checkpoint later, and before it promises anything of that.
func TestCheckpointFindsOtherData(t *testing.T) {
	plain := content(3 * mib)
	dev := newSim(t, 3*mib)
	m := dev.resumed()
	check(t, m.WriteAt(t.Context(), plain[:mib], 0))
	dev.onFlush = func(b []byte) { b[700_000] ^= 1 }
	_, err := m.Checkpoint(t.Context())
	check(t, err)
	err = m.WriteAt(t.Context(), plain[mib:2*mib], mib)
	if err == nil {
		_, err = m.Checkpoint(t.Context())
	}
	wantErr(t, err, fwu.ErrReadBack)
	prefix, err := m.Checkpoint(t.Context())
	if err == nil || prefix != 0 {
		t.Errorf("prefix %d, %v", prefix, err)
	}
}

// zeroer is a medium that writes zeroes itself, or refuses to.
type zeroer struct {
	*sim
	refuses bool
	ranges  []put
}

func (z *zeroer) WriteZeroes(off, n int64) error {
	if z.refuses {
		return errMedium
	}
	z.ranges = append(z.ranges, put{int(off), int(off + n)})
	z.cached = append(z.cached, op{off: off, data: make([]byte, n)})
	return nil
}

func TestZeroes(t *testing.T) {
	plain := content(3 * mib)
	clear(plain[mib : 2*mib])
	clear(plain[2*mib+8192 : 2*mib+8192+zeroRun]) // less than a whole one
	for _, refuses := range []bool{false, true} {
		dev := newSim(t, 3*mib)
		copy(dev.medium, content(6 * mib)[3*mib:])
		z := &zeroer{sim: dev, refuses: refuses}
		m := newImage(onMeter(z), dev.Size(), Options{})
		check(t, m.Resume(t.Context(), sha256.New(), 0))
		check(t, m.WriteAt(t.Context(), plain, 0))
		sum, _, err := m.Sum(t.Context(), int64(len(plain)), nil)
		check(t, err)
		equal(t, "digest", sum, digest(plain))
		sameBytes(t, "medium", dev.medium, stored(plain))
		want := fwu.Counts{Zeroed: mib, Written: 2 * mib, ReadBack: 3 * mib}
		if refuses {
			want.Zeroed, want.Written = 0, 3*mib
		} else {
			equal(t, "ranges", fmt.Sprint(z.ranges), fmt.Sprint([]put{{mib, 3 * mib / 2}, {3 * mib / 2, 2 * mib}}))
		}
		equal(t, "counts", m.Counts(), want)
	}
}

// parallel is a medium that takes reads beside writes.
type parallel struct {
	*sim
	mu sync.Mutex
}

func (p *parallel) Parallel() bool { return true }

func (p *parallel) ReadAt(b []byte, off int64) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sim.ReadAt(b, off)
}

func (p *parallel) WriteAt(b []byte, off int64) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sim.WriteAt(b, off)
}

func (p *parallel) Sync() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sim.Sync()
}

func TestParallel(t *testing.T) {
	old := content(8 * mib)
	plain := changed(old, 5)
	for _, fault := range []func(*sim){nil, func(s *sim) { s.failWrite = errMedium }, func(s *sim) { s.failSync = errMedium }} {
		dev := newSim(t, len(plain))
		copy(dev.medium, stored(old))
		m := newImage(onMeter(&parallel{sim: dev}), dev.Size(), Options{})
		check(t, m.Resume(t.Context(), sha256.New(), 0))
		var failed error
		for i, p := range pieces(len(plain), mib) {
			if i == 5 && fault != nil {
				fault(dev)
			}
			err := m.WriteAt(t.Context(), plain[p.from:p.to], int64(p.from))
			if err == nil {
				_, err = m.Checkpoint(t.Context())
			}
			if failed = err; err != nil {
				break
			}
		}
		if fault == nil {
			sum, _, err := m.Sum(t.Context(), int64(len(plain)), nil)
			check(t, err)
			equal(t, "digest", sum, digest(plain))
			sameBytes(t, "medium", dev.medium, stored(plain))
		} else {
			wantErr(t, failed, errMedium)
		}
		check(t, m.Close())
		if m.store != nil || m.sum.in != nil {
			t.Error("goroutines are left")
		}
	}
}

// TestSmallWrites: what comes in blocks of 4 KiB costs no more accesses than what comes at once.
func TestSmallWrites(t *testing.T) {
	var sizes [2][]int
	plain := content(2 * mib)
	for i, size := range []int{blockSize, mib} {
		dev := newSim(t, len(plain))
		m := dev.resumed()
		for _, p := range pieces(len(plain), size) {
			check(t, m.WriteAt(t.Context(), plain[p.from:p.to], int64(p.from)))
		}
		_, err := m.Sync(t.Context())
		check(t, err)
		for _, o := range dev.ops {
			sizes[i] = append(sizes[i], len(o.data))
		}
	}
	if !slices.Equal(sizes[0], sizes[1]) {
		t.Errorf("%v, %v", sizes[0], sizes[1])
	}
}

// TestSpace puts an image into the memory of the Image, or into memory that is used again at once, in pieces of any length, on media of both kinds.
func TestSpace(t *testing.T) {
	plain := content(7*mib + 1234)
	for name, wrap := range map[string]func(*sim) Device{"parallel": func(s *sim) Device { return &parallel{sim: s} }, "one at a time": func(s *sim) Device { return s }} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 9))
			dev := newSim(t, 8*mib)
			m := newImage(onMeter(wrap(dev)), dev.Size(), Options{})
			if m.Space(0) != nil {
				t.Error("memory before Resume")
			}
			check(t, m.Resume(t.Context(), sha256.New(), 0))
			own := make([]byte, mib)
			for off := 0; off < len(plain); {
				p := m.Space(int64(off))
				if len(p) == 0 || len(p) > bufferSize || (off+len(p))%bufferSize != 0 {
					t.Fatalf("%d bytes of memory at %d", len(p), off)
				}
				switch n := rng.IntN(4); n {
				case 0:
					p = own[:1+rng.IntN(len(own))]
				case 1:
					p = p[:1+rng.IntN(len(p))]
				}
				n := copy(p, plain[off:])
				check(t, m.WriteAt(t.Context(), p[:n], int64(off)))
				clear(own)
				off += n
				if rng.IntN(3) == 0 {
					prefix, err := m.Checkpoint(t.Context())
					check(t, err)
					if prefix > int64(off) {
						t.Errorf("prefix %d at %d", prefix, off)
					}
				}
			}
			sum, _, err := m.Sum(t.Context(), int64(len(plain)), nil)
			check(t, err)
			equal(t, "digest", sum, digest(plain))
			want := stored(plain)
			sameBytes(t, "medium", dev.medium[:len(want)], want)
		})
	}
}
