package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/files"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/update"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// updateFlags are the flags of update.
type updateFlags struct {
	reboot, json, dryRun, noInstall bool
	force, asIs, takeOver           bool
}

func newUpdateCommand(g *globals) *cobra.Command {
	var f updateFlags
	cmd := &cobra.Command{
		Use:   "update FILE...",
		Short: "Write, verify and install images",
		Long: `Write, verify and install images: bundles, manifests each followed by its images, or NAME=IMAGE for a component that takes images without a manifest. Any of them may come through
a pipe, and - is the standard input: a pipe is read once, from front to back. What an earlier run left half written is continued. All images are installed together, or none.

Everything that can be known of the files is checked before anything is changed: what they are, whether this device trusts and takes their manifests, whether they fit, and that no other
client works on the same components. --dry-run ends after these checks and says what would happen.`,
		Example: `  fwu-ab update rootfs.suit --reboot
  fwu-ab update rootfs.suit rootfs.img bootfw.suit bootfw.img
  curl -s https://example.com/release.suit | fwu-ab update -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, g, args) },
	}
	cmd.Flags().BoolVar(&f.reboot, "reboot", false, "reboot when everything is installed, if that is needed")
	cmd.Flags().BoolVar(&f.noInstall, "no-install", false, "write and verify only: fwu-ab install installs it later")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing: say whether the files are for this device, and what would happen")
	cmd.Flags().BoolVar(&f.force, "force", false, "install an image that is the active one already once more")
	cmd.Flags().BoolVar(&f.asIs, "as-is", false, "write an image without a manifest even if it looks as if it had to be unpacked first")
	cmd.Flags().BoolVar(&f.takeOver, "take-over", false, "cancel what another client prepares")
	cmd.Flags().BoolVar(&f.json, "json", false, "print a line of JSON for each step, for progress, and for the result")
	cmd.Flags().BoolVarP(&g.quiet, "quiet", "q", false, "print nothing but errors")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "reboot")
	cmd.MarkFlagsMutuallyExclusive("no-install", "reboot")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "no-install")
	cmd.MarkFlagsMutuallyExclusive("json", "quiet")
	return cmd
}

func (f updateFlags) run(cmd *cobra.Command, g *globals, args []string) (err error) {
	stdin, err := files.Open(cmd.Context(), files.Standard)
	if err != nil {
		return err
	}
	sources, err := update.Open(cmd.Context(), args, stdin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, update.Close(sources)) }()
	return withClient(cmd.Context(), g, func(c *dbus.Client) error {
		report := newReport(cmd.OutOrStdout(), f, g.quiet)
		status, err := f.drive(cmd.Context(), c, sources, report, g.root)
		return report.result(status, err)
	})
}

// drive does as much of an update as the flags ask for.
func (f updateFlags) drive(ctx context.Context, c *dbus.Client, sources []update.Source, report report, root string) (fwu.Status, error) {
	o := options(root)
	o.Force, o.AsIs, o.TakeOver = f.force, f.asIs, f.takeOver
	switch {
	case f.dryRun:
		changes, err := update.Plan(ctx, c, sources, o)
		if err == nil || errors.Is(err, update.ErrNothingToDo) {
			report.plan(changes)
		}
		return fwu.Success, err
	case f.noInstall:
		return fwu.Success, update.Prepare(ctx, c, sources, report, o)
	}
	status, err := update.Run(ctx, c, sources, report, o)
	if err != nil || status != fwu.SuccessReboot || !f.reboot {
		return status, err
	}
	report.Step("", "rebooting into the new system")
	err = c.RequestReboot(ctx)
	if errors.Is(err, context.Canceled) || ctx.Err() != nil { // the reboot was faster than the answer
		err = nil
	}
	return fwu.Success, err
}

// options are those of an update. What the configuration says of the device decides between alternatives of a manifest; where it cannot be read, the service says later what is wrong with the choice.
func options(root string) (o update.Options) {
	m, err := loadMachine(root)
	if err != nil {
		return o
	}
	devices := map[string]suit.Device{}
	for _, c := range m.cfg.Components {
		d := c.Device
		d.ID, _ = m.deviceID()
		devices[c.Name] = d
	}
	o.Device, o.Battery = func(component string) suit.Device { return devices[component] }, m.battery
	return o
}

// report tells how an update goes on, and how it ended.
type report interface {
	update.Reporter
	plan(changes []update.Change)
	// result is told the end. It returns the error that the command ends with.
	result(status fwu.Status, err error) error
}

func newReport(out io.Writer, f updateFlags, quiet bool) report {
	if f.json {
		return &jsonReport{json.NewEncoder(out), time.Now}
	}
	return newProgress(out, quiet)
}

// jsonReport prints events, one a line.
type jsonReport struct {
	out *json.Encoder
	now func() time.Time
}

// updateEvent is a line of update --json. Event is "step", "progress", "plan" or "result".
type updateEvent struct {
	Time      string `json:"time"`
	Event     string `json:"event"`
	Component string `json:"component,omitempty"`
	Text      string `json:"text,omitempty"`
	Operation string `json:"operation,omitempty"`
	Done      int64  `json:"done,omitempty"`
	Total     int64  `json:"total,omitempty"`

	// Of a plan.
	Version   string `json:"version,omitempty"`
	From      string `json:"from,omitempty"`
	Digest    string `json:"digest,omitempty"`
	Size      int64  `json:"size,omitempty"`
	Active    bool   `json:"active,omitempty"`
	Continues bool   `json:"continues,omitempty"`
	Reboot    bool   `json:"reboot,omitempty"`

	// Of a result.
	Exit   *int       `json:"exit,omitempty"`
	Status *int32     `json:"status,omitempty"`
	Reason fwu.Reason `json:"reason,omitempty"`
}

func (r *jsonReport) print(e updateEvent) {
	e.Time = r.now().UTC().Format(time.RFC3339Nano)
	_ = r.out.Encode(e) // nobody is left to be told
}

// Step implements update.Reporter.
func (r *jsonReport) Step(component, text string) {
	r.print(updateEvent{Event: "step", Component: component, Text: text})
}

// Progress implements update.Reporter.
func (r *jsonReport) Progress(component, operation string, done, total int64) {
	if operation != "" {
		r.print(updateEvent{Event: "progress", Component: component, Operation: operation, Done: done, Total: total})
	}
}

func (r *jsonReport) plan(changes []update.Change) {
	for _, c := range changes {
		r.print(updateEvent{Event: "plan", Component: c.Component, Version: c.Version, From: c.From, Digest: c.Digest, Size: max(c.Size, 0),
			Active: c.Active, Continues: c.Continues, Reboot: c.Reboot})
	}
}

func (r *jsonReport) result(status fwu.Status, err error) error {
	code, exit := int32(status), fwu.ExitOK
	e := updateEvent{Event: "result", Exit: &exit, Status: &code}
	if err != nil {
		code, exit = int32(fwu.StatusOf(err)), exitCode(err, true)
		e.Reason, e.Text = fwu.ReasonOf(err), err.Error()
	}
	r.print(e)
	return err
}

// progress tells people how an update goes on: a bar on a terminal, a line for each tenth in a log. Rules: a step is one line that begins with the component's
// name; a bar is wiped before anything else is printed.
type progress struct {
	out   io.Writer
	quiet bool
	width func() int // of the terminal, on which lines can be redrawn; nil if it is none
	shown string     // what is on the last line of the terminal
	last  string     // key of the last line in a log
}

func newProgress(out io.Writer, quiet bool) *progress {
	p := &progress{out: out, quiet: quiet}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.width = func() int {
			width, _, err := term.GetSize(int(f.Fd()))
			if err != nil || width <= 0 {
				return 80 // of a serial line, which cannot tell
			}
			return width
		}
	}
	return p
}

func (p *progress) wipe() {
	if p.shown != "" {
		fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", len([]rune(p.shown))))
		p.shown = ""
	}
}

// Step implements update.Reporter.
func (p *progress) Step(component, text string) {
	if p.quiet {
		return
	}
	p.wipe()
	if component != "" {
		text = component + ": " + text
	}
	fmt.Fprintln(p.out, text)
}

// Progress implements update.Reporter.
func (p *progress) Progress(component, operation string, done, total int64) {
	switch {
	case p.quiet:
	case operation == "":
		p.wipe()
	case p.width != nil:
		p.draw(component, operation, done, total)
	case total > 0:
		key := fmt.Sprintf("%s: %s %d %%", component, operation, percent(done, total)/10*10)
		if key != p.last {
			fmt.Fprintf(p.out, "%s of %s\n", key, size(total))
			p.last = key
		}
	}
}

// draw draws a bar as wide as the terminal allows, without its last column: some terminals begin a
// new line there.
func (p *progress) draw(component, operation string, done, total int64) {
	width := p.width() - 1
	line := fmt.Sprintf("%s: %s %s", component, operation, size(done))
	if total > 0 {
		done = min(done, total)
		line = fmt.Sprintf("%s: %s %3d %% of %s", component, operation, percent(done, total), size(total))
		if cells := min(40, width-len([]rune(line))-3); cells >= 8 {
			n := int(percent(done, total)) * cells / 100
			line = fmt.Sprintf("%s: %s [%s%s] %3d %% of %s", component, operation, strings.Repeat("#", n), strings.Repeat(".", cells-n), percent(done, total), size(total))
		}
	}
	if r := []rune(line); len(r) > width {
		line = string(r[:max(width, 0)])
	}
	pad := max(0, len([]rune(p.shown))-len([]rune(line)))
	fmt.Fprintf(p.out, "\r%s%s", line, strings.Repeat(" ", pad))
	p.shown = line
}

// percent is how much of total is done. It is 100 only when all is, and it does not overflow.
func percent(done, total int64) int64 {
	if total <= 0 {
		return 0
	}
	return int64(100 * (float64(min(done, total)) / float64(total)))
}

func (p *progress) plan(changes []update.Change) {
	reboot := false
	for _, c := range changes {
		text := "would install"
		switch {
		case c.Active:
			p.Step(c.Component, "runs this image already")
			continue
		case c.State == fwu.Candidate && !c.Continues:
			text = "would replace the candidate, and install"
		case c.Continues:
			text = "would continue what was begun, and install"
		case c.State == fwu.Writing:
			text = "would cancel what was begun, and install"
		}
		reboot = reboot || c.Reboot
		if c.Version != "" {
			text += " version " + c.Version
		}
		if c.Size >= 0 {
			text += ", " + size(c.Size)
		}
		p.Step(c.Component, text+", in place of version "+c.From)
	}
	if reboot {
		p.Step("", "a reboot would complete it")
	}
}

func (p *progress) result(status fwu.Status, err error) error {
	p.wipe()
	if err != nil || p.quiet {
		return err
	}
	return printStatus(p.out, status)
}
