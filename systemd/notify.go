package systemd

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready tells the service manager that the service is up (sd_notify(3), READY=1), with a status for people. Like Status and
// Stopping it does nothing where no service manager waits to be told ($NOTIFY_SOCKET is not set).
func Ready(status string) error { return notify("READY=1", "STATUS="+oneLine(status)) }

// Status tells the service manager what the service is doing, for people.
func Status(status string) error { return notify("STATUS=" + oneLine(status)) }

// Stopping tells the service manager that the service is about to end.
func Stopping(status string) error { return notify("STOPPING=1", "STATUS="+oneLine(status)) }

// oneLine keeps a status from being read as further assignments.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func notify(assignments ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(assignments, "\n")); err != nil {
		return fmt.Errorf("notify the service manager of %s: %w", assignments[0], err)
	}
	return nil
}

// Watchdog keeps the service manager's watchdog from biting, for as long as the service makes progress.
type Watchdog struct {
	// Timeout is after how long without a sign of life the service manager ends the service; 0: it does not watch.
	Timeout time.Duration
	// Progress tells whether the service makes progress. It is asked from Run and must not wait.
	Progress func() bool
}

// WatchdogTimeout reads from the environment what the service manager set for the process (sd_watchdog_enabled(3)); 0 if it does not watch it.
func WatchdogTimeout(getenv func(string) string, pid int) (time.Duration, error) {
	usec, watched := getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID")
	if usec == "" || watched != "" && watched != strconv.Itoa(pid) {
		return 0, nil
	}
	// 64 bits everywhere: half an hour in microseconds is too large for an int of a 32-bit machine.
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(1<<63-1)/int64(time.Microsecond) {
		return 0, fmt.Errorf("WATCHDOG_USEC=%q: not a number of microseconds", usec)
	}
	return time.Duration(n) * time.Microsecond, nil
}

// signsPerTimeout is how often a sign of life is given within the timeout, so that one may be lost.
const signsPerTimeout = 3

// Run gives signs of life until ctx ends. One that cannot be sent is followed by the next; if that was true of the last, Run
// returns why.
func (w *Watchdog) Run(ctx context.Context) error {
	if w.Timeout == 0 {
		<-ctx.Done()
		return nil
	}
	ticker := time.NewTicker(max(w.Timeout/signsPerTimeout, time.Millisecond))
	defer ticker.Stop()
	var last error
	for {
		if w.Progress() {
			last = notify("WATCHDOG=1")
		}
		select {
		case <-ctx.Done():
			return last
		case <-ticker.C:
		}
	}
}
