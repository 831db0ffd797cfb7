package uboot

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
)

const a, b, none = fwu.BankA, fwu.BankB, fwu.NoBank

func mender() map[string][2]string {
	return map[string][2]string{"mender_boot_part": {"2", "10"}, "mender_boot_part_hex": {"2", "a"}}
}

// of makes s a selector of another scheme on the same medium.
func (s *Selector) of(t *testing.T, scheme Scheme) *Selector {
	t.Helper()
	c := s.config
	c.Scheme = scheme
	if scheme == BootCount {
		c.BankVariables = mender()
	}
	return mustNew(t, c)
}

func TestBootOrderRead(t *testing.T) {
	for name, tt := range map[string]struct {
		variables []string
		want      fwu.Selection
		notes     int
	}{
		"default":                  {[]string{"BOOT_ORDER=A", "BOOT_A_LEFT=3", "BOOT_B_LEFT=0"}, fwu.Selection{Default: a}, 0},
		"default, after boots":     {[]string{"BOOT_ORDER=B", "BOOT_A_LEFT=0", "BOOT_B_LEFT=1"}, fwu.Selection{Default: b}, 0},
		"default, no attempt left": {[]string{"BOOT_ORDER=B", "BOOT_A_LEFT=0", "BOOT_B_LEFT=0"}, fwu.Selection{Default: b}, 0},
		"default, counters filled up by the bootloader": {[]string{"BOOT_ORDER=B", "BOOT_A_LEFT=3", "BOOT_B_LEFT=3"}, fwu.Selection{Default: b}, 0},
		"armed":                    {[]string{"BOOT_ORDER=B A A", "BOOT_A_LEFT=3", "BOOT_B_LEFT=1"}, fwu.Selection{Default: a, Trial: b}, 0},
		"trial started":            {[]string{"BOOT_ORDER=B A A", "BOOT_A_LEFT=3", "BOOT_B_LEFT=0"}, fwu.Selection{Default: a}, 0},
		"back in the default bank": {[]string{"BOOT_ORDER=B A A", "BOOT_A_LEFT=2", "BOOT_B_LEFT=0"}, fwu.Selection{Default: a}, 0},
		"back, no attempt left":    {[]string{"BOOT_ORDER=B A A", "BOOT_A_LEFT=0", "BOOT_B_LEFT=0"}, fwu.Selection{Default: a}, 0},
		"back, counters filled up by the bootloader":   {[]string{"BOOT_ORDER=B A A", "BOOT_A_LEFT=3", "BOOT_B_LEFT=3"}, fwu.Selection{Default: a, Trial: b}, 0},
		"armed beside a rescue system":                 {[]string{"BOOT_ORDER=A B B R", "BOOT_A_LEFT=1", "BOOT_B_LEFT=3", "BOOT_R_LEFT=3"}, fwu.Selection{Default: b, Trial: a}, 0},
		"factory: nothing set":                         {[]string{"bootcmd=x"}, fwu.Selection{}, 1},
		"factory: first boot":                          {[]string{"BOOT_ORDER=A B", "BOOT_A_LEFT=2", "BOOT_B_LEFT=3"}, fwu.Selection{}, 1},
		"factory: one attempt left, which is no trial": {[]string{"BOOT_ORDER=A B", "BOOT_A_LEFT=1", "BOOT_B_LEFT=3"}, fwu.Selection{}, 1},
		"another updater: fallback runs":               {[]string{"BOOT_ORDER=A B", "BOOT_A_LEFT=0", "BOOT_B_LEFT=2"}, fwu.Selection{}, 1},
		"another updater: fallback runs, last attempt": {[]string{"BOOT_ORDER=A B", "BOOT_A_LEFT=0", "BOOT_B_LEFT=0"}, fwu.Selection{}, 1},
		"another updater: a marked bad":                {[]string{"BOOT_ORDER=B", "BOOT_A_LEFT=0"}, fwu.Selection{Default: b}, 0},
		"another updater: trial of ours made primary":  {[]string{"BOOT_ORDER=A B", "BOOT_A_LEFT=3", "BOOT_B_LEFT=1"}, fwu.Selection{}, 1},
		"another updater: trial of ours marked bad":    {[]string{"BOOT_ORDER=A A", "BOOT_A_LEFT=3", "BOOT_B_LEFT=0"}, fwu.Selection{Default: a}, 0},
		"order of nothing that we know":                {[]string{"BOOT_ORDER=R system0 a", "BOOT_A_LEFT=3"}, fwu.Selection{}, 1},
		"a counter that is no number":                  {[]string{"BOOT_ORDER=B A A", "BOOT_A_LEFT=3", "BOOT_B_LEFT=x"}, fwu.Selection{Default: a}, 0},
		"a counter that is hexadecimal":                {[]string{"BOOT_ORDER=B A A", "BOOT_A_LEFT=3", "BOOT_B_LEFT=00f"}, fwu.Selection{Default: a, Trial: b}, 0},
		"a counter that is missing":                    {[]string{"BOOT_ORDER=B A A", "BOOT_A_LEFT=3"}, fwu.Selection{Default: a, Trial: b}, 0},
		"blanks, as people write them":                 {[]string{"BOOT_ORDER= B  A A ", "BOOT_A_LEFT=3", "BOOT_B_LEFT=1"}, fwu.Selection{Default: a, Trial: b}, 0},
		"both twice is of nobody":                      {[]string{"BOOT_ORDER=B A A B", "BOOT_A_LEFT=3", "BOOT_B_LEFT=1"}, fwu.Selection{}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, notes := bootOrder{BankNames()}.read(ParseEnv([]byte(strings.Join(tt.variables, "\x00"))))
			if got != tt.want || len(notes) != tt.notes {
				t.Errorf("%+v, want %+v, %q", got, tt.want, notes)
			}
		})
	}
}

