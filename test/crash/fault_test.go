package crash

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/sim"
)

// flaw is a way in which an access can fail.
type flaw struct {
	name string
	kind sim.Kind
	sim.Fault
	twin bool // it differs from the one before in the number of the error only
}

func flaws() []flaw {
	return []flaw{
		{"read-eio", sim.Read, sim.Fault{Err: unix.EIO}, false},
		{"read-short", sim.Read, sim.Fault{Err: unix.EIO, Half: true}, true},
		// as NVMe and SCSI disks have it
		{"read-enodata", sim.Read, sim.Fault{Err: unix.ENODATA}, true},
		{"read-spoiled", sim.Read, sim.Fault{Err: unix.EIO, Bad: sim.UntilWritten}, false},
		{"read-dead", sim.Read, sim.Fault{Err: unix.EIO, Bad: sim.ForEver}, true},
		{"read-eof", sim.Read, sim.Fault{Err: io.EOF, Half: true}, false},
		{"write-eio", sim.Write, sim.Fault{Err: unix.EIO}, false},
		{"write-erofs", sim.Write, sim.Fault{Err: unix.EROFS}, true},
		{"write-enospc", sim.Write, sim.Fault{Err: unix.ENOSPC, Half: true}, false},
		{"write-short", sim.Write, sim.Fault{Half: true}, false}, // and no error, which no medium should do
		{"write-lost", sim.Write, sim.Fault{Lie: true}, false},
		{"write-half-lost", sim.Write, sim.Fault{Half: true, Lie: true}, false},
		{"flush-gone", sim.Flush, sim.Fault{Err: unix.EIO, Lose: sim.Gone}, false},
		{"flush-enospc", sim.Flush, sim.Fault{Err: unix.ENOSPC, Lose: sim.Gone}, true},
		{"flush-doomed", sim.Flush, sim.Fault{Err: unix.EIO, Lose: sim.Doomed}, false}, // the next flush claims success
		{"flush-erofs", sim.Flush, sim.Fault{Err: unix.EROFS, Lose: sim.Doomed}, true},
		{"flush-landed", sim.Flush, sim.Fault{Err: unix.EIO, Lose: sim.Landed}, false},
	}
}

func flawNamed(name string) flaw {
	for _, f := range flaws() {
		if f.name == name {
			return f
		}
	}
	panic("no flaw " + name)
}

// mishap is one access of a story that fails, and what comes then.
type mishap struct {
	story  story
	access access
	flaw   flaw
	then   then
	policy policy // of the client afterwards
}

// then is what comes after the call in which an access failed.
type then uint8

const (
	goOn  then = iota // the client goes on
	cut               // the power is cut
	retry             // the client makes one more call, and the power is cut
)

func (h mishap) String() string {
	return fmt.Sprintf("%s/%s/%s.%d.%d", h.story.name, h.flaw.name, h.access, h.then, h.policy)
}

// access is an access of a story. Goroutines that run at the same time change the order of accesses
// to different places, so it is counted among those to its own.
type access struct {
	sim.Access
	nth int // of the accesses of its kind to its place
}

func (a access) String() string { return fmt.Sprintf("%s.%d.%d.%d", a.Medium, a.Off, a.Len, a.nth) }

// tally numbers accesses.
type tally map[sim.Access]int

func (t tally) access(a sim.Access) access {
	a.N, a.Zero = 0, false
	t[a]++
	return access{a, t[a]}
}

// outcome is how a mishap ended.
type outcome struct {
	hit    bool
	answer string // of the call in which it happened
	ready  string // when everything was READY again
}

// happen plays a mishap.
func (s *suite) happen(h mishap) (out outcome, err error) {
	s.w.ordered(h.story.dev, 0, func(o *sim.Order) { out, err = s.happenIn(o, h) })
	return out, err
}

