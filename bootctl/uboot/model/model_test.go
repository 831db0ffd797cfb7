package model

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/fwu"
)

const size = 0x400

// flash is a medium in memory; after cut writes it is without power, after broken it fails.
type flash struct {
	data    []byte
	broken  bool // writes fail
	cut     int  // writes until the power goes, -1: never
	arrives int  // bytes of the last write
}

func (f *flash) open(string, bool) (uboot.Medium, error) { return f, nil }
func (f *flash) Size() int64                             { return int64(len(f.data)) }
func (f *flash) Close() error                            { return nil }
func (f *flash) Sync() error                             { return nil }

func (f *flash) ReadAt(p []byte, off int64) (int, error) {
	if f.cut == 0 {
		return 0, ErrPowerCut
	}
	if n := copy(p, f.data[off:]); n < len(p) {
		return n, io.ErrUnexpectedEOF
	}
	return len(p), nil
}

func (f *flash) WriteAt(p []byte, off int64) (int, error) {
	switch {
	case f.broken:
		return 0, errors.New("medium is broken")
	case f.cut == 0:
		return 0, ErrPowerCut
	case f.cut == 1:
		f.cut = 0
		copy(f.data[off:], p[:f.arrives])
		return 0, ErrPowerCut
	}
	f.cut--
	return copy(f.data[off:], p), nil
}

// machine has an environment with the variables, or none that is valid if lost.
func machine(t *testing.T, lost bool, variables ...string) (Bootloader, *flash) {
	t.Helper()
	f := &flash{data: make([]byte, 2*size), cut: -1, arrives: 8} // 8: CRC and flag, and no whole variable
	b := Bootloader{Environment: uboot.Environment{Copies: []uboot.Location{{Path: "x", Size: size}, {Path: "x", Offset: size, Size: size}}, Open: f.open}}
	if !lost {
		base := uboot.ParseEnv([]byte(strings.Join(variables, "\x00")))
		if err := b.Environment.Update(base, func(*uboot.Env) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return b, f
}

func bootableIn(banks string) func(fwu.Bank) bool {
	return func(b fwu.Bank) bool { return strings.Contains(banks, string(b)) }
}

func TestBoot(t *testing.T) {
	for name, tt := range map[string]struct {
		variables []string
		lost      bool
		bootable  string
		want      Outcome
		after     []string
	}{
		"default bank":                               {variables: []string{"fwu_active=b"}, bootable: "ab", want: Outcome{"b", "fwu.bank=b", 0}, after: []string{"fwu_active=b"}},
		"armed trial is disarmed and started":        {variables: []string{"fwu_active=a", "fwu_trial=b"}, bootable: "ab", want: Outcome{"b", "fwu.bank=b fwu.trial", 0}, after: []string{"fwu_active=a"}},
		"trial that cannot be loaded":                {variables: []string{"fwu_active=a", "fwu_trial=b"}, bootable: "a", want: Outcome{"a", "fwu.bank=a", 1}, after: []string{"fwu_active=a"}},
		"default bank that cannot be loaded":         {variables: []string{"fwu_active=a"}, bootable: "b", after: []string{"fwu_active=a"}},
		"neither trial nor default can be loaded":    {variables: []string{"fwu_active=a", "fwu_trial=b"}, want: Outcome{Resets: 1}, after: []string{"fwu_active=a"}},
		"environment lost":                           {lost: true, bootable: "ab", want: Outcome{"a", "fwu.bank=a", 0}},
		"environment lost, a sealed":                 {lost: true, bootable: "b", want: Outcome{"b", "fwu.bank=b", 0}},
		"environment lost, both sealed":              {lost: true},
		"trial that is no bank":                      {variables: []string{"fwu_active=a", "fwu_trial=c"}, bootable: "ab", want: Outcome{"a", "fwu.bank=a", 0}, after: []string{"fwu_active=a", "fwu_trial=c"}},
		"active that is no bank, b armed":            {variables: []string{"fwu_active=A", "fwu_trial=b"}, bootable: "a", want: Outcome{"a", "fwu.bank=a", 1}, after: []string{"fwu_active=A"}},
		"trial of the default bank cannot be loaded": {variables: []string{"fwu_active=a", "fwu_trial=a"}, bootable: "b", want: Outcome{Resets: 1}, after: []string{"fwu_active=a"}},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := machine(t, tt.lost, tt.variables...)
			got, err := b.Boot(bootableIn(tt.bootable))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if env, _, err := b.Environment.Read(); tt.lost != errors.Is(err, fwu.ErrNoSelection) || !tt.lost && cmp.Diff(tt.after, env.Entries()) != "" {
				t.Errorf("environment after: %v, %v", env, err)
			}
		})
	}
}

