package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/files"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/spf13/cobra"
)

// withClient calls f with a client of the service.
func withClient(ctx context.Context, g *globals, f func(*dbus.Client) error) error {
	c, err := dbus.Dial(ctx, g.bus)
	if err != nil {
		return err
	}
	c.NoWait = g.noWait
	return errors.Join(f(c), c.Close())
}

// findComponent takes a name or, if there is none of that name, an id.
func findComponent(components []fwu.ComponentInfo, s string) (fwu.ComponentInfo, error) {
	for _, info := range components {
		if info.Name == s {
			return info, nil
		}
	}
	id, err := strconv.ParseUint(s, 10, 8)
	for _, info := range components {
		if err == nil && uint64(info.ID) == id {
			return info, nil
		}
	}
	return fwu.ComponentInfo{}, &fwu.Error{Status: fwu.DoesNotExist, Reason: fwu.ReasonNoSuch, Text: fmt.Sprintf("this device has no component %q", s)}
}

// newStepCommands returns a verb for each function of the specification.
func newStepCommands(g *globals) []*cobra.Command {
	cmds := []*cobra.Command{
		newQueryCommand(g), newStartCommand(g), newWriteCommand(g),
		componentCommand(g, "finish", "Verify what was written, and make it a candidate", (*dbus.Client).Finish),
		componentCommand(g, "cancel", "Abandon what is being written, or a candidate", (*dbus.Client).Cancel),
		componentCommand(g, "clean", "Erase the second slot, so that a component is ready for the next update", (*dbus.Client).Clean),
		wholeCommand(g, "install", "Install all candidates", func(ctx context.Context, c *dbus.Client) (fwu.Status, error) { return c.Install(ctx) }),
		wholeCommand(g, "accept", "Keep the system that is on trial", func(ctx context.Context, c *dbus.Client) (fwu.Status, error) { return fwu.Success, c.Accept(ctx) }),
		newRejectCommand(g),
		newRepairCommand(g),
		wholeCommand(g, "reboot", "Ask for a reboot through the bootloader", func(ctx context.Context, c *dbus.Client) (fwu.Status, error) {
			return fwu.Success, c.RequestReboot(ctx)
		}),
	}
	for _, cmd := range cmds {
		if name := cmd.Name(); name != "query" && name != "cancel" { // which never wait
			cmd.Flags().BoolVar(&g.noWait, "no-wait", false, "fail at once where it would have to wait for another client")
			cmd.Flags().BoolVarP(&g.quiet, "quiet", "q", false, "print nothing but errors")
		}
	}
	return cmds
}

// tellWait says for whom a call will wait. It is a courtesy: an error in it shows
// with the call as well.
func tellWait(cmd *cobra.Command, g *globals, c *dbus.Client, info fwu.ComponentInfo) {
	if g.quiet || g.noWait {
		return
	}
	q, err := c.Query(cmd.Context(), info.ID)
	if err != nil || q.Impl.Operation == "" {
		return
	}
	who := q.Impl.Client.String()
	if who == "" {
		who = "another client"
	}
	cmd.PrintErrf("fwu-ab: %s: waiting for %s to end its %s; fwu-ab cancel %s ends it\n", info.Name, who, q.Impl.Operation, info.Name)
}

func componentCommand(g *globals, verb, short string, f func(*dbus.Client, context.Context, fwu.ID) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " COMPONENT", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd.Context(), g, func(c *dbus.Client) error {
				info, err := findComponent(c.Components(), args[0])
				if err != nil {
					return err
				}
				if verb != "cancel" {
					tellWait(cmd, g, c, info)
				}
				return f(c, cmd.Context(), info.ID)
			})
		},
	}
}

func wholeCommand(g *globals, verb, short string, f func(context.Context, *dbus.Client) (fwu.Status, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withClient(cmd.Context(), g, func(c *dbus.Client) error {
				status, err := f(cmd.Context(), c)
				if err == nil && !g.quiet {
					err = printStatus(cmd.OutOrStdout(), status)
				}
				return err
			})
		},
	}
}

// printStatus says what a success asks for.
func printStatus(w io.Writer, s fwu.Status) error {
	if s != fwu.SuccessReboot {
		return nil
	}
	_, err := fmt.Fprintln(w, "a reboot completes it: fwu-ab reboot")
	return err
}

