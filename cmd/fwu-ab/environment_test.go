package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/test/lab"
)

// loopOf attaches a disk image with nodes for its partitions.
func loopOf(t *testing.T, file string) string {
	t.Helper()
	needTools(t, "losetup", "partx")
	out, err := exec.Command("losetup", "--find", "--show", "--partscan", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %s", out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { command(t, "losetup", "--detach", dev) })
	if out, err := exec.Command("partx", "--update", dev).CombinedOutput(); err != nil {
		t.Logf("partx: %s", out)
	}
	t.Cleanup(func() { exec.Command("partx", "--delete", dev).Run() })
	return dev
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

func mounted(t *testing.T, device string) string {
	t.Helper()
	dir := t.TempDir()
	command(t, "mount", device, dir)
	t.Cleanup(func() { command(t, "umount", dir) })
	return dir
}

// environmentIn is a device on a loop device whose copies of the environment are elsewhere, in
// fw_env.config.
func environmentIn(t *testing.T, dev string, d *lab.Device, config string) *machine {
	t.Helper()
	check(t, d.Write("etc/fw_env.config", config))
	text, err := os.ReadFile(filepath.Join(d.Root, "etc/fwu-ab/fwu-ab.toml"))
	check(t, err)
	before, rest, _ := strings.Cut(string(text), "copies = [")
	_, after, _ := strings.Cut(rest, "]\n")
	single := ""
	if strings.Count(config, "\n") == 1 {
		single = "single-copy = true\n"
	}
	content := strings.Replace(before+"env-config = \"/etc/fw_env.config\"\n"+single+after, d.Disk, dev, 1)
	check(t, d.Write("etc/fwu-ab/fwu-ab.toml", content))
	m, err := loadMachine(d.Root)
	check(t, err)
	return m
}

// TestEnvironmentWhereItMustNotBe has places of the boot environment that are somebody else's. Each
// is refused, and no byte of the disk changes.
func TestEnvironmentWhereItMustNotBe(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
	needTools(t, "mkfs.ext4")
	const mib = 1 << 20
	for name, tt := range map[string]struct {
		mount  bool
		config func(dev, mnt string, x map[string]int64) string
		says   string
	}{
		"in the GUID partition table": {false, func(dev, _ string, _ map[string]int64) string { return fmt.Sprintf("%s 0x2000 0x2000\n", dev) },
			"partition table"},
		"the header of the table": {false, func(dev, _ string, _ map[string]int64) string { return fmt.Sprintf("%s 0x400 0x2000\n", dev) },
			"partition table"},
		"the backup of the table": {false, func(dev, _ string, _ map[string]int64) string { return fmt.Sprintf("%s -0x4000 0x2000\n", dev) },
			"partition table"},
		"the second copy in the table": {false, func(dev, _ string, x map[string]int64) string {
			return fmt.Sprintf("%s %#x 0x2000\n%s 0x2000 0x2000\n", dev, x["uboot-env"], dev)
		}, "partition table"},
		"in a file system": {false, func(dev, _ string, x map[string]int64) string {
			return fmt.Sprintf("%s %#x 0x2000\n", dev, x["bootfw_a"]+15*mib)
		}, "overlap"},
		"in a file system that is no slot": {false, func(dev, _ string, x map[string]int64) string {
			return fmt.Sprintf("%s %#x 0x2000\n", dev, x["data"]+0xc0000)
		}, "begins with a file system"},
		"in a mounted file system": {true, func(dev, _ string, x map[string]int64) string {
			return fmt.Sprintf("%s %#x 0x2000\n", dev, x["data"]+0xc0000)
		}, "mounted on"},
		"a file in the running bank": {true, func(_, mnt string, _ map[string]int64) string { return fmt.Sprintf("%s/uboot.env 0x0 0x2000\n", mnt) },
			"lies in slot a of rootfs"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := lab.New(t.TempDir(), 16*mib, 16*mib, "detached")
			check(t, err)
			check(t, d.Booted(0, "fwu.bank=a"))
			x := map[string]int64{}
			for label, e := range d.Extents {
				x[label] = e.Offset
			}
			x["data"] = x["fwu-store"]
			dev := loopOf(t, d.Disk)
			parts, err := partition.Finder{Disk: dev}.Partitions(t.Context())
			check(t, err)
			node := map[string]string{}
			for _, p := range parts {
				node[p.Label] = p.Path
			}
			command(t, "mkfs.ext4", "-q", "-b", "1024", node["fwu-store"]) // it stands for a partition that the configuration does not name
			command(t, "mkfs.ext4", "-q", node["rootfs_a"])
			mnt := ""
			if tt.mount {
				mounted(t, node["fwu-store"])
				mnt = mounted(t, node["rootfs_a"])
				check(t, os.WriteFile(filepath.Join(mnt, "uboot.env"), make([]byte, 0x2000), 0o600))
				command(t, "sync", "-f", mnt)
			}
			m := environmentIn(t, dev, d, tt.config(dev, mnt, x))
			store := filepath.Join(t.TempDir(), "store")
			check(t, os.WriteFile(store, make([]byte, fwu.StoreSize), 0o600))
			m.cfg.Store.Device = store
			before, err := os.ReadFile(dev)
			check(t, err)

			err = m.distinct(t.Context())
			if err == nil {
				s, selErr := m.selector(t.Context())
				check(t, selErr)
				if err = s.Commit(fwu.Selection{Default: fwu.BankA}); err == nil {
					t.Error("it was written")
				}
				if _, readErr := s.Read(); readErr == nil {
					t.Error("it was read")
				}
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			after, err := os.ReadFile(dev)
			check(t, err)
			if !bytes.Equal(before, after) {
				t.Error("the disk was written to")
			}
		})
	}
}
