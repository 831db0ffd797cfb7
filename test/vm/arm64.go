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

// arm64 is the architecture of the machine with U-Boot's UEFI, as Debian and Go call it.
const arm64 = "arm64"

// arm64Script unpacks the packages of a root file system and runs nothing of theirs: the host's
// processor cannot. Its arguments are the directory, a list of packages, options for apt-get, "--",
// and the files with package sources.
const arm64Script = `cd "$1"; include=$2; shift 2; options=
while [ "$1" != -- ]; do options="$options $1"; shift; done; shift
mmdebstrap --quiet --mode=root --skip=check/qemu --architectures=arm64 --variant=extract --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include="$include" \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' "$RELEASE" tree "$@"
cp tree/usr/share/base-passwd/passwd.master tree/etc/passwd
cp tree/usr/share/base-passwd/group.master tree/etc/group
systemd-sysusers --root="$PWD/tree"
touch status
apt-get $options update
apt-get $options download $(apt-cache $options depends linux-image-cloud-arm64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p')
dpkg -x linux-image-*.deb kernel
rm -r lists sources status linux-image-*.deb
`

// MakeDebianARM64 makes a Debian for 64-bit Arm, or finds it in the cache. As root only.
func MakeDebianARM64(ctx context.Context) (*Debian, error) {
	if os.Geteuid() != 0 {
		return nil, errRoot
	}
	recipe := strings.Join(append([]string{recipe, release(), arm64Script}, append(append(packages(), append(modules(), useless()...)...), masked()...)...), "\n")
	dir, err := cached(ctx, "debian-arm64", recipe, func(ctx context.Context, dir string) error {
		apt, err := privateLists(dir, false)
		if err != nil {
			return err
		}
		src, err := sources()
		if err != nil {
			return err
		}
		args := append([]string{"RELEASE=" + release(), "bash", "-e", "-o", "pipefail", "-c", arm64Script, "bash", dir, strings.Join(packages(), ",")}, apt...)
		args = append(args, "-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64", "-o", "Dir::State::status="+filepath.Join(dir, "status"), "-o", "APT::Sandbox::User=root", "--")
		if err := run(ctx, "env", append(args, src...)...); err != nil {
			return err
		}
		tree := filepath.Join(dir, "tree")
		if err := slim(tree); err != nil {
			return err
		}
		kernel := filepath.Join(dir, "kernel")
		if err := takeKernel(ctx, kernel, tree, filepath.Join(dir, "vmlinuz")); err != nil {
			return err
		}
		return errors.Join(settle(tree), os.RemoveAll(kernel))
	})
	if err != nil {
		return nil, fmt.Errorf("make a minimal Debian for arm64: %w", err)
	}
	return &Debian{Tree: filepath.Join(dir, "tree"), Kernel: filepath.Join(dir, "vmlinuz")}, nil
}

// ubootEFIRelease is the Debian whose U-Boot is built for its UEFI. From 2024.07 on U-Boot can let
// a system change variables.
const ubootEFIRelease = "trixie"

// ubootEFIConfig is how the board differs from qemu_arm64_defconfig: variables are in a file, which
// the system writes, and the boot manager is tried first, then one bank after the other.
const ubootEFIConfig = `# CONFIG_ENV_IS_IN_FLASH is not set
CONFIG_ENV_IS_NOWHERE=y
CONFIG_EFI_VARIABLE_FILE_STORE=y
CONFIG_EFI_RT_VOLATILE_STORE=y
CONFIG_BOOTDELAY=-2
CONFIG_USE_PREBOOT=y
CONFIG_PREBOOT="pci enum; nvme scan"
CONFIG_USE_BOOTCOMMAND=y
CONFIG_BOOTCOMMAND="bootefi bootmgr ${fdt_addr}; setenv fwu_start 'load nvme 0:${part} ${kernel_addr_r} EFI/device/linux.efi && setenv bootargs root=PARTLABEL=rootfs_${bank} fwu.bank=${bank} ` + armArguments + ` && bootefi ${kernel_addr_r} ${fdt_addr}'; setenv bank a; setenv part 2; run fwu_start; setenv bank b; setenv part 3; run fwu_start; sleep 5; reset"
# CONFIG_CMD_BOOTEFI_SELFTEST is not set
# CONFIG_TOOLS_MKEFICAPSULE is not set
# CONFIG_USB is not set
# CONFIG_TPM is not set
# CONFIG_MTD is not set
`

// armArguments are the arguments a kernel is started with on the machine with U-Boot's UEFI.
const armArguments = "ro console=ttyAMA0 panic=5 quiet"

// MakeUBootEFI builds U-Boot for QEMU's 64-bit Arm machine, with its UEFI, or finds it in the
// cache, and returns the path of the firmware.
func MakeUBootEFI(ctx context.Context) (string, error) {
	dir, err := cached(ctx, "uboot-efi", ubootEFIConfig+ubootEFIRelease, func(ctx context.Context, dir string) error {
		apt, err := privateLists(dir, true)
		if err != nil {
			return err
		}
		// The host's mirror has the other release as well. U-Boot's own files are enough.
		other := `cd "$1"; shift; sed -i -E 's/\b` + release() + `\b/` + ubootEFIRelease + `/g' sources/*; apt-get "$@" update; apt-get "$@" source --tar-only u-boot; tar -xf u-boot_*.orig.tar.*; mv u-boot-*/ source`
		if err := run(ctx, "sh", append([]string{"-ec", other, "sh", dir}, apt...)...); err != nil {
			return err
		}
		tree := filepath.Join(dir, "tree")
		nothing := func() error { return nil }
		if err := buildUBoot(ctx, filepath.Join(dir, "source"), tree, "qemu_arm64_defconfig", ubootEFIConfig, nothing, "CROSS_COMPILE=aarch64-linux-gnu-", "u-boot.bin"); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(tree, "u-boot.bin"), filepath.Join(dir, "u-boot.bin")); err != nil {
			return err
		}
		for _, name := range []string{"tree", "source", "lists", "sources"} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("build U-Boot with its UEFI: %w", err)
	}
	return filepath.Join(dir, "u-boot.bin"), nil
}

// UBootEFI is a 64-bit Arm machine with U-Boot's UEFI, whose variables lie in a file of the EFI
// system partition. The bank's kernel is an EFI program in a FAT slot of the bank.
func UBootEFI() Kind {
	k := uefi("uboot-efi", armArguments, cloudKernel)
	k.Arch, k.Machine = arm64, "virt"
	for i, p := range k.Partitions {
		if strings.HasPrefix(p.Name, "boot_") { // the kernel is not compressed
			k.Partitions[i] = diskimage.Partition{Name: p.Name, Size: 40 * mib}
		}
	}
	k.Files["etc/fstab"] = tmpfs + "/dev/disk/by-partlabel/esp /boot/efi vfat rw,umask=0077 0 0\n"
	k.Files["boot/efi/.mounted"] = ""
	k.Fill = func(ctx context.Context, w *Workshop, d *Disk) error {
		esp := filepath.Join(w.dir, "esp.img")
		return errors.Join(MakeFAT(ctx, esp, w.size("esp"), nil), d.Copy("esp", esp))
	}
	k.Forget = func(ctx context.Context, d *Disk, dir string) error {
		esp := filepath.Join(dir, "esp.img")
		return errors.Join(MakeFAT(ctx, esp, d.Extents["esp"].Size, nil), d.Copy("esp", esp), os.Remove(esp))
	}
	k.Firmware = func(ctx context.Context, _ *Machine) ([]string, error) {
		image, err := MakeUBootEFI(ctx)
		return []string{"-bios", image}, err
	}
	return k
}
