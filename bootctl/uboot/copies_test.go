package uboot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
)

func TestActiveCopyOfAllFlagPairs(t *testing.T) {
	for a := range 256 {
		for b := range 256 {
			copies := []Copy{{Valid: true, Flag: byte(a)}, {Valid: true, Flag: byte(b)}}
			activate(copies)
			// As U-Boot's documentation of the rule has it, in the order of its tests.
			var second bool
			if a == 255 && b == 0 {
				second = true
			} else if a == 0 && b == 255 {
				second = false
			} else if b > a {
				second = true
			}
			if copies[0].Active == second || copies[1].Active != second {
				t.Fatalf("flags %d, %d: active %v, %v", a, b, copies[0].Active, copies[1].Active)
			}
			// What is committed next is active.
			old := 0
			if second {
				old = 1
			}
			copies[1-old].Flag = copies[old].Flag + 1
			if activate(copies); copies[old].Active || !copies[1-old].Active {
				t.Fatalf("flags %d, %d: after a commit copy %d is still active", a, b, old)
			}
		}
	}
	for _, valid := range [][]bool{{false, false}, {true, false}, {false, true}, {false}, {true}} {
		var copies []Copy
		for _, v := range valid {
			copies = append(copies, Copy{Valid: v, Flag: 7})
		}
		activate(copies)
		for i, c := range copies {
			if c.Active != valid[i] {
				t.Errorf("valid %v: active %v in copy %d", valid, c.Active, i)
			}
		}
	}
}

// operation is a write, or a flush where data is nil.
type operation struct {
	off  int64
	data []byte
}

// disk is a medium that records, and fails where it is told to.
type disk struct {
	content []byte
	log     []operation
	flaws
}

type flaws struct {
	readFails  map[int64]bool // by offset
	writeFails bool
	syncFails  int  // the number of the flush that fails, from 1
	lies       bool // writes go nowhere
	openFails  bool
}

var errDisk = errors.New("I/O error")

func (d *disk) open(string, bool) (Medium, error) {
	if d.openFails {
		return nil, errDisk
	}
	return d, nil
}

func (d *disk) Size() int64  { return int64(len(d.content)) }
func (d *disk) Close() error { return nil }

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	if d.readFails[off] {
		return 0, errDisk
	}
	if off+int64(len(p)) > d.Size() {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(p, d.content[off:]), nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if d.writeFails {
		return 0, errDisk
	}
	d.log = append(d.log, operation{off, bytes.Clone(p)})
	if !d.lies {
		copy(d.content[off:], p)
	}
	return len(p), nil
}

func (d *disk) Sync() error {
	d.log = append(d.log, operation{})
	if flushes := len(d.log) - d.writes(); flushes == d.syncFails {
		return errDisk
	}
	return nil
}

func (d *disk) writes() int {
	n := 0
	for _, op := range d.log {
		if op.data != nil {
			n++
		}
	}
	return n
}

// onDisk is a selector on a simulated disk with copies at an offset that is aligned to nothing.
func onDisk(t *testing.T, copies ...[]byte) (*Selector, *disk) {
	t.Helper()
	const gap = 100
	d := &disk{}
	c := Config{Scheme: OneShot, Locks: Locks{Root: t.TempDir()}}
	c.Open, c.SingleCopy = d.open, len(copies) == 1
	for _, b := range copies {
		d.content = append(d.content, bytes.Repeat([]byte{0xee}, gap)...)
		c.Copies = append(c.Copies, Location{Path: "disk", Offset: int64(len(d.content)), Size: testSize})
		d.content = append(d.content, b...)
	}
	d.content = append(d.content, bytes.Repeat([]byte{0xee}, gap)...)
	return mustNew(t, c), d
}

// filler is variables that take several sectors, so that a change moves something in each of them.
func filler() []string {
	var entries []string
	for i := range 60 {
		entries = append(entries, fmt.Sprintf("var%02d=%s=%d", i, strings.Repeat("x", 80), i))
	}
	return entries
}

func around(own ...string) []string {
	f := filler()
	return slices.Concat(f[:3], own, f[3:])
}

// torn calls check with each state of the content of d that a cut during its log can leave, where a sector is written whole or not at all.
// tears says which sectors of a write of n sectors arrived.
func torn(before []byte, log []operation, tears func(n int) map[string]func(int) bool, check func(what string, content []byte)) {
	now := bytes.Clone(before)
	check("before the first write", now)
	for i, op := range log {
		if op.data == nil {
			continue
		}
		n := (int(op.off%512) + len(op.data) + 511) / 512
		for what, kept := range tears(n) {
			content := bytes.Clone(now)
			for s := range n {
				from := max(int64(s)*512, op.off%512) - op.off%512
				to := min(int64(s+1)*512-op.off%512, int64(len(op.data)))
				if kept(s) {
					copy(content[op.off+from:], op.data[from:to])
				}
			}
			check(fmt.Sprintf("write %d, %s", i, what), content)
		}
		copy(now[op.off:], op.data)
	}
	check("after the last write", now)
}

