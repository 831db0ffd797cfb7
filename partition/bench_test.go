package partition

import (
	"crypto/sha256"
	"os"
	"runtime"
	"testing"
)

// BenchmarkImage writes, reads back and hashes an image of 1 GiB in a sparse file, whose blocks it gives back as it goes. What counts is B/op: it is the same for an image of 1 MiB.
func BenchmarkImage(b *testing.B) {
	for name, size := range map[string]int64{"1MiB": mib, "1GiB": 1 << 30} {
		b.Run(name, func(b *testing.B) {
			path := newFileSlot(b, size)
			b.ReportAllocs()
			b.SetBytes(size)
			for b.Loop() {
				writeSparse(b, path, size)
			}
		})
	}
}

// writeSparse syncs every 16 MiB, as the service does, and discards what was read back.
func writeSparse(t testing.TB, path string, size int64) {
	m, err := find(t, Finder{}, path).Open(t.Context())
	check(t, err)
	defer m.Close()
	check(t, m.Resume(t.Context(), sha256.New(), 0))
	zeroes := make([]byte, mib)
	for off := int64(0); off < size; off += mib {
		check(t, m.WriteAt(t.Context(), zeroes, off))
		if (off+mib)%(16*mib) != 0 && off+mib != size {
			continue
		}
		prefix, err := m.Sync(t.Context())
		check(t, err)
		if prefix != off+mib {
			t.Fatalf("prefix %d at %d", prefix, off+mib)
		}
		m.(*image).dev.Device.(*file).Discard(0, prefix)
	}
}

func TestMemoryIsConstant(t *testing.T) {
	path := newFileSlot(t, 256*mib)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	writeSparse(t, path, 256*mib)
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 6*mib {
		t.Errorf("%d bytes were allocated for an image of 256 MiB", n)
	}
	check(t, os.Remove(path))
}
