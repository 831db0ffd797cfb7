package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/update"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func newUpdateCommand(g *globals) *cobra.Command {
	var reboot, force, quiet bool
	cmd := &cobra.Command{
		Use:   "update FILE...",
		Short: "Write, verify and install images",
		Long: `Write, verify and install images: bundles, manifests each followed by its images, or NAME=IMAGE for a component that takes images without a manifest. A bundle may come through
a pipe: - is the standard input, which is read once, from front to back. What an earlier run left half written is continued. All images are installed together, or none.`,
		Example: `  fwu-ab update rootfs.suit --reboot
  fwu-ab update rootfs.suit rootfs.img bootfw.suit bootfw.img
  curl -s https://example.com/release.suit | fwu-ab update -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sources, err := update.Open(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			return withClient(cmd.Context(), g, func(c *dbus.Client) error {
				p := newProgress(cmd.OutOrStdout(), quiet)
				status, err := update.Run(cmd.Context(), c, sources, p, options(g.root, force))
				if err != nil {
					return err
				}
				return installed(cmd, c, status, reboot, quiet)
			})
		},
	}
	cmd.Flags().BoolVar(&reboot, "reboot", false, "reboot when everything is installed, if that is needed")
	cmd.Flags().BoolVar(&force, "force", false, "install an image that is the active one already once more")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing but errors")
	return cmd
}

// options are those of an update. What the configuration says of the device decides between alternatives of a manifest; where it cannot be read, the service says later what is wrong with the choice.
func options(root string, force bool) update.Options {
	o := update.Options{Force: force}
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

func installed(cmd *cobra.Command, c *dbus.Client, status fwu.Status, reboot, quiet bool) error {
	out := cmd.OutOrStdout()
	if quiet {
		out = io.Discard
	}
	if status == fwu.SuccessReboot && reboot {
		if _, err := fmt.Fprintln(out, "rebooting into the new system"); err != nil {
			return err
		}
		err := c.RequestReboot(cmd.Context())
		if errors.Is(err, context.Canceled) { // the reboot was faster than the answer
			return nil
		}
		return err
	}
	return printStatus(out, status)
}

// progress tells people how an update goes on: a bar on a terminal, a line for each tenth in a log. Rules: a step is one line that begins with the component's
// name; a bar is wiped before anything else is printed.
type progress struct {
	out   io.Writer
	quiet bool
	bar   bool   // a terminal: lines can be redrawn
	shown string // what is on the last line of the terminal
	last  string // key of the last line in a log
}

func newProgress(out io.Writer, quiet bool) *progress {
	f, ok := out.(*os.File)
	return &progress{out: out, quiet: quiet, bar: ok && term.IsTerminal(int(f.Fd()))}
}

func (p *progress) wipe() {
	if p.shown != "" {
		fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", len(p.shown)))
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
	case p.bar:
		p.draw(component, operation, done, total)
	case total > 0:
		key := fmt.Sprintf("%s: %s %d %%", component, operation, 10*(10*done/total))
		if key != p.last {
			fmt.Fprintf(p.out, "%s of %s\n", key, size(total))
			p.last = key
		}
	}
}

func (p *progress) draw(component, operation string, done, total int64) {
	const width = 40
	line := fmt.Sprintf("%s: %s %s", component, operation, size(done))
	if total > 0 {
		n := int(width * done / total)
		line = fmt.Sprintf("%s: %s [%s%s] %3d %% of %s", component, operation, strings.Repeat("#", n), strings.Repeat(".", width-n), 100*done/total, size(total))
	}
	pad := max(0, len(p.shown)-len(line))
	fmt.Fprintf(p.out, "\r%s%s", line, strings.Repeat(" ", pad))
	p.shown = line
}