// TestBootOrderOfOthers lists names that are not ours: our names would start nothing.
func TestBootOrderOfOthers(t *testing.T) {
	for name, tt := range map[string]struct {
		order string
		names [2]string
		ok    bool
	}{
		"other names, not configured":      {"system1 system0 rescue", [2]string{}, false},
		"small letters, not configured":    {"a b", [2]string{}, false},
		"a rescue system alone":            {"R", [2]string{}, false},
		"other names, configured":          {"system1 system0 rescue", [2]string{"system0", "system1"}, true},
		"numbers":                          {"1 2", [2]string{"1", "2"}, true},
		"a dot in the name":                {"rootfs.0 rootfs.1", [2]string{"rootfs.0", "rootfs.1"}, true},
		"small letters, configured":        {"a b", [2]string{"a", "b"}, true},
		"the other way round":              {"A B", [2]string{"B", "A"}, true},
		"capital letters, small ones said": {"A B", [2]string{"a", "b"}, false},
		"not set at all":                   {"", [2]string{"system0", "system1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, d := onDisk(t, image(1, 0, board, "BOOT_ORDER="+tt.order), image(0, 0))
			c := s.config
			c.Scheme, c.Names = BootOrder, tt.names
			s = mustNew(t, c)
			_, readErr := s.Read()
			err := s.Commit(fwu.Selection{Default: a, Trial: b})
			if (err == nil) != tt.ok || (readErr == nil) != tt.ok {
				t.Fatalf("read: %v, commit: %v", readErr, err)
			}
			if !tt.ok {
				if d.writes() != 0 || !strings.Contains(err.Error(), "selector.uboot.names") {
					t.Errorf("%v, %d writes", err, d.writes())
				}
				return
			}
			if sel, err := s.Read(); err != nil || sel != (fwu.Selection{Default: a, Trial: b}) {
				t.Error(sel, err)
			}
			env, n := ours(t, s), tt.names
			want := []string{"BOOT_" + n[0] + "_LEFT=3", "BOOT_" + n[1] + "_LEFT=1"}
			for _, w := range want {
				if !slices.Contains(env, w) {
					t.Errorf("%s is missing in %q", w, env)
				}
			}
			order, _ := find(env, VarOrder)
			if !strings.HasPrefix(order, n[1]+" "+n[0]+" "+n[0]) || strings.Contains(tt.order, "rescue") != strings.HasSuffix(order, " rescue") {
				t.Errorf("%s=%s", VarOrder, order)
			}
		})
	}
	for _, names := range [][2]string{{"x", "x"}, {"", "b"}, {"a b", "c"}, {"a=", "b"}} {
		if _, err := New(Config{Environment: Environment{Copies: []Location{{"x", 0, 0x2000}}, SingleCopy: true, Open: OpenMedium}, Scheme: BootOrder, Names: names}); err == nil {
			t.Errorf("names %q are taken", names)
		}
	}
}

