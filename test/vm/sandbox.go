package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fwu-ab/fwu-ab/partition/diskimage"
)

// Places of the sandbox's environment: a partition behind those of the boot script and of the banks.
const (
	sandboxEnv     = 0x400000
	sandboxEnvSize = 0x4000
	sandboxEnvStep = 0x10000 // from one copy to the other
)

// sandboxEnvironment is what is compiled in, for every scheme.
const sandboxEnvironment = `kernel_addr_r=0x1000000
fdt_addr_r=0x1800000
scriptaddr=0x1f00000
fwu_iface=mmc
fwu_disk=0
fwu_part_a=2
fwu_part_b=3
fwu_kernel=/Image
fwu_start=run start
start=echo STARTED ${bootargs}; poweroff
bootcmd=load mmc 0:1 ${scriptaddr} /boot.scr && source ${scriptaddr}; reset
`

// sandboxConfig is what is changed of sandbox_defconfig. There is no sleep: where the boot script waits before it resets, nobody has to.
const sandboxConfig = `# CONFIG_ENV_IS_NOWHERE is not set
# CONFIG_ENV_IS_IN_EXT4 is not set
CONFIG_ENV_IS_IN_MMC=y
CONFIG_SYS_REDUNDAND_ENVIRONMENT=y
CONFIG_ENV_SIZE=0x4000
CONFIG_ENV_OFFSET=0x400000
CONFIG_ENV_OFFSET_REDUND=0x410000
CONFIG_SYS_MMC_ENV_DEV=0
CONFIG_SYS_MMC_ENV_PART=0
# CONFIG_DM_BOOTCOUNT is not set
CONFIG_BOOTCOUNT_LIMIT=y
CONFIG_BOOTCOUNT_ENV=y
CONFIG_USE_DEFAULT_ENV_FILE=y
CONFIG_DEFAULT_ENV_FILE="default.env"
CONFIG_BOOTDELAY=-2
CONFIG_LEGACY_IMAGE_FORMAT=y
# CONFIG_USE_BOOTARGS is not set
# CONFIG_USE_PREBOOT is not set
# CONFIG_CMD_SLEEP is not set
# CONFIG_VIDEO is not set
# CONFIG_CMD_OSD is not set
# CONFIG_CLK_K210 is not set
# CONFIG_BINMAN_FDT is not set
# CONFIG_EFI_LOADER is not set
# CONFIG_UNIT_TEST is not set
# CONFIG_TOOLS_MKEFICAPSULE is not set
`

// sandboxTree describes the board: a memory card in a file of the working directory.
const sandboxTree = `/dts-v1/;
/ {
	#address-cells = <1>;
	#size-cells = <1>;
	model = "lab";
	compatible = "sandbox";
	chosen { stdout-path = "/serial"; };
	aliases { mmc0 = "/mmc0"; };
	serial { compatible = "sandbox,serial"; };
	reset { compatible = "sandbox,reset"; };
	sysreset { compatible = "sandbox,sysreset"; };
	mmc0 { compatible = "sandbox,mmc"; filename = "disk.img"; non-removable; };
};
`

// MakeSandbox builds U-Boot as a Linux process from Debian's source package, or finds it in the cache, and returns its directory.
func MakeSandbox(ctx context.Context) (string, error) {
	source, err := UBootSource(ctx)
	if err != nil {
		return "", err
	}
	dir, err := cached(ctx, "uboot-sandbox", sandboxConfig+sandboxEnvironment+sandboxTree+filepath.Base(source), func(ctx context.Context, dir string) error {
		tree := filepath.Join(dir, "tree")
		// The places of the environment are a list in the board's code, which begins with "nowhere".
		prepare := func() error {
			board := filepath.Join(tree, "board/sandbox/sandbox.c")
			text, err := os.ReadFile(board)
			if err != nil {
				return err
			}
			changed := bytes.Replace(text, []byte("\tENVL_NOWHERE,\n"), []byte("\tENVL_MMC,\n"), 1)
			if bytes.Equal(text, changed) {
				return fmt.Errorf("%s has no list of environments that begins with ENVL_NOWHERE", board)
			}
			return put(tree, Files{"board/sandbox/sandbox.c": string(changed), "default.env": sandboxEnvironment})
		}
		if err := buildUBoot(ctx, source, tree, "sandbox_defconfig", sandboxConfig, prepare, "NO_SDL=1", "u-boot"); err != nil {
			return err
		}
		if err := put(dir, Files{"board.dts": sandboxTree}); err != nil {
			return err
		}
		if err := run(ctx, "dtc", "-q", "-I", "dts", "-O", "dtb", "-o", filepath.Join(dir, "board.dtb"), filepath.Join(dir, "board.dts")); err != nil {
			return err
		}
		return errors.Join(os.Rename(filepath.Join(tree, "u-boot"), filepath.Join(dir, "u-boot")), os.RemoveAll(tree))
	})
	if err != nil {
		return "", fmt.Errorf("build U-Boot as a process: %w", err)
	}
	return dir, nil
}

