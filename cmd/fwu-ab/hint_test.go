package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/update"
)

// TestHintsFollowTheCause: the next step that people are told depends on the root of an error, here
// or in the service, and not on its class.
func TestHintsFollowTheCause(t *testing.T) {
	medium := func(cause error) error {
		return &fwu.Error{Status: fwu.StorageFailure, Reason: fwu.ReasonMedium, Text: "write slot b", Err: cause}
	}
	signature := func(cause error) error {
		return &fwu.Error{Status: fwu.InvalidSignature, Reason: fwu.ReasonManifestSignature, Text: "manifest", Err: cause}
	}
	for name, c := range map[string]struct {
		err        error
		want, not  string
		causeAlone fwu.Cause
	}{
		"the medium":                {err: medium(syscall.EIO), want: "dmesg"},
		"a full file system":        {err: medium(syscall.ENOSPC), want: "df", not: "dmesg", causeAlone: fwu.CauseNoSpace},
		"read-only":                 {err: medium(syscall.EROFS), want: "read-only", not: "dmesg", causeAlone: fwu.CauseReadOnly},
		"a device that was removed": {err: medium(syscall.ENODEV), want: "lsblk", not: "dmesg", causeAlone: fwu.CauseGone},
		"a certificate":             {err: signature(suit.ErrCertificate), want: "clock", not: "does not trust", causeAlone: fwu.CauseCertificate},
		"an unknown key":            {err: signature(suit.ErrUnknownSigner), want: "key that this device does not trust", not: "clock", causeAlone: fwu.CauseUnknownSigner},
		"no signature":              {err: signature(suit.ErrUnsigned), want: "manifest sign", not: "doctor", causeAlone: fwu.CauseUnsigned},
		"changed since":             {err: signature(suit.ErrSignature), want: "manifest show"},
		"a state":                   {err: &fwu.Error{Status: fwu.BadState, Reason: fwu.ReasonState}, want: "fwu-ab status"},
		"another client":            {err: &fwu.Error{Status: fwu.BadState, Reason: update.ReasonOtherClient}, want: "--take-over"},
		"not to wait":               {err: &fwu.Error{Status: fwu.BadState, Reason: dbus.ReasonBusy}, want: "--no-wait"},
		"access denied":             {err: &fwu.Error{Status: fwu.NotPermitted, Reason: dbus.ReasonDenied}, want: "run it as root, or allow it by polkit"},
		"no service":                {err: &fwu.Error{Status: fwu.CommunicationFailure, Reason: dbus.ReasonUnreachable}, want: "systemctl status fwu-ab.service"},
		"another vendor":            {err: &fwu.Error{Status: fwu.NotPermitted, Reason: fwu.ReasonVendorMismatch}, want: "fwu-ab config"},
	} {
		t.Run(name, func(t *testing.T) {
			said := []error{fmt.Errorf("rootfs: %w", c.err)}
			if c.causeAlone != "" { // as it comes from the service, which sends no chain
				said = append(said, &fwu.Error{Status: fwu.StatusOf(c.err), Reason: fwu.ReasonOf(c.err), Cause: c.causeAlone, Text: "from the service"})
			}
			for _, err := range said {
				if h := hint(err); !strings.Contains(h, c.want) || c.not != "" && strings.Contains(h, c.not) {
					t.Errorf("%v: %q", err, h)
				}
			}
		})
	}
	if h := hint(errors.New("something")); h != "" {
		t.Errorf("of nothing that is known: %q", h)
	}
}

// TestMessagesOfTheCommandLine: each is read by somebody who mistyped: it says which mistake was
// made and how to correct it, and shows nothing of the program's insides.
func TestMessagesOfTheCommandLine(t *testing.T) {
	insides := regexp.MustCompile(`strconv|struct|bundle\.|fwu\.|bits|arg\(s\)|\*[a-z]+\.|toml:|errors\.`)
	for _, c := range []struct{ args, want string }{
		{"clean", "fwu-ab clean takes COMPONENT, and was given 0 arguments; see fwu-ab clean --help"},
		{"clean a b", "takes COMPONENT, and was given 2 arguments"},
		{"start 1 d.suit", "the manifest is given as --manifest d.suit"},
		{"update", "fwu-ab update takes FILE..., and was given 0 arguments"},
		{"status now", "fwu-ab status takes no arguments, and was given 1"},
		{"write rootfs f --offset ten", `invalid argument "ten" for "--offset" flag: want a number`},
		{"manifest create --sequence 99999999999999999999999", "the number is too large"},
		{"reject --error 99999999999", "the number is too large"},
		{"nosuch", "fwu-ab"},
		{"manifest verify x --key y --at yesterday", "want one such as 2026-01-31T12:00:00Z"},
		{"--root /nonexistent config", "--root: stat /nonexistent: no such file or directory"},
		{"manifest create --component a --image b --version 1.256 --sequence 1 --vendor-name v --class-name c -o -", "is not a number from 0 to 255"},
	} {
		t.Run(c.args, func(t *testing.T) {
			g := &globals{}
			root := newRootCommand(g)
			root.SetArgs(strings.Fields(c.args))
			err := root.ExecuteContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || insides.MatchString(err.Error()) {
				t.Errorf("%v", err)
			}
		})
	}
}
