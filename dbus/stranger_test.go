package dbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/stranger"
)

// The tests in this file run as an unprivileged user against the real bus, with the limits of a
// system bus, our policy, and the real polkit. The service is in this process.

const (
	policies = "../share/dbus-1/system.d"
	actions  = "../share/polkit-1/actions"
)

// serveStrangers serves on a bus to which every user can connect.
func serveStrangers(t *testing.T) (*service, *os.Process) {
	t.Helper()
	stranger.Need(t)
	address := privatebus.SystemForTest(t, policies)
	polkit := privatebus.PolkitForTest(t, address, actions)
	return serveAt(t, address, Options{}), polkit
}

// stopped makes polkit answer nobody, as if it were busy, for the rest of the test.
func stopped(t *testing.T, polkit *os.Process) {
	t.Helper()
	if err := polkit.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

// connections counts the connections that a user has to the bus.
func connections(t *testing.T, c *godbus.Conn, uid uint32) int {
	t.Helper()
	var names []string
	if err := c.BusObject().Call(busName+".ListNames", 0).Store(&names); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		var owner uint32
		// A connection that was closed meanwhile is none.
		if err := c.BusObject().Call(busName+".GetConnectionUnixUser", 0, name).Store(&owner); err == nil && owner == uid && name[0] == ':' {
			n++
		}
	}
	return n
}

