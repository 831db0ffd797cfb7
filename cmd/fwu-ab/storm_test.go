package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/stranger"
)

// TestStorm lets an unprivileged user do all at once that could keep the service from its work,
// while root updates the device and accepts the new system: on a bus with the limits and the
// policies of a system bus, and the real polkit.
func TestStorm(t *testing.T) {
	needTools(t, "dbus-daemon")
	stranger.Need(t)
	dir := t.TempDir()
	const size = 8 << 20
	d, key := newLab(t, dir, size, 1<<20, "detached")
	// The lock files are made where every user can make files, and the stranger is first.
	locks, err := os.MkdirTemp("", "locks")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(locks) })
	check(t, errors.Join(os.Chmod(locks, 0o777|os.ModeSticky), os.RemoveAll(filepath.Join(d.Root, "var/lock")), os.Symlink(locks, filepath.Join(d.Root, "var/lock"))))

	bus := privatebus.SystemForTest(t, "../../share/dbus-1/system.d")
	privatebus.PolkitForTest(t, bus, "../../share/polkit-1/actions")
	image := filepath.Join(dir, "image")
	check(t, writeImage(image, size-1<<20))
	runFwu(t, "manifest", "create", "--component", "rootfs", "--image", image, "--version", "2.0.0", "--sequence", "2", "--vendor-name", "example.com", "--class-name", "demo board", "--key", key, "-o", image+".suit")

	stop := startStorm(t, bus, locks)
	first := startDaemonOn(t, d.Root, bus)
	took := queries(t, bus, 20)
	runFwu(t, "--bus", bus, "update", "--quiet", image+".suit", image)
	took = append(took, queries(t, bus, 20)...)
	quit(t, first)
	check(t, d.Booted(2, "fwu.bank=b"))
	second := startDaemonOn(t, d.Root, bus)
	expectState(t, bus, fwu.Trial)
	before := openFiles(t, second.Process.Pid)
	took = append(took, queries(t, bus, 20)...)
	runFwu(t, "--root", d.Root, "--bus", bus, "boot-check")
	expectState(t, bus, fwu.Updated)

	stop()
	slices.Sort(took)
	t.Logf("root's Query in the storm: median %v, the slowest of %d %v", took[len(took)/2], len(took), took[len(took)-1])
	const logind = 1 // the connection over which logind is asked lasts from the accept on
	for end := time.Now().Add(time.Minute); len(openFiles(t, second.Process.Pid)) > len(before)+logind; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the service has %v, had %v", openFiles(t, second.Process.Pid), before)
		}
	}
	t.Logf("the service had %.1f MiB resident at most", float64(peak(t, second.Process.Pid))/(1<<20))
	quit(t, second)
}

// queries measures n queries of root on one connection.
func queries(t *testing.T, bus string, n int) []time.Duration {
	t.Helper()
	var took []time.Duration
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // far more than it takes, also where virtual machines run beside it
	defer cancel()
	c, err := dbus.Dial(ctx, bus)
	check(t, err)
	for range n {
		begin := time.Now()
		_, err := c.Query(ctx, 0)
		check(t, err)
		took = append(took, time.Since(begin))
	}
	check(t, c.Close())
	return took
}

func expectState(t *testing.T, bus string, want fwu.State) {
	t.Helper()
	c, err := dbus.Dial(t.Context(), bus)
	check(t, err)
	info, err := c.Query(t.Context(), 0)
	check(t, errors.Join(err, c.Close()))
	if info.State != want {
		t.Fatalf("state is %v, want %v", info.State, want)
	}
}

// openFiles lists the open files of a process.
func openFiles(t *testing.T, pid int) []string {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	check(t, err)
	var all []string
	for _, l := range links {
		if name, err := os.Readlink(l); err == nil { // else it was closed meanwhile
			all = append(all, name)
		}
	}
	return all
}

// quit ends a service.
func quit(t *testing.T, r running) {
	t.Helper()
	check(t, r.Process.Signal(os.Interrupt))
	if err := r.Wait(); err != nil {
		t.Fatalf("%v: %s", err, r.Stderr)
	}
}

// startDaemonOn starts the service on a bus. quit ends it.
func startDaemonOn(t *testing.T, root, bus string) running {
	t.Helper()
	cmd := program("--root", root, "--bus", bus, "daemon")
	cmd.Stderr = &bytes.Buffer{}
	check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // where it was not quit
	if err := waitForService(t.Context(), bus); err != nil {
		t.Fatalf("%v: %s", err, cmd.Stderr)
	}
	return running{cmd, bus}
}

// stormVariable has the address of the bus and the folder of the lock files, in the environment of
// the storm, which is this test program again, run by an unprivileged user.
const stormVariable = "FWUAB_TEST_STORM"

// startStorm returns when the storm has begun, with the function that ends it.
func startStorm(t *testing.T, bus, locks string) (stop func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = "storm"
	cmd.Env = []string{stormVariable + "=" + bus + "|" + locks}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger.UID, Gid: stranger.UID}}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	stop = sync.OnceFunc(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the storm: %v", err)
		}
	})
	t.Cleanup(stop)
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return stop
}

