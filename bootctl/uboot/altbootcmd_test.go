package uboot

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// menderVariables are the variables of a board that was prepared for Mender (meta-mender-core,
// u-boot).
func menderVariables() []string {
	return []string{
		"altbootcmd=run mender_altbootcmd; run bootcmd",
		"mender_altbootcmd=if test ${mender_boot_part} = 2; then setenv mender_boot_part 3; setenv mender_boot_part_hex 3; else setenv mender_boot_part 2; setenv mender_boot_part_hex 2; fi; setenv upgrade_available 0; saveenv; run mender_setup",
		"mender_setup=if test \"${mender_saveenv_canary}\" != \"1\"; then setenv mender_saveenv_canary 1; saveenv; fi; setenv bootargs root=${mender_kernel_root}",
		"bootcmd=run mender_setup; load mmc 0:${mender_boot_part} ${kernel_addr_r} /boot/uImage && bootm; run mender_try_to_recover",
		"mender_try_to_recover=if test ${upgrade_available} = 1; then reset; fi",
	}
}

func TestAltBootCmd(t *testing.T) {
	s := bootCount{[]string{"mender_boot_part", "mender_boot_part_hex"}, nil}
	for name, tt := range map[string]struct {
		variables   []string
		fault, note string // empty: none
	}{
		"Mender's":                {menderVariables(), "", ""},
		"none":                    {nil, "", ""},
		"it sets nothing":         {[]string{"altbootcmd=reset"}, "altbootcmd does not set mender_boot_part, mender_boot_part_hex, upgrade_available", ""},
		"one of two":              {[]string{"altbootcmd=setenv mender_boot_part 2; setenv upgrade_available"}, "altbootcmd does not set mender_boot_part_hex", ""},
		"a deletion is no value":  {[]string{"altbootcmd=setenv mender_boot_part; setenv mender_boot_part_hex 2; setenv upgrade_available 0"}, "altbootcmd does not set mender_boot_part:", ""},
		"a circle":                {[]string{"altbootcmd=run x", "x=run y altbootcmd", "y=run x; boot"}, "altbootcmd, x, y does not set", ""},
		"by other words":          {[]string{"altbootcmd=env set -f mender_boot_part 3 && setexpr mender_boot_part_hex $x + 1; env set upgrade_available 0"}, "", ""},
		"in words of a value":     {[]string{`altbootcmd=setenv next 'setenv mender_boot_part 2; setenv mender_boot_part_hex 2; setenv upgrade_available 0'; reset`}, "does not set mender_boot_part,", ""},
		"in braces and after &&":  {[]string{"altbootcmd=true && { setenv mender_boot_part 2;setenv mender_boot_part_hex 2; }; test -n \"a;b\" || setenv upgrade_available 0"}, "", ""},
		"a script from a disk":    {[]string{"altbootcmd=source ${scriptaddr}"}, "", `what "source ${scriptaddr}" does is not known`},
		"an import":               {[]string{"altbootcmd=env import -t ${a} ${n}"}, "", `what "import -t ${a} ${n}" does is not known`},
		"a name that is computed": {[]string{"altbootcmd=run ${board}_alt"}, "", `what "run ${board}_alt" does is not known`},
		"a command that is one":   {[]string{"altbootcmd=${alt}"}, "", `what "${alt}" does is not known`},
		"what does not matter":    {[]string{"altbootcmd=setenv mender_boot_part 2; setenv mender_boot_part_hex 2; setenv upgrade_available 0; source ${scriptaddr}"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := ParseEnv([]byte(strings.Join(tt.variables, "\x00")))
			faults, notes := s.faults(e)
			for _, c := range []struct {
				got  []string
				want string
			}{{faults, tt.fault}, {notes, tt.note}} {
				if (len(c.got) > 0) != (c.want != "") || c.want != "" && !strings.Contains(c.got[0], c.want) {
					t.Errorf("got %q, want %q", c.got, c.want)
				}
			}
		})
	}
}

func TestCommandsOfAScript(t *testing.T) {
	var got [][]string
	commands(`a "b c"  'd;e' \; f\ g ${h};i&&j||{ k $l; }`+"\n(m)", func(words []string) {
		if len(words) > 0 {
			got = append(got, words)
		}
	})
	want := [][]string{{"a", "b c", "d;e", ";", "f g", "${h}"}, {"i"}, {"j"}, {"k", "$l"}, {"m"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzAltBootCmd follows scripts that mean nothing: each variable is followed once, and there is an
// end.
func FuzzAltBootCmd(f *testing.F) {
	f.Add([]byte(strings.Join(menderVariables(), "\x00")))
	f.Add([]byte("altbootcmd=run a\x00a=run b ${c}; setenv x 'y\x00b=run a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e := ParseEnv(data)
		got := follow(e, VarAltBootCmd)
		if len(got.runs) > maxFollowed+1 || len(slices.Compact(slices.Sorted(slices.Values(got.runs)))) != len(got.runs) {
			t.Errorf("followed %q", got.runs)
		}
		for _, name := range append(got.sets, got.deletes...) {
			for _, c := range []byte(name) {
				if bytes.IndexByte(data, c) < 0 {
					t.Errorf("%q is set, and stands nowhere", name)
				}
			}
		}
		s := bootCount{[]string{"part"}, nil}
		if faults, notes := s.faults(e); len(faults) > 0 && len(notes) > 0 {
			t.Errorf("%q, %q", faults, notes)
		}
	})
}
