package conformance

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// source is where the walk's decisions come from: intn returns one of 0 to n-1.
type source interface {
	intn(label string, n int) int
}

type rapidSource struct{ t *rapid.T }

func (r rapidSource) intn(label string, n int) int { return rapid.IntRange(0, n-1).Draw(r.t, label) }

// walkLength is how many steps a walk has at least.
const walkLength = 125

// runWalk walks at least o.Steps random steps in total, as many for each of the eight variants as that of the first component. Each of rapid's checks is a walk;
// those that are not needed are empty. A failure is shrunk and can be replayed with the seed or the file that rapid prints.
func runWalk(t *testing.T, newImpl NewFunc, o Options) (steps, seen int) {
	quota := o.Steps/8 + 1
	per := max(walkLength, quota*5/4/checks()+1)
	arrows := map[transition]bool{}
	for _, v := range variants() {
		t.Run(v.String(), func(t *testing.T) {
			made, failed := 0, false
			rapid.Check(t, func(rt *rapid.T) {
				if made >= quota && !failed {
					return
				}
				comps := randomComponents(rapidSource{rt}, o, v)
				w := newWalker(rapidSource{rt}, newImpl(t, comps), o.Profile, comps)
				w.seen = func(tr transition) { arrows[tr] = true }
				n, err := w.walk(per)
				made += n
				if err != nil {
					failed = true
					rt.Fatalf("%v", err)
				}
			})
			steps += made
		})
	}
	return steps, len(arrows)
}

// checks is how many checks rapid makes.
func checks() int {
	n := 100
	if f := flag.Lookup("rapid.checks"); f != nil {
		if v, err := strconv.Atoi(f.Value.String()); err == nil && v > 0 {
			n = v
		}
	}
	if testing.Short() {
		n = max(1, n/5)
	}
	return n
}

// randomComponents makes one to three components; the first has variant v.
func randomComponents(src source, o Options, v Variant) []Config {
	n := 1 + src.intn("components", 3)
	var comps []Config
	for i := range n {
		if i > 0 {
			v = Variant{Reboot: v.Reboot, Trial: src.intn("trial", 2) == 0, Volatile: src.intn("volatile", 2) == 0}
			if o.Profile.Bank {
				v.Reboot = src.intn("reboot", 2) == 0
			}
			for _, c := range comps { // the trial is the bank's
				if c.Variant.Reboot && v.Reboot {
					v.Trial = c.Variant.Trial
				}
			}
		}
		comps = append(comps, config(o.Profile, fwu.ID(i+1), v, o.Modes[src.intn("manifest", len(o.Modes))], smallSize))
		if v.Reboot && !o.Profile.Bank {
			break
		}
	}
	return comps
}

// walker holds an implementation against the model.
type walker struct {
	Profile
	src    source
	impl   Implementation
	sys    system // what the implementation ought to be
	infos  map[fwu.ID]fwu.Info
	cur    map[fwu.ID]*Delivery // what is being written
	known  map[fwu.ID][][]byte  // images that were delivered lately
	base   map[fwu.ID]uint32    // location in the factory state
	serial uint64
	trace  []string
	seen   func(transition)
	// bypassed counts the boots that bypassed the bootloader while something was staged.
	bypassed int
}

func newWalker(src source, impl Implementation, p Profile, comps []Config) *walker {
	w := &walker{Profile: p, src: src, impl: impl, sys: newSystem(p, comps), cur: map[fwu.ID]*Delivery{}, known: map[fwu.ID][][]byte{}, base: map[fwu.ID]uint32{}, seen: func(transition) {}}
	for _, c := range comps {
		w.known[c.ID] = [][]byte{c.Image}
		w.trace = append(w.trace, fmt.Sprintf("component %d: %v, %s", c.ID, c.Variant, c.Manifest))
	}
	return w
}

// walk makes n steps less a few, and closes the implementation, whatever happens. It returns how many it made. An error tells all steps.
func (w *walker) walk(n int) (made int, err error) {
	defer func() {
		if cerr := w.impl.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close: %w", cerr))
		}
		if err != nil {
			err = fmt.Errorf("%s\n%w", strings.Join(w.trace, "\n"), err)
		}
	}()
	return w.steps(n)
}

