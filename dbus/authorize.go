package dbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// Caller is who asks for something.
type Caller struct {
	Name        string // its unique name on the bus
	Interactive bool   // a person may be asked to prove who they are, which can take minutes
}

// Authorize says whether a caller may do action, one of the Action constants. Any error means no; its text is what the caller is told. A
// caller's calls on one object are authorised one after the other, those of different callers side by side: one who has to be asked for a
// password holds up nobody else. ctx ends when the caller has gone, and when the service stops.
type Authorize func(ctx context.Context, caller Caller, action string) error

// ByRule is the rule of a Server that has no other: everybody may query; root and the user whom the service runs as may do the rest; anybody
// else if polkit says so, where the identifiers of the actions are the bus name, a dot, and the action. Where polkit does not answer, they
// may not.
func (s *Server) ByRule(ctx context.Context, caller Caller, action string) error {
	if action == ActionQuery {
		return nil
	}
	ss := s.current.Load()
	if ss == nil {
		return errors.New("the service is not connected to a bus")
	}
	uid, err := ss.uid(ctx, caller.Name)
	if err != nil {
		return err
	}
	if uid == 0 || uint64(uid) == uint64(os.Geteuid()) {
		return nil
	}
	if err := ss.askPolkit(ctx, caller, Name+"."+action); err != nil {
		return fmt.Errorf("user %d may not %s: %w", uid, action, err)
	}
	return nil
}

// polkit, as in the reference of its D-Bus interface, org.freedesktop.PolicyKit1.Authority.
const (
	polkitName         = "org.freedesktop.PolicyKit1"
	polkitPath         = "/org/freedesktop/PolicyKit1/Authority"
	polkitAuthority    = polkitName + ".Authority"
	polkitAllowsPrompt = 1 // AllowUserInteraction
	// polkitTimeout bounds what involves no person.
	polkitTimeout = 30 * time.Second
)

// subject is polkit's (sa{sv}).
type subject struct {
	Kind    string
	Details map[string]godbus.Variant
}

// askPolkit asks polkit, on a connection of its own: that of the service takes no message but calls. It lets go of the question when ctx ends,
// as a person's answer would come to nobody.
func (s *session) askPolkit(ctx context.Context, caller Caller, action string) error {
	bus, err := connect(ctx, s.address, func(socket *net.UnixConn) (*godbus.Conn, error) { return godbus.DialUnix(socket) })
	if err != nil {
		return fmt.Errorf("ask polkit: %w", err)
	}
	defer func() { _ = bus.Close() }()
	const question = "authorisation" // the only one on this connection
	flags := uint32(polkitAllowsPrompt)
	if !caller.Interactive {
		var cancel context.CancelFunc
		flags = 0
		ctx, cancel = context.WithTimeout(ctx, polkitTimeout)
		defer cancel()
	}
	polkit := bus.Object(polkitName, polkitPath)
	var answer struct {
		Authorized, Challenge bool
		Details               map[string]string
	}
	who := subject{"system-bus-name", map[string]godbus.Variant{"name": godbus.MakeVariant(caller.Name)}}
	err = polkit.CallWithContext(ctx, polkitAuthority+".CheckAuthorization", 0, who, action, map[string]string{}, flags, question).Store(&answer)
	switch {
	case ctx.Err() != nil:
		polkit.Go(polkitAuthority+".CancelCheckAuthorization", godbus.FlagNoReplyExpected, nil, question)
		return fmt.Errorf("ask polkit: %w", context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("ask polkit: %w", err)
	case answer.Authorized:
		return nil
	case answer.Challenge && !caller.Interactive:
		return fmt.Errorf("polkit wants %s to be authenticated, and the call does not allow for interaction", action)
	}
	return fmt.Errorf("polkit does not authorise %s", action)
}

// user is the user that a caller runs as, asked for once.
type user struct {
	mu    sync.Mutex
	known bool
	uid   uint32
}

// uid asks the bus who a caller is. The answer is kept until it disconnects: a unique name is never given twice.
func (s *session) uid(ctx context.Context, sender string) (uint32, error) {
	s.mu.Lock()
	p := s.peers[sender]
	s.mu.Unlock()
	if p == nil {
		return 0, fmt.Errorf("caller %s has gone", sender)
	}
	p.user.mu.Lock()
	defer p.user.mu.Unlock()
	if p.user.known {
		return p.user.uid, nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err := s.conn.BusObject().CallWithContext(ctx, busName+".GetConnectionUnixUser", 0, sender).Store(&p.user.uid)
	if err != nil {
		return 0, fmt.Errorf("ask the bus for the user of %s: %w", sender, err)
	}
	p.user.known = true
	return p.user.uid, nil
}