// prefixes: the write was cut, sector by sector.
func prefixes(n int) map[string]func(int) bool {
	m := map[string]func(int) bool{}
	for k := range n + 1 {
		m[fmt.Sprintf("first %d sectors", k)] = func(s int) bool { return s < k }
	}
	return m
}

// subsets: the device wrote in an order of its own.
func subsets(n int) map[string]func(int) bool {
	m := prefixes(n)
	m["even sectors"] = func(s int) bool { return s%2 == 0 }
	m["odd sectors"] = func(s int) bool { return s%2 == 1 }
	for k := range n + 1 {
		m[fmt.Sprintf("last %d sectors", k)] = func(s int) bool { return s >= n-k }
		m[fmt.Sprintf("without sector %d", k)] = func(s int) bool { return s != k }
		m[fmt.Sprintf("sector %d only", k)] = func(s int) bool { return s == k }
	}
	return m
}

func starts() map[string][][]byte {
	a, stale := around("fwu_active=a"), around("fwu_active=b", "fwu_trial=b", "old=1")
	return map[string][][]byte{
		"second is active":         {image(6, 0, stale...), image(7, 0, a...)},
		"first is active":          {image(7, 0, a...), image(6, 0, stale...)},
		"second is active, 255":    {image(254, 0, stale...), image(255, 0, a...)},
		"first is active, wrapped": {image(0, 0, a...), image(255, 0, stale...)},
		"flags are equal":          {image(9, 0, a...), image(9, 0, stale...)},
		"first is damaged":         {damaged(image(6, 0, stale...)), image(7, 0, a...)},
		"second is damaged":        {image(7, 0, a...), damaged(image(200, 0, stale...))},
		"second was never written": {image(0, 0, a...), bytes.Repeat([]byte{0xff}, testSize)},
		"second is the new one":    {image(7, 0, a...), image(6, 0, around("fwu_active=a", "fwu_trial=b")...)},
	}
}

// TestCutDuringACommitLeavesOldOrNew cuts a commit at every point, reads, commits again, and cuts that at every point too.
func TestCutDuringACommitLeavesOldOrNew(t *testing.T) {
	old, armed := fwu.Selection{Default: fwu.BankA}, fwu.Selection{Default: fwu.BankA, Trial: fwu.BankB}
	for name, copies := range starts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, d := onDisk(t, copies...)
			first := bytes.Clone(d.content)
			if err := s.Commit(armed); err != nil {
				t.Fatal(err)
			}
			torn(first, d.log, subsets, func(what string, content []byte) {
				d.content, d.log = bytes.Clone(content), nil
				expect(t, s, what, old, armed)
				if err := s.Commit(armed); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				torn(content, d.log, prefixes, func(again string, content []byte) {
					d.content, d.log = content, nil
					expect(t, s, what+", then "+again, old, armed)
				})
			})
		})
	}
}

func expect(t *testing.T, s *Selector, what string, allowed ...fwu.Selection) {
	t.Helper()
	got, err := s.Read()
	if err != nil || !slices.Contains(allowed, got) {
		t.Fatalf("%s: %+v, %v", what, got, err)
	}
	env, _, err := s.config.Read()
	if err != nil {
		t.Fatal(err)
	}
	rest := slices.DeleteFunc(env.Entries(), func(e string) bool { return strings.HasPrefix(e, "fwu_") })
	if !slices.Equal(rest, filler()) {
		t.Fatalf("%s: other variables changed", what)
	}
}

