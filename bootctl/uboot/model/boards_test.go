package model

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/fwu"
)

const a, b, none = fwu.BankA, fwu.BankB, fwu.NoBank

func parts() map[string][2]string { return map[string][2]string{"part": {"2", "3"}} }

// prepared is a machine whose board was prepared for a scheme, and the selector on its environment.
func prepared(t *testing.T, scheme uboot.Scheme, lost bool, variables ...string) (Bootloader, *flash, *uboot.Selector) {
	t.Helper()
	u, f := machine(t, lost, append([]string{"altbootcmd=run swap bootcmd"}, variables...)...)
	c := uboot.Config{Environment: u.Environment, Scheme: scheme, Locks: uboot.Locks{Root: t.TempDir()}}
	u.Scheme = scheme
	if scheme == uboot.BootCount {
		u.BankVariables = parts()
		c.BankVariables = parts()
	}
	s, err := uboot.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return u, f, s
}

func schemes() []uboot.Scheme { return []uboot.Scheme{uboot.OneShot, uboot.BootOrder, uboot.BootCount} }

func commit(t *testing.T, s *uboot.Selector, sel fwu.Selection) {
	t.Helper()
	if err := s.Commit(sel); err != nil {
		t.Fatal(err)
	}
}

// boots checks which bank a reset starts, and that it takes no more than so many further ones.
func boots(t *testing.T, u Bootloader, bootable string, want fwu.Bank, resets int) {
	t.Helper()
	got, err := u.Boot(bootableIn(bootable))
	if err != nil || got.Bank != want || got.Resets > resets {
		t.Fatalf("%+v, %v; want bank %q", got, err, want)
	}
}

func says(t *testing.T, s *uboot.Selector, want fwu.Selection) {
	t.Helper()
	if got, err := s.Read(); err != nil || got != want {
		t.Fatalf("the selection is %+v, %v; want %+v", got, err, want)
	}
}

func TestTenPlainBootsInARow(t *testing.T) {
	for _, scheme := range schemes() {
		for _, bank := range []fwu.Bank{a, b} {
			for _, service := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, bank %s, service runs: %v", scheme, bank, service), func(t *testing.T) {
					u, _, s := prepared(t, scheme, false)
					want := fwu.Selection{Default: bank}
					commit(t, s, want)
					resets := 0
					if !service && scheme == uboot.BootOrder {
						resets = 1 // when the counters are filled up
					}
					for range 10 {
						boots(t, u, "ab", bank, resets)
						says(t, s, want)
						if service {
							commit(t, s, want)
						}
					}
				})
			}
		}
	}
}

// TestTrial walks through what can become of a trial, by the bootloader alone and with the service.
func TestTrial(t *testing.T) {
	type step struct {
		does string        // "boot", or commit of what the service commits at that point
		bank fwu.Bank      // that a boot starts
		sel  fwu.Selection // that is committed, or that is read after a boot
	}
	boot := func(bank fwu.Bank, after fwu.Selection) step { return step{"boot", bank, after} }
	service := func(sel fwu.Selection) step { return step{"commit", none, sel} }
	onA, onB, armed := fwu.Selection{Default: a}, fwu.Selection{Default: b}, fwu.Selection{Default: a, Trial: b}
	for name, tt := range map[string]struct {
		bootable string
		steps    []step
	}{
		"accepted":                                {"ab", []step{service(armed), boot(b, onA), service(onA), service(onB), boot(b, onB), service(onB), boot(b, onB)}},
		"accepted, and no more seen":              {"ab", []step{service(armed), boot(b, onA), service(onA), service(onB), boot(b, onB), boot(b, onB), boot(b, onB), boot(b, onB), boot(b, onB)}},
		"disarmed":                                {"ab", []step{service(armed), service(onA), boot(a, onA), service(onA), boot(a, onA)}},
		"lapses before the service runs":          {"ab", []step{service(armed), boot(b, onA), boot(a, onA), service(onA), boot(a, onA), service(onA), boot(a, onA)}},
		"lapses, service of the default is late":  {"ab", []step{service(armed), boot(b, onA), boot(a, onA), boot(a, onA), boot(a, onA), service(onA), boot(a, onA)}},
		"lapses after the service ran":            {"ab", []step{service(armed), boot(b, onA), service(onA), boot(a, onA), boot(a, onA), boot(a, onA), boot(a, onA), boot(a, onA), boot(a, onA)}},
		"rejected":                                {"ab", []step{service(armed), boot(b, onA), service(onA), service(onA), boot(a, onA), service(onA)}},
		"cannot be loaded":                        {"a", []step{service(armed), boot(a, onA), service(onA), boot(a, onA)}},
		"a second one after one that lapsed":      {"ab", []step{service(armed), boot(b, onA), boot(a, onA), service(onA), service(armed), boot(b, onA), boot(a, onA)}},
		"back to a after b was accepted":          {"ab", []step{service(armed), boot(b, onA), service(onA), service(onB), boot(b, onB), service(fwu.Selection{Default: b, Trial: a}), boot(a, onB), boot(b, onB)}},
		"armed right after a trial was not ended": {"ab", []step{service(armed), boot(b, onA), boot(a, onA), service(armed), boot(b, onA), boot(a, onA)}},
	} {
		for _, scheme := range schemes() {
			t.Run(fmt.Sprintf("%s, %s", scheme, name), func(t *testing.T) {
				u, _, s := prepared(t, scheme, false)
				commit(t, s, onA)
				boots(t, u, "ab", a, 0)
				commit(t, s, onA)
				for i, st := range tt.steps {
					t.Log("step", i)
					if st.does == "commit" {
						commit(t, s, st.sel)
					} else {
						boots(t, u, tt.bootable, st.bank, 1)
					}
					says(t, s, st.sel)
				}
			})
		}
	}
}