func TestBootTakesTheBuiltinEnvironmentOnlyIfNoCopyIsValid(t *testing.T) {
	for _, lost := range []bool{false, true} {
		b, _ := machine(t, lost, "fwu_active=a")
		b.Builtin = uboot.ParseEnv([]byte("fwu_active=b\x00fwu_trial=a\x00"))
		got, err := b.Boot(bootableIn("b"))
		if want := map[bool]fwu.Bank{false: fwu.NoBank, true: fwu.BankB}[lost]; err != nil || got.Bank != want {
			t.Errorf("lost %v: %v, %v", lost, got, err)
		}
	}
}

func TestBrokenMediumDoesNotStartTheTrial(t *testing.T) {
	b, f := machine(t, false, "fwu_active=a", "fwu_trial=b")
	f.broken = true
	if got, err := b.Boot(bootableIn("ab")); err != nil || got.Bank != fwu.BankA {
		t.Fatal(got, err)
	}
}

func TestCutWhileDisarmingNeverLosesTheDefault(t *testing.T) {
	b, f := machine(t, false, "fwu_active=a", "fwu_trial=b")
	f.cut = 1
	if got, err := b.Boot(bootableIn("ab")); !errors.Is(err, ErrPowerCut) {
		t.Fatal(got, err)
	}
	f.cut = -1
	for _, want := range []fwu.Bank{fwu.BankB, fwu.BankA, fwu.BankA} {
		if got, err := b.Boot(bootableIn("ab")); err != nil || got.Bank != want {
			t.Fatal(got, err)
		}
	}
}

// stubs make the shell a U-Boot: its commands, on shell variables. start writes the kernel command line; what the machine keeps is in $saved.
const stubs = `
setenv() { n=$1; shift; if [ $# = 0 ]; then unset "$n"; else eval "$n=\$*"; fi; }
saveenv() { [ -z "$NOSAVE" ] || return 1; echo "SAVE active=$fwu_active trial=$fwu_trial bank=$fwu_bank"; }
part() { [ "$1 $2" = "uuid mmc" ] || exit 9; eval "$4=uuid-of-$3"; }
load() { [ "$1" = mmc ] || exit 9; case "$2 $4" in "0:2 "*) bank=a;; "0:3 "*) bank=b;; *) exit 9;; esac
	case " $FAIL " in *" $bank$4 "*) return 1;; esac; }
run() { eval "eval \"\$$1\""; }
booti() { [ "$*" = "0x40400000 - $FDTADDR" ] || exit 9; case " $FAIL " in *" $fwu_try/start "*) return 1;; esac; echo "BOOT $bootargs"; exit 0; }
sleep() { :; }
reset() { echo RESET; exit 0; }
`

