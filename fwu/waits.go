package fwu

// waitsFor names the calls that take a component out of a state.
func (s State) waitsFor() string {
	switch s {
	case Ready:
		return "start"
	case Writing:
		return "write, finish or cancel"
	case Candidate:
		return "install or cancel"
	case Staged:
		return "a reboot, or reject"
	case Failed, Updated:
		return "clean"
	case Trial:
		return "accept or reject"
	case Rejected:
		return "a reboot"
	}
	return "nothing that is known"
}
