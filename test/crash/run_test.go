package crash

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/sim"
)

// session is what was recorded of a story, or of a recovery: a log, and the phases that it falls into.
type session struct {
	base   sim.State
	log    []sim.Op
	phases []*phase
	m      *machine // as it was in the end
}

// phase is the one that position is in.
func (s *session) phase(position int) *phase {
	i := sort.Search(len(s.phases), func(i int) bool { return s.phases[i].from > position })
	return s.phases[max(i-1, 0)]
}

// play records a story.
func (w *world) play(ctx context.Context, st story) (s *session, err error) {
	w.ordered(st.dev, 0, func(o *sim.Order) { s, err = w.record(ctx, st, o) })
	return s, err
}

func (w *world) record(ctx context.Context, st story, o *sim.Order) (*session, error) {
	m, err := w.factory(ctx, st.dev, o)
	if err != nil {
		return nil, err
	}
	defer m.die()
	base := m.media.Durable()
	m.media.Record(true)
	c := &client{ctx: ctx, m: m, strict: true, outer: factoryFresh(st.dev)}
	for i, do := range append([]step{(*client).reboot}, st.play...) {
		if err := do(c); err != nil {
			return nil, fmt.Errorf("step %d: %w", i, err)
		}
	}
	m.media.Rest()
	return &session{base, m.media.Log(), c.phases, m}, nil
}

// loss is what a cut takes beside what was in flight.
type loss uint8

const (
	none          loss = iota
	environment        // every boot variable
	recordZeroed       // the record, as by a factory reset that went too far
	recordGarbage      // the record, as by a medium that gave up
	newerMinor         // nothing, but a newer service wrote the record, with fields that this one does not know
	newerMajor         // the same, in a format that this one does not know
	service            // nothing at all: the service dies alone, and is started again in the same boot
)

func (l loss) String() string {
	return [...]string{"plain", "environment", "zeroed", "garbage", "newer", "unknown", "killed"}[l]
}

// survivable tells whether d promises to boot after l. The environment that is compiled into boards of the scheme bootcount names bank a, whatever lies there.
func (l loss) survivable(d device) bool {
	return l != environment || d.scheme != uboot.BootCount
}

// inflict makes of what a cut left what l leaves of it.
func (l loss) inflict(m *machine) {
	switch l {
	case environment:
		m.media.Medium(mediumEnv).Fill(nil)
		m.envLost = true
	case recordZeroed:
		m.media.Medium(mediumStore).Fill(nil)
	case recordGarbage:
		m.media.Medium(mediumStore).Fill(garbage(256 << 10))
	case newerMinor:
		makeNewer(m.media.Medium(mediumStore))
	}
	if l == recordZeroed || l == recordGarbage {
		m.forget()
	}
}

func garbage(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*i>>3 + i)
	}
	return b
}

// trial is one cut, and how it is recovered from.
type trial struct {
	story  string
	loss   loss
	policy policy    // after the last cut
	at     []sim.Cut // first, and second
	first  policy    // after the first of two
}

func (t trial) String() string {
	s := fmt.Sprintf("%s/%s", t.story, t.loss)
	for i, c := range t.at {
		p := t.policy
		if i < len(t.at)-1 {
			p = t.first
		}
		s += fmt.Sprintf("/%d.%d.%d", c.Position, c.Shape, p)
	}
	return s
}

// seed is the order of accesses after the last cut.
func (t trial) seed() uint64 {
	c := t.at[len(t.at)-1]
	return uint64(c.Position)<<32 + uint64(c.Shape)
}

// suite runs trials and remembers which states were seen to end well.
type suite struct {
	ctx context.Context
	w   *world

	mu     sync.Mutex
	judged map[uint64]bool
	failed []string
	tried  int
	unique int
}

