package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Init is the service manager as a process: what is left to ask where neither bus nor logind answers.
type Init struct {
	// Signal sends a signal to process 1.
	Signal func(unix.Signal) error
	// Restart resets the machine at once.
	Restart func() error
	// Patience is how long Reset waits after each step for the machine to go down.
	Patience [2]time.Duration
}

// TheInit is that of the running system. Services get five minutes to end, as they may be why the system is being given up.
func TheInit() Init {
	return Init{
		Signal:   func(s unix.Signal) error { return unix.Kill(1, s) },
		Restart:  func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) },
		Patience: [2]time.Duration{5 * time.Minute, 30 * time.Second},
	}
}

// sigRTMin is SIGRTMIN of the C library, in whose numbers systemd(1) counts.
const sigRTMin = 34

// The signals that ask systemd for a reboot (systemd(1), "Signals"). Neither looks for a kexec kernel.
const (
	rebootTarget = unix.Signal(sigRTMin + 5)  // starts reboot.target
	rebootNow    = unix.Signal(sigRTMin + 15) // reboots at once, with what is mounted unmounted
)

// Reset reboots through the firmware, the more roughly the less the system follows: reboot.target; the service manager without its units; the kernel.
// It returns only if ctx ends or nothing helped.
func (i Init) Reset(ctx context.Context) error {
	var errs []error
	for n, sig := range []unix.Signal{rebootTarget, rebootNow} {
		if err := i.Signal(sig); err != nil {
			errs = append(errs, fmt.Errorf("ask process 1 for a reboot with signal %d: %w", int(sig), err))
			continue
		}
		select {
		case <-ctx.Done():
			return errors.Join(append(errs, context.Cause(ctx))...)
		case <-time.After(i.Patience[n]):
			errs = append(errs, fmt.Errorf("process 1 did not reboot within %v of signal %d", i.Patience[n], int(sig)))
		}
	}
	if err := i.Restart(); err != nil {
		errs = append(errs, fmt.Errorf("reset by the kernel: %w", err))
	}
	return errors.Join(errs...)
}
