package dbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/fwu"
)

func TestCallsOfAComponentKeepTheirOrder(t *testing.T) {
	s := serve(t, Options{})
	c := s.raw(t)
	done := make(chan *godbus.Call, 1000)
	var want []string
	for i := range 100 {
		c.Object(Name, componentFolder+"/0").Go(ComponentInterface+".Start", 0, done, []byte(fmt.Sprint(i)), options())
		want = append(want, fmt.Sprintf("start 0 %q", fmt.Sprint(i)))
	}
	for range 100 {
		if call := <-done; call.Err != nil {
			t.Fatal(call.Err)
		}
	}
	if diff := cmp.Diff(want, s.recorded()); diff != "" {
		t.Errorf("(-sent +served):\n%s", diff)
	}
}

func TestCallsOfTheManagerKeepTheirOrder(t *testing.T) {
	s := serve(t, Options{})
	c := s.raw(t)
	done := make(chan *godbus.Call, 1000)
	var want []string
	for i := range 100 {
		c.Object(Name, Path).Go(ManagerInterface+".Reject", 0, done, int32(i), options())
		want = append(want, fmt.Sprintf("reject %d", i))
	}
	for range 100 {
		if call := <-done; call.Err != nil {
			t.Fatal(call.Err)
		}
	}
	if diff := cmp.Diff(want, s.recorded()); diff != "" {
		t.Errorf("(-sent +served):\n%s", diff)
	}
}

func TestWhoWaitsForWhom(t *testing.T) {
	s := serve(t, Options{})
	c := s.client(t)
	release := s.hold()
	other := s.client(t)
	results := make(chan error, 10)
	go func() { results <- c.Finish(t.Context(), 0) }()
	s.began(t)
	go func() { results <- other.Start(t.Context(), 0, nil) }()
	if _, err := other.Query(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if err := other.Start(t.Context(), 7, nil); err != nil {
		t.Error(err)
	}
	if err := other.Accept(t.Context()); err != nil {
		t.Error(err)
	}
	if err := other.Cancel(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if calls := s.recorded(); slices.Contains(calls, `start 0 ""`) || !s.server.Busy() {
		t.Errorf("start did not wait for finish: %v", calls)
	}
	release()
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "idle", func() bool { return !s.server.Busy() })
}

func TestCallerVanishes(t *testing.T) {
	s := serve(t, Options{})
	watch := s.client(t)
	events, err := watch.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release := s.hold()
	gone := s.raw(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	// One transfer that runs, one that waits behind it and never begins, and an operation of the
	// same caller that is nobody's business but the device's.
	done := make(chan *godbus.Call, 10)
	file := godbus.UnixFD(r.Fd())
	gone.Object(Name, componentFolder+"/0").Go(ComponentInterface+".WriteFile", 0, done, uint64(0), file, uint64(0), options())
	gone.Object(Name, componentFolder+"/0").Go(ComponentInterface+".WriteFile", 0, done, uint64(4096), file, uint64(0), options())
	gone.Object(Name, componentFolder+"/7").Go(ComponentInterface+".Finish", 0, done, options())
	began := []string{s.began(t), s.began(t)}
	slices.Sort(began)
	if diff := cmp.Diff([]string{fwu.OpFinish, fwu.OpWrite}, began); diff != "" {
		t.Fatal(diff)
	}
	// Somebody else cannot pretend that it vanished.
	fake := s.raw(t)
	for _, name := range []string{gone.Names()[0], watch.conn.Names()[0]} {
		m := &godbus.Message{Type: godbus.TypeSignal, Headers: map[godbus.HeaderField]godbus.Variant{
			godbus.FieldPath: godbus.MakeVariant(godbus.ObjectPath("/org/freedesktop/DBus")), godbus.FieldInterface: godbus.MakeVariant(busName),
			godbus.FieldMember: godbus.MakeVariant("NameOwnerChanged"), godbus.FieldDestination: godbus.MakeVariant(Name),
			godbus.FieldSignature: godbus.MakeVariant(godbus.ParseSignatureMust("sss")),
		}, Body: []any{name, name, ""}}
		fake.Send(m, nil)
	}
	if err := fake.Object(Name, Path).Call("org.freedesktop.DBus.Peer.Ping", 0).Err; err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if info, _ := s.Query(t.Context(), 0); info.Impl.Operation != fwu.OpWrite {
		t.Fatal("a signal of somebody else ended the transfer")
	}
	_ = gone.Close()
	for e := range events {
		if e.Finished == fwu.OpWrite && e.Component == 0 && e.Status == fwu.GenericError && strings.Contains(e.Text, errVanished.Error()) {
			break
		} else if e.Finished != "" {
			t.Fatalf("event %+v", e)
		}
	}
	if info, _ := s.Query(t.Context(), 7); info.State != fwu.Ready || !s.server.Busy() {
		t.Errorf("finish did not go on: %+v", info)
	}
	if calls := s.recorded(); len(calls) != 2 {
		t.Errorf("the transfer that waited was begun: %v", calls)
	}
	release()
	for e := range events {
		if e.Finished != "" {
			if e.Finished != fwu.OpFinish || e.Component != 7 || e.Status != fwu.Success || e.Info.State != fwu.Candidate {
				t.Errorf("event %+v", e)
			}
			break
		}
	}
}

func TestOperationFinished(t *testing.T) {
	s := serve(t, Options{})
	c := s.client(t)
	events, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	next := func() (e Event) {
		for e = range events {
			if e.Finished != "" {
				break
			}
		}
		e.Info = fwu.Info{}
		return e
	}
	ctx := t.Context()
	for _, id := range []fwu.ID{0, 7} {
		if err := c.Finish(ctx, id); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Event{Component: id, Finished: fwu.OpFinish}, next()); diff != "" {
			t.Error(diff)
		}
	}
	if err := c.Clean(ctx, 7); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Event{Component: 7, Finished: fwu.OpClean}, next()); diff != "" {
		t.Error(diff)
	}
	if _, err := c.Install(ctx); err != nil { // 0 is a candidate, 7 is not
		t.Fatal(err)
	}
	if diff := cmp.Diff(Event{Component: 0, Finished: fwu.OpInstall, Status: fwu.SuccessReboot}, next()); diff != "" {
		t.Error(diff)
	}
	s.mu.Lock()
	s.fail = &fwu.Error{Status: fwu.StorageFailure, Reason: fwu.ReasonMedium, Text: "worn out"}
	s.mu.Unlock()
	if err := c.Clean(ctx, 0); !errors.Is(err, fwu.StorageFailure) {
		t.Errorf("clean: %v", err)
	}
	if diff := cmp.Diff(Event{Component: 0, Finished: fwu.OpClean, Status: fwu.StorageFailure, Reason: fwu.ReasonMedium, Text: "worn out"}, next()); diff != "" {
		t.Error(diff)
	}
}

