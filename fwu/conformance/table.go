package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// row is one line of a table for one device.
type row struct {
	section string
	name    string
	choice  choice
	run     func(b *bench) error
}

// sheet is the rows for one device.
type sheet struct {
	name  string
	comps []Config
	rows  []row
}

const (
	smallSize = 64  // units in a location
	largeSize = 512 // the same, where size matters
)

// config is a component in the factory state.
func config(p Profile, id fwu.ID, v Variant, m fwu.ManifestMode, units int64) Config {
	img := make([]byte, p.Alignment+200)
	fill(img, uint64(id)<<40+1)
	size := max(units*p.Alignment, 2*p.MaxWrite*min(1, units/largeSize))
	return Config{ID: id, Variant: v, Manifest: m, Size: size, Image: img, Version: fwu.Version{Major: 1, Minor: uint8(id)}, Sequence: 10}
}

// sheets are all tables under a profile.
func sheets(o Options) ([]sheet, error) {
	var all, larges []sheet
	for _, f := range figures() {
		for _, m := range o.Modes {
			cells, err := f.cells(o.Profile)
			if err != nil {
				return nil, err
			}
			s := sheet{name: fmt.Sprintf("%v %s", f.variant, m), comps: []Config{config(o.Profile, 1, f.variant, m, smallSize)}}
			s.rows = append(cellRows(f, cells), unknownRows(f, cells)...)
			s.rows = append(s.rows, argumentRows(argumentGroups(o.Profile), f.variant, m)...)
			all = append(all, s)
			large := sheet{name: s.name + " large", comps: []Config{config(o.Profile, 1, f.variant, m, largeSize)}}
			large.rows = argumentRows(largeGroups(), f.variant, m)
			larges = append(larges, large)
		}
	}
	several, err := severalSheets(o)
	return slices.Concat(all, several, larges), err
}

// cellRows makes rows of a matrix.
func cellRows(f figure, cells []cell) []row {
	var rows []row
	for _, c := range cells {
		name := fmt.Sprintf("%s, %v: %s", f.name, c.from, c.event)
		rows = append(rows, row{sectionOf(c.event), name, c.choice, func(b *bench) error { return b.cell(c) }})
	}
	return rows
}

// cell carries out one cell of a matrix.
func (b *bench) cell(c cell) error {
	u := b.units[0]
	if err := b.bring([]place{c.from}); err != nil {
		return fmt.Errorf("%w: %w", errPreparation, err)
	}
	before, err := b.query(u)
	if err != nil {
		return err
	}
	if err := b.event(c.event, u); err != nil {
		return err
	}
	if err := must(c.event, b.last, c.status...); err != nil {
		return err
	}
	want := before.Error
	if c.err != '=' {
		if want, err = b.errorOf(string(c.err)); err != nil {
			return err
		}
	}
	u.fresh = c.to.fresh
	if err := b.check(u, c.to, &want); err != nil {
		return err
	}
	if err := b.checkReason(u, c); err != nil {
		return err
	}
	b.seen(transitionOf(u.Variant, c.from.state, c.event, c.to))
	return nil
}

// checkReason: the reason codes are not the specification's.
func (b *bench) checkReason(u *unit, c cell) error {
	want, ok := map[string]fwu.Reason{
		"cancel": fwu.ReasonCancelled, "reject": fwu.ReasonRejected, "reboot-failing STAGED": fwu.ReasonTrialNotBooted,
		"reboot TRIAL": fwu.ReasonTrialReset, "reboot REJECTED": fwu.ReasonRejected,
	}[strings.TrimSuffix(c.event+" "+map[bool]string{true: c.from.state.String()}[strings.HasPrefix(c.event, "reboot")], " ")]
	if !b.Reasons || !ok || c.status[0] < 0 || c.to.state != fwu.Failed && c.to.state != fwu.Rejected {
		return nil
	}
	info, err := b.query(u)
	if err == nil && info.Impl.Reason != want {
		return fmt.Errorf("reason: got %q, want %q", info.Impl.Reason, want)
	}
	return err
}

// unknownRows: section 5.6.1, DOES_NOT_EXIST, in every state of a matrix.
func unknownRows(f figure, cells []cell) []row {
	var rows []row
	done := map[place]bool{}
	for _, c := range cells {
		if done[c.from] {
			continue
		}
		done[c.from] = true
		for _, call := range []string{"query", "start", "write", "finish", "cancel", "clean"} {
			from := c.from
			rows = append(rows, row{"5.5.5, 5.6.1", fmt.Sprintf("%s, %v: %s of no component", f.name, from, call), noChoice, func(b *bench) error {
				if err := b.bring([]place{from}); err != nil {
					return fmt.Errorf("%w: %w", errPreparation, err)
				}
				if err := b.run("unknown-" + call + " = DOES_NOT_EXIST"); err != nil {
					return err
				}
				return b.check(b.units[0], from, nil)
			}})
		}
	}
	return rows
}

