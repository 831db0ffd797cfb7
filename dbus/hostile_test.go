package dbus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// descriptors counts those of this process, which is the service's as well.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// steady checks that as many descriptors are open after f as before.
func steady(t *testing.T, f func()) {
	t.Helper()
	before := descriptors(t)
	f()
	eventually(t, fmt.Sprintf("%d descriptors again", before), func() bool { return descriptors(t) <= before })
}

func null(t *testing.T) godbus.UnixFD {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return godbus.UnixFD(fd)
}

func TestWrongSignaturesOfEveryMethod(t *testing.T) {
	s := serve(t, Options{})
	c := s.raw(t)
	fd := null(t)
	wrong := [][]any{
		{},
		{int32(0)}, {uint64(0)}, {fd}, {"x"}, {[]byte{1}}, {options()},
		{int32(0), options()}, {[]byte{1}, options()}, {uint64(0), []byte{1}}, {uint64(0), "x"}, {uint32(0), []byte{1}},
		{uint64(0), int32(1), uint64(0), options()},
		{uint64(0), uint32(1), uint64(0), options()},
		{uint64(0), int32(fd), uint64(0), options()},
		{uint64(0), []godbus.UnixFD{fd}, uint64(0), options()},
		{uint64(0), godbus.MakeVariant(fd), uint64(0), options()},
		{uint64(0), fd, int64(0), options()},
		{uint64(0), fd, uint64(0), options(), fd},
		{uint64(0), fd, uint64(0), map[string]string{}},
		{[]godbus.UnixFD{fd, fd, fd}},
		{map[string]godbus.Variant{"x": godbus.MakeVariant(fd)}, "x"},
		{"a", "b", "c", "d"},
	}
	steady(t, func() {
		for _, o := range newTree(s.Components()) {
			for _, i := range o.interfaces {
				for _, m := range i.methods {
					for _, args := range wrong {
						if len(args) == 0 && m.in == "" || len(args) > 0 && godbus.SignatureOf(args...).String() == m.in {
							continue
						}
						err := c.Object(Name, o.path).Call(i.name+"."+m.name, 0, args...).Err
						if errorName(err) != busErrorPrefix+"InvalidArgs" {
							t.Errorf("%s %s(%v): %v", o.path, m.name, args, err)
						}
					}
				}
			}
		}
	})
	if calls := s.recorded(); len(calls) > 0 {
		t.Errorf("the service did %v", calls)
	}
}