func (s *suite) first(key ...any) bool {
	var h maphash.Hash
	h.SetSeed(s.w.seed)
	for _, k := range key {
		maphash.WriteComparable(&h, k)
	}
	sum := h.Sum64()
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.judged[sum]
	s.judged[sum] = true
	return !seen
}

// one judges a trial, unless one that left the same on all media in the same phase was judged.
func (s *suite) one(from *session, t trial) {
	cut := t.at[len(t.at)-1]
	s.mu.Lock()
	s.tried++
	s.mu.Unlock()
	p := from.phase(cut.Position)
	if !s.first(cut.State.Sum(), t.story, p, t.loss, t.policy) {
		return
	}
	s.mu.Lock()
	s.unique++
	s.mu.Unlock()
	if _, err := s.recover(from, t, false); err != nil {
		s.fail(t, err)
	}
}

func (s *suite) fail(t trial, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, fmt.Sprintf("FWUAB_CRASH_SEED='%s' go test ./test/crash -run TestSeed -v\n\t%v", t, err))
}

// recover starts the machine on what a cut left, has a client bring it back, and makes one more update. With record it stops before that update and returns what was
// written, so that it can be cut again.
func (s *suite) recover(from *session, t trial, record bool) (rec *session, err error) {
	s.w.ordered(from.m.dev, t.seed(), func(o *sim.Order) { rec, err = s.recoverIn(o, from, t, record) })
	return rec, err
}

func (s *suite) recoverIn(o *sim.Order, from *session, t trial, record bool) (rec *session, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	cut := t.at[len(t.at)-1]
	p := from.phase(cut.Position)
	m := from.m.after(cut.State, o)
	defer m.die()
	m.boots = 1000 * len(t.at)
	m.accepted, m.automatic = maps.Clone(p.accepted), p.automatic
	if len(t.at) == 1 || t.loss == environment {
		t.loss.inflict(m)
		m.lostTwice = len(t.at) == 2
	} else if t.loss == recordZeroed || t.loss == recordGarbage {
		m.forget()
	}
	if !m.storeLost {
		m.floors = maps.Clone(p.floors)
	}
	if err := m.leftIntact(p); err != nil {
		return nil, fmt.Errorf("right after the cut in %s: %w (needed %v)", p.call, err, p.needed)
	}
	base := m.media.Durable()
	m.media.Record(record)
	c := &client{ctx: s.ctx, m: m, strict: true, outer: p.widen(m, m.dev)}
	if err := c.reboot(); err != nil {
		return nil, fmt.Errorf("first boot after the cut in %s: %w", p.call, err)
	}
	if m.stranded() {
		if err := c.reboot(); err != nil {
			return nil, fmt.Errorf("second boot after the cut in %s: %w", p.call, err)
		}
	}
	if err := m.permitted(c.outer); err != nil {
		return nil, err
	}
	if err := m.asReleased(); err != nil && len(t.at) == 1 {
		return nil, fmt.Errorf("after the cut in %s: %w", p.call, err)
	}
	if err := c.settle(t.policy); err != nil {
		return nil, fmt.Errorf("after the cut in %s: %w", p.call, err)
	}
	if record {
		m.media.Rest()
		return &session{base, m.media.Log(), c.phases, m}, nil
	}
	if !s.first("ready", m.media.Seen().Sum(), m.booted, t.loss, strings.Join(m.builds(), " ")) {
		return nil, nil
	}
	if err := c.renew(); err != nil {
		return nil, fmt.Errorf("whole update after the cut in %s: %w", p.call, err)
	}
	if t.loss == newerMinor {
		return nil, keptNewer(m.media.Medium(mediumStore))
	}
	return nil, nil
}

// builds lists what lies in all slots.
func (m *machine) builds() []string {
	var out []string
	for _, c := range m.dev.components {
		out = append(out, fmt.Sprint(m.build(c.name, 0), m.build(c.name, 1)))
	}
	return out
}

