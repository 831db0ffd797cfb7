package fwu

import (
	"errors"
	"syscall"

	"github.com/fwu-ab/fwu-ab/suit"
)

// Cause is a stable code for the root of an error. Where a Reason names the refusal or the failure,
// a Cause says why, so that people are told the next step. Most errors have none.
type Cause string

// The causes. New ones may come.
const (
	CauseUnsigned      Cause = "unsigned"        // nobody signed the manifest
	CauseUnknownSigner Cause = "unknown-signer"  // no trust anchor has the signer's key
	CauseSigners       Cause = "too-few-signers" // fewer keys signed than the component requires
	CauseCertificate   Cause = "certificate"     // a certificate of the signer is refused
	CauseNoSpace       Cause = "no-space"
	CauseReadOnly      Cause = "read-only"
	CausePermission    Cause = "permission"
	CauseBusy          Cause = "in-use"
	CauseGone          Cause = "device-gone"
	CauseMedium        Cause = "input-output" // the medium itself reported an error
)

// CauseOf is the cause in err's chain, empty where none is known.
func CauseOf(err error) Cause {
	var e *Error
	if errors.As(err, &e) && e.Cause != "" {
		return e.Cause
	}
	for _, row := range []struct {
		err   error
		cause Cause
	}{
		{suit.ErrUnsigned, CauseUnsigned},
		{suit.ErrSigners, CauseSigners},
		{suit.ErrCertificate, CauseCertificate},
		{suit.ErrUnknownSigner, CauseUnknownSigner},
		{syscall.ENOSPC, CauseNoSpace},
		{syscall.EDQUOT, CauseNoSpace},
		{syscall.EROFS, CauseReadOnly},
		{syscall.EACCES, CausePermission},
		{syscall.EPERM, CausePermission},
		{syscall.EBUSY, CauseBusy},
		{syscall.ENODEV, CauseGone},
		{syscall.ENXIO, CauseGone},
		{syscall.ENOMEDIUM, CauseGone},
		{syscall.EIO, CauseMedium},
		{syscall.ENODATA, CauseMedium},
		{syscall.EILSEQ, CauseMedium},
	} {
		if errors.Is(err, row.err) {
			return row.cause
		}
	}
	return ""
}