func TestCutOfASingleCopyIsNeverAnythingElse(t *testing.T) {
	old, armed := fwu.Selection{Default: fwu.BankA}, fwu.Selection{Default: fwu.BankA, Trial: fwu.BankB}
	s, d := onDisk(t, image(-1, 0, around("fwu_active=a")...))
	before := bytes.Clone(d.content)
	if err := s.Commit(armed); err != nil {
		t.Fatal(err)
	}
	lost := 0
	torn(before, d.log, subsets, func(what string, content []byte) {
		d.content = content
		switch got, err := s.Read(); {
		case errors.Is(err, fwu.ErrNoSelection):
			lost++
		case err != nil || got != old && got != armed:
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	})
	if lost == 0 {
		t.Error("no cut lost a single copy: the warning about it would be wrong")
	}
}

func TestCommitWritesOneCopyOnceAndNothingElse(t *testing.T) {
	for name, copies := range starts() {
		t.Run(name, func(t *testing.T) {
			s, d := onDisk(t, copies...)
			before := bytes.Clone(d.content)
			_, was, err := s.config.Read()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Commit(fwu.Selection{Default: fwu.BankB}); err != nil {
				t.Fatal(err)
			}
			target := slices.IndexFunc(was, func(c Copy) bool { return !c.Active })
			l := s.config.Copies[target]
			if d.writes() != 1 || d.log[0].data != nil || d.log[1].off != l.Offset || len(d.log[1].data) != testSize || d.log[2].data != nil || len(d.log) != 3 {
				t.Errorf("%d operations, %d writes; want flush, write of copy %d, flush", len(d.log), d.writes(), target)
			}
			copy(before[l.Offset:], d.content[l.Offset:l.Offset+l.Size])
			if !bytes.Equal(before, d.content) {
				t.Error("something outside of the copy changed")
			}
			_, is, err := s.config.Read()
			if err != nil || is[target].Flag != was[1-target].Flag+1 || !is[target].Active {
				t.Errorf("copy %d: %+v, %v", target, is[target].Flag, err)
			}
			d.log = nil
			if err := s.Commit(fwu.Selection{Default: fwu.BankB}); err != nil || d.writes() != 0 {
				t.Errorf("committing what is there: %v, %d writes", err, d.writes())
			}
		})
	}
}

func TestFlawsOfTheMedium(t *testing.T) {
	a, stale := image(7, 0, around("fwu_active=a")...), image(6, 0, "fwu_active=b")
	const first, second = 100, 100 + testSize + 100
	other := fwu.Selection{Default: fwu.BankB}
	for name, tt := range map[string]struct {
		copies    [][]byte
		flaws     flaws
		readFails bool
		commit    error // nil: any error but ErrNoSelection
		commitOK  bool
	}{
		"inactive copy unreadable":                {copies: [][]byte{a, stale}, flaws: flaws{readFails: map[int64]bool{second: true}}, readFails: true, commit: errDisk},
		"active copy unreadable":                  {copies: [][]byte{stale, a}, flaws: flaws{readFails: map[int64]bool{second: true}}, readFails: true, commit: errDisk},
		"both unreadable is not lost":             {copies: [][]byte{a, stale}, flaws: flaws{readFails: map[int64]bool{first: true, second: true}}, readFails: true, commit: errDisk},
		"one unreadable, one damaged is not lost": {copies: [][]byte{a, damaged(stale)}, flaws: flaws{readFails: map[int64]bool{first: true}}, readFails: true, commit: errDisk},
		"no medium":                   {copies: [][]byte{a, stale}, flaws: flaws{openFails: true}, readFails: true, commit: errDisk},
		"write fails":                 {copies: [][]byte{a, stale}, flaws: flaws{writeFails: true}, commit: errDisk},
		"flush of the fallback fails": {copies: [][]byte{a, stale}, flaws: flaws{syncFails: 1}, commit: errDisk},
		"flush fails":                 {copies: [][]byte{a, stale}, flaws: flaws{syncFails: 2}, commit: errDisk},
		"write goes nowhere":          {copies: [][]byte{a, stale}, flaws: flaws{lies: true}, commit: fwu.ErrReadBack},
	} {
		t.Run(name, func(t *testing.T) {
			s, d := onDisk(t, tt.copies...)
			d.flaws = tt.flaws
			s.config.Default = ParseEnv([]byte("bootcmd=x\x00")) // not to be used: nothing is lost
			got, err := s.Read()
			if (err != nil) != tt.readFails || errors.Is(err, fwu.ErrNoSelection) || !tt.readFails && got.Default != fwu.BankA {
				t.Fatal(got, err)
			}
			if err := s.Commit(other); !errors.Is(err, tt.commit) || errors.Is(err, fwu.ErrNoSelection) {
				t.Fatal(err)
			}
			if tt.readFails && d.writes() != 0 {
				t.Error("what could not be read was written over")
			}
			d.flaws = flaws{}
			if got, err := s.Read(); err != nil || got.Default != fwu.BankA && got != other {
				t.Error(got, err)
			}
		})
	}
}

func TestLostEnvironment(t *testing.T) {
	full := ParseEnv([]byte("bootcmd=x\x00a=b=c\x00fwu_trial=b\x00"))
	for name, copies := range map[string][][]byte{
		"two copies":  {damaged(image(7, 0, "a=1")), bytes.Repeat([]byte{0}, testSize)},
		"single copy": {damaged(image(-1, 0, "a=1"))},
	} {
		t.Run(name, func(t *testing.T) {
			s, d := onDisk(t, copies...)
			before := bytes.Clone(d.content)
			if err := s.Commit(fwu.Selection{Default: fwu.BankA}); !errors.Is(err, fwu.ErrNoSelection) || !strings.Contains(err.Error(), "saveenv") {
				t.Error(err)
			}
			if !bytes.Equal(before, d.content) || len(d.log) != 0 {
				t.Error("an environment was made from nothing")
			}
			s.config.Default = full
			if _, err := s.Read(); !errors.Is(err, fwu.ErrNoSelection) {
				t.Error("a default environment was read as if it were there:", err)
			}
			if err := s.Commit(fwu.Selection{Default: fwu.BankA}); err != nil {
				t.Fatal(err)
			}
			env, _, err := s.config.Read()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"bootcmd=x", "a=b=c", "fwu_active=a"}, env.Entries()); diff != "" {
				t.Error(diff)
			}
			if _, ok := full.Get(VarActive); ok || d.writes() != 1 {
				t.Error("the default environment was changed, or more than one copy written:", d.writes())
			}
		})
	}
}

