package config

import (
	"math"
	"time"
)

// Who accepts a new system.
const (
	AcceptChecks = "checks" // the boot check, when boot-complete.target was reached
	AcceptClient = "client" // an update client, by a call; the boot check only rejects
)

// BootCheck says what becomes of a new system.
type BootCheck struct {
	Accept string // AcceptChecks or AcceptClient
	// Deadline is how long after its boot a new system must be accepted.
	Deadline time.Duration
	// CheckTimeout is how long a health check may take.
	CheckTimeout time.Duration
	// Units must not have failed when the new system is accepted.
	Units []string
}

// The defaults, in seconds.
const (
	defaultDeadline     = 600
	defaultCheckTimeout = 60
	minDeadline         = 30
)

// DefaultBootCheck is what holds where nothing is configured.
func DefaultBootCheck() BootCheck {
	return BootCheck{Accept: AcceptChecks, Deadline: defaultDeadline * time.Second, CheckTimeout: defaultCheckTimeout * time.Second}
}

func (s *scope) bootCheck() BootCheck {
	sub := s.scope("boot-check")
	b := BootCheck{Accept: sub.choice("accept", AcceptChecks, AcceptClient)}
	b.Deadline = sub.seconds("deadline", minDeadline, defaultDeadline)
	b.CheckTimeout = sub.seconds("check-timeout", 1, defaultCheckTimeout)
	b.Units = sub.units("units")
	sub.done()
	return b
}

// seconds reads a time in whole seconds.
func (s *scope) seconds(key string, low, fallback int64) time.Duration {
	v, at, ok := s.number(key, low, math.MaxInt32)
	if !ok {
		v = fallback
	}
	s.note(s.path+key, v, at)
	return time.Duration(v) * time.Second
}

// units reads a list of units.
func (s *scope) units(key string) []string {
	n := s.child(key)
	if n == nil {
		return nil
	}
	if n.array == nil {
		s.wrongKind(key, n, "an array of units")
		return nil
	}
	list := []string{}
	for _, e := range n.array {
		if v := s.textOf(key, e); v != "" {
			list = append(list, s.unitName(key, v, e.at))
		}
	}
	s.note(s.path+key, list, n.at)
	return list
}
