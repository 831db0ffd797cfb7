package capi_test

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
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/test/capi"
	"github.com/fwu-ab/fwu-ab/test/lab"
)

const root = "../.."

// bed is a device on which the real service runs, on a bus of its own.
type bed struct {
	*testing.T
	dir, program, bus string
	device            *lab.Device
	daemon            *exec.Cmd
	log               bytes.Buffer
	reboots           chan struct{} // that the service asked logind for
}

// program builds the service.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fwu-ab")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/fwu-ab/fwu-ab/cmd/fwu-ab").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// newBed makes a device that was booted from bank a, whose components take manifests in these modes, and starts the service.
func newBed(t *testing.T, fwuab string, modes ...string) *bed {
	t.Helper()
	return newBedOn(t, privatebus.ForTest(t), fwuab, 4<<20, modes...)
}

// newBedOn does so on a bus that runs, with slots of that size for component 0.
func newBedOn(t *testing.T, bus, fwuab string, size int64, modes ...string) *bed {
	t.Helper()
	b := &bed{T: t, dir: t.TempDir(), program: fwuab, bus: bus, reboots: make(chan struct{}, 1)}
	var err error
	if b.device, err = lab.New(b.dir, size, 4<<20, "bundled"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(b.device.Root, "etc/fwu-ab/fwu-ab.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	one, two, _ := strings.Cut(string(text), "[component.bootfw]")
	config := strings.Replace(one, `"bundled"`, `"`+modes[0]+`"`, 1)
	if len(modes) > 1 {
		config += "[component.bootfw]" + strings.Replace(two, `"detached"`, `"`+modes[1]+`"`, 1)
	}
	err = errors.Join(os.WriteFile(file, []byte(config), 0o600), b.device.Booted(0, "fwu.bank=a"), os.WriteFile(b.path("small.img"), pattern(300_001), 0o600),
		os.WriteFile(b.path("large.img"), pattern(2_700_001), 0o600), b.logind())
	if err != nil {
		t.Fatal(err)
	}
	b.run(fwuab, "key", "generate", "release")
	b.run("cp", "release.pub", "root/etc/fwu-ab/keys/release.pub")
	b.run(fwuab, "--root", "root", "provision", "--bank", "a")
	b.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", &b.log)
		}
	})
	return b
}

// systemBus runs a bus that everybody may connect to, with the policy for the service as it is installed.
func systemBus(t *testing.T) (address string) {
	t.Helper()
	capi.Need(t, "dbus-daemon", "setpriv")
	if os.Getuid() != 0 {
		capi.Missing(t, "only root can call as another user")
	}
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	policy, err := filepath.Abs(root + "/share/dbus-1/system.d/" + dbus.Name + ".conf")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`<busconfig>
  <listen>unix:path=%s/bus</listen> <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <deny own="*"/> <deny send_type="method_call"/> <allow send_type="signal"/> <allow send_destination="org.freedesktop.DBus"/>
    <allow send_requested_reply="true" send_type="method_return"/> <allow send_requested_reply="true" send_type="error"/> <allow receive_sender="*"/>
  </policy>
  <policy user="root"> <allow own="*"/> <allow send_destination="*"/> </policy>
  <include>%s</include>
</busconfig>`, dir, policy)
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/bus.conf", []byte(config), 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", "--print-address=1", "--config-file="+dir+"/bus.conf")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	if address, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(address)
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte((i*7 + i>>8*13) % 251)
	}
	return b
}

func (b *bed) path(name string) string { return filepath.Join(b.dir, name) }

// command is a command in the folder of the device, that speaks to its bus.
func (b *bed) command(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = b.dir, append(os.Environ(), "FWU_AB_BUS="+b.bus)
	return cmd
}

// run runs a command that must succeed, and returns what it said.
func (b *bed) run(args ...string) string {
	b.Helper()
	out, err := b.command(args...).CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// fails runs a command that must end with exit code 1 and say why.
func (b *bed) fails(why string, args ...string) {
	b.Helper()
	out, err := b.command(args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), why) {
		b.Fatalf("%v: %v, want exit code 1\n%s", args, err, out)
	}
}

// logind is the part of org.freedesktop.login1 that the service calls.
func (b *bed) logind() error {
	conn, err := godbus.Connect(b.bus)
	if err != nil {
		return err
	}
	b.Cleanup(func() { _ = conn.Close() })
	if err := conn.Export(b, "/org/freedesktop/login1", "org.freedesktop.login1.Manager"); err != nil {
		return err
	}
	_, err = conn.RequestName("org.freedesktop.login1", godbus.NameFlagDoNotQueue)
	return err
}

// RebootWithFlags is called by the service.
func (b *bed) RebootWithFlags(uint64) *godbus.Error {
	b.reboots <- struct{}{}
	return nil
}

// start starts the service.
func (b *bed) start() {
	b.Helper()
	b.daemon = b.command(b.program, "--root", "root", "daemon")
	b.daemon.Stderr = &b.log
	if err := b.daemon.Start(); err != nil {
		b.Fatal(err)
	}
	daemon := b.daemon
	b.Cleanup(func() {
		if daemon.ProcessState == nil {
			_ = daemon.Process.Kill()
			_ = daemon.Wait()
		}
	})
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var c *dbus.Client
		if c, err = dbus.Dial(context.Background(), b.bus); err == nil {
			_ = c.Close()
			return
		}
	}
	b.Fatalf("the service does not come up: %v", err)
}

// stop ends the service.
func (b *bed) stop() {
	b.Helper()
	if err := errors.Join(b.daemon.Process.Signal(os.Interrupt), b.daemon.Wait()); err != nil {
		b.Fatal(err)
	}
}

// reboot waits until a reboot was asked for, and starts the service on what was booted.
func (b *bed) reboot(n int, bank string) {
	b.Helper()
	select {
	case <-b.reboots:
	case <-time.After(2 * time.Minute):
		b.Fatal("no reboot was asked for")
	}
	b.stop()
	if err := b.device.Booted(n, "fwu.bank="+bank); err != nil {
		b.Fatal(err)
	}
	b.start()
}

// manifest makes a signed manifest for an image.
func (b *bed) manifest(component, image, version, sequence string, more ...string) string {
	b.Helper()
	name := component + "-" + version + ".suit"
	b.run(append([]string{b.program, "manifest", "create", "--component", component, "--image", image, "--version", version, "--sequence", sequence,
		"--vendor-name", "example.com", "--class-name", "demo board", "--key", "release.key", "-o", name}, more...)...)
	return name
}

// bundle makes a signed bundle of an image.
func (b *bed) bundle(component, image, version, sequence string) string {
	b.Helper()
	return b.manifest(component, image, version, sequence, "--bundle")
}