func TestRefusedBeforeAnythingIsWritten(t *testing.T) {
	room := testSize - 5 - len("x=\x00\x00fwu_active=a\x00")
	s, d := onDisk(t, image(1, 0, "x="+strings.Repeat("y", room), "fwu_active=a"), image(0, 0))
	if err := s.Commit(fwu.Selection{Default: fwu.BankB}); err != nil {
		t.Fatal("an environment that is full to the last byte:", err)
	}
	d.log = nil
	if err := s.Commit(fwu.Selection{Default: fwu.BankB, Trial: fwu.BankA}); err == nil || len(d.log) > 1 || d.writes() != 0 {
		t.Error("an environment that does not fit:", err, d.writes())
	}
	for _, sel := range []fwu.Selection{{}, {Trial: fwu.BankA}, {Default: "c"}, {Default: fwu.BankA, Trial: "x"}} {
		if err := s.Commit(sel); err == nil {
			t.Errorf("%+v was committed", sel)
		}
	}
}

func TestConfigThatIsRefused(t *testing.T) {
	d := &disk{content: make([]byte, 0x10000)}
	l := Location{Path: "x", Size: testSize}
	at := func(offset int64) Location { return Location{Path: "x", Offset: offset, Size: testSize} }
	base := func(single bool, copies ...Location) Config {
		return Config{Scheme: OneShot, Environment: Environment{Copies: copies, SingleCopy: single, Open: d.open}}
	}
	bad := map[string]Config{
		"no location":                     base(false),
		"three locations":                 base(false, l, at(testSize), at(2*testSize)),
		"a single copy without the words": base(false, l),
		"two copies with the words":       base(true, l, at(testSize)),
		"no path":                         base(true, Location{Size: testSize}),
		"MTD":                             base(true, Location{Path: "/dev/mtd0", Size: testSize}),
		"no opener":                       {Scheme: OneShot, Environment: Environment{Copies: []Location{l}, SingleCopy: true}},
		"no scheme":                       {Environment: Environment{Copies: []Location{l}, SingleCopy: true, Open: d.open}},
	}
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		if _, err := New(bad[name]); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	for name, c := range map[string]Config{
		"beyond the end":                 base(true, at(0x10000-testSize+1)),
		"before the beginning":           base(true, at(-0x10001)),
		"from the end, beyond it":        base(true, at(-testSize+1)),
		"copies overlap":                 base(false, at(0), at(testSize-1)),
		"copies overlap, from the end":   base(false, at(-2*testSize), at(0x10000-testSize-1)),
		"copies are the same":            base(false, at(0), at(0)),
		"offset at the end of the range": base(true, at(1<<63-1)),
	} {
		s := mustNew(t, c)
		if got, err := s.Read(); err == nil || errors.Is(err, fwu.ErrNoSelection) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, flag := range []byte{7, 255} {
		first, errFirst := encode(ParseEnv([]byte("fwu_active=a")), flag, 32, 2)
		second, errSecond := encode(ParseEnv([]byte("fwu_active=b\x00x=1")), flag+1, 32, 2)
		if errFirst != nil || errSecond != nil {
			f.Fatal(errFirst, errSecond)
		}
		f.Add(first, second)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		n := max(len(first), len(second), 6)
		if n > MaxSize {
			return
		}
		content := make([]byte, 2*n)
		copy(content, first)
		copy(content[n:], second)
		d := &disk{content: content}
		e := Environment{Copies: []Location{{"x", 0, int64(n)}, {"x", int64(n), int64(n)}}, Open: d.open}
		env, copies, err := e.Read()
		if err == nil && env == nil || len(copies) != 2 || err != nil && !errors.Is(err, fwu.ErrNoSelection) {
			t.Error(env, copies, err)
		}
	})
}
