package dbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// AuthorizeOwner is the rule of a Server that has no other: everybody may query; root and the user whom the service runs as may do the rest.
// An Authorize with more rules asks it first.
func (s *Server) AuthorizeOwner(ctx context.Context, sender, action string) error {
	if action == ActionQuery {
		return nil
	}
	ss := s.current.Load()
	if ss == nil {
		return errors.New("the service is not connected to a bus")
	}
	uid, err := ss.uid(ctx, sender)
	if err != nil {
		return err
	}
	if uid != 0 && uint64(uid) != uint64(os.Geteuid()) {
		return fmt.Errorf("user %d may not %s", uid, action)
	}
	return nil
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
