// Package bootctl tells from which bank the running system was booted. The selectors themselves are in the packages below it.
//
// The booted bank is a matter of evidence, never of the selector's word: a fallback, a kexec or a
// person at the console starts what no selector names. Each source of evidence says a, b, nothing,
// or that it is neither. The bank is known if at least one says something and none says otherwise.
//
//   - the kernel command line (Documentation/admin-guide/kernel-parameters.txt): fwu.bank=a, as our boot scripts set it; rauc.slot=A, as boards prepared for RAUC set it;
//     root=, systemd.verity_root_data= and roothash=, where they name a slot by PARTUUID, PARTLABEL, UUID, LABEL, number or device; rauc.external, which says that it is no slot
//   - the device of the mounted root file system (proc_pid_mountinfo(5)), through device-mapper and loop devices down to the partition (slaves in sysfs, LOOP_GET_STATUS64).
//     A root that is seen to be on another device, or on a network, contradicts what the command line names. One in memory says nothing. Of an overlay, and of systemd's volatile
//     root, the layer below counts.
//   - what the caller knows besides, as BootCurrent of the UEFI firmware
package bootctl

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
)

// TrialParameter is what our boot script adds to the kernel command line of a bank that it starts on trial.
const TrialParameter = "fwu.trial"

// StartedOnTrial tells whether the boot script started the running system on trial. It is for where
// nothing better can be asked: the trial may have been accepted since, and a boot script of others
// says nothing. With an error it is not known.
func (r Running) StartedOnTrial() (bool, error) {
	text, err := r.read("/proc/cmdline", 64<<10)
	return slices.Contains(parameters(text), TrialParameter), err
}

// Evidence is what one source says.
type Evidence struct {
	Source string   // "root device", for people
	Text   string   // what was found there, for people
	Bank   fwu.Bank // the bank that it tells; NoBank: it tells none
	// Foreign is set if the source names something that is neither bank: a contradiction to whatever the others say.
	Foreign bool
}

// Running is the running system and what is known about its banks.
type Running struct {
	Root  string              // directory below which /proc, /sys and /dev are; empty: /
	Slots [2][]fwu.SlotInfo   // the slots of bank a and of bank b
	Table []Partition         // the partition table of the disk that has the slots, as far as it is known
	Names map[string]fwu.Bank // what a rauc.slot= stands for; nil: A, B, a and b
	More  []Evidence          // of the caller
}

// Boot looks at all evidence. Where it is missing or contradicts itself, Bank is fwu.NoBank, the error nil, and Why says what each source said.
// The error is for a system without a boot id only.
func (r Running) Boot() (fwu.Boot, error) {
	const idFile = "/proc/sys/kernel/random/boot_id"
	id, err := r.read(idFile, 1<<10)
	if err != nil {
		return fwu.Boot{}, fmt.Errorf("boot id: %w", err)
	}
	uuid, err := suit.ParseUUID(strings.TrimSpace(id))
	if err != nil {
		return fwu.Boot{}, fmt.Errorf("boot id in %s: %w", idFile, err)
	}
	mounted := r.rootDevice()
	found := r.commandLine(mounted.Bank != fwu.NoBank)
	bank, why := judge(append(append(found, mounted), r.More...))
	return fwu.Boot{ID: uuid.String(), Bank: bank, Why: why}, nil
}

func judge(found []Evidence) (fwu.Bank, string) {
	var said, texts []string
	bank, contradiction := fwu.NoBank, false
	for _, e := range found {
		texts = append(texts, e.Source+": "+e.Text)
		if e.Bank != fwu.NoBank {
			said = append(said, e.Source)
			contradiction = contradiction || bank != fwu.NoBank && bank != e.Bank
			bank = e.Bank
		}
		contradiction = contradiction || e.Foreign
	}
	switch all := strings.Join(texts, "; "); {
	case contradiction:
		return fwu.NoBank, "the evidence contradicts itself: " + all
	case bank == fwu.NoBank:
		return fwu.NoBank, "nothing tells the booted bank: " + all
	}
	return bank, fmt.Sprintf("bank %s, known from %s", bank, strings.Join(said, ", "))
}

func (r Running) path(p string) string { return filepath.Join("/", r.Root, p) }

// read returns a file of at most limit bytes.
func (r Running) read(path string, limit int64) (string, error) {
	f, err := os.Open(r.path(path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return "", fmt.Errorf("%s: longer than %d bytes", path, limit)
	}
	return string(b), nil
}

// commandLine returns the evidence of the parameters that are there. known: the mounted root is a
// slot; then a root= that names something else was for an initrd.
func (r Running) commandLine(known bool) []Evidence {
	text, err := r.read("/proc/cmdline", 64<<10)
	if err != nil {
		return []Evidence{{Source: "kernel command line", Text: err.Error()}}
	}
	var found []Evidence
	last := map[string]string{} // the last one counts, as for the kernel
	for _, p := range parameters(text) {
		switch key, value, _ := strings.Cut(p, "="); key {
		case "fwu.bank":
			b := fwu.Bank(value)
			if b.Index() < 0 {
				b = fwu.NoBank
			}
			found = append(found, named(p, b))
		case "rauc.slot":
			found = append(found, named(p, r.raucBank(value)))
		case "rauc.external":
			found = append(found, Evidence{Source: "kernel command line", Text: "rauc.external: the system was started from outside of all slots", Foreign: true})
		case "root", "systemd.verity_root_data", "roothash":
			last[key] = value
		}
	}
	for _, key := range slices.Sorted(maps.Keys(last)) {
		if last[key] == "" {
			continue
		}
		e := r.rootParameter(key, last[key])
		e.Foreign = e.Foreign && (!known || e.Bank != fwu.NoBank)
		found = append(found, e)
	}
	if len(found) == 0 {
		found = []Evidence{{Source: "kernel command line", Text: "no fwu.bank=, rauc.slot= or root="}}
	}
	return found
}

func named(parameter string, bank fwu.Bank) Evidence {
	e := Evidence{Source: "kernel command line", Text: parameter, Bank: bank}
	if bank == fwu.NoBank {
		e.Text, e.Foreign = parameter+" is no bank", true
	}
	return e
}

func (r Running) raucBank(value string) fwu.Bank {
	if r.Names != nil {
		return r.Names[value]
	}
	switch value {
	case "A", "a":
		return fwu.BankA
	case "B", "b":
		return fwu.BankB
	}
	return fwu.NoBank
}

// parameters splits a kernel command line as next_arg in lib/cmdline.c of the kernel does: at blanks outside of double quotes. What follows "--" is for init.
func parameters(text string) []string {
	var found []string
	var p strings.Builder
	quoted := false
	end := func() bool {
		s := p.String()
		p.Reset()
		if s != "" && s != "--" {
			found = append(found, s)
		}
		return s == "--"
	}
	for _, c := range []byte(text) {
		switch {
		case c == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(" \t\n\r\v\f\x00", c) >= 0:
			if end() {
				return found
			}
		default:
			p.WriteByte(c)
		}
	}
	end()
	return found
}
