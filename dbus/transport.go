package dbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// connectTimeout bounds connecting, authentication and the first call.
const connectTimeout = 10 * time.Second

// maxBody is the largest body of a call that is looked at: that of Write with the largest block, and some room to find out that a block is too large.
const maxBody = fwu.MaxWriteSize + 4096

// message is a method call as it came, and the owner of its descriptors.
type message struct {
	fixed
	header
	data        []byte // the body; nil if it was larger than maxBody
	descriptors []int
}

func (m *message) tooLarge() bool { return m.fixed.body > maxBody }

func (m *message) wantsReply() bool { return m.flags&godbus.FlagNoReplyExpected == 0 }

// takeDescriptor hands over descriptor i.
func (m *message) takeDescriptor(i uint32) (int, bool) {
	if uint64(i) >= uint64(len(m.descriptors)) || m.descriptors[i] < 0 {
		return -1, false
	}
	fd := m.descriptors[i]
	m.descriptors[i] = -1
	return fd, true
}

// close closes the descriptors that nobody took.
func (m *message) close() {
	closeAll(m.descriptors)
	m.descriptors = nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			// Nothing was written through it: there is nothing to lose.
			_ = unix.Close(fd)
		}
	}
}

// transport stands between the socket and the D-Bus library. Method calls go to deliver, which runs in the goroutine that reads, so that it
// sees them in the order of arrival. The library gets to see what the bus itself sends: replies to its calls, and its signals. Everything
// else is dropped. Descriptors arrive in the kernel with the first byte of their message; because no read goes beyond the end
// of a message, those that were received are those of the message.
type transport struct {
	*net.UnixConn
	deliver func(*message)
	replies bool          // the library gets to see the answers of others than the bus, too
	ended   chan struct{} // closed when the reader found the end of the connection
	endOnce sync.Once
	begun   bool   // authentication is over
	left    []byte // of a message that the library is reading
	oob     []byte
	fds     []int // of the message that is being read
}

func newTransport(conn *net.UnixConn, deliver func(*message)) *transport {
	// The kernel passes 253 descriptors at once at most (SCM_MAX_FD).
	return &transport{UnixConn: conn, deliver: deliver, ended: make(chan struct{}), oob: make([]byte, unix.CmsgSpace(253*4))}
}

// writeTimeout is how long the bus may take nothing from us. It stops reading from a sender when
// callers leave too much unread.
const writeTimeout = 5 * time.Second

// Write passes on the bytes that the library writes. A message that was sent in part ends the
// connection. The library negotiates descriptors only with its own transport, so it is done here,
// where its last line of the authentication passes.
func (t *transport) Write(p []byte) (int, error) {
	if !t.begun && string(p) == "BEGIN\r\n" {
		if err := t.negotiate(); err != nil {
			return 0, err
		}
		t.begun = true
	}
	err := t.SetWriteDeadline(time.Now().Add(writeTimeout))
	n := 0
	if err == nil {
		n, err = t.UnixConn.Write(p)
	}
	if err != nil {
		_ = t.Close() // the reader finds that out
	}
	return n, err
}

func (t *transport) negotiate() error {
	if _, err := io.WriteString(t.UnixConn, "NEGOTIATE_UNIX_FD\r\n"); err != nil {
		return err
	}
	const want = "AGREE_UNIX_FD\r\n"
	var line []byte
	for b := make([]byte, 1); len(line) < 256; {
		if _, err := t.UnixConn.Read(b); err != nil {
			return err
		}
		line = append(line, b[0])
		if b[0] == '\n' {
			break
		}
	}
	if string(line) != want {
		return fmt.Errorf("bus passes no descriptors: it answered %q", line)
	}
	return nil
}

// Read gives the library the next bytes that are for it.
func (t *transport) Read(p []byte) (int, error) {
	if !t.begun {
		return t.UnixConn.Read(p)
	}
	for len(t.left) == 0 {
		if err := t.next(); err != nil {
			t.endOnce.Do(func() { close(t.ended) })
			return 0, err
		}
	}
	n := copy(p, t.left)
	t.left = t.left[n:]
	return n, nil
}

