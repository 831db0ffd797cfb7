package dbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// Admission is by user: however many connections a user opens, they share one account. Root, and
// the user that the service runs as, take nothing from the others' limits and the others nothing
// from theirs, so root always has room.

// pool is a kind of room; a call has room in one pool at a time.
type pool int

const (
	queries pool = iota // calls that change nothing; they never wait for one another
	asking              // calls whose caller is not authorised yet
	working             // calls that are authorised, and wait for their turn or work
	pools
)

// tally counts calls, and the bytes of their arguments.
type tally struct{ calls, bytes int }

func (t tally) plus(o tally) tally { return tally{t.calls + o.calls, t.bytes + o.bytes} }

func (t tally) minus(o tally) tally { return tally{t.calls - o.calls, t.bytes - o.bytes} }

func (t tally) within(limit tally) bool { return t.calls <= limit.calls && t.bytes <= limit.bytes }

// maxCallsOfPeer bounds the calls of one connection of root: one client of root that runs away must
// not shut out the others.
const maxCallsOfPeer = 128

// limitsOfRoot, of a user, and of all users but root. Whoever is not authorised holds two blocks at
// most.
func limitsOfRoot() [pools]tally {
	return [pools]tally{queries: {1024, 1 << 20}, working: {1024, 16 * maxBody}}
}

func limitsOfUser() [pools]tally {
	return [pools]tally{queries: {64, 64 << 10}, asking: {32, 2 * maxBody}, working: {64, 4 * maxBody}}
}

func limitsOfUsers() [pools]tally {
	return [pools]tally{queries: {512, 512 << 10}, asking: {128, 8 * maxBody}, working: {256, 16 * maxBody}}
}

// Answers that a caller does not read stay in the bus, which at 127 MiB stops reading from the
// service. So the answers to a user, and to all users but root, are bounded in bytes: burst at
// once, rate in a second. Who is beyond that is refused; who goes on gets no answer, and the bus
// itself lets nobody have more than 128 calls without an answer.
func answersOfUser() allowance  { return allowance{burst: 2 << 20, rate: 256 << 10} }
func answersOfUsers() allowance { return allowance{burst: 8 << 20, rate: 1 << 20} }

// maxOverdraft is how far refusals may exceed an allowance.
const maxOverdraft = 64 << 10

// allowance is a number of bytes that is spent, and grows again with time.
type allowance struct {
	burst, rate int64
	spent       int64
	at          time.Time // when spent was brought up to date
}

// left returns the bytes that may be spent at the time now, fewer than none after an overdraft.
func (a *allowance) left(now time.Time) int64 {
	if since := now.Sub(a.at); since > 0 {
		a.spent = max(0, a.spent-int64(since.Seconds()*float64(a.rate)))
		a.at = now
	}
	return a.burst - a.spent
}

func (a *allowance) spend(n int64, now time.Time) {
	a.left(now)
	a.spent += n
}

// account counts the calls and bytes that one user holds. session.mu guards it.
type account struct {
	uid     uint32
	root    bool // may do everything without being asked
	peers   int  // connections
	held    [pools]tally
	limits  [pools]tally
	answers allowance
	denied  time.Time // when Options.Denied was last told of it
	// question holds one: a user is asked, or asked about, once at a time.
	question chan struct{}
}

// accounts are those of all users. session.mu guards them.
type accounts struct {
	byUser  map[uint32]*account
	others  [pools]tally // held by all users but root
	limits  [pools]tally
	answers allowance // of all users but root
}

func newAccounts() accounts {
	return accounts{byUser: map[uint32]*account{}, limits: limitsOfUsers(), answers: answersOfUsers()}
}

// of returns the account of a user. Accounts in which nothing is left are forgotten when a new one
// is made, so their number is that of the users that called lately.
func (a *accounts) of(uid uint32, now time.Time) *account {
	if found := a.byUser[uid]; found != nil {
		return found
	}
	for other, old := range a.byUser {
		if old.peers == 0 && old.held == [pools]tally{} && old.answers.left(now) == old.answers.burst && now.Sub(old.denied) >= deniedInterval {
			delete(a.byUser, other)
		}
	}
	fresh := &account{uid: uid, root: uid == 0 || uint64(uid) == uint64(os.Geteuid()), question: make(chan struct{}, 1)}
	if fresh.root {
		fresh.limits = limitsOfRoot()
	} else {
		fresh.limits, fresh.answers = limitsOfUser(), answersOfUser()
	}
	a.byUser[uid] = fresh
	return fresh
}

// take gives a call room in a pool, or says whose limit is reached.
func (a *accounts) take(user *account, where pool, what tally) error {
	mine, all := user.held[where].plus(what), a.others[where].plus(what)
	switch {
	case !mine.within(user.limits[where]):
		return fmt.Errorf("too many calls of user %d are pending", user.uid)
	case !user.root && !all.within(a.limits[where]):
		return errors.New("too many calls of users other than root are pending")
	}
	user.held[where] = mine
	if !user.root {
		a.others[where] = all
	}
	return nil
}

// give gives the room back.
func (a *accounts) give(user *account, where pool, what tally) {
	user.held[where] = user.held[where].minus(what)
	if !user.root {
		a.others[where] = a.others[where].minus(what)
	}
}

// left returns how much may still be sent to a user.
func (a *accounts) left(user *account, now time.Time) int64 {
	return min(user.answers.left(now), a.answers.left(now))
}

// spend counts an answer.
func (a *accounts) spend(user *account, size int64, now time.Time) {
	if !user.root {
		user.answers.spend(size, now)
		a.answers.spend(size, now)
	}
}

