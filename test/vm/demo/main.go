// Command demo shows updates on a virtual machine with real UEFI firmware, kernel and systemd: one that is accepted, one whose kernel panics, one that is not healthy, one that loses
// power while it is written, and one that is forged. What the machine prints on its serial console is shown as it boots. As root only: it makes root file systems.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/fwu-ab/fwu-ab/test/vm"
)

func main() {
	top := flag.String("source", ".", "directory of the project")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	err := run(ctx, *top)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

// show is a machine that people look at.
type show struct {
	*vm.Workshop
	machine *vm.Machine
	on      *vm.Running
	dir     string
	began   time.Time
}

func run(ctx context.Context, top string) (err error) {
	dir, err := os.MkdirTemp("", "fwu-ab-demo-vm-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &show{dir: dir, began: time.Now()}
	defer func() {
		if s.on != nil {
			s.on.Kill()
		}
	}()
	for _, chapter := range []func(context.Context) error{
		func(ctx context.Context) error { return s.factory(ctx, top) }, s.accepted, s.panics, s.unhealthy, s.cutOff, s.forged,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("\nAs expected in every step, in %.0f s\n", time.Since(s.began).Seconds())
	return nil
}

func title(format string, args ...any) { fmt.Printf("\n=== "+format+"\n", args...) }

func note(format string, args ...any) { fmt.Printf("    "+format+"\n", args...) }

func (s *show) path(name string) string { return filepath.Join(s.dir, name) }

func (s *show) factory(ctx context.Context, top string) error {
	title("In the factory: a Debian from packages, fwu-ab installed in it, a disk with bank a filled")
	w, err := vm.NewWorkshop(ctx, top, s.dir, vm.Shown())
	if err != nil {
		return err
	}
	s.Workshop = w
	images := map[string]string{"rootfs": s.path("rootfs-1.img"), "boot": s.path("boot-1.img"), "app": s.path("app-1.img")}
	err = errors.Join(w.MakeRoot(ctx, images["rootfs"], vm.Root{Version: 1}), w.MakeLoader(ctx, images["boot"]), os.WriteFile(images["app"], []byte("application 1.0\n"), 0o644))
	if err != nil {
		return err
	}
	disk, err := w.MakeDisk(ctx, s.path("disk.img"), images)
	if err != nil {
		return err
	}
	s.machine = &vm.Machine{Kind: vm.Shown(), Disk: disk, Dir: s.dir, Console: &screen{}}
	note("the firmware knows no entry for the disk: its shell finds a script, which starts bank a")
	if err := s.boot(ctx, ""); err != nil {
		return err
	}
	return s.expect(ctx, "booted a, default a, trial -: boot READY 1.0.0, rootfs READY 1.0.0, app READY 1.0.0")
}

// boot switches the machine on.
func (s *show) boot(ctx context.Context, payload string) (err error) {
	if s.on, err = s.machine.On(ctx, payload); err != nil {
		return err
	}
	_, err = s.on.WaitAgent(ctx)
	return err
}

// command runs a command in the machine as a person would on its console.
func (s *show) command(ctx context.Context, want int, args ...string) error {
	fmt.Printf("\n    device# %s\n", strings.Join(args, " "))
	reply, err := s.on.Exec(ctx, args...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(reply.Out + reply.Err) {
		fmt.Print("    ", line)
	}
	if reply.Code != want {
		return fmt.Errorf("%q: exit code %d, want %d", args, reply.Code, want)
	}
	return nil
}

// expect waits for a state, and shows it.
func (s *show) expect(ctx context.Context, want string) error {
	st, err := s.on.Until(ctx, func(st vm.Status) bool { return st.String() == want })
	if err != nil {
		return fmt.Errorf("want %s, not %v: %w", want, st, err)
	}
	return s.command(ctx, 0, "fwu-ab", "status")
}

// resets waits until the machine resets itself, and switches it on again.
func (s *show) resets(ctx context.Context, payload string) error {
	exit, err := s.on.Wait(ctx)
	if err == nil && exit != vm.Reset {
		err = fmt.Errorf("the machine ended by %q, and not by a reset", exit)
	}
	if err != nil {
		return err
	}
	fmt.Println("    - reset -")
	return s.boot(ctx, payload)
}

// insert switches the machine off, and on with a disk that holds version n.
func (s *show) insert(ctx context.Context, n int, r vm.Root) error {
	r.Version = n
	root, payload := s.path("next.img"), s.path(fmt.Sprintf("payload-%d.img", n))
	if err := s.MakeRoot(ctx, root, r); err != nil {
		return err
	}
	if err := s.MakePayload(ctx, payload, n, vm.Image{Component: "rootfs", Path: root}); err != nil {
		return err
	}
	note("a disk with version %d is put in", n)
	if _, err := s.on.Exec(ctx, "systemctl", "poweroff"); err != nil {
		return err
	}
	if exit, err := s.on.Wait(ctx); err != nil || exit != vm.PowerOff {
		return fmt.Errorf("the machine ended by %q: %w", exit, err)
	}
	if err := s.boot(ctx, payload); err != nil {
		return err
	}
	return s.mount(ctx)
}

func (s *show) mount(ctx context.Context) error {
	// The service is up when it says how things stand.
	if _, err := s.on.Until(ctx, func(vm.Status) bool { return true }); err != nil {
		return err
	}
	return s.command(ctx, 0, "mount", "-m", "-o", "ro", "/dev/nvme1n1", "/run/payload")
}

// try installs what was put in and reboots into it.
func (s *show) try(ctx context.Context) error {
	return s.command(ctx, 0, "fwu-ab", "update", "/run/payload/rootfs.suit", "/run/payload/rootfs.img", "--reboot")
}

func (s *show) accepted(ctx context.Context) error {
	title("Version 2: written beside the running system, started once on trial, healthy, accepted")
	if err := s.insert(ctx, 2, vm.Root{}); err != nil {
		return err
	}
	if err := s.try(ctx); err != nil {
		return err
	}
	if err := s.resets(ctx, ""); err != nil {
		return err
	}
	return s.expect(ctx, "booted b, default b, trial -: boot READY 1.0.0, rootfs UPDATED 2.0.0, app READY 1.0.0")
}

func (s *show) panics(ctx context.Context) error {
	title("Version 3: its kernel panics. Nothing of it ever runs; the firmware starts the old system again")
	if err := s.insert(ctx, 3, vm.Root{Remove: []string{"sbin", "usr/sbin/init"}, Files: vm.Files{"sbin/init*": "#!/bin/sh\nmount -t proc proc /proc\necho c > /proc/sysrq-trigger\n"}}); err != nil {
		return err
	}
	if err := s.try(ctx); err != nil {
		return err
	}
	if exit, err := s.on.Wait(ctx); err != nil || exit != vm.Reset {
		return fmt.Errorf("the machine ended by %q: %w", exit, err)
	}
	fmt.Println("    - reset -")
	var err error
	if s.on, err = s.machine.On(ctx, ""); err != nil {
		return err
	}
	if err := s.resets(ctx, ""); err != nil {
		return err
	}
	return s.expect(ctx, "booted b, default b, trial -: boot READY 1.0.0, rootfs FAILED 2.0.0 (trial-not-booted: the new system was armed, and the old one came up again), app READY 1.0.0")
}

func (s *show) unhealthy(ctx context.Context) error {
	title("Version 4: it comes up, and a health check of the maker's fails. The old system says why")
	if err := s.insert(ctx, 4, vm.Root{Files: vm.Files{"usr/lib/fwu-ab/check.d/required.d/10-network*": "#!/bin/sh\necho no default route\nexit 1\n"}}); err != nil {
		return err
	}
	if err := s.try(ctx); err != nil {
		return err
	}
	if err := s.resets(ctx, ""); err != nil {
		return err
	}
	if err := s.resets(ctx, ""); err != nil {
		return err
	}
	return s.expect(ctx, "booted b, default b, trial -: boot READY 1.0.0, rootfs FAILED 2.0.0 (trial-check: required.d/10-network: exit status 1: no default route), app READY 1.0.0")
}

func (s *show) cutOff(ctx context.Context) error {
	title("Version 5: the power fails while it is written")
	payload := s.path("payload-5.img")
	if err := s.insert(ctx, 5, vm.Root{}); err != nil {
		return err
	}
	if err := s.command(ctx, 0, "sh", "-c", "fwu-ab clean rootfs && fwu-ab start rootfs --manifest /run/payload/rootfs.suit && head -c 80M /run/payload/rootfs.img | fwu-ab write rootfs -"); err != nil {
		return err
	}
	s.on.Kill()
	fmt.Println("    - power cut -")
	if err := s.boot(ctx, payload); err != nil {
		return err
	}
	if err := s.expect(ctx, "booted b, default b, trial -: boot READY 1.0.0, rootfs WRITING 2.0.0, app READY 1.0.0"); err != nil {
		return err
	}
	note("it goes on where it was")
	if err := s.mount(ctx); err != nil {
		return err
	}
	if err := s.try(ctx); err != nil {
		return err
	}
	if err := s.resets(ctx, payload); err != nil {
		return err
	}
	return s.expect(ctx, "booted a, default a, trial -: boot READY 1.0.0, rootfs UPDATED 5.0.0, app READY 1.0.0")
}

func (s *show) forged(ctx context.Context) error {
	title("A forgery: one byte of the image differs from what was signed")
	if err := s.mount(ctx); err != nil {
		return err
	}
	if err := s.command(ctx, 0, "sh", "-ec", "fwu-ab clean rootfs; mount -t tmpfs tmpfs /mnt; cp /run/payload/rootfs.img /mnt; printf X | dd of=/mnt/rootfs.img bs=1 seek=5000000 conv=notrunc status=none"); err != nil {
		return err
	}
	if err := s.command(ctx, verificationFailed, "fwu-ab", "update", "--force", "/run/payload/rootfs.suit", "/mnt/rootfs.img"); err != nil {
		return err
	}
	return s.command(ctx, 0, "fwu-ab", "status")
}

// verificationFailed is the exit code of fwu-ab for it.
const verificationFailed = 5

// screen shows what a serial console prints, without what moves the cursor, and without the call trace of a panic.
type screen struct {
	line  []byte
	trace bool
}

func (s *screen) Write(p []byte) (int, error) {
	for _, c := range p {
		if c != '\n' {
			s.line = append(s.line, c)
			continue
		}
		s.show(strings.TrimSpace(escapes.ReplaceAllString(string(s.line), "")))
		s.line = s.line[:0]
	}
	return len(p), nil
}

func (s *screen) show(text string) {
	switch {
	case text == "":
		return
	case strings.HasSuffix(text, "Call Trace:"):
		s.trace = true
	case strings.Contains(text, "Rebooting in"):
		s.trace = false
	}
	if !s.trace {
		fmt.Println("    |", text)
	}
}

// escapes are control sequences (ECMA-48).
var escapes = regexp.MustCompile("\x1b\\[[0-9;=?]*[A-Za-z]|\r")
