package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/bootctl/uboot/model"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// TestSandbox holds the model of the bootloader, with which the power cuts and the demonstration are made, against the real U-Boot with the real scripts: in every state of the
// environment that selector and bootloader can bring about, with every copy of it lost, and with every combination of banks that can be started.
func TestSandbox(t *testing.T) {
	if os.Getenv("FWUAB_VM") == "" {
		t.Skip("builds U-Boot from Debian's source: make vm sets FWUAB_VM")
	}
	for _, scheme := range []uboot.Scheme{uboot.OneShot, uboot.BootOrder, uboot.BootCount} {
		t.Run(string(scheme), func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			d := newDuel(t, scheme, [2]string{})
			states := d.everyState()
			for i, state := range states {
				for _, bootable := range []string{"ab", "a", "b", ""} {
					d.fight(state, bootable, noDamage)
				}
				if i >= 4 { // what was committed: the default banks, and the trials
					continue
				}
				for _, damage := range []damage{copy0Lost, copy1Lost, bothLost, copy0Flipped, copy1Flipped} {
					d.fight(state, "ab", damage)
				}
				for _, flags := range [][2]byte{{0, 255}, {255, 0}, {255, 254}, {1, 0}} {
					d.flags = flags
					d.fight(state, "ab", flagsSet)
				}
			}
			d.plainBoots()
			t.Logf("%d states, %d boots of the real U-Boot, %d of them with resets, in %.0f s", len(states), d.boots, d.withResets, time.Since(begin).Seconds())
		})
	}
}

// TestSandboxWithOtherNames is of boards whose script calls the banks otherwise: an armed trial
// starts, once.
func TestSandboxWithOtherNames(t *testing.T) {
	if os.Getenv("FWUAB_VM") == "" {
		t.Skip("builds U-Boot from Debian's source: make vm sets FWUAB_VM")
	}
	d := newDuel(t, uboot.BootOrder, [2]string{"system0", "system1"})
	for _, state := range d.everyState() {
		for _, bootable := range []string{"ab", "a", "b"} {
			d.fight(state, bootable, noDamage)
		}
	}
	d.plainBoots()
	for _, e := range []uboot.Environment{d.real, d.toy} {
		d.commit(e, fwu.Selection{Default: fwu.BankA, Trial: fwu.BankB})
	}
	for i, want := range []fwu.Bank{fwu.BankB, fwu.BankA, fwu.BankA} {
		if out := d.round("ab", fmt.Sprintf("boot %d of a trial", i)); out.Bank != want {
			t.Errorf("boot %d starts bank %q, want %q", i, out.Bank, want)
		}
	}

	// The same environment with names that are not those of the script.
	before := d.bytes(d.real)
	d.names = [2]string{}
	s := d.selector(d.real)
	if err := s.Commit(fwu.Selection{Default: fwu.BankA, Trial: fwu.BankB}); err == nil || !slices.Equal(before, d.bytes(d.real)) {
		t.Errorf("commit with other names: %v", err)
	}
	t.Logf("%d boots of the real U-Boot", d.boots)
}