// changesSeen collects PropertiesChanged signals.
type changesSeen struct {
	mu      sync.Mutex
	signals []*godbus.Signal
	at      []time.Time
}

func (c *changesSeen) DeliverSignal(_, name string, s *godbus.Signal) {
	if name == "PropertiesChanged" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.signals = append(c.signals, s)
		c.at = append(c.at, time.Now())
	}
}

func (c *changesSeen) values(name string) (all []any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.signals {
		if v, ok := s.Body[1].(map[string]godbus.Variant)[name]; ok {
			all = append(all, v.Value())
		}
	}
	return all
}

func (s *service) changesSeen(t *testing.T) *changesSeen {
	seen := &changesSeen{}
	c, err := godbus.Connect(s.address, godbus.WithSignalHandler(seen))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.AddMatchSignal(godbus.WithMatchSender(Name)); err != nil {
		t.Fatal(err)
	}
	return seen
}

func TestProgressIsToldTenTimesASecond(t *testing.T) {
	s := serve(t, Options{})
	seen := s.changesSeen(t)
	begin := time.Now()
	last := int64(0)
	for ; time.Since(begin) < 500*time.Millisecond; time.Sleep(time.Millisecond) {
		last++
		s.set(0, func(i *fwu.Info) { i.Impl.Done = last; i.Impl.Total = 1 << 40 })
	}
	want := []any{uint64(last), uint64(1 << 40)}
	eventually(t, "the last progress is told", func() bool {
		all := seen.values("Progress")
		return len(all) > 0 && cmp.Equal(all[len(all)-1], any(want))
	})
	if n, most := len(seen.values("Progress")), int(time.Since(begin)/s.server.quiet)+1; n > most {
		t.Errorf("told %d times in %v", n, time.Since(begin))
	}
	if n := len(seen.values("State")) + len(seen.values("Name")) + len(seen.values("MaxSize")); n > 0 {
		t.Error("told what did not change")
	}
}

func TestStateIsToldAtOnce(t *testing.T) {
	s := prepare(t, privatebus.ForTest(t), Options{})
	s.server.quiet = time.Hour
	s.begin(t)
	seen := s.changesSeen(t)
	for n, state := range []fwu.State{fwu.Writing, fwu.Candidate, fwu.Staged, fwu.Trial, fwu.Updated, fwu.Ready} {
		s.set(0, func(i *fwu.Info) { i.State = state; i.Impl.Done++ })
		eventually(t, state.String(), func() bool { return len(seen.values("State")) == n+1 })
	}
	s.set(0, func(i *fwu.Info) { i.Impl.Done = 99 })
	if n := len(seen.values("Progress")); n != 6 {
		t.Errorf("progress was told %d times", n)
	}
	// The last news is told when the service ends, if not before.
	s.stop()
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
	eventually(t, "the last progress", func() bool {
		all := seen.values("Progress")
		return cmp.Equal(all[len(all)-1], any([]any{uint64(99), uint64(0)}))
	})
}

