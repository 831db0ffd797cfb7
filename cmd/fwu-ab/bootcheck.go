package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/bootctl"
	"github.com/fwu-ab/fwu-ab/bootctl/efi"
	"github.com/fwu-ab/fwu-ab/config"
	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/systemd"
	"github.com/fwu-ab/fwu-ab/systemd/bootcheck"
	"github.com/spf13/cobra"
)

func newBootCheckCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "boot-check",
		Short: "Accept a new system that reached boot-complete.target",
		Long: `Accept a new system that reached boot-complete.target, if no unit has failed that the configuration names; else reject it and reboot.
Units run this and its sub-commands after each boot. On a system that is not on trial they do nothing.`,
		Args: cobra.NoArgs,
		RunE: bootCheck(g, acceptNew),
	}
	for _, c := range []struct {
		use, short string
		run        func(context.Context, *bootChecker) error
	}{
		{"health", "Run the health checks of a new system; if a required one fails, reject it and reboot", runChecks},
		{"failed", "Reject a new system that did not reach boot-complete.target, and reboot", rejectFailed},
		{"deadline", "Wait until a new system is accepted; when that takes too long, reject it and reboot, without the service if need be", watchDeadline},
	} {
		cmd.AddCommand(&cobra.Command{Use: c.use, Short: c.short, Args: cobra.NoArgs, RunE: bootCheck(g, c.run)})
	}
	return cmd
}

// bootChecker is what the verbs of the boot check work with.
type bootChecker struct {
	bootcheck.Trial
	m      *machine // with no more than the defaults if the configuration cannot be loaded
	broken error    // why it cannot
	root   string
	bus    string
}

func bootCheck(g *globals, run func(context.Context, *bootChecker) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		b := newBootChecker(g, logTo(cmd.ErrOrStderr(), slog.LevelInfo))
		if err := b.Configure(cmd.Context(), b.load); cmd.Context().Err() != nil {
			return err // any other error is b.broken
		}
		return run(cmd.Context(), b)
	}
}

func newBootChecker(g *globals, log *slog.Logger) *bootChecker {
	b := &bootChecker{root: g.root, bus: g.bus}
	b.Trial = bootcheck.Trial{
		Call: func(ctx context.Context, f func(bootcheck.Service) error) error {
			c, err := dbus.Dial(ctx, g.bus)
			if err != nil {
				return err
			}
			return errors.Join(f(c), c.Close())
		},
		Evidence:  b.onTrial,
		Reset:     b.reset,
		SinceBoot: bootcheck.SinceBoot,
		Log:       log,
	}
	_ = b.load() // see broken
	return b
}

// load reads the configuration, and returns the error that it is of no use.
func (b *bootChecker) load() error {
	if b.m, b.broken = loadMachine(b.root); b.broken != nil {
		b.m = &machine{root: b.root, cfg: &config.Config{BootCheck: config.DefaultBootCheck()}}
	}
	b.Deadline = b.m.cfg.BootCheck.Deadline
	b.Hopeless = b.broken != nil && fwu.CauseOf(b.broken) != fwu.CauseMedium
	return b.broken
}

// reset resets the machine, if the system that is looked at is the one that runs.
func (b *bootChecker) reset(ctx context.Context) error {
	if b.m.root != "" && b.m.root != "/" {
		return fmt.Errorf("the system below %s is not the one that runs, which is not reset", b.m.root)
	}
	return systemd.TheInit().Reset(ctx)
}

func acceptNew(ctx context.Context, b *bootChecker) error {
	if b.broken != nil {
		return b.broken
	}
	if b.m.cfg.BootCheck.Accept == config.AcceptClient {
		b.Log.Info("an update client accepts new systems", "accept", config.AcceptClient, "deadline", b.m.cfg.BootCheck.Deadline)
		return nil
	}
	return b.Accept(ctx, b.m.cfg.BootCheck.Units, b.units)
}

func runChecks(ctx context.Context, b *bootChecker) error {
	if b.broken != nil {
		return b.broken
	}
	return b.Checks(ctx, b.m.root, runner(b.Log, "check", b.m.cfg.BootCheck.CheckTimeout))
}

