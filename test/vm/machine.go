package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Machine is a machine that can be switched on: a directory with what survives that.
type Machine struct {
	Kind    Kind
	Disk    *Disk
	Dir     string
	Console io.Writer
	Record  bool // keep a log of all that is written, beside each file: path.log
	running *Running
}

// blockdev is the argument for a file that the machine writes to.
func (m *Machine) blockdev(node, path string) (string, error) {
	if !m.Record {
		return "driver=raw,node-name=" + node + file("file", path), nil
	}
	log := path + ".log"
	return "driver=blklogwrites,node-name=" + node + file("file", path) + file("log", log) + ",log-super-update-interval=1", os.WriteFile(log, nil, 0o644)
}

// file names a file in an argument of QEMU's, where a comma is doubled.
func file(child, path string) string {
	return "," + child + ".driver=file," + child + ".filename=" + strings.ReplaceAll(path, ",", ",,")
}

// CopyTo makes a machine that is what m is now. Of m, which must be off.
func (m *Machine) CopyTo(ctx context.Context, dir string, console io.Writer) (*Machine, error) {
	if err := run(ctx, "cp", "--sparse=always", "--reflink=auto", "-aT", m.Dir, dir); err != nil {
		return nil, err
	}
	return &Machine{Kind: m.Kind, Disk: &Disk{filepath.Join(dir, "disk.img"), m.Disk.Extents}, Dir: dir, Console: console}, nil
}

// On switches the machine on. Payload, if not empty, is an image that it sees as a second disk, read-only.
func (m *Machine) On(ctx context.Context, payload string) (*Running, error) {
	firmware, err := m.Kind.Firmware(ctx, m)
	if err != nil {
		return nil, err
	}
	// The host's page cache is as good as a disk's: what was flushed survives the end of the process.
	disk, err := m.blockdev("disk0", m.Disk.Path)
	if err != nil {
		return nil, err
	}
	disks := []string{disk}
	if payload != "" {
		disks = append(disks, "driver=raw,node-name=disk1,read-only=on"+file("file", payload))
	}
	r, err := Start(ctx, Hardware{Arch: m.Kind.Arch, Machine: m.Kind.Machine, Firmware: firmware, Disks: disks, More: m.Kind.Devices, Console: m.Console})
	if err != nil {
		return nil, err
	}
	m.running = r
	return r, nil
}

// Off ends what is running.
func (m *Machine) Off() {
	if m.running != nil {
		m.running.Kill()
	}
}

// Status is what fwu-ab status --json prints: the state as it is read over D-Bus.
type Status struct {
	Selector               string
	Booted, Default, Trial string
	Degraded               []string
	Components             []ComponentStatus
}

// ComponentStatus is the state of a component.
type ComponentStatus struct {
	Name, State, Reason, Text, Version, Active string
	Error                                      int32
	Written                                    int64
}

// String is the state on a line: "booted a, default a, trial -: boot READY 1.0.0, ...".
func (s Status) String() string {
	trial := s.Trial
	if trial == "" {
		trial = "-"
	}
	var parts []string
	for _, c := range s.Components {
		p := c.Name + " " + c.State + " " + c.Version
		if c.Reason != "" {
			p += " (" + c.Reason + ": " + c.Text + ")"
		}
		parts = append(parts, p)
	}
	text := fmt.Sprintf("booted %s, default %s, trial %s: %s", s.Booted, s.Default, trial, strings.Join(parts, ", "))
	if len(s.Degraded) > 0 {
		text += "; queries only: " + strings.Join(s.Degraded, ", ")
	}
	return text
}

// Component is the state of one component.
func (s Status) Component(name string) ComponentStatus {
	for _, c := range s.Components {
		if c.Name == name {
			return c
		}
	}
	return ComponentStatus{}
}

// answerTime is how long the service may take to say how things stand, its start included.
const answerTime = 90 * time.Second

// Status asks the service in the guest.
func (r *Running) Status(ctx context.Context) (Status, error) {
	var st Status
	asked, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	reply, err := r.Exec(asked, "fwu-ab", "status", "--json")
	if err != nil && ctx.Err() == nil && asked.Err() != nil {
		err = fmt.Errorf("fwu-ab status in the guest: %w within %v", errNoAnswer, answerTime)
	}
	if err != nil {
		return st, err
	}
	if reply.Code != 0 {
		return st, fmt.Errorf("fwu-ab status in the guest: exit code %d: %s", reply.Code, reply.Err)
	}
	return st, json.Unmarshal([]byte(reply.Out), &st)
}

var errNoAnswer = errors.New("no answer")

// askInterval is how often a state is asked for that is waited for.
const askInterval = 500 * time.Millisecond

// Until asks for the state until done says yes. The service may not be up yet.
func (r *Running) Until(ctx context.Context, done func(Status) bool) (Status, error) {
	ticker := time.NewTicker(askInterval)
	defer ticker.Stop()
	var last Status
	for {
		st, err := r.Status(ctx)
		if err == nil && done(st) || errors.Is(err, errNoAnswer) {
			return st, err
		}
		if err == nil {
			last = st
		}
		select {
		case <-r.done:
			return last, fmt.Errorf("the machine ended (%s) at %v", r.qmp.exit, last)
		case <-ctx.Done():
			return last, errors.Join(fmt.Errorf("%w, at %v", context.Cause(ctx), last), err)
		case <-ticker.C:
		}
	}
}

// Image is an image for one component.
type Image struct{ Component, Path string }

// MakePayload makes the disk from which a machine is updated to version n: an ext4 file system with a signed manifest and an image for each component, and if there are several with a bundle of all of them,
// in which they are compressed.
func (w *Workshop) MakePayload(ctx context.Context, path string, n int, images ...Image) (err error) {
	tree, err := os.MkdirTemp(w.dir, "payload-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tree)) }()
	size := int64(8 * mib)
	description := fmt.Sprintf("version = \"%d.0.0\"\nsequence = %d\nvendor-name = \"example.com\"\nclass-name = \"virtual machine\"\n", n, n)
	for _, i := range images {
		description += fmt.Sprintf("[image.%s]\nfile = \"%s.img\"\ncompression = \"zstd\"\n", i.Component, i.Component)
		to := filepath.Join(tree, i.Component+".img")
		if err := run(ctx, "cp", "--reflink=auto", "--sparse=always", i.Path, to); err != nil {
			return err
		}
		info, err := os.Stat(to)
		if err != nil {
			return err
		}
		size += info.Size()
		if err := run(ctx, w.program, "manifest", "create", "--component", i.Component, "--image", to, "--version", fmt.Sprintf("%d.0.0", n), "--sequence", fmt.Sprint(n),
			"--vendor-name", "example.com", "--class-name", "virtual machine", "--key", w.Key, "-o", filepath.Join(tree, i.Component+".suit")); err != nil {
			return err
		}
	}
	if len(images) > 1 {
		bundle := filepath.Join(tree, "release.suit")
		if err := os.WriteFile(filepath.Join(tree, "release.toml"), []byte(description), 0o644); err != nil {
			return err
		}
		if err := run(ctx, w.program, "bundle", "create", filepath.Join(tree, "release.toml"), "--key", w.Key, "-o", bundle); err != nil {
			return err
		}
		info, err := os.Stat(bundle)
		if err != nil {
			return err
		}
		size += info.Size()
	}
	return run(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-d", tree, path, fmt.Sprintf("%dk", size*21/20>>10))
}
