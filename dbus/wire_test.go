package dbus

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// frame encodes a message with the D-Bus library.
func frame(t testing.TB, order binary.ByteOrder, m *godbus.Message) []byte {
	t.Helper()
	if len(m.Body) > 0 {
		m.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(m.Body...))
	}
	var buf bytes.Buffer
	if err := m.EncodeTo(&buf, order); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func call(body ...any) *godbus.Message {
	return &godbus.Message{Type: godbus.TypeMethodCall, Flags: godbus.FlagNoAutoStart, Body: body, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldPath: godbus.MakeVariant(godbus.ObjectPath("/a/b")), godbus.FieldInterface: godbus.MakeVariant("c.d"),
		godbus.FieldMember: godbus.MakeVariant("Eeeee"), godbus.FieldSender: godbus.MakeVariant(":1.5"),
		godbus.FieldDestination: godbus.MakeVariant("x.y"), godbus.FieldUnixFDs: godbus.MakeVariant(uint32(3)),
	}}
}

func TestReadsWhatTheLibraryWrites(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		b := frame(t, order, call(uint64(1<<60), []byte("block"), int32(-7), "text", map[string]godbus.Variant{"key": godbus.MakeVariant(1)}))
		f, err := parseFixed(b)
		if err != nil {
			t.Fatal(err)
		}
		if f.kind != godbus.TypeMethodCall || f.flags != godbus.FlagNoAutoStart || uint64(fixedSize)+f.rest()+uint64(f.body) != uint64(len(b)) {
			t.Errorf("%v: fixed part is %+v", order, f)
		}
		h, err := parseHeader(f, b[fixedSize:fixedSize+f.rest()])
		if err != nil {
			t.Fatal(err)
		}
		want := header{path: "/a/b", iface: "c.d", member: "Eeeee", sender: ":1.5", signature: "tayisa{sv}", descriptors: 3}
		if diff := cmp.Diff(want, h, cmp.AllowUnexported(header{})); diff != "" {
			t.Errorf("%v:\n%s", order, diff)
		}
		c := cursor{data: b[fixedSize+f.rest():], order: order}
		if n, block, i, text := c.uint64(), c.bytes(), c.int32(), c.string(); n != 1<<60 || string(block) != "block" || i != -7 || text != "text" {
			t.Errorf("%v: read %v %q %v %q, %v", order, n, block, i, text, c.err)
		}
		if _, unknown := c.options(); unknown == nil || *unknown != "key" || c.err != nil {
			t.Errorf("%v: option %v %v", order, unknown, c.err)
		}
	}
}

func TestUnknownHeaderFieldsAreIgnored(t *testing.T) {
	var array bytes.Buffer
	field := func(code byte, signature string, value []byte) {
		array.Write(make([]byte, -array.Len()&7))
		array.Write(append([]byte{code, byte(len(signature))}, signature+"\x00"...))
		array.Write(value)
	}
	field(100, "y", []byte{1})
	field(101, "x", append(make([]byte, 4), 1, 2, 3, 4, 5, 6, 7, 8)) // 4 for the alignment
	field(102, "q", []byte{0, 1})                                    // aligned as it is
	field(3, "s", []byte("\x03\x00\x00\x00Get\x00"))
	f := fixed{order: binary.LittleEndian, headers: uint32(array.Len())}
	h, err := parseHeader(f, array.Bytes())
	if err != nil || h.member != "Get" {
		t.Errorf("%+v, %v", h, err)
	}
	field(103, "as", nil)
	f.headers = uint32(array.Len())
	if _, err := parseHeader(f, array.Bytes()); err == nil {
		t.Error("a container was skipped without knowing its length")
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(frame(f, binary.LittleEndian, call(uint64(0), []byte("x"))))
	f.Add(frame(f, binary.BigEndian, call(uint64(0), godbus.UnixFD(0), uint64(1), options())))
	f.Add(frame(f, binary.LittleEndian, call("a", "b", godbus.MakeVariant(1))))
	f.Fuzz(func(t *testing.T, b []byte) {
		fix, err := parseFixed(b)
		if err != nil || fix.rest() > uint64(len(b)-fixedSize) {
			return
		}
		rest := b[fixedSize : fixedSize+fix.rest()]
		ours, err := parseHeader(fix, rest)
		body := b[fixedSize+fix.rest():]
		for _, read := range []func(*cursor){
			func(c *cursor) { c.uint64(); c.bytes() },
			func(c *cursor) { c.uint64(); c.uint32(); c.uint64(); c.options() },
			func(c *cursor) { c.string(); c.string() },
			func(c *cursor) { c.bytes(); c.options() },
			func(c *cursor) { c.int32(); c.options("reason", "text") },
		} {
			read(&cursor{data: body, order: fix.order})
		}
		// What the library takes for a message we read in the same way.
		theirs, theirErr := godbus.DecodeMessage(bytes.NewReader(b))
		if theirErr != nil || err != nil {
			return
		}
		for id, got := range map[godbus.HeaderField]string{
			godbus.FieldInterface: ours.iface, godbus.FieldMember: ours.member, godbus.FieldSender: ours.sender,
		} {
			if want, _ := theirs.Headers[id].Value().(string); got != want {
				t.Errorf("field %d is %q, the library says %q", id, got, want)
			}
		}
		if sig, _ := theirs.Headers[godbus.FieldSignature].Value().(godbus.Signature); sig.String() != ours.signature {
			t.Errorf("signature %q, the library says %q", ours.signature, sig)
		}
	})
}

func TestDescriptorIsInterruptedAndLeftAsItIs(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	other, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	d, err := newDescriptor(fds[0], func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 1)
	go func() { _, err := d.Read(make([]byte, 10)); errs <- err }()
	time.Sleep(10 * time.Millisecond)
	if err := d.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; err != os.ErrDeadlineExceeded {
		t.Errorf("read ended with %v", err)
	}
	if err := d.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(make([]byte, 10)); err != os.ErrDeadlineExceeded {
		t.Errorf("read ended with %v", err)
	}
	if err := d.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fds[1], []byte("abc")); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 10)
	if n, err := d.Read(p); n != 3 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	if flags, err := unix.FcntlInt(uintptr(other), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("the caller's file became non-blocking: %#x, %v", flags, err)
	}
	unix.Close(fds[1])
	if _, err := d.Read(p); err != io.EOF {
		t.Errorf("end of the pipe: %v", err)
	}
	d.Close()
	d.Close()
	if err := d.SetReadDeadline(time.Time{}); err != os.ErrClosed {
		t.Errorf("deadline of a closed one: %v", err)
	}
}

func TestDescriptorThatIsNonBlockingAlready(t *testing.T) {
	r, w, err := os.Pipe() // both ends are non-blocking
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := unix.FcntlInt(r.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	d, err := newDescriptor(fd, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	go func() {
		time.Sleep(10 * time.Millisecond)
		_, _ = w.WriteString("late")
		_ = w.Close()
	}()
	if b, err := io.ReadAll(d); string(b) != "late" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
}
