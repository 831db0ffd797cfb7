package partition

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// sealed writes an image and returns its head.
func sealed(t *testing.T, dev *sim, plain []byte) (fwu.Image, fwu.Head) {
	t.Helper()
	m := dev.open()
	check(t, m.Destroy(t.Context()))
	check(t, m.Resume(t.Context(), sha256.New(), 0))
	check(t, m.WriteAt(t.Context(), plain, 0))
	_, head, err := m.Sum(t.Context(), int64(len(plain)), nil)
	check(t, err)
	return m, head
}

func TestSealAndUnseal(t *testing.T) {
	tests := map[string]struct {
		size  int
		plain []byte
	}{
		"an image larger than the head":   {mib, content(300000)},
		"one smaller than the head":       {mib, content(5000)},
		"a slot smaller than the head":    {65536, content(65536)},
		"one block":                       {4096, content(1)},
		"an image of zeroes":              {mib, make([]byte, 200000)},
		"an image of ones":                {mib, bytes.Repeat([]byte{0xff}, 200000)},
		"a size that is no whole block":   {mib + 100, content(mib)},
		"an image of exactly a head":      {mib, content(fwu.HeadSize)},
		"an image with nothing in it yet": {mib, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dev := newSim(t, tt.size)
			m, h := sealed(t, dev, tt.plain)
			if len(tt.plain) > 0 {
				wantState(t, m, h, fwu.HeadMasked)
			}
			padded := make([]byte, roundUp(int64(len(tt.plain))))
			copy(padded, tt.plain)
			for range 2 { // each is idempotent
				check(t, m.Unseal(t.Context(), h))
				wantState(t, m, h, fwu.HeadPlain)
				sameBytes(t, "unsealed medium", dev.medium[:len(padded)], padded)
			}
			for range 2 {
				check(t, m.Seal(t.Context(), h))
				sameBytes(t, "sealed medium", dev.medium[:len(padded)], stored(tt.plain))
			}
			for range 2 {
				check(t, m.Destroy(t.Context()))
			}
			equal(t, "destroyed", bytes.Count(dev.medium[:min(fwu.HeadSize, tt.size)], []byte{0}), min(fwu.HeadSize, tt.size))
		})
	}
}

func wantState(t *testing.T, m fwu.Image, h fwu.Head, want fwu.HeadState) {
	t.Helper()
	got, err := m.HeadState(t.Context(), h)
	check(t, err)
	equal(t, "head state", got, want)
}

// TestUnsealIsOneWrite cuts it at every sector, and completes or reverts it.
func TestUnsealIsOneWrite(t *testing.T) {
	plain := content(200000)
	dev := newSim(t, mib)
	m, h := sealed(t, dev, plain)
	masked := bytes.Clone(dev.medium[:fwu.HeadSize])
	dev.ops = nil
	check(t, m.Unseal(t.Context(), h))
	if len(dev.ops) != 2 || len(dev.ops[0].data) != fwu.HeadSize || !dev.ops[1].flush {
		t.Fatalf("unsealing took %d operations", len(dev.ops))
	}
	for n := range h.Sectors + 1 {
		for _, order := range []string{"first", "last"} {
			t.Run(fmt.Sprintf("%s %d sectors written", order, n), func(t *testing.T) {
				cut := n * fwu.SectorSize
				tear := func() {
					copy(dev.medium, masked)
					if order == "first" {
						copy(dev.medium[:cut], plain)
					} else {
						copy(dev.medium[fwu.HeadSize-cut:fwu.HeadSize], plain[fwu.HeadSize-cut:])
					}
				}
				tear()
				want := fwu.HeadMixed
				switch n {
				case 0:
					want = fwu.HeadMasked
				case h.Sectors:
					want = fwu.HeadPlain
				}
				wantState(t, m, h, want)
				check(t, m.Unseal(t.Context(), h))
				sameBytes(t, "unsealed", dev.medium[:200000], plain)
				tear()
				check(t, m.Seal(t.Context(), h))
				sameBytes(t, "sealed", dev.medium[:fwu.HeadSize], masked)
			})
		}
	}
}

