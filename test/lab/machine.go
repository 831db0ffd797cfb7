package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/bootctl/uboot/model"
	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/partition/diskimage"
	"github.com/fwu-ab/fwu-ab/test/child"
	"github.com/fwu-ab/fwu-ab/test/powercut"
)

// Machine is a device with its power: a bus, a stand-in for logind, a bootloader, and the real
// service on the bank that was booted. All runs as the user who runs it, below the directory of the
// device. Its methods are for one goroutine.
type Machine struct {
	*Device
	Bus  string   // address of the bus
	Bank fwu.Bank // that was booted
	// Volatile is nil if a power cut loses the writes not flushed, else why it does not.
	Volatile error

	dir, program string
	note         func(format string, args ...any)
	log          *os.File // of the service
	disk         *powercut.Disk
	stopBus      func() error
	logind       *logind
	boots        int
	service      *service // nil: the device is off
	failed       chan struct{}
}

// service is a process.
type service struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
	err   error         // of its end, then
}

// Options are how a machine is made.
type Options struct {
	Program string // fwu-ab
	Rate    int64  // bytes that the disk takes in a second; 0: as many as it can
	// Note is told each event of the machine, in one line.
	Note func(format string, args ...any)
}

// Load finds the device in a directory where New made one.
func Load(ctx context.Context, dir string) (*Device, error) {
	d := &Device{Disk: filepath.Join(dir, "disk.img"), Root: filepath.Join(dir, "root"), Extents: map[string]diskimage.Extent{}}
	parts, err := partition.Finder{Disk: d.Disk}.Partitions(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		d.Extents[p.Label] = diskimage.Extent{Offset: p.Start, Size: p.Size}
	}
	return d, nil
}

// NewMachine starts bus and logind for a device in a directory. The device is off. The name of dir
// is short: a socket lies in it.
func NewMachine(ctx context.Context, dir string, d *Device, o Options) (m *Machine, err error) {
	m = &Machine{Device: d, dir: dir, program: o.Program, note: o.Note, failed: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if m.log, err = os.OpenFile(m.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return m, err
	}
	if m.disk, err = powercut.Open(d.Disk, o.Rate); err != nil {
		return m, err
	}
	if m.boots, err = d.boots(); err != nil {
		return m, err
	}
	// The service ends before its bus, also where ctx ends.
	if m.Bus, m.stopBus, err = privatebus.Start(context.WithoutCancel(ctx), dir); err != nil {
		return m, err
	}
	m.logind, err = startLogind(m.Bus)
	return m, err
}

// Close shuts the device down in order, and ends bus and logind.
func (m *Machine) Close() error {
	err := m.ShutDown()
	if m.logind != nil {
		err = errors.Join(err, m.logind.close())
	}
	if m.stopBus != nil {
		err = errors.Join(err, m.stopBus())
	}
	if m.disk != nil {
		err = errors.Join(err, m.disk.Close())
	}
	if m.log != nil {
		err = errors.Join(err, m.log.Close())
	}
	return err
}

// LogFile is where the service logs to.
func (m *Machine) LogFile() string { return filepath.Join(m.dir, "service.log") }

// On tells whether the device is on.
func (m *Machine) On() bool { return m.service != nil }

// Unflushed is how many bytes a power cut may lose now.
func (m *Machine) Unflushed() int64 { return m.disk.Unflushed() }

// RebootAsked has a value when logind was asked for a reboot: Reboot does it.
func (m *Machine) RebootAsked() <-chan struct{} { return m.logind.asked }

// Failed has a value when the power failed by CutAfter: PowerCut completes it.
func (m *Machine) Failed() <-chan struct{} { return m.failed }

// Ended is closed when the service ended by itself: Gone says why. It is nil when the device is
// off.
func (m *Machine) Ended() <-chan struct{} {
	if m.service == nil {
		return nil
	}
	return m.service.ended
}

// Gone waits for the end of the service, and returns its error. The device is off.
func (m *Machine) Gone() error {
	s := m.service
	<-s.ended
	m.service = nil
	return s.err
}

// bootloader is U-Boot with the script that is shipped, on this disk.
func (m *Machine) bootloader() model.Bootloader {
	at := m.Extents["uboot-env"].Offset
	loc := func(off int64) uboot.Location {
		return uboot.Location{Path: m.Disk, Offset: at + off, Size: EnvironmentSize}
	}
	return model.Bootloader{Environment: uboot.Environment{Copies: []uboot.Location{loc(0), loc(EnvironmentSize)}, Open: uboot.OpenMedium}}
}

// Bootable tells whether a bootloader can load a kernel from the file system in a bank's slot.
func (m *Machine) Bootable(ctx context.Context, bank fwu.Bank) bool {
	kernel, err := m.readFile(ctx, bank, "/boot/Image")
	return err == nil && len(kernel) > 0
}

// readFile reads a file of the file system in a bank's slot, as it lies on the disk.
func (m *Machine) readFile(ctx context.Context, bank fwu.Bank, name string) ([]byte, error) {
	return debugfs(ctx, fmt.Sprintf("%s?offset=%d", m.Disk, m.Extents["rootfs_"+string(bank)].Offset), "cat "+name)
}

// PowerOn runs the bootloader until a kernel comes up, and starts the service on the booted bank.
// It returns when the service answers.
func (m *Machine) PowerOn(ctx context.Context) error {
	if m.service != nil {
		return errors.New("the device is on")
	}
	for range 5 {
		out, err := m.bootloader().Boot(func(b fwu.Bank) bool { return m.Bootable(ctx, b) })
		if err != nil {
			return err
		}
		if out.Bank == fwu.NoBank {
			return errors.New("no bank can be started: the device is a brick")
		}
		kernel, err := m.readFile(ctx, out.Bank, "/boot/Image")
		if err != nil {
			return err
		}
		m.note("[bootloader] starting bank %s: %s", out.Bank, strings.TrimSpace(string(kernel)))
		if !bytes.Contains(kernel, []byte("panics")) {
			return m.userSpace(ctx, out)
		}
		m.note("[kernel] panic: reset")
	}
	return errors.New("the device resets for ever")
}

// userSpace makes the tree look like a system that was booted from a bank, and starts the service.
func (m *Machine) userSpace(ctx context.Context, out model.Outcome) error {
	release, err := m.readFile(ctx, out.Bank, "/usr/lib/fwu-ab/release")
	if err != nil {
		return err
	}
	if err := m.Write("usr/lib/fwu-ab/release", string(release)); err != nil {
		return err
	}
	m.boots++
	m.Bank = out.Bank
	if err := m.Booted(m.boots, out.CommandLine+" quiet"); err != nil {
		return err
	}
	if err := m.startService(); err != nil {
		return fmt.Errorf("start the service: %w", err)
	}
	return m.waitForService(ctx)
}

func (m *Machine) command() *exec.Cmd {
	cmd := exec.Command(m.program, "--root", m.Root, "--bus", m.Bus, "daemon")
	cmd.Stderr = m.log
	return cmd
}

func (m *Machine) startService() error {
	cmd := m.command()
	wait, err := m.disk.Start(cmd, func() { m.failed <- struct{}{} })
	m.Volatile = nil
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM) {
		m.Volatile = err
		cmd = m.command()
		wait, err = child.Start(cmd, nil)
	}
	if err != nil {
		return err
	}
	s := &service{cmd: cmd, ended: make(chan struct{})}
	go func() {
		s.err = wait()
		close(s.ended)
	}()
	m.service = s
	return nil
}

