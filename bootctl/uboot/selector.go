package uboot

import (
	"errors"
	"fmt"
	"sync"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Selector is the boot selector in a U-Boot environment. Create it with New. It keeps nothing open, and remembers nothing but
// a write that failed. It is safe for concurrent use.
type Selector struct {
	config Config
	scheme scheme

	mu      sync.Mutex
	suspect int // copy whose last write failed: what is read there need not survive a cut
}

var (
	_ fwu.Selector = (*Selector)(nil)
	_ fwu.Repairer = (*Selector)(nil)
	_ fwu.Limiter  = (*Selector)(nil)
)

// Config says where the environment lies and how it is used.
type Config struct {
	Environment
	Scheme Scheme
	// BankVariables are the variables that stand for the bank in the scheme BootCount, and their values for bank a and bank b.
	BankVariables map[string][2]string
	// Names are the boot script's names of bank a and bank b in the scheme BootOrder; empty:
	// BankNames.
	Names [2]string
	// Default is a full default environment (ParseDefault) for the case that no copy is valid; nil: the selector is unusable then.
	Default *Env
	Locks   Locks
}

// New checks a configuration. It touches no medium.
func New(c Config) (*Selector, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	s, err := c.scheme()
	if err != nil {
		return nil, err
	}
	return &Selector{config: c, scheme: s, suspect: noCopy}, nil
}

// Kind is "uboot".
func (s *Selector) Kind() string { return "uboot" }

// Read returns what the environment says. Where the environment is valid but names no default bank, Default is fwu.NoBank and the error nil.
// It takes the locks only to look again where no copy was valid, as another program may be in the middle of writing a single copy.
func (s *Selector) Read() (fwu.Selection, error) {
	env, _, err := s.read()
	if err != nil {
		return fwu.Selection{}, err
	}
	if err := s.scheme.usable(env); err != nil {
		return fwu.Selection{}, err
	}
	selection, _ := s.scheme.read(env)
	return selection, nil
}

func (s *Selector) read() (*Env, []Copy, error) {
	env, copies, err := s.config.Read()
	if !errors.Is(err, fwu.ErrNoSelection) {
		return env, copies, err
	}
	unlock, err := s.config.Locks.lock()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	return s.config.Read()
}

// Commit makes sel the selection, as fwu.Selector demands. With a single copy a power cut can leave no valid environment; see Environment.SingleCopy.
func (s *Selector) Commit(sel fwu.Selection) error {
	if sel.Default.Index() < 0 || sel.Trial != fwu.NoBank && sel.Trial.Index() < 0 {
		return fmt.Errorf("commit of default bank %q with trial %q: not a selection", sel.Default, sel.Trial)
	}
	unlock, err := s.config.Locks.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspect, err = s.config.update(s.config.Default, s.suspect, func(e *Env) error { return s.scheme.write(e, sel) })
	return err
}

// Repair brings a damaged copy back, as fwu.Repairer demands: until then a cut would have nothing to fall back to.
func (s *Selector) Repair() error {
	unlock, err := s.config.Locks.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return s.config.Environment.Repair()
}

// Doctor describes the environment for people, a line for each finding: which copies are valid and active, what was made of odd values.
func (s *Selector) Doctor() []string {
	env, copies, err := s.read()
	lines := s.config.Locks.doctor()
	for i, c := range copies {
		state := "damaged"
		switch {
		case c.Err != nil:
			state = c.Err.Error()
		case c.Active:
			state = fmt.Sprintf("valid, flag %d, active", c.Flag)
		case c.Valid:
			state = fmt.Sprintf("valid, flag %d", c.Flag)
		}
		lines = append(lines, fmt.Sprintf("copy %d, %s: %s", i+1, c.Location, state))
	}
	if err != nil {
		return append(lines, err.Error())
	}
	_, notes := s.scheme.read(env)
	_, more := s.fallback(env)
	return append(append(lines, notes...), more...)
}

// Limits are the promises of a selection that cannot be kept here, as fwu.Limiter demands.
func (s *Selector) Limits() []string {
	if len(s.config.Copies) == 1 {
		return []string{fwu.LimitSingleCopy}
	}
	return nil
}

// Faults says why a trial cannot be armed, or does not end by itself, although the environment can
// be read. It tries the steps of Commit, and writes nothing.
func (s *Selector) Faults() (faults []string, err error) {
	m, err := s.config.open(false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	copies := m.read()
	active, err := choose(copies)
	if err != nil {
		return nil, err
	}
	if err := m.mendable(copies, active, noCopy); err != nil {
		faults = append(faults, err.Error())
	}
	env := copies[active].Env
	for i := range 2 {
		changed := env.Clone()
		err := s.scheme.write(changed, fwu.Selection{Default: fwu.BankOf(i), Trial: fwu.BankOf(1 - i)})
		if err == nil {
			_, err = encode(changed, 0, copies[active].Size, len(copies))
		}
		if err != nil {
			faults = append(faults, err.Error())
			break
		}
	}
	more, _ := s.fallback(env)
	return append(faults, more...), nil
}

// fallback judges the part of a fallback that is the board's.
func (s *Selector) fallback(e *Env) (faults, notes []string) {
	if b, ok := s.scheme.(bootCount); ok {
		return b.faults(e)
	}
	return nil, nil
}
