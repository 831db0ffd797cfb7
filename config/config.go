// Package config reads the configuration of a device and the release record of its image.
//
// It promises that nothing is guessed: an unknown key, a value out of range and a combination that makes no sense are errors, all
// of them are reported at once, each with file, line and column, and what is in force can be printed with where it came from.
// It opens no device: slots and stores are names here, exactly as they were written.
//
// # Files
//
// Below a root directory: /usr/lib/fwu-ab/fwu-ab.toml, which /etc/fwu-ab/fwu-ab.toml replaces as a whole; then each *.toml of
// /usr/lib/fwu-ab/fwu-ab.toml.d and /etc/fwu-ab/fwu-ab.toml.d, in the order of their file names over both directories. A file in
// /etc masks one of the same name in /usr/lib; masked altogether is a file that is empty or a link to /dev/null. Tables are merged
// key by key, everything else is replaced. An empty string counts as not set, so that a drop-in can take a value away.
package config

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
)

// Config is a configuration that was found complete and consistent.
type Config struct {
	// Disk is where PARTLABEL= and PARTUUID= are looked for: a block device or a file; empty: the booted disk.
	Disk string
	// LiftForceRO permits to lift the write protection of eMMC boot partitions while they are
	// written.
	LiftForceRO bool
	// Trial tells whether a new bank has to be accepted.
	Trial bool
	// MaxTrials is how many failed trials an image may have before it is refused.
	MaxTrials int
	Store     Store
	Selector  Selector
	// BootCheck says what becomes of a new system.
	BootCheck BootCheck
	// DeviceFile holds the identifier of this very device; empty: it has none that a manifest could ask for.
	DeviceFile string
	// Components in the order of their ids, at least one.
	Components []Component
	// Report tells what is in force and where it came from.
	Report Report
}

// Store is where the service keeps its state.
type Store struct {
	Device string // see Component.Slots
}

// The types of selectors.
const (
	NoSelector    = ""
	UBootSelector = "uboot"
	EFISelector   = "efi"
)

// Selector is how the bootloader is told which bank to start.
type Selector struct {
	Type  string // NoSelector only where no component is a bank member
	UBoot UBoot  // meaningful if Type is UBootSelector
	EFI   EFI    // meaningful if Type is EFISelector
}

// The schemes of U-Boot variables.
const (
	OneShot   = "one-shot"
	BootOrder = "boot-order"
	BootCount = "bootcount"
)

// UBoot configures the U-Boot environment as a selector.
type UBoot struct {
	Scheme string
	// EnvConfig is a file as fw_env.config; empty if Copies are given.
	EnvConfig string
	// Copies of the environment, one or two; none if EnvConfig is given.
	Copies []EnvCopy
	// SingleCopy permits an environment that has one copy only, and so no protection against a power cut.
	SingleCopy bool
	// DefaultEnvironment is a file with the full environment that a missing one is made from; empty: never made.
	DefaultEnvironment string
	// BankVariables are the variables that stand for the bank, with their values for the banks a and b; nil unless Scheme is BootCount.
	BankVariables map[string][2]string
	// Names are the boot script's names of the banks a and b; empty unless Scheme is BootOrder and
	// they are configured.
	Names [2]string
}

// EFI configures the boot manager of UEFI firmware as a selector.
type EFI struct {
	// Component is the bank member that has the loader in its slots: the one with the lowest id.
	Component string
	// Path of the loader in a slot, with backslashes and beginning with one.
	Path string
	// CommandLine is what the loader gets; empty: nothing.
	CommandLine CommandLine
	// Variables is the directory that efivarfs is mounted on.
	Variables string
	// ESP is where the EFI system partition is mounted; empty: one of ESPs. Only firmware that
	// keeps its variables in a file needs it.
	ESP string
}

// EnvCopy is one copy of a U-Boot environment.
type EnvCopy struct {
	Device string // path of a file or device, or PARTLABEL=, PARTUUID=
	Offset int64  // bytes; negative (in decimal: TOML has no signed hexadecimal): from the end
	Size   int64  // bytes
}

// Component is a component as configured.
type Component struct {
	ID   fwu.ID
	Name string
	// Live components are installed without a reboot; the others are members of the bank.
	Live bool
	// Trial is that of the bank for a bank member.
	Trial bool
	// Slots a and b: a path, PARTLABEL=name or PARTUUID=uuid (in lower case).
	Slots           [2]string
	Manifest        fwu.ManifestMode
	VolatileStaging bool
	// Discard has Clean discard the slot. Else what it holds is kept, and blocks that the next image has, too, are not written again.
	Discard bool
	// ReadBack has what was written read back from the medium before the image counts.
	ReadBack bool
	// Unit is restarted when the image of a live component changes; may be empty.
	Unit string
	// Device is what a manifest must be for; zero where Manifest is fwu.None and nothing is configured.
	Device suit.Device
	// Keys are PEM files, and directories that stand for every *.pub and *.pem file in them.
	Keys []string
	// Signatures is how many different keys have to sign a manifest, at least 1.
	Signatures int
}

// Report tells what is in force. It encodes to JSON.
type Report struct {
	Files    []string  `json:"files"`    // that were read, in the order in which they count
	Settings []Setting `json:"settings"` // in the order of the documentation
}

// Setting is one value in force.
type Setting struct {
	Key    string `json:"key"`    // dotted, valid in a configuration file
	Value  any    `json:"value"`  // string, int64, bool, []string or []EnvCopy
	Origin string `json:"origin"` // file:line, or "default"
}

// maxAligned is how long a line may be to have its comment below the others'.
const maxAligned = 60

// String is a configuration file that has the same effect, each line with the origin of its value in a comment.
func (r Report) String() string {
	var b strings.Builder
	for _, f := range r.Files {
		fmt.Fprintf(&b, "# %s\n", f)
	}
	lines := make([]string, len(r.Settings))
	width := 0
	for i, s := range r.Settings {
		lines[i] = s.Key + " = " + tomlValue(s.Value)
		if n := utf8.RuneCountInString(lines[i]); n <= maxAligned {
			width = max(width, n)
		}
	}
	for i, s := range r.Settings {
		fmt.Fprintf(&b, "%-*s  # %s\n", width, lines[i], s.Origin)
	}
	return b.String()
}

// tomlValue writes a value. No string has a control character, so that Go's quoting is TOML's.
func tomlValue(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = fmt.Sprintf("%q", s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case []EnvCopy:
		copies := make([]string, len(v))
		for i, c := range v {
			copies[i] = fmt.Sprintf("{device = %q, offset = %#x, size = %#x}", c.Device, c.Offset, c.Size)
			if c.Offset < 0 { // TOML has no negative hexadecimal
				copies[i] = fmt.Sprintf("{device = %q, offset = %d, size = %#x}", c.Device, c.Offset, c.Size)
			}
		}
		return "[" + strings.Join(copies, ", ") + "]"
	}
	return fmt.Sprint(v)
}

// MarshalJSON writes the names of the configuration file.
func (c EnvCopy) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Device string `json:"device"`
		Offset int64  `json:"offset"`
		Size   int64  `json:"size"`
	}{c.Device, c.Offset, c.Size})
}
