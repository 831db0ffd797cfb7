package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/bootctl/uboot/model"
	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/lab"
)

const (
	bankA = fwu.BankA
	bankB = fwu.BankB

	exitOK           = fwu.ExitOK
	exitNothing      = fwu.ExitNothingToDo
	exitNotPermitted = fwu.ExitNotPermitted
	exitVerification = fwu.ExitVerification

	checkpoint = fwu.CheckpointInterval
)

// device is the machine: a disk in a file, a tree with what the kernel and the root file system show of it, and a message bus.
type device struct {
	*lab.Device
	dir, binary string
	out         io.Writer
	bus         string
	stopBus     func() error
	logind      *logind
	daemon      *exec.Cmd
	boots       int
	bank        fwu.Bank
	steps       int
	summary     bytes.Buffer
	log         lockedBuffer // of the service
}

// lockedBuffer is written by a process and read by us.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

func (d *device) path(name string) string { return filepath.Join(d.dir, name) }

// makeDevice makes the disk, with bank a filled, and the tree around it.
func (d *device) makeDevice() (err error) {
	if d.Device, err = lab.New(d.dir, slotSize, 2<<20, "bundled"); err != nil {
		return err
	}
	for _, name := range slices.SortedFunc(maps.Keys(d.Extents), func(a, b string) int { return cmp.Compare(d.Extents[a].Offset, d.Extents[b].Offset) }) {
		d.note("%-10s %6.1f MiB at %d", name, float64(d.Extents[name].Size)/(1<<20), d.Extents[name].Offset)
	}
	text, err := os.ReadFile(filepath.Join(d.Root, "etc/fwu-ab/fwu-ab.toml"))
	if err != nil {
		return err
	}
	fmt.Fprintln(d.out, "/etc/fwu-ab/fwu-ab.toml:")
	for line := range strings.Lines(strings.ReplaceAll(string(text), d.dir+"/", "")) {
		fmt.Fprintf(d.out, "    %s", line)
	}
	for _, c := range []string{"rootfs", "bootfw"} {
		b, err := os.ReadFile(d.path(c + "-1.img"))
		if err != nil {
			return err
		}
		if err := d.Fill(c+"_a", 0, b); err != nil {
			return err
		}
	}
	return copyFile(d.path("release.pub"), filepath.Join(d.Root, "etc/fwu-ab/keys/release.pub"))
}

func (d *device) provision(ctx context.Context) error {
	if err := d.copyRelease(d.path("rootfs-1.img")); err != nil {
		return err
	}
	return d.fwu(ctx, exitOK, "provision", "--bank", "a",
		"--size", fmt.Sprint("rootfs=", fileSize(d.path("rootfs-1.img"))), "--size", fmt.Sprint("bootfw=", fileSize(d.path("bootfw-1.img"))))
}

func (d *device) startBus(ctx context.Context) (err error) {
	if d.bus, d.stopBus, err = privatebus.Start(ctx, d.dir); err != nil {
		return err
	}
	d.logind, err = startLogind(d.bus)
	return err
}

// bootloader is U-Boot with the script that is shipped, on this disk.
func (d *device) bootloader() model.Bootloader {
	at := d.Extents["uboot-env"].Offset
	loc := func(off int64) uboot.Location {
		return uboot.Location{Path: d.Disk, Offset: at + off, Size: lab.EnvironmentSize}
	}
	return model.Bootloader{Environment: uboot.Environment{Copies: []uboot.Location{loc(0), loc(lab.EnvironmentSize)}, Open: uboot.OpenMedium}}
}

// bootable tells whether a bootloader can load a kernel from the file system in a bank's slot.
func (d *device) bootable(ctx context.Context, bank string) bool {
	kernel, err := d.readFile(ctx, bank, "/boot/Image")
	return err == nil && len(kernel) > 0
}

// readFile reads a file of the file system in a bank's slot, as it lies on the disk.
func (d *device) readFile(ctx context.Context, bank, name string) ([]byte, error) {
	return debugfs(ctx, fmt.Sprintf("%s?offset=%d", d.Disk, d.Extents["rootfs_"+bank].Offset), "cat "+name)
}

// powerOn runs the bootloader until a kernel comes up, and starts the service on what was booted.
func (d *device) powerOn(ctx context.Context) error {
	for range 5 {
		out, err := d.bootloader().Boot(func(b fwu.Bank) bool { return d.bootable(ctx, string(b)) })
		if err != nil {
			return err
		}
		if out.Bank == fwu.NoBank {
			return errors.New("no bank can be started: the device is a brick")
		}
		kernel, err := d.readFile(ctx, string(out.Bank), "/boot/Image")
		if err != nil {
			return err
		}
		d.note("[bootloader] starting bank %s: %s", out.Bank, strings.TrimSpace(string(kernel)))
		if !bytes.Contains(kernel, []byte("panics")) {
			return d.userSpace(ctx, out)
		}
		d.note("[kernel] panic: reset")
	}
	return errors.New("the device resets for ever")
}

