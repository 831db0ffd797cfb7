package sim

import (
	"strings"
	"testing"
)

// letters has writers write at once, each its letter to sectors of its own, and returns the order
// in which they came.
func letters(t *testing.T, seed uint64, writers string) string {
	t.Helper()
	var order strings.Builder
	InOrder(t, seed, func(o *Order) {
		m := New()
		m.Use(o)
		d := m.Add("disk", PageSize*int64(len(writers)))
		m.Inject(func(a Access) *Fault {
			order.WriteByte(writers[a.Off/PageSize])
			return nil
		})
		done := make(chan error)
		for i, c := range []byte(writers) {
			go func() {
				for range 3 {
					if _, err := d.WriteAt(fill(c, SectorSize), int64(i)*PageSize); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range writers {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return order.String()
}

func TestOrderIsOfTheSeed(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(40) {
		first := letters(t, seed, "abc")
		for range 3 {
			if again := letters(t, seed, "abc"); again != first {
				t.Fatalf("seed %d: %s, and then %s", seed, first, again)
			}
		}
		for _, c := range "abc" {
			if n := strings.Count(first, string(c)); n != 3 {
				t.Fatalf("seed %d: %s: %d accesses of %c", seed, first, n, c)
			}
		}
		seen[first] = true
	}
	if len(seen) < 20 {
		t.Errorf("40 seeds gave %d orders", len(seen))
	}
}

// TestOffMedium fails every access and changes nothing.
func TestOffMedium(t *testing.T) {
	m := New()
	d := m.Add("disk", PageSize)
	write(t, d, 'a', 0, 1)
	m.Power(false)
	_, write := d.WriteAt(fill('b', SectorSize), 0)
	_, read := d.ReadAt(make([]byte, SectorSize), 0)
	for what, err := range map[string]error{"write": write, "read": read, "zero": d.Zero(0, PageSize), "flush": d.Sync()} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	m.Power(true)
	if got := sectors(t, d, 2); got != "a." {
		t.Errorf("the medium has %s", got)
	}
	check(t, d.Sync())
	m.PowerOff()
	if got := sectors(t, d, 2); got != "a." {
		t.Errorf("after the flush %s", got)
	}
}
