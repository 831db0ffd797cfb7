package efi_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
	"github.com/fwu-ab/fwu-ab/bootctl/efi/model"
	"github.com/fwu-ab/fwu-ab/fwu"
)

const loader = `\EFI\test\linux.efi`

func part(bank int) efi.Partition {
	return efi.Partition{Number: uint32(bank + 2), UUID: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 15: byte(bank)}, Start: 2048 * uint64(bank+1), Size: 2048}
}

func selector(t testing.TB, v efi.Variables) *efi.Selector {
	t.Helper()
	s, err := efi.New(efi.Config{Variables: v, File: loader, Banks: [2]efi.Bank{{part(0), "fwu.bank=a quiet"}, {part(1), "fwu.bank=b quiet"}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func utf16(s string) []byte {
	var b []byte
	for _, c := range s {
		b = append(b, byte(c), 0)
	}
	return b
}

// option is the entry that a word stands for: a bank, and what is wrong with it.
func option(word string) efi.LoadOption {
	bank := map[byte]int{'a': 0, 'b': 1}[word[0]]
	o := efi.LoadOption{Attributes: efi.Active, Description: "fwu-ab " + word[:1], Path: efi.FilePath(part(bank), loader), Optional: utf16("fwu.bank=" + word[:1] + " quiet")}
	gone, moved := part(bank), part(bank)
	gone.UUID[0], moved.Start = 99, 77
	switch word[1:] {
	case "+older":
		o.Optional = utf16("root=/dev/old fwu.bank=" + word[:1])
	case "+stripped":
		o.Optional = nil
	case "+garbled":
		o.Optional = append(o.Optional, 0xd8)
	case "+inactive":
		o.Attributes = 0
	case "+gone":
		o.Path = efi.FilePath(gone, loader)
	case "+moved":
		o.Path = efi.FilePath(moved, loader)
	case "+long": // as firmware writes it that completes device paths
		o.Path = append([]byte{2, 1, 12, 0, 0xd0, 0x41, 3, 10, 0, 0, 0, 0}, o.Path...)
	case "+other": // what File does not understand
		o.Path = []byte{0x7f, 0xff, 4, 0}
	case "":
	default:
		o = efi.LoadOption{Attributes: efi.Active, Description: word, Path: []byte{0x7f, 0xff, 4, 0}}
	}
	return o
}

func words() []string {
	var out []string
	for _, bank := range []string{"a", "b"} {
		for _, what := range []string{"", "+older", "+stripped", "+garbled", "+inactive", "+gone", "+moved", "+long", "+other"} {
			out = append(out, bank+what)
		}
	}
	return append(out, "usb", "net", "shell")
}

// firmware has the variables that a text describes: "0=usb 1=a 2=b | 1 0 | 2 | 1" are entries, BootOrder, BootNext, BootCurrent.
func firmware(t testing.TB, text string) (*model.Memory, []uint16) {
	t.Helper()
	m := &model.Memory{Content: map[string]efi.Variable{}}
	parts := strings.Split(text, "|")
	for _, e := range strings.Fields(parts[0]) {
		n, word, _ := strings.Cut(e, "=")
		m.Content[efi.EntryName(numbers(t, n)[0])] = efi.Variable{Attributes: efi.Attributes, Data: option(word).Append(nil)}
	}
	for i, name := range []string{efi.BootOrder, efi.BootNext} {
		if data := efi.AppendNumbers(nil, numbers(t, parts[i+1])...); len(data) > 0 {
			m.Content[name] = efi.Variable{Attributes: efi.Attributes, Data: data}
		}
	}
	return m, numbers(t, parts[3])
}

func numbers(t testing.TB, text string) []uint16 {
	t.Helper()
	var out []uint16
	for _, f := range strings.Fields(text) {
		n, err := strconv.ParseUint(f, 16, 16)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, uint16(n))
	}
	return out
}

// describe is the text for firmware.
func describe(m *model.Memory, current []uint16) string {
	var entries []string
	for n := range 0x100 {
		v, ok := m.Content[efi.EntryName(uint16(n))]
		if !ok {
			continue
		}
		found := "unknown"
		for _, w := range words() {
			if string(option(w).Append(nil)) == string(v.Data) {
				found = w
			}
		}
		entries = append(entries, fmt.Sprintf("%x=%s", n, found))
	}
	list := func(numbers []uint16) string {
		out := " "
		for _, n := range numbers {
			out += fmt.Sprintf("%x ", n)
		}
		return out
	}
	return strings.Join(entries, " ") + " |" + list(efi.ParseNumbers(m.Content[efi.BootOrder].Data)) + "|" + list(efi.ParseNumbers(m.Content[efi.BootNext].Data)) + "|" + list(current)
}

// The cases are named after the state that the firmware is in.
func commits() []struct{ name, before, commit, after, writes string } {
	return []struct{ name, before, commit, after, writes string }{
		{"no variables at all", "| | |", "a", "80=a | 80 | | ", "Boot0080 BootOrder"},
		{"no variables at all, and a trial is armed", "| | |", "a b", "80=a 81=b | 80 | 81 | ", "Boot0080 BootOrder Boot0081 BootNext"},
		{"entries of the firmware only", "0=usb 1=net | 1 0 | | 1", "a", "0=usb 1=net 80=a | 80 1 0 | | 1", "Boot0080 BootOrder"},
		{"a is the default", "0=usb 1=a | 1 0 | | 1", "a", "0=usb 1=a | 1 0 | | 1", ""},
		{"a is the default, b was never armed", "0=usb 1=a | 1 0 | | 1", "a b", "0=usb 1=a 80=b | 1 0 | 80 | 1", "Boot0080 BootNext"},
		{"a is the default, b was the default before", "0=usb 1=a 2=b | 1 0 | | 1", "a b", "0=usb 1=a 2=b | 1 0 | 2 | 1", "BootNext"},
		{"b is armed", "1=a 2=b | 1 | 2 | 1", "a b", "1=a 2=b | 1 | 2 | 1", ""},
		{"b is armed, and rejected", "1=a 2=b | 1 | 2 | 1", "a", "1=a 2=b | 1 | | 1", "BootNext"},
		{"b is armed, and was started some other way", "1=a 2=b | 1 | 2 | 1", "b", "1=a 2=b | 2 | | 1", "BootOrder BootNext"},
		{"b runs on trial", "0=usb 1=a 2=b | 1 0 | | 2", "a", "0=usb 1=a 2=b | 1 0 | | 2", ""},
		{"b runs on trial, and is accepted", "0=usb 1=a 2=b | 1 0 | | 2", "b", "0=usb 1=a 2=b | 2 0 | | 2", "BootOrder"},
		{"b runs on trial, and the firmware lost the entry of a", "0=usb 2=b | 0 | | 2", "a", "0=usb 2=b 80=a | 80 0 | | 2", "Boot0080 BootOrder"},
		{"the firmware put its own to the head", "0=usb 1=a 3=net | 3 1 0 | | 1", "a", "0=usb 1=a 3=net | 1 3 0 | | 1", "BootOrder"},
		{"both banks are in BootOrder", "1=a 2=b 3=net | 1 2 3 | | 1", "a", "1=a 2=b 3=net | 1 3 | | 1", "BootOrder"},
		{"both banks are in BootOrder, the other one at the head", "1=a 2=b | 2 1 | | 1", "a", "1=a 2=b | 1 | | 1", "BootOrder"},
		{"the firmware gave the number of b to a device", "0=a 1=usb | 0 1 | | 0", "a b", "0=a 1=usb 80=b | 0 1 | 80 | 0", "Boot0080 BootNext"},
		{"BootOrder has numbers without entries", "1=a | 1 0 80 | | 1", "a b", "1=a 81=b | 1 0 80 | 81 | 1", "Boot0081 BootNext"},
		{"BootOrder has numbers without entries, and has to change", "1=a 4=usb | 0 2 1 4 4 | | 1", "a", "1=a 4=usb | 1 4 | | 1", "BootOrder"},
		{"BootNext has a number without an entry", "1=a | 1 | 80 | 1", "a b", "1=a 81=b | 1 | 81 | 1", "Boot0081 BootNext"},
		{"BootCurrent has a number without an entry", "0=net | 0 | | 80", "a", "0=net 81=a | 81 0 | | 80", "Boot0081 BootOrder"},
		{"a person chose a stick for once", "0=usb 1=a | 1 0 | 0 | 1", "a", "0=usb 1=a | 1 0 | 0 | 1", ""},
		{"a person chose a stick for once, and a trial is armed", "0=usb 1=a 2=b | 1 0 | 0 | 1", "a b", "0=usb 1=a 2=b | 1 0 | 2 | 1", "BootNext"},
		{"BootNext names the default bank", "1=a 2=b | 1 | 1 | 1", "a", "1=a 2=b | 1 | | 1", "BootNext"},
		{"the entry of a has the command line of an earlier version, and started a", "1=a+older 2=b+older | 1 | | 1", "a", "1=a+older 2=b+older | 1 | | 1", ""},
		{"the entries have the command line of an earlier version, and a trial is armed", "1=a+older 2=b+older | 1 | | 1", "a b", "1=a+older 2=b | 1 | 2 | 1", "Boot0002 BootNext"},
		{"the entry of a has the command line of an earlier version, and b runs on trial", "1=a+older 2=b | 1 | | 2", "a", "1=a+older 2=b | 1 | | 2", ""},
		{"the entry of a has another command line, and the firmware fell back", "1=a+older | 1 | | ", "a", "1=a | 1 | | ", "Boot0001"},
		{"the firmware took the command line away", "1=a+stripped | 1 | | 1", "a", "1=a | 1 | | 1", "Boot0001"},
		{"the firmware garbled the command line", "1=a+garbled | 1 | | 1", "a", "1=a | 1 | | 1", "Boot0001"},
		{"the firmware completed the device paths", "1=a+long 2=b+long | 1 | | 1", "a b", "1=a+long 2=b+long | 1 | 2 | 1", "BootNext"},
		{"the entry of a was made inactive", "1=a+inactive 0=net | 1 0 | | 0", "a", "0=net 1=a | 1 0 | | 0", "Boot0001"},
		{"the disk was partitioned anew", "1=a+gone 2=b+gone 0=net | 1 0 | | ", "b", "0=net 2=b | 2 0 | | ", "Boot0002 BootOrder Boot0001"},
		{"the partition of a was moved", "1=a+moved 0=net | 1 0 | | 1", "a", "0=net 1=a | 1 0 | | 1", "Boot0001"},
		{"two entries of a, the second one was started", "1=a 2=a+older 3=b | 1 2 | | 2", "a", "2=a+older 3=b | 2 | | 2", "BootOrder Boot0001"},
		{"two entries of a, one for a partition that is gone", "1=a+gone 2=a | 1 2 | | 2", "a", "2=a | 2 | | 2", "BootOrder Boot0001"},
		{"an entry with our description and no file", "1=a+other 0=net | 1 0 | | 0", "a", "0=net 1=a | 1 0 | | 0", "Boot0001"},
		{"left over entries are in use by this boot", "1=a+gone 2=a | 2 | | 1", "a", "1=a+gone 2=a | 2 | | 1", ""},
	}
}

func bankPair(text string) fwu.Selection {
	f := strings.Fields(text)
	return fwu.Selection{Default: fwu.Bank(f[0]), Trial: fwu.Bank(strings.Join(f[1:], ""))}
}

func TestCommit(t *testing.T) {
	for _, tt := range commits() {
		t.Run(tt.name, func(t *testing.T) {
			m, current := firmware(t, tt.before)
			var writes []string
			m.Change = func(name string) error {
				short, _, _ := strings.Cut(name, "-")
				writes = append(writes, short)
				return nil
			}
			s := selector(t, model.Running{Variables: m, Current: current})
			want := bankPair(tt.commit)
			if err := s.Commit(want); err != nil {
				t.Fatal(err)
			}
			normal, c := firmware(t, tt.after)
			if diff := cmp.Diff(describe(normal, c), describe(m, current)); diff != "" {
				t.Error("variables (-want +got):\n" + diff)
			}
			if diff := cmp.Diff(strings.Fields(tt.writes), writes); diff != "" && len(writes)+len(tt.writes) > 0 {
				t.Error("writes (-want +got):\n" + diff)
			}
			got, err := s.Read()
			if err != nil || got != want {
				t.Errorf("read %v, %v after a commit of %v", got, err, want)
			}
			writes = nil
			if err := s.Commit(want); err != nil || len(writes) > 0 {
				t.Errorf("the second commit wrote %v (%v)", writes, err)
			}
		})
	}
}

// TestCommitThatIsCut cuts the power before each write of each commit: the old or the new selection is there, and what is started is what it says.
func TestCommitThatIsCut(t *testing.T) {
	cuts := 0
	for _, tt := range commits() {
		t.Run(tt.name, func(t *testing.T) {
			for n := 0; ; n++ {
				m, current := firmware(t, tt.before)
				before, err := selector(t, m).Read()
				if err != nil {
					t.Fatal(err)
				}
				left := n
				m.Change = func(string) error {
					if left--; left < 0 {
						return model.ErrPowerCut
					}
					return nil
				}
				want := bankPair(tt.commit)
				done := selector(t, model.Running{Variables: m, Current: current}).Commit(want) == nil && left >= 0
				m.Change = nil
				cuts++
				got, err := selector(t, m).Read()
				between := fwu.Selection{Default: want.Default} // where default and trial change in one commit
				if err != nil || got != before && got != want && (got != between || before.Default == want.Default) {
					t.Errorf("cut before write %d: %v (%v), want %v or %v", n, got, err, before, want)
				}
				started(t, m, got)
				if err := selector(t, model.Running{Variables: m}).Commit(want); err != nil {
					t.Errorf("commit after a cut before write %d: %v", n, err)
				}
				if got, err := selector(t, m).Read(); err != nil || got != want {
					t.Errorf("after a cut before write %d, and another commit: %v (%v)", n, got, err)
				}
				if done {
					return
				}
			}
		})
	}
	t.Logf("%d cuts", cuts)
}

// started boots a copy three times: an armed trial once, then the default, whichever there is.
func started(t *testing.T, m *model.Memory, sel fwu.Selection) {
	t.Helper()
	f := model.Firmware{Variables: &model.Memory{Content: maps.Clone(m.Content)}, Loaders: [2][16]byte{part(0).UUID, part(1).UUID}, File: loader}
	want := []fwu.Bank{sel.Default, sel.Default}
	if sel.Trial != fwu.NoBank {
		want = slices.Insert(want, 0, sel.Trial)
	}
	for i, bank := range want {
		f.Plugged = i%2 == 0
		out, err := f.Boot(func(fwu.Bank) bool { return true })
		if err != nil || bank != fwu.NoBank && out.Bank != bank {
			t.Errorf("boot %d with %v started %q (%v)\n%s", i, sel, out.Bank, err, describe(m, nil))
		}
	}
}

func TestRead(t *testing.T) {
	tests := []struct{ name, firmware, want string }{
		{"nothing", "| | |", ""},
		{"no entry of ours", "0=usb | 0 | 0 |", ""},
		{"a at the head", "0=usb 1=a | 1 0 | |", "a"},
		{"a stick at the head", "0=usb 1=a | 0 1 | |", "a"},
		{"both banks", "1=a 2=b | 2 1 | |", "b"},
		{"the entry at the head is for a partition that is gone", "1=a+gone 2=b | 1 2 | |", "b"},
		{"the entry at the head is not active", "1=a+inactive 2=b | 1 2 | |", "b"},
		{"the entry is not in BootOrder", "1=a 2=b | | |", ""},
		{"armed", "1=a 2=b | 1 | 2 |", "a b"},
		{"armed with an entry that is not active", "1=a 2=b+inactive | 1 | 2 |", "a b"},
		{"BootNext names the default", "1=a 2=b | 1 | 1 |", "a"},
		{"BootNext is not ours", "0=usb 1=a | 1 | 0 |", "a"},
		{"BootNext names nothing", "1=a | 1 | 7 |", "a"},
		{"BootNext for a partition that is gone", "1=a 2=b+gone | 1 | 2 |", "a"},
		{"the device path was moved", "1=a+moved | 1 | |", "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, _ := firmware(t, tt.firmware)
			got, err := selector(t, m).Read()
			if text := strings.TrimSpace(string(got.Default) + " " + string(got.Trial)); err != nil || text != tt.want {
				t.Errorf("%q, %v, want %q", text, err, tt.want)
			}
		})
	}
}

func TestBooted(t *testing.T) {
	tests := []struct {
		name, firmware string
		want           fwu.Bank
		text           string
	}{
		{"by an entry of ours", "1=a 2=b | 1 | | 2", "b", `Boot0002 ("fwu-ab b")`},
		{"by a stick", "0=usb 1=a | 1 | | 0", "", `Boot0000 ("usb"), which is no entry of ours`},
		{"by an entry that is gone", "1=a | 1 | | 3", "", "Boot0003, which is not there"},
		{"by an entry for a partition that is gone", "1=a+gone | 1 | | 1", "", `Boot0001 ("fwu-ab a"), which is no entry of ours`},
		{"by firmware that says nothing", "1=a | 1 | | ", "", "the firmware does not say"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, current := firmware(t, tt.firmware)
			e := selector(t, model.Running{Variables: m, Current: current}).Booted()
			if e.Bank != tt.want || e.Text != tt.text || e.Foreign {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestStartedOnTrial: what can be told where no configuration says which partitions the banks have.
func TestStartedOnTrial(t *testing.T) {
	for _, tt := range []struct {
		name, firmware string
		want           bool
	}{
		{"on trial", "1=a 2=b | 1 | | 2", true},
		{"on trial, others before", "0=usb 1=a 2=b | 0 1 | | 2", true},
		{"the default", "1=a 2=b | 1 | | 1", false},
		{"accepted", "1=a 2=b | 2 | | 2", false},
		{"armed, not started", "1=a 2=b | 1 | 2 | 1", false},
		{"by a stick", "0=usb 1=a | 1 | | 0", false},
		{"no default", "0=usb 2=b | 0 | | 2", false},
		{"by an entry that is gone", "1=a | 1 | | 3", false},
		{"by firmware that says nothing", "1=a 2=b | 1 | |", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, current := firmware(t, tt.firmware)
			if got, err := efi.StartedOnTrial(model.Running{Variables: m, Current: current}); err != nil || got != tt.want {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	if got, err := efi.StartedOnTrial(efi.Directory{Path: t.TempDir() + "/none"}); got || err == nil {
		t.Errorf("without variables: %v, %v", got, err)
	}
}

func TestWhatIsNoSelection(t *testing.T) {
	m, _ := firmware(t, "1=a | 1 | |")
	for _, sel := range []fwu.Selection{{}, {Trial: "a"}, {Default: "a", Trial: "a"}, {Default: "c"}, {Default: "a", Trial: "c"}} {
		if err := selector(t, m).Commit(sel); err == nil {
			t.Errorf("%v was committed", sel)
		}
	}
}

// TestOddVariables: what is no entry and no list harms nobody, and stays.
func TestOddVariables(t *testing.T) {
	m, _ := firmware(t, "1=a | 1 | |")
	odd := efi.Variable{Attributes: 7, Data: []byte{1}}
	kept := []string{efi.EntryName(2), "Boot00aa-8be4df61-93ca-11d2-aa0d-00e098032b8c", "Boot0003-11111111-93ca-11d2-aa0d-00e098032b8c", "BootOptionSupport-8be4df61-93ca-11d2-aa0d-00e098032b8c"}
	for _, name := range kept {
		m.Content[name] = odd
	}
	m.Content[efi.BootOrder] = efi.Variable{Attributes: 7, Data: []byte{2, 0, 1, 0, 9}}
	m.Content[efi.BootNext] = odd
	s := selector(t, m)
	if got, err := s.Read(); err != nil || got != (fwu.Selection{Default: "a"}) {
		t.Errorf("%v, %v", got, err)
	}
	if err := s.Commit(fwu.Selection{Default: "a", Trial: "b"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range kept {
		if string(m.Content[name].Data) != "\x01" {
			t.Errorf("%s was changed", name)
		}
	}
	if got := m.Content[efi.BootOrder].Data; string(got) != "\x01\x00\x02\x00" {
		t.Errorf("BootOrder is %v", got)
	}
	if got := m.Content[efi.BootNext].Data; string(got) != "\x80\x00" {
		t.Errorf("BootNext is %v", got)
	}
}

// liar is firmware that says it did something.
type liar struct {
	*model.Memory
	about string
}

func (l liar) Write(name string, v efi.Variable) error {
	if name == l.about {
		return nil
	}
	return l.Memory.Write(name, v)
}

func (l liar) Delete(name string) error {
	if name == l.about {
		return nil
	}
	return l.Memory.Delete(name)
}

func TestFirmwareThatDoesNotDoWhatItSays(t *testing.T) {
	tests := []struct{ name, firmware, commit, about string }{
		{"an entry is not written", "0=usb | 0 | |", "a", efi.EntryName(0x80)},
		{"an entry is not replaced", "0=a+stripped | 0 | |", "a", efi.EntryName(0)},
		{"BootOrder is not written", "1=a 2=b | 1 | |", "b", efi.BootOrder},
		{"BootNext is not written", "1=a 2=b | 1 | |", "a b", efi.BootNext},
		{"BootNext is not deleted", "1=a 2=b | 1 | 2 |", "a", efi.BootNext},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, _ := firmware(t, tt.firmware)
			s := selector(t, liar{m, tt.about})
			before, _ := s.Read()
			if err := s.Commit(bankPair(tt.commit)); err == nil || !errors.Is(err, fwu.ErrReadBack) && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("committed: %v", err)
			}
			if got, err := s.Read(); err != nil || got != before {
				t.Errorf("%v, %v, before it was %v", got, err, before)
			}
		})
	}
	m, _ := firmware(t, "1=a 2=a+gone | 1 | |")
	if err := selector(t, liar{m, efi.EntryName(2)}).Commit(fwu.Selection{Default: "a"}); err != nil {
		t.Errorf("an entry that is left over decides nothing: %v", err)
	}
}

func TestDoctor(t *testing.T) {
	m, current := firmware(t, "0=usb 1=a+older 2=b+gone 3=b+inactive 4=b | 0 1 4 9 0 | 0 | 1")
	got := selector(t, model.Running{Variables: m, Current: current}).Doctor()
	want := []string{
		`Boot0000 ("usb"), not ours`,
		`Boot0001 ("fwu-ab a") \EFI\test\linux.efi, command line "root=/dev/old fwu.bank=a"; the configuration has another, which the next update of this bank tries`,
		`Boot0002 ("fwu-ab b") \EFI\test\linux.efi, ours, but it does not name the partition of bank b: the next commit replaces or deletes it`,
		`Boot0003 ("fwu-ab b") \EFI\test\linux.efi, not active: the boot manager skips it, command line "fwu.bank=b quiet"; the configuration has another`,
		`Boot0004 ("fwu-ab b") \EFI\test\linux.efi, command line "fwu.bank=b quiet"`,
		"BootOrder: 0000 0001 0004 0009 0000",
		"BootNext: 0000",
		"BootCurrent: 0001",
		"BootOrder has 0009, which is no entry",
		"BootOrder has 0000 twice",
		"BootOrder begins with entries that are not ours: the firmware tries those first, until the service puts ours back to the head",
		"BootOrder has entries of both banks: the firmware could fall back from one to the other, until the service takes one out",
		"BootNext is 0000, which is not ours: the next reset starts that; an install replaces it",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
}