func TestDamagedHead(t *testing.T) {
	damage := map[string]func(b []byte){
		"destroyed":                     func(b []byte) { clear(b[:fwu.HeadSize]) },
		"a bit that tells":              func(b []byte) { b[512] ^= 1 },
		"a bit that does not":           func(b []byte) { b[513] ^= 1 },
		"a torn sector":                 func(b []byte) { mask(b[1024:1100], 0) },
		"another image":                 func(b []byte) { copy(b[4096:8192], content(4096)) },
		"one sector of the image after": func(b []byte) { copy(b[fwu.HeadSize-512:fwu.HeadSize], content(512)) },
	}
	for name, f := range damage {
		t.Run(name, func(t *testing.T) {
			dev := newSim(t, mib)
			m, h := sealed(t, dev, content(200000))
			f(dev.medium)
			before := bytes.Clone(dev.medium)
			wantState(t, m, h, fwu.HeadOther)
			wantErr(t, m.Unseal(t.Context(), h), fwu.ErrReadBack)
			wantErr(t, m.Seal(t.Context(), h), fwu.ErrReadBack)
			sameBytes(t, "medium", dev.medium, before)
		})
	}
}

func TestSealerOnAFailingMedium(t *testing.T) {
	faults := map[string]struct {
		fault func(*sim)
		want  error
	}{
		"write":      {func(s *sim) { s.failWrite = errMedium }, errMedium},
		"flush":      {func(s *sim) { s.failSync = errMedium }, errMedium},
		"other data": {func(s *sim) { s.onFlush = func(b []byte) { b[777] ^= 1 } }, fwu.ErrReadBack},
	}
	for name, tt := range faults {
		for verb, do := range map[string]func(fwu.Image, fwu.Head) error{
			"destroy": func(m fwu.Image, _ fwu.Head) error { return m.Destroy(t.Context()) },
			"seal":    func(m fwu.Image, h fwu.Head) error { return m.Seal(t.Context(), h) },
			"unseal":  func(m fwu.Image, h fwu.Head) error { return m.Unseal(t.Context(), h) },
			"erase":   func(m fwu.Image, _ fwu.Head) error { return m.Erase(t.Context(), nil) },
		} {
			t.Run(verb+" "+name, func(t *testing.T) {
				dev := newSim(t, mib)
				m, h := sealed(t, dev, content(200000))
				tt.fault(dev)
				wantErr(t, do(m, h), tt.want)
			})
		}
	}
}

// TestUnsealWritesWhatAFailedFlushLost: the same call again may not trust what it reads.
func TestUnsealWritesWhatAFailedFlushLost(t *testing.T) {
	dev := newSim(t, mib)
	m, h := sealed(t, dev, content(200000))
	dev.failSync = errMedium
	wantErr(t, m.Unseal(t.Context(), h), errMedium)
	dev.ops = nil
	check(t, m.Unseal(t.Context(), h))
	equal(t, "operations", len(dev.ops), 2)
	wantState(t, m, h, fwu.HeadPlain)
}

func TestHeadThatDoesNotFit(t *testing.T) {
	m, h := sealed(t, newSim(t, 8192), content(8192))
	edit := func(f func(*fwu.Head)) fwu.Head {
		c := fwu.Head{Bits: bytes.Clone(h.Bits), Sectors: h.Sectors, SHA256: bytes.Clone(h.SHA256)}
		f(&c)
		return c
	}
	tests := map[string]fwu.Head{
		"none":              {},
		"of another size":   edit(func(h *fwu.Head) { h.Sectors = 24; h.Bits = make([]byte, 3) }),
		"negative":          edit(func(h *fwu.Head) { h.Sectors = -8 }),
		"no whole block":    edit(func(h *fwu.Head) { h.Sectors = 12 }),
		"too few bits":      edit(func(h *fwu.Head) { h.Bits = h.Bits[1:] }),
		"too many bits":     edit(func(h *fwu.Head) { h.Bits = append(h.Bits, 0) }),
		"no digest":         edit(func(h *fwu.Head) { h.SHA256 = nil }),
		"larger than heads": edit(func(h *fwu.Head) { h.Sectors = 1 << 20; h.Bits = make([]byte, 1<<17) }),
	}
	for name, h := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := m.HeadState(t.Context(), h)
			for _, err := range []error{err, m.Seal(t.Context(), h), m.Unseal(t.Context(), h)} {
				if err == nil {
					t.Error("accepted")
				}
			}
		})
	}
}

func TestSealWithUnsyncedWrites(t *testing.T) {
	m, h := sealed(t, newSim(t, mib), content(200000))
	check(t, m.WriteAt(t.Context(), content(4096), 4096*50))
	if m.Unseal(t.Context(), h) == nil || m.Seal(t.Context(), h) == nil {
		t.Error("accepted")
	}
	wantState(t, m, h, fwu.HeadMasked) // looking does no harm
	_, err := m.Sync(t.Context())
	check(t, err)
	check(t, m.Unseal(t.Context(), h))
}