// TestSandboxWithAnotherGeometry configures the environment otherwise than U-Boot has it, with a
// default environment at hand. Nothing is written, and U-Boot goes on with its environment.
func TestSandboxWithAnotherGeometry(t *testing.T) {
	if os.Getenv("FWUAB_VM") == "" {
		t.Skip("builds U-Boot from Debian's source: make vm sets FWUAB_VM")
	}
	d := newDuel(t, uboot.OneShot, [2]string{})
	for range 2 {
		check(t, d.real.Update(must(uboot.ParseDefault([]byte(sandboxEnvironment))), func(e *uboot.Env) error { return e.Set("ethaddr", fmt.Sprint("02:00:00:00:00:0", d.boots)) }))
		d.boots++
	}
	d.commit(d.real, fwu.Selection{Default: fwu.BankB})
	check(t, d.board.SetBootable("ab"))
	disk, err := os.ReadFile(d.board.disk.Path)
	check(t, err)
	at := func(offset, size int64) uboot.Location {
		return uboot.Location{Path: d.board.disk.Path, Offset: offset, Size: size}
	}
	for name, copies := range map[string][]uboot.Location{
		"one copy":      {at(sandboxEnv, sandboxEnvSize)},
		"a smaller one": {at(sandboxEnv, sandboxEnvSize/2)},
		"a larger one":  {at(sandboxEnv, 2*sandboxEnvSize)},
		"two small":     {at(sandboxEnv, sandboxEnvSize/2), at(sandboxEnv+sandboxEnvStep, sandboxEnvSize/2)},
		"two large":     {at(sandboxEnv, 2*sandboxEnvSize), at(sandboxEnv+sandboxEnvStep, 2*sandboxEnvSize)},
		"the second is in the kernel's file system": {at(sandboxEnv, sandboxEnvSize), at(d.board.disk.Extents["a"].Offset, sandboxEnvSize)},
	} {
		s, err := uboot.New(uboot.Config{Environment: uboot.Environment{Copies: copies, SingleCopy: len(copies) == 1, Open: uboot.OpenMedium}, Scheme: uboot.OneShot,
			Default: must(uboot.ParseDefault([]byte(sandboxEnvironment))), Locks: uboot.Locks{Root: d.board.dir, Wait: uboot.DefaultWait}})
		check(t, err)
		for _, sel := range []fwu.Selection{{Default: fwu.BankA}, {Default: fwu.BankB, Trial: fwu.BankA}} {
			if err := s.Commit(sel); err == nil {
				t.Errorf("%s: committed", name)
			}
		}
		after, err := os.ReadFile(d.board.disk.Path)
		check(t, err)
		if !slices.Equal(disk, after) {
			t.Fatalf("%s: the disk was written to", name)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if line, _, err := d.board.Boot(ctx, 2); err != nil || !strings.Contains(line, "fwu.bank=b") {
		t.Errorf("U-Boot starts %q: %v", line, err)
	}
	env, _, err := d.real.Read()
	check(t, err)
	if v, _ := env.Get("ethaddr"); v != "02:00:00:00:00:01" {
		t.Errorf("ethaddr is %q", v)
	}
}

func must(e *uboot.Env, err error) *uboot.Env {
	if err != nil {
		panic(err)
	}
	return e
}

// duel is model and reality with the same environment.
type duel struct {
	t                 *testing.T
	scheme            uboot.Scheme
	names             [2]string // of the banks in BOOT_ORDER
	board             *Sandbox
	real, toy         uboot.Environment // on the board's disk, and in a file for the model
	loader            model.Bootloader
	flags             [2]byte
	boots, withResets int
	bootable          string
}

type damage string

const (
	noDamage     damage = "both copies are good"
	copy0Lost    damage = "copy 0 is lost"
	copy1Lost    damage = "copy 1 is lost"
	bothLost     damage = "both copies are lost"
	copy0Flipped damage = "a bit of copy 0 is wrong"
	copy1Flipped damage = "a bit of copy 1 is wrong"
	flagsSet     damage = "flags are at their end"
)

// resetsForEver is how many resets of the real U-Boot are taken for endless: more than any script needs to use up the attempts of a bank.
const resetsForEver = 6

const testScripts = "../../bootctl/uboot/model/testdata/"

// newDuel makes a board that was prepared for a scheme, with the scripts that the model is tested with, and ours.
func newDuel(t *testing.T, scheme uboot.Scheme, names [2]string) *duel {
	t.Helper()
	file := map[uboot.Scheme]string{uboot.OneShot: "../../share/uboot/fwu-ab.cmd", uboot.BootOrder: testScripts + "boot-order.cmd", uboot.BootCount: testScripts + "bootcount.cmd"}[scheme]
	text, err := os.ReadFile(file)
	check(t, err)
	// These two say what they start, and where from.
	script := strings.NewReplacer("booti ${kernel_addr_r}", "run start").Replace(string(text))
	variables := sandboxEnvironment
	d := &duel{t: t, scheme: scheme, names: names}
	d.loader.Scheme, d.loader.Names = scheme, names
	if names != ([2]string{}) {
		a, b := names[0], names[1]
		script = strings.NewReplacer("BOOT_A_LEFT", uboot.VarLeft(a), "BOOT_B_LEFT", uboot.VarLeft(b), "BOOT_ORDER A B", "BOOT_ORDER "+a+" "+b,
			`"A"`, `"`+a+`"`, `"B"`, `"`+b+`"`, "chosen A", "chosen "+a, "chosen B", "chosen "+b).Replace(script)
	}
	if scheme == uboot.BootCount {
		// Counting is U-Boot's own; the board's are two variables.
		script = ""
		for _, m := range regexp.MustCompile(`(?m)^setenv (bootcmd|altbootcmd) '(.*)'$`).FindAllStringSubmatch(strings.ReplaceAll(string(text), "booti ${kernel_addr_r}", "run start"), -1) {
			script += m[0] + "\n"
			variables += m[1] + "=" + m[2] + "\n"
		}
		script += "run bootcmd\n" // only the compiled-in environment comes here
		d.loader.BankVariables = bankVariables()
	}
	d.board, err = NewSandbox(t.Context(), t.TempDir(), script)
	check(t, err)
	toy := filepath.Join(t.TempDir(), "env")
	check(t, os.WriteFile(toy, make([]byte, 2*sandboxEnvSize), 0o644))
	at := func(path string, offset, step int64) uboot.Environment {
		return uboot.Environment{Open: uboot.OpenMedium, Copies: []uboot.Location{{Path: path, Offset: offset, Size: sandboxEnvSize}, {Path: path, Offset: offset + step, Size: sandboxEnvSize}}}
	}
	d.real, d.toy = at(d.board.disk.Path, sandboxEnv, sandboxEnvStep), at(toy, 0, sandboxEnvSize)
	d.loader.Environment = d.toy
	base, err := uboot.ParseDefault([]byte(variables))
	check(t, err)
	for range 2 {
		check(t, d.toy.Update(base, func(e *uboot.Env) error { return e.Set("made", fmt.Sprint(d.boots)) }))
		d.boots++
	}
	d.boots = 0
	return d
}

func (d *duel) bankNames() [2]string {
	if d.names == ([2]string{}) {
		return uboot.BankNames()
	}
	return d.names
}

func bankVariables() map[string][2]string { return map[string][2]string{"part": {"2", "3"}} }

func (d *duel) selector(e uboot.Environment) *uboot.Selector {
	c := uboot.Config{Environment: e, Scheme: d.scheme, Names: d.names, Locks: uboot.Locks{Root: d.board.dir, Wait: uboot.DefaultWait}}
	if d.scheme == uboot.BootCount {
		c.BankVariables = bankVariables()
	}
	s, err := uboot.New(c)
	check(d.t, err)
	return s
}

// variables are those that selector and bootloader decide by, as they are in an environment; empty if no copy is valid.
func (d *duel) variables(e uboot.Environment) string {
	env, _, err := e.Read()
	if err != nil {
		return ""
	}
	var out []string
	for _, name := range map[uboot.Scheme][]string{
		uboot.OneShot:   {uboot.VarActive, uboot.VarTrial},
		uboot.BootOrder: {"BOOT_ORDER", uboot.VarLeft(d.bankNames()[0]), uboot.VarLeft(d.bankNames()[1])},
		uboot.BootCount: {"upgrade_available", "bootcount", "bootlimit", "part"},
	}[d.scheme] {
		if value, ok := env.Get(name); ok {
			out = append(out, name+"="+value)
		}
	}
	return strings.Join(out, " ")
}

// everyState returns the environments, as bytes, that commits of the selector and boots of the model lead to.
func (d *duel) everyState() [][]byte {
	d.t.Helper()
	const a, b = fwu.BankA, fwu.BankB
	d.commit(d.toy, fwu.Selection{Default: a})
	todo, seen := [][]byte{d.bytes(d.toy)}, map[string]bool{d.variables(d.toy): true}
	for i := 0; i < len(todo); i++ {
		var moves []func()
		for _, sel := range []fwu.Selection{{Default: a}, {Default: b}, {Default: a, Trial: b}, {Default: b, Trial: a}} {
			moves = append(moves, func() { d.commit(d.toy, sel) })
		}
		for _, bootable := range []string{"ab", "a", "b"} {
			moves = append(moves, func() { d.toyBoot(bootable) })
		}
		for _, move := range moves {
			d.setBytes(d.toy, todo[i])
			move()
			if v := d.variables(d.toy); !seen[v] {
				seen[v] = true
				todo = append(todo, d.bytes(d.toy))
			}
		}
	}
	return todo
}

func (d *duel) commit(e uboot.Environment, sel fwu.Selection) {
	d.t.Helper()
	check(d.t, d.selector(e).Commit(sel))
}

func (d *duel) toyBoot(bootable string) model.Outcome {
	d.t.Helper()
	out, err := d.loader.Boot(func(b fwu.Bank) bool { return strings.Contains(bootable, string(b)) })
	check(d.t, err)
	return out
}

// bytes are the copies of an environment.
func (d *duel) bytes(e uboot.Environment) []byte {
	d.t.Helper()
	var all []byte
	for _, l := range e.Copies {
		f, err := os.Open(l.Path)
		check(d.t, err)
		b := make([]byte, l.Size)
		_, err = f.ReadAt(b, l.Offset)
		check(d.t, err)
		check(d.t, f.Close())
		all = append(all, b...)
	}
	return all
}

func (d *duel) setBytes(e uboot.Environment, all []byte) {
	d.t.Helper()
	for i, l := range e.Copies {
		f, err := os.OpenFile(l.Path, os.O_RDWR, 0)
		check(d.t, err)
		_, err = f.WriteAt(all[i*sandboxEnvSize:][:l.Size], l.Offset)
		check(d.t, err)
		check(d.t, f.Close())
	}
}

// fight boots both from a state, and compares what they start and what they leave behind.
func (d *duel) fight(state []byte, bootable string, damage damage) {
	d.t.Helper()
	state = slices.Clone(state)
	wipe := func(i int) { clear(state[i*sandboxEnvSize:][:sandboxEnvSize]) }
	switch damage {
	case copy0Lost:
		wipe(0)
	case copy1Lost:
		wipe(1)
	case bothLost:
		wipe(0)
		wipe(1)
	case copy0Flipped:
		state[100] ^= 4
	case copy1Flipped:
		state[sandboxEnvSize+100] ^= 4
	case flagsSet:
		for i, f := range d.flags { // which is not in the sum
			state[i*sandboxEnvSize+4] = f
		}
	}
	d.setBytes(d.real, state)
	d.setBytes(d.toy, state)
	d.round(bootable, fmt.Sprintf("%s (flags %v)", damage, d.flags))
}

// round boots both from what they have.
func (d *duel) round(bootable, what string) model.Outcome {
	d.t.Helper()
	what = fmt.Sprintf("%s: %q, bootable %q, %s", d.scheme, d.variables(d.toy), bootable, what)
	if bootable != d.bootable {
		check(d.t, d.board.SetBootable(bootable))
		d.bootable = bootable
	}
	want := d.toyBoot(bootable)
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	line, resets, err := d.board.Boot(ctx, max(2, min(want.Resets, resetsForEver)))
	if err != nil {
		d.t.Errorf("%s: %v", what, err)
		return want
	}
	d.boots++
	if resets > 0 {
		d.withResets++
	}
	bank := fwu.NoBank
	for b, marks := range map[fwu.Bank][]string{fwu.BankA: {"fwu.bank=a", "rauc.slot=A", "root=/dev/mmcblk0p2"}, fwu.BankB: {"fwu.bank=b", "rauc.slot=B", "root=/dev/mmcblk0p3"}} {
		if slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(line, m) }) {
			bank = b
		}
	}
	if bank != want.Bank || !strings.Contains(line, want.CommandLine) || bank != fwu.NoBank && resets != want.Resets {
		d.t.Errorf("%s: U-Boot starts bank %q after %d resets, with %q; the model %+v", what, bank, resets, line, want)
	}
	if bank == fwu.NoBank {
		return want // it goes on for ever
	}
	if got, want := d.variables(d.real), d.variables(d.toy); got != want {
		d.t.Errorf("%s: U-Boot leaves %q, the model %q", what, got, want)
	}
	got, errReal := d.selector(d.real).Read()
	wantSel, errToy := d.selector(d.toy).Read()
	if got != wantSel || (errReal == nil) != (errToy == nil) {
		d.t.Errorf("%s: the selector reads %+v, %v; after the model %+v, %v", what, got, errReal, wantSel, errToy)
	}
	return want
}

// plainBoots boots ten times in a row, with the service, which commits what it found, and without.
func (d *duel) plainBoots() {
	d.t.Helper()
	for _, bank := range []fwu.Bank{fwu.BankA, fwu.BankB} {
		for _, service := range []bool{true, false} {
			for _, e := range []uboot.Environment{d.real, d.toy} {
				d.commit(e, fwu.Selection{Default: bank})
			}
			for i := range 10 {
				if out := d.round("ab", fmt.Sprintf("plain boot %d of bank %s, service %v", i, bank, service)); out.Bank != bank {
					d.t.Errorf("plain boot %d started bank %q, want %q", i, out.Bank, bank)
				}
				if !service {
					continue
				}
				for _, e := range []uboot.Environment{d.real, d.toy} {
					d.commit(e, fwu.Selection{Default: bank})
				}
			}
		}
	}
}
