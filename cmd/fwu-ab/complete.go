package main

import (
	"context"
	"strings"
	"time"

	"github.com/fwu-ab/fwu-ab/config"
	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
	godbus "github.com/godbus/dbus/v5"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completer says what can stand in a place of the command line.
type completer = cobra.CompletionFunc

// completeFiles leaves it to the shell.
func completeFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func nothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func words(list ...string) completer {
	return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder)
}

// arguments says how each argument is completed, by what Use calls it. With dots it may be repeated.
func (g *globals) arguments() map[string]completer {
	return map[string]completer{"COMPONENT": g.components(""), "FILE": completeFiles, "FILE...": completeFiles, "DESCRIPTION": completeFiles, "NAME": nothing,
		"record|new-record|slots": words(string(fwu.RepairRecord), string(fwu.RepairNewRecord), string(fwu.RepairSlots))}
}

// flags says the same of each flag that takes a value.
func (g *globals) flags() map[string]completer {
	m := map[string]completer{
		"bank": words("a", "b"), "bus": words("system", "session"), "component": g.components(""), "size": g.components("="), "depends": nothing,
		"compression": words("zstd"), "digest": words("sha256", "sha384", "sha512"), "level": words("fastest", "default", "better", "best"), "type": words("ed25519", "p256", "p384", "p521"),
		"directory": directories, "root": directories,
	}
	for _, name := range []string{"chain", "disk", "image", "key", "manifest", "output", "signature"} {
		m[name] = completeFiles
	}
	for _, name := range []string{"at", "class", "class-name", "error", "idle", "max-size", "offset", "required-signatures", "sequence", "text", "vendor", "vendor-name", "version"} {
		m[name] = nothing
	}
	return m
}

// complete gives every command its completions.
func (g *globals) complete(c *cobra.Command) {
	arguments, flags := g.arguments(), g.flags()
	_, use, _ := strings.Cut(c.Use, " ")
	c.ValidArgsFunction = inOrder(strings.Fields(use), arguments)
	complete := func(f *pflag.Flag) {
		if done := flags[f.Name]; done != nil && f.Value.Type() != "bool" {
			_ = c.RegisterFlagCompletionFunc(f.Name, done) // fails only for a flag that is not there, or twice
		}
	}
	c.LocalNonPersistentFlags().VisitAll(complete)
	c.PersistentFlags().VisitAll(complete)
	for _, sub := range c.Commands() {
		g.complete(sub)
	}
}

// inOrder completes each argument in its place.
func inOrder(names []string, arguments map[string]completer) completer {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		i := len(args)
		if n := len(names); n > 0 && i >= n && strings.HasSuffix(names[n-1], "...") {
			i = n - 1
		}
		if i >= len(names) || arguments[names[i]] == nil {
			return nothing(cmd, args, word)
		}
		return arguments[names[i]](cmd, args, word)
	}
}

// patience is how long a shell waits for the names of components.
const patience = 500 * time.Millisecond

// components completes their names. It says nothing of what goes wrong.
func (g *globals) components(suffix string) completer {
	return func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		directive := cobra.ShellCompDirectiveNoFileComp
		if suffix != "" {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		var list []string
		for _, name := range g.componentNames(cmd.Context()) {
			if strings.HasPrefix(name, word) {
				list = append(list, name+suffix)
			}
		}
		return list, directive
	}
}

// componentNames asks the service if it runs, and does not have it started: that it does not come up is not to be the fault of a key that was pressed. Else the configuration
// has them.
func (g *globals) componentNames(ctx context.Context) []string {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer stop()
	if g.serves(ctx) {
		if c, err := dbus.Dial(ctx, g.bus); err == nil {
			defer c.Close()
			var names []string
			for _, info := range c.Components() {
				names = append(names, info.Name)
			}
			return names
		}
	}
	cfg, err := config.Load(g.root)
	if err != nil {
		return nil
	}
	var names []string
	for _, c := range cfg.Components {
		names = append(names, c.Name)
	}
	return names
}

// serves tells whether the service is on the bus.
func (g *globals) serves(ctx context.Context) bool {
	bus, err := connect(ctx, g.bus)
	if err != nil {
		return false
	}
	defer bus.Close()
	var there bool
	err = bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", godbus.FlagNoAutoStart, dbus.Name).Store(&there)
	return err == nil && there
}