// stranger is a connection of an unprivileged user.
func (s *service) stranger(t *testing.T) *godbus.Conn {
	t.Helper()
	var c *godbus.Conn
	err := stranger.Do(func() (err error) {
		c, err = godbus.Connect(s.address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// rootIsServed checks that root gets through with everything.
func (s *service) rootIsServed(t *testing.T) {
	t.Helper()
	c := s.client(t) // asks for the list of components
	if _, err := c.Query(t.Context(), 0); err != nil {
		t.Fatalf("root queries: %v", err)
	}
	if err := c.Accept(t.Context()); err != nil {
		t.Fatalf("root accepts: %v", err)
	}
	if !slices.Contains(s.recorded(), "accept") {
		t.Fatal("nothing was accepted")
	}
}

// Whoever answers no question of polkit fills no more than his own small pool, and nobody else is
// refused on his account.
func TestRootIsServedWhileAStrangerAnswersNoQuestion(t *testing.T) {
	s, _ := serveStrangers(t)
	p := startMute(t, s.address)
	p.expect(t, "asked")
	s.rootIsServed(t)
	// All calls are refused but those that are in the stranger's pool.
	p.expect(t, fmt.Sprintf("refused %d", muteConnections*muteCalls-limitsOfUser()[asking].calls))
	s.rootIsServed(t)
	// More is not asked while the first question is open.
	p.expect(t, "asked 1")
	if all := s.recorded(); slices.ContainsFunc(all, func(call string) bool { return call != "accept" }) || len(all) != 2 {
		t.Errorf("the service did %v", all)
	}
}

// Where polkit is busy, questions take up neither the connections that the bus lets root have, nor
// the room that root's calls need.
func TestQuestionsThatPolkitDoesNotAnswer(t *testing.T) {
	s, polkit := serveStrangers(t)
	root := s.known(t)
	before := connections(t, root, 0)
	stopped(t, polkit)
	done := make(chan *godbus.Call, 1000)
	for range 4 {
		c := s.stranger(t)
		for range 100 {
			c.Object(Name, Path).Go(ManagerInterface+".Accept", 0, done, options())
		}
	}
	for range 400 - limitsOfUser()[asking].calls {
		if call := <-done; errorName(call.Err) != busErrorPrefix+"LimitsExceeded" {
			t.Fatalf("answered %v", call.Err)
		}
	}
	if after := connections(t, root, 0); after > before {
		t.Errorf("root has %d connections, had %d", after, before)
	}
	s.rootIsServed(t)
}

// A block of one whom nobody has authorised yet takes memory: it may be two.
func TestBlocksOfAStrangerThatIsNotAuthorised(t *testing.T) {
	s, polkit := serveStrangers(t)
	stopped(t, polkit)
	body := encoded(uint64(0), make([]byte, fwu.MaxWriteSize))
	const connections, each = 9, 7
	var all []*crafted
	for range connections {
		c := s.craftedBy(t, stranger.Do)
		for range each {
			c.send(t, godbus.TypeMethodCall, godbus.FlagAllowInteractiveAuthorization, map[godbus.HeaderField]any{godbus.FieldInterface: ComponentInterface, godbus.FieldMember: "Write"}, "tay", body)
		}
		all = append(all, c)
	}
	eventually(t, "all blocks but two are refused", func() bool {
		answered := 0
		for _, c := range all {
			answered += len(c.answers)
		}
		return answered == connections*each-2
	})
	for _, c := range all {
		for range len(c.answers) {
			if answer := <-c.answers; answer != busErrorPrefix+"LimitsExceeded" {
				t.Errorf("answered %q", answer)
			}
		}
	}
	ss := s.server.current.Load()
	ss.mu.Lock()
	held := ss.accounts.others[asking].bytes
	ss.mu.Unlock()
	if held > limitsOfUser()[asking].bytes {
		t.Errorf("%d bytes are held", held)
	}
	s.rootIsServed(t)
}

// deaf is a connection that sends, and never reads.
type deaf struct {
	socket net.Conn
	serial uint32
}

// deaf is made by whoever runs it.
func (s *service) deaf() (*deaf, error) {
	path, err := socketPath(strings.Split(s.address, ";")[0])
	if err != nil {
		return nil, err
	}
	socket, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	d := &deaf{socket: socket}
	for _, step := range []struct{ say, hear string }{{"\x00AUTH EXTERNAL\r\n", "DATA\r\n"}, {"DATA\r\n", "OK "}, {"BEGIN\r\n", ""}} {
		if _, err := fmt.Fprint(socket, step.say); err != nil {
			return nil, err
		}
		answer := make([]byte, 256)
		if step.hear == "" {
			break
		}
		if n, err := socket.Read(answer); err != nil || !strings.HasPrefix(string(answer[:n]), step.hear) {
			return nil, fmt.Errorf("bus said %q (%w)", answer[:n], err)
		}
	}
	return d, d.call(busName, "/org/freedesktop/DBus", busName+".Hello")
}

// call calls a method without arguments.
func (d *deaf) call(destination, path, method string) error {
	dot := strings.LastIndexByte(method, '.')
	m := &godbus.Message{Type: godbus.TypeMethodCall, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldPath: godbus.MakeVariant(godbus.ObjectPath(path)), godbus.FieldDestination: godbus.MakeVariant(destination),
		godbus.FieldInterface: godbus.MakeVariant(method[:dot]), godbus.FieldMember: godbus.MakeVariant(method[dot+1:]),
	}}
	var frame bytes.Buffer
	if err := m.EncodeTo(&frame, binary.LittleEndian); err != nil {
		return err
	}
	d.serial++
	binary.LittleEndian.PutUint32(frame.Bytes()[8:], d.serial)
	_, err := d.socket.Write(frame.Bytes())
	return err
}

const introspectMethod = "org.freedesktop.DBus.Introspectable.Introspect"

// A user who asks and asks, and reads no answer, is refused after a while, and then not answered
// any more: else the bus would fill up, and stop reading from the service.
func TestStrangersThatNeverRead(t *testing.T) {
	s, _ := serveStrangers(t)
	var all []*deaf
	if err := stranger.Do(func() error {
		for range 8 {
			d, err := s.deaf()
			if err != nil {
				return err
			}
			all = append(all, d)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		t.Cleanup(func() { _ = d.socket.Close() })
	}
	const calls = 25000 // more than the 127 MiB of answers that the bus holds, without an allowance
	for i := range calls {
		if err := all[i%len(all)].call(Name, componentFolder+"/0", introspectMethod); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			if err := s.query(t, time.Minute); err != nil {
				t.Fatalf("root, after %d calls of a stranger: %v", i, err)
			}
		}
	}
	s.rootIsServed(t)
	ss := s.server.current.Load()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if most := answersOfUser().burst + maxOverdraft + int64(limitsOfUser()[queries].calls)*8<<10; ss.accounts.byUser[stranger.UID].answers.spent > most {
		t.Errorf("answers of %d bytes are on their way to the stranger", ss.accounts.byUser[stranger.UID].answers.spent)
	}
}

// query is one of root, on a connection of its own.
func (s *service) query(t *testing.T, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := Dial(ctx, s.address)
	if err != nil {
		return err
	}
	_, err = c.Query(ctx, 0)
	return errors.Join(err, c.Close())
}

// When the bus takes nothing from the service any more, the service connects again, and is there
// for everybody else. Callers that never read do that to a bus: these are root's own, as to nobody
// else's the service would answer so much, and the bus is one that holds less than others.
func TestServiceConnectsAgain(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o755), os.CopyFS(dir, os.DirFS(policies)), os.WriteFile(dir+"/limits.conf", []byte(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><limit name="max_incoming_bytes">1000000</limit></busconfig>`), 0o644)); err != nil {
		t.Fatal(err)
	}
	s := serveAt(t, privatebus.SystemForTest(t, dir), Options{})
	d, err := s.deaf()
	if err != nil {
		t.Fatal(err)
	}
	defer d.socket.Close()
	first := s.server.current.Load()
	eventuallyIn(t, time.Minute, "the service has another connection", func() bool {
		for range 20 { // fewer than may be pending
			if err := d.call(Name, componentFolder+"/0", introspectMethod); err != nil {
				t.Fatal(err)
			}
		}
		now := s.server.current.Load()
		return now != nil && now != first
	})
	eventuallyIn(t, time.Minute, "root is served", func() bool { return s.query(t, time.Minute) == nil })
}

func TestIntrospectionHasNoComments(t *testing.T) {
	s := serve(t, Options{})
	for _, path := range []godbus.ObjectPath{Path, componentFolder + "/0"} {
		var text string
		if err := s.raw(t).Object(Name, path).Call(introspectMethod, 0).Store(&text); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text, "<!--") || strings.Contains(text, "-->") || len(text) > 8<<10 {
			t.Errorf("%d bytes:\n%s", len(text), text)
		}
	}
}

// polkit knows every action that the service asks about, and a rule for prepare is one for cancel,
// too.
func TestActionsOfPolkit(t *testing.T) {
	stranger.Need(t)
	rules, err := os.MkdirTemp("", "rules") // polkit is another user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(rules) })
	if err := errors.Join(os.Chmod(rules, 0o755), os.WriteFile(rules+"/10.rules", []byte(`polkit.addRule(function(action, subject) {
	if (subject.user == "nobody" && action.id == "org.fwuab.FirmwareUpdate1.prepare") return polkit.Result.YES;
});`), 0o644)); err != nil {
		t.Fatal(err)
	}
	address := privatebus.SystemForTest(t, policies)
	privatebus.PolkitForTest(t, address, actions, rules)
	s := serveAt(t, address, Options{})
	c := s.stranger(t)
	asked := map[string]bool{}
	for _, i := range []iface{managerInterface(), componentInterface()} {
		for _, m := range i.methods {
			if m.action == ActionQuery || asked[m.action] {
				continue
			}
			asked[m.action] = true
			authorized, challenge, err := s.server.current.Load().aside.checkAuthorization(t.Context(), c.Names()[0], Name+"."+m.action, 0)
			may := m.action == ActionPrepare || m.action == ActionCancel
			if err != nil || authorized != may || challenge == may {
				t.Errorf("%s: authorised %v, to be asked %v, %v", m.action, authorized, challenge, err)
			}
		}
	}
	if len(asked) != 8 {
		t.Errorf("asked about %v", asked)
	}
	if err := c.Object(Name, componentFolder+"/0").Call(ComponentInterface+".Cancel", 0).Err; err != nil {
		t.Error(err)
	}
}

// withoutComments removes XML comments, and the lines that held nothing else.
func withoutComments(text string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "<!--")
		if !found {
			out.WriteString(before)
			return out.String()
		}
		_, text, _ = strings.Cut(rest, "-->")
		start := strings.LastIndexByte(before, '\n') + 1
		if strings.TrimSpace(before[start:]) == "" && strings.HasPrefix(text, "\n") {
			before, text = before[:start], text[1:]
		}
		out.WriteString(before)
	}
}

func TestIntrospectionIsTheContract(t *testing.T) {
	if want := withoutComments(contract); introspection != want {
		t.Errorf("introspection.xml is not the contract without comments, which is:\n%s", want)
	}
}
