package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/test/lab"
)

// attempt is one run of one contender.
type attempt struct {
	*bed
	medium  *medium
	group   group
	writer  *exec.Cmd        // the daemon that writes; nil: what writes is the largest process
	asked   godbus.BusObject // is asked for the state all the time, unless it is nil
	daemons []*exec.Cmd
	log     bytes.Buffer
}

// try calls f with an attempt, and ends what f started.
func (b *bed) try(m *medium, f func(*attempt) error) (err error) {
	a := &attempt{bed: b, medium: m}
	if a.group, err = b.counters.group(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.group.remove()) }()
	defer a.end()
	return f(a)
}

// command is a program that is counted.
func (a *attempt) command(ctx context.Context, env []string, name string, args ...string) *exec.Cmd {
	return a.in(ctx, rest, env, name, args...)
}

// in is a program that is counted in a part of the group.
func (a *attempt) in(ctx context.Context, part string, env []string, name string, args ...string) *exec.Cmd {
	line := a.group.part(part).wrap(name, args)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &a.log, &a.log
	return cmd
}

// daemon starts a program that is ended with the attempt.
func (a *attempt) daemon(ctx context.Context, part string, env []string, name string, args ...string) (*exec.Cmd, error) {
	cmd := a.in(ctx, part, env, name, args...)
	log, err := os.Create(a.path(filepath.Base(name) + ".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	a.daemons = append(a.daemons, cmd)
	return cmd, nil
}

func (a *attempt) end() {
	for len(a.daemons) > 0 {
		last := a.daemons[len(a.daemons)-1]
		a.daemons = a.daemons[:len(a.daemons)-1]
		_ = last.Process.Signal(syscall.SIGTERM)
		t := time.AfterFunc(10*time.Second, func() { _ = last.Process.Kill() })
		_ = last.Wait() // it was asked to
		t.Stop()
	}
}

const busConfig = `<busconfig><listen>unix:path=%s</listen><auth>EXTERNAL</auth>%s<policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
`

// bus starts a message bus for one attempt.
func (a *attempt) bus(ctx context.Context, more string) (address string, err error) {
	socket := a.path("bus")
	_ = os.Remove(socket)
	if err := os.WriteFile(a.path("bus.conf"), fmt.Appendf(nil, busConfig, socket, more), 0o644); err != nil {
		return "", err
	}
	if _, err := a.daemon(ctx, rest, nil, "dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", "--config-file="+a.path("bus.conf")); err != nil {
		return "", err
	}
	return "unix:path=" + socket, a.until(ctx, func() bool { return !absent(socket) })
}

func (a *attempt) until(ctx context.Context, ready func() bool) error {
	for range 1000 {
		if ready() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return errors.New("a daemon does not come up")
}

// contender updates the slot. prepare is not measured, what it returns is.
type contender struct {
	name    string
	before  string        // the file that the slot holds at first
	after   string        // what it begins with in the end; nothing: the image
	input   []string      // files that are read, in the page cache before
	sleeps  time.Duration // what the program is known to sleep
	tmpfs   bool          // only where the medium is out of the way
	prepare func(ctx context.Context, a *attempt) (*exec.Cmd, error)
}

// first is what all others are compared with.
const first = "fwu-ab, raw"

// service is ours.
type service struct {
	file   string
	pipe   bool
	rate   float64 // of what comes through the pipe, bytes per second; 0: as fast as it is taken
	blocks string  // the client is that of send.go, with blocks of that size; else it is the command line
	asked  bool
	limit  int64  // of the daemon's memory; 0: none
	option string // for the component
	env    []string
}

func (s service) prepare(ctx context.Context, a *attempt) (*exec.Cmd, error) {
	root, err := a.device(ctx, a.medium, "PARTLABEL=fwu-store", s.option)
	if err != nil {
		return nil, err
	}
	bus, err := s.start(ctx, a, root)
	if err != nil {
		return nil, err
	}
	if s.asked {
		if a.asked, err = component(ctx, bus); err != nil {
			return nil, err
		}
	}
	switch {
	case s.blocks != "":
		self, err := os.Executable()
		return a.command(ctx, nil, self, "-send", bus, s.blocks, a.medium.loop, a.path(s.file)), err
	case !s.pipe:
		return a.command(ctx, nil, a.program, "--bus", bus, "update", "--quiet", a.path(s.file)), nil
	}
	cmd := a.command(ctx, nil, a.program, "--bus", bus, "update", "--quiet", "-")
	f, err := os.Open(a.path(s.file))
	if err != nil {
		return nil, err
	}
	cmd.Stdin = &paced{Reader: f, rate: s.rate} // not a file: it becomes a pipe, which is filled here, as a download would be
	return cmd, nil
}

// start starts a bus and the service on it. The program is a file that nobody else has run: its pages, too, are counted for the service.
func (s service) start(ctx context.Context, a *attempt, root string) (bus string, err error) {
	if bus, err = a.bus(ctx, ""); err != nil {
		return "", err
	}
	if s.limit > 0 {
		if err := a.group.part(writers).limit(s.limit); err != nil {
			return "", err
		}
	}
	if a.writer, err = a.daemon(ctx, writers, s.env, filepath.Join(a.path("source"), filepath.Base(a.program)), "--root", root, "--bus", bus, "daemon"); err != nil {
		return "", err
	}
	return bus, a.until(ctx, func() bool { return exec.CommandContext(ctx, a.program, "--bus", bus, "status").Run() == nil })
}

const deviceConfig = `disk = %q
[store]
device = %q
[selector]
type = "uboot"
[selector.uboot]
scheme = "one-shot"
copies = [
  {device = "PARTLABEL=env", offset = 0x0, size = 0x10000},
  {device = "PARTLABEL=env", offset = -65536, size = 0x10000},
]
default-environment = "/default.env"
[identity]
vendor-name = "example.com"
class-name = "bench"
[trust]
keys = ["/keys"]
[component.rootfs]
id = 0
manifest = "bundled"
slots = {a = "PARTLABEL=rootfs_a", b = "PARTLABEL=rootfs_b"}
%s
`

// device makes the tree of a device that was booted from bank a of the medium.
func (b *bed) device(ctx context.Context, m *medium, store, option string) (root string, err error) {
	d := lab.Device{Root: b.path("root")}
	pub, err := os.ReadFile(b.path("key.pub"))
	if err != nil {
		return "", err
	}
	err = d.Booted(1, "fwu.bank=a")
	for name, text := range map[string]string{
		"etc/fwu-ab/fwu-ab.toml": fmt.Sprintf(deviceConfig, m.loop, store, option), "keys/key.pub": string(pub), "run/x": "",
		"default.env":            "bootdelay=0\nfwu_iface=mmc\nfwu_disk=0\nfwu_part_a=2\nfwu_part_b=3\nbootcmd=run fwu_ab\n",
		"usr/lib/fwu-ab/release": "[rootfs]\nversion = \"1.0.0\"\nsequence = 1\n",
	} {
		err = errors.Join(err, d.Write(name, text))
	}
	if err != nil {
		return "", err
	}
	_, err = command(ctx, b.program, "--root", d.Root, "provision", "--bank", "a", "--force", "--size", "rootfs=4096")
	return d.Root, err
}

func (b *bed) contenders() []contender {
	ours := func(name, before, file string, s service) contender {
		s.file = file
		return contender{name: "fwu-ab, " + name, before: before, input: []string{file}, prepare: s.prepare}
	}
	shell := func(name, script string) contender {
		return contender{name: name, before: "other", input: []string{"image"}, prepare: func(ctx context.Context, a *attempt) (*exec.Cmd, error) {
			return a.command(ctx, nil, "sh", "-ec", script, "sh", a.path("image"), a.medium.loop+"p3"), nil
		}}
	}
	const dd = `dd if="$1" of="$2" bs=1M oflag=direct conv=fsync,nocreat`
	slow := ours("raw, SHA-256 without instructions for it", "other", "raw.suit", service{env: []string{"GODEBUG=" + noSHA()}})
	slow.tmpfs = true
	list := []contender{
		ours("raw", "other", "raw.suit", service{}),
		ours("raw, through a pipe", "other", "raw.suit", service{pipe: true}),
		ours("zstd", "other", "zstd.suit", service{}),
		ours("raw, not read back", "other", "raw.suit", service{option: noReadBack}),
		ours("raw, the slot holds the image", "image", "raw.suit", service{}),
		ours("raw, 8 % of the blocks differ", "differs", "raw.suit", service{}),
		slow,
		shell("dd", dd),
		shell("sha256sum, dd", `sha256sum "$1"; `+dd),
		shell("openssl dgst -sha256, dd", `openssl dgst -sha256 "$1"; `+dd),
	}
	return append(list, b.peers...)
}
