package lab

import (
	"fmt"
	"os"
	"sync"

	godbus "github.com/godbus/dbus/v5"
)

// logind is the part of org.freedesktop.login1 that the service calls.
type logind struct {
	conn  *godbus.Conn
	asked chan struct{} // has a value if a reboot was asked for

	mu         sync.Mutex
	inhibitors []*os.File // our ends of the pipes
}

func startLogind(address string) (*logind, error) {
	conn, err := godbus.Connect(address)
	if err != nil {
		return nil, err
	}
	l := &logind{conn: conn, asked: make(chan struct{}, 1)}
	if err := conn.Export(manager{l}, "/org/freedesktop/login1", "org.freedesktop.login1.Manager"); err != nil {
		return nil, err
	}
	reply, err := conn.RequestName("org.freedesktop.login1", godbus.NameFlagDoNotQueue)
	if err == nil && reply != godbus.RequestNameReplyPrimaryOwner {
		err = fmt.Errorf("the name org.freedesktop.login1 is taken")
	}
	return l, err
}

func (l *logind) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.inhibitors {
		_ = f.Close() // nothing was written to it
	}
	return l.conn.Close()
}

// manager has the methods that are called over the bus, and no others.
type manager struct{ l *logind }

// RebootWithFlags is called by the service.
func (m manager) RebootWithFlags(uint64) *godbus.Error {
	select {
	case m.l.asked <- struct{}{}:
	default:
	}
	return nil
}

// Inhibit hands out a lock that keeps nobody from anything: in a lab only the service asks for
// reboots.
func (m manager) Inhibit(_, _, _, _ string) (godbus.UnixFD, *godbus.Error) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return 0, godbus.MakeFailedError(err)
	}
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	// theirs is open until the reply was sent, and longer
	m.l.inhibitors = append(m.l.inhibitors, ours, theirs)
	return godbus.UnixFD(theirs.Fd()), nil
}