func TestSystemIsTold(t *testing.T) {
	s := serve(t, Options{})
	seen := s.changesSeen(t)
	if _, err := s.client(t).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "trial bank", func() bool { return cmp.Equal(seen.values("TrialBank"), []any{"b"}) })
	if n := len(seen.values("BootedBank")); n > 0 {
		t.Error("told what did not change")
	}
}

func TestAuthorize(t *testing.T) {
	var asked sync.Map // of action and sender
	s := serve(t, Options{Authorize: func(_ context.Context, caller Caller, action string) error {
		asked.Store(action, caller.Name)
		if action == ActionQuery {
			return nil
		}
		return errors.New("ask your administrator")
	}})
	c := s.client(t)
	ctx := t.Context()
	calls := map[string]func() error{
		ActionInstall: func() error { _, err := c.Install(ctx); return err },
		ActionAccept:  func() error { return c.Accept(ctx) },
		ActionReject:  func() error { _, err := c.Reject(ctx, fwu.Rejection{}); return err },
		ActionReboot:  func() error { return c.RequestReboot(ctx) },
		ActionRepair:  func() error { return c.Repair(ctx, fwu.RepairSlots) },
		ActionClean:   func() error { return c.Clean(ctx, 0) },
		ActionCancel:  func() error { return c.Cancel(ctx, 0) },
	}
	prepare := []func() error{
		func() error { return c.Start(ctx, 0, nil) }, func() error { return c.Write(ctx, 0, 0, nil) }, func() error { return c.Finish(ctx, 0) },
		func() error { _, err := c.WriteFrom(ctx, 0, 0, strings.NewReader("x"), 0); return err },
	}
	for _, call := range prepare {
		calls[ActionPrepare] = call
		for action, call := range calls {
			asked.Delete(action)
			err := call()
			if !errors.Is(err, fwu.NotPermitted) || !strings.Contains(err.Error(), "ask your administrator") {
				t.Errorf("%s: %v", action, err)
			}
			if sender, _ := asked.Load(action); sender != c.conn.Names()[0] {
				t.Errorf("%s: asked about %v", action, sender)
			}
		}
	}
	if all := s.recorded(); len(all) > 0 {
		t.Errorf("the service did %v", all)
	}
	_, err := c.Query(ctx, 0)
	if _, ok := asked.Load(ActionQuery); err != nil || !ok {
		t.Errorf("query: %v", err)
	}
}

func TestAuthorizeThatWaitsHoldsUpItsCallerOnly(t *testing.T) {
	var slow atomic.Value
	slow.Store("")
	asked, answer := make(chan struct{}), make(chan struct{})
	s := serve(t, Options{Authorize: func(_ context.Context, caller Caller, action string) error {
		if caller.Name == slow.Load() && action == ActionPrepare {
			asked <- struct{}{}
			<-answer
		}
		return nil
	}})
	c, other := s.client(t), s.client(t)
	slow.Store(c.conn.Names()[0])
	results := make(chan error, 1)
	go func() { results <- c.Start(t.Context(), 0, []byte("slow")) }()
	<-asked
	if err := other.Start(t.Context(), 0, []byte("quick")); err != nil {
		t.Error(err)
	}
	close(answer)
	if err := <-results; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{`start 0 "quick"`, `start 0 "slow"`}, s.recorded()); diff != "" {
		t.Error(diff)
	}
}

func TestNameIsTaken(t *testing.T) {
	s := serve(t, Options{})
	err := New(Options{}).Serve(t.Context(), s.address, newFake())
	if err == nil || !strings.Contains(err.Error(), "another process owns it") {
		t.Errorf("got %v", err)
	}
	if err := s.server.Serve(t.Context(), s.address, newFake()); err == nil {
		t.Error("one server serves twice")
	}
	if _, err := s.client(t).Query(t.Context(), 0); err != nil {
		t.Errorf("the first is disturbed: %v", err)
	}
}

