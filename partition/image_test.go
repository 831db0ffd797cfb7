package partition

import (
	"bytes"
	"context"
	"crypto/sha256"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

const mib = 1 << 20

// put writes [from,to) of plain.
type put struct{ from, to int }

func TestWriteInAnyOrder(t *testing.T) {
	plain := content(3*mib + 1234)
	end := len(plain)
	tests := map[string]struct {
		puts   []put
		prefix int64 // of one Sync at the end
	}{
		"at once":                               {[]put{{0, end}}, int64(end)},
		"in small pieces of odd length":         {pieces(end, 4099), int64(end)},
		"in blocks":                             {pieces(end, 4096), int64(end)},
		"the tail first":                        {[]put{{3 * mib, end}, {0, 3 * mib}}, int64(end)},
		"backwards":                             {backwards(end, 256<<10), int64(end)},
		"the same twice":                        {[]put{{0, mib}, {0, mib}, {mib, end}}, int64(end)},
		"a block again, inside of what came":    {[]put{{0, 2 * mib}, {8192, 12288}, {2 * mib, end}}, int64(end)},
		"the block of an incomplete tail again": {[]put{{0, 5000}, {4096, end}}, int64(end)},
		"more pieces than extents are kept":     {alternating(end, 4096), int64(end)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dev := newSim(t, 4*mib)
			m := dev.resumed()
			for _, p := range tt.puts {
				check(t, m.WriteAt(t.Context(), plain[p.from:p.to], int64(p.from)))
			}
			prefix, err := m.Sync(t.Context())
			check(t, err)
			if prefix > int64(end) {
				t.Errorf("prefix %d is behind the end %d", prefix, end)
			}
			sum, head, err := m.Sum(t.Context(), int64(end), nil)
			check(t, err)
			equal(t, "digest", sum, digest(plain))
			equal(t, "head", head, newHead(plain[:fwu.HeadSize]))
			sameBytes(t, "medium", dev.medium[:roundUp(int64(end))], stored(plain))
		})
	}
}

func pieces(end, size int) (puts []put) {
	for from := 0; from < end; from += size {
		puts = append(puts, put{from, min(from+size, end)})
	}
	return puts
}

func backwards(end, size int) []put {
	puts := pieces(end, size)
	for i, j := 0, len(puts)-1; i < j; i, j = i+1, j-1 {
		puts[i], puts[j] = puts[j], puts[i]
	}
	return puts
}

// alternating writes every other piece first.
func alternating(end, size int) []put {
	var even, odd []put
	for i, p := range pieces(end, size) {
		if i%2 == 0 {
			even = append(even, p)
		} else {
			odd = append(odd, p)
		}
	}
	return append(odd, even...)
}

func TestPrefix(t *testing.T) {
	plain := content(3 * mib)
	type step struct {
		put  put
		want int64 // of the Sync after it
	}
	tests := map[string][]step{
		"in order":                           {{put{0, mib}, mib}, {put{mib, 2 * mib}, 2 * mib}},
		"a gap holds it":                     {{put{0, 4096}, 4096}, {put{8192, 12288}, 4096}},
		"filling the gap reaches its end":    {{put{0, 4096}, 4096}, {put{8192, 12288}, 4096}, {put{4096, 8192}, 8192}},
		"a tail counts, its padding not":     {{put{0, 5000}, 5000}, {put{5000, 6000}, 6000}, {put{6000, mib}, mib}},
		"nothing new":                        {{put{0, 4096}, 4096}, {put{4096, 4096}, 4096}},
		"a rewrite below begins anew":        {{put{0, mib}, mib}, {put{4096, 8192}, 0}, {put{0, 4096}, 4096}},
		"a rewrite from the start":           {{put{0, mib}, mib}, {put{0, 8192}, 8192}},
		"a tail that was left cannot go on":  {{put{0, 5000}, 5000}, {put{8192, 12288}, 5000}},
		"the block of the tail, once more":   {{put{0, 5000}, 5000}, {put{4096, 8192}, 8192}},
		"less in the place of the tail":      {{put{0, 5000}, 5000}, {put{4096, 4196}, 4196}},
		"out of order between two flushes":   {{put{4096, 8192}, 0}, {put{0, 4096}, 4096}},
		"an incomplete block at the far end": {{put{2 * mib, 3*mib - 1}, 0}},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			m := newSim(t, 3*mib).resumed()
			for _, s := range steps {
				check(t, m.WriteAt(t.Context(), plain[s.put.from:s.put.to], int64(s.put.from)))
				prefix, err := m.Sync(t.Context())
				check(t, err)
				equal(t, "prefix", prefix, s.want)
			}
		})
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	m := newSim(t, 8*mib).resumed()
	for _, p := range alternating(8*mib, 4096) {
		check(t, m.WriteAt(t.Context(), make([]byte, p.to-p.from), int64(p.from)))
		if i := m.(*image); i.store != nil && len(i.store.here.written)+len(i.store.here.flushed) > maxExtents {
			t.Fatalf("%d extents were written, and %d flushed", len(i.store.here.written), len(i.store.here.flushed))
		}
	}
}