func TestRefusedArguments(t *testing.T) {
	s := serve(t, Options{})
	c := s.raw(t)
	fd := null(t)
	option := map[string]godbus.Variant{"force": godbus.MakeVariant(true)}
	fdOption := map[string]godbus.Variant{"fd": godbus.MakeVariant(fd)}
	const component = componentFolder + "/0"
	tests := []struct {
		name, path, method string
		args               []any
		want               string
	}{
		{"offset beyond 63 bits", component, "Component.Write", []any{uint64(1 << 63), []byte{1}}, errorPrefix + "InvalidArgument"},
		{"offset of a file beyond 63 bits", component, "Component.WriteFile", []any{^uint64(0), fd, uint64(0), options()}, errorPrefix + "InvalidArgument"},
		{"length beyond 63 bits", component, "Component.WriteFile", []any{uint64(0), fd, uint64(1 << 63), options()}, errorPrefix + "InvalidArgument"},
		{"descriptor that did not come", component, "Component.WriteFile", []any{uint64(0), godbus.UnixFDIndex(0), uint64(0), options()}, busErrorPrefix + "InvalidArgs"},
		{"a descriptor too many, in an option", component, "Component.WriteFile", []any{uint64(0), fd, uint64(0), fdOption}, busErrorPrefix + "InvalidArgs"},
		{"a descriptor in an option", component, "Component.Finish", []any{fdOption}, busErrorPrefix + "InvalidArgs"},
		{"unknown option of WriteFile", component, "Component.WriteFile", []any{uint64(0), fd, uint64(0), option}, errorPrefix + "InvalidArgument"},
		{"unknown option of Start", component, "Component.Start", []any{[]byte{}, option}, errorPrefix + "InvalidArgument"},
		{"unknown option of Finish", component, "Component.Finish", []any{option}, errorPrefix + "InvalidArgument"},
		{"unknown option of Clean", component, "Component.Clean", []any{option}, errorPrefix + "InvalidArgument"},
		{"unknown option of Install", Path, "Manager.Install", []any{option}, errorPrefix + "InvalidArgument"},
		{"unknown option of Accept", Path, "Manager.Accept", []any{option}, errorPrefix + "InvalidArgument"},
		{"unknown option of Reject", Path, "Manager.Reject", []any{int32(0), option}, errorPrefix + "InvalidArgument"},
		{"unknown option of Reject after a known one", Path, "Manager.Reject", []any{int32(0), map[string]godbus.Variant{"text": godbus.MakeVariant("x"), "y": godbus.MakeVariant("z")}}, errorPrefix + "InvalidArgument"},
		{"known option of Reject with another type", Path, "Manager.Reject", []any{int32(0), map[string]godbus.Variant{"text": godbus.MakeVariant(7)}}, busErrorPrefix + "InvalidArgs"},
		{"unknown option of RequestReboot", Path, "Manager.RequestReboot", []any{option}, errorPrefix + "InvalidArgument"},
		{"method of another object", component, "Manager.Install", []any{options()}, busErrorPrefix + "UnknownInterface"},
		{"unknown method", component, "Component.Explode", []any{fd}, busErrorPrefix + "UnknownMethod"},
		{"unknown interface", component, "Nothing.Write", []any{fd}, busErrorPrefix + "UnknownInterface"},
		{"component that is not configured", componentFolder + "/1", "Component.Query", []any{fd}, errorPrefix + "DoesNotExist"},
		{"component number written differently", componentFolder + "/00", "Component.Query", nil, errorPrefix + "DoesNotExist"},
		{"component beyond all numbers", componentFolder + "/256", "Component.Query", nil, errorPrefix + "DoesNotExist"},
		{"below a component", componentFolder + "/0/x", "Component.Query", nil, errorPrefix + "DoesNotExist"},
		{"unknown object", "/org/fwuab/Other", "Manager.Install", []any{fd}, busErrorPrefix + "UnknownObject"},
		{"folder", componentFolder, "Component.Query", []any{fd}, busErrorPrefix + "UnknownInterface"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			steady(t, func() {
				err := c.Object(Name, godbus.ObjectPath(test.path)).Call(Name+"."+test.method, 0, test.args...).Err
				if errorName(err) != test.want {
					t.Errorf("got %s (%v), want %s", errorName(err), err, test.want)
				}
				// The same without anybody who waits for an answer.
				if err := c.Object(Name, godbus.ObjectPath(test.path)).Call(Name+"."+test.method, godbus.FlagNoReplyExpected, test.args...).Err; err != nil {
					t.Error(err)
				}
			})
		})
	}
	if calls := s.recorded(); len(calls) > 0 {
		t.Errorf("the service did %v", calls)
	}
}

func TestMethodWithoutInterface(t *testing.T) {
	s := serve(t, Options{})
	c := s.raw(t)
	m := &godbus.Message{Type: godbus.TypeMethodCall, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldPath: godbus.MakeVariant(godbus.ObjectPath(componentFolder + "/0")), godbus.FieldMember: godbus.MakeVariant("Cancel"),
		godbus.FieldDestination: godbus.MakeVariant(Name),
	}}
	if err := (<-c.Send(m, make(chan *godbus.Call, 1)).Done).Err; err != nil {
		t.Error(err)
	}
}

// crafted is a connection that sends messages which no library makes.
type crafted struct {
	socket  *net.UnixConn
	answers chan *godbus.Message
}