// next reads one message and passes it to whom it is for.
func (t *transport) next() error {
	defer func() { closeAll(t.fds); t.fds = nil }()
	head := make([]byte, fixedSize)
	if err := t.receive(head); err != nil {
		return err
	}
	f, err := parseFixed(head)
	if err != nil {
		return fmt.Errorf("read from the bus: %w", err) // where the next message begins is not known
	}
	if f.rest() > maxHeaderArray {
		return t.skip(f.rest() + uint64(f.body))
	}
	rest := make([]byte, f.rest())
	if err := t.receive(rest); err != nil {
		return err
	}
	var body []byte
	if f.body > maxBody {
		err = t.skip(uint64(f.body))
	} else {
		body = make([]byte, f.body)
		err = t.receive(body)
	}
	if err != nil {
		return err
	}
	h, err := parseHeader(f, rest)
	switch {
	case err != nil: // nobody to answer is known
	case f.kind == godbus.TypeMethodCall:
		m := &message{fixed: f, header: h, data: body, descriptors: t.fds}
		t.fds = nil
		t.deliver(m)
	case f.body <= maxBody && (h.sender == busName || t.replies && (f.kind == godbus.TypeMethodReply || f.kind == godbus.TypeError)):
		t.left = append(append(head, rest...), body...)
	}
	return nil
}

// receive fills p and keeps the descriptors that come with it.
func (t *transport) receive(p []byte) error {
	for len(p) > 0 {
		n, oobn, _, _, err := t.ReadMsgUnix(p, t.oob)
		if err != nil {
			return err
		}
		p = p[n:]
		if oobn == 0 {
			continue
		}
		// Descriptors for which the process has no room are missing: the count in the header tells.
		messages, err := syscall.ParseSocketControlMessage(t.oob[:oobn])
		if err != nil {
			return fmt.Errorf("read descriptors from the bus: %w", err)
		}
		for i := range messages {
			if fds, err := syscall.ParseUnixRights(&messages[i]); err == nil {
				t.fds = append(t.fds, fds...)
			}
		}
	}
	return nil
}

func (t *transport) skip(n uint64) error {
	b := make([]byte, 32<<10)
	for n > 0 {
		part := b[:min(n, uint64(len(b)))]
		if err := t.receive(part); err != nil {
			return err
		}
		n -= uint64(len(part))
	}
	return nil
}

// connect makes a connection to the bus ready for use. open makes the library's connection of a socket.
func connect(ctx context.Context, address string, open func(*net.UnixConn) (*godbus.Conn, error)) (*godbus.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	socket, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	conn, err := open(socket)
	if err != nil {
		_ = socket.Close()
		return nil, fmt.Errorf("connect to the bus at %s: %w", address, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = conn.Auth([]godbus.Auth{godbus.AuthExternal(fmt.Sprint(os.Geteuid()))})
	if err == nil {
		err = conn.Hello()
	}
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("greet the bus at %s: %w", address, err)
	}
	return conn, nil
}

// dial connects to the first of the addresses that answers (D-Bus Specification, "Server Addresses").
func dial(ctx context.Context, address string) (*net.UnixConn, error) {
	list, err := resolve(address)
	if err != nil {
		return nil, err
	}
	var failures []error
	for _, one := range strings.Split(list, ";") {
		if one == "" {
			continue
		}
		path, err := socketPath(one)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		failures = append(failures, fmt.Errorf("connect to the bus at %s: %w", one, err))
	}
	if len(failures) == 0 {
		return nil, fmt.Errorf("bus address %q is empty", address)
	}
	return nil, errors.Join(failures...)
}

// resolve turns "system" and "session" into what the environment, or the specification in its absence, says that they are.
func resolve(address string) (string, error) {
	switch address {
	case "system":
		if a := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); a != "" {
			return a, nil
		}
		return "unix:path=/run/dbus/system_bus_socket;unix:path=/var/run/dbus/system_bus_socket", nil
	case "session":
		if a := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); a != "" {
			return a, nil
		}
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			return "unix:path=" + godbus.EscapeBusAddressValue(dir+"/bus"), nil
		}
		return "", errors.New("find the session bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set")
	}
	return address, nil
}

func socketPath(address string) (string, error) {
	pairs, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return "", fmt.Errorf("bus address %q: want unix:path=... or unix:abstract=..., descriptors travel over no other", address)
	}
	for _, pair := range strings.Split(pairs, ",") {
		key, value, _ := strings.Cut(pair, "=")
		value, err := godbus.UnescapeBusAddressValue(value)
		switch {
		case key != "path" && key != "abstract":
		case err != nil:
			return "", fmt.Errorf("bus address %q: %w", address, err)
		case key == "abstract":
			return "@" + value, nil
		default:
			return value, nil
		}
	}
	return "", fmt.Errorf("bus address %q names no path", address)
}
