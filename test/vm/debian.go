package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// Debian is a minimal Debian, made from the packages of the host's own sources and kept in the cache.
type Debian struct {
	Tree   string // directory with the root file system; not to be written to
	Kernel string // an EFI program and a bzImage
}

// recipe is what a Debian is made from. Whatever changes the result must change the text.
const recipe = "1"

func packages() []string {
	return []string{"base-files", "base-passwd", "bash", "coreutils", "dash", "dbus", "debianutils", "diffutils", "dpkg", "findutils", "grep", "hostname", "init-system-helpers", "kexec-tools",
		"kmod", "libc-bin", "login", "mount", "passwd", "perl-base", "polkitd", "procps", "sed", "systemd", "systemd-sysv", "sysvinit-utils", "udev", "util-linux"}
}

// modules are the kernel modules that machines and stories need, below kernel/.
func modules() []string {
	return []string{"fs/fat", "fs/nls", "fs/efivarfs", "drivers/virtio", "drivers/char/virtio_console.ko", "drivers/char/hw_random", "drivers/watchdog"}
}

// useless is what a machine that is used by programs can do without.
func useless() []string {
	return []string{"boot", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/perl", "usr/share/perl5", "usr/share/zoneinfo", "usr/share/lintian",
		"usr/share/bash-completion", "usr/share/common-licenses", "usr/share/pixmaps", "usr/share/i18n", "usr/share/mime", "usr/share/xml", "usr/share/sgml", "usr/lib/locale",
		"usr/lib/*-linux-gnu/perl", "usr/lib/*-linux-gnu/perl5", "usr/lib/*-linux-gnu/perl-base", "usr/lib/*-linux-gnu/gconv", "usr/bin/perl*", "usr/lib/*-linux-gnu/libperl*",
		"usr/lib/udev/hwdb.d", "usr/lib/udev/hwdb.bin", "var/lib/dpkg", "var/cache/*", "var/lib/apt", "var/log/*", "etc/systemd/system/*.wants"}
}

// masked are units that cost time and are of no use in a virtual machine.
func masked() []string {
	return []string{"getty@tty1.service", "serial-getty@.service", "systemd-timesyncd.service", "systemd-networkd.service", "fstrim.timer", "dpkg-db-backup.timer",
		"systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-journal-catalog-update.service", "systemd-hwdb-update.service", "systemd-update-done.service", "systemd-pstore.service",
		"modprobe@drm.service", "modprobe@configfs.service", "modprobe@fuse.service", "modprobe@loop.service", "modprobe@dm_mod.service", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
		"dev-hugepages.mount", "dev-mqueue.mount", "kexec.service", "kexec-load.service"}
}

var errRoot = errors.New("virtual machines need root: the files of a root file system belong to it")

// MakeDebian makes a Debian, or finds it in the cache. As root only.
func MakeDebian(ctx context.Context) (*Debian, error) {
	if os.Geteuid() != 0 {
		return nil, errRoot
	}
	dir, err := cached(ctx, "debian", strings.Join(append([]string{recipe, release()}, append(append(packages(), append(modules(), useless()...)...), masked()...)...), "\n"), makeDebian)
	if err != nil {
		return nil, fmt.Errorf("make a minimal Debian: %w", err)
	}
	return &Debian{Tree: filepath.Join(dir, "tree"), Kernel: filepath.Join(dir, "vmlinuz")}, nil
}

// release is the code name of the host's Debian.
func release() string {
	text, _ := os.ReadFile("/etc/os-release") // without it mmdebstrap says what is wrong
	m := regexp.MustCompile(`(?m)^VERSION_CODENAME=(\w+)`).FindSubmatch(text)
	if m == nil {
		return "bookworm"
	}
	return string(m[1])
}

