package dbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Options are what a Server can be told. The zero value is a service that stays.
type Options struct {
	// Version is the property ServiceVersion.
	Version string
	// Authorize replaces Server.ByRule.
	Authorize Authorize
	// Idle ends Serve after this time without a call; 0: never.
	Idle time.Duration
	// Stay, if set, is asked then: as long as it answers true, Serve goes on.
	Stay func() bool
	// Denied, if set, is told of a caller that lacks the permission for its call: of each user once
	// in deniedInterval, so that nobody fills the journal.
	Denied func(Denial)
	// Ready, if set, is called once the name is owned and calls are served.
	Ready func()
}

// Denial is a call that was not authorised.
type Denial struct {
	User   uint32
	Method string
	Err    error
}

// deniedInterval is how often Options.Denied hears of one user.
const deniedInterval = time.Minute

// Server serves a Firmware on a bus.
type Server struct {
	options Options
	now     func() time.Time
	quiet   time.Duration // how long a component is silent after each news, unless its state changes
	changes changes
	stuck   stuckReads
	current atomic.Pointer[session]
}

// New returns a Server that serves nothing yet.
func New(o Options) *Server {
	return &Server{options: o, now: time.Now, quiet: 100 * time.Millisecond, changes: changes{wake: make(chan struct{}, 1)}}
}

// Changed says that something about a component, or about the whole, may have changed. It is what a Firmware is to call, and can be from
// the beginning: it never blocks. Clients hear of a new State at once and of anything else at most ten times a second for each component;
// the last state of things is always told.
func (s *Server) Changed(id fwu.ID) { s.changes.add(id) }

// Busy says whether calls are being served.
func (s *Server) Busy() bool {
	ss := s.current.Load()
	return ss != nil && ss.busy()
}

var (
	errStopping = errors.New("the service is stopping")
	errVanished = errors.New("its caller has gone")
	errLost     = errors.New("the connection to the bus was lost")
)

// Serve connects to the bus at address ("system", "session", or an address as in the D-Bus
// Specification), takes the name, and serves f until ctx ends or the service is idle (nil), or
// there is no bus any more. One Serve runs at a time.
//
// When it has been idle for long enough it gives up the name first and then serves what had still
// come in. When ctx ends, it refuses new calls that are not queries, ends every WriteFile, which
// can be continued, and waits for every other operation; it keeps the name until then, so that no
// second service is started while this one works. When the connection is lost, or the bus takes
// nothing from it for writeTimeout, it does the same and connects again. No goroutine is left
// behind.
func (s *Server) Serve(ctx context.Context, address string, f Firmware) error {
	ready := sync.OnceFunc(func() {
		if s.options.Ready != nil {
			s.options.Ready()
		}
	})
	err := s.serve(ctx, address, f, ready)
	for errors.Is(err, errLost) && pause(ctx) {
		again := s.serve(ctx, address, f, ready)
		if again != nil && !errors.Is(again, errLost) {
			return errors.Join(err, again)
		}
		err = again
	}
	return err
}

// pause keeps a bus that throws us out at once from being asked without end. It returns false if
// ctx ends.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

// serve serves on one connection.
func (s *Server) serve(ctx context.Context, address string, f Firmware, ready func()) error {
	ss := newSession(ctx, s, address, f)
	if !s.current.CompareAndSwap(nil, ss) {
		return errors.New("serve: already serving")
	}
	defer s.current.Store(nil)
	defer ss.aside.close()
	if _, err := ss.aside.bus(ctx); err != nil {
		return err
	}
	if _, err := connect(ctx, address, ss.open); err != nil {
		return err
	}
	ss.emitter.tell(true) // what clients find when they ask first
	ss.emits.Go(ss.emitter.run)
	defer ss.end()
	if err := ss.announce(ctx); err != nil {
		return err
	}
	ready()
	return ss.run(ctx, address)
}

// session is one connection to a bus.
type session struct {
	server     *Server
	firmware   Firmware
	components []fwu.ComponentInfo
	tree       tree
	conn       *godbus.Conn
	transport  *transport

	// The contexts of operations come from the service's life, not from a caller's. bulk ends when the service stops, work never does.
	work     context.Context
	bulk     context.Context
	stopBulk context.CancelCauseFunc

	order   order
	holders holders
	emitter emitter
	emits   sync.WaitGroup

	aside     *aside
	questions chan struct{} // holds as many as polkit may be asked at once
	prompts   chan struct{} // the same, of those that wait for a person

	mu       sync.Mutex // of what follows
	stopping bool
	empty    sync.Cond // signalled when pending becomes 0
	peers    map[string]*peer
	accounts accounts
	parked   tally
	unparked sync.Cond // signalled when less is parked
	pending  int
	idle     *time.Timer
}

