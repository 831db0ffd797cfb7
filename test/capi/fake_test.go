package capi_test

import (
	"context"
	"errors"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/capi"
)

// fake is a service that answers what it is told to.
type fake struct {
	mu                 sync.Mutex
	alignment, largest uint32
	size               uint64
	reason             string
	second             map[string]godbus.Variant
	finish             *godbus.Error
	wait               time.Duration
	installed          int32
}

func newFake() *fake {
	return &fake{alignment: fwu.WriteAlignment, largest: fwu.MaxWriteSize, size: 1 << 20, second: map[string]godbus.Variant{}}
}

func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

type component struct {
	ID   byte
	Name string
	Path godbus.ObjectPath
}

func (f *fake) ListComponents() ([]component, *godbus.Error) {
	return []component{{0, "c", dbus.Path + "/component/0"}}, nil
}

func (f *fake) GetAll(name string) (map[string]godbus.Variant, *godbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name != dbus.ManagerInterface {
		return map[string]godbus.Variant{}, nil
	}
	return map[string]godbus.Variant{
		"ApiVersion": godbus.MakeVariant(struct{ A, B uint32 }{1, 0}), "ServiceVersion": godbus.MakeVariant("fake"),
		"WriteAlignment": godbus.MakeVariant(f.alignment), "MaxWriteSize": godbus.MakeVariant(f.largest), "Degraded": godbus.MakeVariant([]string{}),
	}, nil
}

func (f *fake) Query() (state byte, failure int32, version fwu.Version, size uint64, flags, location uint32, impl map[string]godbus.Variant, err *godbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return 4, -7, fwu.Version{Major: 1, Minor: 2, Patch: 3, Build: 4}, f.size, 3, 1, map[string]godbus.Variant{
		"sequence": godbus.MakeVariant(uint64(math.MaxInt64)), "later": godbus.MakeVariant([]string{"unknown"}),
		"active_slot": godbus.MakeVariant(string(make256())), "reason": godbus.MakeVariant(struct{ A, B string }{"cancelled", f.reason}),
		"second": godbus.MakeVariant(f.second),
	}, nil
}

// make256 is a path that has no room.
func make256() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = 'x'
	}
	return b
}

func (f *fake) Finish(map[string]godbus.Variant) *godbus.Error {
	f.mu.Lock()
	wait, err := f.wait, f.finish
	f.mu.Unlock()
	time.Sleep(wait)
	return err
}

func (f *fake) Cancel() *godbus.Error { return nil }

func (f *fake) Install(map[string]godbus.Variant) (int32, *godbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.installed, nil
}

