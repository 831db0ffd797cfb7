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

// mishap is one access of a story that fails, and what comes then.
type mishap struct {
	story  story
	access int
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
	return fmt.Sprintf("%s/%s/%d.%d.%d", h.story.name, h.flaw.name, h.access, h.then, h.policy)
}

// happen plays a mishap.
func (s *suite) happen(h mishap) (err error) {
	s.w.ordered(h.story.dev, 0, func(o *sim.Order) { err = s.happenIn(o, h) })
	return err
}

func (s *suite) happenIn(o *sim.Order, h mishap) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	m, err := s.w.factory(s.ctx, h.story.dev, o)
	if err != nil {
		return err
	}
	defer m.die()
	c := &client{ctx: s.ctx, m: m, outer: factoryFresh(h.story.dev), failing: true}
	var where string
	m.media.Inject(func(a sim.Access) *sim.Fault {
		if a.N != h.access || a.Kind != h.flaw.kind {
			return nil
		}
		where = fmt.Sprintf("%s of %s at %d in %s", a.Kind, a.Medium, a.Off, c.phases[len(c.phases)-1].call)
		call := c.phases[len(c.phases)-1].call
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
	p := c.phases[len(c.phases)-1]
	if err := c.answered(p, failed); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	if err := c.survive(h, p, failed); err != nil {
		return fmt.Errorf("%s, answered %v: %w", where, failed, err)
	}
	if !s.first("ready", m.media.Seen().Sum(), m.media.Durable().Sum(), m.booted, strings.Join(m.builds(), " ")) {
		return nil
	}
	if err := c.renew(); err != nil {
		return fmt.Errorf("%s, answered %v: whole update: %w", where, failed, err)
	}
	m.die()
	m.media.PowerOff()
	if err := c.reboot(); err != nil {
		return fmt.Errorf("%s: power cut after all: %w", where, err)
	}
	return c.renewed()
}

// answered checks what a client was told of a failure.
func (c *client) answered(p *phase, err error) error {
	switch status := fwu.StatusOf(err); {
	case err == nil, status == fwu.StorageFailure:
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
func (s *suite) accesses(t *testing.T, st story) []sim.Access {
	t.Helper()
	var accesses []sim.Access
	s.w.ordered(st.dev, 0, func(o *sim.Order) { accesses = s.accessesIn(t, st, o) })
	return accesses
}

func (s *suite) accessesIn(t *testing.T, st story, o *sim.Order) (accesses []sim.Access) {
	t.Helper()
	m, err := s.w.factory(s.ctx, st.dev, o)
	check(t, err)
	defer m.die()
	m.media.Inject(func(a sim.Access) *sim.Fault {
		if st.dev.canFail(a) {
			accesses = append(accesses, a)
		}
		return nil
	})
	c := &client{ctx: s.ctx, m: m, outer: factoryFresh(st.dev)}
	for _, do := range append([]step{(*client).reboot}, st.play...) {
		check(t, do(c))
	}
	return accesses
}

// canFail tells whether an access is let fail. With UEFI firmware only those of its flash are, which has no cache in front of it: to the other media the same
// stories do the same on other devices.
func (d device) canFail(a sim.Access) bool {
	return !d.efi || a.Medium == mediumEnv && a.Kind != sim.Flush
}

// mishaps runs what can happen to a story.
func (s *suite) mishaps(st story, accesses []sim.Access) {
	work := make(chan mishap, 16)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for h := range work {
				if err := s.happen(h); err != nil {
					s.mu.Lock()
					s.failed = append(s.failed, fmt.Sprintf("FWUAB_CRASH_SEED='%s' go test ./test/crash -run TestSeed -v\n\t%v", h, err))
					s.mu.Unlock()
				}
			}
		})
	}
	i := sample()
	for _, a := range accesses {
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
					work <- mishap{st, a.N, f, then, policy(a.N) % 2}
				}
			}
		}
	}
	close(work)
	wg.Wait()
}

// replayMishap repeats what mishap.String names.
func (s *suite) replayMishap(seed []string) error {
	h := mishap{}
	for _, st := range stories() {
		if st.name == seed[0] {
			h.story = st
		}
	}
	for _, f := range flaws() {
		if f.name == seed[1] {
			h.flaw = f
		}
	}
	if _, err := fmt.Sscanf(strings.ReplaceAll(seed[2], ".", " "), "%d %d %d", &h.access, &h.then, &h.policy); err != nil {
		return err
	}
	if h.story.name == "" || h.flaw.name == "" {
		return errors.New("no such story or flaw")
	}
	return s.happen(h)
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