// TestCutsInTheBootloadersWrites cuts each write of the bootloader in each stage of a trial: the selection is what it was or what the boot makes of it, the next
// boot starts what it names, and after the trial the default bank comes.
func TestCutsInTheBootloadersWrites(t *testing.T) {
	onA, onB, armed := fwu.Selection{Default: a}, fwu.Selection{Default: b}, fwu.Selection{Default: a, Trial: b}
	for name, before := range map[string][]any{ // commits, and banks to be booted
		"plain boot":                        {onA},
		"plain boot, no attempt left":       {onA, a, a, a},
		"armed":                             {armed},
		"trial was started":                 {armed, b},
		"trial was started, service ran":    {armed, b, onA},
		"fallen back":                       {armed, b, a},
		"first boot after accept":           {armed, b, onA, onB},
		"armed, and cut in every boot":      {armed},
		"default after a trial, every boot": {armed, b},
	} {
		for _, scheme := range schemes() {
			for _, arrives := range []int{0, 8, 512, size - 1, size} {
				for cut := 1; cut <= 3; cut++ {
					t.Run(fmt.Sprintf("%s, %s, write %d, %d bytes arrive", scheme, name, cut, arrives), func(t *testing.T) {
						u, f, s := prepared(t, scheme, false)
						for _, do := range before {
							if sel, ok := do.(fwu.Selection); ok {
								commit(t, s, sel)
							} else {
								boots(t, u, "ab", do.(fwu.Bank), 1)
							}
						}
						was, err := s.Read()
						if err != nil {
							t.Fatal(err)
						}
						times := 1
						if strings.HasSuffix(name, "every boot") {
							times = 2
						}
						for range times {
							f.cut, f.arrives = cut, arrives
							if _, err := u.Boot(bootableIn("ab")); err != nil && !errors.Is(err, ErrPowerCut) {
								t.Fatal(err)
							}
							f.cut = -1
						}
						is, err := s.Read()
						if err != nil || is != was && is != (fwu.Selection{Default: was.Default}) {
							t.Fatalf("%+v became %+v, %v", was, is, err)
						}
						if is.Trial != none {
							boots(t, u, "ab", is.Trial, 0)
						}
						boots(t, u, "ab", was.Default, 1)
						says(t, s, fwu.Selection{Default: was.Default})
					})
				}
			}
		}
	}
}

