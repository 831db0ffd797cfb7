package dbus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// busError is an error that the D-Bus specification or the reference bus names, for what is wrong with a call as such.
type busError struct {
	name string // what follows org.freedesktop.DBus.Error.
	text string
}

func (e *busError) Error() string { return e.text }

func refuse(name, format string, args ...any) *busError {
	return &busError{name: name, text: fmt.Sprintf(format, args...)}
}

func invalid(reason fwu.Reason, format string, args ...any) error {
	return &fwu.Error{Status: fwu.InvalidArgument, Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// encodeError is the name and the body of the D-Bus error for err. Names come from tables, never from a caller: a name that is not valid
// would make the library drop the reply.
func encodeError(err error) (name string, body []any) {
	var refused *busError
	if errors.As(err, &refused) {
		return busErrorPrefix + refused.name, []any{clean(refused.text)}
	}
	components := []byte{}
	var e *fwu.Error
	if errors.As(err, &e) {
		components = bytesOf(e.Components)
	}
	return errorPrefix + fwu.StatusOf(err).DBusName(), []any{clean(err.Error()), map[string]godbus.Variant{
		"reason":     godbus.MakeVariant(clean(string(fwu.ReasonOf(err)))),
		"components": godbus.MakeVariant(components),
		"cause":      godbus.MakeVariant(clean(string(fwu.CauseOf(err)))),
	}}
}

// clean makes s a string that may travel: the bus ends the connection of one who sends it anything else.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// decodeError is the reverse of encodeError, for what a call to the service ended with.
func decodeError(ctx context.Context, call string, err error) error {
	if err == nil {
		return nil
	}
	var remote godbus.Error
	if !errors.As(err, &remote) {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", call, context.Cause(ctx))
		}
		return &fwu.Error{Status: fwu.CommunicationFailure, Text: call + ": the connection to the bus was lost before the answer came: fwu-ab status shows what became of it", Err: err}
	}
	text, _ := first(remote.Body).(string)
	if last, ok := strings.CutPrefix(remote.Name, errorPrefix); ok {
		status, _ := fwu.StatusFromDBus(last)
		return withDetails(&fwu.Error{Status: status, Text: text}, remote.Body)
	}
	if text == "" {
		text = remote.Name
	}
	switch strings.TrimPrefix(remote.Name, busErrorPrefix) {
	case "AccessDenied", "AuthFailed", "InteractiveAuthorizationRequired":
		return &fwu.Error{Status: fwu.NotPermitted, Reason: ReasonDenied, Text: call + ": access denied: " + text}
	case "InvalidArgs", "UnknownMethod", "UnknownObject", "UnknownInterface":
		return &fwu.Error{Status: fwu.NotSupported, Text: call + ": the service does not know this call (is it of another version?): " + text}
	case "ServiceUnknown", "NameHasNoOwner", "Spawn.ServiceNotFound", "Spawn.ChildExited", "Spawn.Failed", "Spawn.ExecFailed", "Spawn.ChildSignaled", "Spawn.ServiceNotValid", "Spawn.FileInvalid":
		return &fwu.Error{Status: fwu.CommunicationFailure, Text: call + ": the update service does not run and could not be started (" + text +
			")", Reason: ReasonUnreachable}
	case "NoReply", "Disconnected", "TimedOut", "Timeout":
		return &fwu.Error{Status: fwu.CommunicationFailure, Reason: ReasonUnreachable, Text: call + ": the update service went away: " + text}
	}
	return &fwu.Error{Status: fwu.GenericError, Text: call + ": " + text}
}

func first(body []any) any {
	if len(body) == 0 {
		return nil
	}
	return body[0]
}

func withDetails(e *fwu.Error, body []any) *fwu.Error {
	if len(body) < 2 {
		return e
	}
	details, _ := body[1].(map[string]godbus.Variant)
	reason, _ := details["reason"].Value().(string)
	e.Reason = fwu.Reason(reason)
	cause, _ := details["cause"].Value().(string)
	e.Cause = fwu.Cause(cause)
	e.Components = idsOf(details["components"])
	return e
}

// bytesOf are components as they travel, and idsOf is the reverse.
func bytesOf(ids []fwu.ID) []byte {
	b := make([]byte, 0, len(ids))
	for _, id := range ids {
		b = append(b, byte(id))
	}
	return b
}

func idsOf(v godbus.Variant) (ids []fwu.ID) {
	b, _ := v.Value().([]byte)
	for _, id := range b {
		ids = append(ids, fwu.ID(id))
	}
	return ids
}