func (w *walker) steps(n int) (int, error) {
	infos, err := w.query()
	if err != nil {
		return 0, err
	}
	for id, i := range infos {
		w.base[id] = i.Location
	}
	w.infos = infos
	if err := w.matches(w.sys, infos); err != nil {
		return 0, fmt.Errorf("factory state: %w", err)
	}
	made := 0
	for range n {
		if w.src.intn("go", 32) == 0 { // so that what does not matter for a failure can be shrunk away
			continue
		}
		c, err := w.choose()
		if err != nil {
			return made, err
		}
		made++
		w.trace = append(w.trace, fmt.Sprintf("%d: %s", made, describe(c)))
		if err := w.step(c); err != nil {
			return made, err
		}
	}
	return made, nil
}

// describe tells a call to people.
func describe(c call) string {
	switch c.event {
	case "write":
		return fmt.Sprintf("write component %d at %d, %d bytes", c.id, c.off, len(c.block))
	case "start":
		s := fmt.Sprintf("start component %d, manifest of %d bytes", c.id, len(c.manifest))
		if c.from != nil {
			s += fmt.Sprintf("; %v, image of %d bytes, %+v", c.from.Defect, len(c.from.Image), c.from.Meta)
		}
		return s
	case "finish", "cancel", "clean", "query":
		return fmt.Sprintf("%s component %d", c.event, c.id)
	case "reject":
		return fmt.Sprintf("reject with %d", int32(c.err))
	}
	return c.event
}

// step makes a call, or a reboot, and compares.
func (w *walker) step(c call) error {
	status, named, err := w.do(c)
	if err != nil {
		return err
	}
	infos, err := w.query()
	if err != nil {
		return err
	}
	if slices.Contains([]string{"reboot", "reboot-failing", "reboot-bypassed", "service-restart"}, c.event) {
		if c.written, err = w.left(infos); err != nil {
			return err
		}
	}
	next, err := w.judge(c, status, named, infos)
	if err != nil {
		return err
	}
	w.observe(c, next)
	w.sys, w.infos = next, infos
	return w.slots()
}

// judge finds the outcome that the answer is.
func (w *walker) judge(c call, status fwu.Status, named []fwu.ID, infos map[fwu.ID]fwu.Info) (system, error) {
	var wrongs []error
	for _, out := range w.sys.next(c) {
		err := must(c.event, status, out.status)
		if err == nil && out.status == fwu.DependencyNeeded && w.sys.Names {
			err = within(named, out.named)
		}
		if err == nil {
			err = w.matches(out.next, infos)
		}
		if err == nil {
			return out.next, nil
		}
		wrongs = append(wrongs, err)
	}
	return system{}, errors.Join(wrongs...)
}

// within: some of the components that stand in the way are named, and no others.
func within(named, want []fwu.ID) error {
	if len(named) == 0 || slices.ContainsFunc(named, func(id fwu.ID) bool { return !slices.Contains(want, id) }) {
		return fmt.Errorf("DEPENDENCY_NEEDED names components %v, want some of %v", named, want)
	}
	return nil
}

// do makes the call.
func (w *walker) do(c call) (status fwu.Status, named []fwu.ID, err error) {
	api := w.impl.API()
	var e error
	var st fwu.Status
	switch c.event {
	case "query":
		_, e = api.Query(ctx(), c.id)
	case "start":
		e = api.Start(ctx(), c.id, c.manifest)
	case "write":
		e = api.Write(ctx(), c.id, c.off, c.block)
	case "finish":
		e = api.Finish(ctx(), c.id)
	case "cancel":
		e = api.Cancel(ctx(), c.id)
	case "clean":
		e = api.Clean(ctx(), c.id)
	case "install":
		st, e = api.Install(ctx())
	case "accept":
		e = api.Accept(ctx())
	case "reject":
		st, e = api.Reject(ctx(), fwu.Rejection{Error: c.err})
	case "request-reboot":
		e = api.RequestReboot(ctx())
	default:
		for how := Normal; how <= Restart; how++ {
			if strings.ReplaceAll(how.String(), " ", "-") == c.event {
				return fwu.Success, nil, w.impl.Reboot(how)
			}
		}
	}
	return statusOf(st, e), namedIn(e), nil
}

func (w *walker) query() (map[fwu.ID]fwu.Info, error) {
	infos := map[fwu.ID]fwu.Info{}
	for _, c := range w.sys.comps {
		i, err := w.impl.API().Query(ctx(), c.ID)
		if err != nil {
			return nil, fmt.Errorf("query component %d: %w", c.ID, err)
		}
		infos[c.ID] = i
	}
	return infos, nil
}

