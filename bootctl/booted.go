// Package bootctl tells from which bank the running system was booted. The selectors themselves are in the packages below it.
//
// The booted bank is a matter of evidence, never of what a selector says: a fallback, a kexec or a person at the console starts what no selector names.
// Each source of evidence says a, b, or nothing. The bank is known if at least one says something and none says otherwise.
//
//   - the kernel command line (Documentation/admin-guide/kernel-parameters.txt): fwu.bank=a, as our boot scripts set it; rauc.slot=A, as boards prepared for RAUC set it;
//     root=, where it names a slot by PARTUUID, PARTLABEL or device
//   - the device of the mounted root file system (proc_pid_mountinfo(5)), through device-mapper and loop devices down to the partition (slaves and loop/backing_file in sysfs)
//   - what the caller knows besides, as BootCurrent of the UEFI firmware
package bootctl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
)

// TrialParameter is what our boot script adds to the kernel command line of a bank that it starts on trial.
const TrialParameter = "fwu.trial"

// StartedOnTrial tells whether the boot script said so. It is for where nothing better can be asked: the trial may have been accepted since, and a boot script of others says nothing.
func (r Running) StartedOnTrial() bool {
	text, err := r.read("/proc/cmdline", 64<<10)
	return err == nil && slices.Contains(parameters(text), TrialParameter)
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
	Names map[string]fwu.Bank // what a rauc.slot= stands for, beside A, B, a and b: names of slots, bootnames
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
	found := append(r.commandLine(), r.rootDevice())
	bank, why := judge(append(found, r.More...))
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

// commandLine returns what the parameters say that are there.
func (r Running) commandLine() []Evidence {
	text, err := r.read("/proc/cmdline", 64<<10)
	if err != nil {
		return []Evidence{{Source: "kernel command line", Text: err.Error()}}
	}
	var found []Evidence
	root := "" // the last one counts, as for the kernel
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
		case "root":
			root = value
		}
	}
	if root != "" {
		found = append(found, r.rootParameter(root))
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
	if b, ok := r.Names[value]; ok {
		return b
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

// rootParameter says which bank root= names.
func (r Running) rootParameter(value string) Evidence {
	e := Evidence{Source: "kernel command line", Text: "root=" + value}
	var numbers map[string]bool
	kind, name, _ := strings.Cut(value, "=")
	switch {
	case strings.EqualFold(kind, "PARTUUID"):
		for i, slots := range r.Slots {
			for _, s := range slots {
				if strings.EqualFold(partUUID(s), name) {
					e.Bank = fwu.BankOf(i)
					return e
				}
			}
		}
		numbers = r.devices("/dev/disk/by-partuuid/" + strings.ToLower(name))
	case strings.EqualFold(kind, "PARTLABEL"):
		numbers = r.devices("/dev/disk/by-partlabel/" + name)
	case strings.HasPrefix(value, "/dev/"):
		numbers = r.devices(value)
	}
	return r.match(e, numbers)
}

// rootDevice says which bank the mounted root file system lies in.
func (r Running) rootDevice() Evidence {
	e := Evidence{Source: "root device"}
	text, err := r.read("/proc/self/mountinfo", 8<<20)
	if err != nil {
		e.Text = err.Error()
		return e
	}
	m, err := rootMount(text)
	if err != nil {
		e.Text = err.Error()
		return e
	}
	e.Text = fmt.Sprintf("%s (%s, %s)", m.source, m.fstype, m.number)
	var numbers map[string]bool
	switch {
	case !strings.HasPrefix(m.number, "0:"):
		numbers = r.below(m.number)
	case strings.HasPrefix(m.source, "/dev/"): // btrfs, for one, shows a number of its own
		numbers = r.devices(m.source)
	}
	return r.match(e, numbers)
}

// match completes e with the bank whose slot is among the devices.
func (r Running) match(e Evidence, numbers map[string]bool) Evidence {
	var hit [2]bool
	for i, slots := range r.Slots {
		for _, s := range slots {
			if n, err := r.slotNumber(s); err == nil && numbers[n] {
				hit[i] = true
			}
		}
	}
	switch {
	case hit[0] && hit[1]:
		e.Foreign = true
		e.Text += " lies in slots of both banks"
	case hit[0]:
		e.Bank = fwu.BankA
	case hit[1]:
		e.Bank = fwu.BankB
	default:
		e.Text += " is not found to be a slot of either bank"
	}
	return e
}

type mount struct{ number, fstype, source string }

// rootMount finds the mount of "/" that is on top, the last one.
func rootMount(mountinfo string) (mount, error) {
	var m mount
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if ok && len(left) >= 6 && len(right) >= 2 && left[4] == "/" {
			m = mount{left[2], right[0], right[1]}
		}
	}
	if m.number == "" {
		return m, errors.New("no mount of / in /proc/self/mountinfo")
	}
	return m, nil
}
