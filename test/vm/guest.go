package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Guest is a PC that runs programs of the host's checkout. It has no firmware of interest and no
// service manager: the kernel starts the agent.
type Guest struct {
	Root   string // an image of its root file system; not to be written to
	Kernel string
}

// guestPackages are the tools that our tests compare with, and their dependencies.
func guestPackages() []string {
	return []string{"base-files", "base-passwd", "bash", "bash-completion", "coreutils", "dash", "dbus", "debianutils",
		"diffutils", "dmsetup", "e2fsprogs", "efibootmgr", "fdisk", "findutils", "gdisk", "grep", "groff", "gzip",
		"hostname", "iproute2", "kmod", "libc-bin", "libglib2.0-bin", "libubootenv-tool", "man-db", "mandoc", "mawk",
		"mount", "opensc", "openssl", "procps", "python3-jeepney", "sed", "softhsm2", "systemd", "tar", "u-boot-tools",
		"usr-is-merged", "util-linux", "zstd"}
}

// guestInit is the first process. It reaps the processes that the tests leave behind.
const guestInit = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mkdir /run/lock
tar -x -C / -f /dev/nvme1n1
ip link set lo up
for m in virtio_pci virtio_console virtio_rng loop fuse dm_mod; do modprobe $m; done
while :; do /usr/lib/vm-agent; sleep 1; done
`

// guestScript makes root.img and vmlinuz in the directory that is its first argument. The others
// are the packages, the release, and the sources. No program of the packages runs, so that the host
// can be of another architecture.
const guestScript = `cd "$1"; include=$2 release=$3; shift 3
merged='for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s usr/$d "$1/$d"; done'
download='cd "$(dirname "$1")" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" && apt-get -q download \
	$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/.*Depends: \(linux-image-[0-9]\)/\1/p")'
mmdebstrap --quiet --architectures=amd64 --variant=extract --skip=check/qemu --include="$include" \
	--setup-hook="$merged" --extract-hook="$download" --dpkgopt=path-exclude='/usr/share/doc/*' \
	--dpkgopt=path-exclude='/usr/share/locale/*' "$release" tree "$@"
for f in passwd group; do cp tree/usr/share/base-passwd/$f.master tree/etc/$f; done
echo messagebus:x:100:100::/nonexistent:/usr/sbin/nologin >> tree/etc/passwd
echo messagebus:x:100: >> tree/etc/group
echo 127.0.0.1 localhost > tree/etc/hosts
ln -s mawk tree/usr/bin/awk
cp init tree/usr/lib/guest-init
dpkg -x linux-image-*.deb kernel
mv kernel/boot/vmlinuz-* vmlinuz
version=$(ls kernel/lib/modules)
mkdir -p tree/usr/lib/modules
mv kernel/lib/modules/"$version" tree/usr/lib/modules/
(cd tree/usr/lib/modules/"$version"/kernel && rm -r net sound drivers/net drivers/infiniband drivers/xen 2>/dev/null || true)
depmod -b tree "$version"
mkfs.ext4 -q -F -m 0 -O '^has_journal,^resize_inode' -E lazy_itable_init=1 -d tree root.img 8G
rm -r tree kernel init linux-image-*.deb
`

// MakeGuest makes a guest, or finds it in the cache. As root only.
func MakeGuest(ctx context.Context) (*Guest, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("virtual machines need root: the files of a root file system belong to it")
	}
	recipe := append([]string{release(), guestInit, guestScript}, guestPackages()...)
	dir, err := cached(ctx, "guest", strings.Join(recipe, "\n"), func(ctx context.Context, dir string) error {
		src, err := sources()
		if err != nil {
			return err
		}
		if err := put(dir, Files{"init*": guestInit}); err != nil {
			return err
		}
		args := []string{"-e", "-o", "pipefail", "-c", guestScript, "bash", dir, strings.Join(guestPackages(), ","), release()}
		return run(ctx, "bash", append(args, src...)...)
	})
	if err != nil {
		return nil, fmt.Errorf("make a guest: %w", err)
	}
	return &Guest{Root: filepath.Join(dir, "root.img"), Kernel: filepath.Join(dir, "vmlinuz")}, nil
}

// RunningGuest is a guest that is switched on.
type RunningGuest struct {
	*Running
	mail *os.File // its third disk, by which it gets programs

	mu  sync.Mutex
	end int64 // of the part of mail that is in use
}

const (
	mailSize = 64 << 30 // of a sparse file
	mailStep = mib      // programs begin at multiples of it
)

// On switches the guest on. It finds the files of the checkout at top, those that git ignores
// excepted, at the same path as the host does. Its disks are new and lie in dir.
func (g *Guest) On(ctx context.Context, top, dir string, console io.Writer) (_ *RunningGuest, err error) {
	root, files, payload := filepath.Join(dir, "root.img"), filepath.Join(dir, "files"), filepath.Join(dir, "files.tar")
	if err := run(ctx, "cp", "--sparse=always", "--reflink=auto", g.Root, root); err != nil {
		return nil, err
	}
	agent := filepath.Join(files, "usr/lib/vm-agent")
	build := []string{"CGO_ENABLED=0", "GOARCH=amd64", "go", "-C", top, "build", "-trimpath", "-o", agent, "./test/vm/agent"}
	if err := run(ctx, "env", build...); err != nil {
		return nil, err
	}
	const pack = `cd "$1"
