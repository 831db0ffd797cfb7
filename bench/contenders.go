package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// attempt is one run of one contender.
type attempt struct {
	*bed
	medium  *medium
	group   group
	writer  *exec.Cmd // the daemon that writes; nil: what writes is the largest process
	daemons []*exec.Cmd
	log     bytes.Buffer
}

// command is a program that is counted.
func (a *attempt) command(ctx context.Context, env []string, name string, args ...string) *exec.Cmd {
	line := a.group.wrap(name, args)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &a.log, &a.log
	return cmd
}

// daemon starts a program that is ended with the attempt.
func (a *attempt) daemon(ctx context.Context, env []string, name string, args ...string) (*exec.Cmd, error) {
	cmd := a.command(ctx, env, name, args...)
	cmd.Stdout, cmd.Stderr = io.Discard, nil
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
	if _, err := a.daemon(ctx, nil, "dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", "--config-file="+a.path("bus.conf")); err != nil {
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
	option string // for the component
	env    []string
}

func (s service) prepare(ctx context.Context, a *attempt) (*exec.Cmd, error) {
	root, err := a.device(ctx, a.medium, s.option)
	if err != nil {
		return nil, err
	}
	bus, err := a.bus(ctx, "")
	if err != nil {
		return nil, err
	}
	if a.writer, err = a.daemon(ctx, s.env, a.program, "--root", root, "--bus", bus, "daemon"); err != nil {
		return nil, err
	}
	err = a.until(ctx, func() bool {
		return exec.CommandContext(ctx, a.program, "--bus", bus, "status").Run() == nil
	})
	if err != nil || !s.pipe {
		return a.command(ctx, nil, a.program, "--bus", bus, "update", "--quiet", a.path(s.file)), err
	}
	cmd := a.command(ctx, nil, a.program, "--bus", bus, "update", "--quiet", "-")
	f, err := os.Open(a.path(s.file))
	if err != nil {
		return nil, err
	}
	cmd.Stdin = struct{ io.Reader }{f} // not a file: it becomes a pipe, which is filled here, as a download would be
	return cmd, nil
}

const deviceConfig = `disk = %q
[store]
device = "PARTLABEL=fwu-store"
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
func (b *bed) device(ctx context.Context, m *medium, option string) (root string, err error) {
	root = b.path("root")
	pub, err := os.ReadFile(b.path("key.pub"))
	if err != nil {
		return "", err
	}
	for name, text := range map[string]string{
		"etc/fwu-ab/fwu-ab.toml": fmt.Sprintf(deviceConfig, m.loop, option), "keys/key.pub": string(pub), "default.env": "bootdelay=0\nfwu_iface=mmc\nfwu_disk=0\nfwu_part_a=2\nfwu_part_b=3\nbootcmd=run fwu_ab\n",
		"usr/lib/fwu-ab/release": "[rootfs]\nversion = \"1.0.0\"\nsequence = 1\n", "proc/cmdline": "fwu.bank=a\n",
		"proc/sys/kernel/random/boot_id": "00000000-0000-4000-8000-000000000001\n", "run/x": "",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return "", err
		}
	}
	_, err = command(ctx, b.program, "--root", root, "provision", "--bank", "a", "--force", "--size", "rootfs=4096")
	return root, err
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