func TestCoalesce(t *testing.T) {
	plain := content(2*mib + 8192)
	dev := newSim(t, 4*mib)
	m := dev.resumed()
	for _, p := range pieces(len(plain), 4096) {
		check(t, m.WriteAt(t.Context(), plain[p.from:p.to], int64(p.from)))
	}
	if _, err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for _, o := range dev.ops {
		sizes = append(sizes, len(o.data))
	}
	equal(t, "writes and the flush", sizes, []int{mib / 2, mib / 2, mib / 2, mib / 2, 8192, 0})
}

func TestResume(t *testing.T) {
	plain := content(mib + 777)
	for _, n := range []int64{0, 4096, 5000, 131072, 131073, 1 << 19, mib, mib + 776, mib + 777} {
		dev := newSim(t, 2*mib)
		m := dev.resumed()
		check(t, m.WriteAt(t.Context(), plain[:n], 0))
		if _, err := m.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, m.Close())
		m = dev.open()
		h := sha256.New()
		h.Write([]byte("something before"))
		check(t, m.Resume(t.Context(), h, n))
		check(t, m.WriteAt(t.Context(), plain[n:], n))
		reads := dev.readOps
		prefix, err := m.Sync(t.Context())
		check(t, err)
		equal(t, "prefix", prefix, int64(len(plain)))
		if n < mib && dev.readOps == reads {
			t.Error("nothing was read back")
		}
		reads = dev.readOps
		sum, _, err := m.Sum(t.Context(), int64(len(plain)), nil)
		check(t, err)
		equal(t, "digest", sum, digest(plain))
		equal(t, "reads for all but the last, incomplete block", dev.readOps, reads+1)
	}
}

func TestResumeAndRewriteTheBlockOfAnOddEnd(t *testing.T) {
	plain := content(16384)
	dev := newSim(t, mib)
	m := dev.resumed()
	check(t, m.WriteAt(t.Context(), plain[:5000], 0))
	_, err := m.Sync(t.Context())
	check(t, err)
	check(t, m.Resume(t.Context(), sha256.New(), 5000))
	check(t, m.WriteAt(t.Context(), plain[4096:], 4096))
	sum, _, err := m.Sum(t.Context(), int64(len(plain)), nil)
	check(t, err)
	equal(t, "digest", sum, digest(plain))
}

func TestSumOfLessThanWasWritten(t *testing.T) {
	plain := content(300000)
	m := newSim(t, mib).resumed()
	check(t, m.WriteAt(t.Context(), plain, 0))
	for _, n := range []int64{300000, 100001, 4096, 0, 200000, 300000} {
		sum, head, err := m.Sum(t.Context(), n, nil)
		check(t, err)
		equal(t, "digest", sum, digest(plain[:n]))
		want := make([]byte, roundUp(min(n, fwu.HeadSize)))
		copy(want, plain) // the head is of whole blocks: of what the medium has there
		equal(t, "head", head, newHead(want))
	}
}

func TestSumReportsProgress(t *testing.T) {
	dev := newSim(t, 4*mib)
	m := dev.resumed()
	var done []int64
	_, _, err := m.Sum(t.Context(), 2*mib+1, func(d, total int64) {
		equal(t, "total", total, int64(2*mib+1))
		done = append(done, d)
	})
	check(t, err)
	equal(t, "progress", done, []int64{mib / 2, mib, 3 * mib / 2, 2 * mib, 2*mib + 1})
}

