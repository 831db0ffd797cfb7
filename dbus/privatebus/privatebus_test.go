package privatebus

import (
	"context"
	"os"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBus(t *testing.T) {
	c, err := godbus.Connect(ForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if r, err := c.RequestName("any.name", godbus.NameFlagDoNotQueue); r != godbus.RequestNameReplyPrimaryOwner || err != nil {
		t.Errorf("request a name: %v, %v", r, err)
	}
}

func TestStopEndsTheBus(t *testing.T) {
	ForTest(t) // skips where there is none
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	address, stop, err := Start(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if c, err := godbus.Connect(address); err == nil {
		_ = c.Close()
		t.Error("the bus goes on")
	}
}

func TestStartFails(t *testing.T) {
	ForTest(t)
	for name, dir := range map[string]string{
		"folder with a long name":  "/tmp/" + strings.Repeat("x", 110),
		"folder that is not there": "/nonexistent",
	} {
		if _, _, err := Start(t.Context(), dir); err == nil {
			t.Errorf("%s: started", name)
		}
	}
}