git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c 'for f; do test ! -e "$f" || printf "%s\0" "$f"; done' sh |
	tar -c --null -T - --transform "flags=r;s,^,${1#/}/," -f "$2"
tar -r -C "$3" -f "$2" usr`
	if err := run(ctx, "bash", "-e", "-o", "pipefail", "-c", pack, "bash", top, payload, files); err != nil {
		return nil, err
	}
	mail, err := os.Create(filepath.Join(dir, "mail.img"))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, mail.Close())
		}
	}()
	if err := mail.Truncate(mailSize); err != nil {
		return nil, err
	}
	// The disk of a guest need not survive the host.
	const lax = ",cache.no-flush=on"
	running, err := Start(ctx, Hardware{
		Machine: "q35", Memory: 2048, Console: console,
		Firmware: []string{"-kernel", g.Kernel, "-append", "root=/dev/nvme0n1 rw init=/usr/lib/guest-init console=ttyS0 quiet panic=-1 ia32_emulation=1 no_timer_check"},
		Disks: []string{
			"driver=raw,node-name=disk0" + file("file", root) + lax,
			"driver=raw,node-name=disk1,read-only=on" + file("file", payload),
			"driver=raw,node-name=disk2,read-only=on" + file("file", mail.Name()),
		},
		More: []string{"-device", "virtio-rng-pci"},
	})
	return &RunningGuest{Running: running, mail: mail}, err
}

// Off ends the guest.
func (r *RunningGuest) Off() error {
	r.Kill()
	return r.mail.Close()
}

// PutProgram copies a file of the host to an executable file of the guest.
func (r *RunningGuest) PutProgram(ctx context.Context, to, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	steps := (int64(len(content)) + mailStep - 1) / mailStep
	r.mu.Lock()
	at := r.end
	r.end += steps * mailStep
	r.mu.Unlock()
	if _, err := r.mail.WriteAt(content, at); err != nil { // the guest reads past its cache
		return err
	}
	const fetch = `dd if=/dev/nvme2n1 iflag=direct status=none bs=1M skip="$1" count="$2" | head -c "$3" > "$4"; chmod 755 "$4"`
	reply, err := r.Exec(ctx, "sh", "-ec", fetch, "sh", fmt.Sprint(at/mailStep), fmt.Sprint(steps), fmt.Sprint(len(content)), to)
	if err == nil && reply.Code != 0 {
		err = fmt.Errorf("copy %s to the guest: %s", from, reply.Err)
	}
	return err
}