func newSession(ctx context.Context, s *Server, address string, f Firmware) *session {
	ss := &session{
		server: s, firmware: f, components: f.Components(), peers: map[string]*peer{}, accounts: newAccounts(),
		aside: &aside{address: address}, questions: make(chan struct{}, maxQuestions), prompts: make(chan struct{}, maxQuestions),
	}
	ss.empty.L, ss.unparked.L = &ss.mu, &ss.mu
	ss.tree = newTree(ss.components)
	ss.work = context.WithoutCancel(ctx)
	ss.bulk, ss.stopBulk = context.WithCancelCause(ss.work)
	ss.idle = time.NewTimer(time.Hour)
	ss.idle.Stop()
	ss.emitter = newEmitter(ss)
	return ss
}

// open makes the library's connection.
func (s *session) open(socket *net.UnixConn) (*godbus.Conn, error) {
	s.transport = newTransport(socket, s.arrive)
	var err error
	s.conn, err = godbus.NewConn(s.transport, godbus.WithSignalHandler(s))
	return s.conn, err
}

// announce takes the name, and subscribes to the news of callers that vanish before anybody can call.
func (s *session) announce(ctx context.Context) error {
	err := s.conn.AddMatchSignalContext(ctx, godbus.WithMatchSender(busName), godbus.WithMatchInterface(busName),
		godbus.WithMatchMember("NameOwnerChanged"), godbus.WithMatchArg(2, ""))
	if err != nil {
		return fmt.Errorf("watch for callers that vanish: %w", err)
	}
	var reply uint32
	err = s.conn.BusObject().CallWithContext(ctx, busName+".RequestName", 0, Name, uint32(godbus.NameFlagDoNotQueue)).Store(&reply)
	if err != nil {
		return fmt.Errorf("take the name %s: %w", Name, err)
	}
	if r := godbus.RequestNameReply(reply); r != godbus.RequestNameReplyPrimaryOwner {
		return fmt.Errorf("take the name %s: another process owns it: is the service running already?", Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest()
	return nil
}

// DeliverSignal implements godbus.SignalHandler, for what the transport lets through: signals of the bus itself. It runs in the goroutine that
// reads, after every call that came before.
func (s *session) DeliverSignal(ifaceName, name string, sig *godbus.Signal) {
	if ifaceName != busName || name != "NameOwnerChanged" || len(sig.Body) != 3 {
		return
	}
	gone, _ := sig.Body[0].(string)
	owner, _ := sig.Body[2].(string)
	if owner == "" {
		s.vanished(gone)
	}
}

func (s *session) run(ctx context.Context, address string) error {
	for {
		select {
		case <-ctx.Done():
			s.stop(errStopping)
			s.drain()
			s.release()
			return nil
		case <-s.transport.ended:
			s.stop(errLost)
			return fmt.Errorf("serve on the bus at %s: %w", address, errLost)
		case <-s.idle.C:
			if s.leave() {
				s.release()
				return nil
			}
		}
	}
}

// leave says whether a service that was idle for long enough may go.
func (s *session) leave() bool {
	if s.server.options.Stay != nil && s.server.options.Stay() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rest()
		return false
	}
	return !s.busy() // the last call's end begins a new period
}

// stop refuses what is new and ends what can be continued.
func (s *session) stop(why error) {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	s.stopBulk(why)
}

// release gives up the name, after the last news that is known by it. What the bus had sent us by then has been taken from the socket when its reply is here, because messages
// keep their order; whoever calls later starts the service anew. If the connection breaks meanwhile, the name is released as well.
func (s *session) release() {
	ctx, cancel := context.WithTimeout(s.work, connectTimeout)
	defer cancel()
	s.emitter.tell(true)
	_ = s.conn.BusObject().CallWithContext(ctx, busName+".ReleaseName", 0, Name).Err
}

// end waits for every call, tells the last state of things, and closes the connection.
func (s *session) end() {
	s.drain()
	s.emitter.stop()
	s.emits.Wait()
	_ = s.conn.Close()
	<-s.transport.ended
	s.drain()
	s.stopBulk(errStopping)
}

// drain waits until no call is being served, and has what comes after that refused.
func (s *session) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.pending > 0 {
		s.empty.Wait()
	}
	s.stopping = true
}