func TestErase(t *testing.T) {
	for name, size := range map[string]int{"large": 66 * mib, "small": 65536, "odd": 3*mib + 5000} {
		for _, discard := range []bool{false, true} {
			t.Run(fmt.Sprint(name, discard), func(t *testing.T) {
				dev := newSim(t, size)
				copy(dev.medium, content(size))
				var done []int64
				s := dev.slot()
				s.Set(Options{Discard: discard})
				m, err := s.Open(t.Context())
				check(t, err)
				for range 2 {
					check(t, m.Erase(t.Context(), func(d, total int64) {
						equal(t, "total", total, roundDown(int64(size)))
						done = append(done, d)
					}))
				}
				if (dev.discards > 0) != discard || done[len(done)-1] != roundDown(int64(size)) {
					t.Errorf("%d discards, progress %v", dev.discards, done)
				}
				n := min(mib, int(roundDown(int64(size))))
				equal(t, "zeroes at the start", bytes.Count(dev.medium[:n], []byte{0}), n)
				end := int(roundDown(int64(size)))
				equal(t, "zeroes at the end", bytes.Count(dev.medium[end-n:end], []byte{0}), n)
				if !discard && end > 2*n {
					sameBytes(t, "what is between", dev.medium[n:end-n], content(size)[n:end-n])
				}
				if m.WriteAt(t.Context(), make([]byte, 4096), 0) == nil {
					t.Error("a write without resuming")
				}
			})
		}
	}
}

func TestBootable(t *testing.T) {
	zeroes := make([]byte, mib)
	at := func(marks ...mark) []byte {
		b := make([]byte, mib)
		for _, m := range marks {
			copy(b[m.off:], m.magic)
		}
		return b
	}
	tests := map[string][]byte{
		"PE":         at(mark{0, "MZ"}, mark{0x3c, "\x80"}, mark{0x80, "PE\x00\x00"}),
		"MBR":        at(mark{0x1be + 4, "\x83"}, mark{0x1fe, "\x55\xaa"}),
		"squashfs":   at(mark{0, "hsqs"}),
		"ext4":       at(mark{0x438, "\x53\xef"}, mark{0x44c, "\x01"}),
		"fat":        at(mark{0x36, "FAT16"}, mark{0x1fe, "\x55\xaa"}),
		"the others": nil,
	}
	bootable := func(b []byte) bool {
		dev := newSim(t, len(b))
		copy(dev.medium, b)
		ok, err := dev.slot().Bootable(t.Context())
		check(t, err)
		return ok
	}
	delete(tests, "the others")
	for _, marks := range headers() {
		tests[fmt.Sprintf("%q", marks[0].magic)] = at(marks...)
	}
	for name, plain := range tests {
		equal(t, name+", plain", bootable(plain), true)
		equal(t, name+", masked", bootable(stored(plain)), false)
	}
	equal(t, "empty", bootable(zeroes), false)
	equal(t, "erased flash", bootable(bytes.Repeat([]byte{0xff}, mib)), false)
	equal(t, "a short slot that is empty", bootable(zeroes[:4096]), false)
	equal(t, "something unknown", bootable(content(mib)), true)
	equal(t, "something unknown and short", bootable(content(4096)), true)
}

func TestSource(t *testing.T) {
	dev := newSim(t, 3*mib+100)
	copy(dev.medium, content(3*mib+100))
	src, err := dev.slot().Source(t.Context())
	check(t, err)
	check(t, src.Frozen())
	for _, r := range []struct{ off, n, want int }{
		{0, 4096, 4096}, {1, 1, 1}, {4095, 2, 2}, {100, 2 * mib, 2 * mib}, {3*mib - 1, 10, 1}, {3 * mib, 1, 0}, {5 * mib, 1, 0}, {7, 0, 0},
	} {
		b := make([]byte, r.n)
		n, err := src.ReadAt(b, int64(r.off))
		equal(t, "length", n, r.want)
		if (err != nil) != (n < r.n) {
			t.Errorf("read %d at %d: %v", r.n, r.off, err)
		}
		if n > 0 {
			sameBytes(t, "data", b[:n], dev.medium[r.off:r.off+n])
		}
	}
	if _, err := src.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("negative offset accepted")
	}
	dev.failRead = errMedium
	_, err = src.ReadAt(make([]byte, 1), 0)
	wantErr(t, err, errMedium)
	check(t, src.Close())
}