// left is how much of what was being written a restart has left, and checks that it is no less than was promised.
func (w *walker) left(infos map[fwu.ID]fwu.Info) (map[fwu.ID]int64, error) {
	left := map[fwu.ID]int64{}
	for _, c := range w.sys.comps {
		i := infos[c.ID]
		if !w.Progress || c.State != fwu.Writing || i.State != fwu.Writing {
			continue
		}
		promised, now := w.infos[c.ID].Impl.Written, i.Impl.Written
		if now < promised || now > c.prefix(w.Alignment) {
			return nil, fmt.Errorf("component %d: %d bytes left after a restart, %d were said to be durable, %d were written", c.ID, now, promised, c.prefix(w.Alignment))
		}
		left[c.ID] = now
	}
	return left, nil
}

// matches compares what query says with a state of the model.
func (w *walker) matches(s system, infos map[fwu.ID]fwu.Info) error {
	var bad []string
	for _, c := range s.comps {
		got, want := infos[c.ID], c.info(w.Alignment)
		differ := func(what string, g, w any) {
			if g != w {
				bad = append(bad, fmt.Sprintf("component %d: %s: got %v, want %v", c.ID, what, g, w))
			}
		}
		differ("state", got.State, want.State)
		differ("version", got.Version, want.Version)
		differ("maximum size", got.MaxSize, want.MaxSize)
		differ("flags", got.Flags, want.Flags)
		if w.Location {
			differ("location", got.Location, want.Location^w.base[c.ID])
		}
		if want.State == fwu.Failed || want.State == fwu.Rejected {
			differ("error", got.Error, want.Error)
			if w.Reasons && want.Impl.Reason != "" {
				differ("reason", got.Impl.Reason, want.Impl.Reason)
			}
		}
		if w.Progress && want.State == fwu.Writing {
			whole := w.complete(&c) && got.Impl.Written == c.prefix(w.Alignment)
			differ("written is a multiple of the alignment, or all", whole || got.Impl.Written%w.Alignment == 0, true)
			differ("written lies in what was written", got.Impl.Written >= 0 && got.Impl.Written <= c.prefix(w.Alignment), true)
		}
	}
	if len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	return nil
}

// observe tells which transitions a step was.
func (w *walker) observe(c call, next system) {
	for i, was := range w.sys.comps {
		is := next.comps[i]
		if was.State != is.State || c.event == "write" && was.ID == c.id && was.State == fwu.Writing {
			w.seen(transitionOf(was.Variant, was.State, c.event, place{is.State, was.Act != is.Act}))
		}
	}
}

// slots compares what the locations hold with the model.
func (w *walker) slots() error {
	for i := range w.sys.comps {
		c := &w.sys.comps[i]
		active := c.Slots[c.Act].Data
		got, err := w.impl.Slot(c.ID, Active, len(active))
		if err != nil {
			return fmt.Errorf("component %d: read active location: %w", c.ID, err)
		}
		if !bytes.Equal(got, active) {
			return fmt.Errorf("component %d, %v: the active location does not hold the image that ought to be active", c.ID, c.State)
		}
		if err := w.second(c, active); err != nil {
			return fmt.Errorf("component %d, %v: second location: %w", c.ID, c.State, err)
		}
	}
	return nil
}

func (w *walker) second(c *component, active []byte) error {
	n := 0
	for _, img := range w.known[c.ID] {
		n = max(n, len(img))
	}
	got, err := w.impl.Slot(c.ID, Second, max(n, len(c.second().Data)))
	if err != nil {
		return err
	}
	switch c.State {
	case fwu.Updated:
		return nil
	case fwu.Staged, fwu.Trial, fwu.Rejected:
		if !bytes.HasPrefix(got, c.second().Data) {
			return errors.New("it does not hold the image that will be active, or was")
		}
		return nil
	}
	carried := w.Bank && c.Variant.Reboot && len(w.sys.comps) > 1
	for _, img := range w.known[c.ID] {
		if len(img) < 16 { // too short to be told from what is there by chance
			continue
		}
		if w.Sealed && bytes.HasPrefix(got, img) && !(carried && bytes.Equal(img, active)) {
			return errors.New("it holds an image that can be booted")
		}
	}
	return nil
}