// Bounds of the calls that wait until the bus has said whose they are. When there are more, reading
// stops until the bus has answered: nobody is refused.
const (
	maxParkedCalls = 1024
	maxParkedBytes = 8 * maxBody
)

// peer describes a connection to the bus as long as it lasts. session.mu guards all but
// the contexts.
type peer struct {
	bulk    context.Context // of its WriteFile
	vanish  context.CancelCauseFunc
	account *account // nil until the bus has said whose it is; does not change any more
	parked  []*message
	known   bool // nothing is parked any more
	calls   int
}

// errNobody is of a call whose caller has gone.
var errNobody = errors.New("caller has gone")

// caller returns the peer that sent a message, if its user is known. Else the message is parked,
// and the bus is asked: once for each peer, as a unique name is never given twice, and about all
// peers at once.
func (s *session) caller(m *message) (*peer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[m.sender]
	if p != nil && p.known {
		return p, true
	}
	if p == nil {
		p = new(peer)
		p.bulk, p.vanish = context.WithCancelCause(s.bulk)
		s.peers[m.sender] = p
		s.pending++
		s.idle.Stop()
		go s.identify(m.sender, p)
	}
	for s.parked.calls >= maxParkedCalls || s.parked.bytes > 0 && s.parked.bytes+len(m.data) > maxParkedBytes {
		s.unparked.Wait()
	}
	if p.known { // the bus answered meanwhile
		return p, true
	}
	s.parked = s.parked.plus(m.tally())
	p.parked = append(p.parked, m)
	return p, false
}

// identify finds out whose a peer is, and takes the calls that it sent meanwhile, in order.
func (s *session) identify(name string, p *peer) {
	ctx, cancel := context.WithTimeout(s.work, connectTimeout)
	uid, err := s.aside.uid(ctx, name)
	cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
	case s.peers[name] != p:
		err = errNobody
	default:
		p.account = s.accounts.of(uid, s.server.now())
		p.account.peers++
	}
	for len(p.parked) > 0 {
		m := p.parked[0]
		p.parked = p.parked[1:]
		s.mu.Unlock()
		switch {
		case err == nil:
			s.take(p, m)
		default:
			m.close()
			if !errors.Is(err, errNobody) {
				s.send(answerTo(m, nil, refuse("Failed", "%s: %v", m.member, err)))
			}
		}
		s.mu.Lock()
		s.parked = s.parked.minus(m.tally())
		s.unparked.Broadcast()
	}
	if err == nil {
		p.known = true
	} else if s.peers[name] == p {
		delete(s.peers, name) // its next call asks again
	}
	s.ended()
}

// ended takes one call off s.pending.
func (s *session) ended() {
	s.pending--
	s.rest()
	if s.pending == 0 {
		s.empty.Broadcast()
	}
}

// vanished forgets a caller, and ends the transfers that would read from it.
func (s *session) vanished(name string) {
	s.mu.Lock()
	p := s.peers[name]
	delete(s.peers, name)
	if p != nil && p.account != nil {
		p.account.peers--
	}
	s.mu.Unlock()
	if p != nil {
		p.vanish(errVanished)
	}
	s.holders.gone(name)
}

// hears tells whether a caller is answered at all.
func (s *session) hears(p *peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.account.root || s.accounts.left(p.account, s.server.now()) > -maxOverdraft
}

// admit gives a call room in its first pool, unless there is none.
func (s *session) admit(r *request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping && r.method.ordered {
		return refuse("ServiceUnknown", "%s: %v; nothing was done", r.member, errStopping)
	}
	user := r.peer.account
	switch {
	case r.method.queries():
		r.pool = queries
	case user.root:
		r.pool = working
	default:
		r.pool = asking
	}
	if user.root && r.peer.calls >= maxCallsOfPeer {
		return refuse("LimitsExceeded", "%s: too many calls of this connection are pending", r.member)
	}
	if !user.root && s.accounts.left(user, s.server.now()) <= 0 {
		return refuse("LimitsExceeded", "%s: user %d asks for more than it may: it gets %d bytes of answers in a second", r.member, user.uid, user.answers.rate)
	}
	if err := s.accounts.take(user, r.pool, r.tally()); err != nil {
		return refuse("LimitsExceeded", "%s: %v", r.member, err)
	}
	r.peer.calls++
	s.pending++
	s.idle.Stop()
	return nil
}

// authorised moves a call to the pool of those that may work.
func (s *session) authorised(r *request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.pool != asking {
		return nil
	}
	if err := s.accounts.take(r.peer.account, working, r.tally()); err != nil {
		return refuse("LimitsExceeded", "%s: %v", r.member, err)
	}
	s.accounts.give(r.peer.account, asking, r.tally())
	r.pool = working
	return nil
}

// dismiss counts a call out.
func (s *session) dismiss(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts.give(r.peer.account, r.pool, r.tally())
	r.peer.calls--
	s.ended()
}

// spend counts an answer to a caller.
func (s *session) spend(p *peer, answer *godbus.Message) {
	s.mu.Lock()
	root := p.account.root
	s.mu.Unlock()
	if root {
		return
	}
	var size counter
	if err := answer.EncodeTo(&size, binary.LittleEndian); err != nil {
		return // it is not sent either
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts.spend(p.account, int64(size), s.server.now())
}

// counter counts the bytes that are written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func (m *message) tally() tally { return tally{1, len(m.data)} }

// queries tells whether a method changes nothing, and is open to everybody.
func (m method) queries() bool { return m.action == ActionQuery || m.action == "" }
