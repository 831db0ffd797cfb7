package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// Host is the machine as its service manager and logind present it on a bus.
type Host struct {
	Bus *godbus.Conn
	// Root is the directory below which sys is found; empty: that of the machine.
	Root string
}

// ErrRefused marks a reboot that was asked for and will not happen; the text says why. An error of Reboot without the mark leaves
// open whether it happens.
var ErrRefused = errors.New("reboot refused")

const (
	logindName   = "org.freedesktop.login1"
	logindPath   = "/org/freedesktop/login1"
	logindReboot = "org.freedesktop.login1.Manager.Reboot"
)

// Reboot asks logind for a reboot through the bootloader and returns when it was accepted.
//
// RebootWithFlags (logind 248 and later, org.freedesktop.login1(5)) uses a loaded kexec kernel, or makes a soft reboot, only if a flag
// asks for it: we pass none. An older logind has Reboot alone. No version of that looks for a kexec kernel (systemctl does, on its
// own), but neither does a flag promise it, so it is called only if none is loaded.
func (h Host) Reboot(ctx context.Context) error {
	logind := h.Bus.Object(logindName, logindPath)
	err := logind.CallWithContext(ctx, logindReboot+"WithFlags", 0, uint64(0)).Err
	if errorName(err) == "org.freedesktop.DBus.Error.UnknownMethod" {
		if err := h.noKexecKernel(); err != nil {
			return err
		}
		err = logind.CallWithContext(ctx, logindReboot, 0, false).Err
	}
	switch {
	case err == nil:
		return nil
	case isAnswer(err):
		return fmt.Errorf("%w by logind: %w", ErrRefused, err)
	}
	return fmt.Errorf("ask logind for a reboot: %w", err)
}

// Inhibit asks logind to keep the machine from going down and to sleep (org.freedesktop.login1(5), "Inhibit") until release is called, or this process ends.
func (h Host) Inhibit(ctx context.Context, why string) (release func(), err error) {
	var fd godbus.UnixFD
	err = h.Bus.Object(logindName, logindPath).CallWithContext(ctx, "org.freedesktop.login1.Manager.Inhibit", 0, "shutdown:sleep", "fwu-ab", why, "block").Store(&fd)
	if err != nil {
		return nil, fmt.Errorf("ask logind to inhibit shutdown and sleep: %w", err)
	}
	lock := os.NewFile(uintptr(fd), "inhibitor")
	return func() { _ = lock.Close() }, nil
}

// noKexecKernel refuses where a kexec kernel is loaded, or where that cannot be told.
func (h Host) noKexecKernel() error {
	file := filepath.Join("/", h.Root, "sys/kernel/kexec_loaded")
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist): // a kernel without kexec
		return nil
	case err != nil:
		return fmt.Errorf("%w: it is unknown whether a kexec kernel is loaded: %w", ErrRefused, err)
	case strings.TrimSpace(string(data)) != "0":
		return fmt.Errorf("%w: a kexec kernel is loaded (%s), and this logind cannot be told to go through the bootloader; unload it with kexec -u", ErrRefused, file)
	}
	return nil
}

// errorName is the name of the D-Bus error that err is, empty if it is none.
func errorName(err error) string {
	var e godbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	return ""
}

// isAnswer tells whether err is what the other side answered, or the bus in its place because there is nobody: in either case the call
// had no effect. Not an answer is that none came.
func isAnswer(err error) bool {
	switch errorName(err) {
	case "", "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Timeout",
		"org.freedesktop.DBus.Error.TimedOut", "org.freedesktop.DBus.Error.Disconnected":
		return false
	}
	return true
}

const (
	managerName = "org.freedesktop.systemd1"
	managerPath = "/org/freedesktop/systemd1"
	manager     = "org.freedesktop.systemd1.Manager."
)

// Restart restarts a unit and waits for the outcome (org.freedesktop.systemd1(5), RestartUnit and JobRemoved). Anything but "done"
// is an error that names unit and outcome. When ctx ends before, the job goes on.
func (h Host) Restart(ctx context.Context, unit string) error {
	if err := h.restart(ctx, unit); err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	return nil
}

func (h Host) restart(ctx context.Context, unit string) error {
	match := []godbus.MatchOption{
		godbus.WithMatchSender(managerName), godbus.WithMatchObjectPath(managerPath),
		godbus.WithMatchInterface(strings.TrimSuffix(manager, ".")), godbus.WithMatchMember("JobRemoved"),
	}
	if err := h.Bus.AddMatchSignalContext(ctx, match...); err != nil {
		return fmt.Errorf("watch jobs: %w", err)
	}
	defer h.unmatch(ctx, match)
	signals := make(chan *godbus.Signal, 16)
	h.Bus.Signal(signals)
	defer h.Bus.RemoveSignal(signals)

	systemd := h.Bus.Object(managerName, managerPath)
	err := systemd.CallWithContext(ctx, manager+"Subscribe", 0).Err
	if err != nil && errorName(err) != "org.freedesktop.systemd1.AlreadySubscribed" {
		return fmt.Errorf("subscribe to jobs: %w", err)
	}
	// The match filters what is broadcast; a signal that somebody else sends to us alone is told by its sender.
	var owner string
	if err := h.Bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetNameOwner", 0, managerName).Store(&owner); err != nil {
		return err
	}
	var job godbus.ObjectPath
	if err := systemd.CallWithContext(ctx, manager+"RestartUnit", 0, unit, "replace").Store(&job); err != nil {
		return err
	}
	return waitForJob(ctx, signals, owner, job)
}

// unmatch undoes a match even if ctx has ended. What goes wrong is nobody's concern: the match costs nothing but its memory.
func (h Host) unmatch(ctx context.Context, match []godbus.MatchOption) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = h.Bus.RemoveMatchSignalContext(ctx, match...)
}

// waitForJob waits until the job is gone. The signal may have come before the answer that names the job: it is in the channel then.
func waitForJob(ctx context.Context, signals <-chan *godbus.Signal, owner string, job godbus.ObjectPath) error {
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for its job: %w", context.Cause(ctx))
		case s, ok := <-signals:
			if !ok {
				return fmt.Errorf("wait for its job: %w", godbus.ErrClosed)
			}
			if s.Sender != owner || s.Path != managerPath || s.Name != manager+"JobRemoved" {
				continue
			}
			var id uint32
			var path godbus.ObjectPath
			var unit, result string
			if err := godbus.Store(s.Body, &id, &path, &unit, &result); err != nil || path != job {
				continue
			}
			if result != "done" {
				return fmt.Errorf("job of %s ended with %q", unit, result)
			}
			return nil
		}
	}
}
