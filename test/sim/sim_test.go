package sim

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sectors describes a medium, a letter for each sector: what its first byte is.
func sectors(t *testing.T, d *Medium, n int) string {
	t.Helper()
	b := make([]byte, n*SectorSize)
	_, err := d.ReadAt(b, 0)
	check(t, err)
	var out string
	for i := range n {
		if c := b[i*SectorSize]; c != 0 {
			out += string(c)
		} else {
			out += "."
		}
	}
	return out
}

func write(t *testing.T, d *Medium, b byte, sector, n int) {
	t.Helper()
	_, err := d.WriteAt(fill(b, n*SectorSize), int64(sector*SectorSize))
	check(t, err)
}

func TestWhatACutCanLeave(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*testing.T, *Medium)
		want []string // of the first four sectors, all that occur
	}{
		{"nothing written", func(*testing.T, *Medium) {}, []string{"...."}},
		{"what is flushed stays", func(t *testing.T, d *Medium) {
			write(t, d, 'a', 0, 1)
			check(t, d.Sync())
			write(t, d, 'b', 2, 1)
			check(t, d.Sync())
		}, []string{"....", "a...", "a.b."}},
		{"what is not flushed is lost in any combination", func(t *testing.T, d *Medium) {
			write(t, d, 'a', 0, 1)
			write(t, d, 'b', 1, 1)
			write(t, d, 'c', 2, 1)
		}, []string{"....", "a...", ".b..", "ab..", "..c.", "a.c.", ".bc.", "abc."}},
		{"writes to one place land in any order", func(t *testing.T, d *Medium) {
			write(t, d, 'a', 0, 1)
			write(t, d, 'b', 0, 1)
		}, []string{"....", "a...", "b..."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New()
			d := m.Add("disk", 2*PageSize)
			base := m.Durable()
			m.Record(true)
			c.do(t, d)
			got, want := map[string]bool{}, map[string]bool{}
			for cut := range Cuts(base, m.Log(), Full) {
				got[sectors(t, cut.State.Media().Medium("disk"), 4)] = true
				again, ok := At(base, m.Log(), cut.Position, cut.Shape)
				if !ok || again.State.Sum() != cut.State.Sum() {
					t.Errorf("cut %d.%d is another one when it is repeated", cut.Position, cut.Shape)
				}
			}
			for _, w := range c.want {
				want[w] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestManyPendingWritesAreLostAtRandom(t *testing.T) {
	m := New()
	d := m.Add("disk", PageSize)
	base := m.Durable()
	m.Record(true)
	for i := range MaxSubset + 2 {
		write(t, d, byte('a'+i), i, 1)
	}
	found := map[string]bool{}
	for cut := range Cuts(base, m.Log(), Full) {
		found[sectors(t, cut.State.Media().Medium("disk"), 8)] = true
	}
	for _, want := range []string{"........", "abcdefgh", "abcdefg."} {
		if !found[want] {
			t.Errorf("no cut leaves %s", want)
		}
	}
	if len(found) < randomSubsets {
		t.Errorf("%d outcomes", len(found))
	}
}

func TestAWriteIsTorn(t *testing.T) {
	m := New()
	d := m.Add("disk", PageSize)
	base := m.Durable()
	m.Record(true)
	write(t, d, 'a', 0, 8)
	found := map[string]bool{}
	for cut := range Cuts(base, m.Log(), Full) {
		found[sectors(t, cut.State.Media().Medium("disk"), 8)] = true
	}
	for n := range 9 {
		if want := "aaaaaaaa"[:n] + "........"[n:]; !found[want] {
			t.Errorf("no cut leaves %s", want)
		}
	}
	if len(found) < 12 {
		t.Errorf("only %v", found)
	}
}

func TestAFlushIsForOneMedium(t *testing.T) {
	m := New()
	a, b := m.Add("a", PageSize), m.Add("b", PageSize)
	write(t, a, 'a', 0, 1)
	write(t, b, 'b', 0, 1)
	check(t, a.Sync())
	left := m.Durable().Media()
	if got := fmt.Sprint(sectors(t, left.Medium("a"), 1), sectors(t, left.Medium("b"), 1)); got != "a." {
		t.Errorf("a cut leaves %s", got)
	}
}

func TestFlushThatFails(t *testing.T) {
	failure := errors.New("flush")
	for _, c := range []struct {
		name string
		lose Loss
		want string // seen after the failure, after a later flush, and after a cut
	}{
		{"what was written is gone at once", Gone, "... ... ..."},
		{"it is seen until the power is cut, whatever a later flush says", Doomed, "aa. aa. ..."},
		{"it is durable all the same", Landed, "aa. aa. aa."},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New()
			d := m.Add("disk", PageSize)
			m.Inject(func(a Access) *Fault {
				if a.Kind == Flush && a.N == 1 {
					return &Fault{Err: failure, Lose: c.lose}
				}
				return nil
			})
			write(t, d, 'a', 0, 2)
			if err := d.Sync(); !errors.Is(err, failure) {
				t.Errorf("flush: %v", err)
			}
			got := sectors(t, d, 3)
			check(t, d.Sync())
			got += " " + sectors(t, d, 3)
			m.PowerOff()
			if got += " " + sectors(t, d, 3); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestHalfAnAccess(t *testing.T) {
	m := New()
	d := m.Add("disk", PageSize)
	m.Inject(func(Access) *Fault { return &Fault{Half: true} })
	if n, err := d.WriteAt(fill('a', 4*SectorSize), 0); n != 2*SectorSize || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if n, err := d.ReadAt(make([]byte, 2*SectorSize), 0); n != SectorSize || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}
	m.Quiet(func() {
		if got := sectors(t, d, 4); got != "aa.." {
			t.Errorf("the medium holds %s", got)
		}
	})
	if m.Accesses() != 2 {
		t.Errorf("%d accesses", m.Accesses())
	}
}

func TestContent(t *testing.T) {
	m := New()
	d := m.Add("disk", 4*PageSize)
	other := m.Durable()
	image := fill('i', PageSize+100)
	d.Fill(image)
	if !d.Begins(m.Content(image)) || d.Begins(m.Content(fill('i', 2*PageSize))) || d.Begins(m.Content(fill('i', 5*PageSize))) {
		t.Error("content is not told from other content")
	}
	if diff := cmp.Diff([]string{"disk"}, m.Durable().Differs(other)); diff != "" {
		t.Error(diff)
	}
	if m.Durable().Sum() == other.Sum() {
		t.Error("two contents have one sum")
	}
}
