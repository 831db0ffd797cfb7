// Package privatebus runs a message bus of one's own: for tests, and for a demonstration that touches nothing of the system. It needs
// the program dbus-daemon.
package privatebus

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fwu-ab/fwu-ab/test/child"
	godbus "github.com/godbus/dbus/v5"
)

// config lets everybody who can connect do everything; the kernel says who connects, and only the user that runs the bus may. The service is sent more descriptors than one
// caller may have under way, so that the bus refuses nobody on account of another.
const config = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
  <limit name="max_replies_per_connection">50000</limit>
  <limit name="max_outgoing_unix_fds">1024</limit>
</busconfig>
`

// maxSocketPath is what fits sun_path (unix(7)).
const maxSocketPath = 107

// Start runs a bus whose socket and configuration lie in dir, until stop is called, ctx ends, or
// this process does. It returns when the bus answers. Only root and the user that runs it can
// connect. The name of dir must be short: the path of a socket has 107 bytes at most.
func Start(ctx context.Context, dir string) (address string, stop func() error, err error) {
	socket, err := filepath.Abs(filepath.Join(dir, "bus"))
	if err != nil {
		return "", nil, fmt.Errorf("start a bus in %s: %w", dir, err)
	}
	if len(socket) > maxSocketPath {
		return "", nil, fmt.Errorf("start a bus: path of socket %s is longer than %d bytes", socket, maxSocketPath)
	}
	return start(ctx, dir, fmt.Appendf(nil, config, godbus.EscapeBusAddressValue(socket)))
}

// start runs a bus with a configuration, whose file lies in dir.
func start(ctx context.Context, dir string, config []byte) (address string, stop func() error, err error) {
	file := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return "", nil, fmt.Errorf("start a bus: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	address, wait, err := run(ctx, file)
	if err != nil {
		cancel()
		return "", nil, fmt.Errorf("start a bus in %s: %w", dir, err)
	}
	return address, func() error {
		cancel()
		return wait()
	}, nil
}

// run starts the daemon; it ends with ctx. wait waits for that.
func run(ctx context.Context, file string) (address string, wait func() error, err error) {
	out, in, err := os.Pipe()
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = out.Close() }()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", "--config-file="+file, "--print-address=3")
	cmd.ExtraFiles = []*os.File{in}
	cmd.Stderr = &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	ended, err := child.Start(cmd, nil)
	_ = in.Close()
	if err != nil {
		return "", nil, err
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	if readErr != nil {
		_ = cmd.Process.Kill()
		return "", nil, fmt.Errorf("%w: %s", errors.Join(readErr, ended()), bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(line), func() error {
		err := ended()
		if ctx.Err() != nil { // it was told to end
			return nil
		}
		return fmt.Errorf("bus ended: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}, nil
}

// TB is what ForTest needs of a testing.TB.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// ForTest runs a bus for the length of a test and returns its address. Without dbus-daemon it skips the test, unless FWUAB_TEST_ALL is set.
func ForTest(t TB) string {
	t.Helper()
	return forTest(t, Start)
}

func forTest(t TB, start func(ctx context.Context, dir string) (string, func() error, error)) string {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		if os.Getenv("FWUAB_TEST_ALL") == "" {
			t.Skipf("needs dbus-daemon: %v", err)
		}
		t.Fatalf("needs dbus-daemon: %v", err)
	}
	// Not the test's own folder: its name has the test's name in it and is too long for a socket.
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatalf("make a folder for a bus: %v", err)
	}
	address, stop, err := start(context.Background(), dir)
	if err != nil {
		_ = os.RemoveAll(dir)
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(stop(), os.RemoveAll(dir)); err != nil {
			t.Fatalf("stop the bus: %v", err)
		}
	})
	return address
}