// --- what to do next ---

// choose draws a call: mostly one that leads somewhere from where a component is, else any.
func (w *walker) choose() (call, error) {
	c := w.sys.comps[w.src.intn("component", len(w.sys.comps))]
	if w.src.intn("stray", 4) == 0 {
		return w.stray(c)
	}
	pick := func(events ...string) (call, error) {
		return w.call(events[w.src.intn("event", len(events))], c)
	}
	switch c.State {
	case fwu.Ready:
		return w.call("start", c)
	case fwu.Writing:
		if w.complete(&c) {
			return pick("finish", "finish", "finish", "write", "reboot", "service-restart")
		}
		return pick("write", "write", "write", "write", "write", "write", "write", "write", "write", "write", "write-any", "write-any", "write-wrong", "finish", "reboot", "service-restart")
	case fwu.Candidate:
		return pick("install", "install", "install", "install", "install", "cancel", "reboot", "clean")
	case fwu.Staged:
		return pick("reboot", "reboot", "reboot", "reboot", "reboot-failing", "reboot-bypassed", "reject", "service-restart", "install")
	case fwu.Trial:
		return pick("accept", "accept", "accept", "reject", "reject", "reboot", "reboot-bypassed", "service-restart")
	case fwu.Rejected:
		return pick("reboot", "reboot", "reboot-failing", "reboot-bypassed", "reject", "service-restart")
	}
	return pick("clean", "clean", "clean", "clean", "reboot", "start")
}

// stray draws any call with any argument, for any component or none.
func (w *walker) stray(c component) (call, error) {
	events := []string{"start", "start-wrong", "write", "write-bad", "write-any", "finish", "cancel", "clean", "query", "install", "accept", "reject", "request-reboot",
		"service-restart", "reboot", "reboot-failing", "reboot-bypassed"}
	a, err := w.call(events[w.src.intn("event", len(events))], c)
	if w.src.intn("unknown", 16) == 0 {
		a.id = absent
	}
	return a, err
}

// call fills a call in.
func (w *walker) call(event string, c component) (call, error) {
	a := call{event: event, id: c.ID}
	if c.Lost && c.Manifest == fwu.Bundled && c.State == fwu.Writing && !w.Progress && (strings.HasPrefix(event, "write") || event == "finish") {
		a.event = "cancel" // where a bundle goes on is not known
		return a, nil
	}
	switch event {
	case "start", "start-wrong":
		a.event = "start"
		return w.drawStart(a, c, event == "start-wrong")
	case "write", "write-any", "write-wrong", "write-bad":
		a.event = "write"
		return w.drawWrite(a, c, event)
	case "finish":
		if c.State == fwu.Writing && c.Manifest == fwu.None && !w.complete(&c) && (len(c.Got) > 0 || c.Lost) {
			a.event = "query" // what an image with holes is, nobody can say
		}
	case "reject":
		a.err = []fwu.Status{0, -1, 1, 42, -132, -137, math.MinInt32, math.MaxInt32}[w.src.intn("error", 8)]
	case "reboot-bypassed":
		// What happens to a rollback that is bypassed again and again is nobody's to say: a service may give up.
		if !w.Bypass || slices.ContainsFunc(w.sys.comps, func(c component) bool { return c.State == fwu.Rejected }) {
			a.event = "reboot"
		}
		// A service may refuse an image after several boots that bypassed the bootloader.
		staged := func(c component) bool { return c.State == fwu.Staged }
		if a.event == "reboot-bypassed" && w.MaxTrials > 0 && slices.ContainsFunc(w.sys.comps, staged) {
			if w.bypassed++; w.bypassed >= w.MaxTrials {
				a.event = "reboot"
			}
		}
	}
	return a, nil
}

// complete tells whether all of the stream is there.
func (w *walker) complete(c *component) bool {
	d := w.cur[c.ID]
	return d != nil && c.prefix(w.Alignment) == int64(len(d.Stream))
}

