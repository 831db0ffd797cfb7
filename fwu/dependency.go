package fwu

import (
	"fmt"
	"strings"
)

// dependencies checks that r has everything that c's candidate needs (section 4.4). A candidate of
// this install counts with its new version, any other component with its active one. The images of
// one manifest are installed together, or are there already.
func dependencies(r *record, c *component, cr *componentRecord) error {
	if err := versions(r, c, cr.next()); err != nil {
		return err
	}
	for _, w := range cr.next().With {
		other := r.Components[w.Component]
		if other == nil {
			return refuse(DependencyNeeded, ReasonDependency, "%s is installed together with %s only, which this device does not have", c.Name, w.Component)
		}
		have := other.image().Digest
		if other.State == Candidate {
			have = other.next().Digest
		}
		if have != w.Digest {
			err := refuse(DependencyNeeded, ReasonDependency, "%s is installed only together with the image of %s that its manifest has", c.Name, w.Component)
			err.Components = []ID{other.ID}
			return err
		}
	}
	return nil
}

// othersWait returns an error that names the members of c's bank that are in the way of an install.
func othersWait(r *record, all []*component, c *component) error {
	var waiting []ID
	var names []string
	for _, m := range all {
		if st := r.Components[m.Name].State; !c.Live && !m.Live && st != Ready && st != Candidate {
			waiting = append(waiting, m.ID)
			names = append(names, fmt.Sprintf("%s is %s, and waits for %s", m.Name, st, st.waitsFor()))
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	return &Error{Status: DependencyNeeded, Reason: ReasonDependency, Components: waiting,
		Text: "every other member of the bank must be READY or CANDIDATE: " + strings.Join(names, ", ")}
}

// versions checks that r has the versions that an image of c needs of other components.
func versions(r *record, c *component, img *imageRecord) error {
	for _, d := range img.Dependencies {
		other := r.Components[d.Component]
		if other == nil {
			return refuse(DependencyNeeded, ReasonDependency, "%s needs %s, which this device does not have", c.Name, d)
		}
		have := other.image().Version
		if other.State == Candidate && !d.Present {
			have = other.next().Version
		}
		if !d.Met(have) {
			err := refuse(DependencyNeeded, ReasonDependency, "%s needs %s, and that is %s", c.Name, d, have)
			err.Components = []ID{other.ID}
			return err
		}
	}
	return nil
}

func needs(c *component, format string, args ...any) *Error {
	err := refuse(DependencyNeeded, ReasonDependency, format, args...)
	err.Components = []ID{c.ID}
	return err
}

// charged checks that the battery holds the charge that c's candidate asks for.
func charged(battery func() (mWh uint64, err error), c *component, cr *componentRecord) error {
	want := cr.next().Battery
	if want == 0 || battery == nil {
		return nil
	}
	have, err := battery()
	if err != nil {
		return &Error{Status: InsufficientPower, Reason: ReasonBattery, Text: fmt.Sprintf("%s needs a battery that holds %d mWh", c.Name, want), Err: err}
	}
	if have < want {
		return refuse(InsufficientPower, ReasonBattery, "%s needs a battery that holds %d mWh, and it holds %d", c.Name, want, have)
	}
	return nil
}
