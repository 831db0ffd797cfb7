package systemd

import (
	"context"
	"fmt"

	godbus "github.com/godbus/dbus/v5"
)

// Unit is what the service manager says of a unit (org.freedesktop.systemd1(5), ListUnitsByNames).
type Unit struct {
	Name   string
	Load   string // "loaded", "not-found", "masked", ...
	Active string // "active", "inactive", "failed", "activating", ...
	Busy   bool   // a job of it is queued or running
}

// Units asks for the states of units, or of all that failed if no name is given.
func (h Host) Units(ctx context.Context, names ...string) ([]Unit, error) {
	type row struct {
		Name, Description, Load, Active, Sub, Following string
		Path                                            godbus.ObjectPath
		JobID                                           uint32
		JobType                                         string
		JobPath                                         godbus.ObjectPath
	}
	var rows []row
	systemd := h.Bus.Object(managerName, managerPath)
	call := systemd.CallWithContext(ctx, manager+"ListUnitsFiltered", 0, []string{"failed"})
	if len(names) > 0 {
		call = systemd.CallWithContext(ctx, manager+"ListUnitsByNames", 0, names)
	}
	if err := call.Store(&rows); err != nil {
		return nil, fmt.Errorf("ask for the states of units: %w", err)
	}
	units := make([]Unit, len(rows))
	for i, r := range rows {
		units[i] = Unit{r.Name, r.Load, r.Active, r.JobID != 0}
	}
	return units, nil
}