// stormMain does everything until its standard input ends.
func stormMain(arguments string) error {
	address, locks, _ := strings.Cut(arguments, "|")
	path := filepath.Join(locks, "fw_printenv.lock")
	lock, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	s := storm{address: address}
	agent, err := godbus.Connect(address)
	if err != nil {
		return err
	}
	if err := s.agent(agent); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	for _, what := range []func(context.Context) error{s.asked, s.asked, s.flood, s.blocks, s.deaf, s.deaf, s.comeAndGo} {
		go func() {
			for ctx.Err() == nil {
				_ = what(ctx) // when the bus turns it away: again, though not so often that the bus does nothing else
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}
	fmt.Println("begun")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

type storm struct{ address string }

// silence is an agent of polkit that never answers.
type silence struct{}

func (silence) BeginAuthentication(_, _, _ string, _ map[string]string, _ string, _ []struct {
	Kind    string
	Details map[string]godbus.Variant
}) *godbus.Error {
	select {}
}

func (silence) CancelAuthentication(string) *godbus.Error { return nil }

func (s storm) agent(c *godbus.Conn) error {
	const authority = "org.freedesktop.PolicyKit1"
	if err := c.Export(silence{}, "/agent", authority+".AuthenticationAgent"); err != nil {
		return err
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	started, err := strconv.ParseUint(strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[19], 10, 64)
	if err != nil {
		return err
	}
	type subject struct {
		Kind    string
		Details map[string]godbus.Variant
	}
	who := subject{"unix-process", map[string]godbus.Variant{"pid": godbus.MakeVariant(uint32(os.Getpid())), "start-time": godbus.MakeVariant(started)}}
	return c.Object(authority, "/org/freedesktop/PolicyKit1/Authority").Call(authority+".Authority.RegisterAuthenticationAgent", 0, who, "C", "/agent").Err
}

const (
	manager   = dbus.Path
	component = dbus.Path + "/component/0"
)

// asked leaves as many calls open as the bus lets it, each of which a person would have to be asked
// about.
func (s storm) asked(ctx context.Context) error {
	return s.calls(ctx, 1000, godbus.FlagAllowInteractiveAuthorization, manager, dbus.ManagerInterface, "Accept", "a{sv}", make([]byte, 8), true)
}

// flood asks and asks.
func (s storm) flood(ctx context.Context) error {
	return s.calls(ctx, 1000, 0, component, dbus.ComponentInterface, "Query", "", nil, true)
}

// blocks sends blocks that nobody has authorised.
func (s storm) blocks(ctx context.Context) error {
	body := make([]byte, 12+fwu.MaxWriteSize)
	binary.LittleEndian.PutUint32(body[8:], fwu.MaxWriteSize)
	return s.calls(ctx, 20, godbus.FlagAllowInteractiveAuthorization, component, dbus.ComponentInterface, "Write", "tay", body, true)
}

// deaf reads none of its answers.
func (s storm) deaf(ctx context.Context) error {
	return s.calls(ctx, 5000, 0, component, "org.freedesktop.DBus.Introspectable", "Introspect", "", nil, false)
}

// comeAndGo opens connections and leaves them at once.
func (s storm) comeAndGo(ctx context.Context) error {
	return s.calls(ctx, 1, 0, manager, dbus.ManagerInterface, "Accept", "a{sv}", make([]byte, 8), false)
}

// calls sends calls on a connection of its own.
func (s storm) calls(ctx context.Context, n int, flags godbus.Flags, path, iface, member, signature string, body []byte, read bool) error {
	socket, err := net.Dial("unix", strings.Split(strings.TrimPrefix(s.address, "unix:path="), ",")[0])
	if err != nil {
		return err
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })()
	for _, step := range []string{"\x00AUTH EXTERNAL\r\n", "DATA\r\n"} {
		if _, err := io.WriteString(socket, step); err != nil {
			return err
		}
		if _, err := socket.Read(make([]byte, 256)); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(socket, "BEGIN\r\n"); err != nil {
		return err
	}
	if read {
		go func() { _, _ = io.Copy(io.Discard, socket) }()
	}
	hello, err := call(1, 0, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", "", nil)
	if err != nil {
		return err
	}
	if _, err := socket.Write(hello); err != nil {
		return err
	}
	for serial := uint32(2); n > 0; n-- {
		frame, err := call(serial, flags, dbus.Name, path, iface, member, signature, body)
		if err != nil {
			return err
		}
		if _, err := socket.Write(frame); err != nil {
			return err
		}
		serial++
	}
	return nil
}

// call is a method call as it is on the wire.
func call(serial uint32, flags godbus.Flags, destination, path, iface, member, signature string, body []byte) ([]byte, error) {
	m := &godbus.Message{Type: godbus.TypeMethodCall, Flags: flags, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldPath: godbus.MakeVariant(godbus.ObjectPath(path)), godbus.FieldDestination: godbus.MakeVariant(destination),
		godbus.FieldInterface: godbus.MakeVariant(iface), godbus.FieldMember: godbus.MakeVariant(member),
	}}
	if signature != "" {
		m.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.ParseSignatureMust(signature))
	}
	var frame bytes.Buffer
	if err := m.EncodeTo(&frame, binary.LittleEndian); err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint32(frame.Bytes()[4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(frame.Bytes()[8:], serial)
	frame.Write(body)
	return frame.Bytes(), nil
}
