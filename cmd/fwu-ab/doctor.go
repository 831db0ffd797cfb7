package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fwu-ab/fwu-ab/config"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/spf13/cobra"
)

func newDoctorCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Look at every part that an update needs, and say what is wrong and what to do about it",
		Long: `Look at configuration, slots, evidence of the booted bank, boot selector, store, release record and trust anchors. Nothing is changed.
It needs no service, and does not disturb one that runs: everything is opened to be read only.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{out: cmd.OutOrStdout()}
			d.examine(cmd.Context(), g.root)
			switch d.problems {
			case 0:
				return d.err
			case 1:
				return errors.New("one problem found")
			}
			return fmt.Errorf("%d problems found", d.problems)
		},
	}
}

// doctor prints a line for each thing that it looked at: "ok", "!!" for a problem, followed by what to do.
type doctor struct {
	out      io.Writer
	problems int
	err      error
}

func (d *doctor) print(mark, what, text string) {
	_, err := fmt.Fprintf(d.out, "%-3s %-22s %s\n", mark, what, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", 27)))
	d.err = errors.Join(d.err, err)
}

func (d *doctor) ok(what, format string, args ...any) {
	d.print("ok", what, fmt.Sprintf(format, args...))
}

func (d *doctor) bad(what string, err error, remedy string) {
	d.problems++
	if h := hint(err); h != "" {
		remedy = h
	}
	d.print("!!", what, err.Error())
	if remedy != "" {
		d.print("", "", "-> "+remedy)
	}
}

func (d *doctor) examine(ctx context.Context, root string) {
	m, err := loadMachine(root)
	if err != nil {
		d.bad("configuration", err, "correct the file; fwu-ab config prints what is in force")
		return
	}
	d.ok("configuration", "%s", strings.Join(m.cfg.Report.Files, ", "))
	if err := m.owners(); err != nil {
		d.bad("owners", err, "the service does not start while others than root can change what it trusts")
	} else {
		d.ok("owners", "only root can change configuration, trust anchors, health checks and hooks")
	}
	if err := m.lockable(ctx); err != nil {
		d.bad("locks", err, "")
	}
	d.partitions(ctx, m)
	components := d.components(ctx, m)
	booted := d.boot(ctx, m, components)
	d.slots(components, booted)
	trial, known := d.store(ctx, m, components)
	d.selector(ctx, m, booted, !known || trial == booted)
	d.release(m)
	d.device(m)
}

func (d *doctor) partitions(ctx context.Context, m *machine) {
	parts, err := m.finder.Partitions(ctx)
	if err != nil {
		if m.usesTable() {
			d.bad("disk", err, "set disk in the configuration to the disk that has the slots")
		}
		return
	}
	for _, p := range parts {
		d.ok(fmt.Sprintf("partition %d", p.Number), "%s, %s, PARTUUID %s, %s", p.Label, size(p.Size), p.UUID, p.Path)
	}
}

// usesTable tells whether the configuration names anything by label or PARTUUID.
func (m *machine) usesTable() bool {
	specs := []string{m.cfg.Store.Device}
	for _, c := range m.cfg.Components {
		specs = append(specs, c.Slots[:]...)
	}
	for _, c := range m.cfg.Selector.UBoot.Copies {
		specs = append(specs, c.Device)
	}
	for _, s := range specs {
		if strings.HasPrefix(s, "PART") {
			return true
		}
	}
	return false
}

func (d *doctor) components(ctx context.Context, m *machine) []fwu.Component {
	var found []fwu.Component
	for _, c := range m.cfg.Components {
		fc, err := m.component(ctx, c)
		if err != nil {
			d.bad("component "+c.Name, err, "correct slots or keys of the component, or the partition table")
			continue
		}
		found = append(found, fc)
		for _, k := range fc.Keys {
			d.ok("trust anchor", "%s: key %x from %s", c.Name, k.KID, k.Source)
		}
		if fc.Signatures > 1 {
			d.ok("signatures", "%s: %d different keys have to sign", c.Name, fc.Signatures)
		}
		if fc.Manifest == fwu.None {
			d.print("--", "trust anchor", c.Name+": images are not verified, the update client is trusted (manifest = \"none\")")
		}
	}
	if err := m.distinct(ctx); err != nil {
		d.bad("layout", err, "each slot, the store and each copy of the boot environment needs a place of its own")
	}
	return found
}

func (d *doctor) boot(ctx context.Context, m *machine, components []fwu.Component) fwu.Bank {
	known, err := m.selector(ctx)
	if err != nil { // told below
		known = nil
	}
	b, err := m.boot(ctx, known, components)
	switch {
	case m.cfg.Selector.Type == config.NoSelector:
	case err != nil:
		d.bad("booted bank", err, "")
	case b.Bank == fwu.NoBank:
		d.bad("booted bank", errors.New(b.Why), "the boot script, or the boot entry, puts fwu.bank=a or fwu.bank=b on the kernel command line")
	default:
		d.ok("booted bank", "%s: %s", b.Bank, b.Why)
	}
	return b.Bank
}

func (d *doctor) slots(components []fwu.Component, booted fwu.Bank) {
	for _, c := range components {
		for i, slot := range c.Slots {
			info := slot.Info()
			what := fmt.Sprintf("slot %s %s", c.Name, fwu.BankOf(i))
			if m, ok := slot.(fwu.MissingSlot); ok {
				d.bad(what, m.Err, "correct the slot in the configuration, or the partition table; until then "+c.Name+" is read-only")
				continue
			}
			text := fmt.Sprintf("%s, %s, %s", info.Path, info.ID, size(info.Size))
			err := inUse(slot)
			second := !c.Live && booted != fwu.NoBank && i != booted.Index()
			switch {
			case err == nil:
				d.ok(what, "%s, not in use", text)
			case !errors.Is(err, fwu.ErrSlotBusy):
				d.bad(what, err, "")
			case second:
				d.bad(what, err, "an update writes to this slot: free it")
			default:
				d.ok(what, "%s, %v", text, err)
			}
		}
		if a, b := c.Slots[0].Info(), c.Slots[1].Info(); a.Size != b.Size && a.Size > 0 && b.Size > 0 {
			d.print("--", "slot "+c.Name, fmt.Sprintf("the slots differ in size; images may have %s at most", size(min(a.Size, b.Size))))
		}
	}
}

// inUse asks the kernel who uses a slot, and opens nothing: a service may be at work.
func inUse(slot fwu.Slot) error {
	if s, ok := slot.(interface{ InUse() error }); ok {
		return s.InUse()
	}
	return nil
}

// selector judges the boot selector. onTrial tells whether the booted bank may be another than the default.
func (d *doctor) selector(ctx context.Context, m *machine, booted fwu.Bank, onTrial bool) {
	s, err := m.selector(ctx)
	if err != nil {
		d.bad("boot selector", err, "correct [selector] in the configuration")
		return
	}
	if s == nil {
		return
	}
	for _, line := range s.Doctor() {
		d.print("", "boot variables", line)
	}
	sel, err := s.Read()
	switch {
	case err != nil:
		d.bad("boot selector", err, "")
	case sel.Default == fwu.NoBank:
		d.bad("boot selector", errors.New("no bank is the default"), "the service sets it at its next start")
	case booted != fwu.NoBank && sel.Default != booted && !onTrial:
		d.bad("boot selector", fmt.Errorf("default %s, and %s is running without a trial", sel.Default, booted),
			"reboot, or make the running bank the default with the bootloader's tools")
	case booted != fwu.NoBank && sel.Default != booted:
		d.print("--", "boot selector", fmt.Sprintf("default %s, and %s is running: right during a trial only", sel.Default, booted))
	case sel.Trial != fwu.NoBank:
		d.ok("boot selector", "default %s; the next reset starts %s on trial", sel.Default, sel.Trial)
	default:
		d.ok("boot selector", "default %s", sel.Default)
	}
}

// store looks at the store, and returns the bank that is on trial by its record. known is false if there is no record that could tell.
func (d *doctor) store(ctx context.Context, m *machine, components []fwu.Component) (trial fwu.Bank, known bool) {
	report, err := m.inspectStore(ctx)
	for i, c := range report.Copies {
		if c != "" {
			d.print("", fmt.Sprintf("store copy %d", i), c)
		}
	}
	if err != nil {
		d.bad("store", err, fmt.Sprintf("it needs a partition or a preallocated file of %d bytes; fwu-ab provision writes the first record", fwu.StoreSize))
		return fwu.NoBank, false
	}
	d.ok("store", "%s, format %s, generation %d", m.cfg.Store.Device, report.Format, report.Generation)
	for _, c := range components {
		if reason, text := report.ReadOnly(c, m.cfg.Selector.Type); reason != "" && reason != fwu.ReasonSlotMissing { // those were told
			d.bad("component "+c.Name, fmt.Errorf("it is read-only, %s: %s", reason, text), reasonHint(reason))
		}
	}
	return report.Trial, true
}

// inspectStore reads the store, which a service may be using.
func (m *machine) inspectStore(ctx context.Context) (fwu.StoreReport, error) {
	slot, err := m.finder.Find(ctx, m.cfg.Store.Device)
	if err != nil {
		return fwu.StoreReport{}, err
	}
	src, err := slot.Source(ctx)
	if err != nil {
		return fwu.StoreReport{}, err
	}
	medium := readOnly{src, slot.Info().Size}
	report, err := fwu.InspectStore(medium)
	if err != nil { // the service may have written meanwhile
		report, err = fwu.InspectStore(medium)
	}
	return report, errors.Join(err, src.Close())
}

// readOnly is a medium that takes nothing.
type readOnly struct {
	fwu.Source
	size int64
}

var errReadOnly = errors.New("the medium was opened to be read only")

func (r readOnly) Size() int64                        { return r.size }
func (r readOnly) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }
func (r readOnly) Sync() error                        { return errReadOnly }

func (d *doctor) device(m *machine) {
	id, err := m.deviceID()
	switch {
	case err != nil:
		d.bad("device identifier", err, "without it, images for one device are not for this one")
	case id != suit.UUID{}:
		d.ok("device identifier", "%v", id)
	}
}

func (d *doctor) release(m *machine) {
	rec, err := config.LoadRelease(m.root)
	switch {
	case err != nil:
		d.bad("release record", err, "correct "+config.ReleaseFile+" in the image")
	case rec == nil:
		d.print("--", "release record", config.ReleaseFile+" is missing: without it a lost store cannot be replaced by itself")
	default:
		for _, c := range m.cfg.Components {
			if r, ok := rec[c.Name]; ok {
				d.ok("release record", "%s: version %s, sequence number %d", c.Name, r.Version, r.Sequence)
			}
		}
	}
}
