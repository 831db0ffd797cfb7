package dbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// authority is a polkit that is told what to answer.
type authority struct {
	answer    func(action string, flags uint32) (authorized, challenge bool)
	cancelled chan string
}

type answer struct {
	Authorized, Challenge bool
	Details               map[string]string
}

func (a *authority) CheckAuthorization(who subject, action string, _ map[string]string, flags uint32, _ string) (answer, *godbus.Error) {
	if who.Kind != "system-bus-name" {
		return answer{}, godbus.MakeFailedError(errors.New("subject is a " + who.Kind))
	}
	if _, ok := who.Details["name"].Value().(string); !ok {
		return answer{}, godbus.MakeFailedError(errors.New("subject has no name"))
	}
	ok, challenge := a.answer(action, flags)
	return answer{Authorized: ok, Challenge: challenge}, nil
}

func (a *authority) CancelCheckAuthorization(question string) *godbus.Error {
	a.cancelled <- question
	return nil
}

func (s *service) authority(t *testing.T, a *authority) {
	t.Helper()
	a.cancelled = make(chan string, 10)
	bus := s.raw(t)
	if err := bus.Export(a, polkitPath, polkitAuthority); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.RequestName(polkitName, godbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
}

// as makes the service take a client for another user's.
func (s *service) as(t *testing.T, c *Client, uid uint32) string {
	t.Helper()
	if _, err := c.Query(t.Context(), 0); err != nil { // the service knows it now
		t.Fatal(err)
	}
	name := c.conn.Names()[0]
	ss := s.server.current.Load()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	p := ss.peers[name]
	p.account.peers--
	p.account = ss.accounts.of(uid, time.Now())
	p.account.peers++
	return name
}

const foreigner = 4711

func TestWhoMayDoWhat(t *testing.T) {
	yes := &authority{answer: func(action string, _ uint32) (bool, bool) { return action == Name+".install", false }}
	password := &authority{answer: func(_ string, flags uint32) (bool, bool) { return flags == polkitAllowsPrompt, flags == 0 }}
	tests := []struct {
		name   string
		uid    uint32
		action string
		polkit *authority
		prompt bool
		why    string // empty: may
	}{
		{"root", 0, ActionInstall, nil, false, ""},
		{"the user of the service", uint32(os.Geteuid()), ActionInstall, nil, false, ""},
		{"another user, without polkit", foreigner, ActionInstall, nil, false, "org.freedesktop.PolicyKit1"},
		{"another user who queries", foreigner, ActionQuery, nil, false, ""},
		{"another user who is allowed", foreigner, ActionInstall, yes, false, ""},
		{"another user who is not", foreigner, ActionAccept, yes, true, "does not authorise org.fwuab.FirmwareUpdate1.accept"},
		{"another user, and nobody can be asked", foreigner, ActionAccept, password, false, "does not allow for interaction"},
		{"another user who knows a password", foreigner, ActionAccept, password, true, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, Options{})
			if test.polkit != nil {
				s.authority(t, test.polkit)
			}
			name := s.as(t, s.client(t), test.uid)
			err := s.server.ByRule(t.Context(), Caller{name, test.uid, test.prompt}, test.action)
			if test.why == "" && err != nil || test.why != "" && (err == nil || !strings.Contains(err.Error(), test.why)) {
				t.Errorf("got %v, want %q", err, test.why)
			}
		})
	}
}

// sendAccept calls with flags of which the library's own objects would drop some.
func sendAccept(c *Client, flags godbus.Flags) *godbus.Call {
	return c.conn.Send(&godbus.Message{Type: godbus.TypeMethodCall, Flags: flags, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldPath:        godbus.MakeVariant(godbus.ObjectPath(Path)),
		godbus.FieldDestination: godbus.MakeVariant(Name),
		godbus.FieldInterface:   godbus.MakeVariant(ManagerInterface),
		godbus.FieldMember:      godbus.MakeVariant("Accept"),
		godbus.FieldSignature:   godbus.MakeVariant(godbus.ParseSignatureMust("a{sv}")),
	}, Body: []any{options()}}, make(chan *godbus.Call, 1))
}

