// Package bootcheck decides whether a new system is healthy: it runs health checks, and ends a
// trial that nobody else can end.
//
// Health checks are the executables in required.d and wanted.d of /usr/lib/fwu-ab/check.d and
// /etc/fwu-ab/check.d, as package rundir finds and runs them. Exit code 0 is healthy. A required
// check decides, a wanted one warns.
package bootcheck

import "github.com/fwu-ab/fwu-ab/systemd/rundir"

// Directories are the places of checks; a later one takes the place of an earlier one.
func Directories() []string { return []string{"/usr/lib/fwu-ab/check.d", "/etc/fwu-ab/check.d"} }

// Check is a health check.
type Check struct {
	rundir.Program
	Required bool
}

// Find lists the checks below root, in the order in which they run: the wanted ones after the
// required ones.
func Find(root string) ([]Check, error) {
	var out []Check
	for _, kind := range []string{"required.d", "wanted.d"} {
		programs, err := rundir.Find(root, Directories(), kind)
		if err != nil {
			return nil, err
		}
		for _, p := range programs {
			out = append(out, Check{p, kind == "required.d"})
		}
	}
	return out, nil
}
