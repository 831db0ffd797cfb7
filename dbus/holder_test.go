package dbus

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// TestCallOfACallerThatHasGoneIsNotServed: who interrupts a call that waits does not find it
// executed later.
func TestCallOfACallerThatHasGoneIsNotServed(t *testing.T) {
	s := serve(t, Options{})
	release := s.hold()
	first := s.client(t)
	done := make(chan error, 1)
	go func() { done <- first.Finish(t.Context(), 0) }()
	s.began(t)
	gone := s.raw(t)
	for _, method := range []string{"Clean", "Finish"} {
		gone.Object(Name, componentFolder+"/0").Go(ComponentInterface+"."+method, 0, nil, options())
	}
	gone.Object(Name, componentFolder+"/0").Go(ComponentInterface+".Start", 0, nil, []byte("m"), options())
	// All earlier calls have arrived when this one is answered: a connection keeps its order.
	if err := gone.Object(Name, componentFolder+"/0").Call("org.freedesktop.DBus.Peer.Ping", 0).Err; err != nil {
		t.Fatal(err)
	}
	name := gone.Names()[0]
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service knows that it has gone", func() bool {
		ss := s.server.current.Load()
		ss.mu.Lock()
		defer ss.mu.Unlock()
		return ss.peers[name] == nil
	})
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := first.Start(t.Context(), 0, nil); err != nil { // after everything that waited
		t.Fatal(err)
	}
	if got := strings.Join(s.recorded(), ", "); got != `finish 0, start 0 ""` {
		t.Errorf("served: %s", got)
	}
}

// TestQueryNamesTheOtherClient: who prepares a component is known to everybody else, as long as
// that client is there.
func TestQueryNamesTheOtherClient(t *testing.T) {
	s := serve(t, Options{})
	mine, other := s.client(t), s.client(t)
	client := func(c *Client, id fwu.ID) fwu.Client {
		t.Helper()
		i, err := c.Query(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return i.Impl.Client
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(mine.Start(t.Context(), 0, nil))
	got := client(other, 0)
	if got.PID != uint32(os.Getpid()) || got.Name == "" || got.Since == 0 || !strings.Contains(got.String(), "(pid ") {
		t.Errorf("the other sees %+v", got)
	}
	if got := client(mine, 0); got != (fwu.Client{}) {
		t.Errorf("it sees itself: %+v", got)
	}
	if got := client(other, 7); got != (fwu.Client{}) {
		t.Errorf("of another component: %+v", got)
	}
	check(other.Cancel(t.Context(), 0))
	if got := client(other, 0); got != (fwu.Client{}) {
		t.Errorf("after cancel: %+v", got)
	}
	check(mine.Start(t.Context(), 0, nil))
	check(mine.Close())
	eventually(t, "the client is forgotten", func() bool { return client(other, 0) == fwu.Client{} })
}

// TestCallThatIsNotToWait is refused at once where another one is served, and names its client.
func TestCallThatIsNotToWait(t *testing.T) {
	s := serve(t, Options{})
	release := s.hold()
	first, c := s.client(t), s.client(t)
	c.NoWait = true
	done := make(chan error, 1)
	go func() { done <- first.Finish(t.Context(), 0) }()
	s.began(t)
	file, err := os.Open(filepath.Join("..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	_, writeErr := c.WriteFrom(t.Context(), 0, 0, file, 0)
	for name, err := range map[string]error{"Clean": c.Clean(t.Context(), 0), "Start": c.Start(t.Context(), 0, nil), "Finish": c.Finish(t.Context(), 0), "WriteFile": writeErr} {
		if !errors.Is(err, fwu.BadState) || fwu.ReasonOf(err) != ReasonBusy || !strings.Contains(err.Error(), "(pid ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Start(t.Context(), 7, nil); err != nil {
		t.Errorf("of another component: %v", err)
	}
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := c.Clean(t.Context(), 0); err != nil {
		t.Errorf("when nobody is in the way: %v", err)
	}
	bad := map[string]godbus.Variant{optionWait: godbus.MakeVariant("perhaps")}
	err = s.raw(t).Object(Name, componentFolder+"/0").Call(ComponentInterface+".Clean", 0, bad).Err
	if err == nil || !strings.Contains(err.Error(), `option wait is "perhaps"`) {
		t.Error(err)
	}
}

func TestUnitOfAProcess(t *testing.T) {
	for cgroup, want := range map[string]string{
		"0::/system.slice/update-agent.service\n":                                              "update-agent.service",
		"0::/user.slice/user-1000.slice/session-3.scope\n":                                     "",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/agent.service\n":           "agent.service",
		"0::/user.slice/user-1000.slice/user@1000.service\n":                                   "",
		"12:pids:/system.slice/a.service\n1:name=systemd:/system.slice/b.service\n0::/other\n": "b.service",
		"": "", "nonsense": "",
	} {
		if got := unitOf(cgroup); got != want {
			t.Errorf("%q: %q, want %q", cgroup, got, want)
		}
	}
}