func TestEndOfTheServiceWaitsForOperations(t *testing.T) {
	s := serve(t, Options{})
	c := s.client(t)
	if err := c.Finish(t.Context(), 0); err != nil { // a candidate, to hear of the install
		t.Fatal(err)
	}
	release := s.hold()
	results := make(chan error, 10)
	go func() { _, err := c.Install(t.Context()); results <- err }()
	s.began(t)
	queued := s.raw(t).Object(Name, Path).Go(ManagerInterface+".Accept", 0, make(chan *godbus.Call, 1), options())
	eventually(t, "accept is queued", func() bool {
		ss := s.server.current.Load()
		ss.mu.Lock()
		defer ss.mu.Unlock()
		return ss.pending == 2
	})
	events, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	eventually(t, "the service stops", func() bool { return s.server.current.Load().isStopping() })
	// It can still be asked, and be told nothing new; there is no second service meanwhile.
	if _, err := c.Query(t.Context(), 0); err != nil {
		t.Errorf("query: %v", err)
	}
	if err := c.Clean(t.Context(), 0); !errors.Is(err, fwu.CommunicationFailure) {
		t.Errorf("clean: %v", err)
	}
	select {
	case err := <-s.ended:
		t.Fatalf("ended while install ran: %v", err)
	default:
	}
	release()
	if err := <-results; err != nil {
		t.Errorf("install: %v", err)
	}
	if call := <-queued.Done; errorName(call.Err) != busErrorPrefix+"ServiceUnknown" {
		t.Errorf("accept, which had not begun: %v", call.Err)
	}
	for e := range events {
		if e.Finished == fwu.OpInstall {
			break
		}
	}
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"finish 0", "install"}, s.recorded()); diff != "" {
		t.Error(diff)
	}
}

func TestConnectionIsLost(t *testing.T) {
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	privatebus.ForTest(t) // skips where there is none
	address, stop, err := privatebus.Start(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	s := serveAt(t, address, Options{})
	c := s.client(t)
	release := s.hold()
	results := make(chan error, 2)
	go func() { results <- c.Finish(t.Context(), 0) }()
	s.began(t)
	r, w, _ := os.Pipe()
	defer r.Close()
	defer w.Close()
	go func() { _, err := c.WriteFrom(t.Context(), 7, 0, r, 0); results <- err }()
	s.began(t)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-results; !errors.Is(err, fwu.CommunicationFailure) {
			t.Errorf("client: %v", err)
		}
	}
	eventually(t, "the transfer ends", func() bool { i, _ := s.Query(t.Context(), 7); return i.Impl.Operation == "" })
	if !s.server.Busy() {
		t.Error("finish was given up")
	}
	release()
	if err := s.wait(t); !errors.Is(err, errLost) {
		t.Errorf("served until %v", err)
	}
}

func TestIdleServiceLeaves(t *testing.T) {
	s := serve(t, Options{Idle: 30 * time.Millisecond})
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

func TestServiceThatIsAskedToStayStays(t *testing.T) {
	stay := make(chan bool)
	s := serve(t, Options{Idle: time.Millisecond, Stay: func() bool { return <-stay }})
	stay <- true
	stay <- true
	stay <- false
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

func TestServiceDoesNotLeaveACallThatJustCame(t *testing.T) {
	ss := newSession(t.Context(), New(Options{Idle: time.Hour}), "", newFake())
	if ss.pending = 1; ss.leave() {
		t.Error("leaves while a call is pending")
	}
	if ss.pending = 0; !ss.leave() {
		t.Error("stays without a call")
	}
}

func TestBusyServiceStays(t *testing.T) {
	s := serve(t, Options{Idle: 100 * time.Millisecond})
	c := s.raw(t)
	release := s.hold()
	call := c.Object(Name, componentFolder+"/0").Go(ComponentInterface+".Finish", 0, make(chan *godbus.Call, 1), options())
	s.began(t)
	select {
	case err := <-s.ended:
		t.Fatalf("ended while finish ran: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	release()
	if err := (<-call.Done).Err; err != nil {
		t.Error(err)
	}
	if err := s.wait(t); err != nil {
		t.Error(err)
	}
}

// A service that leaves answers every call that the bus gave to it, or the bus says that there is no service.
func TestIdleServiceLosesNoCall(t *testing.T) {
	address := privatebus.ForTest(t)
	for range 10 {
		s := serveAt(t, address, Options{Idle: time.Millisecond})
		c := s.raw(t)
		served := 0
		for pause := time.Duration(0); ; pause += 20 * time.Microsecond {
			done := make(chan *godbus.Call, 3)
			for range 3 {
				c.Object(Name, componentFolder+"/0").Go(ComponentInterface+".Start", 0, done, []byte{}, options())
			}
			gone := false
			for range 3 {
				switch call := <-done; errorName(call.Err) {
				case "":
					served++
				case busErrorPrefix + "ServiceUnknown":
					gone = true
				default:
					t.Fatalf("answered %v", call.Err)
				}
			}
			if gone {
				break
			}
			time.Sleep(pause)
		}
		if err := s.wait(t); err != nil {
			t.Fatal(err)
		}
		if n := len(s.recorded()); n != served {
			t.Errorf("%d calls were served, %d were answered", n, served)
		}
	}
}
