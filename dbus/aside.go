package dbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	godbus "github.com/godbus/dbus/v5"
)

// aside is a second connection to the bus, for questions of the service itself: who a caller is,
// and whether polkit lets it. The connection that serves cannot ask while it reads. There is one,
// however many questions are open: the bus allows a user a limited number of connections.
type aside struct {
	address   string
	questions atomic.Uint64 // that were asked

	mu   sync.Mutex
	conn *godbus.Conn // nil until it is needed
}

// bus returns the connection, a new one if it was lost.
func (a *aside) bus(ctx context.Context) (*godbus.Conn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil && a.conn.Connected() {
		return a.conn, nil
	}
	conn, err := connect(ctx, a.address, func(socket *net.UnixConn) (*godbus.Conn, error) {
		t := newTransport(socket, func(m *message) { m.close() }) // nobody has a reason to call us here
		t.replies = true
		return godbus.NewConn(t)
	})
	if err != nil {
		return nil, err
	}
	a.conn = conn
	return conn, nil
}

func (a *aside) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		_ = a.conn.Close() // nothing is asked any more
		a.conn = nil
	}
}

// uid asks the bus for the user of a connection. The error is errNobody if there is no such
// connection any more.
func (a *aside) uid(ctx context.Context, name string) (uint32, error) {
	bus, err := a.bus(ctx)
	if err != nil {
		return 0, err
	}
	var uid uint32
	err = bus.BusObject().CallWithContext(ctx, busName+".GetConnectionUnixUser", 0, name).Store(&uid)
	var answer godbus.Error
	if errors.As(err, &answer) && answer.Name == busErrorPrefix+"NameHasNoOwner" {
		return 0, errNobody
	}
	if err != nil {
		return 0, fmt.Errorf("ask the bus for the user of %s: %w", name, err)
	}
	return uid, nil
}