func (s *suite) happenIn(o *sim.Order, h mishap) (out outcome, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	m, err := s.w.factory(s.ctx, h.story.dev, o)
	if err != nil {
		return out, err
	}
	defer m.off()
	c := &client{ctx: s.ctx, m: m, outer: factoryFresh(h.story.dev), failing: true}
	var where string
	seen := tally{}
	m.media.Inject(func(a sim.Access) *sim.Fault {
		if seen.access(a) != h.access {
			return nil
		}
		call := c.calling.Load().(string)
		where = fmt.Sprintf("%s of %s at %d in %s", a.Kind, a.Medium, a.Off, call)
		c.afterBoot = c.afterBoot || call == "reboot" || call == "restart" || call == "first boot"
		f := h.flaw.Fault
		return &f
	})
	var failed error
	for _, do := range append([]step{(*client).reboot}, h.story.play...) {
		hit := where != ""
		if failed = do(c); failed != nil || where != "" && (hit || h.then == cut) {
			break
		}
	}
	m.media.Inject(nil)
	m.media.Mend()
	out.hit, out.answer = where != "", fmt.Sprint(fwu.StatusOf(failed), " ", fwu.ReasonOf(failed))
	p := c.phases[len(c.phases)-1]
	if err := c.answered(p, failed); err != nil {
		return out, fmt.Errorf("%s: %w", where, err)
	}
	if err := c.survive(h, p, failed); err != nil {
		return out, fmt.Errorf("%s, answered %v: %w", where, failed, err)
	}
	out.ready = c.ended()
	if !s.first("ready", m.media.Seen().Sum(), m.media.Durable().Sum(), m.booted, strings.Join(m.builds(), " ")) {
		return out, nil
	}
	if err := c.renew(); err != nil {
		return out, fmt.Errorf("%s, answered %v: whole update: %w", where, failed, err)
	}
	m.die()
	m.media.PowerOff()
	if err := c.reboot(); err != nil {
		return out, fmt.Errorf("%s: power cut after all: %w", where, err)
	}
	return out, c.renewed()
}

// ended describes the device for a comparison: every component, every slot and the selection.
func (c *client) ended() string {
	var infos string
	all := c.infos()
	for _, comp := range c.m.dev.components {
		i := all[comp.name]
		infos += fmt.Sprintf("%s %s at %d, version %v, floor %d; ", comp.name, i.State, i.Location, i.Version, i.Impl.Sequence)
	}
	return fmt.Sprintf("%sslots %s; %+v; bank %s runs", infos, strings.Join(c.m.builds(), " "), c.m.selection(), c.m.booted)
}

// answered checks what a client was told of a failure.
func (c *client) answered(p *phase, err error) error {
	switch status := fwu.StatusOf(err); {
	case err == nil, status == fwu.StorageFailure && fwu.ReasonOf(err) != "":
		return nil
	case c.m.service != nil && len(c.m.service.System().Degraded) > 0 && status == fwu.NotPermitted:
		return nil
	case c.afterBoot && status == fwu.BadState: // the boot was hit, and went another way than the story
		return nil
	}
	return fmt.Errorf("%s was answered %v (%w)", p.call, fwu.StatusOf(err), err)
}

// survive has a client that knows only the API bring everything back to READY, after a power cut or without one.
func (c *client) survive(h mishap, p *phase, failed error) error {
	m := c.m
	if c.afterBoot { // a bootloader that cannot disarm a trial does not start it
		p = p.withCandidates(m.dev)
	}
	if h.then == retry {
		if err := c.heal(h.flaw); err != nil {
			return err
		}
		if _, err := c.advance(h.policy); err != nil {
			return err
		}
	}
	if h.then == retry || h.then == cut && failed == nil && len(m.service.System().Degraded) == 0 { // what a call that succeeded said is durable
		p = c.begin("success", nil)
	}
	if h.then != goOn {
		m.die()
		m.media.PowerOff()
		c.outer = p
		m.floors, m.accepted = maps.Clone(p.floors), maps.Clone(p.accepted)
		m.boots = 1000
		if err := m.leftIntact(p); err != nil {
			return err
		}
		c.strict = true
		if err := c.reboot(); err != nil {
			return err
		}
		if err := m.permitted(p); err != nil {
			return err
		}
	}
	if err := c.heal(h.flaw); err != nil {
		return err
	}
	c.strict = true
	return c.settle(h.policy)
}

// heal restarts a service that answers queries only, then the machine. Where a medium shows what a cut will take although its flush failed, only the process
// that saw the flush fail knows; a new one cannot find out. There the machine is restarted at once.
func (c *client) heal(f flaw) error {
	steps := []step{(*client).restart, (*client).reboot}
	if f.kind == sim.Flush && f.Lose == sim.Doomed {
		steps = steps[1:]
	}
	for _, do := range steps {
		if c.m.service != nil && len(c.m.service.System().Degraded) == 0 {
			break
		}
		if err := do(c); err != nil {
			return err
		}
	}
	return c.m.sound()
}

