package systemd

import (
	"context"
	"errors"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

const ourJob = godbus.ObjectPath("/org/freedesktop/systemd1/job/42")

// removed is the signal for a job that is gone.
func removed(t *testing.T, conn *godbus.Conn, job godbus.ObjectPath, result string) {
	t.Helper()
	if err := conn.Emit(managerPath, manager+"JobRemoved", uint32(42), job, "radio.service", result); err != nil {
		t.Error(err)
	}
}

func TestRestart(t *testing.T) {
	noSuchUnit := godbus.NewError("org.freedesktop.systemd1.NoSuchUnit", []any{"Unit radio.service not found."})
	tests := []struct {
		name      string
		answer    *godbus.Error
		subscribe *godbus.Error
		before    []string // results signalled before the answer names the job
		after     []string
		others    int // jobs of others that end meanwhile
		err       string
	}{
		{name: "done", after: []string{"done"}},
		{name: "gone before the answer", before: []string{"done"}},
		{name: "gone before the answer, and it failed", before: []string{"failed"},
			err: `restart radio.service: job of radio.service ended with "failed"`},
		{name: "failed", after: []string{"failed"}, err: `restart radio.service: job of radio.service ended with "failed"`},
		{name: "timeout", after: []string{"timeout"}, err: `restart radio.service: job of radio.service ended with "timeout"`},
		{name: "cancelled by another job", after: []string{"canceled"}, err: `restart radio.service: job of radio.service ended with "canceled"`},
		{name: "many other jobs end before", others: 100, after: []string{"done"}},
		{name: "no such unit", answer: noSuchUnit, err: "restart radio.service: Unit radio.service not found."},
		{name: "somebody on this connection subscribed already", after: []string{"done"},
			subscribe: godbus.NewError("org.freedesktop.systemd1.AlreadySubscribed", []any{"Client is already subscribed."})},
		{name: "subscription denied", subscribe: godbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"Access denied"}),
			err: "restart radio.service: subscribe to jobs: Access denied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address := startBus(t)
			conn := connect(t, address)
			serve(t, conn, managerName, managerPath, "org.freedesktop.systemd1.Manager", map[string]any{
				"Subscribe": func() *godbus.Error { return tt.subscribe },
				"RestartUnit": func(unit, mode string) (godbus.ObjectPath, *godbus.Error) {
					if unit != "radio.service" || mode != "replace" {
						t.Errorf("RestartUnit(%q, %q)", unit, mode)
					}
					for range tt.others {
						removed(t, conn, "/org/freedesktop/systemd1/job/7", "failed")
					}
					for _, r := range tt.before {
						removed(t, conn, ourJob, r)
					}
					for _, r := range tt.after {
						time.AfterFunc(20*time.Millisecond, func() { removed(t, conn, ourJob, r) })
					}
					return ourJob, tt.answer
				},
			})
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			checkError(t, Host{Bus: connect(t, address)}.Restart(ctx, "radio.service"), tt.err, "")
		})
	}
}

// restarting returns a host whose systemd answers RestartUnit, calls meanwhile, and sends no signal.
func restarting(t *testing.T, meanwhile func(systemd, host *godbus.Conn, address string)) Host {
	t.Helper()
	address := startBus(t)
	systemd, host := connect(t, address), connect(t, address)
	serve(t, systemd, managerName, managerPath, "org.freedesktop.systemd1.Manager", map[string]any{
		"Subscribe": func() *godbus.Error { return nil },
		"RestartUnit": func(string, string) (godbus.ObjectPath, *godbus.Error) {
			time.AfterFunc(20*time.Millisecond, func() { meanwhile(systemd, host, address) })
			return ourJob, nil
		},
	})
	return Host{Bus: host}
}

func TestRestartBelievesNobodyButSystemd(t *testing.T) {
	h := restarting(t, func(systemd, host *godbus.Conn, address string) {
		forge(t, connect(t, address), host.Names()[0])
		removed(t, systemd, ourJob, "failed")
	})
	checkError(t, h.Restart(t.Context(), "radio.service"), `restart radio.service: job of radio.service ended with "failed"`, "")
}

// forge sends the signal of a job that is done to one receiver.
func forge(t *testing.T, conn *godbus.Conn, to string) {
	body := []any{uint32(42), ourJob, "radio.service", "done"}
	msg := &godbus.Message{Type: godbus.TypeSignal, Body: body, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldDestination: godbus.MakeVariant(to),
		godbus.FieldPath:        godbus.MakeVariant(godbus.ObjectPath(managerPath)),
		godbus.FieldInterface:   godbus.MakeVariant("org.freedesktop.systemd1.Manager"),
		godbus.FieldMember:      godbus.MakeVariant("JobRemoved"),
		godbus.FieldSignature:   godbus.MakeVariant(godbus.SignatureOf(body...)),
	}}
	if err := conn.Send(msg, make(chan *godbus.Call, 1)).Err; err != nil {
		t.Error(err)
	}
	// A call after it: when that is answered, the bus has passed the signal on.
	if err := conn.BusObject().Call("org.freedesktop.DBus.GetId", 0).Err; err != nil {
		t.Error(err)
	}
}

func TestRestartEndsWithItsContext(t *testing.T) {
	h := restarting(t, func(*godbus.Conn, *godbus.Conn, string) {})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := h.Restart(ctx, "radio.service"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("want the deadline, got %v", err)
	}
}

func TestRestartEndsWithTheConnection(t *testing.T) {
	h := restarting(t, func(_, host *godbus.Conn, _ string) { _ = host.Close() })
	if err := h.Restart(t.Context(), "radio.service"); !errors.Is(err, godbus.ErrClosed) {
		t.Errorf("want a closed connection, got %v", err)
	}
}
