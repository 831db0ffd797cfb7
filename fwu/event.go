package fwu

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
)

// Event is what happens to a component, as the log has it under EventKey: something that an operator may want to find, count or be woken by.
type Event string

// EventKey is the key of an Event in the log. Beside it are "component", and as far as they are known "version", "reason" and "text".
const EventKey = "event"

// The events. Each is logged after the last write of the operation, when all of it is durable. An
// operation that failed and was taken back has none, but for not-installed.
const (
	EventStarted Event = "started" // an image is being written
	// it was read back, and is the one that its manifest describes
	EventCandidate Event = "candidate"
	// it is started by the next reboot, or is in use if the component is live
	EventInstalled Event = "installed"
	// its bank was not started, and is not armed any more: it is a candidate again
	EventNotStarted Event = "not-started"
	EventTrial      Event = "trial"    // it runs on trial
	EventAccepted   Event = "accepted" // it is kept
	// it is given up, and the previous one comes back with a reboot
	EventRejected   Event = "rejected"
	EventRolledBack Event = "rolled-back" // the previous one is back
	// it was given up, and runs on, as there is none to go back to
	EventKept Event = "kept"
	// install was refused or failed: it is a candidate still
	EventNotInstalled Event = "not-installed"
	EventRefused      Event = "refused" // it, or its manifest, failed a check
	// of no component: a caller lacks the permission for its call; logged by the bus service
	EventDenied    Event = "denied"
	EventCancelled Event = "cancelled" // a client gave it up before it was installed
	// it was prepared on a volatile component, and a reboot has ended that
	EventDropped Event = "dropped"
	// the remains of the last update in the second slot are gone
	EventCleaned Event = "cleaned"
)

// Events are all of them.
func Events() []Event {
	return []Event{EventStarted, EventCandidate, EventInstalled, EventNotStarted, EventTrial, EventAccepted, EventRejected, EventRolledBack, EventKept, EventRefused,
		EventCancelled, EventDropped, EventCleaned, EventDenied, EventNotInstalled}
}

// eventOf says what it is that a component's record became another one; "" if it is nothing to tell.
func eventOf(before, after *componentRecord) Event {
	from, to := before.State, after.State
	if from == to {
		return ""
	}
	switch to {
	case Writing:
		return EventStarted
	case Candidate:
		if from == Writing {
			return EventCandidate
		}
		return EventNotStarted
	case Staged:
		return EventInstalled
	case Trial:
		if from == Candidate {
			return EventInstalled
		}
		return EventTrial
	case Rejected:
		return EventRejected
	case Updated:
		if from == Candidate {
			return EventInstalled
		}
		return EventAccepted
	case Failed:
		switch {
		case after.Reason == ReasonRollbackFailed:
			return EventKept
		case from.bound(), after.Reason == ReasonUnitRestart:
			return EventRolledBack
		case after.Reason == ReasonCancelled:
			return EventCancelled
		}
		return EventRefused
	}
	switch { // READY
	case from == Failed, from == Updated:
		if before.Active != after.Active {
			return "" // the other bank was booted without an update
		}
		return EventCleaned
	case !from.bound():
		return EventDropped
	case from == Trial && before.Active == after.Active:
		return EventAccepted
	case from == Rejected && before.Active == after.Active:
		return EventKept
	}
	return EventRolledBack
}

// date notes when components came into their state.
func (s *Service) date(before, after *record) {
	if s.cfg.Time == nil {
		return
	}
	for name, a := range after.Components {
		if b := before.Components[name]; b == nil || b.State != a.State {
			a.Since = s.cfg.Time().Unix()
		}
	}
}

// news are the changes of state that the saves of an operation made. Each component has the record
// before the first of them and after the last.
type news map[string]*[2]*componentRecord

func (n *news) add(before, after *record) {
	for name, a := range after.Components {
		b := before.Components[name]
		if b == nil || b.State == a.State {
			continue
		}
		if *n == nil {
			*n = news{}
		}
		if c := (*n)[name]; c != nil {
			c[1] = a
		} else {
			(*n)[name] = &[2]*componentRecord{b, a}
		}
	}
}