// Sandbox is a board in a directory: a disk with a boot script, two banks and an environment.
type Sandbox struct {
	uboot string // directory of the program
	dir   string
	disk  *Disk
}

// NewSandbox makes a board with a boot script, both of whose banks can be started. The environment is empty.
func NewSandbox(ctx context.Context, dir, script string) (*Sandbox, error) {
	uboot, err := MakeSandbox(ctx)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{uboot: uboot, dir: dir, disk: &Disk{Path: filepath.Join(dir, "disk.img"), Extents: map[string]diskimage.Extent{}}}
	layout := []diskimage.Partition{{Name: "boot", Size: mib}, {Name: "a", Size: mib}, {Name: "b", Size: mib}, {Name: "env", Size: mib}}
	extents, err := diskimage.Create(s.disk.Path, diskimage.Layout{Partitions: layout})
	if err != nil {
		return nil, err
	}
	for i, p := range layout {
		s.disk.Extents[p.Name] = extents[i]
	}
	if at := s.disk.Extents["env"].Offset; at != sandboxEnv {
		return nil, fmt.Errorf("the environment's partition is at %#x, and U-Boot was built for %#x", at, sandboxEnv)
	}
	if err := put(dir, Files{"boot.cmd": script, "Image": "a kernel\n"}); err != nil {
		return nil, err
	}
	if err := run(ctx, "mkimage", "-A", "sandbox", "-T", "script", "-C", "none", "-d", filepath.Join(dir, "boot.cmd"), filepath.Join(dir, "boot.scr")); err != nil {
		return nil, err
	}
	for part, file := range map[string]string{"boot": "boot.scr", "a": "Image", "b": "Image"} {
		fat := filepath.Join(dir, part+".img")
		if err := MakeFAT(ctx, fat, mib, Sources{file: filepath.Join(dir, file)}); err != nil {
			return nil, err
		}
		if err := s.disk.Copy(part, fat); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// SetBootable seals the banks that are not named, and opens the others.
func (s *Sandbox) SetBootable(banks string) error {
	for _, bank := range []string{"a", "b"} {
		b, err := os.ReadFile(filepath.Join(s.dir, bank+".img"))
		if err != nil {
			return err
		}
		if !strings.Contains(banks, bank) {
			for i := range 128 << 10 {
				b[i] = ^b[i]
			}
		}
		if err := s.disk.write(s.disk.Extents[bank].Offset, bytes.NewReader(b)); err != nil {
			return err
		}
	}
	return nil
}

// Boot powers the board on and returns the kernel command line that it came to, and how often it was reset before; an empty one if it is reset more often than maxResets.
func (s *Sandbox) Boot(ctx context.Context, maxResets int) (commandLine string, resets int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.uboot, "u-boot"), "-d", filepath.Join(s.uboot, "board.dtb"))
	cmd.Dir = s.dir
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, err
	}
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	var text strings.Builder
	resets = -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		text.WriteString(line + "\n")
		if strings.HasPrefix(line, "U-Boot 20") {
			resets++
		}
		if resets > maxResets {
			cancel()
		}
		if rest, ok := strings.CutPrefix(line, "STARTED "); ok {
			commandLine = rest
		}
	}
	err = cmd.Wait()
	switch {
	case resets > maxResets:
		return "", resets, nil
	case err != nil || commandLine == "":
		return "", 0, fmt.Errorf("U-Boot started nothing: %w\n%s", err, text.String())
	}
	return commandLine, resets, nil
}