// drawStart makes a fresh delivery; what was delivered before counts no longer, unless start fails.
func (w *walker) drawStart(a call, c component, wrong bool) (call, error) {
	w.serial++
	unit := int(w.Alignment)
	img := make([]byte, (1+w.src.intn("units", 3))*unit-[]int{0, 0, 1, unit / 2, unit - 1}[w.src.intn("tail", 5)])
	fill(img, w.serial<<20)
	defect := Sound
	if w.src.intn("defect", 4) == 0 {
		defect = Defect(1 + w.src.intn("which", int(Truncated)))
	}
	m := Meta{Version: fwu.Version{Major: 3, Minor: uint8(w.src.intn("minor", 4)), Patch: uint16(w.serial), Build: uint32(c.ID)}, Sequence: c.Floor + uint64(w.src.intn("sequence", 3))}
	if defect == Sound && w.src.intn("older", 10) == 0 {
		m.Sequence = c.Floor - 1
	}
	m.Needs = w.drawNeeds(c)
	d, err := deliver(w.impl, c.Config, img, m, defect)
	if err != nil {
		return a, err
	}
	a.from, a.manifest = d, d.Manifest
	if wrong {
		a.manifest = nil
		if c.Manifest != fwu.Detached {
			a.manifest = []byte("a manifest of no known format")
		}
	}
	if c.State == fwu.Ready {
		w.cur[c.ID] = d
		w.known[c.ID] = append(w.known[c.ID][max(0, len(w.known[c.ID])-4):], img)
	}
	return a, nil
}

// drawNeeds draws a dependency on another component, or none.
func (w *walker) drawNeeds(c component) []Need {
	o := w.sys.comps[w.src.intn("needs", len(w.sys.comps))]
	v := o.Slots[o.Act].Version
	if o.ID == c.ID || c.Manifest == fwu.None || v == (fwu.Version{}) {
		return nil
	}
	switch w.src.intn("version", 8) {
	case 0:
		v = fwu.Version{Major: 250}
	case 1, 2:
		v.Build++
	case 3, 4:
	default:
		return nil
	}
	return []Need{{o.ID, v}}
}

// drawWrite draws a block: the next that is missing, any, one with another content, or one that cannot be.
func (w *walker) drawWrite(a call, c component, how string) (call, error) {
	d := w.cur[c.ID]
	if how == "write-bad" || d == nil {
		return w.drawBad(a, c), nil
	}
	if c.Manifest == fwu.Bundled {
		return w.drawBundled(a, c, d, how), nil
	}
	unit := w.Alignment
	blocks := (int64(len(d.Stream)) + unit - 1) / unit
	n := int64(w.src.intn("block", int(blocks)))
	if how == "write" {
		for n = 0; n < blocks-1 && n < int64(len(c.Units)) && c.Units[n] == int(unit); n++ {
		}
	}
	a.off = n * unit
	size := unit * int64(1+w.src.intn("size", 2))
	a.block = d.Stream[a.off:min(a.off+size, int64(len(d.Stream)))]
	if how == "write-wrong" {
		a.block = slices.Clone(a.block)
		a.block[w.src.intn("byte", len(a.block))] ^= 1
	}
	return a, nil
}

// drawBundled: what comes next, or, if that is refused, anything.
func (w *walker) drawBundled(a call, c component, d *Delivery, how string) call {
	a.from = d
	a.off = int64(len(c.Got))
	size := w.Alignment * int64(1+w.src.intn("size", 2))
	if how != "write" && w.Contiguous && c.State == fwu.Writing {
		a.off += w.Alignment * int64(1+w.src.intn("gap", 2))
		a.block = make([]byte, size)
		return a
	}
	if c.State != fwu.Writing || a.off >= int64(len(d.Stream)) { // nothing to write: what follows the end of a bundle is not specified
		return call{event: "query", id: c.ID}
	}
	a.block = d.Stream[a.off:min(a.off+size, int64(len(d.Stream)))]
	return a
}

// drawBad draws arguments of write that no state permits.
func (w *walker) drawBad(a call, c component) call {
	unit := w.Alignment
	offs := []int64{1, unit / 2, unit + 1, -1, -unit, math.MinInt64, math.MaxInt64 - unit + 1, math.MaxInt64, 1 << 40, c.Size, c.Size - unit, 0, 0}
	sizes := []int64{1, unit, unit, unit, 2 * unit, unit, unit, 1, unit, unit, 2 * unit, 0, w.MaxWrite + 1}
	i := w.src.intn("bad", len(offs))
	if c.Manifest == fwu.Bundled && !w.Contiguous && i >= 8 && i <= 10 {
		i = 0
	}
	a.off, a.block = offs[i], make([]byte, sizes[i])
	return a
}