// TestLimits shows the limits that the documentation of the schemes names.
func TestLimits(t *testing.T) {
	armed, onA := fwu.Selection{Default: a, Trial: b}, fwu.Selection{Default: a}
	for _, scheme := range []uboot.Scheme{uboot.BootOrder, uboot.BootCount} {
		t.Run(fmt.Sprintf("%s: a trial on a medium that takes no writes is started until the service disarms it", scheme), func(t *testing.T) {
			u, f, s := prepared(t, scheme, false)
			commit(t, s, armed)
			f.broken = true
			boots(t, u, "ab", b, 0)
			boots(t, u, "ab", b, 0)
			says(t, s, armed)
			f.broken = false
			commit(t, s, onA)
			boots(t, u, "ab", a, 0)
		})
	}
	t.Run("boot-order: the fourth boot of a default bank without a service after a trial without one starts the trial again, and the selection says so", func(t *testing.T) {
		u, _, s := prepared(t, uboot.BootOrder, false)
		commit(t, s, armed)
		for _, want := range []fwu.Bank{b, a, a, a, b} {
			boots(t, u, "ab", want, 1)
		}
		says(t, s, armed)
	})
	t.Run("boot-order: environment lost, a cannot be loaded", func(t *testing.T) {
		u, _, s := prepared(t, uboot.BootOrder, true)
		boots(t, u, "b", b, 3)
		says(t, s, fwu.Selection{})
	})
	t.Run("boot-order: environment lost, nothing can be loaded", func(t *testing.T) {
		u, _, _ := prepared(t, uboot.BootOrder, true)
		boots(t, u, "", none, forever)
	})
	t.Run("bootcount: environment lost, a cannot be loaded", func(t *testing.T) {
		u, _, _ := prepared(t, uboot.BootCount, true)
		u.Builtin = uboot.ParseEnv([]byte("part=2\x00upgrade_available=0\x00"))
		boots(t, u, "b", none, forever)
	})
}

func TestOtherUpdatersStates(t *testing.T) {
	for name, tt := range map[string]struct {
		scheme    uboot.Scheme
		variables []string
		lost      bool
		boots     []fwu.Bank
		want      fwu.Selection
	}{
		"first boot of a board prepared for RAUC":            {uboot.BootOrder, nil, true, []fwu.Bank{a}, fwu.Selection{}},
		"three boots before the service runs":                {uboot.BootOrder, nil, true, []fwu.Bank{a, a, a}, fwu.Selection{}},
		"RAUC fell back to b":                                {uboot.BootOrder, []string{"BOOT_ORDER=A B", "BOOT_A_LEFT=0", "BOOT_B_LEFT=3"}, false, []fwu.Bank{b, b}, fwu.Selection{}},
		"RAUC has a rescue system":                           {uboot.BootOrder, []string{"BOOT_ORDER=R B A", "BOOT_A_LEFT=1", "BOOT_B_LEFT=1"}, false, []fwu.Bank{b, a}, fwu.Selection{}},
		"Mender committed b":                                 {uboot.BootCount, []string{"part=3", "upgrade_available=0", "bootcount=1", "bootlimit=1"}, false, []fwu.Bank{b, b}, fwu.Selection{Default: b}},
		"Mender installed b":                                 {uboot.BootCount, []string{"part=3", "upgrade_available=1", "bootcount=0", "bootlimit=1"}, false, []fwu.Bank{b, a, a}, fwu.Selection{Default: a}},
		"no limit: the bootloader never falls back":          {uboot.BootCount, []string{"part=3", "upgrade_available=1", "bootcount=0"}, false, []fwu.Bank{b, b, b}, fwu.Selection{Default: b}},
		"a limit of two: the trial is started a second time": {uboot.BootCount, []string{"part=3", "upgrade_available=1", "bootlimit=2"}, false, []fwu.Bank{b, b, a}, fwu.Selection{Default: a}},
	} {
		t.Run(name, func(t *testing.T) {
			u, _, s := prepared(t, tt.scheme, tt.lost, tt.variables...)
			for _, bank := range tt.boots {
				boots(t, u, "ab", bank, 0)
			}
			says(t, s, tt.want)
		})
	}
}

// uboots make the shell a U-Boot, as stubs does, with the commands of the scripts in testdata. What the machine keeps is in the last line that begins with SAVE.
const uboots = `
setenv() { n=$1; shift; if [ $# = 0 ]; then unset "$n"; else eval "$n=\$*"; fi; }
setexpr() { eval "$1=\$(printf %x \$((0x$2 $3 0x$4)))"; }
saveenv() { [ -z "$NOSAVE" ] || return 1; echo "SAVE$(for n in $KEPT; do eval "[ -z \"\$$n\" ] || printf ' %s' \"$n=\$$n\""; done)"; }
load() { case "$1 $2" in "mmc 0:2") bank=a;; "mmc 0:3") bank=b;; *) return 1;; esac; case "$BOOTABLE" in *$bank*) ;; *) return 1;; esac; }
run() { eval "eval \"\$$1\""; }
booti() { echo "BOOT $bootargs"; exit 0; }
reset() { echo RESET; exit 0; }
`