func TestArgumentsAreRefusedAndVoidNothing(t *testing.T) {
	dev := newSim(t, mib+1000) // the last 1000 bytes are no block
	m := dev.resumed()
	check(t, m.WriteAt(t.Context(), content(5000), 0))
	tests := map[string]error{
		"negative":             m.WriteAt(t.Context(), []byte{1}, -4096),
		"odd":                  m.WriteAt(t.Context(), []byte{1}, 4999),
		"behind the last":      m.WriteAt(t.Context(), []byte{1}, mib),
		"across the end":       m.WriteAt(t.Context(), make([]byte, 4097), mib-4096),
		"overflow":             m.WriteAt(t.Context(), []byte{1}, 1<<63-4096),
		"nothing, far away":    m.WriteAt(t.Context(), nil, mib+4096),
		"sum of more than all": func() error { _, _, err := m.Sum(t.Context(), mib+1, nil); return err }(),
		"sum of less than 0":   func() error { _, _, err := m.Sum(t.Context(), -1, nil); return err }(),
		"resume behind":        m.Resume(t.Context(), sha256.New(), mib+1),
		"resume before":        m.Resume(t.Context(), sha256.New(), -1),
	}
	for name, err := range tests {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	prefix, err := m.Sync(t.Context())
	check(t, err)
	equal(t, "prefix", prefix, int64(5000))
}

func TestWriterHasToBeResumedFirst(t *testing.T) {
	m := newSim(t, mib).open()
	_, errSync := m.Sync(t.Context())
	_, _, errSum := m.Sum(t.Context(), 0, nil)
	for _, err := range []error{m.WriteAt(t.Context(), make([]byte, 4096), 0), errSync, errSum} {
		if err == nil {
			t.Error("accepted")
		}
	}
}

func TestSlotSmallerThanABlock(t *testing.T) {
	if _, err := newSim(t, 4095).slot().Open(t.Context()); err == nil {
		t.Error("opened")
	}
}

func TestFailureVoidsWhatWasNotSynced(t *testing.T) {
	flip := func(off int) func([]byte) { return func(b []byte) { b[off] ^= 1 } }
	tests := map[string]struct {
		fault func(*sim)
		want  error
	}{
		"write":                    {func(s *sim) { s.failWrite = errMedium }, errMedium},
		"flush":                    {func(s *sim) { s.failSync = errMedium }, errMedium},
		"read back":                {func(s *sim) { s.onFlush = func([]byte) { s.failRead = errMedium } }, errMedium},
		"other data in the head":   {func(s *sim) { s.onFlush = flip(70000) }, fwu.ErrReadBack},
		"other data":               {func(s *sim) { s.onFlush = flip(mib + 5) }, fwu.ErrReadBack},
		"other data in the last":   {func(s *sim) { s.onFlush = flip(2*mib - 1) }, fwu.ErrReadBack},
		"padding that is not zero": {func(s *sim) { s.onFlush = flip(2*mib + 4095) }, fwu.ErrReadBack},
	}
	plain := content(2*mib + 10)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dev := newSim(t, 3*mib)
			m := dev.resumed()
			check(t, m.WriteAt(t.Context(), plain[:65536], 0))
			_, err := m.Sync(t.Context())
			check(t, err)
			tt.fault(dev)
			err = m.WriteAt(t.Context(), plain[65536:], 65536)
			prefix := int64(65536)
			if err == nil {
				prefix, err = m.Sync(t.Context())
			}
			wantErr(t, err, tt.want)
			equal(t, "prefix", prefix, int64(65536))
			dev.onFlush = nil

			// A flush that claims success now is not believed.
			if _, err := m.Sync(t.Context()); err == nil {
				t.Error("synced without being resumed")
			}
			if err := m.Resume(t.Context(), sha256.New(), 65537); err == nil {
				t.Error("resumed behind the last good flush")
			}
			check(t, m.Resume(t.Context(), sha256.New(), 65536))
			check(t, m.WriteAt(t.Context(), plain[65536:], 65536))
			sum, _, err := m.Sum(t.Context(), int64(len(plain)), nil)
			check(t, err)
			equal(t, "digest", sum, digest(plain))
		})
	}
}

func TestFailureAfterARewriteLeavesNoPrefix(t *testing.T) {
	dev := newSim(t, mib)
	m := dev.resumed()
	check(t, m.WriteAt(t.Context(), content(65536), 0))
	_, err := m.Sync(t.Context())
	check(t, err)
	check(t, m.WriteAt(t.Context(), make([]byte, 4096), 8192))
	dev.failSync = errMedium
	prefix, err := m.Sync(t.Context())
	wantErr(t, err, errMedium)
	equal(t, "prefix", prefix, int64(0))
}

func TestSumIsOfTheMedium(t *testing.T) {
	plain := content(mib)
	dev := newSim(t, mib)
	m := dev.resumed()
	check(t, m.WriteAt(t.Context(), plain, 0))
	_, err := m.Sync(t.Context())
	check(t, err)
	dev.medium[500000] ^= 4
	check(t, m.Resume(t.Context(), sha256.New(), 0))
	sum, _, err := m.Sum(t.Context(), mib, nil)
	check(t, err)
	if bytes.Equal(sum, digest(plain)) {
		t.Error("a bit that the medium lost is not in the digest")
	}
}

func TestCancelled(t *testing.T) {
	dev := newSim(t, mib)
	m := dev.resumed()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, errSync := m.Sync(ctx)
	_, _, errSum := m.Sum(ctx, 4096, nil)
	_, errState := m.HeadState(ctx, fwu.Head{})
	for _, err := range []error{
		m.WriteAt(ctx, make([]byte, 4096), 0), errSync, errSum, errState, m.Destroy(ctx), m.Erase(ctx, nil),
		m.Seal(ctx, fwu.Head{}), m.Unseal(ctx, fwu.Head{}), m.Resume(ctx, sha256.New(), 4096),
	} {
		wantErr(t, err, context.Canceled)
	}
	if len(dev.ops) != 0 {
		t.Errorf("%d operations on the medium", len(dev.ops))
	}
}

func TestCloseReportsAnError(t *testing.T) {
	dev := newSim(t, mib)
	m := dev.open()
	dev.failClose = errMedium
	wantErr(t, m.Close(), errMedium)
}