func newRejectCommand(g *globals) *cobra.Command {
	var code int32
	var text string
	cmd := wholeCommand(g, "reject", "Give up what is installed and not accepted", func(ctx context.Context, c *dbus.Client) (fwu.Status, error) {
		return c.Reject(ctx, fwu.Rejection{Error: fwu.Status(code), Text: text})
	})
	cmd.Flags().StringVar(&text, "text", "", "reason for people, one line")
	cmd.Flags().Int32Var(&code, "error", 0, "number that is reported as the reason; 0: none")
	return cmd
}

func newRepairCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "repair record|new-record|slots",
		Short: "Repair what the service does not repair by itself, because that gives something up",
		Long: `Repair what the service does not repair by itself, because that gives something up. Where there is nothing to repair, nothing is changed.

record: a copy of the record cannot be read (record-unreadable), and stays so. Go on with the copy that is good, and overwrite the other one. The last change of the record may be lost. It
is refused if no copy is good.

new-record: the same; and if no copy is good, go on without a record. Every rollback floor is forgotten, but for those of the release record in the running image.

slots: the partition of a slot has another size than the record says (slot-resized). Record the size that it has. Floors stay; an image in preparation there is given up.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd.Context(), g, func(c *dbus.Client) error { return c.Repair(cmd.Context(), fwu.Repair(args[0])) })
		},
	}
}

func newQueryCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "query COMPONENT", Short: "Print all that is known of a component, as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd.Context(), g, func(c *dbus.Client) error {
				info, err := findComponent(c.Components(), args[0])
				if err != nil {
					return err
				}
				st, err := componentStatusOf(cmd.Context(), c, info)
				if err != nil {
					return err
				}
				return printJSON(cmd.OutOrStdout(), st)
			})
		},
	}
	return cmd
}

func newStartCommand(g *globals) *cobra.Command {
	var manifest string
	cmd := &cobra.Command{
		Use: "start COMPONENT", Short: "Begin an update of a component",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return fmt.Errorf("start takes one component; the manifest is given as --manifest %s", args[1])
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var envelope []byte
			if manifest != "" {
				var err error
				if envelope, err = readBounded(cmd.Context(), manifest, maxManifest); err != nil {
					return err
				}
			}
			return withClient(cmd.Context(), g, func(c *dbus.Client) error {
				info, err := findComponent(c.Components(), args[0])
				if err != nil {
					return err
				}
				tellWait(cmd, g, c, info)
				return c.Start(cmd.Context(), info.ID, envelope)
			})
		},
	}
	cmd.Flags().StringVar(&manifest, "manifest", "", "file with the detached manifest")
	return cmd
}

// maxManifest is more than the service takes: it refuses with a better reason than a cut file gives.
const maxManifest = 1 << 20

func readBounded(ctx context.Context, path string, limit int64) ([]byte, error) {
	f, err := files.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes, which no manifest is", path, limit)
	}
	return b, err
}

func newWriteCommand(g *globals) *cobra.Command {
	var offset int64
	cmd := &cobra.Command{
		Use: "write COMPONENT FILE", Short: "Write a file, or - for standard input, to a component that was started",
		Long: `Write a file, or - for standard input, to a component that was started.
With --offset the data goes there; --offset -1 continues an interrupted transfer of the same file where it was.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withClient(cmd.Context(), g, func(c *dbus.Client) error {
				return writeFile(cmd, g, c, args[0], args[1], offset)
			})
		},
	}
	cmd.Flags().Int64Var(&offset, "offset", 0, "where the data goes, a multiple of 4096; -1: where the transfer was interrupted")
	return cmd
}

func writeFile(cmd *cobra.Command, g *globals, c *dbus.Client, component, path string, offset int64) error {
	info, err := findComponent(c.Components(), component)
	if err != nil {
		return err
	}
	f, err := files.Open(cmd.Context(), path)
	if err != nil {
		return err
	}
	defer f.Close()
	if offset == -1 {
		q, err := c.Query(cmd.Context(), info.ID)
		if err != nil {
			return err
		}
		offset = q.Impl.Written
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return fmt.Errorf("continue at %d: %s is a pipe, or another file of which no part can be skipped", offset, f.Name())
		}
	}
	tellWait(cmd, g, c, info)
	n, err := c.WriteFrom(cmd.Context(), info.ID, offset, f.File, 0)
	if err == nil && !g.quiet {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d bytes written at %d\n", n, offset)
	}
	return err
}
