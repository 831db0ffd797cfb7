package fwu

import (
	"errors"
	"fmt"
	"strings"
)

// Status is a status code of the PSA Certified Firmware Update API 1.0 (section 5.2, and the PSA status codes it refers to).
// A negative Status is an error and implements that interface, so that errors.Is(err, fwu.BadState) asks the question that a caller has.
type Status int32

// The status codes, with the values of the specification.
const (
	Success              Status = 0
	SuccessReboot        Status = 1
	SuccessRestart       Status = 2
	GenericError         Status = -132
	NotPermitted         Status = -133
	NotSupported         Status = -134
	InvalidArgument      Status = -135
	BadState             Status = -137
	DoesNotExist         Status = -140
	InsufficientMemory   Status = -141
	InsufficientStorage  Status = -142
	CommunicationFailure Status = -145
	StorageFailure       Status = -146
	InvalidSignature     Status = -149
	DependencyNeeded     Status = -156
	FlashAbuse           Status = -160
	InsufficientPower    Status = -161
)

// Exit codes of the command line.
const (
	ExitOK           = 0
	ExitFailure      = 1
	ExitUsage        = 2
	ExitNothingToDo  = 3
	ExitDegraded     = 6
	ExitNotPermitted = 4
	ExitVerification = 5
)

type statusRow struct {
	status Status
	name   string // of the C constant, without its prefix PSA_ or PSA_ERROR_
	dbus   string // last element of the D-Bus error name; empty for a success
	exit   int
}

// statusTable is the one place that knows how a status is called on each side.
func statusTable() []statusRow {
	return []statusRow{
		{Success, "SUCCESS", "", ExitOK},
		{SuccessReboot, "SUCCESS_REBOOT", "", ExitOK},
		{SuccessRestart, "SUCCESS_RESTART", "", ExitOK},
		{GenericError, "GENERIC_ERROR", "GenericError", ExitFailure},
		{NotPermitted, "NOT_PERMITTED", "NotPermitted", ExitNotPermitted},
		{NotSupported, "NOT_SUPPORTED", "NotSupported", ExitFailure},
		{InvalidArgument, "INVALID_ARGUMENT", "InvalidArgument", ExitFailure},
		{BadState, "BAD_STATE", "BadState", ExitFailure},
		{DoesNotExist, "DOES_NOT_EXIST", "DoesNotExist", ExitFailure},
		{InsufficientMemory, "INSUFFICIENT_MEMORY", "InsufficientMemory", ExitFailure},
		{InsufficientStorage, "INSUFFICIENT_STORAGE", "InsufficientStorage", ExitFailure},
		{CommunicationFailure, "COMMUNICATION_FAILURE", "CommunicationFailure", ExitFailure},
		{StorageFailure, "STORAGE_FAILURE", "StorageFailure", ExitFailure},
		{InvalidSignature, "INVALID_SIGNATURE", "InvalidSignature", ExitVerification},
		{DependencyNeeded, "DEPENDENCY_NEEDED", "DependencyNeeded", ExitFailure},
		{FlashAbuse, "FLASH_ABUSE", "FlashAbuse", ExitFailure},
		{InsufficientPower, "INSUFFICIENT_POWER", "InsufficientPower", ExitFailure},
	}
}

// Statuses are the codes of the specification, successes first.
func Statuses() []Status {
	var list []Status
	for _, r := range statusTable() {
		list = append(list, r.status)
	}
	return list
}

func (s Status) row() (statusRow, bool) {
	for _, r := range statusTable() {
		if r.status == s {
			return r, true
		}
	}
	return statusRow{}, false
}

// String returns the name of the C constant without its prefix, or the number of a code that the specification does not name:
// reject takes any that the client chooses.
func (s Status) String() string {
	if r, ok := s.row(); ok {
		return r.name
	}
	return fmt.Sprintf("status %d", int32(s))
}

// Error makes a status an error.
func (s Status) Error() string { return strings.ReplaceAll(strings.ToLower(s.String()), "_", " ") }

// ExitCode is what a command ends with that was answered with this status.
func (s Status) ExitCode() int {
	if r, ok := s.row(); ok {
		return r.exit
	}
	return ExitFailure
}

// DBusName is the last element of the D-Bus error name of an error status; GenericError for one that has none.
func (s Status) DBusName() string {
	if r, ok := s.row(); ok && r.dbus != "" {
		return r.dbus
	}
	return "GenericError"
}

// StatusFromDBus is the reverse of DBusName.
func StatusFromDBus(name string) (Status, bool) {
	for _, r := range statusTable() {
		if r.dbus == name && name != "" {
			return r.status, true
		}
	}
	return GenericError, false
}

// Reason is a stable code that says more than a status: why a call was refused, or why a component is in its state.
type Reason string

