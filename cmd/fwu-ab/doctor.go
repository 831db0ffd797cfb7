package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
	"github.com/fwu-ab/fwu-ab/config"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/systemd"
	"github.com/spf13/cobra"
)

func newDoctorCommand(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at every part that an update needs, and say what is wrong and what to do about it",
		Long: `Look at configuration, slots, evidence of the booted bank, boot selector, store, release record and trust anchors. Nothing is changed.
It needs no service, and does not disturb one that runs: everything is opened to be read only.

Lines begin with "ok", "--" for a note, "!!" for a problem: then no update works, or a failed one does not end by itself. The exit code is 1 if there is a problem.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{out: cmd.OutOrStdout(), quiet: asJSON}
			d.examine(cmd.Context(), g.root)
			return errors.Join(d.err, d.finish())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// finding is a result of the doctor, as JSON with --json.
type finding struct {
	Check   string `json:"check"`   // one of those of meaning, or another word
	Subject string `json:"subject"` // which slot, component, ...; empty if there is one only
	Result  string `json:"result"`  // "ok", "note", "problem", or "detail" of another finding
	Found   string `json:"found"`
	Means   string `json:"means"` // of a problem
	Do      string `json:"do"`    // next step
}

// meaning tells the effect of a problem, and the next step where the error has none of its own.
func meaning(check string) (means, do string) {
	const (
		down = "the service does not start"
		none = "no update of it begins, and none of a bank that it is a member of"
		ask  = "the service answers queries only"
	)
	for _, m := range [...][3]string{
		{"configuration", down, "correct the file; fwu-ab config prints the configuration in force"},
		{"owners", down, "give the files to root: others can change the trust that is in them"},
		{"layout", down, "each slot, the store and each copy of the boot environment needs a place of its own"},
		{"service", down, "correct the configuration"},
		{"release record", down, "correct " + config.ReleaseFile + " in the image"},
		{"locks", "such a user can keep the service from the file", "chmod 600"},
		{"sandbox", "the service cannot write there", "keep the file elsewhere, as below /var/lib/fwu-ab"},
		{"disk", "slots with a label or a PARTUUID are not found", "set disk in the configuration to the disk that has the slots"},
		{"component", none, "correct slots or keys of the component, or the partition table"},
		{"slot", none, "see dmesg"},
		{"trust anchor", "images that are signed with it are refused", "correct the clock, or bring an authority that is valid with the next image"},
		{"booted bank", ask, "the boot script, or the boot entry, puts fwu.bank=a or fwu.bank=b on the kernel command line"},
		{"boot selector", ask, "correct [selector] in the configuration, or the file that it names"},
		{"boot variables", "no trial can be armed, or one that fails does not end by itself", "correct the variables in the bootloader, or by its tools"},
		{"store", "the service does not start, or answers queries only", "it needs a partition, or a preallocated file, of 256 KiB; fwu-ab provision writes the first record"},
		{"device identifier", "images for one device are refused", "correct the file"},
		{"battery", "images that ask for a charge are refused", "see dmesg"},
	} {
		if m[0] == check {
			return m[1], m[2]
		}
	}
	return "", ""
}

// doctor prints a line for each thing that it looked at, or one JSON object at the end.
type doctor struct {
	out      io.Writer
	quiet    bool
	findings []finding
	err      error
}

// marks begin the lines of each result.
func mark(result string) string {
	switch result {
	case "ok":
		return "ok"
	case "note":
		return "--"
	case "problem":
		return "!!"
	}
	return ""
}

func (d *doctor) add(f finding) {
	d.findings = append(d.findings, f)
	if d.quiet {
		return
	}
	d.line(mark(f.Result), strings.TrimSpace(f.Check+" "+f.Subject), f.Found)
	if f.Means != "" {
		d.line("", "", f.Means)
	}
	if f.Do != "" {
		d.line("", "", "-> "+f.Do)
	}
}

func (d *doctor) line(mark, what, text string) {
	_, err := fmt.Fprintf(d.out, "%-3s %-22s %s\n", mark, what, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", 27)))
	d.err = errors.Join(d.err, err)
}

// say is a finding that is no problem.
func (d *doctor) say(result, check, subject, found string) {
	d.add(finding{Check: check, Subject: subject, Result: result, Found: found})
}

// bad is a problem. do is empty where the error, or the check, says enough.
func (d *doctor) bad(check, subject string, err error, do string) {
	means, usual := meaning(check)
	if h := hint(err); h != "" {
		do = h
	}
	if errors.Is(err, fwu.ErrReadOnly) {
		do = causeHint(fwu.CauseReadOnly, "")
	}
	d.add(finding{check, subject, "problem", err.Error(), means, cmp.Or(do, usual)})
}

func (d *doctor) count(result string) (n int) {
	for i := range d.findings {
		if d.findings[i].Result == result {
			n++
		}
	}
	return n
}

// finish prints the sum. The error says how many problems there are.
func (d *doctor) finish() error {
	problems, notes := d.count("problem"), d.count("note")
	var err error
	if d.quiet {
		err = printJSON(d.out, struct {
			Problems int       `json:"problems"`
			Notes    int       `json:"notes"`
			Checks   []finding `json:"checks"`
		}{problems, notes, d.findings})
	} else {
		_, err = fmt.Fprintf(d.out, "problems: %d, notes: %d, ok: %d\n", problems, notes, d.count("ok"))
	}
	switch {
	case err != nil || problems == 0:
		return err
	case problems == 1:
		return errors.New("one problem found")
	}
	return fmt.Errorf("%d problems found", problems)
}

// examine makes the checks of the daemon, of start, install and accept, with their code.
func (d *doctor) examine(ctx context.Context, root string) {
	m, err := loadMachine(root)
	if err != nil {
		d.bad("configuration", "", err, "")
		return
	}
	d.say("ok", "configuration", "", strings.Join(m.cfg.Report.Files, ", "))
	if err := m.owners(); err != nil {
		d.bad("owners", "", err, "")
	} else {
		d.say("ok", "owners", "", "only root can change configuration, trust anchors, health checks and hooks")
	}
	if err := m.lockable(ctx); err != nil {
		d.bad("locks", "", err, "")
	}
	d.sandbox(ctx, m)
	d.partitions(ctx, m)
	components := d.components(ctx, m)
	boot := d.boot(ctx, m, components)
	d.slots(components, boot.Bank)
	report := d.store(ctx, m, components)
	d.selector(ctx, m, boot, report, components)
	d.release(m)
	d.device(m)
	d.service(ctx, m)
}

// service takes the steps that the daemon takes before it opens the store, and tells the error that
// keeps it from its start, unless that was told.
func (d *doctor) service(ctx context.Context, m *machine) {
	cfg, err := m.service(ctx)
	if err == nil {
		_, err = m.boot(ctx, cfg.Selector, cfg.Components)
	}
	down, _ := meaning("service")
	for i := range d.findings {
		if d.findings[i].Means == down {
			return
		}
	}
	if err != nil {
		d.bad("service", "", err, "")
	}
}

// serviceUnit is the unit of the service.
const serviceUnit = "fwu-ab.service"

// sandbox looks whether the unit of the service may write the files that the configuration names.
func (d *doctor) sandbox(ctx context.Context, m *machine) {
	s, err := systemd.ReadSandbox(m.root, serviceUnit)
	if err != nil {
		d.bad("sandbox", "", err, "")
	}
	if err != nil || s.File == "" {
		return
	}
	var files []string
	add := func(path string) {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			// to open it fails too, and says so
			if info, err := os.Stat(real); err == nil && info.Mode().IsRegular() && !slices.Contains(files, real) {
				files = append(files, real)
			}
		}
	}
	add(m.cfg.Store.Device)
	for _, c := range m.cfg.Components {
		add(c.Slots[0])
		add(c.Slots[1])
	}
	locations, _ := m.environment(ctx, m.cfg.Selector.UBoot)
	for _, l := range locations {
		add(l.Path)
	}
	for _, path := range files {
		switch {
		case s.Allows(path):
			d.say("ok", "sandbox", "", s.File+" may write "+path)
		case s.Hides(path):
			d.bad("sandbox", "", fmt.Errorf("%s has %s hidden (ProtectHome=, PrivateTmp=)", s.File, path), "")
		default:
			d.bad("sandbox", "", fmt.Errorf("%s does not permit writes to %s", s.File, path),
				fmt.Sprintf("write these lines to /etc/systemd/system/%s.d/10-files.conf, then: systemctl daemon-reload; systemctl restart %s\n[Service]\nReadWritePaths=-%s", serviceUnit, serviceUnit, filepath.Dir(path)))
		}
	}
}

func (d *doctor) partitions(ctx context.Context, m *machine) {
	parts, err := m.finder.Partitions(ctx)
	if err != nil {
		if m.usesTable() {
			d.bad("disk", "", err, "")
		}
		return
	}
	for _, p := range parts {
		d.say("ok", "partition", fmt.Sprint(p.Number), fmt.Sprintf("%s, %s, PARTUUID %s, %s", p.Label, size(p.Size), p.UUID, p.Path))
	}
	notes, _ := m.finder.TableNotes(ctx) // it was read just now
	for _, n := range notes {
		d.say("note", "partition table", "", n)
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
			d.bad("component", c.Name, err, "")
			continue
		}
		found = append(found, fc)
		d.anchors(m, fc)
	}
	if err := m.distinct(ctx); err != nil {
		d.bad("layout", "", err, "")
	}
	return found
}

// soon is how long before its end an authority is worth a note.
const soon = 90 * 24 * time.Hour

func (d *doctor) anchors(m *machine, c fwu.Component) {
	now := m.time()
	valid := 0
	for _, k := range c.Keys {
		if k.Valid(now) == nil {
			valid++
		}
	}
	usable := valid >= max(1, c.Signatures)
	for _, k := range c.Keys {
		result, text := "ok", fmt.Sprintf("%v, from %s", k, k.Source)
		if k.Valid(now.Add(soon)) != nil {
			result, text = "note", text+": it ends within 90 days"
		}
		if err := k.Valid(now); err != nil {
			text = fmt.Sprintf("%v, from %s: %v", k, k.Source, err)
			if !usable {
				d.bad("trust anchor", c.Name, errors.New(text), "")
				continue
			}
			result = "note"
		}
		d.say(result, "trust anchor", c.Name, text)
	}
	if c.Signatures > 1 {
		d.say("ok", "signatures", c.Name, fmt.Sprintf("%d different keys have to sign", c.Signatures))
	}
	if c.Manifest == fwu.None {
		d.say("note", "trust anchor", c.Name, "images are not verified, the update client is trusted (manifest = \"none\")")
	}
}

func (d *doctor) boot(ctx context.Context, m *machine, components []fwu.Component) fwu.Boot {
	known, err := m.selector(ctx)
	if err != nil { // told below
		known = nil
	}
	b, err := m.boot(ctx, known, components)
	switch {
	case m.cfg.Selector.Type == config.NoSelector:
	case err != nil:
		d.bad("booted bank", "", err, "")
	case b.Bank == fwu.NoBank:
		d.bad("booted bank", "", errors.New(b.Why), "")
	default:
		d.say("ok", "booted bank", "", fmt.Sprintf("%s: %s", b.Bank, b.Why))
	}
	return b
}

func (d *doctor) slots(components []fwu.Component, booted fwu.Bank) {
	for _, c := range components {
		for i, slot := range c.Slots {
			d.slot(c, i, slot, !c.Live && i == booted.Index())
		}
		if a, b := c.Slots[0].Info(), c.Slots[1].Info(); a.Size != b.Size && a.Size > 0 && b.Size > 0 {
			d.say("note", "slot", c.Name, fmt.Sprintf("the slots differ in size; images may have %s at most", size(min(a.Size, b.Size))))
		}
	}
}

// slot looks at a slot. One of the running bank is not written before the update after the next.
func (d *doctor) slot(c fwu.Component, i int, slot fwu.Slot, runs bool) {
	subject := fmt.Sprintf("%s %s", c.Name, fwu.BankOf(i))
	if m, ok := slot.(fwu.MissingSlot); ok {
		d.bad("slot", subject, m.Err, "correct the slot in the configuration, or the partition table; until then "+c.Name+" is read-only")
		return
	}
	info := slot.Info()
	text := fmt.Sprintf("%s, %s, %s", info.Path, info.ID, size(info.Size))
	err, readOnly := inUse(slot), writable(slot)
	switch {
	case readOnly != nil && runs:
		d.say("note", "slot", subject, fmt.Sprintf("%s: %v; the update after the next needs it", text, readOnly))
	case readOnly != nil:
		d.bad("slot", subject, readOnly, "")
	case err == nil:
		d.say("ok", "slot", subject, text+", not in use")
	case !errors.Is(err, fwu.ErrSlotBusy):
		d.bad("slot", subject, err, "")
	case !runs && !c.Live:
		d.bad("slot", subject, err, "an update writes to this slot: free it")
	default:
		d.say("ok", "slot", subject, fmt.Sprintf("%s, %v", text, err))
	}
}

// writable tells whether the kernel would refuse a write to a slot.
func writable(slot fwu.Slot) error {
	if s, ok := slot.(interface{ Writable() error }); ok {
		return s.Writable()
	}
	return nil
}

// inUse asks the kernel who uses a slot, and opens nothing: a service may be at work.
func inUse(slot fwu.Slot) error {
	if s, ok := slot.(interface{ InUse() error }); ok {
		return s.InUse()
	}
	return nil
}

// selector judges the boot selector, and tells why a start of the service would refuse it.
func (d *doctor) selector(ctx context.Context, m *machine, boot fwu.Boot, report fwu.StoreReport, components []fwu.Component) {
	s, err := m.selector(ctx)
	if err != nil {
		d.bad("boot selector", "", err, "")
		return
	}
	if s == nil {
		return
	}
	for _, line := range s.Doctor() {
		d.say("detail", "boot variables", "", line)
	}
	sel, err := s.Read()
	if err != nil {
		do := ""
		if errors.Is(err, efi.ErrNoVariables) {
			do = "start the system by its firmware and mount efivarfs; a real-time kernel (PREEMPT_RT) needs efi=runtime on its command line"
		}
		d.bad("boot selector", "", err, do)
		return
	}
	d.faults(s)
	if len(components) == len(m.cfg.Components) {
		err = report.Refusal(ctx, fwu.Config{Selector: s, Boot: boot, Components: components, Trial: m.cfg.Trial})
	}
	switch {
	case err != nil:
		d.bad("boot selector", "", err, "")
	case sel.Default == fwu.NoBank:
		d.bad("boot selector", "", errors.New("no bank is the default"), "the service sets it at its next start")
	case boot.Bank != fwu.NoBank && sel.Default != boot.Bank:
		d.say("note", "boot selector", "", fmt.Sprintf("default %s, and %s is running, on trial", sel.Default, boot.Bank))
	case sel.Trial != fwu.NoBank:
		d.say("ok", "boot selector", "", fmt.Sprintf("default %s; the next reset starts %s on trial", sel.Default, sel.Trial))
	default:
		d.say("ok", "boot selector", "", fmt.Sprintf("default %s", sel.Default))
	}
}

// faults tells the faults that keep a selector that can be read from being committed, and its
// limits.
func (d *doctor) faults(s selector) {
	if f, ok := s.(interface{ Faults() ([]string, error) }); ok {
		faults, err := f.Faults()
		if err != nil {
			d.bad("boot variables", "", err, "")
		}
		for _, text := range faults {
			d.bad("boot variables", "", errors.New(text), "")
		}
	}
	if l, ok := s.(fwu.Limiter); ok {
		for _, limit := range l.Limits() {
			d.add(finding{"boot variables", limit, "note", limitText(limit), "", "docs/porting.md says what is promised, and how to change it"})
		}
	}
}

// store looks at the store, which a service may be using.
func (d *doctor) store(ctx context.Context, m *machine, components []fwu.Component) fwu.StoreReport {
	report, err := m.inspectStore(ctx)
	for i, c := range report.Copies {
		if c != "" {
			d.say("detail", "store copy", fmt.Sprint(i), c)
		}
	}
	if err != nil {
		d.bad("store", "", err, "")
		return report
	}
	if err := m.finder.Writable(ctx, m.cfg.Store.Device); err != nil {
		d.bad("store", "", err, "")
	} else {
		d.say("ok", "store", "", fmt.Sprintf("%s, format %s, generation %d", m.cfg.Store.Device, report.Format, report.Generation))
	}
	for _, c := range components {
		if reason, text := report.ReadOnly(c, m.cfg.Selector.Type); reason != "" && reason != fwu.ReasonSlotMissing { // those were told
			d.bad("component", c.Name, fmt.Errorf("it is read-only, %s: %s", reason, text), reasonHint(reason))
		}
	}
	if report.Trial != fwu.NoBank {
		d.say("note", "store", "", fmt.Sprintf("bank %s waits for a reboot or a decision, and no update of the bank begins before: fwu-ab status", report.Trial))
	}
	return report
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
	if err := inUse(slot); err != nil {
		return fwu.StoreReport{}, errors.Join(err, src.Close())
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
		d.bad("device identifier", "", err, "")
	case id != suit.UUID{}:
		d.say("ok", "device identifier", "", fmt.Sprint(id))
	}
	if _, err := m.battery(); err != nil {
		d.bad("battery", "", err, "")
	}
}

func (d *doctor) release(m *machine) {
	rec, err := config.LoadRelease(m.root)
	switch {
	case err != nil:
		d.bad("release record", "", err, "")
	case rec == nil:
		d.say("note", "release record", "", config.ReleaseFile+" is missing: without it a lost store cannot be replaced by itself")
	default:
		for _, c := range m.cfg.Components {
			if r, ok := rec[c.Name]; ok {
				d.say("ok", "release record", c.Name, fmt.Sprintf("version %s, sequence number %d", r.Version, r.Sequence))
			}
		}
	}
}
