package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fwu-ab/fwu-ab/partition/diskimage"
)

// ubootEnvironment is the default environment of the machine with U-Boot: that of the script, with the addresses and places of this board.
const ubootEnvironment = `kernel_addr_r=0x4000000
scriptaddr=0x3000000
bootdelay=-2
fwu_iface=nvme
fwu_disk=0
fwu_part_boot=1
fwu_part_a=2
fwu_part_b=3
fwu_kernel=/boot/vmlinuz
fwu_fdt=-
fwu_bootargs=` + kernelArguments + `
fwu_start=zboot ${kernel_addr_r} ${filesize}
preboot=nvme scan; env load
bootcmd=if load ${fwu_iface} ${fwu_disk}:${fwu_part_boot} ${scriptaddr} /boot.scr; then source ${scriptaddr}; fi; sleep 5; reset
`

// ubootSize is the size of a copy of the environment.
const ubootSize = 0x4000

// ubootConfig is what the board changes of qemu-x86_defconfig: the environment has two copies, in files on the first partition. It can be read only once the disk was found, hence preboot.
const ubootConfig = `# CONFIG_ENV_IS_NOWHERE is not set
CONFIG_ENV_IS_IN_FAT=y
CONFIG_SYS_REDUNDAND_ENVIRONMENT=y
CONFIG_ENV_FAT_INTERFACE="nvme"
CONFIG_ENV_FAT_DEVICE_AND_PART="0:1"
CONFIG_ENV_FAT_FILE="uboot.env"
CONFIG_ENV_FAT_FILE_REDUND="uboot-redund.env"
CONFIG_ENV_SIZE=0x4000
CONFIG_BOOTCOUNT_LIMIT=y
CONFIG_BOOTCOUNT_ENV=y
CONFIG_CMD_NVEDIT_LOAD=y
CONFIG_USE_PREBOOT=y
CONFIG_USE_DEFAULT_ENV_FILE=y
CONFIG_DEFAULT_ENV_FILE="default.env"
CONFIG_BOOTDELAY=-2
CONFIG_FAT_WRITE=y
# CONFIG_USE_BOOTARGS is not set
# CONFIG_BOOTSTAGE is not set
# CONFIG_VIDEO is not set
# CONFIG_EFI_LOADER is not set
# CONFIG_CMD_BOOTEFI_SELFTEST is not set
# CONFIG_USB is not set
`

// MakeUBoot builds U-Boot for QEMU's PC from Debian's source package, or finds it in the cache, and returns the path of the ROM.
func MakeUBoot(ctx context.Context) (string, error) {
	source, err := UBootSource(ctx)
	if err != nil {
		return "", err
	}
	dir, err := cached(ctx, "uboot-rom", ubootConfig+ubootEnvironment+filepath.Base(source), func(ctx context.Context, dir string) error {
		tree := filepath.Join(dir, "tree")
		prepare := func() error { return put(tree, Files{"default.env": ubootEnvironment}) }
		if err := buildUBoot(ctx, source, tree, "qemu-x86_defconfig", ubootConfig, prepare, "CROSS_COMPILE=i686-linux-gnu-"); err != nil {
			return err
		}
		return errors.Join(os.Rename(filepath.Join(tree, "u-boot.rom"), filepath.Join(dir, "u-boot.rom")), os.RemoveAll(tree))
	})
	if err != nil {
		return "", fmt.Errorf("build U-Boot for QEMU: %w", err)
	}
	return filepath.Join(dir, "u-boot.rom"), nil
}

// buildUBoot builds a copy of the source in tree, with a configuration that is changed. Prepare changes files of the copy; args are make's.
func buildUBoot(ctx context.Context, source, tree, defconfig, changes string, prepare func() error, args ...string) error {
	if err := run(ctx, "cp", "-a", source, tree); err != nil {
		return err
	}
	if err := prepare(); err != nil {
		return err
	}
	build := func(target ...string) error {
		return run(ctx, "make", append([]string{"-s", "-C", tree, "-j2", args[0]}, target...)...)
	}
	if err := build(defconfig); err != nil {
		return err
	}
	config := filepath.Join(tree, ".config")
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	if err := put(tree, Files{".config": string(text) + changes}); err != nil {
		return err
	}
	if err := build("olddefconfig"); err != nil {
		return err
	}
	if err := kept(config, changes); err != nil {
		return err
	}
	return build(args[1:]...)
}

// kept makes sure that a configuration took what was asked for.
func kept(config, want string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	for line := range strings.Lines(want) {
		on := strings.HasPrefix(line, "CONFIG_") && !strings.Contains("\n"+string(text), "\n"+line)
		name, isOff := strings.CutPrefix(strings.TrimSuffix(line, " is not set\n"), "# ")
		if off := isOff && strings.Contains("\n"+string(text), "\n"+name+"="); on || off {
			return fmt.Errorf("U-Boot's configuration does not take %s", strings.TrimSpace(line))
		}
	}
	return nil
}