func TestInteractionOnlyWhereTheCallAllowsIt(t *testing.T) {
	flags := make(chan uint32, 10)
	s := serve(t, Options{})
	s.authority(t, &authority{answer: func(_ string, f uint32) (bool, bool) { flags <- f; return true, false }})
	c := s.client(t)
	s.as(t, c, foreigner)
	for sent, want := range map[godbus.Flags]uint32{0: 0, godbus.FlagAllowInteractiveAuthorization: polkitAllowsPrompt} {
		if call := <-sendAccept(c, sent).Done; call.Err != nil {
			t.Error(call.Err)
		}
		if got := <-flags; got != want {
			t.Errorf("call with flags %#x: polkit was asked with %d, want %d", sent, got, want)
		}
	}
}

// A person who does not answer must hold up neither the end of the service nor leave a question on a screen that is of no use.
func TestQuestionEndsWithTheServiceAndWithTheCaller(t *testing.T) {
	for name, end := range map[string]func(*service, *Client){
		"the service": func(s *service, _ *Client) { s.stop() },
		"the caller":  func(_ *service, c *Client) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			asked, hold := make(chan struct{}, 1), make(chan struct{})
			defer close(hold)
			s := serve(t, Options{})
			a := &authority{answer: func(string, uint32) (bool, bool) { asked <- struct{}{}; <-hold; return true, false }}
			s.authority(t, a)
			c := s.client(t)
			s.as(t, c, foreigner)
			call := sendAccept(c, godbus.FlagAllowInteractiveAuthorization)
			<-asked
			end(s, c)
			<-a.cancelled
			<-call.Done
			if all := s.recorded(); len(all) > 0 {
				t.Errorf("the service did %v", all)
			}
			if name == "the service" {
				if errorName(call.Err) != busErrorPrefix+"ServiceUnknown" {
					t.Errorf("the caller was told %v", call.Err)
				}
				if err := s.wait(t); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestCallerWhoHasGoneMayNothing(t *testing.T) {
	s := serve(t, Options{})
	c := s.client(t)
	ss := s.server.current.Load()
	name := c.conn.Names()[0]
	s.as(t, c, foreigner)
	if err := c.Accept(t.Context()); !errors.Is(err, fwu.NotPermitted) {
		t.Errorf("another user accepts: %v", err)
	}
	_ = c.Close()
	eventually(t, "the caller is forgotten", func() bool { ss.mu.Lock(); defer ss.mu.Unlock(); return len(ss.peers) == 0 })
	if err := s.server.ByRule(context.Background(), Caller{Name: name, User: foreigner}, ActionInstall); err == nil {
		t.Error("a caller who has gone may install")
	}
}

// A denied call is told of, but a user who calls again and again is told of once.
func TestDenialsAreTold(t *testing.T) {
	told := make(chan Denial, 100)
	s := serve(t, Options{Denied: func(d Denial) { told <- d }})
	c, other := s.client(t), s.client(t)
	s.as(t, c, foreigner)
	for range 10 {
		if err := c.Accept(t.Context()); fwu.ReasonOf(err) != ReasonDenied {
			t.Fatalf("another user: %v", err)
		}
	}
	s.as(t, other, foreigner+1)
	_, _ = other.Install(t.Context())
	var got []string
	for len(got) < 2 || len(told) > 0 {
		select {
		case d := <-told:
			if d.Err == nil {
				t.Errorf("%v has no reason", d)
			}
			got = append(got, fmt.Sprint(d.User, " ", d.Method))
		case <-time.After(2 * time.Minute):
			t.Fatalf("told %v, and no more", got)
		}
	}
	if diff := cmp.Diff([]string{"4711 Accept", "4712 Install"}, got); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
}
