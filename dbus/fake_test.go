package dbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"go.uber.org/goleak"

	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/fwu"
)

func TestMain(m *testing.M) {
	if address := os.Getenv(muteVariable); address != "" {
		if err := muteMain(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// fake is a Firmware in memory: it records calls, does what a test tells it to, and has locks as the real one.
type fake struct {
	changed func(fwu.ID)

	mu     sync.Mutex
	infos  map[fwu.ID]fwu.Info
	images map[fwu.ID][]byte
	system fwu.SystemInfo
	calls  []string
	fail   error
	block  chan struct{} // Finish, Install and Clean wait for it
	begun  chan string   // told when they wait
	abort  map[fwu.ID]context.CancelCauseFunc
}

var errCancelled = &fwu.Error{Status: fwu.BadState, Reason: fwu.ReasonCancelled, Text: "cancelled"}

func newFake() *fake {
	return &fake{
		changed: func(fwu.ID) {},
		infos:   map[fwu.ID]fwu.Info{0: {MaxSize: 1 << 33, Version: fwu.Version{Major: 1, Minor: 2, Patch: 3, Build: 4}}, 7: {MaxSize: 1 << 20, Flags: 1, Location: 1}},
		images:  map[fwu.ID][]byte{},
		system:  fwu.SystemInfo{Selector: "uboot", Booted: "a", Default: "a"},
		begun:   make(chan string, 100),
		abort:   map[fwu.ID]context.CancelCauseFunc{},
	}
}

func (f *fake) Components() []fwu.ComponentInfo {
	return []fwu.ComponentInfo{{ID: 0, Name: "rootfs", Manifest: fwu.Detached}, {ID: 7, Name: "app", Manifest: fwu.None, Live: true}}
}

func (f *fake) System() fwu.SystemInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.system
}

func (f *fake) Query(_ context.Context, id fwu.ID) (fwu.Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.infos[id], nil
}

// set changes a component and says so.
func (f *fake) set(id fwu.ID, change func(*fwu.Info)) {
	f.mu.Lock()
	i := f.infos[id]
	change(&i)
	f.infos[id] = i
	f.mu.Unlock()
	f.changed(id)
}

func (f *fake) record(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.fail
}

func (f *fake) recorded() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.calls...)
}

// forget gives up what was written.
func (f *fake) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images, f.calls = map[fwu.ID][]byte{}, nil
}

// hold makes Finish, Install and Clean wait until the returned function is called.
func (f *fake) hold() (release func()) {
	block := make(chan struct{})
	f.mu.Lock()
	f.block = block
	f.mu.Unlock()
	return func() { close(block) }
}

func (f *fake) wait(what string) {
	f.mu.Lock()
	block := f.block
	f.mu.Unlock()
	if block != nil {
		f.begun <- what
		<-block
	}
}

func (f *fake) Check(_ context.Context, id fwu.ID, manifest []byte) error {
	return f.record("check %d %q", id, manifest)
}

func (f *fake) Start(_ context.Context, id fwu.ID, manifest []byte) error {
	if err := f.record("start %d %q", id, manifest); err != nil {
		return err
	}
	f.set(id, func(i *fwu.Info) { i.State = fwu.Writing })
	return nil
}

func (f *fake) Write(_ context.Context, id fwu.ID, off int64, block []byte) error {
	if err := f.record("write %d %d %d", id, off, len(block)); err != nil {
		return err
	}
	f.mu.Lock()
	f.images[id] = append(f.images[id][:off], block...)
	f.mu.Unlock()
	f.set(id, func(i *fwu.Info) { i.Impl.Written = off + int64(len(block)) })
	return nil
}

