package sim

import (
	"iter"
	"math/rand/v2"
	"slices"
)

// Depth says how thoroughly cuts are enumerated.
type Depth uint8

// The depths.
const (
	// Coarse: before and after each write, half of it, and what was pending lost.
	Coarse Depth = iota
	// Full: every prefix at SectorSize, all subsets of what was pending up to MaxSubset writes in every order, and random ones.
	Full
)

// MaxSubset is how many pending writes are tried in all subsets; of more, random subsets are.
const MaxSubset = 6

const randomSubsets, randomTears = 64, 8

// Cut is a place in a log at which power fails, and what became of the writes in flight. Position and shape name it for ever.
type Cut struct {
	Position int // operations that were issued before; the one at Position is in flight
	Shape    int // number of the outcome at that position, as Full enumerates them
	State    State
}

// Cuts enumerates what cuts of log leave on media that held base. Every position at which a write is in flight is cut, and the end.
func Cuts(base State, log []Op, depth Depth) iter.Seq[Cut] {
	return func(yield func(Cut) bool) {
		p := newPlayback(base, log)
		for pos := 0; ; pos++ {
			if pos == len(log) || !log[pos].Flush {
				for shape, o := range p.outcomes() {
					if depth == Coarse && !o.coarse {
						continue
					}
					if !yield(Cut{pos, shape, p.state(o)}) {
						return
					}
				}
			}
			if pos == len(log) {
				return
			}
			p.step()
		}
	}
}

// At returns one cut. ok is false if there is no such.
func At(base State, log []Op, position, shape int) (c Cut, ok bool) {
	if position < 0 || position > len(log) {
		return Cut{}, false
	}
	p := newPlayback(base, log)
	for range position {
		p.step()
	}
	all := p.outcomes()
	if shape < 0 || shape >= len(all) {
		return Cut{}, false
	}
	return Cut{position, shape, p.state(all[shape])}, true
}

// playback is a log that is replayed up to pos.
type playback struct {
	log     []Op
	pos     int
	disks   State // with everything that was flushed
	pending []int // writes that were not, by position
}

func newPlayback(base State, log []Op) *playback {
	base.disks = slices.Clone(base.disks)
	return &playback{log: log, disks: base}
}

// step issues the operation at pos.
func (p *playback) step() {
	o := p.log[p.pos]
	if !o.Flush {
		p.pending = append(p.pending, p.pos)
		p.pos++
		return
	}
	copied := false
	p.pending = slices.DeleteFunc(p.pending, func(i int) bool {
		if p.log[i].Medium != o.Medium {
			return false
		}
		if !copied { // states that were handed out share what was there
			p.disks.disks[o.Medium], copied = slices.Clone(p.disks.disks[o.Medium]), true
		}
		p.apply(p.disks.disks, whole(i, p.log[i]))
		return true
	})
	p.pos++
}

// landing is a write of which some sectors reach the medium.
type landing struct {
	op      int
	from    int
	to      int    // sectors
	sectors []bool // nil: all of from to to
}

func whole(i int, o Op) landing { return landing{op: i, to: o.sectors()} }

// outcome is what lands, in order.
type outcome struct {
	coarse   bool
	landings []landing
}

func (p *playback) apply(disks [][]*page, l landing) {
	o := p.log[l.op]
	put := func(from, to int) {
		a, b := from*SectorSize, min(to*SectorSize, len(o.Data))
		disk := disks[o.Medium]
		overlay(p.disks.seed, p.disks.zero, disk, o.Data[a:b], o.Off+int64(a), func(i int, n *page) { disk[i] = n })
	}
	if l.sectors == nil {
		put(l.from, l.to)
		return
	}
	for s, lands := range l.sectors {
		if lands {
			put(s, s+1)
		}
	}
}

