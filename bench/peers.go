package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const raucConfig = `[system]
compatible=bench
bootloader=noop
mountprefix=%[1]s/mnt
statusfile=%[1]s/rauc.status
bundle-formats=plain verity
[keyring]
path=%[1]s/cert.pem
[slot.rootfs.0]
device=%[1]s/active
type=raw
bootname=A
[slot.rootfs.1]
device=%[1]s/target
type=raw
bootname=B
`

// makePeers makes what the peers install. Where one cannot be made or is not installed, a note says so.
func (b *bed) makePeers(ctx context.Context) error {
	if _, err := command(ctx, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-subj", "/CN=bench",
		"-keyout", b.path("key.pem"), "-out", b.path("cert.pem")); err != nil {
		return err
	}
	for _, p := range []struct {
		program string
		make    func(context.Context) error
	}{{"rauc", b.makeRAUC}, {"swupdate", b.makeSWUpdate}, {"mender", b.makeMender}} {
		if _, err := exec.LookPath(p.program); err != nil {
			b.note("%s is not installed.", p.program)
		} else if err := p.make(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.program, err)
		}
	}
	return nil
}

func (b *bed) makeRAUC(ctx context.Context) error {
	if err := os.WriteFile(b.path("rauc.conf"), fmt.Appendf(nil, raucConfig, b.dir), 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll(b.path("mnt"), 0o755); err != nil {
		return err
	}
	formats := []string{"plain"}
	if absent("/sys/class/misc/device-mapper") {
		b.note("RAUC's verity bundles need device-mapper, which this kernel does not have: they are left out.")
	} else {
		formats = append(formats, "verity")
	}
	for _, format := range formats {
		for _, c := range []struct{ name, args string }{{"not compressed", "-noI -noD -noF -noX"}, {"zstd", "-comp zstd"}} {
			name := fmt.Sprintf("RAUC, %s, %s", format, c.name)
			file := fmt.Sprintf("%s-%s.raucb", format, strings.Fields(c.name)[0])
			in := b.path("rauc-" + file)
			if err := os.MkdirAll(in, 0o755); err != nil {
				return err
			}
			manifest := fmt.Sprintf("[update]\ncompatible=bench\nversion=2\n[bundle]\nformat=%s\n[image.rootfs]\nfilename=rootfs.img\n", format)
			if err := os.WriteFile(filepath.Join(in, "manifest.raucm"), []byte(manifest), 0o644); err != nil {
				return err
			}
			if err := os.Link(b.path("image"), filepath.Join(in, "rootfs.img")); err != nil {
				return err
			}
			if _, err := command(ctx, "rauc", "--cert="+b.path("cert.pem"), "--key="+b.path("key.pem"), "--keyring="+b.path("cert.pem"),
				"--mksquashfs-args="+c.args, "bundle", in, b.path(file)); err != nil {
				return err
			}
			b.peers = append(b.peers, contender{name: name, before: "other", input: []string{file}, prepare: func(ctx context.Context, a *attempt) (*exec.Cmd, error) {
				return a.rauc(ctx, file)
			}})
		}
	}
	return nil
}

func (a *attempt) rauc(ctx context.Context, file string) (*exec.Cmd, error) {
	_ = os.Remove(a.path("rauc.status")) // else it leaves out what it installed before
	bus, err := a.bus(ctx, "")
	if err != nil {
		return nil, err
	}
	env := []string{"DBUS_SYSTEM_BUS_ADDRESS=" + bus}
	if a.writer, err = a.daemon(ctx, writers, env, "rauc", "-c", a.path("rauc.conf"), "--override-boot-slot=A", "service"); err != nil {
		return nil, err
	}
	err = a.until(ctx, func() bool {
		cmd := exec.CommandContext(ctx, "rauc", "status")
		cmd.Env = append(os.Environ(), env...)
		return cmd.Run() == nil
	})
	return a.command(ctx, env, "rauc", "install", a.path(file)), err
}

func digest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// makeSWUpdate makes signed updates that are streamed to the slot. Debian's SWUpdate takes no others.
func (b *bed) makeSWUpdate(ctx context.Context) error {
	for _, c := range []struct{ name, file, compressed string }{{"raw", "image", ""}, {"zstd", "image.zst", `compressed = "zstd";`}} {
		sum, err := digest(b.path(c.file))
		if err != nil {
			return err
		}
		text := fmt.Sprintf(`software = { version = "2"; hardware-compatibility = [ "1.0" ]; images: ({ filename = %q; device = %q; type = "raw"; sha256 = %q; %s
installed-directly = true; }); };`, c.file, b.path("target"), sum, c.compressed)
		if err := os.WriteFile(b.path("sw-description"), []byte(text), 0o644); err != nil {
			return err
		}
		if _, err := command(ctx, "sh", "-ec", `cd "$1"
openssl cms -sign -in sw-description -out sw-description.sig -signer cert.pem -inkey key.pem -outform DER -nosmimecap -binary
printf 'sw-description\nsw-description.sig\n%s\n' "$2" | cpio -o -H crc > "$2.swu"`, "sh", b.dir, c.file); err != nil {
			return err
		}
		b.peers = append(b.peers, contender{
			name: "SWUpdate, " + c.name, before: "other", input: []string{c.file + ".swu"}, sleeps: time.Second,
			prepare: func(ctx context.Context, a *attempt) (*exec.Cmd, error) {
				// It removes files from there that have the names of the images.
				if err := os.MkdirAll(a.path("swupdate"), 0o755); err != nil {
					return nil, err
				}
				return a.command(ctx, []string{"TMPDIR=" + a.path("swupdate")}, "swupdate", "-M", "-m", "-H", "bench:1.0", "-k", a.path("cert.pem"), "-i", a.path(c.file+".swu")), nil
			},
		})
	}
	return nil
}

// Mender asks programs for the boot environment: these keep one in a file.
const (
	menderPrint = "#!/bin/sh\nfor v; do grep \"^$v=\" %[1]s | tail -1 | grep . || exit 1; done\n[ $# != 0 ] || cat %[1]s\n"
	menderSet   = "#!/bin/sh\nsed 's/[ =]/=/' >> %s\n"
	menderEnv   = "mender_boot_part=%s\nupgrade_available=0\nmender_saveenv_canary=1\nbootcount=0\n"
)

func (b *bed) makeMender(ctx context.Context) error {
	if _, err := exec.LookPath("mender-artifact"); err != nil {
		b.note("mender-artifact is not installed: Mender is left out.")
		return nil
	}
	root, err := command(ctx, "findmnt", "-n", "-o", "SOURCE", "/")
	if err != nil || !strings.HasPrefix(root, "/dev/") {
		b.note("Mender needs a root file system on a device: it is left out.")
		return nil
	}
	if err := os.MkdirAll(b.path("mender/etc"), 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"fw_printenv": fmt.Sprintf(menderPrint, b.path("mender/env")), "fw_setenv": fmt.Sprintf(menderSet, b.path("mender/env")), "device_type": "device_type=bench\n",
		"etc/artifact_info": "artifact_name=1\n",
	} {
		if err := os.WriteFile(b.path("mender/"+name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	if _, err := command(ctx, "mender-artifact", "write", "rootfs-image", "--no-progress", "-n", "2", "-t", "bench", "--compression", "none",
		"-f", b.path("image"), "-o", b.path("image.mender")); err != nil {
		return err
	}
	b.peers = append(b.peers, contender{name: "Mender, not compressed", before: "other", input: []string{"image.mender"}, prepare: func(ctx context.Context, a *attempt) (*exec.Cmd, error) {
		conf := fmt.Sprintf(`{"RootfsPartA":%q,"RootfsPartB":"%sp3","DeviceTypeFile":%q}`, root, a.medium.loop, a.path("mender/device_type"))
		err := errors.Join(os.RemoveAll(a.path("mender/data")), os.MkdirAll(a.path("mender/data"), 0o755), os.WriteFile(a.path("mender/conf"), []byte(conf), 0o644),
			os.WriteFile(a.path("mender/env"), fmt.Appendf(nil, menderEnv, root[len(root)-1:]), 0o644))
		// The name of the running artifact is looked for in /etc/mender, and nowhere else.
		return a.command(ctx, []string{"PATH=" + a.path("mender") + ":" + os.Getenv("PATH")}, "unshare", "-m", "sh", "-c",
			`mount --bind "$1/etc" /etc/mender && exec mender --no-syslog -c "$1/conf" -d "$1/data" install "$2"`, "sh", a.path("mender"), a.path("image.mender")), err
	}})
	return nil
}