// second recovers from the first cut of t, and cuts that recovery; of those cuts every nth is tried.
func (s *suite) second(from *session, t trial, n int) {
	if !s.first("second", t.at[0].State.Sum(), t.story, from.phase(t.at[0].Position), t.policy) {
		return
	}
	rec, err := s.recover(from, t, true)
	if err != nil {
		s.fail(t, err)
		return
	}
	for c := range sampled(sim.Cuts(rec.base, rec.log, sim.Coarse), n) {
		next := t
		next.policy = policyOf(c)
		next.at = append(slices.Clip(t.at), c)
		next.first = t.policy
		s.one(rec, next)
	}
}

// kill ends the service at a cut, and nothing else: it is started again in the boot that runs.
func (s *suite) kill(from *session, t trial) (err error) {
	s.w.ordered(from.m.dev, t.seed(), func(o *sim.Order) { err = s.killIn(o, from, t) })
	return err
}

func (s *suite) killIn(o *sim.Order, from *session, t trial) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	cut := t.at[0]
	p := from.phase(cut.Position)
	if p.running == nil {
		return nil // the bootloader was at work
	}
	m := from.m.after(cut.State, o)
	defer m.die()
	m.booted, m.bootID, m.boots, m.links = p.running.bank, p.running.id, p.running.boots+1000, maps.Clone(p.running.links)
	m.current = p.running.current
	m.accepted, m.floors = maps.Clone(p.accepted), maps.Clone(p.floors)
	if err := m.leftIntact(p); err != nil {
		return fmt.Errorf("right after the end in %s: %w", p.call, err)
	}
	c := &client{ctx: s.ctx, m: m, strict: true}
	if err := c.restart(); err != nil {
		return fmt.Errorf("restart after the end in %s: %w", p.call, err)
	}
	if m.asked {
		return fmt.Errorf("restart after the end in %s: a reboot was asked for", p.call)
	}
	if err := m.among(p, p.killed); err != nil {
		return err
	}
	if err := c.settle(t.policy); err != nil {
		return fmt.Errorf("after the end in %s: %w", p.call, err)
	}
	return c.renew()
}

// unknown starts the machine with a record of an unknown major version.
func (s *suite) unknown(from *session, cut sim.Cut) (err error) {
	s.w.ordered(from.m.dev, 0, func(o *sim.Order) { err = s.unknownIn(o, from, cut) })
	return err
}

func (s *suite) unknownIn(o *sim.Order, from *session, cut sim.Cut) error {
	s.mu.Lock()
	s.tried++
	s.mu.Unlock()
	p := from.phase(cut.Position)
	if !s.first(cut.State.Sum(), p, "unknown") {
		return nil
	}
	s.mu.Lock()
	s.unique++
	s.mu.Unlock()
	m := from.m.after(cut.State, o)
	defer m.die()
	m.boots = 1000
	makeUnknown(m.media.Medium(mediumStore), cut.Position%2 == 0)
	if err := m.leftIntact(p); err != nil {
		return err
	}
	if err := m.bootOnce(); err != nil {
		return err
	}
	m.media.Settle()
	before := m.media.Durable()
	if err := m.start(s.ctx); err != nil {
		return err
	}
	if err := refusesAll(s.ctx, m); err != nil {
		return err
	}
	if m.asked {
		return errors.New("a reboot was asked for")
	}
	if touched := m.media.Seen().Differs(before); len(touched) > 0 {
		return fmt.Errorf("%v were written", touched)
	}
	return nil
}