// userSpace makes the tree look like a system that was booted from a bank, and starts the service.
func (d *device) userSpace(ctx context.Context, out model.Outcome) error {
	d.boots++
	d.bank = out.Bank
	if err := d.copyReleaseFrom(ctx, string(out.Bank)); err != nil {
		return err
	}
	if err := d.Booted(d.boots, out.CommandLine+" quiet"); err != nil {
		return err
	}
	d.daemon = exec.Command(d.binary, "--root", d.Root, "--bus", d.bus, "daemon")
	d.daemon.Stderr = &d.log
	if err := d.daemon.Start(); err != nil {
		return err
	}
	return d.waitForService(ctx)
}

func (d *device) waitForService(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		cmd := exec.CommandContext(ctx, d.binary, "--bus", d.bus, "status", "--json")
		if cmd.Run() == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the service does not come up")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// rebooted waits until the service asked logind for a reboot, and does it.
func (d *device) rebooted(ctx context.Context) error {
	select {
	case <-d.logind.asked:
	case <-ctx.Done():
		return ctx.Err()
	}
	d.note("[logind] reboot")
	if err := d.stopDaemon(os.Interrupt); err != nil {
		return err
	}
	return d.powerOn(ctx)
}

func (d *device) reset(ctx context.Context, why string) error {
	d.note("[reset] %s", why)
	if err := d.stopDaemon(os.Kill); err != nil {
		return err
	}
	return d.powerOn(ctx)
}

func (d *device) powerCut(ctx context.Context) error {
	return d.reset(ctx, "the power is gone, and comes back")
}

func (d *device) stopDaemon(sig os.Signal) error {
	if d.daemon == nil {
		return nil
	}
	err := d.daemon.Process.Signal(sig)
	waitErr := d.daemon.Wait()
	d.daemon = nil
	if sig == os.Kill {
		return err
	}
	return errors.Join(err, waitErr)
}

func (d *device) shutDown() error {
	err := d.stopDaemon(os.Interrupt)
	if d.logind != nil {
		err = errors.Join(err, d.logind.conn.Close())
	}
	if d.stopBus != nil {
		err = errors.Join(err, d.stopBus())
	}
	return err
}

// fwu runs the program as a user would, shows what it prints, and compares the exit code.
func (d *device) fwu(ctx context.Context, want int, args ...string) error {
	shown := slices.Clone(args)
	for i, a := range shown {
		if strings.Contains(a, " ") {
			shown[i] = "'" + a + "'"
		}
	}
	fmt.Fprintf(d.out, "$ fwu-ab %s\n", strings.ReplaceAll(strings.Join(shown, " "), d.dir+"/", ""))
	full := args
	switch args[0] {
	case "doctor", "provision":
		full = append([]string{"--root", d.Root}, args...)
	}
	cmd := exec.CommandContext(ctx, d.binary, full...)
	cmd.Env = append(os.Environ(), "FWU_AB_BUS="+d.bus)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	for line := range strings.Lines(out.String()) {
		fmt.Fprintf(d.out, "    %s", strings.ReplaceAll(line, d.dir+"/", ""))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		return fmt.Errorf("fwu-ab %s: exit code %d, expected %d", args[0], code, want)
	}
	d.steps++
	return nil
}

type status struct {
	Booted     fwu.Bank
	Degraded   []string
	Components []struct {
		Name, State, Version string
		Written              int64
	}
}

func (d *device) status(ctx context.Context) (status, error) {
	var st status
	out, err := exec.CommandContext(ctx, d.binary, "--bus", d.bus, "status", "--json").Output()
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(out, &st)
}

// expect shows the state and compares it.
func (d *device) expect(ctx context.Context, rootfs, bootfw string, bank fwu.Bank) error {
	if err := d.fwu(ctx, exitOK, "status"); err != nil {
		return err
	}
	st, err := d.status(ctx)
	if err != nil {
		return err
	}
	var got []string
	for _, c := range st.Components {
		got = append(got, c.State+" "+c.Version)
	}
	if g, want := strings.Join(got, ", "), rootfs+", "+bootfw; g != want || st.Booted != bank || len(st.Degraded) > 0 {
		return fmt.Errorf("the device is %s in bank %s (%v), expected %s in bank %s", g, st.Booted, st.Degraded, want, bank)
	}
	d.steps++
	return nil
}

func (d *device) written(ctx context.Context, component string) (int64, error) {
	st, err := d.status(ctx)
	for _, c := range st.Components {
		if c.Name == component {
			return c.Written, err
		}
	}
	return 0, err
}

// writeHalf starts an update whose data stops coming after two checkpoints: the second one finds what the first made durable read back.
func (d *device) writeHalf(ctx context.Context, component, file string) error {
	if err := d.fwu(ctx, exitOK, "start", component); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	client := exec.CommandContext(ctx, d.binary, "--bus", d.bus, "write", component, "-")
	in, err := client.StdinPipe()
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "$ fwu-ab write %s -\n", component)
	if _, err := io.CopyN(in, f, 2*checkpoint+1<<20+123456); err != nil {
		return err
	}
	for written := int64(0); written < checkpoint; {
		if written, err = d.written(ctx, component); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	err = client.Process.Kill()
	_ = client.Wait() // killed
	return err
}
