package systemd

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// listen takes the place of the service manager.
func listen(t *testing.T) *net.UnixConn {
	t.Helper()
	address := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	conn, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", address.Name)
	return conn
}

func receive(t *testing.T, conn *net.UnixConn, within time.Duration) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func TestNotify(t *testing.T) {
	conn := listen(t)
	tests := []struct {
		name string
		send func() error
		want string
	}{
		{"ready", func() error { return Ready("bank a, nothing to do") }, "READY=1\nSTATUS=bank a, nothing to do"},
		{"status", func() error { return Status("writing rootfs: 10 %") }, "STATUS=writing rootfs: 10 %"},
		{"stopping", func() error { return Stopping("idle") }, "STOPPING=1\nSTATUS=idle"},
		{"a status of two lines is no second assignment", func() error { return Status("one\nWATCHDOG=trigger") }, "STATUS=one WATCHDOG=trigger"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.send(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, receive(t, conn, 5*time.Second)); diff != "" {
				t.Error("-want +got:\n" + diff)
			}
		})
	}
}

func TestNotifyWithoutServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready("up"); err != nil {
		t.Error(err)
	}
}

func TestNotifyWhenTheSocketIsGone(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	err := Ready("up")
	if err == nil || !strings.HasPrefix(err.Error(), "notify the service manager of READY=1: ") {
		t.Errorf("got %v", err)
	}
}

func TestWatchdogTimeout(t *testing.T) {
	tests := []struct {
		name      string
		usec, pid string
		want      time.Duration
		err       string
	}{
		{name: "not watched"},
		{name: "watched", usec: "30000000", pid: "7", want: 30 * time.Second},
		{name: "watched, whoever we are", usec: "30000000", want: 30 * time.Second},
		{name: "another process is watched", usec: "30000000", pid: "8"},
		{name: "an hour does not fit an int of 32 bits", usec: "3600000000", want: time.Hour},
		{name: "no number", usec: "soon", err: `WATCHDOG_USEC="soon": not a number of microseconds`},
		{name: "zero", usec: "0", err: `WATCHDOG_USEC="0": not a number of microseconds`},
		{name: "too large", usec: "9223372036854775807", err: `WATCHDOG_USEC="9223372036854775807": not a number of microseconds`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := map[string]string{"WATCHDOG_USEC": tt.usec, "WATCHDOG_PID": tt.pid}
			got, err := WatchdogTimeout(func(key string) string { return env[key] }, 7)
			checkError(t, err, tt.err, "")
			if got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestWatchdogFollowsProgress(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	conn := listen(t)
	var alive atomic.Bool
	alive.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	w := &Watchdog{Timeout: 30 * time.Millisecond, Progress: alive.Load}
	go func() { ended <- w.Run(ctx) }()
	for range 5 {
		if got := receive(t, conn, 5*time.Second); got != "WATCHDOG=1" {
			t.Fatalf("got %q, want a sign of life", got)
		}
	}
	alive.Store(false)
	for receive(t, conn, 100*time.Millisecond) != "" { // what was under way
	}
	if got := receive(t, conn, 200*time.Millisecond); got != "" {
		t.Errorf("got %q, but there is no progress", got)
	}
	alive.Store(true)
	if got := receive(t, conn, 5*time.Second); got != "WATCHDOG=1" {
		t.Errorf("got %q, but there is progress again", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWatchdogThatNobodyWatches(t *testing.T) {
	conn := listen(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	w := &Watchdog{Progress: func() bool { return true }}
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
	if got := receive(t, conn, 10*time.Millisecond); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
}

func TestWatchdogTellsThatItIsNotHeard(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	w := &Watchdog{Timeout: 10 * time.Millisecond, Progress: func() bool { return true }}
	if err := w.Run(ctx); err == nil {
		t.Error("want an error")
	}
}