// sources are the files with the host's package sources for its release.
func sources() ([]string, error) {
	files, err := filepath.Glob("/etc/apt/sources.list.d/*")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, f := range append(files, "/etc/apt/sources.list") {
		text, err := os.ReadFile(f)
		if err == nil && (strings.HasSuffix(f, ".sources") || strings.HasSuffix(f, ".list")) && regexp.MustCompile(`(?m)^[^#]*\b`+release()+`\b`).Match(text) {
			found = append(found, f)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no package source for %s in /etc/apt", release())
	}
	return found, nil
}

// privateLists makes lists of the host's own package sources in dir, of source packages or of packages, and returns the options that make apt-get use them and leave the host's alone.
func privateLists(dir string, source bool) ([]string, error) {
	files, err := sources()
	if err != nil {
		return nil, err
	}
	parts := filepath.Join(dir, "sources")
	for _, d := range []string{parts, filepath.Join(dir, "lists/partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	deb := regexp.MustCompile(`(?m)^(Types:.*\b)?deb\b`)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		if source {
			text = deb.ReplaceAll(text, []byte("${1}deb-src"))
		}
		if err := os.WriteFile(filepath.Join(parts, filepath.Base(f)), text, 0o644); err != nil {
			return nil, err
		}
	}
	return []string{"-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", "Dir::Etc::sourceparts=" + parts, "-o", "Dir::State::lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + filepath.Join(dir, "lists")}, nil
}

func makeDebian(ctx context.Context, dir string) error {
	src, err := sources()
	if err != nil {
		return err
	}
	tree, deb := filepath.Join(dir, "tree"), filepath.Join(dir, "deb")
	if err := os.Mkdir(deb, 0o755); err != nil {
		return err
	}
	// The kernel is unpacked only: its scripts would want an initrd.
	download := `cd ` + deb + ` && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" && apt-get download $(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p')`
	args := []string{"--quiet", "--variant=custom", "--include=" + strings.Join(packages(), ","), "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--customize-hook=" + download, release(), tree}
	if err := run(ctx, "mmdebstrap", append(args, src...)...); err != nil {
		return err
	}
	kernel := filepath.Join(dir, "kernel")
	debs, err := filepath.Glob(deb + "/linux-image-*.deb")
	if err != nil || len(debs) != 1 {
		return errors.Join(fmt.Errorf("found the kernel packages %v, want one", debs), err)
	}
	if err := run(ctx, "dpkg", "-x", debs[0], kernel); err != nil {
		return err
	}
	if err := slim(tree); err != nil {
		return err
	}
	if err := takeKernel(ctx, kernel, tree, filepath.Join(dir, "vmlinuz")); err != nil {
		return err
	}
	if err := settle(tree); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(kernel), os.RemoveAll(deb))
}

// generic are the modules that Debian's generic kernel needs, and those for machines and stories.
func generic() []string {
	return []string{"nvme", "ext4", "vfat", "nls_cp437", "nls_ascii", "efivarfs", "virtio_pci", "virtio_console", "i6300esb", "overlay"}
}

// initScript finds the root file system of the bank that the boot entry names. One of the two
// scripts below mounts it and starts it.
const initScript = `#!/bin/busybox sh
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /root
$bb mount -t proc proc /proc && $bb mount -t sysfs sysfs /sys && $bb mount -t devtmpfs dev /dev
for m in $($bb cat /modules); do $bb insmod $m; done
bank=$($bb sed -n 's/.*fwu\.bank=\([ab]\).*/\1/p' /proc/cmdline)
until root=$($bb grep -l "^PARTNAME=rootfs_$bank$" /sys/class/block/*/uevent); do $bb usleep 50000; done
root=${root%/uevent}
root=/dev/${root##*/}
`

const (
	plainRoot = "$bb mount -o ro $root /root"
	// overlayRoot puts a layer in memory over the slot, in the way of Ubuntu's overlayroot: the
	// slot is seen at /media/root-ro.
	overlayRoot = `$bb mkdir -p /media/root-ro /media/root-rw
$bb mount -o ro $root /media/root-ro
$bb mount -t tmpfs tmpfs /media/root-rw
$bb mkdir /media/root-rw/upper /media/root-rw/work
$bb mount -t overlay overlay -o lowerdir=/media/root-ro,upperdir=/media/root-rw/upper,workdir=/media/root-rw/work /root
$bb mkdir -p /root/media/root-ro
$bb mount --move /media/root-ro /root/media/root-ro`
)

// genericScript makes kernel and initrd in the directory that is its first argument, with the modules that follow, up to "--", and options for apt-get.
const genericScript = `cd "$1"; shift; modules=
while [ "$1" != -- ]; do modules="$modules $1"; shift; done; shift
apt-get "$@" update
apt-get "$@" download busybox-static $(apt-cache "$@" depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p')
for d in *.deb; do dpkg -x "$d" all; done
mv all/boot/vmlinuz-* vmlinuz
mkdir -p initrd/bin && cp all/bin/busybox initrd/bin/
version=$(ls all/lib/modules) && depmod -b all "$version"
for m in $modules; do modprobe -d all -S "$version" --show-depends "$m"; done | sed -n 's/^insmod //p' | awk '!seen[$1]++ {print $1}' > paths
while read p; do cp "$p" initrd/; echo "/${p##*/}"; done < paths > initrd/modules
cp init initrd/init
(cd initrd && find . | cpio --quiet -o -H newc | gzip) > initrd.img
rm -r all initrd lists ./*.deb
`

// MakeGeneric makes a kernel with drivers as modules and an initrd for it, vmlinuz and initrd.img, or finds them in the cache.
// The initrd mounts the root file system by the script mount.
func MakeGeneric(ctx context.Context, mount string) (string, error) {
	init := initScript + mount + "\nexec $bb switch_root /root /sbin/init\n"
	dir, err := cached(ctx, "generic", release()+init+genericScript+strings.Join(generic(), " "), func(ctx context.Context, dir string) error {
		apt, err := privateLists(dir, false)
		if err != nil {
			return err
		}
		if err := put(dir, Files{"init*": init}); err != nil {
			return err
		}
		args := append([]string{"-e", "-o", "pipefail", "-c", genericScript, "bash", dir}, generic()...)
		return run(ctx, "bash", append(append(args, "--"), apt...)...)
	})
	if err != nil {
		return "", fmt.Errorf("make a kernel with modules: %w", err)
	}
	return dir, nil
}

func slim(tree string) error {
	for _, pattern := range useless() {
		paths, err := filepath.Glob(filepath.Join(tree, pattern))
		if err != nil {
			return err
		}
		for _, p := range paths {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	return os.Mkdir(filepath.Join(tree, "boot"), 0o755)
}

// takeKernel puts the modules into the tree.
func takeKernel(ctx context.Context, kernel, tree, image string) error {
	images, err := filepath.Glob(kernel + "/boot/vmlinuz-*")
	if err != nil || len(images) != 1 {
		return errors.Join(fmt.Errorf("found the kernels %v, want one", images), err)
	}
	version := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	from, to := filepath.Join(kernel, "lib/modules", version), filepath.Join(tree, "usr/lib/modules", version)
	for _, m := range append(modules(), "../modules.builtin", "../modules.builtin.modinfo", "../modules.order") {
		dst := filepath.Join(to, "kernel", m)
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			return err
		}
		if err := run(ctx, "cp", "-a", filepath.Join(from, "kernel", m), dst); err != nil {
			return err
		}
	}
	if err := run(ctx, "depmod", "-b", tree, version); err != nil {
		return err
	}
	return run(ctx, "cp", images[0], image)
}

// tmpfs is what of a root file system has to be written to.
const tmpfs = "tmpfs /var tmpfs mode=755 0 0\ntmpfs /tmp tmpfs mode=1777 0 0\n"

// settle makes the tree a root file system that is mounted read-only and never changes.
func settle(tree string) error {
	for name, text := range map[string]string{
		"etc/fstab":      tmpfs,
		"etc/machine-id": "",
		"etc/hostname":   "device\n",
		"usr/lib/systemd/system/vm-agent.service": `[Unit]
Description=Agent of the host
DefaultDependencies=no
IgnoreOnIsolate=yes
StartLimitIntervalSec=0
[Service]
ExecStartPre=-/sbin/modprobe virtio_pci
ExecStartPre=-/sbin/modprobe virtio_console
ExecStart=/usr/lib/vm-agent
Restart=always
RestartSec=1
`,
	} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	links := map[string]string{"usr/lib/systemd/system/default.target": "multi-user.target"}
	for _, target := range []string{"sysinit", "rescue", "emergency"} {
		links["usr/lib/systemd/system/"+target+".target.wants/vm-agent.service"] = "../vm-agent.service"
	}
	for _, unit := range masked() {
		links["etc/systemd/system/"+unit] = "/dev/null"
	}
	for name, to := range links {
		if err := link(filepath.Join(tree, name), to); err != nil {
			return err
		}
	}
	return nil
}

func link(path, to string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(to, path)
}

// cached returns a directory of the cache that build filled: $FWUAB_CACHE, or fwu-ab in the user's cache. Builders of the same thing wait for each other; what a builder that was
// killed left behind is built again.
func cached(ctx context.Context, name, recipe string, build func(ctx context.Context, dir string) error) (string, error) {
	root := os.Getenv("FWUAB_CACHE")
	if root == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		root = filepath.Join(user, "fwu-ab")
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(recipe))
	dir := filepath.Join(root, name+"-"+hex.EncodeToString(sum[:6]))
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return "", err
	}
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return "", err
	}
	if err := build(ctx, fresh); err != nil {
		return "", err
	}
	return dir, os.Rename(fresh, dir)
}

// run runs a command, whose output is in the error if it fails.
func run(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(append(out, stderr.Bytes()...)))
	}
	return out, nil
}