// tell logs the outcome for the components. The caller has done all that the operation is made of.
func (s *Service) tell(n news) {
	for _, c := range s.components {
		change := n[c.Name]
		if change == nil {
			continue
		}
		if e := eventOf(change[0], change[1]); e != "" {
			attrs := e.attributes(c.Name, change[0], change[1])
			if e == EventCandidate {
				attrs = append(attrs, s.countAttributes(c)...)
			}
			s.log.LogAttrs(context.Background(), e.level(), e.message(), attrs...)
		}
	}
}

func (s *Service) countAttributes(c *component) []slog.Attr {
	s.mu.Lock()
	n := c.counted()
	s.mu.Unlock()
	return []slog.Attr{slog.Int64("received", n.Received), slog.Int64("equal", n.Equal), slog.Int64("zeroed", n.Zeroed), slog.Int64("stored", n.Written), slog.Int64("read_back", n.ReadBack)}
}

// level is how much an operator should care.
func (e Event) level() slog.Level {
	switch e {
	case EventRejected, EventRolledBack, EventKept, EventRefused, EventNotStarted, EventDenied, EventNotInstalled:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// message is the event as a sentence.
func (e Event) message() string {
	return map[Event]string{
		EventStarted:      "an image is being written",
		EventCandidate:    "the image was verified",
		EventInstalled:    "the image was installed",
		EventNotStarted:   "the new bank was not started, and is not armed",
		EventTrial:        "the new system runs on trial",
		EventAccepted:     "the new image is kept",
		EventRejected:     "the new image was rejected",
		EventRolledBack:   "the previous image is back",
		EventKept:         "the image stays, as the previous one cannot be started",
		EventNotInstalled: "install was refused",
		EventRefused:      "an image was refused",
		EventCancelled:    "the update was cancelled",
		EventDropped:      "what was prepared is gone",
		EventCleaned:      "the second slot is clean",
		EventDenied:       "a caller was denied",
	}[e]
}

func (e Event) attributes(component string, before, after *componentRecord) []slog.Attr {
	attrs := []slog.Attr{slog.String(EventKey, string(e)), slog.String("component", component)}
	if img := e.image(before, after); img.Digest != "" || img.Version != (Version{}) {
		attrs = append(attrs, slog.String("version", img.Version.String()))
		if img.Digest != "" {
			attrs = append(attrs, slog.String("digest", img.Digest))
		}
	}
	if after.Error != Success {
		attrs = append(attrs, slog.Int64("error", int64(after.Error)))
	}
	if after.Reason != "" {
		attrs = append(attrs, slog.String("reason", string(after.Reason)), slog.String("text", after.Text))
	}
	return attrs
}

// image is the image that the event is about.
func (e Event) image(before, after *componentRecord) *imageRecord {
	switch e {
	case EventTrial, EventAccepted, EventKept:
		return after.image()
	case EventRejected, EventRolledBack:
		if before.State == Staged || before.State == Candidate {
			return before.next()
		}
		return before.image()
	case EventInstalled:
		if before.Active != after.Active {
			return after.image()
		}
	case EventCleaned:
		return &imageRecord{}
	}
	if img := after.next(); img.Digest != "" {
		return img
	}
	return before.next()
}

// refused logs a refusal that leaves no trace in the record, in the form of those that do.
func (s *Service) refused(component string, err error) {
	s.log.Warn(EventRefused.message(), EventKey, string(EventRefused), "component", component,
		"error", int64(StatusOf(err)), "reason", string(ReasonOf(err)), "text", err.Error())
}

// notInstalled logs that an install was refused, with the components that stand in the way: for
// each candidate that still is one, or once if there was none.
func (s *Service) notInstalled(err error) {
	attrs := []any{EventKey, string(EventNotInstalled), "error", int64(StatusOf(err)), "reason", string(ReasonOf(err)), "text", err.Error()}
	var e *Error
	if errors.As(err, &e) && len(e.Components) > 0 {
		var names []string
		for _, id := range e.Components {
			names = append(names, s.component(id).Name)
		}
		attrs = append(attrs, "needs", strings.Join(names, ","))
	}
	none := true
	for _, c := range s.components {
		if cr := s.record().Components[c.Name]; cr.State == Candidate {
			s.log.Warn(EventNotInstalled.message(), append(slices.Clone(attrs), "component", c.Name, "version", cr.next().Version.String())...)
			none = false
		}
	}
	if none && ReasonOf(err) == ReasonState { // else their outcome was logged
		s.log.Warn(EventNotInstalled.message(), attrs...)
	}
}