// script runs the boot script itself, by the shell: the syntax that it uses means the same there.
func script(t *testing.T, variables map[string]string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "share", "uboot", "fwu-ab.cmd"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", stubs+string(text)+"\necho RETURNED")
	cmd.Env = []string{"fwu_iface=mmc", "fwu_disk=0", "fwu_part_a=2", "fwu_part_b=3", "fwu_kernel=/Image", "kernel_addr_r=0x40400000", "fdt_addr_r=0x43000000",
		"fdtcontroladdr=0xf000", "fwu_bootargs=ro quiet", "fwu_start=booti ${kernel_addr_r} - ${fwu_fdtaddr}", "FDTADDR=0xf000"}
	for k, v := range variables {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "fwu-ab: ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// TestModelDoesWhatTheScriptDoes compares one pass of the script with the model, in every situation.
func TestModelDoesWhatTheScriptDoes(t *testing.T) {
	values := []string{"", "a", "b", "c", "ab", "a b"}
	for _, active := range values {
		for _, trial := range values {
			for _, broken := range []bool{false, true} {
				for _, bootable := range []string{"", "a", "b", "ab"} {
					t.Run(fmt.Sprintf("active %q, trial %q, broken medium %v, bootable %q", active, trial, broken, bootable), func(t *testing.T) {
						t.Parallel()
						compare(t, active, trial, broken, bootable)
					})
				}
			}
		}
	}
}

func compare(t *testing.T, active, trial string, broken bool, bootable string) {
	variables := map[string]string{"fwu_active": active, "fwu_trial": trial}
	if broken {
		variables["NOSAVE"] = "1"
	}
	for _, bank := range []string{"a", "b"} {
		if !strings.Contains(bootable, bank) {
			variables["FAIL"] += bank + "/Image "
		}
	}
	b, f := machine(t, false, "fwu_active="+active, "fwu_trial="+trial)
	f.broken = broken
	banks, saved, err := b.choose()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	if saved {
		env, _, err := b.Environment.Read()
		if err != nil {
			t.Fatal(err)
		}
		a, _ := env.Get(uboot.VarActive)
		tr, _ := env.Get(uboot.VarTrial)
		want = append(want, fmt.Sprintf("SAVE active=%s trial=%s bank=", a, tr))
	}
	last := "RESET"
	for _, bank := range banks {
		if strings.Contains(bootable, string(bank)) {
			mark := ""
			if saved {
				mark = " fwu.trial"
			}
			last = fmt.Sprintf("BOOT root=PARTUUID=uuid-of-0:%d fwu.bank=%s%s ro quiet", 2+bank.Index(), bank, mark)
			break
		}
	}
	if diff := cmp.Diff(append(want, last), script(t, variables)); diff != "" {
		t.Error(diff)
	}
}

func TestScriptStartsOnlyWhatIsComplete(t *testing.T) {
	for name, tt := range map[string]struct {
		variables map[string]string
		want      string
	}{
		"device tree of the bank":            {map[string]string{"fwu_active": "b", "fwu_fdt": "/b.dtb", "FDTADDR": "0x43000000"}, "BOOT root=PARTUUID=uuid-of-0:3 fwu.bank=b ro quiet"},
		"device tree cannot be loaded":       {map[string]string{"fwu_active": "b", "fwu_fdt": "/b.dtb", "FAIL": "b/b.dtb"}, "RESET"},
		"kernel is no kernel":                {map[string]string{"fwu_active": "b", "FAIL": "b/start"}, "RESET"},
		"lost, kernel of a is no kernel":     {map[string]string{"FAIL": "a/start"}, "BOOT root=PARTUUID=uuid-of-0:3 fwu.bank=b ro quiet"},
		"lost, device tree of a missing":     {map[string]string{"fwu_fdt": "/b.dtb", "FDTADDR": "0x43000000", "FAIL": "a/b.dtb"}, "BOOT root=PARTUUID=uuid-of-0:3 fwu.bank=b ro quiet"},
		"board does not say where bank a is": {map[string]string{"fwu_active": "a", "fwu_part_a": ""}, "RESET"},
		"no device tree anywhere":            {map[string]string{"fwu_active": "a", "fdtcontroladdr": ""}, "RESET"},
		"stale variables of an earlier boot": {map[string]string{"fwu_active": "a", "fwu_bank": "b", "fwu_banks": "b a", "fwu_part": "3"}, "BOOT root=PARTUUID=uuid-of-0:2 fwu.bank=a ro quiet"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff([]string{tt.want}, script(t, tt.variables)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