// serve has the name of the service on a bus until it is told to stop.
func (f *fake) serve(t *testing.T, bus string) (stop func()) {
	t.Helper()
	conn, err := godbus.Connect(bus)
	if err != nil {
		t.Fatal(err)
	}
	for path, name := range map[godbus.ObjectPath]string{dbus.Path: dbus.ManagerInterface, dbus.Path + "/component/0": dbus.ComponentInterface} {
		if err := errors.Join(conn.Export(f, path, name), conn.Export(f, path, "org.freedesktop.DBus.Properties")); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := conn.RequestName(dbus.Name, godbus.NameFlagDoNotQueue); err != nil || reply != godbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	stop = sync.OnceFunc(func() { _ = conn.Close() })
	t.Cleanup(stop)
	return stop
}

// drive builds the driver and runs it on a bus.
func drive(t *testing.T, bus string) *capi.Driver {
	t.Helper()
	d, err := capi.Drive(bus, capi.Build(t, root, "gcc").Program(t, "psa/tests/driver.c"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// TestErrorsAreWhatTheGoClientMakesOfThem: the table of the library is that of the service, and of its client in Go.
func TestErrorsAreWhatTheGoClientMakesOfThem(t *testing.T) {
	bus := privatebus.ForTest(t)
	f := newFake()
	f.serve(t, bus)
	d := drive(t, bus)
	ctx := context.Background()
	client, err := dbus.Dial(ctx, bus)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	names := []string{dbus.Name + ".Error.Later", "org.example.Other", "org.freedesktop.DBus.Error.Failed"}
	for s := fwu.Status(-1000); s < 0; s++ {
		if s.DBusName() != "GenericError" || s == fwu.GenericError {
			names = append(names, dbus.Name+".Error."+s.DBusName())
		}
	}
	for _, last := range []string{
		"AccessDenied", "AuthFailed", "InteractiveAuthorizationRequired", "InvalidArgs", "UnknownMethod", "UnknownObject", "UnknownInterface", "UnknownProperty", "ServiceUnknown",
		"NameHasNoOwner", "Spawn.ServiceNotFound", "Spawn.ChildExited", "Spawn.Failed", "Spawn.ExecFailed", "Spawn.ChildSignaled", "Spawn.ServiceNotValid", "Spawn.FileInvalid",
		"NoReply", "Disconnected", "TimedOut", "Timeout", "LimitsExceeded", "NoMemory", "FileNotFound",
	} {
		names = append(names, "org.freedesktop.DBus.Error."+last)
	}
	for _, name := range names {
		f.set(func(f *fake) { f.finish = godbus.NewError(name, []any{"because"}) })
		if got, want := fwu.StatusOf(d.Finish(ctx, 0)), fwu.StatusOf(client.Finish(ctx, 0)); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if len(names) < 40 {
		t.Errorf("%d names", len(names))
	}
}

func TestAnswersThatHaveNoRoom(t *testing.T) {
	bus := privatebus.ForTest(t)
	f := newFake()
	f.serve(t, bus)
	d := drive(t, bus)
	ctx := context.Background()
	long := make256()
	copy(long[254:], "ä") // the 255 bytes that there is room for end within a character
	for size, want := range map[uint64]int64{0: 0, math.MaxUint32: math.MaxUint32, 1 << 32: math.MaxUint32, 1 << 40: math.MaxUint32} {
		f.set(func(f *fake) { f.size, f.reason = size, string(long) })
		i, err := d.Query(ctx, 0)
		if err != nil || i.MaxSize != want {
			t.Errorf("size %d: %d, %v", size, i.MaxSize, err)
		}
		if i.State != fwu.Failed || i.Error != -7 || i.Version != (fwu.Version{Major: 1, Minor: 2, Patch: 3, Build: 4}) || i.Flags != 3 || i.Location != 1 {
			t.Errorf("%+v", i)
		}
		if i.Impl.Sequence != math.MaxInt64 || i.Impl.ActiveSlot != "" || i.Impl.Reason != "cancelled" || i.Impl.Text != string(long[:254]) {
			t.Errorf("%+v", i.Impl)
		}
	}
	for answer, want := range map[int32]fwu.Status{0: 0, 1: fwu.SuccessReboot, 2: fwu.SuccessRestart, -137: fwu.CommunicationFailure} {
		f.set(func(f *fake) { f.installed = answer })
		if got, err := d.Install(ctx); got != want {
			t.Errorf("install answered %d: %v, %v", answer, got, err)
		}
	}
}

// TestSecondThatHasNoRoom: texts are cut, digests are whole or not there, and of the components
// that stand in the way there are as many as fit.
func TestSecondThatHasNoRoom(t *testing.T) {
	bus := privatebus.ForTest(t)
	f := newFake()
	f.serve(t, bus)
	d := drive(t, bus)
	ids := make([]byte, 20)
	var first []fwu.ID
	for i := range ids {
		ids[i] = byte(255 - i)
		if i < 15 {
			first = append(first, fwu.ID(ids[i]))
		}
	}
	long := string(make256())
	f.set(func(f *fake) {
		f.second = map[string]godbus.Variant{
			"version": godbus.MakeVariant(fwu.Version{Major: 9, Minor: 8, Patch: 7, Build: 6}), "digest": godbus.MakeVariant("sha256:aa"), "manifest": godbus.MakeVariant(long),
			"sequence": godbus.MakeVariant(uint64(5)), "signer": godbus.MakeVariant(long), "by": godbus.MakeVariant("a.service"), "by_pid": godbus.MakeVariant(uint64(4)),
			"by_since": godbus.MakeVariant(uint64(3)), "blocked": godbus.MakeVariant(long), "blocked_by": godbus.MakeVariant(ids),
			"later": godbus.MakeVariant(map[string]godbus.Variant{"x": godbus.MakeVariant("y")}),
		}
	})
	i, err := d.Query(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := fwu.Second{Version: fwu.Version{Major: 9, Minor: 8, Patch: 7, Build: 6}, Digest: "sha256:aa", Sequence: 5, Signer: long[:255],
		By: fwu.Client{Name: "a.service", Since: 3}, Blocked: long[:255], BlockedBy: first}
	if diff := cmp.Diff(want, i.Impl.Second); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestServiceThatComesBack: it is not noticed, unless it no longer fits.
func TestServiceThatComesBack(t *testing.T) {
	bus := privatebus.ForTest(t)
	d := drive(t, bus)
	ctx := context.Background()
	for _, c := range []struct {
		situation          string
		alignment, largest uint32
		want               fwu.Status
	}{
		{"as it was made for", 4096, 1 << 20, fwu.Success},
		{"larger alignment", 8192, 1 << 20, fwu.NotSupported},
		{"smaller blocks", 4096, 1<<20 - 4096, fwu.NotSupported},
		{"finer alignment, larger blocks", 512, 1 << 21, fwu.Success},
		{"alignment is no power of two", 4095, 1 << 20, fwu.NotSupported},
		{"alignment is not told", 0, 1 << 20, fwu.NotSupported},
		{"as it was made for, again", 4096, 1 << 20, fwu.Success},
	} {
		if err := d.Cancel(ctx, 0); fwu.StatusOf(err) != fwu.CommunicationFailure {
			t.Errorf("before %s: %v, want no service", c.situation, err)
		}
		f := newFake()
		f.alignment, f.largest = c.alignment, c.largest
		stop := f.serve(t, bus)
		if err := d.Cancel(ctx, 0); fwu.StatusOf(err) != c.want {
			t.Errorf("%s: %v, want %v", c.situation, err, c.want)
		}
		stop()
		if c.want == fwu.Success { // another, without a call in between
			stop = newFake().serve(t, bus)
			if err := d.Cancel(ctx, 0); err != nil {
				t.Errorf("after %s: %v", c.situation, err)
			}
			stop()
		}
	}
}

func TestServiceThatGoesAwayDuringACall(t *testing.T) {
	bus := privatebus.ForTest(t)
	d := drive(t, bus)
	f := newFake()
	f.wait = time.Hour
	stop := f.serve(t, bus)
	time.AfterFunc(500*time.Millisecond, stop)
	if err := d.Finish(context.Background(), 0); fwu.StatusOf(err) != fwu.CommunicationFailure {
		t.Error(err)
	}
}

func TestBusThatComesBack(t *testing.T) {
	capi.Need(t, "dbus-daemon")
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := drive(t, "unix:path="+dir+"/bus")
	ctx := context.Background()
	for range 2 {
		if err := d.Cancel(ctx, 0); fwu.StatusOf(err) != fwu.CommunicationFailure {
			t.Errorf("no bus: %v", err)
		}
		address, stop, err := privatebus.Start(ctx, dir)
		if err != nil {
			t.Fatal(err)
		}
		end := newFake().serve(t, address)
		if err := d.Cancel(ctx, 0); err != nil {
			t.Errorf("bus: %v", err)
		}
		end()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(dir + "/bus")
	}
}

// TestLongCallsHaveNoTimeOut: not even one that is set for all of sd-bus.
func TestLongCallsHaveNoTimeOut(t *testing.T) {
	bus := privatebus.ForTest(t)
	t.Setenv("SYSTEMD_BUS_TIMEOUT", "1s")
	f := newFake()
	f.wait = 3 * time.Second
	f.serve(t, bus)
	if err := drive(t, bus).Finish(context.Background(), 0); err != nil {
		t.Error(err)
	}
}
