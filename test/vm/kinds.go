package vm

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/fwu-ab/fwu-ab/partition/diskimage"
)

const (
	mib = 1 << 20
	// rootSize is that of a root file system: the Debian with fwu-ab and some room.
	rootSize = 120 * mib
)

// The parts of the configuration that all kinds have.
const commonConfig = `
[store]
device = "PARTLABEL=fwu-store"
[boot-check]
deadline = 240
[identity]
vendor-name = "example.com"
class-name = "virtual machine"
[trust]
keys = ["/etc/fwu-ab/keys"]
`

// UEFI is a PC with UEFI firmware (OVMF) and an NVMe disk. The bank's kernel is an EFI program in a FAT slot of the bank; an EFI system partition belongs to no bank, and its shell
// script is for a firmware that lost its variables.
func UEFI() Kind { return uefi("uefi", kernelArguments, cloudKernel) }

// Shown is the same with a console on which the service manager says what it does.
func Shown() Kind { return uefi("shown", kernelArguments+" systemd.show_status=1", cloudKernel) }

func cloudKernel(_ context.Context, w *Workshop) (Sources, error) {
	return Sources{"EFI/device/linux.efi": w.debian.Kernel}, nil
}

// Watchdog is the same with a hardware watchdog. Its kernel is Debian's generic one, which has the driver; an initrd beside it in the bank's slot has what that kernel needs to reach the root file system.
func Watchdog() Kind {
	k := uefi("watchdog", kernelArguments+withInitrd, genericKernel(plainRoot))
	k.Devices = []string{"-device", "i6300esb", "-action", "watchdog=reset"}
	return k
}

// Overlay is the same whose root is an overlay: the slot below, memory above.
func Overlay() Kind {
	return uefi("overlay", kernelArguments+withInitrd+" root=PARTLABEL=rootfs_{bank}", genericKernel(overlayRoot))
}

const withInitrd = ` initrd=\EFI\device\initrd.img`

func genericKernel(mount string) func(context.Context, *Workshop) (Sources, error) {
	return func(ctx context.Context, _ *Workshop) (Sources, error) {
		dir, err := MakeGeneric(ctx, mount)
		return Sources{"EFI/device/linux.efi": filepath.Join(dir, "vmlinuz"), "EFI/device/initrd.img": filepath.Join(dir, "initrd.img")}, err
	}
}

func uefi(name, arguments string, loader func(context.Context, *Workshop) (Sources, error)) Kind {
	return Kind{
		Name: name, Machine: "q35", SlotSize: rootSize, Loader: loader,
		Partitions: []diskimage.Partition{
			{Name: "esp", Size: 4 * mib, Type: diskimage.EFISystem},
			{Name: "boot_a", Size: 16 * mib}, {Name: "boot_b", Size: 16 * mib},
			{Name: "rootfs_a", Size: rootSize}, {Name: "rootfs_b", Size: rootSize},
			{Name: "app_a", Size: 4 * mib}, {Name: "app_b", Size: 4 * mib},
			{Name: "fwu-store", Size: 1 * mib},
		},
		Files: Files{
			"usr/lib/fwu-ab/fwu-ab.toml": commonConfig + `
[selector]
type = "efi"
[selector.efi]
path = '\EFI\device\linux.efi'
command-line = 'root=PARTUUID={partuuid:rootfs} fwu.bank={bank} ` + arguments + `'
[component.boot]
id = 0
slots = {a = "PARTLABEL=boot_a", b = "PARTLABEL=boot_b"}
[component.rootfs]
id = 1
slots = {a = "PARTLABEL=rootfs_a", b = "PARTLABEL=rootfs_b"}
` + appConfig,
			"usr/lib/systemd/system/app.service":                  appUnit,
			"usr/lib/systemd/system/multi-user.target.d/app.conf": appWanted,
		},
		Fill: func(ctx context.Context, w *Workshop, d *Disk) error {
			script := filepath.Join(w.dir, "startup.nsh")
			// Consistent names of the shell: the disk, and the partition as a letter.
			bank := func(b string) string { return strings.ReplaceAll(arguments, "{bank}", b) }
			text := "HD0c:\\EFI\\device\\linux.efi root=PARTLABEL=rootfs_a fwu.bank=a " + bank("a") + "\r\n" +
				"HD0d:\\EFI\\device\\linux.efi root=PARTLABEL=rootfs_b fwu.bank=b " + bank("b") + "\r\nreset\r\n"
			if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
				return err
			}
			esp := filepath.Join(w.dir, "esp.img")
			if err := MakeFAT(ctx, esp, w.size("esp"), Sources{"startup.nsh": script}); err != nil {
				return err
			}
			return d.Copy("esp", esp)
		},
		Forget: func(_ context.Context, _ *Disk, dir string) error { return os.Remove(filepath.Join(dir, "vars.fd")) },
		Firmware: func(_ context.Context, m *Machine) ([]string, error) {
			if _, err := os.Stat(m.variables()); os.IsNotExist(err) { // as it leaves the factory
				b, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
				if err != nil {
					return nil, err
				}
				if err := os.WriteFile(m.variables(), b, 0o644); err != nil {
					return nil, err
				}
			}
			flash, err := m.blockdev("flash1", m.variables())
			return []string{
				"-blockdev", "driver=raw,node-name=flash0,read-only=on,file.driver=file,file.filename=/usr/share/OVMF/OVMF_CODE_4M.fd",
				"-blockdev", flash, "-machine", "pflash0=flash0,pflash1=flash1",
			}, err
		},
	}
}

// variables is the file with the flash that the UEFI variables are in.
func (m *Machine) variables() string { return filepath.Join(m.Dir, "vars.fd") }

// kernelArguments are what both kinds start a kernel with. On a busy host an emulated timer can look broken to a kernel that tests it (no_timer_check).
const kernelArguments = "ro console=ttyS0 panic=5 quiet no_timer_check"

const appConfig = `
[component.app]
id = 16
kind = "live"
slots = {a = "PARTLABEL=app_a", b = "PARTLABEL=app_b"}
unit = "app.service"
`

// appUnit shows what the live component holds.
const appUnit = `[Unit]
After=fwu-ab.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'head -c 16 /run/fwu-ab/slots/app > /run/app-version'
`

const appWanted = "[Unit]\nWants=app.service\n"