func TestBootCountRead(t *testing.T) {
	partA, partB := []string{"mender_boot_part=2", "mender_boot_part_hex=2"}, []string{"mender_boot_part=10", "mender_boot_part_hex=a"}
	for name, tt := range map[string]struct {
		part, variables []string
		want            fwu.Selection
		notes           int
	}{
		"default":                           {partA, []string{"upgrade_available=0", "bootcount=0", "bootlimit=1"}, fwu.Selection{Default: a}, 0},
		"default, a script saved the count": {partB, []string{"upgrade_available=0", "bootcount=1", "bootlimit=1"}, fwu.Selection{Default: b}, 0},
		"factory: bank variables alone":     {partA, nil, fwu.Selection{Default: a}, 0},
		"armed":                             {partB, []string{"upgrade_available=1", "bootcount=0", "bootlimit=1"}, fwu.Selection{Default: a, Trial: b}, 0},
		"trial started":                     {partB, []string{"upgrade_available=1", "bootcount=1", "bootlimit=1"}, fwu.Selection{Default: a}, 0},
		"counted again, altbootcmd cut before it saved":   {partB, []string{"upgrade_available=1", "bootcount=2", "bootlimit=1"}, fwu.Selection{Default: a}, 0},
		"fallen back by altbootcmd":                       {partA, []string{"upgrade_available=0", "bootcount=2", "bootlimit=1"}, fwu.Selection{Default: a}, 0},
		"accepted":                                        {partB, []string{"upgrade_available=0", "bootcount=0", "bootlimit=1"}, fwu.Selection{Default: b}, 0},
		"another updater: three boots, one of them taken": {partB, []string{"upgrade_available=1", "bootcount=1", "bootlimit=3"}, fwu.Selection{Default: a, Trial: b}, 0},
		"another updater: no limit, no fallback":          {partB, []string{"upgrade_available=1", "bootcount=7"}, fwu.Selection{Default: b}, 1},
		"the count was never saved":                       {partB, []string{"upgrade_available=1", "bootlimit=1"}, fwu.Selection{Default: a, Trial: b}, 0},
		"numbers as U-Boot reads them":                    {partB, []string{"upgrade_available=true", "bootcount=1x", "bootlimit=1"}, fwu.Selection{Default: b}, 0},
		"a count that no 32 bits hold":                    {partB, []string{"upgrade_available=1", "bootcount=99999999999999999999", "bootlimit=1"}, fwu.Selection{Default: a}, 0},
		"bank variables differ":                           {[]string{partA[0], partB[1]}, []string{"upgrade_available=0"}, fwu.Selection{}, 1},
		"a bank variable is missing":                      {partA[:1], []string{"upgrade_available=0"}, fwu.Selection{}, 1},
		"bank variables of a third bank":                  {[]string{"mender_boot_part=4", "mender_boot_part_hex=4"}, []string{"upgrade_available=1"}, fwu.Selection{}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := newBootCount(mender())
			if err != nil {
				t.Fatal(err)
			}
			got, notes := s.read(ParseEnv([]byte(strings.Join(slices.Concat(tt.part, tt.variables), "\x00"))))
			if got != tt.want || len(notes) != tt.notes {
				t.Errorf("%+v, want %+v, %q", got, tt.want, notes)
			}
		})
	}
}

