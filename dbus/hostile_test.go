package dbus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// use is what a caller could make the service keep. The service is in this process.
type use struct {
	descriptors, goroutines, peers int
	heap                           uint64
}

func (s *service) use(t *testing.T) use {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what was in pools goes the second time
	runtime.ReadMemStats(&m)
	ss := s.server.current.Load()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return use{len(all), runtime.NumGoroutine(), len(ss.peers), m.HeapAlloc}
}

// heapMargin is what the runtime keeps of goroutines that have ended, and the tests of their connections. Of ten thousand calls it is a hundred bytes each. They are sent by
// a crafted caller: the library has a goroutine for each call that waits.
const heapMargin = 1 << 20

// caller is a connection that the test closes.
func (s *service) caller(t *testing.T) *godbus.Conn {
	t.Helper()
	c, err := godbus.Connect(s.address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// known is a connection that the service knows of.
func (s *service) known(t *testing.T) *godbus.Conn {
	t.Helper()
	c := s.raw(t)
	ping(t, c)
	return c
}

func ping(t *testing.T, c *godbus.Conn) {
	t.Helper()
	if err := c.Object(Name, Path).Call("org.freedesktop.DBus.Peer.Ping", 0).Err; err != nil {
		t.Fatal(err)
	}
}

// steady checks that the service holds no more after f than before, and that it answers. Connections are made before, known ones, or closed by f.
func (s *service) steady(t *testing.T, f func()) {
	t.Helper()
	before := s.use(t)
	f()
	c := s.caller(t)
	err := c.Object(Name, componentFolder+"/0").Call(ComponentInterface+".Query", 0).Err
	if err := errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	var after use
	defer func() { t.Logf("before %+v, after %+v", before, after) }()
	eventually(t, "the service holds as much as before", func() bool {
		after = s.use(t)
		return after.descriptors <= before.descriptors && after.goroutines <= before.goroutines && after.peers <= before.peers && after.heap <= before.heap+heapMargin
	})
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

// sample is an argument of one complete type.
type sample struct {
	signature string
	v         any
}

// samples are one of each type that there is, and of some that are made of them. Whatever can carry a descriptor does.
func samples(fd godbus.UnixFD) []sample {
	var all []sample
	for _, v := range []any{
		map[string]godbus.Variant{"fd": godbus.MakeVariant(fd)}, map[string]string{}, []byte{1}, []string{}, []godbus.UnixFD{fd, fd, fd}, [][]byte{},
		struct{ A, B int32 }{}, byte(0), true, int16(0), uint16(0), int32(fd), uint32(fd), int64(0), uint64(0), 0.0, fd, "x", godbus.ObjectPath("/"),
		godbus.ParseSignatureMust("h"), godbus.MakeVariant(fd),
	} {
		all = append(all, sample{godbus.SignatureOf(v).String(), v})
	}
	return all
}

// arguments are what a method takes, by its signature.
func arguments(t *testing.T, signature string, known []sample) []any {
	var args []any
	for signature != "" {
		i := slices.IndexFunc(known, func(v sample) bool { return strings.HasPrefix(signature, v.signature) })
		if i < 0 {
			t.Fatalf("no value for %q", signature)
		}
		args, signature = append(args, known[i].v), signature[len(known[i].signature):]
	}
	return args
}

// mistakes are the ways to get arguments wrong by one: left out, of another type, too many.
func mistakes(right []any, known []sample) [][]any {
	var all [][]any
	for i := range len(right) + 1 {
		for _, v := range known {
			all = append(all, slices.Concat(right[:i], []any{v.v}, right[i:]))
			if i < len(right) {
				all = append(all, slices.Concat(right[:i], []any{v.v}, right[i+1:]))
			}
		}
		if i < len(right) {
			all = append(all, slices.Concat(right[:i], right[i+1:]))
		}
	}
	return append(all, nil, []any{"a", "b", "c", "d"})
}

func TestWrongSignaturesOfEveryMethod(t *testing.T) {
	s := serve(t, Options{})
	c := s.known(t)
	known := samples(null(t))
	sent := 0
	s.steady(t, func() {
		for _, o := range newTree(s.Components()) {
			for _, i := range o.interfaces {
				for _, m := range i.methods {
					done := make(chan *godbus.Call, 1000)
					waiting := 0
					for _, args := range mistakes(arguments(t, m.in, known), known) {
						if godbus.SignatureOf(args...).String() != m.in {
							c.Object(Name, o.path).Go(i.name+"."+m.name, 0, done, args...)
							waiting++
						}
					}
					sent += waiting
					for range waiting {
						if call := <-done; errorName(call.Err) != busErrorPrefix+"InvalidArgs" {
							t.Errorf("%s %s(%v): %v", o.path, m.name, call.Args, call.Err)
						}
					}
				}
			}
		}
	})
	t.Logf("%d calls", sent)
	if calls := s.recorded(); len(calls) > 0 {
		t.Errorf("the service did %v", calls)
	}
}

func TestEveryMethodOfWhatIsNotThere(t *testing.T) {
	s := serve(t, Options{})
	c := s.known(t)
	known := samples(null(t))
	want := map[string]string{
		"/org/fwuab/Other": busErrorPrefix + "UnknownObject", Path + "/x": busErrorPrefix + "UnknownObject", "/": busErrorPrefix + "UnknownInterface", componentFolder: busErrorPrefix + "UnknownInterface",
	}
	for _, id := range []string{"1", "255", "256", "4294967296", "18446744073709551616", "00", "07", "0x0", "0/0", "_", strings.Repeat("7", 30000)} {
		want[componentFolder+"/"+id] = errorPrefix + "DoesNotExist"
	}
	s.steady(t, func() {
		for path, want := range want {
			for _, i := range []iface{managerInterface(), componentInterface()} {
				for _, m := range i.methods {
					err := c.Object(Name, godbus.ObjectPath(path)).Call(i.name+"."+m.name, 0, arguments(t, m.in, known)...).Err
					if errorName(err) != want {
						t.Errorf("%.60s %s: %v, want %s", path, m.name, err, want)
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
	c := s.known(t)
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
			s.steady(t, func() {
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
	serial  uint32
	answers chan string // the names of errors, empty where there is none
}

func (s *service) crafted(t *testing.T) *crafted {
	t.Helper()
	return s.craftedBy(t, func(connect func() error) error { return connect() })
}

// craftedBy is a crafted connection that is made by whoever runs the function that is passed to as.
func (s *service) craftedBy(t *testing.T, as func(func() error) error) *crafted {
	t.Helper()
	c := &crafted{serial: craftedSerial, answers: make(chan string, many)}
	var conn *godbus.Conn
	err := as(func() (err error) {
		conn, err = connect(t.Context(), s.address, func(socket *net.UnixConn) (*godbus.Conn, error) {
			c.socket = socket
			return godbus.DialUnix(socket, godbus.WithIncomingInterceptor(func(m *godbus.Message) {
				if n, _ := m.Headers[godbus.FieldReplySerial].Value().(uint32); n > craftedSerial {
					name, _ := m.Headers[godbus.FieldErrorName].Value().(string)
					c.answers <- name
				}
			}))
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ping(t, conn)
	return c
}

// craftedSerial is beyond what the library counts to.
const craftedSerial = 1 << 20

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
	c.serial++
	binary.LittleEndian.PutUint32(frame[8:], c.serial)
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
		{"nearly all that the bus lets through", "Write", "tay", encoded(uint64(0), make([]byte, 32<<20-4096)), errorPrefix + "InvalidArgument"},
		{"large manifest", "Start", "aya{sv}", encoded(make([]byte, 1<<20), nil), ""},
		{"manifest that is far too large", "Start", "aya{sv}", encoded(make([]byte, 20<<20), nil), busErrorPrefix + "LimitsExceeded"},
		{"far too much of what nobody asked for", "Query", "ay", encoded(make([]byte, 20<<20)), busErrorPrefix + "InvalidArgs"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s.steady(t, func() {
				c.send(t, godbus.TypeMethodCall, 0, map[godbus.HeaderField]any{godbus.FieldMember: test.member}, test.signature, test.body)
				if got := <-c.answers; got != test.want {
					t.Errorf("answered %q", got)
				}
				s.forget()
			})
		})
	}
}

// A header as large as no call has is skipped: who sent it is not known.
func TestHugeHeader(t *testing.T) {
	s := serve(t, Options{})
	c := s.crafted(t)
	fd := int(null(t))
	s.steady(t, func() {
		path := godbus.ObjectPath(componentFolder + "/" + strings.Repeat("7", 20<<20))
		c.send(t, godbus.TypeMethodCall, 0, map[godbus.HeaderField]any{godbus.FieldPath: path}, "ay", encoded(make([]byte, 1<<20)), fd)
	})
	if calls := s.recorded(); len(calls) > 0 {
		t.Errorf("the service did %v", calls)
	}
}

func TestBlocksThatWaitAreBounded(t *testing.T) {
	s := serve(t, Options{})
	release := s.hold()
	c, other := s.crafted(t), s.known(t)
	body := encoded(uint64(0), make([]byte, fwu.MaxWriteSize))
	limit := limitsOfRoot()[working].bytes
	sent := limit/fwu.MaxWriteSize + 10
	s.steady(t, func() {
		finish := other.Object(Name, componentFolder+"/0").Go(ComponentInterface+".Finish", 0, make(chan *godbus.Call, 1), options())
		s.began(t)
		for range sent {
			c.send(t, godbus.TypeMethodCall, 0, map[godbus.HeaderField]any{godbus.FieldMember: "Write"}, "tay", body)
		}
		taken := limit / len(body)
		for range sent - taken {
			if answer := <-c.answers; answer != busErrorPrefix+"LimitsExceeded" {
				t.Fatalf("answered while Finish runs: %q", answer)
			}
		}
		release()
		for range taken {
			if answer := <-c.answers; answer != "" {
				t.Errorf("answered %q", answer)
			}
		}
		if err := (<-finish.Done).Err; err != nil {
			t.Error(err)
		}
		s.forget()
	})
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
	settled := s.known(t)
	s.steady(t, func() {
		// An index is none of our own descriptors, and neither is a number.
		for i := range uint32(100) {
			send(godbus.TypeMethodCall, nil, "thta{sv}", encoded(uint64(0), i+1, uint64(0), nil), fd)
			send(godbus.TypeMethodCall, nil, "thta{sv}", encoded(uint64(0), i, uint64(0), nil))
			send(godbus.TypeMethodCall, nil, "tita{sv}", encoded(uint64(0), i, uint64(0), nil), fd)
			send(godbus.TypeMethodCall, nil, "tita{sv}", encoded(uint64(0), i, uint64(0), nil))
		}
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
		ping(t, settled)
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

const many = 10000

func TestTenThousandCallsAtOnce(t *testing.T) {
	s := serve(t, Options{})
	release := s.hold()
	c, other := s.crafted(t), s.known(t)
	fd := int(null(t))
	s.steady(t, func() {
		finish := other.Object(Name, componentFolder+"/0").Go(ComponentInterface+".Finish", 0, make(chan *godbus.Call, 1), options())
		s.began(t)
		for range many {
			c.send(t, godbus.TypeMethodCall, 0, nil, "thta{sv}", encoded(uint64(0), uint32(0), uint64(0), nil), fd)
		}
		for range many - maxCallsOfPeer {
			if answer := <-c.answers; answer != busErrorPrefix+"LimitsExceeded" {
				t.Fatalf("answered while Finish runs: %q", answer)
			}
		}
		// Another caller is served meanwhile.
		if err := other.Object(Name, componentFolder+"/0").Call(ComponentInterface+".Query", 0).Err; err != nil {
			t.Error(err)
		}
		release()
		for range maxCallsOfPeer {
			s.began(t)
			if answer := <-c.answers; answer != "" {
				t.Errorf("answered %q", answer)
			}
		}
		if err := (<-finish.Done).Err; err != nil {
			t.Error(err)
		}
		s.forget()
	})
}

func TestTenThousandQueriesAtOnce(t *testing.T) {
	s := serve(t, Options{})
	c := s.crafted(t)
	s.steady(t, func() {
		for range many {
			c.send(t, godbus.TypeMethodCall, 0, map[godbus.HeaderField]any{godbus.FieldMember: "Query"}, "", nil)
		}
		for range many {
			if answer := <-c.answers; answer != "" && answer != busErrorPrefix+"LimitsExceeded" {
				t.Fatalf("answered %q", answer)
			}
		}
	})
}

// pipe is a file that nothing comes from, and its other end.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

func TestCallersThatVanishInTheMiddle(t *testing.T) {
	s := serve(t, Options{})
	r, _ := pipe(t)
	file := godbus.UnixFD(r.Fd())
	s.steady(t, func() {
		for range 50 {
			c := s.caller(t)
			done := make(chan *godbus.Call, 1000)
			for _, path := range []godbus.ObjectPath{componentFolder + "/0", componentFolder + "/7"} {
				for range 3 {
					c.Object(Name, path).Go(ComponentInterface+".WriteFile", 0, done, uint64(0), file, uint64(0), options())
				}
				c.Object(Name, path).Go(ComponentInterface+".Finish", 0, done, options())
			}
			for range 100 {
				c.Object(Name, Path).Go("org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0, done)
			}
			s.began(t) // at least one transfer of it runs
			_ = c.Close()
			eventually(t, "its transfers end", func() bool {
				for len(s.begun) > 0 {
					<-s.begun
				}
				return !s.server.Busy()
			})
		}
		s.forget()
	})
}

func TestTwoTransfersAndACancel(t *testing.T) {
	s := serve(t, Options{})
	third := s.known(t)
	s.steady(t, func() {
		type transfer struct {
			conn *godbus.Conn
			w    *os.File
			done *godbus.Call
		}
		begin := func(path godbus.ObjectPath) transfer {
			c := s.caller(t)
			r, w := pipe(t)
			done := c.Object(Name, path).Go(ComponentInterface+".WriteFile", 0, make(chan *godbus.Call, 1), uint64(0), godbus.UnixFD(r.Fd()), uint64(0), options())
			s.began(t)
			_ = r.Close()
			return transfer{c, w, done}
		}
		write := func(w *os.File, what string) {
			if _, err := w.WriteString(what); err != nil {
				t.Fatal(err)
			}
		}
		arrived := func(id fwu.ID, what string) {
			eventually(t, what+" arrives", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return string(s.images[id]) == what })
		}
		// The one dies in the middle, the other gets to its end.
		dies, lives := begin(componentFolder+"/0"), begin(componentFolder+"/7")
		write(dies.w, "half an im")
		write(lives.w, "the image")
		arrived(0, "half an im")
		arrived(7, "the image")
		_ = dies.conn.Close()
		eventually(t, "the transfer ends", func() bool { i, _ := s.Query(t.Context(), 0); return i.Impl.Operation == "" })
		if i, _ := s.Query(t.Context(), 7); i.Impl.Operation != fwu.OpWrite {
			t.Error("that of the other ended too")
		}
		eventually(t, "nobody has the file of the one who died", func() bool { _, err := dies.w.WriteString("x"); return errors.Is(err, unix.EPIPE) })
		write(lives.w, ", all of it")
		_, _ = dies.w.Close(), lives.w.Close()
		var written uint64
		if err := (<-lives.done.Done).Store(&written); err != nil || written != uint64(len("the image, all of it")) {
			t.Errorf("%d bytes, %v", written, err)
		}
		arrived(7, "the image, all of it")
		// A third one ends what is stalled, and what waits behind it goes on.
		stalled := begin(componentFolder + "/0")
		next := lives.conn.Object(Name, componentFolder+"/0").Go(ComponentInterface+".Clean", 0, make(chan *godbus.Call, 1), options())
		if err := third.Object(Name, componentFolder+"/0").Call(ComponentInterface+".Cancel", 0).Err; err != nil {
			t.Error(err)
		}
		if err := (<-stalled.done.Done).Err; errorName(err) != errorPrefix+"BadState" {
			t.Errorf("the transfer ended with %v", err)
		}
		if err := (<-next.Done).Err; err != nil {
			t.Error(err)
		}
		_, _, _ = stalled.w.Close(), stalled.conn.Close(), lives.conn.Close()
		s.forget()
	})
}