// waitForService asks until the service answers.
func (m *Machine) waitForService(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		if exec.CommandContext(ctx, m.program, "--bus", m.Bus, "status", "--json").Run() == nil {
			return nil
		}
		select {
		case <-m.service.ended:
			return fmt.Errorf("the service ended: %w\n%s", m.Gone(), m.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("the service does not come up: %w\n%s", ctx.Err(), m.lastWords())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lastWords is the end of the service's log.
func (m *Machine) lastWords() string {
	b, err := os.ReadFile(m.LogFile())
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-2000):]))
}

// kill ends the service without a warning.
func (m *Machine) kill() error {
	if m.service == nil {
		return nil
	}
	m.disk.PowerOff()
	err := m.service.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	_ = m.Gone() // killed
	for _, c := range []chan struct{}{m.failed, m.logind.asked} {
		select { // it does not matter any more
		case <-c:
		default:
		}
	}
	return err
}

// ShutDown ends the service as its manager does, and makes its writes durable. The device is off.
func (m *Machine) ShutDown() error {
	if m.service == nil {
		return nil
	}
	err := m.service.cmd.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	err = errors.Join(err, m.Gone())
	m.disk.Flush()
	return err
}

// Reboot is one in order.
func (m *Machine) Reboot(ctx context.Context) error {
	m.note("[logind] reboot")
	if err := m.ShutDown(); err != nil {
		return err
	}
	return m.PowerOn(ctx)
}

// Reset is the reset button, a watchdog, or a panic: the system ends without a warning and the
// device boots. The disk has power all the time, so that its cache loses nothing.
func (m *Machine) Reset(ctx context.Context) error {
	m.note("[reset]")
	if err := m.kill(); err != nil {
		return err
	}
	return m.PowerOn(ctx)
}

// CutAfter has the power fail when the service has written n more bytes to the disk; 0: not any
// more.
func (m *Machine) CutAfter(n int64) error {
	if m.Volatile != nil {
		return fmt.Errorf("the lab does not see what the service writes: %w", m.Volatile)
	}
	m.disk.CutAfter(n)
	return nil
}

// PowerCut turns the device off without a warning. The disk loses a part of the writes not
// flushed, as package powercut describes; which part depends on seed.
func (m *Machine) PowerCut(seed uint64) error {
	if err := m.kill(); err != nil {
		return err
	}
	if m.Volatile != nil {
		m.note("[power] off. Nothing that the service wrote is lost: the lab does not see its writes (%v)", m.Volatile)
		return nil
	}
	lost, of, err := m.disk.Lose(seed)
	if err != nil {
		return err
	}
	m.note("[power] off: %d of %d sectors that were not flushed are lost (seed %d)", lost, of, seed)
	return nil
}

// Status is a part of the output of fwu-ab status --json.
type Status struct {
	Booted     fwu.Bank
	Degraded   []string
	Components []struct {
		Name, State, Version string
		Written              int64
	}
}

// Status asks the service.
func (m *Machine) Status(ctx context.Context) (Status, error) {
	var st Status
	out, err := exec.CommandContext(ctx, m.program, "--bus", m.Bus, "status", "--json").Output()
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(out, &st)
}

// boots is the number of the last boot, 0 if there was none.
func (d *Device) boots() (int, error) {
	b, err := os.ReadFile(filepath.Join(d.Root, bootID))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	id := strings.TrimSpace(string(b))
	n, err := strconv.Atoi(id[strings.LastIndexByte(id, '-')+1:])
	if err != nil {
		return 0, fmt.Errorf("%s: %q was not made by a lab", bootID, id)
	}
	return n, nil
}
