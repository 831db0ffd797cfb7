package lab

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

// The sizes of the factory's root file systems, and of the slots for them.
const (
	SlotSize  = 64 << 20
	imageSize = 56 << 20
)

// Factory makes keys, images and manifests in the device's directory. Run runs the program fwu-ab.
type Factory struct {
	Dir     string
	Program string
	Run     func(ctx context.Context, args ...string) error
}

func (f Factory) path(name string) string { return filepath.Join(f.Dir, name) }

// Image makes version v of both components: rootfs-V.img with a root file system, whose kernel
// comes up if it is good and panics otherwise, and bootfw-V.img with some bytes. Each version but
// the first has manifests too, signed with release.key: that of rootfs is a bundle, rootfs-V.suit.
func (f Factory) Image(ctx context.Context, v int, good bool) error {
	tree := f.path(fmt.Sprintf("tree-%d", v))
	defer func() { _ = os.RemoveAll(tree) }() // it only takes room
	kernel := "a kernel that comes up"
	if !good {
		kernel = "a kernel that panics"
	}
	for name, content := range map[string]string{
		"boot/Image":             fmt.Sprintf("version %d.0.0, %s\n", v, kernel),
		"boot/board.dtb":         "device tree\n",
		"etc/os-release":         fmt.Sprintf("NAME=demo\nVERSION_ID=%d.0.0\n", v),
		"usr/lib/fwu-ab/release": fmt.Sprintf("[rootfs]\nversion = \"%d.0.0\"\nsequence = %d\n\n[bootfw]\nversion = \"1.0.0\"\nsequence = 1\n", v, v),
	} {
		if err := write(filepath.Join(tree, name), content); err != nil {
			return err
		}
	}
	if good { // the other one does not come so far that it would use them
		if err := copyFile(f.Program, filepath.Join(tree, "usr/bin/fwu-ab")); err != nil {
			return err
		}
		if err := random(filepath.Join(tree, "usr/lib/data"), uint64(v), 32<<20); err != nil {
			return err
		}
	}
	image := f.path(fmt.Sprintf("rootfs-%d.img", v))
	mkfs := exec.CommandContext(ctx, program("mkfs.ext4"), "-q", "-F", "-L", "root", "-d", tree, image, fmt.Sprintf("%dk", imageSize>>10))
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	if err := random(f.path(fmt.Sprintf("bootfw-%d.img", v)), uint64(100+v), 700001); err != nil {
		return err
	}
	if v == 1 {
		return nil
	}
	if err := f.Manifest(ctx, "rootfs", v, image, f.path("release.key"), f.path(fmt.Sprintf("rootfs-%d.suit", v))); err != nil {
		return err
	}
	return f.Manifest(ctx, "bootfw", v, f.path(fmt.Sprintf("bootfw-%d.img", v)), f.path("release.key"), f.path(fmt.Sprintf("bootfw-%d.suit", v)))
}

// Manifest makes a manifest of version v for an image, with the image in it for rootfs.
func (f Factory) Manifest(ctx context.Context, component string, v int, image, key, out string) error {
	args := []string{"manifest", "create", "--component", component, "--image", image, "--version", fmt.Sprintf("%d.0.0", v), "--sequence", fmt.Sprint(v),
		"--vendor-name", "example.com", "--class-name", "demo board", "--key", key, "-o", out}
	if component == "rootfs" {
		args = append(args, "--bundle")
	}
	return f.Run(ctx, args...)
}

// NewDevice makes the device, with version 1 in bank a and the public key release.pub, and
// provisions it.
func (f Factory) NewDevice(ctx context.Context) (*Device, error) {
	d, err := New(f.Dir, SlotSize, 2<<20, "bundled")
	if err != nil {
		return nil, err
	}
	sizes := []string{"--root", d.Root, "provision", "--bank", "a"}
	for _, c := range []string{"rootfs", "bootfw"} {
		b, err := os.ReadFile(f.path(c + "-1.img"))
		if err != nil {
			return nil, err
		}
		if err := d.Fill(c+"_a", 0, b); err != nil {
			return nil, err
		}
		sizes = append(sizes, "--size", fmt.Sprintf("%s=%d", c, len(b)))
	}
	if err := copyFile(f.path("release.pub"), filepath.Join(d.Root, "etc/fwu-ab/keys/release.pub")); err != nil {
		return nil, err
	}
	release, err := debugfs(ctx, f.path("rootfs-1.img"), "cat /usr/lib/fwu-ab/release")
	if err != nil {
		return nil, err
	}
	if err := d.Write("usr/lib/fwu-ab/release", string(release)); err != nil {
		return nil, err
	}
	return d, f.Run(ctx, sizes...)
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

func write(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
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

// random makes a file that no file system or compressor can make smaller; the same for the same
// seed.
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