// refusesAll checks that a degraded service answers queries and nothing else.
func refusesAll(ctx context.Context, m *machine) error {
	sys := m.service.System()
	if !slices.Contains(sys.Degraded, fwu.ReasonRecordVersion) {
		return fmt.Errorf("degraded by %v", sys.Degraded)
	}
	_, install := m.service.Install(ctx)
	_, reject := m.service.Reject(ctx, fwu.Rejection{})
	errs := []error{install, reject, m.service.Accept(ctx)}
	for _, c := range m.dev.components {
		if _, err := m.service.Query(ctx, c.id); err != nil {
			return err
		}
		errs = append(errs, m.service.Start(ctx, c.id, m.w.images[c.name][1].manifest), m.service.Finish(ctx, c.id),
			m.service.Write(ctx, c.id, 0, make([]byte, 4096)), m.service.Cancel(ctx, c.id), m.service.Clean(ctx, c.id))
	}
	for i, err := range errs {
		if fwu.StatusOf(err) != fwu.NotPermitted {
			return fmt.Errorf("call %d was answered %w", i, err)
		}
	}
	return nil
}

// each hands all cuts to do, in as many goroutines as there are processors.
func (s *suite) each(cuts func(func(sim.Cut) bool), do func(sim.Cut)) {
	work := make(chan sim.Cut, 64)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for c := range work {
				do(c)
			}
		})
	}
	for c := range cuts {
		work <- c
	}
	close(work)
	wg.Wait()
}

// report sorts what failed.
func (s *suite) report() []string {
	slices.Sort(s.failed)
	return s.failed
}

// replay repeats what trial.String names.
func (s *suite) replay(t testing.TB, seed []string) error {
	if len(seed) < 3 {
		return fmt.Errorf("seed %q", seed)
	}
	tr := trial{story: seed[0]}
	for l := none; l <= service; l++ {
		if l.String() == seed[1] {
			tr.loss = l
		}
	}
	var from *session
	for _, st := range stories() {
		if st.name == tr.story {
			var err error
			if from, err = s.w.play(s.ctx, st); err != nil {
				return err
			}
		}
	}
	if from == nil {
		return fmt.Errorf("no story %q", tr.story)
	}
	for i, at := range seed[2:] {
		var position, shape int
		if _, err := fmt.Sscanf(at, "%d.%d.%d", &position, &shape, &tr.policy); err != nil {
			return err
		}
		cut, ok := sim.At(from.base, from.log, position, shape)
		if !ok {
			return fmt.Errorf("no cut %s", at)
		}
		tr.at = append(tr.at, cut)
		t.Logf("cut %s in %s:%s", at, from.phase(position).call, from.around(position))
		last := i == len(seed)-3
		if tr.loss == newerMajor {
			return s.unknown(from, cut)
		}
		if tr.loss == service {
			return s.kill(from, tr)
		}
		rec, err := s.recover(from, tr, !last)
		if err != nil {
			return err
		}
		from = rec
	}
	return nil
}

// around lists the operations before and after a position.
func (s *session) around(position int) string {
	var out string
	names := s.m.media.Names()
	for i := max(position-6, 0); i < min(position+3, len(s.log)); i++ {
		o := s.log[i]
		what := fmt.Sprintf("write %s at %d, %d bytes", names[o.Medium], o.Off, len(o.Data))
		if o.Flush {
			what = "flush " + names[o.Medium]
		}
		out += fmt.Sprintf("\n\t%6d %-8s %s", i, s.phase(i).call, what)
		if i == position {
			out += "   <- here"
		}
	}
	return out
}

// factoryFresh is what a cut in the very first boot may leave.
func factoryFresh(d device) *phase {
	p := &phase{call: "first boot", allowed: map[string]states{}, defaults: []fwu.Bank{fwu.BankA}, floors: map[string]uint64{}, accepted: map[string]int{}}
	for _, c := range d.components {
		p.allowed[c.name] = states{fwu.Ready}
		p.needed = append(p.needed, mediumOf(c.name, 0)+"=0")
	}
	return p
}

// forget is the loss of the record.
func (m *machine) forget() {
	m.storeLost = true
	for _, c := range m.dev.components {
		m.forgotten[c.name] = true
		m.torn[c.name] = m.tornHead(c.name, 0) || m.tornHead(c.name, 1)
	}
}
