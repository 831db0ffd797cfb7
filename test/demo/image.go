package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	slotSize  = 64 << 20
	imageSize = 56 << 20
)

func write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// makeImage makes version v of both components: a root file system of a tree, with a kernel that comes up or not, and some firmware.
func (d *device) makeImage(ctx context.Context, v int, good bool) error {
	tree := fmt.Sprintf("tree-%d", v)
	kernel := "a kernel that comes up"
	if !good {
		kernel = "a kernel that panics"
	}
	for name, content := range map[string]string{
		"/boot/Image":             fmt.Sprintf("version %d.0.0, %s\n", v, kernel),
		"/boot/board.dtb":         "device tree\n",
		"/etc/os-release":         fmt.Sprintf("NAME=demo\nVERSION_ID=%d.0.0\n", v),
		"/usr/lib/fwu-ab/release": fmt.Sprintf("[rootfs]\nversion = \"%d.0.0\"\nsequence = %d\n\n[bootfw]\nversion = \"1.0.0\"\nsequence = 1\n", v, v),
	} {
		if err := write(d.path(tree+name), content); err != nil {
			return err
		}
	}
	if err := copyFile(d.binary, d.path(tree+"/usr/bin/fwu-ab")); err != nil {
		return err
	}
	if err := random(d.path(tree+"/usr/lib/data"), uint64(v), 20<<20); err != nil {
		return err
	}
	image := d.path(fmt.Sprintf("rootfs-%d.img", v))
	mkfs := exec.CommandContext(ctx, program("mkfs.ext4"), "-q", "-F", "-L", "root", "-d", d.path(tree), image, fmt.Sprintf("%dk", imageSize>>10))
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	if err := random(d.path(fmt.Sprintf("bootfw-%d.img", v)), uint64(100+v), 700001); err != nil {
		return err
	}
	if v == 1 {
		return nil
	}
	if err := d.manifest(ctx, "rootfs", v, image, d.path("release.key"), d.path(fmt.Sprintf("rootfs-%d.suit", v))); err != nil {
		return err
	}
	return d.manifest(ctx, "bootfw", v, d.path(fmt.Sprintf("bootfw-%d.img", v)), d.path("release.key"), d.path(fmt.Sprintf("bootfw-%d.suit", v)))
}

func (d *device) manifest(ctx context.Context, component string, v int, image, key, out string) error {
	args := []string{"manifest", "create", "--component", component, "--image", image, "--version", fmt.Sprintf("%d.0.0", v), "--sequence", fmt.Sprint(v),
		"--vendor-name", "example.com", "--class-name", "demo board", "--key", key, "-o", out}
	if component == "rootfs" {
		args = append(args, "--bundle")
	}
	return d.fwu(ctx, exitOK, args...)
}

// copyRelease puts the release record of a root file system where the service looks for that of the running system.
func (d *device) copyRelease(image string) error {
	b, err := debugfs(context.Background(), image, "cat /usr/lib/fwu-ab/release")
	if err != nil {
		return err
	}
	return d.Write("usr/lib/fwu-ab/release", string(b))
}

func (d *device) copyReleaseFrom(ctx context.Context, bank string) error {
	b, err := d.readFile(ctx, bank, "/usr/lib/fwu-ab/release")
	if err != nil {
		return err
	}
	return d.Write("usr/lib/fwu-ab/release", string(b))
}

// debugfs runs a command of the ext4 debugger, which reads a file system without mounting it.
func debugfs(ctx context.Context, image, command string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program("debugfs"), "-R", command, image)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("no file system, or no such file")
	}
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w: %s", command, filepath.Base(image), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// program finds a program of the system administrator that is not in the path of an ordinary user.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return filepath.Join("/usr/sbin", name)
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// random makes a file that no file system or compressor can make smaller; the same for the same seed.
func random(path string, seed uint64, size int64) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	var key [32]byte
	copy(key[:], fmt.Sprint("demo ", seed))
	if _, err := io.CopyN(f, rand.NewChaCha8(key), size); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
