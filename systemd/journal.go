package systemd

import (
	"context"
	"log/slog"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// MessageID is the message identifier (systemd.journal-fields(7)) of an event, empty for none. share/fwu-ab.catalog explains each.
func MessageID(e fwu.Event) string {
	switch e {
	case fwu.EventStarted:
		return "48a5ab9a38154af9b46c1b49d3d458af"
	case fwu.EventCandidate:
		return "e25918f7355747b080909f80067b4fdf"
	case fwu.EventInstalled:
		return "951d29a0419045cd8d4413a8edfba9eb"
	case fwu.EventNotStarted:
		return "455cba9376c64265bc6d9745731150c6"
	case fwu.EventTrial:
		return "cd20291086a54d05885ce413417a0544"
	case fwu.EventAccepted:
		return "db80ff9f8f2b4b4287fb878c5c742d2e"
	case fwu.EventRejected:
		return "0389ae7dab864fd4a53a257f2f937830"
	case fwu.EventRolledBack:
		return "cd6f8671a1c445bfbcbd60ca609f5363"
	case fwu.EventKept:
		return "5d0f6b1e7c3a4f0c9a6e2b84d1f7305e"
	case fwu.EventNotInstalled:
		return "6f0c2f4e5b7d4c0b8f3a9d1e27c46a58"
	case fwu.EventRefused:
		return "349a1d1111d3408dad0c22ab239ecf6a"
	case fwu.EventDenied:
		return "6fd1d2f0b5c24e9c8d0b7e0d3c1f5a92"
	case fwu.EventCancelled:
		return "e99e1e51cf96468e91ed289a72f8f5f1"
	case fwu.EventDropped:
		return "8b9d13eb91ac476b9464b67c950d8d48"
	case fwu.EventCleaned:
		return "8a34d7e0cc4c404d9cb850cd94ca1a50"
	}
	return ""
}

// fieldPrefix begins the fields of the journal that the attributes of a record become.
const fieldPrefix = "FWU_"

// fields are what the journal gets of a record beside its message: each attribute by its own name, and what identifies an event.
func fields(attrs []slog.Attr, r slog.Record) map[string]string {
	all := map[string]string{"SYSLOG_IDENTIFIER": "fwu-ab"}
	add := func(a slog.Attr) bool {
		if name := fieldName(a.Key); name != "" && a.Value.Kind() != slog.KindGroup {
			all[name] = a.Value.String()
		}
		return true
	}
	for _, a := range attrs {
		add(a)
	}
	r.Attrs(add)
	if id := MessageID(fwu.Event(all[fieldName(fwu.EventKey)])); id != "" {
		all["MESSAGE_ID"] = id
	}
	return all
}

// fieldName makes a name that the journal takes: capital letters, digits and underscores.
func fieldName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		case r == '-', r == '_', r == '.', r == ' ':
			return '_'
		}
		return -1
	}, key)
	if name == "" {
		return ""
	}
	return fieldPrefix + name
}

// sendJournal hands an entry to the journal.
func sendJournal(_ context.Context, message string, priority int, fields map[string]string) error {
	return journal.Send(message, journal.Priority(priority), fields)
}
