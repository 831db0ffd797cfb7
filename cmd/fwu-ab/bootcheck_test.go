package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/test/lab"
)

// A new image whose configuration is of no use could be neither accepted nor rejected: nothing knew that it was on trial.
func TestTrialOfASystemWhoseConfigurationIsOfNoUse(t *testing.T) {
	const ours = "root=PARTLABEL=rootfs_b fwu.bank=b ro"
	for name, c := range map[string]struct {
		config, cmdline string
		on              bool
	}{
		"no TOML, started by the script on trial":           {"[selector\n", ours + " fwu.trial quiet", true},
		"no TOML, started by the script":                    {"[selector\n", ours, false},
		"no TOML, another parameter":                        {"[selector\n", ours + " fwu.trials fwu.trial=0", false},
		"a slot that is not there, started on trial":        {"[component.rootfs]\nslots = {a = \"PARTLABEL=rootfs_a\", b = \"PARTLABEL=rotfs_b\"}\n", ours + " fwu.trial", false}, // its component is read-only, and the rest is of use
		"a slot that is not there":                          {"[component.rootfs]\nslots = {a = \"PARTLABEL=rootfs_a\", b = \"PARTLABEL=rotfs_b\"}\n", ours, false},
		"an environment that is not there, on trial":        {"[selector.uboot]\ncopies = [{device = \"/dev/nothing\", offset = 0, size = 0x10000}, {device = \"/dev/nothing\", offset = 0x10000, size = 0x10000}]\n", ours + " fwu.trial", true},
		"good, the parameter is a left-over of an old boot": {"", ours + " fwu.trial", false},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := lab.New(t.TempDir(), 1<<20, 1<<20, "detached")
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Write("etc/fwu-ab/keys/README", ""); err != nil {
				t.Fatal(err)
			}
			if _, err := generateKey(suit.Ed25519, d.Root+"/release.key", d.Root+"/etc/fwu-ab/keys/release.pub"); err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{
				d.Write("usr/lib/fwu-ab/release", "[rootfs]\nversion = \"1.0.0\"\nsequence = 1\n"),
				provision(t.Context(), d.Root, "", "b", nil, false),
				d.Write("etc/fwu-ab/fwu-ab.toml.d/10-test.toml", c.config), d.Booted(1, c.cmdline),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			b := newBootChecker(&globals{root: d.Root, bus: "unix:path=" + d.Root + "/none"}, slog.New(slog.DiscardHandler))
			on, err := b.On(t.Context()) // there is no service
			if on != c.on {
				t.Errorf("on trial: %v, %v", on, err)
			}
			if c.config != "" && !on && err == nil && !strings.HasPrefix(name, "a slot that is not there") {
				t.Error("that it is not known is no error")
			}
			if errors.Is(err, errNoEvidence) && c.config == "" {
				t.Error(err)
			}
		})
	}
}