func (f *fake) WriteFrom(ctx context.Context, id fwu.ID, off int64, r io.Reader, length int64) (int64, error) {
	if err := f.record("write-from %d %d %d", id, off, length); err != nil {
		return 0, err
	}
	ctx, abort := context.WithCancelCause(ctx)
	defer abort(nil)
	f.mu.Lock()
	f.abort[id] = abort
	f.mu.Unlock()
	if d, ok := r.(interface{ SetReadDeadline(time.Time) error }); ok {
		stop := context.AfterFunc(ctx, func() { _ = d.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
	}
	f.set(id, func(i *fwu.Info) { i.Impl.Operation = fwu.OpWrite; i.Impl.Done = 0; i.Impl.Total = length })
	defer f.set(id, func(i *fwu.Info) { i.Impl.Operation = ""; i.Impl.Done = 0; i.Impl.Total = 0 })
	if length > 0 {
		r = io.LimitReader(r, length)
	}
	f.begun <- fwu.OpWrite
	var n int64
	for buf := make([]byte, 32<<10); ; {
		k, err := r.Read(buf)
		n += int64(k)
		f.mu.Lock()
		f.images[id] = append(f.images[id], buf[:k]...)
		f.mu.Unlock()
		f.set(id, func(i *fwu.Info) { i.Impl.Done = n; i.Impl.Written = off + n })
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return n, context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, &fwu.Error{Status: fwu.CommunicationFailure, Text: "read the image", Err: err}
		}
	}
}

func (f *fake) Finish(_ context.Context, id fwu.ID) error {
	if err := f.record("finish %d", id); err != nil {
		return err
	}
	f.wait(fwu.OpFinish)
	f.set(id, func(i *fwu.Info) { i.State = fwu.Candidate })
	return nil
}

func (f *fake) Cancel(_ context.Context, id fwu.ID) error {
	if err := f.record("cancel %d", id); err != nil {
		return err
	}
	f.mu.Lock()
	abort := f.abort[id]
	f.mu.Unlock()
	if abort != nil {
		abort(errCancelled)
	}
	f.set(id, func(i *fwu.Info) { i.State = fwu.Failed })
	return nil
}

func (f *fake) Clean(_ context.Context, id fwu.ID) error {
	if err := f.record("clean %d", id); err != nil {
		return err
	}
	f.wait(fwu.OpClean)
	f.set(id, func(i *fwu.Info) { i.State = fwu.Ready })
	return nil
}

func (f *fake) Install(context.Context) (fwu.Status, error) {
	if err := f.record("install"); err != nil {
		return fwu.StatusOf(err), err
	}
	f.wait(fwu.OpInstall)
	f.mu.Lock()
	f.system.Trial = fwu.BankB
	f.mu.Unlock()
	f.set(0, func(i *fwu.Info) { i.State = fwu.Staged })
	return fwu.SuccessReboot, nil
}

func (f *fake) Accept(context.Context) error { return f.record("accept") }

func (f *fake) Reject(_ context.Context, why fwu.Rejection) (fwu.Status, error) {
	if why == (fwu.Rejection{Error: why.Error}) {
		return fwu.SuccessReboot, f.record("reject %d", int32(why.Error))
	}
	return fwu.SuccessReboot, f.record("reject %d %s %q", int32(why.Error), why.Reason, why.Text)
}

func (f *fake) RequestReboot(context.Context) error { return f.record("reboot") }

func (f *fake) Repair(_ context.Context, what fwu.Repair) error { return f.record("repair %s", what) }

// service is a fake that is served on a bus of its own.
type service struct {
	*fake
	server  *Server
	address string
	stop    context.CancelFunc
	ready   chan struct{}
	ended   chan error
}

func serve(t *testing.T, o Options) *service {
	t.Helper()
	return serveAt(t, privatebus.ForTest(t), o)
}

func serveAt(t *testing.T, address string, o Options) *service {
	t.Helper()
	s := prepare(t, address, o)
	s.begin(t)
	return s
}

// prepare makes a service that does not serve yet.
func prepare(t *testing.T, address string, o Options) *service {
	t.Helper()
	s := &service{fake: newFake(), address: address, ready: make(chan struct{}), ended: make(chan error, 1)}
	o.Ready = func() { close(s.ready) }
	if o.Version == "" {
		o.Version = "1.2.3"
	}
	s.server = New(o)
	s.changed = s.server.Changed
	return s
}

func (s *service) begin(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.ended <- s.server.Serve(ctx, s.address, s.fake) }()
	select {
	case <-s.ready:
	case err := <-s.ended:
		t.Fatalf("serve: %v", err)
	}
	t.Cleanup(func() {
		stop()
		select {
		case <-s.ended:
		case <-time.After(hang):
			t.Error("service does not end")
		}
	})
}

// wait returns what Serve returned.
func (s *service) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.ended:
		s.ended <- err
		return err
	case <-time.After(hang):
		t.Fatal("service does not end")
		return nil
	}
}

func (s *service) began(t *testing.T) string {
	t.Helper()
	select {
	case what := <-s.begun:
		return what
	case <-time.After(hang):
		t.Fatal("no operation began")
		return ""
	}
}

func (s *service) client(t *testing.T) *Client {
	t.Helper()
	c, err := Dial(t.Context(), s.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// raw is a connection that can send anything.
func (s *service) raw(t *testing.T) *godbus.Conn {
	t.Helper()
	c, err := godbus.Connect(s.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// hang is how long a test waits for something that must happen. Only a failure takes so long.
const hang = 2 * time.Minute

// eventually waits for a condition that another goroutine or process makes true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	eventuallyIn(t, hang, what, ok)
}

func eventuallyIn(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// options are none.
func options() map[string]godbus.Variant { return map[string]godbus.Variant{} }
