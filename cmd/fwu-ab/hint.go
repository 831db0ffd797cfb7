package main

import (
	"errors"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/update"
)

// hintError is an error with what to do about it.
type hintError struct {
	error
	hint string
}

func (h hintError) Unwrap() error { return h.error }

func hinted(err error, hint string) error { return hintError{err, hint} }

// usageError is an error of the command line that was found after it was parsed.
type usageError struct{ error }

// hint says what to do about an error, where we know.
func hint(err error) string {
	var h hintError
	if errors.As(err, &h) {
		return h.hint
	}
	return reasonHint(fwu.ReasonOf(err))
}

func reasonHint(r fwu.Reason) string {
	switch r {
	case fwu.ReasonManifestMissing:
		return "give the manifest with --manifest, or use fwu-ab update MANIFEST IMAGE"
	case fwu.ReasonManifestUnexpected:
		return "leave the manifest away: it is part of what is written"
	case fwu.ReasonManifestSignature:
		return "was it signed with a key whose public half the device trusts? fwu-ab manifest show, fwu-ab doctor"
	case fwu.ReasonSequenceRollback:
		return "an update needs a sequence number that is not lower than what was accepted; fwu-ab status shows it"
	case fwu.ReasonFailedBefore:
		return "stop the service and run fwu-ab reset to try this image again"
	case fwu.ReasonBootBypassed:
		return "reboot by firmware and bootloader, without kexec: fwu-ab reboot asks for that; then stop the service and run fwu-ab reset"
	case fwu.ReasonBankBusy:
		return "finish the update that is under way first: fwu-ab status shows what it waits for"
	case fwu.ReasonSlotBusy:
		return "lsblk, findmnt and swapon show who uses the slot"
	case fwu.ReasonMixedInstall:
		return "cancel and clean one kind, and install the other first"
	case fwu.ReasonRecordLost:
		return "fwu-ab provision writes a new record"
	case fwu.ReasonDefaultDiffers, fwu.ReasonRollbackFailed:
		return "fwu-ab reboot tries the default bank again; fwu-ab accept keeps the running one and gives the other up"
	case fwu.ReasonBootedBankUnknown, fwu.ReasonSelectorUnusable, fwu.ReasonConfigDiffers:
		return "fwu-ab doctor looks at every part of it"
	case fwu.ReasonRecordUnreadable:
		return "the service reads the record again by itself; if this stays, fwu-ab repair record overwrites the copy that cannot be read"
	case fwu.ReasonSlotMissing:
		return "correct the slots of the component, or the partition table; fwu-ab doctor lists the partitions"
	case fwu.ReasonSlotResized:
		return "if the new size is meant, fwu-ab repair slots records it"
	case fwu.ReasonRecordVersion:
		return "a newer service wrote the record: run that one, or fwu-ab provision --force, which forgets every rollback floor"
	case fwu.ReasonReconcile:
		return "the service's log says what could not be mended; a restart of the service tries again"
	case update.ReasonOtherClient:
		return "fwu-ab monitor follows it; --take-over cancels what it prepares"
	case dbus.ReasonUnreachable:
		return "systemctl status fwu-ab.service"
	case fwu.ReasonMedium:
		return "the kernel log tells what the medium reported: dmesg"
	}
	return ""
}
