package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/fwu-ab/fwu-ab/config"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/systemd/rundir"
)

// hookTimeout is how long a hook may take. The watchdog wants to see a step more often than that.
const hookTimeout = time.Minute

// hookDirectories are the places of hooks; a later one takes the place of an earlier one.
func hookDirectories() []string { return []string{"/usr/lib/fwu-ab/hooks.d", "/etc/fwu-ab/hooks.d"} }

// findHooks lists the hooks of a stage.
func (m *machine) findHooks(stage fwu.HookStage) ([]rundir.Program, error) {
	return rundir.Find(m.root, hookDirectories(), string(stage)+".d")
}

// hooks runs the hooks of a stage for the service. Their output goes to the log, line by line.
func (m *machine) hooks(log *slog.Logger) fwu.Hooks {
	return func(ctx context.Context, call *fwu.HookCall, step func()) error {
		programs, err := m.findHooks(call.Stage)
		if err != nil {
			return err
		}
		r := runner(log, "hook", hookTimeout)
		r.Env = hookEnvironment(call)
		for _, p := range programs {
			step()
			if err := r.Run(ctx, p); err != nil {
				return err
			}
		}
		return nil
	}
}

// runner runs programs that only root can change, and logs their output under a key.
func runner(log *slog.Logger, key string, timeout time.Duration) rundir.Runner {
	return rundir.Runner{Timeout: timeout, Trust: func(path string) error { return config.CheckOwners(path) }, Output: func(name, line string) {
		log.Info(line, key, name)
	}}
}

// hookEnvironment is the whole environment of a hook: nothing of the service's own.
func hookEnvironment(call *fwu.HookCall) []string {
	names, versions := "FWU_COMPONENTS=", "FWU_VERSIONS="
	space := ""
	for _, c := range call.Components {
		names += space + c.Component
		versions += space + c.Version.String()
		space = " "
	}
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "FWU_HOOK=" + string(call.Stage), "FWU_BANK=" + string(call.Bank), names, versions}
}