// The reason codes. They never change their meaning; new ones may come.
const (
	// A manifest was refused.
	ReasonManifestMissing    Reason = "manifest-missing"
	ReasonManifestUnexpected Reason = "manifest-unexpected"
	ReasonManifestInvalid    Reason = "manifest-invalid"
	ReasonManifestSignature  Reason = "manifest-signature"
	ReasonTrustRemoved       Reason = "trust-removed"    // the trust anchor that vouched for a prepared image is none any more
	ReasonTrustUnreadable    Reason = "trust-unreadable" // trust anchors cannot be read, or others than root can change them
	ReasonVendorMismatch     Reason = "vendor-mismatch"
	ReasonClassMismatch      Reason = "class-mismatch"
	ReasonDeviceMismatch     Reason = "device-mismatch"
	ReasonComponentMismatch  Reason = "component-mismatch"
	ReasonCondition          Reason = "manifest-condition" // a condition of the manifest that has no reason of its own is not met
	ReasonSequenceRollback   Reason = "sequence-rollback"
	ReasonSequenceTooHigh    Reason = "sequence-too-high"
	ReasonFailedBefore       Reason = "failed-before"
	// An image was refused.
	ReasonPayload       Reason = "payload-invalid" // what was written is not what the manifest says that the image is compressed to
	ReasonImageDigest   Reason = "image-digest"
	ReasonImageSize     Reason = "image-size"
	ReasonImageTooLarge Reason = "image-too-large"
	// An argument was refused.
	ReasonOffset    Reason = "offset"
	ReasonSize      Reason = "size"
	ReasonState     Reason = "state"
	ReasonNoSuch    Reason = "no-such-component"
	ReasonRejection Reason = "rejection"
	ReasonRepair    Reason = "repair"
	// Something stands in the way.
	ReasonDependency     Reason = "dependency"
	ReasonBattery        Reason = "battery"
	ReasonBankBusy       Reason = "bank-busy"
	ReasonMixedInstall   Reason = "bank-and-live"
	ReasonCarryOver      Reason = "carry-over"
	ReasonSlotBusy       Reason = "slot-busy"
	ReasonSlotReadOnly   Reason = "slot-read-only"
	ReasonRebootRefused  Reason = "reboot-refused"
	ReasonUnitRestart    Reason = "unit-restart"
	ReasonMedium         Reason = "medium-error"
	ReasonRecordTooLarge Reason = "record-too-large"
	ReasonHook           Reason = "hook" // a program of the device refuses the install
	// Why a component is FAILED or REJECTED.
	ReasonCancelled      Reason = "cancelled"
	ReasonRejected       Reason = "rejected"
	ReasonTrialNotBooted Reason = "trial-not-booted"
	ReasonTrialReset     Reason = "trial-reset"
	ReasonBootBypassed   Reason = "boot-bypassed"  // CANDIDATE again: the reboot did not pass the bootloader; NotPermitted after several of them
	ReasonTrialCheck     Reason = "trial-check"    // a check of the new system failed
	ReasonTrialDeadline  Reason = "trial-deadline" // it was not accepted in time
	// Why the service answers queries only, or what it found at a start.
	ReasonRecordLost        Reason = "record-lost"
	ReasonRecordUnreadable  Reason = "record-unreadable" // a copy of the record cannot be read, and it may be the newer one
	ReasonRecordVersion     Reason = "record-version"
	ReasonBootedBankUnknown Reason = "booted-bank-unknown"
	ReasonSelectorUnusable  Reason = "selector-unusable"
	ReasonDefaultDiffers    Reason = "default-bank-differs"
	ReasonConfigDiffers     Reason = "config-differs"
	ReasonSlotMissing       Reason = "slot-missing" // of a component: it is read-only
	ReasonSlotResized       Reason = "slot-resized" // of a component: it is read-only until Repair records the new size
	ReasonRollbackFailed    Reason = "rollback-failed"
	ReasonReconcile         Reason = "reconcile-failed"
)

// Error is how the service refuses or fails: a status for programs, a reason that is stable, a text for people, and the components that stand in the way.
// Every error that a method of Service or of a client of it returns has one in its chain, unless the context was at fault.
type Error struct {
	Status     Status
	Reason     Reason
	Text       string
	Components []ID  // those that stand in the way
	Cause      Cause // of an error that came from a service; CauseOf finds it in others
	Err        error // cause, may be nil
}

func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Text
	case e.Text == "":
		return e.Err.Error()
	}
	return e.Text + ": " + e.Err.Error()
}

// Unwrap returns status and cause, so that errors.Is finds both.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Status}
	}
	return []error{e.Status, e.Err}
}

// StatusOf is the status that err stands for: Success for nil, that of the Error in the chain, else GenericError.
func StatusOf(err error) Status {
	var s Status
	switch {
	case err == nil:
		return Success
	case errors.As(err, &s):
		return s
	}
	return GenericError
}

// ReasonOf is the reason code in err's chain, empty where there is none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func refuse(s Status, r Reason, format string, args ...any) *Error {
	return &Error{Status: s, Reason: r, Text: fmt.Sprintf(format, args...)}
}