// argumentRows makes those rows that a variant and a mode have.
func argumentRows(groups []argumentGroup, v Variant, m fwu.ManifestMode) []row {
	var rows []row
	for _, g := range groups {
		for _, a := range g.rows {
			if applies(a.only, v) && strings.Contains(a.modes, string(m[0])) {
				rows = append(rows, row{g.section, a.name, a.choice, func(b *bench) error { return b.run(a.script) }})
			}
		}
	}
	return rows
}

// applies tells whether a variant has all the words of only.
func applies(only string, v Variant) bool {
	has := strings.Fields(v.String())
	return !slices.ContainsFunc(strings.Fields(only), func(w string) bool { return !slices.Contains(has, w) })
}

// severalSheets makes sheets of the table for several components: one for each device that a row wants.
func severalSheets(o Options) ([]sheet, error) {
	byName := map[string]int{}
	var all []sheet
	if !slices.Contains(o.Modes, fwu.Detached) {
		return nil, nil
	}
	for _, g := range severalGroups() {
		for _, s := range g.rows {
			for i := range 4 {
				v := Variant{Trial: i&1 == 0, Volatile: i&2 != 0}
				comps, open, err := parseComponents(o.Profile, s.components, v)
				if err != nil {
					return nil, err
				}
				if !applies(s.only, v) || v.Trial && !open.Trial || v.Volatile && !open.Volatile {
					continue
				}
				name := nameOf(comps)
				at, ok := byName[name]
				if !ok {
					at = len(all)
					byName[name] = at
					all = append(all, sheet{name: name, comps: comps})
				}
				rowName := fmt.Sprintf("%s: %s", s.before, s.script)
				all[at].rows = append(all[at].rows, row{g.section, rowName, s.choice, func(b *bench) error { return b.several(s) }})
			}
		}
	}
	return all, nil
}

func nameOf(comps []Config) string {
	var words []string
	for _, c := range comps {
		words = append(words, c.Variant.String())
	}
	return strings.Join(words, ", ")
}

// parseComponents reads "bt lk". open tells which properties some component leaves open: those are taken from v.
func parseComponents(p Profile, s string, v Variant) (comps []Config, open Variant, err error) {
	for i, word := range strings.Fields(s) {
		c := v
		c.Reboot = word[0] == 'b'
		trial, staging := true, true
		for _, r := range word[1:] {
			switch r {
			case 't', 'n':
				c.Trial, trial = r == 't', false
			case 'v', 'k':
				c.Volatile, staging = r == 'v', false
			default:
				return nil, open, fmt.Errorf("component %q: unknown letter %q", word, r)
			}
		}
		open.Trial, open.Volatile = open.Trial || trial, open.Volatile || staging
		comps = append(comps, config(p, fwu.ID(i+1), c, fwu.Detached, smallSize))
	}
	return comps, open, nil
}

// several carries out a row for several components.
func (b *bench) several(s several) error {
	before, err := parsePlaces(s.before)
	if err != nil {
		return err
	}
	if err := b.bring(before); err != nil {
		return fmt.Errorf("%w: %w", errPreparation, err)
	}
	if err := b.run(s.script); err != nil {
		return err
	}
	if err := b.checkNamed(s.names); err != nil {
		return err
	}
	return b.checkVector(strings.Fields(s.after))
}

func parsePlaces(s string) ([]place, error) {
	var all []place
	for _, w := range strings.Fields(s) {
		p, err := parsePlace(w)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// checkNamed: the components that the last error names are these.
func (b *bench) checkNamed(names string) error {
	if names == "" || !b.Names {
		return nil
	}
	got := slices.Clone(b.named)
	slices.Sort(got)
	var words []string
	for _, id := range slices.Compact(got) {
		words = append(words, fmt.Sprint(id))
	}
	if g := strings.Join(words, " "); g != names {
		return fmt.Errorf("%v names components %q, want %q", b.last, g, names)
	}
	return nil
}

// checkVector checks all components; which images are active is settled first, for members of a bank move together.
func (b *bench) checkVector(after []string) error {
	for i, w := range after {
		b.units[i].fresh = strings.Contains(w, "'")
	}
	for i, w := range after {
		var err error
		for _, alternative := range strings.Split(w, "|") {
			if err = b.checkPlace(b.units[i], alternative); err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