func (p *playback) state(o outcome) State {
	s := p.disks
	s.disks = slices.Clone(p.disks.disks)
	touched := map[int]bool{}
	for _, l := range o.landings {
		if m := p.log[l.op].Medium; !touched[m] {
			touched[m] = true
			s.disks[m] = slices.Clone(s.disks[m])
		}
		p.apply(s.disks, l)
	}
	return s
}

// outcomes lists what a cut now can leave: first the prefixes of the write in flight with everything pending landed, then subsets, then torn ones.
func (p *playback) outcomes() []outcome {
	var before []landing
	for _, i := range p.pending {
		before = append(before, whole(i, p.log[i]))
	}
	n, all := 0, before
	if p.pos < len(p.log) && !p.log[p.pos].Flush {
		w := whole(p.pos, p.log[p.pos])
		n, all = w.to, append(slices.Clip(before), w)
	}
	var out []outcome
	for k := 0; k <= n; k++ {
		o := outcome{coarse: k == 0 || k == n || k == n/2, landings: before}
		if k > 0 {
			o.landings = append(slices.Clip(before), landing{op: p.pos, to: k})
		}
		out = append(out, o)
	}
	r := rand.New(rand.NewPCG(uint64(p.pos), uint64(len(all))))
	out = append(out, p.subsets(r, all)...)
	if n > 0 {
		out = append(out, p.tears(r, all)...)
	}
	return out
}

// subsets lists what can be lost of all and, where writes overlap, the orders in which they can land.
func (p *playback) subsets(r *rand.Rand, all []landing) []outcome {
	var out []outcome
	if len(all) > MaxSubset {
		for i := range randomSubsets {
			s := choose(r, all)
			r.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
			out = append(out, outcome{coarse: i < 2, landings: s})
		}
		return append(out, outcome{coarse: true})
	}
	for bits := range 1 << len(all) {
		var s []landing
		for i, l := range all {
			if bits>>i&1 == 1 {
				s = append(s, l)
			}
		}
		inOrder := bits == 1<<len(all)-1 || bits == 1<<max(len(all)-1, 0)-1
		if !inOrder { // those two are prefixes
			out = append(out, outcome{coarse: bits == 0 || bits == 1<<len(all)-2, landings: s})
		}
		if len(s) > 1 && p.overlap(s) {
			for _, o := range orders(s)[1:] {
				out = append(out, outcome{landings: o})
			}
		}
	}
	return out
}

func choose(r *rand.Rand, all []landing) []landing {
	var s []landing
	for _, l := range all {
		if r.IntN(2) == 0 {
			s = append(s, l)
		}
	}
	return s
}

func (p *playback) overlap(s []landing) bool {
	for i, x := range s {
		for _, y := range s[:i] {
			a, b := p.log[x.op], p.log[y.op]
			if a.Medium == b.Medium && a.Off < b.Off+int64(len(b.Data)) && b.Off < a.Off+int64(len(a.Data)) {
				return true
			}
		}
	}
	return false
}

// orders lists the permutations of s, s itself first; of more than four, s and its reverse.
func orders(s []landing) [][]landing {
	switch {
	case len(s) < 2:
		return [][]landing{s}
	case len(s) > 4:
		r := slices.Clone(s)
		slices.Reverse(r)
		return [][]landing{s, r}
	}
	var out [][]landing
	for i := range s {
		rest := append(slices.Clone(s[:i]), s[i+1:]...)
		for _, o := range orders(rest) {
			out = append(out, append([]landing{s[i]}, o...))
		}
	}
	return out
}

// tears lists random subsets in random order, of each of which random sectors land.
func (p *playback) tears(r *rand.Rand, all []landing) []outcome {
	var out []outcome
	for i := range randomTears {
		s := choose(r, all[:len(all)-1])
		s = append(s, all[len(all)-1])
		r.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
		for j := range s {
			s[j].sectors = make([]bool, s[j].to)
			for k := range s[j].sectors {
				s[j].sectors[k] = r.IntN(2) == 0
			}
		}
		out = append(out, outcome{coarse: i < 1, landings: s})
	}
	return out
}