// pass runs one pass of a script in testdata by the shell. It returns what was saved last, and what it came to.
func pass(t *testing.T, script, bootable string, broken bool, kept []string, variables map[string]string) (saved, end string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", script))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", uboots+string(text))
	cmd.Env = []string{"BOOTABLE=" + bootable, "kernel_addr_r=0x40400000", "KEPT=" + strings.Join(kept, " ")}
	if broken {
		cmd.Env = append(cmd.Env, "NOSAVE=1")
	}
	for k, v := range variables {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "SAVE") {
			saved = line
		} else {
			end += line
		}
	}
	return saved, end
}

// same compares one pass of a script with one of the model.
func same(t *testing.T, u Bootloader, attempt func() ([]fwu.Bank, bool, error), argument func(fwu.Bank) string, script, bootable string, broken bool, kept []string, variables map[string]string) {
	t.Helper()
	banks, saved, err := attempt()
	if err != nil {
		t.Fatal(err)
	}
	var wantSaved string
	if saved {
		env, _, err := u.Environment.Read()
		if err != nil {
			t.Fatal(err)
		}
		wantSaved = "SAVE"
		for _, name := range kept {
			if value, ok := env.Get(name); ok {
				wantSaved += " " + name + "=" + value
			}
		}
	}
	wantEnd := "RESET"
	if i := slices.IndexFunc(banks, bootableIn(bootable)); i >= 0 {
		wantEnd = fmt.Sprintf("BOOT root=/dev/mmcblk0p%d%s", 2+banks[i].Index(), argument(banks[i]))
	}
	gotSaved, gotEnd := pass(t, script, bootable, broken, kept, variables)
	if diff := cmp.Diff([]string{wantSaved, wantEnd}, []string{gotSaved, gotEnd}); diff != "" {
		t.Error(diff)
	}
}

func entries(variables map[string]string) []string {
	var out []string
	for k, v := range variables {
		out = append(out, k+"="+v)
	}
	return out
}

func TestModelDoesWhatABootOrderScriptDoes(t *testing.T) {
	kept := []string{"BOOT_ORDER", "BOOT_A_LEFT", "BOOT_B_LEFT"}
	counts := []string{"", "0", "1", "3"}
	for _, order := range []string{"", "A", "B", "A B", "B A", "B A A", "A B B", "R B A"} {
		for _, leftA := range counts {
			for _, leftB := range counts {
				for _, broken := range []bool{false, true} {
					t.Run(fmt.Sprintf("order %q, left %q %q, broken medium %v", order, leftA, leftB, broken), func(t *testing.T) {
						t.Parallel()
						variables := map[string]string{"BOOT_ORDER": order, "BOOT_A_LEFT": leftA, "BOOT_B_LEFT": leftB}
						u, f, _ := prepared(t, uboot.BootOrder, false, entries(variables)...)
						f.broken = broken
						same(t, u, u.bootOrder, func(b fwu.Bank) string { return " rauc.slot=" + u.slotName(b) }, "boot-order.cmd", "a", broken, kept, variables)
					})
				}
			}
		}
	}
}

func TestModelDoesWhatABootcountScriptDoes(t *testing.T) {
	kept := []string{"upgrade_available", "bootcount", "part"}
	for _, upgrade := range []string{"", "0", "1"} {
		for _, count := range []string{"", "0", "1", "2"} {
			for _, limit := range []string{"", "0", "1", "3"} {
				for _, part := range []string{"", "2", "3", "9"} {
					for _, broken := range []bool{false, true} {
						t.Run(fmt.Sprintf("upgrade %q, count %q, limit %q, part %q, broken medium %v", upgrade, count, limit, part, broken), func(t *testing.T) {
							t.Parallel()
							variables := map[string]string{"upgrade_available": upgrade, "bootcount": count, "bootlimit": limit, "part": part}
							u, f, _ := prepared(t, uboot.BootCount, false, entries(variables)...)
							f.broken = broken
							same(t, u, u.bootCount, func(fwu.Bank) string { return "" }, "bootcount.cmd", "ab", broken, kept, variables)
						})
					}
				}
			}
		}
	}
}
