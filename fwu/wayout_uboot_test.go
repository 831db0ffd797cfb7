package fwu_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/bootctl/uboot/model"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
)

const (
	environmentSize = 8 << 10
	environmentText = "bootcmd=run distro_bootcmd\nbootdelay=0\nfwu_iface=mmc\nfwu_disk=0\nfwu_part_a=2\nfwu_part_b=3\naltbootcmd=run swap bootcmd\nboot_part=2\n"
)

// recorded is a selector of the kind that the photos have on record.
type recorded struct{ *uboot.Selector }

func (recorded) Kind() string { return (*fwutest.Selector)(nil).Kind() }

// withUBoot gives a board the environment of U-Boot in two files, and the boot script that reads
// it.
func (b *board) withUBoot(t *testing.T, scheme uboot.Scheme) (files []string) {
	t.Helper()
	dir := t.TempDir()
	env := uboot.Environment{Open: uboot.OpenMedium}
	for _, name := range []string{"env0", "env1"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, environmentSize), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
		env.Copies = append(env.Copies, uboot.Location{Path: path, Size: environmentSize})
	}
	builtin, err := uboot.ParseDefault([]byte(environmentText))
	if err != nil {
		t.Fatal(err)
	}
	var variables map[string][2]string
	if scheme == uboot.BootCount {
		variables = map[string][2]string{"boot_part": {"2", "3"}}
	}
	s, err := uboot.New(uboot.Config{Environment: env, Scheme: scheme, BankVariables: variables, Default: builtin, Locks: uboot.Locks{Root: dir}})
	if err != nil {
		t.Fatal(err)
	}
	b.Config.Selector = recorded{s}
	b.uboot = &model.Bootloader{Environment: env, Builtin: builtin, Scheme: scheme, BankVariables: variables}
	return files
}

// A handful of the combinations, with the selection in the files that U-Boot reads.
func TestNoStateIsADeadEndWithUBoot(t *testing.T) {
	onA, onB := fwu.Selection{Default: fwu.BankA}, fwu.Selection{Default: fwu.BankB}
	for name, tt := range map[string]struct {
		record  string
		sel     fwu.Selection
		lost    bool     // every boot variable
		hand    fwu.Bank // that somebody starts by hand, as the shipped script starts no other bank in place of the default
		dead    fwu.Bank // that lost its heads
		refuses fwu.Bank // that does not start, though its heads are whole
		want    []string // of what the client sees, in this order
	}{
		"all boot variables are lost after an update": {record: "UPDATED", lost: true,
			want: []string{"the service asks for a reboot", "bank b runs, default \"b\", armed \"\": [UPDATED UPDATED]"}},
		"all boot variables are lost, and the accepted bank is dead": {record: "UPDATED", lost: true, dead: fwu.BankB,
			want: []string{"bank a runs, default \"a\", armed \"\": [READY READY], queries only: []"}},
		"all boot variables are lost, and the accepted bank does not start": {record: "UPDATED", lost: true, refuses: fwu.BankB,
			want: []string{"the service asks for a reboot", "bank a runs, default \"a\", armed \"\": [READY READY], queries only: []"}},
		"a trial was reset, and all boot variables are lost": {record: "TRIAL in a", lost: true,
			want: []string{"the service asks for a reboot", "bank b runs, default \"b\", armed \"\": [FAILED FAILED], queries only: []"}},
		"the default bank is dead": {record: "READY in b", hand: fwu.BankB, sel: onA, dead: fwu.BankA,
			want: []string{"bank b runs, default \"b\", armed \"\": [READY READY], queries only: []"}},
		"the accepted bank is dead": {record: "UPDATED", hand: fwu.BankA, sel: onB, dead: fwu.BankB,
			want: []string{"bank a runs, default \"a\", armed \"\": [READY READY], queries only: []"}},
		"a trial was rejected, and the old bank is dead": {record: "REJECTED by a check", hand: fwu.BankB, sel: onA, dead: fwu.BankA,
			want: []string{"bank b runs, default \"b\", armed \"\": [FAILED FAILED], queries only: []"}},
		"a trial was reset, and the old bank is dead": {record: "TRIAL", hand: fwu.BankB, sel: onA, dead: fwu.BankA,
			want: []string{"bank b runs, default \"b\", armed \"\": [FAILED FAILED], queries only: []"}},
	} {
		all := records(t, tt.record)
		for _, scheme := range []uboot.Scheme{uboot.OneShot, uboot.BootOrder} {
			t.Run(name+", "+string(scheme), func(t *testing.T) {
				b, err := all[tt.record].develop(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				files := b.withUBoot(t, scheme)
				if tt.lost {
					for _, f := range files {
						if err := os.WriteFile(f, make([]byte, environmentSize), 0o600); err != nil {
							t.Fatal(err)
						}
					}
				} else if err := b.Config.Selector.Commit(tt.sel); err != nil {
					t.Fatal(err)
				}
				for _, member := range members() {
					if tt.dead != fwu.NoBank {
						if _, err := b.Slots[member+"_"+string(tt.dead)].WriteAt(make([]byte, fwu.HeadSize), 0); err != nil {
							t.Fatal(err)
						}
					}
				}
				b.loader.refuses = tt.refuses
				a := &agent{board: b}
				boot := fwu.Boot{ID: "by hand", Bank: tt.hand}
				if tt.hand == fwu.NoBank {
					out, err := b.uboot.Boot(b.startable)
					if err != nil {
						t.Fatal(err)
					}
					boot = fwu.Boot{ID: "first", Bank: out.Bank}
				}
				err = a.recover(boot)
				rest := strings.Join(a.steps, "\n")
				for _, w := range tt.want {
					_, after, found := strings.Cut(rest, w)
					if !found {
						t.Errorf("the client does not see %q", w)
					}
					rest = after
				}
				if err != nil || len(b.wrong) > 0 || t.Failed() {
					t.Errorf("%v, %v\n\t%s", err, b.wrong, strings.Join(a.steps, "\n\t"))
				}
			})
		}
	}
}