// TestMediumErrors lets every access of every story fail once, in every way.
func TestMediumErrors(t *testing.T) {
	s := newSuite(t)
	begun := time.Now()
	for _, st := range stories() {
		t.Run(st.name, func(t *testing.T) {
			accesses := s.accesses(t, st)
			tried, at := s.tried, time.Now()
			s.mishaps(st, accesses)
			t.Logf("%d accesses, %d errors, in %v", len(accesses), s.tried-tried, time.Since(at).Round(time.Millisecond))
		})
	}
	s.done(t, "errors", begun)
}

// accesses lists the accesses of a story that can fail.
func (s *suite) accesses(t *testing.T, st story) []access {
	t.Helper()
	var accesses []access
	seen := tally{}
	s.watch(t, st, func(a sim.Access) {
		if st.dev.canFail(a) {
			accesses = append(accesses, seen.access(a))
		}
	})
	return accesses
}

// watch plays a story, and calls f for each access to a medium.
func (s *suite) watch(t *testing.T, st story, f func(sim.Access)) {
	t.Helper()
	s.w.ordered(st.dev, 0, func(o *sim.Order) { s.watchIn(t, st, o, f) })
}

func (s *suite) watchIn(t *testing.T, st story, o *sim.Order, f func(sim.Access)) {
	t.Helper()
	m, err := s.w.factory(s.ctx, st.dev, o)
	check(t, err)
	defer m.off()
	m.media.Inject(func(a sim.Access) *sim.Fault {
		f(a)
		return nil
	})
	defer m.media.Inject(nil)
	c := &client{ctx: s.ctx, m: m, outer: factoryFresh(st.dev)}
	for _, do := range append([]step{(*client).reboot}, st.play...) {
		check(t, do(c))
	}
}

// canFail tells whether an access is let fail. With UEFI firmware only those of its flash are, which has no cache in front of it: to the other media the same
// stories do the same on other devices.
func (d device) canFail(a sim.Access) bool {
	return !d.efi || a.Medium == mediumEnv && a.Kind != sim.Flush
}

func (s *suite) failMishap(h mishap, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, fmt.Sprintf("FWUAB_CRASH_SEED='%s' go test ./test/crash -run TestSeed -v\n\t%v", h, err))
}

// mishaps runs what can happen to a story.
func (s *suite) mishaps(st story, accesses []access) {
	work := make(chan mishap, 16)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for h := range work {
				if _, err := s.happen(h); err != nil {
					s.failMishap(h, err)
				}
			}
		})
	}
	i := sample()
	for at, a := range accesses {
		for _, f := range flaws() {
			if f.kind != a.Kind {
				continue
			}
			for then := goOn; then <= retry; then++ {
				n := st.thin(one(97))
				if f.twin {
					n *= 5
				}
				if i++; i%n == 0 {
					s.tried, s.unique = s.tried+1, s.unique+1
					work <- mishap{st, a, f, then, policy(at) % 2}
				}
			}
		}
	}
	close(work)
	wg.Wait()
}

// replayMishap repeats what mishap.String names.
func (s *suite) replayMishap(t *testing.T, seed []string) error {
	h := mishap{}
	all := stories()
	if strings.HasPrefix(seed[0], onKernel) {
		all = kernelStories(newDisks(t))
	}
	for _, st := range all {
		if st.name == seed[0] {
			h.story = st
		}
	}
	h.flaw = flawNamed(seed[1])
	a := &h.access
	a.Kind = h.flaw.kind
	if _, err := fmt.Sscanf(strings.ReplaceAll(seed[2], ".", " "), "%s %d %d %d %d %d", &a.Medium, &a.Off, &a.Len, &a.nth, &h.then, &h.policy); err != nil {
		return err
	}
	if h.story.name == "" {
		return errors.New("no such story")
	}
	out, err := s.happen(h)
	t.Logf("%+v", out)
	return err
}

// isMishap tells a seed of this suite from one of the other.
func isMishap(seed string) bool {
	return slices.ContainsFunc(flaws(), func(f flaw) bool { return strings.Contains(seed, "/"+f.name+"/") })
}

// withCandidates allows what was staged to be a candidate again.
func (p *phase) withCandidates(d device) *phase {
	w := *p
	w.allowed = maps.Clone(p.allowed)
	for _, c := range d.members() {
		if slices.Contains(p.allowed[c.name], fwu.Failed) || c.volatile {
			w.allowed[c.name] = append(slices.Clone(p.allowed[c.name]), fwu.Candidate)
		}
	}
	return &w
}
