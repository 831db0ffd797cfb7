package privatebus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// systemConfig is the configuration of a system bus as dbus-daemon ships it, system.conf, without
// activation: its limits are those of the type, and every user can connect.
const systemConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
  </policy>
  <policy user="root">
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Debug.Stats"/>
  </policy>
  <include ignore_missing="yes">%s</include>
  <includedir>%s</includedir>
</busconfig>
`

// polkitPolicy is the file in which polkit says who may talk to it.
const polkitPolicy = "/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf"

// SystemForTest runs a bus with the limits and the defaults of a system bus and the policies that
// lie in the folder policies, for the length of a test. Every user can connect.
func SystemForTest(t TB, policies string) string {
	t.Helper()
	policies, err := filepath.Abs(policies)
	if err != nil {
		t.Fatalf("find the policies: %v", err)
	}
	return forTest(t, func(ctx context.Context, dir string) (string, func() error, error) {
		if err := os.Chmod(dir, 0o755); err != nil {
			return "", nil, err
		}
		return start(ctx, dir, fmt.Appendf(nil, systemConfig, godbus.EscapeBusAddressValue(filepath.Join(dir, "bus")), polkitPolicy, policies))
	})
}

// polkitProgram is where Debian has polkit's daemon.
const polkitProgram = "/usr/lib/polkit-1/polkitd"

// PolkitForTest runs the real polkit on a bus, for the length of a test, with the actions that lie
// in the folder actions and no others. It needs root: polkit reads actions from one place only,
// which is covered in a mount namespace. Without polkit it skips the test, unless FWUAB_TEST_ALL is
// set. Rules, if there are any, are the folder with all of its rules.
func PolkitForTest(t TB, address, actions string, rules ...string) *os.Process {
	t.Helper()
	if _, err := os.Stat(polkitProgram); err != nil {
		if os.Getenv("FWUAB_TEST_ALL") == "" {
			t.Skipf("needs polkit: %v", err)
		}
		t.Fatalf("needs polkit: %v", err)
	}
	actions, err := filepath.Abs(actions)
	if err != nil {
		t.Fatalf("find the actions: %v", err)
	}
	const script = `mount --bind "$0" /usr/share/polkit-1/actions && for r in "$@"; do mount --bind "$r" /usr/share/polkit-1/rules.d; done && exec ` + polkitProgram + ` --no-debug`
	cmd := exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, actions}, rules...)...)
	cmd.Env = append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+address)
	if err := cmd.Start(); err != nil {
		t.Fatalf("start polkit: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	if err := owned(address, "org.freedesktop.PolicyKit1"); err != nil {
		t.Fatalf("start polkit: %v", err)
	}
	return cmd.Process
}

// owned waits until a name on a bus has an owner.
func owned(address, name string) error {
	c, err := godbus.Connect(address)
	if err != nil {
		return err
	}
	defer c.Close()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var has bool
		if err := c.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, name).Store(&has); err != nil || has {
			return err
		}
	}
	return errors.New(name + " was not taken")
}