// variables are what each scheme writes for a selection.
func variables(scheme Scheme, s fwu.Selection) []string {
	switch scheme {
	case BootOrder:
		return map[fwu.Selection][]string{
			{Default: a}:           {"BOOT_ORDER=A", "BOOT_A_LEFT=3", "BOOT_B_LEFT=0"},
			{Default: b}:           {"BOOT_ORDER=B", "BOOT_B_LEFT=3", "BOOT_A_LEFT=0"},
			{Default: a, Trial: b}: {"BOOT_ORDER=B A A", "BOOT_A_LEFT=3", "BOOT_B_LEFT=1"},
			{Default: b, Trial: a}: {"BOOT_ORDER=A B B", "BOOT_B_LEFT=3", "BOOT_A_LEFT=1"},
		}[s]
	case BootCount:
		return map[fwu.Selection][]string{
			{Default: a}:           {"mender_boot_part=2", "mender_boot_part_hex=2", "upgrade_available=0", "bootcount=0"},
			{Default: b}:           {"mender_boot_part=10", "mender_boot_part_hex=a", "upgrade_available=0", "bootcount=0"},
			{Default: a, Trial: b}: {"mender_boot_part=10", "mender_boot_part_hex=a", "upgrade_available=1", "bootcount=0", "bootlimit=1"},
			{Default: b, Trial: a}: {"mender_boot_part=2", "mender_boot_part_hex=2", "upgrade_available=1", "bootcount=0", "bootlimit=1"},
		}[s]
	}
	return map[fwu.Selection][]string{
		{Default: a}:           {"fwu_active=a"},
		{Default: b}:           {"fwu_active=b"},
		{Default: a, Trial: b}: {"fwu_active=a", "fwu_trial=b"},
		{Default: b, Trial: a}: {"fwu_active=b", "fwu_trial=a"},
	}[s]
}

func schemes() []Scheme { return []Scheme{OneShot, BootOrder, BootCount} }

func selections() []fwu.Selection {
	return []fwu.Selection{{Default: a}, {Default: b}, {Default: a, Trial: b}, {Default: b, Trial: a}}
}

// board is what an environment's environment holds beside the selection.
const board = "altbootcmd=run swap; run bootcmd"

func TestCommitSetsAllVariablesOfAScheme(t *testing.T) {
	befores := map[string][]string{"nothing set": nil}
	for _, scheme := range schemes() {
		for _, from := range selections() {
			befores[fmt.Sprint(scheme, from)] = variables(scheme, from)
		}
	}
	befores["after boots"] = []string{"BOOT_ORDER=A B", "BOOT_A_LEFT=1", "BOOT_B_LEFT=0", "upgrade_available=0", "bootcount=1", "bootlimit=5", "mender_boot_part=7"}
	for name, before := range befores {
		for _, scheme := range schemes() {
			for _, to := range selections() {
				t.Run(fmt.Sprintf("%s, %s %v", name, scheme, to), func(t *testing.T) {
					s, d := onDisk(t, image(1, 0, append([]string{board}, before...)...), image(0, 0))
					s = s.of(t, scheme)
					if err := s.Commit(to); err != nil {
						t.Fatal(err)
					}
					if got, err := s.Read(); err != nil || got != to {
						t.Errorf("%+v, %v", got, err)
					}
					env := ours(t, s)
					for _, v := range append(variables(scheme, to), board) {
						if !slices.Contains(env, v) {
							t.Errorf("%s is missing in %q", v, env)
						}
					}
					if _, set := find(env, VarTrial); scheme == OneShot && set && to.Trial == none {
						t.Error("the trial was not deleted")
					}
					d.log = nil
					if err := s.Commit(to); err != nil || d.writes() != 0 {
						t.Errorf("committing what is there: %v, %d writes", err, d.writes())
					}
				})
			}
		}
	}
}