func rejectFailed(ctx context.Context, b *bootChecker) error {
	text := "boot-complete.target was not reached"
	units, err := b.units(ctx)
	var names []string
	for _, u := range units {
		if !strings.HasPrefix(u.Name, "fwu-ab-") { // those of the boot check are no cause
			names = append(names, u.Name)
		}
	}
	switch {
	case err != nil:
		b.Log.Warn("which units failed is not known", "err", err)
	case len(names) > 0:
		text += "; failed: " + strings.Join(names, ", ")
	}
	return b.GiveUp(ctx, fwu.Rejection{Reason: fwu.ReasonTrialCheck, Text: text})
}

func watchDeadline(ctx context.Context, b *bootChecker) error {
	return b.Watch(ctx, b.m.cfg.BootCheck.Deadline)
}

// units asks the service manager.
func (b *bootChecker) units(ctx context.Context, names ...string) ([]systemd.Unit, error) {
	bus, err := connect(ctx, b.bus)
	if err != nil {
		return nil, err
	}
	units, err := systemd.Host{Bus: bus, Root: b.m.root}.Units(ctx, names...)
	return units, errors.Join(err, bus.Close())
}

// errNoEvidence is wrapped by errors of what the configuration names and the system does not have.
var errNoEvidence = errors.New("the configuration does not fit the system")

// onTrial tells without the service whether the running bank is on trial. A new system may well be
// one whose configuration is of no use: then the answers of the boot script and the firmware count.
// With an error it is not known.
func (b *bootChecker) onTrial(ctx context.Context) (bool, error) {
	on, err := false, b.broken
	if err == nil {
		if on, err = b.m.onTrial(ctx); !errors.Is(err, errNoEvidence) {
			return on, err
		}
	}
	script, errScript := (bootctl.Running{Root: b.m.root}).StartedOnTrial()
	if script {
		b.Log.Warn("the boot script started this system on trial", "err", err)
		return true, nil
	}
	firmware, errFirmware := efi.StartedOnTrial(efi.Directory{Path: b.m.path(config.DefaultVariables)})
	if firmware {
		b.Log.Warn("the firmware started this system, and another one is its default", "err", err)
		return true, nil
	}
	if errors.Is(errFirmware, fs.ErrNotExist) { // there is no such firmware
		errFirmware = nil
	}
	return false, errors.Join(err, errScript, errFirmware)
}

// onTrial tells whether the running bank is on trial: it is not the default, and the record, if one can be read, does not say otherwise. That it cannot be left is an error: a reset
// would start something that does not come up.
func (m *machine) onTrial(ctx context.Context) (bool, error) {
	sel, boot, components, err := m.selection(ctx)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errNoEvidence, err)
	}
	if sel.Default == fwu.NoBank || sel.Default == boot.Bank {
		return false, nil
	}
	if report, err := m.inspectStore(ctx); err == nil {
		switch {
		case report.Trial != boot.Bank:
			return false, nil
		case report.Rebooted:
			return false, errors.New("a reboot was tried, and led back to this system")
		}
	}
	// The bootloader loads from the member with the lowest id, and while that is plain so are the others of its bank.
	i := slices.IndexFunc(components, func(c fwu.Component) bool { return !c.Live })
	if i < 0 {
		return false, nil
	}
	first := components[i]
	if ok, err := first.Slots[sel.Default.Index()].Bootable(ctx); err != nil || !ok {
		return false, errors.Join(fmt.Errorf("slot %s of %s, which a reset would start, cannot be started", sel.Default, first.Name), err)
	}
	return true, nil
}

// selection reads the boot selection, and which bank is running. Without a selector both are empty.
func (m *machine) selection(ctx context.Context) (sel fwu.Selection, boot fwu.Boot, components []fwu.Component, err error) {
	selector, err := m.selector(ctx)
	if err != nil || selector == nil {
		return sel, boot, nil, err
	}
	if components, err = m.components(ctx); err != nil {
		return sel, boot, nil, err
	}
	if boot, err = m.boot(ctx, selector, components); err != nil {
		return sel, boot, nil, err
	}
	if boot.Bank == fwu.NoBank {
		return sel, boot, nil, errors.New(boot.Why)
	}
	if sel, err = selector.Look(); err != nil {
		// a unit that accepts has a sandbox in which nothing can be committed
		return sel, boot, nil, fmt.Errorf("read the boot selection: %w", err)
	}
	return sel, boot, components, nil
}
