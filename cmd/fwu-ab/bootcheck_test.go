package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/test/fault"
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

// TestTrialWithoutEvidence has neither a configuration nor a command line that can be read: it is
// not known whether the system is on trial, which is not "no".
func TestTrialWithoutEvidence(t *testing.T) {
	d, err := lab.New(t.TempDir(), 1<<20, 1<<20, "detached")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write("etc/fwu-ab/fwu-ab.toml.d/10-test.toml", "[selector\n"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(d.Root+"/proc/cmdline", 0o755); err != nil {
		t.Fatal(err)
	}
	b := newBootChecker(&globals{root: d.Root, bus: "unix:path=" + d.Root + "/none"}, slog.New(slog.DiscardHandler))
	if on, err := b.onTrial(t.Context()); on || !errors.Is(err, syscall.EISDIR) {
		t.Errorf("on trial: %v, %v; want that the command line cannot be read", on, err)
	}
}

// TestConfigurationThatCannotBeReadNow has a file of which the kernel returns EIO: it is read
// again, where a mistake in it is a verdict.
func TestConfigurationThatCannotBeReadNow(t *testing.T) {
	fault.NeedRoot(t)
	d, err := lab.New(t.TempDir(), 1<<20, 1<<20, "detached")
	if err != nil {
		t.Fatal(err)
	}
	const dropIn = "etc/fwu-ab/fwu-ab.toml.d/10-test.toml"
	if err := d.Write(dropIn, "[boot-check]\ndeadline = 900\n"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/proc/self/mem", filepath.Join(d.Root, dropIn), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	mounted := true
	unmount := func() {
		if mounted {
			mounted = unix.Unmount(filepath.Join(d.Root, dropIn), unix.MNT_DETACH) != nil
		}
	}
	defer unmount()
	b := newBootChecker(&globals{root: d.Root, bus: "unix:path=" + d.Root + "/none"}, slog.New(slog.DiscardHandler))
	if !errors.Is(b.broken, unix.EIO) || b.Hopeless {
		t.Fatalf("configuration: %v, hopeless: %v; want EIO, which may pass", b.broken, b.Hopeless)
	}
	b.SinceBoot = func() (time.Duration, error) { return 0, nil }
	tries := 0
	err = b.Configure(t.Context(), func() error {
		tries++
		err := b.load()
		unmount()
		return err
	})
	if err != nil || tries != 2 || b.broken != nil || b.Deadline != 15*time.Minute {
		t.Errorf("after %d tries: %v, deadline %v", tries, err, b.Deadline)
	}
	if err := d.Write(dropIn, "[selector\n"); err != nil {
		t.Fatal(err)
	}
	if err := b.Configure(t.Context(), b.load); err == nil || !b.Hopeless {
		t.Errorf("a mistake: %v, hopeless: %v", err, b.Hopeless)
	}
}