func find(entries []string, name string) (string, bool) {
	for _, e := range entries {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// TestCutOfEveryCommit cuts every commit between any two selections.
func TestCutOfEveryCommit(t *testing.T) {
	for _, scheme := range []Scheme{BootOrder, BootCount} {
		for _, from := range selections() {
			for _, to := range selections() {
				if from == to {
					continue
				}
				t.Run(fmt.Sprintf("%s, %v, %v", scheme, from, to), func(t *testing.T) {
					t.Parallel()
					s, d := onDisk(t, image(7, 0, around(append([]string{board}, variables(scheme, from)...)...)...), image(6, 0, "stale=1"))
					s = s.of(t, scheme)
					before := bytes.Clone(d.content)
					if err := s.Commit(to); err != nil {
						t.Fatal(err)
					}
					torn(before, d.log, subsets, func(what string, content []byte) {
						d.content = content
						if got, err := s.Read(); err != nil || got != from && got != to {
							t.Errorf("%s: %+v, %v", what, got, err)
						}
					})
				})
			}
		}
	}
}

func TestToolsReadEveryScheme(t *testing.T) {
	for _, scheme := range schemes() {
		s, _ := onFile(t, image(1, 0, board), image(0, 0))
		s = s.of(t, scheme)
		x := toolsFor(t, s.config.Copies)
		for _, to := range selections() {
			if err := s.Commit(to); err != nil {
				t.Fatal(err)
			}
			got := x.print(t)
			if diff := cmp.Diff(ours(t, s), got); diff != "" {
				t.Error(diff)
			}
			for _, v := range variables(scheme, to) {
				if !slices.Contains(got, v) {
					t.Errorf("%s %v: %s is missing in %q", scheme, to, v, got)
				}
			}
		}
	}
}

func TestBootOrderKeepsWhatIsNotOurs(t *testing.T) {
	s, _ := onDisk(t, image(1, 0, "BOOT_ORDER=R A B F", "BOOT_R_LEFT=2"), image(0, 0))
	s = s.of(t, BootOrder)
	for sel, want := range map[fwu.Selection]string{{Default: a}: "A R F", {Default: b, Trial: a}: "A B B R F"} {
		if err := s.Commit(sel); err != nil {
			t.Fatal(err)
		}
		env := ours(t, s)
		if order, _ := find(env, VarOrder); order != want || !slices.Contains(env, "BOOT_R_LEFT=2") {
			t.Errorf("%q, want the order %q", env, want)
		}
	}
}

func TestSchemesRefuseWhatTheyCannotSay(t *testing.T) {
	for _, scheme := range []Scheme{BootOrder, BootCount} {
		s, d := onDisk(t, image(1, 0, board), image(0, 0))
		s = s.of(t, scheme)
		if err := s.Commit(fwu.Selection{Default: a, Trial: a}); err == nil || d.writes() != 0 {
			t.Errorf("%s: a trial of the default bank: %v, %d writes", scheme, err, d.writes())
		}
	}
	s, d := onDisk(t, image(1, 0, "bootcmd=x"), image(0, 0))
	s = s.of(t, BootCount)
	if err := s.Commit(fwu.Selection{Default: a, Trial: b}); err == nil || d.writes() != 0 || !strings.Contains(err.Error(), "altbootcmd") {
		t.Errorf("a trial without altbootcmd: %v, %d writes", err, d.writes())
	}
	if err := s.Commit(fwu.Selection{Default: a}); err != nil {
		t.Errorf("no trial, no altbootcmd: %v", err)
	}
}

func TestBankVariablesThatAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		scheme Scheme
		banks  map[string][2]string
	}{
		"none":                      {BootCount, nil},
		"the same for both":         {BootCount, map[string][2]string{"part": {"2", "2"}}},
		"one of two the same":       {BootCount, map[string][2]string{"part": {"2", "3"}, "disk": {"0", "0"}}},
		"no value for b":            {BootCount, map[string][2]string{"part": {"2", ""}}},
		"the counter":               {BootCount, map[string][2]string{"bootcount": {"2", "3"}}},
		"a name that is none":       {BootCount, map[string][2]string{"boot part": {"2", "3"}}},
		"a value that is none":      {BootCount, map[string][2]string{"part": {"2", "3\x00x=1"}}},
		"of a scheme without":       {BootOrder, map[string][2]string{"part": {"2", "3"}}},
		"of the scheme of our own":  {OneShot, map[string][2]string{"part": {"2", "3"}}},
		"of a scheme that is none":  {"", nil},
		"of a scheme with a typo":   {"boot_order", nil},
		"of a scheme in upper case": {"BOOTCOUNT", map[string][2]string{"part": {"2", "3"}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := Config{Scheme: tt.scheme, BankVariables: tt.banks}
			c.Open, c.Copies, c.SingleCopy = OpenMedium, []Location{{Path: "x", Size: testSize}}, true
			if _, err := New(c); err == nil {
				t.Error("taken")
			}
		})
	}
}
