package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/test/lab"
)

// TestRootFileSystemOfThisKernel starts the program with a root file system on partitions of loop
// devices, as the kernel mounts them: on the slot, on a clone of the disk, and below an overlay.
// The kernel command line alone is put in place.
func TestRootFileSystemOfThisKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
	needTools(t, "unshare", "mkfs.ext4")
	const mib = 1 << 20
	d, err := lab.New(t.TempDir(), 32*mib, mib, "detached")
	check(t, err)
	tree := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(tree, "fwu-ab"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %s", out)
	}
	command(t, "cp", "-a", d.Root+"/.", tree)
	for _, dir := range []string{"proc", "sys", "dev", "run", "lower", "upper"} {
		check(t, os.MkdirAll(filepath.Join(tree, dir), 0o755))
	}
	command(t, "fwu-ab", "key", "generate", filepath.Join(tree, "etc/fwu-ab/keys/release"))

	dev := loopOf(t, d.Disk)
	config := filepath.Join(tree, "etc/fwu-ab/fwu-ab.toml")
	text, err := os.ReadFile(config)
	check(t, err)
	check(t, os.WriteFile(config, []byte(strings.ReplaceAll(string(text), d.Disk, dev)), 0o644))
	parts, err := partition.Finder{Disk: dev}.Partitions(t.Context())
	check(t, err)
	slot, uuid := map[string]string{}, map[string]string{}
	for _, p := range parts {
		slot[p.Label], uuid[p.Label] = p.Path, p.UUID
	}
	const fsA, fsB = "0f3c0e1a-66f4-4f4b-9c67-aaaaaaaaaaaa", "0f3c0e1a-66f4-4f4b-9c67-bbbbbbbbbbbb"
	command(t, "mkfs.ext4", "-q", "-U", fsA, "-d", tree, slot["rootfs_a"])
	command(t, "mkfs.ext4", "-q", "-U", fsB, "-L", "system-b", "-d", tree, slot["rootfs_b"])
	command(t, "blockdev", "--flushbufs", dev)
	clone := filepath.Join(t.TempDir(), "clone.img")
	command(t, "cp", d.Disk, clone)
	cloned := loopOf(t, clone)
	squash := filepath.Join(t.TempDir(), "root.squashfs")
	needTools(t, "mksquashfs")
	command(t, "mksquashfs", tree, squash, "-quiet", "-no-progress")

	plain := func(device string) string { return "mount " + device + " $M" }
	overlay := func(device string) string {
		return "mount -t tmpfs tmpfs $M && mkdir -p $M/lower $M/upper $M/work $M/root && mount -o ro " + device + " $M/lower && " +
			"mount -t overlay overlay -o lowerdir=$M/lower,upperdir=$M/upper,workdir=$M/work $M/root && M=$M/root"
	}
	for name, tt := range map[string]struct{ mount, cmdline, says string }{
		"on the slot":                   {plain(slot["rootfs_b"]), "fwu.bank=b", "b: bank b, known from kernel command line, root device"},
		"on the slot, nothing said":     {plain(slot["rootfs_b"]), "quiet", "b: bank b, known from root device"},
		"on the other slot":             {plain(slot["rootfs_a"]), "fwu.bank=b", "contradicts itself"},
		"on a clone of the disk":        {plain(cloned + "p3"), "fwu.bank=b", "is no slot of either bank"},
		"on a clone, by its PARTUUID":   {plain(cloned + "p3"), "root=PARTUUID=" + uuid["rootfs_b"], "is no slot of either bank"},
		"overlay, root=UUID=":           {overlay(slot["rootfs_b"]), "root=UUID=" + fsB, "b: bank b, known from kernel command line"},
		"overlay, root=LABEL=":          {overlay(slot["rootfs_b"]), "root=LABEL=system-b", "b: bank b, known from kernel command line"},
		"overlay, root=PARTLABEL=":      {overlay(slot["rootfs_b"]), "root=PARTLABEL=rootfs_b", "b: bank b, known from kernel command line"},
		"overlay, root=PARTNROFF=":      {overlay(slot["rootfs_b"]), "root=PARTUUID=" + uuid["rootfs_a"] + "/PARTNROFF=1", "b: bank b, known from kernel command line"},
		"overlay, root=major:minor":     {overlay(slot["rootfs_b"]), "root=" + number(t, slot["rootfs_b"]), "b: bank b, known from kernel command line"},
		"overlay over a clone, a name":  {overlay(cloned + "p3"), "root=" + cloned + "p3 fwu.bank=b", "is no slot of either bank"},
		"squashfs in a file, on a slot": {"mount " + slot["rootfs_a"] + " $M && cp " + squash + " $M/root.squashfs && L=$(losetup --find --show -r $M/root.squashfs) && trap 'losetup -d $L' EXIT && mkdir -p $M/n && mount $L $M/n && M=$M/n", "quiet", "a: bank a, known from root device"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "root") // options of an overlay have no comma
			check(t, err)
			t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
			line := filepath.Join(t.TempDir(), "cmdline")
			check(t, os.WriteFile(line, []byte(tt.cmdline+"\n"), 0o644))
			script := fmt.Sprintf(`set -e
M=%s
%s
mount --rbind /proc $M/proc
mount --bind %s $M/proc/cmdline
mount --rbind /sys $M/sys
mount --rbind /dev $M/dev
chroot $M /fwu-ab doctor || true
`, dir, tt.mount, line)
			out := command(t, "unshare", "-m", "sh", "-c", script)
			i := strings.Index(out, "booted bank")
			if i < 0 {
				t.Fatalf("no word of the booted bank: %s", out)
			}
			said, _, _ := strings.Cut(out[i:], "\n")
			if !strings.Contains(said, tt.says) {
				t.Errorf("got %s\nwant %q", said, tt.says)
			}
		})
	}
}

// number is major:minor of a device.
func number(t *testing.T, node string) string {
	t.Helper()
	return strings.TrimSpace(command(t, "lsblk", "-n", "-d", "-o", "MAJ:MIN", node))
}