// UBootSource is Debian's U-Boot, unpacked and with Debian's patches; not to be written to.
func UBootSource(ctx context.Context) (string, error) {
	dir, err := cached(ctx, "uboot-source", release(), func(ctx context.Context, dir string) error {
		apt, err := privateLists(dir, true)
		if err != nil {
			return err
		}
		if err := run(ctx, "apt-get", append(apt, "update")...); err != nil {
			return err
		}
		// apt-get source unpacks into the working directory.
		fetch := `cd "$1" && shift && apt-get "$@" source u-boot && mv u-boot-*/ source`
		return run(ctx, "sh", append([]string{"-ec", fetch, "sh", dir}, apt...)...)
	})
	if err != nil {
		return "", fmt.Errorf("fetch the source of U-Boot: %w", err)
	}
	return filepath.Join(dir, "source"), nil
}

// UBoot is a PC with U-Boot and an NVMe disk. The bank's kernel lies in the bank's root file system; the first partition has the two copies of the environment and the boot script.
func UBoot() Kind {
	return Kind{
		Name: "uboot", Machine: "pc", SlotSize: rootSize,
		Partitions: []diskimage.Partition{
			{Name: "ubootenv", Size: 4 * mib},
			{Name: "rootfs_a", Size: rootSize}, {Name: "rootfs_b", Size: rootSize},
			{Name: "app_a", Size: 4 * mib}, {Name: "app_b", Size: 4 * mib},
			{Name: "fwu-store", Size: 1 * mib},
		},
		Files: Files{
			"usr/lib/fwu-ab/fwu-ab.toml": commonConfig + `
[selector]
type = "uboot"
[selector.uboot]
scheme = "one-shot"
env-config = "/etc/fw_env.config"
default-environment = "/usr/share/fwu-ab/default.env"
[component.rootfs]
id = 0
slots = {a = "PARTLABEL=rootfs_a", b = "PARTLABEL=rootfs_b"}
` + appConfig,
			"etc/fw_env.config":                                   fmt.Sprintf("/boot/env/uboot.env 0x0 %#x\n/boot/env/uboot-redund.env 0x0 %#x\n", ubootSize, ubootSize),
			"etc/fstab":                                           tmpfs + "/dev/disk/by-partlabel/ubootenv /boot/env vfat rw 0 0\n",
			"boot/env/.mounted":                                   "",
			"usr/share/fwu-ab/default.env":                        ubootEnvironment,
			"usr/lib/systemd/system/app.service":                  appUnit,
			"usr/lib/systemd/system/multi-user.target.d/app.conf": appWanted,
		},
		Fill: func(ctx context.Context, w *Workshop, d *Disk) error {
			script, text, env := filepath.Join(w.dir, "boot.scr"), filepath.Join(w.dir, "default.env"), filepath.Join(w.dir, "uboot.env")
			if err := run(ctx, "mkimage", "-A", "x86", "-T", "script", "-C", "none", "-d", filepath.Join(w.tree, "usr/share/fwu-ab/uboot/fwu-ab.cmd"), script); err != nil {
				return err
			}
			if err := os.WriteFile(text, []byte(ubootEnvironment), 0o644); err != nil {
				return err
			}
			if err := run(ctx, "mkenvimage", "-r", "-s", fmt.Sprint(ubootSize), "-o", env, text); err != nil {
				return err
			}
			fat := filepath.Join(w.dir, "env.img")
			if err := MakeFAT(ctx, fat, w.size("ubootenv"), Sources{"boot.scr": script, "uboot.env": env, "uboot-redund.env": env}); err != nil {
				return err
			}
			return d.Copy("ubootenv", fat)
		},
		Forget: func(ctx context.Context, d *Disk, dir string) error {
			nothing := filepath.Join(dir, "nothing.env")
			if err := os.WriteFile(nothing, make([]byte, ubootSize), 0o644); err != nil {
				return err
			}
			return putEnvironment(ctx, d, nothing)
		},
		Firmware: func(ctx context.Context, _ *Machine) ([]string, error) {
			rom, err := MakeUBoot(ctx)
			return []string{"-bios", rom}, err
		},
	}
}

// putEnvironment replaces both copies of the environment on a disk by the file env.
func putEnvironment(ctx context.Context, d *Disk, env string) error {
	for _, file := range []string{"uboot.env", "uboot-redund.env"} {
		if err := run(ctx, "mcopy", "-o", "-i", fmt.Sprintf("%s@@%d", d.Path, d.Extents["ubootenv"].Offset), env, "::/"+file); err != nil {
			return err
		}
	}
	return nil
}
