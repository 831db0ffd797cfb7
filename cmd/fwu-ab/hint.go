package main

import (
	"errors"
	"os"

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
	if h := causeHint(fwu.CauseOf(err), fwu.ReasonOf(err)); h != "" {
		return h
	}
	return reasonHint(fwu.ReasonOf(err))
}

// causeHint returns the next step for the root of an error, where that is known.
func causeHint(c fwu.Cause, r fwu.Reason) string {
	switch c {
	case fwu.CauseUnsigned:
		return "fwu-ab manifest sign signs it, with a key that the device trusts"
	case fwu.CauseSigners:
		return "fwu-ab manifest sign adds the signature of another key; fwu-ab manifest show lists those that are there"
	case fwu.CauseUnknownSigner:
		return "it is signed with a key that this device does not trust: fwu-ab manifest show names the key, fwu-ab doctor the trust anchors"
	case fwu.CauseCertificate:
		return "the signer's certificate is refused, not the key: compare its dates with the clock of the device (date), and its issuer with the trust anchors (fwu-ab doctor)"
	case fwu.CauseNoSpace:
		return "a file system is full: df shows which"
	case fwu.CauseReadOnly:
		return "it is read-only: findmnt shows mounts, lsblk -o NAME,RO devices"
	case fwu.CauseGone:
		return "the device has gone: lsblk shows what is there"
	case fwu.CausePermission:
		if r == "" {
			return "this user may not do that: run it as root, or change the permissions of the file"
		}
	}
	return ""
}

func reasonHint(r fwu.Reason) string {
	switch r {
	case fwu.ReasonManifestMissing:
		return "give the manifest with --manifest, or use fwu-ab update MANIFEST IMAGE"
	case fwu.ReasonManifestUnexpected:
		return "omit --manifest: the manifest is part of what is written"
	case fwu.ReasonManifestInvalid, fwu.ReasonCondition:
		return "fwu-ab manifest show says what it is, and what it asks of a device"
	case fwu.ReasonPayload, fwu.ReasonImageDigest:
		return "it was damaged on its way, or is not the image that was signed: fwu-ab manifest verify --image tells, where it was made"
	case fwu.ReasonImageSize:
		return "not all of it came: fwu-ab status says whether it can be continued"
	case fwu.ReasonTrustRemoved, fwu.ReasonTrustUnreadable:
		return "fwu-ab doctor shows the trust anchors; an image that none of them vouches for has to come again, signed anew"
	case fwu.ReasonNoSuch:
		return "fwu-ab status lists the components of this device"
	case fwu.ReasonHook:
		return "the journal of the service has what the hook printed: journalctl -u fwu-ab.service"
	case fwu.ReasonBattery:
		return "charge the battery, and call fwu-ab install again: what was prepared stays"
	case fwu.ReasonCarryOver:
		return "give an image of that component too, in the same update"
	case fwu.ReasonRebootRefused:
		return "systemd-inhibit --list shows who keeps the system up, systemctl status systemd-logind whether logind runs"
	case fwu.ReasonUnitRestart:
		return "systemctl status of the unit that is named says why it did not start; the previous image is back in use"
	case fwu.ReasonManifestSignature:
		return "fwu-ab manifest show says who signed it, fwu-ab doctor whom this device trusts"
	case fwu.ReasonSequenceRollback:
		return "an update needs a sequence number that is not lower than what was accepted; fwu-ab status shows it"
	case fwu.ReasonSequenceTooHigh:
		return "the image needs a sequence number that follows those before it: docs/manifest.md, \"Sequence numbers\""
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
	case dbus.ReasonBusy:
		return "without --no-wait the command waits for its turn"
	case fwu.ReasonVendorMismatch, fwu.ReasonClassMismatch, fwu.ReasonDeviceMismatch:
		return "it was made for another device: fwu-ab manifest show says for which, fwu-ab config what this one is"
	case fwu.ReasonComponentMismatch:
		return "fwu-ab manifest show lists the components of the manifest, fwu-ab status those of this device"
	case fwu.ReasonImageTooLarge:
		return "fwu-ab query COMPONENT shows max_size"
	case fwu.ReasonDependency:
		return "put the components that are named into the same update, or update them first"
	case fwu.ReasonState:
		return "fwu-ab status shows the next step"
	case fwu.ReasonCancelled:
		return "fwu-ab clean COMPONENT makes it ready for the next update"
	case dbus.ReasonDenied:
		return "run it as root, or allow it by polkit: docs/agents.md lists the actions"
	case dbus.ReasonUnreachable:
		if os.Geteuid() != 0 {
			return "only root can start it by hand, or see why it does not start: sudo systemctl status fwu-ab.service; FWU_AB_BUS and --bus name another bus"
		}
		return "systemctl status fwu-ab.service says why; FWU_AB_BUS and --bus name another bus"
	case dbus.ReasonNoBus:
		return "the message bus does not answer, whatever the service does: does it run, and may this user connect to it? FWU_AB_BUS and --bus name another bus"
	case fwu.ReasonMedium:
		return "dmesg shows what the kernel reported about the device"
	}
	return ""
}
