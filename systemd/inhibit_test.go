package systemd

import (
	"io"
	"os"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// The inhibition lasts as long as the descriptor that logind gave is open.
func TestInhibit(t *testing.T) {
	address := startBus(t)
	l := &logind{}
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	fd := godbus.UnixFD(theirs.Fd())
	serve(t, connect(t, address), logindName, logindPath, "org.freedesktop.login1.Manager", map[string]any{
		"Inhibit": func(what, who, why, mode string) (godbus.UnixFD, *godbus.Error) {
			l.called("Inhibit(%s, %s, %s, %s)", what, who, why, mode)
			return fd, nil
		},
	})
	release, err := (Host{Bus: connect(t, address)}).Inhibit(t.Context(), "a test")
	if err != nil {
		t.Fatal(err)
	}
	if got := l.seen(); len(got) != 1 || got[0] != "Inhibit(shutdown:sleep, fwu-ab, a test, block)" {
		t.Errorf("%q", got)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ours.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("released already: %v", err)
	}
	release()
	if err := ours.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // exactly this
		t.Errorf("not released: %v", err)
	}
}

func TestInhibitWithoutLogind(t *testing.T) {
	if _, err := (Host{Bus: connect(t, startBus(t))}).Inhibit(t.Context(), "a test"); err == nil {
		t.Error("inhibited by nobody")
	}
}
