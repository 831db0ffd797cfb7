// Package lab makes devices without hardware: a disk image with partitions, and a tree with the
// files of the kernel and of the root file system of a system that was booted from it. Machine is
// such a device with its power, and with the real program as its service. The lab
// (test/lab/fwu-lab), the demonstration and the tests of the command line use them.
package lab

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/fwu-ab/fwu-ab/partition/diskimage"
)

// EnvironmentSize is the size of a copy of the boot environment.
const EnvironmentSize = 64 << 10

// Device lies in a directory: disk.img and root/.
type Device struct {
	Disk    string
	Root    string
	Extents map[string]diskimage.Extent // of the partitions, by label
}

// New makes a device with two components, rootfs and bootfw, whose slots have the given sizes. rootfs takes manifests in the given mode, bootfw the other of
// bundled and detached. It was not provisioned, and not booted.
func New(dir string, rootfs, bootfw int64, mode string) (*Device, error) {
	d := &Device{Disk: filepath.Join(dir, "disk.img"), Root: filepath.Join(dir, "root"), Extents: map[string]diskimage.Extent{}}
	parts := []diskimage.Partition{
		{Name: "uboot-env", Size: 2 * EnvironmentSize}, {Name: "rootfs_a", Size: rootfs}, {Name: "rootfs_b", Size: rootfs},
		{Name: "bootfw_a", Size: bootfw}, {Name: "bootfw_b", Size: bootfw}, {Name: "fwu-store", Size: 1 << 20},
	}
	extents, err := diskimage.Create(d.Disk, diskimage.Layout{Partitions: parts})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(d.Disk, 0o600); err != nil { // whoever can read it could lock it
		return nil, err
	}
	for i, p := range parts {
		d.Extents[p.Name] = extents[i]
	}
	for _, sub := range []string{"run", "var/lock", "etc/fwu-ab/keys", "etc/fwu-ab/fwu-ab.toml.d"} {
		if err := os.MkdirAll(filepath.Join(d.Root, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := d.Write("usr/share/fwu-ab/default.env", "bootdelay=0\nfwu_iface=mmc\nfwu_disk=0\nfwu_part_a=2\nfwu_part_b=3\nbootcmd=run fwu_ab\n"); err != nil {
		return nil, err
	}
	other := map[string]string{"bundled": "detached", "detached": "bundled"}[mode]
	return d, d.Write("etc/fwu-ab/fwu-ab.toml", fmt.Sprintf(configuration, d.Disk, mode, other))
}

const configuration = `disk = %q

[store]
device = "PARTLABEL=fwu-store"

[selector]
type = "uboot"
[selector.uboot]
scheme = "one-shot"
copies = [
  {device = "PARTLABEL=uboot-env", offset = 0x0, size = 0x10000},
  {device = "PARTLABEL=uboot-env", offset = -65536, size = 0x10000},
]
default-environment = "/usr/share/fwu-ab/default.env"

[identity]
vendor-name = "example.com"
class-name = "demo board"

[trust]
keys = ["/etc/fwu-ab/keys"]

[component.rootfs]
id = 0
manifest = %q
slots = {a = "PARTLABEL=rootfs_a", b = "PARTLABEL=rootfs_b"}

[component.bootfw]
id = 1
manifest = %q
slots = {a = "PARTLABEL=bootfw_a", b = "PARTLABEL=bootfw_b"}
`

// Write makes a file of the tree.
func (d *Device) Write(name, content string) error {
	path := filepath.Join(d.Root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// bootID tells boots apart, for the service and for us.
const bootID = "proc/sys/kernel/random/boot_id"

// Booted makes the tree that of boot number n, with a kernel command line.
func (d *Device) Booted(n int, cmdline string) error {
	if err := d.Write("proc/cmdline", cmdline+"\n"); err != nil {
		return err
	}
	return d.Write(bootID, fmt.Sprintf("00000000-0000-4000-8000-%012d\n", n))
}

// Fill copies bytes to an offset of a partition, as a factory does, or a fault.
func (d *Device) Fill(partition string, off int64, b []byte) error {
	f, err := os.OpenFile(d.Disk, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, d.Extents[partition].Offset+off); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
