package partition

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// testT is what testing and rapid share.
type testT interface {
	Helper()
	Context() context.Context
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

var errMedium = errors.New("the medium fails")

// sim is a medium with a volatile cache. Reads see the medium: what was not flushed is not there.
type sim struct {
	t        testT
	medium   []byte
	cached   []op
	ops      []op
	readOps  int
	discards int

	failWrite, failSync, failRead, failClose error // of the next call; reset by it
	onFlush                                  func(medium []byte)
	failReads                                int   // that many reads succeed, and the next one fails
	failAt                                   int64 // the next read of this offset fails
}

type op struct {
	off   int64
	data  []byte
	flush bool
}

func newSim(t testT, size int) *sim { return &sim{t: t, medium: make([]byte, size)} }

// onMeter is a medium whose errors are counted.
func onMeter(dev Device) metered { return metered{dev, "sim", &fwu.Meter{}} }

func (s *sim) aligned(p []byte, off int64) {
	s.t.Helper()
	if off%blockSize != 0 || len(p)%blockSize != 0 || !isAligned(p) || len(p) > bufferSize || len(p) == 0 {
		s.t.Errorf("access of %d bytes at %d is not aligned", len(p), off)
	}
}

func take(err *error) error {
	e := *err
	*err = nil
	return e
}

func (s *sim) ReadAt(p []byte, off int64) (int, error) {
	s.aligned(p, off)
	s.readOps++
	if err := take(&s.failRead); err != nil {
		return 0, err
	}
	if s.failAt != 0 && off <= s.failAt && s.failAt < off+int64(len(p)) {
		s.failAt = 0
		return 0, errMedium
	}
	if s.failReads > 0 {
		if s.failReads--; s.failReads == 0 {
			return 0, errMedium
		}
	}
	n := copy(p, s.medium[off:])
	if off+int64(n) == int64(len(s.medium)) {
		return n, io.EOF // an io.ReaderAt may
	}
	return n, nil
}

func (s *sim) WriteAt(p []byte, off int64) (int, error) {
	s.aligned(p, off)
	if off < 0 || off+int64(len(p)) > int64(len(s.medium)) {
		s.t.Errorf("write of %d bytes at %d is outside", len(p), off)
	}
	o := op{off: off, data: bytes.Clone(p)}
	s.ops = append(s.ops, o)
	if err := take(&s.failWrite); err != nil {
		return 0, err
	}
	s.cached = append(s.cached, o)
	return len(p), nil
}

// Sync that fails loses what was cached; the next one succeeds, as it does on Linux.
func (s *sim) Sync() error {
	s.ops = append(s.ops, op{flush: true})
	if err := take(&s.failSync); err != nil {
		s.cached = nil
		return err
	}
	for _, o := range s.cached {
		copy(s.medium[o.off:], o.data)
	}
	s.cached = nil
	if s.onFlush != nil {
		s.onFlush(s.medium)
	}
	return nil
}

func (s *sim) Discard(off, n int64) error {
	s.discards++
	for i := range s.medium[off : off+n] {
		s.medium[off+int64(i)] = 0xa5 // whatever
	}
	return nil
}

func (s *sim) Size() int64  { return int64(len(s.medium)) }
func (s *sim) Close() error { return take(&s.failClose) }

func (s *sim) slot() *Slot {
	return NewSlot(fwu.SlotInfo{ID: "sim", Path: "sim", Size: s.Size()}, func(context.Context, Mode) (Device, error) { return s, nil }, nil)
}

func (s *sim) open() fwu.Image {
	s.t.Helper()
	m, err := s.slot().Open(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// resumed is an open image that begins anew.
func (s *sim) resumed() fwu.Image {
	s.t.Helper()
	m := s.open()
	check(s.t, m.Resume(s.t.Context(), sha256.New(), 0))
	return m
}

// content is some plain content without pattern.
func content(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func digest(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// stored is what image b looks like on the medium: padded, and its head inverted.
func stored(b []byte) []byte {
	s := make([]byte, roundUp(int64(len(b))))
	copy(s, b)
	mask(s, 0)
	return s
}

func check(t testT, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testT, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func equal(t testT, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.AllowUnexported(entry{})); d != "" {
		t.Fatalf("%s: -want +got\n%s", what, d)
	}
}

func sameBytes(t testT, what string, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %#x, want %#x", what, i, got[i], want[i])
		}
	}
}