func (s *service) crafted(t *testing.T) *crafted {
	t.Helper()
	c := &crafted{answers: make(chan *godbus.Message, 100)}
	conn, err := connect(t.Context(), s.address, func(socket *net.UnixConn) (*godbus.Conn, error) {
		c.socket = socket
		return godbus.DialUnix(socket, godbus.WithIncomingInterceptor(func(m *godbus.Message) {
			if m.Headers[godbus.FieldReplySerial].Value() == uint32(craftedSerial) {
				c.answers <- m
			}
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return c
}

const craftedSerial = 7777

// send sends a message with a body as it is on the wire, and descriptors.
func (c *crafted) send(t *testing.T, kind godbus.Type, flags godbus.Flags, headers map[godbus.HeaderField]any, signature string, body []byte, fds ...int) {
	t.Helper()
	m := &godbus.Message{Type: kind, Flags: flags, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldPath: godbus.MakeVariant(godbus.ObjectPath(componentFolder + "/0")), godbus.FieldDestination: godbus.MakeVariant(Name),
		godbus.FieldMember: godbus.MakeVariant("WriteFile"), godbus.FieldSignature: godbus.MakeVariant(godbus.ParseSignatureMust(signature)),
	}}
	if len(fds) > 0 {
		m.Headers[godbus.FieldUnixFDs] = godbus.MakeVariant(uint32(len(fds)))
	}
	for k, v := range headers {
		m.Headers[k] = godbus.MakeVariant(v)
	}
	var buf bytes.Buffer
	if err := m.EncodeTo(&buf, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	frame := append(buf.Bytes(), body...)
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(frame[8:], craftedSerial)
	n, _, err := c.socket.WriteMsgUnix(frame, unix.UnixRights(fds...), nil)
	for ; err == nil && n < len(frame); frame = frame[n:] {
		n, err = c.socket.Write(frame[n:])
	}
	if err != nil {
		t.Fatal(err)
	}
}

// encoded is a body with these values.
func encoded(values ...any) []byte {
	var buf bytes.Buffer
	for _, v := range values {
		switch v := v.(type) {
		case uint64:
			buf.Write(make([]byte, -buf.Len()&7))
			buf.Write(binary.LittleEndian.AppendUint64(nil, v))
		case uint32: // an h, or the length of an empty array
			buf.Write(binary.LittleEndian.AppendUint32(make([]byte, -buf.Len()&3), v))
		case []byte:
			buf.Write(binary.LittleEndian.AppendUint32(make([]byte, -buf.Len()&3), uint32(len(v))))
			buf.Write(v)
		case nil: // an empty a{sv}
			buf.Write(make([]byte, -buf.Len()&3+4))
			buf.Write(make([]byte, -buf.Len()&7))
		}
	}
	return buf.Bytes()
}

func TestSizesOfBlocks(t *testing.T) {
	s := serve(t, Options{})
	c := s.crafted(t)
	tests := []struct {
		name, member, signature string
		body                    []byte
		want                    string // empty: it is taken
	}{
		{"largest block", "Write", "tay", encoded(uint64(0), make([]byte, fwu.MaxWriteSize)), ""},
		{"a byte more", "Write", "tay", encoded(uint64(0), make([]byte, fwu.MaxWriteSize+1)), errorPrefix + "InvalidArgument"},
		{"far more", "Write", "tay", encoded(uint64(0), make([]byte, 20<<20)), errorPrefix + "InvalidArgument"},
		{"large manifest", "Start", "aya{sv}", encoded(make([]byte, 1<<20), nil), ""},
		{"manifest that is far too large", "Start", "aya{sv}", encoded(make([]byte, 20<<20), nil), busErrorPrefix + "LimitsExceeded"},
		{"far too much of what nobody asked for", "Query", "ay", encoded(make([]byte, 20<<20)), busErrorPrefix + "InvalidArgs"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c.send(t, godbus.TypeMethodCall, 0, map[godbus.HeaderField]any{godbus.FieldMember: test.member}, test.signature, test.body)
			answer := <-c.answers
			if got, _ := answer.Headers[godbus.FieldErrorName].Value().(string); got != test.want {
				t.Errorf("answered %v", answer)
			}
		})
	}
}

func TestDescriptorsThatTheMessageDoesNotReferTo(t *testing.T) {
	s := serve(t, Options{})
	c := s.crafted(t)
	fd := int(null(t))
	ten := []int{fd, fd, fd, fd, fd, fd, fd, fd, fd, fd}
	field := func(f godbus.HeaderField, v any) map[godbus.HeaderField]any { return map[godbus.HeaderField]any{f: v} }
	send := func(kind godbus.Type, headers map[godbus.HeaderField]any, signature string, body []byte, fds ...int) {
		c.send(t, kind, godbus.FlagNoReplyExpected, headers, signature, body, fds...)
	}
	settled := s.raw(t)
	steady(t, func() {
		for range 20 {
			send(godbus.TypeMethodCall, nil, "", nil, ten...)
			send(godbus.TypeMethodCall, field(godbus.FieldMember, "Nothing"), "", nil, ten...)
			send(godbus.TypeMethodCall, nil, "thta{sv}", encoded(uint64(0), uint32(3), uint64(0), nil), ten...)
			send(godbus.TypeMethodCall, nil, "thta{sv}", encoded(uint64(0), uint32(99), uint64(0), nil), fd)
			send(godbus.TypeMethodCall, nil, "thta{sv}", encoded(uint64(0), uint32(1<<31), uint64(0), nil), fd)
			send(godbus.TypeMethodCall, nil, "h", encoded(uint32(1<<31)), fd, fd, fd)
			send(godbus.TypeSignal, field(godbus.FieldInterface, "a.b"), "h", encoded(uint32(1<<31)), ten...)
			send(godbus.TypeMethodReply, field(godbus.FieldReplySerial, uint32(2)), "h", encoded(uint32(5)), ten...)
		}
		// The service answers still, after all of them.
		if err := settled.Object(Name, Path).Call("org.freedesktop.DBus.Peer.Ping", 0).Err; err != nil {
			t.Fatal(err)
		}
	})
	if calls := s.recorded(); len(calls) > 0 {
		t.Errorf("the service did %v", calls)
	}
}

func TestNobodyIsAnsweredWhoDoesNotWantIt(t *testing.T) {
	s := serve(t, Options{})
	answers := make(chan string, 100)
	c, err := godbus.Connect(s.address, godbus.WithIncomingInterceptor(func(m *godbus.Message) {
		if m.Type == godbus.TypeMethodReply || m.Type == godbus.TypeError {
			answers <- m.String()
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-answers // to Hello
	for _, call := range []struct{ path, method string }{
		{componentFolder + "/0", ComponentInterface + ".Cancel"}, {componentFolder + "/0", ComponentInterface + ".Finish"},
		{componentFolder + "/9", ComponentInterface + ".Cancel"}, {"/x", "a.b"}, {Path, "org.freedesktop.DBus.Peer.Ping"},
	} {
		c.Object(Name, godbus.ObjectPath(call.path)).Call(call.method, godbus.FlagNoReplyExpected)
	}
	if err := c.Object(Name, Path).Call("org.freedesktop.DBus.Peer.Ping", 0).Err; err != nil {
		t.Fatal(err)
	}
	eventually(t, "cancel is done", func() bool { return len(s.recorded()) == 1 })
	if first := <-answers; len(answers) > 0 || strings.Contains(first, "error") {
		t.Errorf("answered %s and %d more", first, len(answers))
	}
}

func TestAThousandCallsAtOnce(t *testing.T) {
	s := serve(t, Options{})
	release := s.hold()
	c, other := s.raw(t), s.raw(t)
	fd := null(t)
	o := c.Object(Name, componentFolder+"/0")
	steady(t, func() {
		done := make(chan *godbus.Call, 1001)
		o.Go(ComponentInterface+".Finish", 0, done, options())
		s.began(t)
		for range 1000 {
			o.Go(ComponentInterface+".WriteFile", 0, done, uint64(0), fd, uint64(0), options())
		}
		refused := 0
		for range 1001 - maxPendingOfPeer {
			if call := <-done; errorName(call.Err) == busErrorPrefix+"LimitsExceeded" {
				refused++
			} else {
				t.Fatalf("answered while Finish runs: %v", call.Err)
			}
		}
		// Another caller is served meanwhile.
		if err := other.Object(Name, componentFolder+"/0").Call(ComponentInterface+".Query", 0).Err; err != nil {
			t.Error(err)
		}
		release()
		go func() {
			for range maxPendingOfPeer - 1 {
				<-s.begun
			}
		}()
		for range maxPendingOfPeer {
			if call := <-done; call.Err != nil {
				t.Error(call.Err)
			}
		}
	})
}

func TestAThousandQueriesAtOnce(t *testing.T) {
	s := serve(t, Options{})
	c := s.raw(t)
	done := make(chan *godbus.Call, 1000)
	for range 1000 {
		c.Object(Name, componentFolder+"/0").Go(ComponentInterface+".Query", 0, done)
	}
	for range 1000 {
		if call := <-done; call.Err != nil && errorName(call.Err) != busErrorPrefix+"LimitsExceeded" {
			t.Fatal(call.Err)
		}
	}
}
