package dbus

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/test/stranger"
)

// The mute is a program of an unprivileged user: this test program again. polkit registers an agent
// only for a process of the caller's own user.

// muteVariable has the address of the bus, in the environment of the mute.
const muteVariable = "FWUAB_TEST_MUTE"

// The mute sends as many calls as the bus lets it, which is 128 that wait for an answer on each
// connection.
const (
	muteConnections = 8
	muteCalls       = 127
)

type muteProcess struct{ lines *bufio.Scanner }

// startMute starts the mute, which ends with the test.
func startMute(t *testing.T, address string) muteProcess {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{muteVariable + "=" + address}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger.UID, Gid: stranger.UID}}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the mute: %v", err)
		}
	})
	return muteProcess{bufio.NewScanner(stdout)}
}

// expect reads lines until one is the one that is wanted.
func (p muteProcess) expect(t *testing.T, want string) {
	t.Helper()
	var seen []string
	for p.lines.Scan() {
		if p.lines.Text() == want {
			return
		}
		seen = append(seen, p.lines.Text())
	}
	t.Fatalf("the mute never said %q, but %q", want, seen)
}

// muteAgent is an agent of polkit that asks nobody, and never answers.
type muteAgent struct{ asked chan<- string }

func (m muteAgent) BeginAuthentication(action, _, _ string, _ map[string]string, _ string, _ []subject) *godbus.Error {
	m.asked <- action
	select {}
}

func (muteAgent) CancelAuthentication(string) *godbus.Error { return nil }

// muteMain is the mute. It says when it is asked first, how many of its calls were refused whenever
// another one was, and in the end, when nothing more can come, how often it was asked.
func muteMain(address string) error {
	asked := make(chan string, muteConnections*muteCalls)
	done := make(chan *godbus.Call, muteConnections*muteCalls)
	for i := range muteConnections {
		c, err := godbus.Connect(address)
		if err != nil {
			return err
		}
		if i == 0 {
			if err := registerMute(c, asked); err != nil {
				return err
			}
		}
		for range muteCalls {
			m := &godbus.Message{Type: godbus.TypeMethodCall, Flags: godbus.FlagAllowInteractiveAuthorization, Headers: map[godbus.HeaderField]godbus.Variant{
				godbus.FieldPath: godbus.MakeVariant(godbus.ObjectPath(Path)), godbus.FieldDestination: godbus.MakeVariant(Name),
				godbus.FieldInterface: godbus.MakeVariant(ManagerInterface), godbus.FieldMember: godbus.MakeVariant("Accept"),
				godbus.FieldSignature: godbus.MakeVariant(godbus.ParseSignatureMust("a{sv}")),
			}, Body: []any{options()}}
			c.Send(m, done)
		}
	}
	<-asked
	fmt.Println("asked")
	for n := 1; n <= muteConnections*muteCalls-limitsOfUser()[asking].calls; n++ {
		if call := <-done; errorName(call.Err) != busErrorPrefix+"LimitsExceeded" {
			return fmt.Errorf("a call ended with %w", call.Err)
		}
		fmt.Println("refused", n)
	}
	fmt.Println("asked", 1+len(asked))
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// registerMute makes the process its own agent of polkit.
func registerMute(c *godbus.Conn, asked chan<- string) error {
	if err := c.Export(muteAgent{asked}, "/agent", polkitName+".AuthenticationAgent"); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	started, err := strconv.ParseUint(fields[19], 10, 64) // field 22 (proc_pid_stat(5))
	if err != nil {
		return err
	}
	who := subject{"unix-process", map[string]godbus.Variant{"pid": godbus.MakeVariant(uint32(os.Getpid())), "start-time": godbus.MakeVariant(started)}}
	err = c.Object(polkitName, polkitPath).Call(polkitAuthority+".RegisterAuthenticationAgent", 0, who, "C", "/agent").Err
	if err != nil {
		err = errors.Join(errors.New("register an agent of polkit"), err)
	}
	return err
}
