// Command fwu-ab is an A/B update service for Linux, and the command line to it: an implementation of the PSA Certified Firmware Update API 1.0.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/update"
	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := interruptible(context.Background())
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string {
	if i.signal == syscall.SIGTERM {
		return "terminated"
	}
	return "interrupted"
}

// exitCode is that of a shell for a command that a signal ended.
func (i interrupted) exitCode() int { return 128 + int(i.signal) }

// interruptible returns a context that ends with the first SIGINT or SIGTERM. The second one ends
// the process. A signal that is ignored, as SIGINT is in a job in the background, stays ignored.
// stop undoes it, and waits for the goroutine.
func interruptible(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-signals:
			signal.Stop(signals) // from now on a signal does what it does by default
			if s, ok := s.(syscall.Signal); ok {
				cancel(interrupted{s})
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
		<-done
	}
}

func run(ctx context.Context, args []string) int {
	g := &globals{}
	root := newRootCommand(g)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return fwu.ExitOK
	}
	if i := (interrupted{}); errors.As(context.Cause(ctx), &i) {
		fmt.Fprintf(root.ErrOrStderr(), "fwu-ab: %v\n", i)
		return i.exitCode()
	}
	fmt.Fprintf(root.ErrOrStderr(), "fwu-ab: %v\n", err)
	if h := hint(err); h != "" {
		fmt.Fprintf(root.ErrOrStderr(), "fwu-ab: %s\n", h)
	}
	return exitCode(err, g.parsed)
}

func exitCode(err error, parsed bool) int {
	var status fwu.Status
	var usage usageError
	switch {
	case !parsed, errors.As(err, &usage):
		return fwu.ExitUsage
	case errors.Is(err, errDegraded):
		return fwu.ExitDegraded
	case errors.Is(err, update.ErrNothingToDo):
		return fwu.ExitNothingToDo
	case errors.As(err, &status):
		return status.ExitCode()
	}
	return fwu.ExitFailure
}

// globals are the flags that every verb has.
type globals struct {
	root   string
	bus    string
	quiet  bool // print nothing but errors, and the output that was asked for
	noWait bool // of the commands that may have to wait for another client
	parsed bool // the command line was understood
}

func newRootCommand(g *globals) *cobra.Command {
	root := &cobra.Command{
		Use:   "fwu-ab",
		Short: "A/B firmware updates: the PSA Certified Firmware Update API for Linux",
		Long: `fwu-ab keeps two banks of partitions, writes updates to the one that is not running, verifies what the medium returns, and starts it on trial.

An interrupted command stops at the next safe point and leaves nothing half done behind; a second signal ends the program at once.

Exit codes: 0 done, 1 failure, 2 usage, 3 nothing to do, 4 not permitted, 5 verification failed, 6 degraded (status --exit-code), 130 interrupted (SIGINT), 143 terminated (SIGTERM).`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
		PersistentPreRun: func(*cobra.Command, []string) {
			g.parsed = true
		},
	}
	root.PersistentFlags().StringVar(&g.root, "root", "", "directory below which configuration, keys, /proc and /run are looked for")
	root.PersistentFlags().StringVar(&g.bus, "bus", busAddress(os.Getenv), `message bus of the service: "system", "session" or an address; default $FWU_AB_BUS, or system`)
	root.AddGroup(&cobra.Group{ID: "update", Title: "Update a device:"}, &cobra.Group{ID: "psa", Title: "One step of an update (psa_fwu_*):"},
		&cobra.Group{ID: "device", Title: "Set up a device:"}, &cobra.Group{ID: "creator", Title: "Make updates:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("update", newStatusCommand(g), newMonitorCommand(g), newUpdateCommand(g))
	add("psa", newStepCommands(g)...)
	add("device", newDaemonCommand(g), newBootCheckCommand(g), newConfigCommand(g), newDoctorCommand(g), newProvisionCommand(g), newResetCommand(g))
	add("creator", newKeyCommand(), newManifestCommand(), newBundleCommand())
	addGenerate(root)
	g.complete(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return explainFlag(cmd, err) })
	explainArguments(root)
	return root
}

// explainFlag names the mistake in a flag in the words of the command line.
func explainFlag(cmd *cobra.Command, err error) error {
	text, number, found := strings.Cut(err.Error(), ": strconv.")
	switch {
	case found && strings.Contains(number, "out of range"):
		text += ": the number is too large"
	case found:
		text += ": want a number"
	}
	return fmt.Errorf("%s; see %s --help", text, cmd.CommandPath())
}

// explainArguments has every command say which arguments it takes, where it is given others.
func explainArguments(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		explainArguments(sub)
	}
	check := cmd.Args
	if check == nil {
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil || !strings.HasPrefix(err.Error(), "accepts ") && !strings.HasPrefix(err.Error(), "requires ") && !strings.HasPrefix(err.Error(), "unknown command") {
			return err
		}
		_, wanted, _ := strings.Cut(cmd.Use, " ")
		if wanted == "" {
			wanted = "no arguments"
			if cmd.HasSubCommands() {
				wanted = "one of its commands"
			}
		}
		return fmt.Errorf("%s takes %s, and was given %d arguments; see %s --help", cmd.CommandPath(), wanted, len(args), cmd.CommandPath())
	}
}

func busAddress(getenv func(string) string) string {
	if a := getenv("FWU_AB_BUS"); a != "" {
		return a
	}
	return "system"
}

// release is the version of a build by the Makefile. The linker sets it, and nothing else does.
var release string

// version is that of the build: the Makefile's, the module's, or the revision it was built from.
func version() string {
	if made || release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "development"
}
