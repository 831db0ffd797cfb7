package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/fwu-ab/fwu-ab/partition/diskimage"
)

// Files are files of a root file system: content by path. A path that ends with "*" is executable.
type Files map[string]string

// Sources are files of the host, by the path that they are to have.
type Sources map[string]string

// Workshop makes images of devices: it holds what all of them have in common.
type Workshop struct {
	dir    string // work files, removed by the owner
	debian *Debian
	tree   string // Debian with fwu-ab installed and set up as a device of this kind
	kind   Kind
	Key    string // private key that images are signed with

	program string // fwu-ab for the host; for amd64 the one in the images
}

// Kind is a kind of machine.
type Kind struct {
	Name       string
	Arch       string // Debian's and Go's name of the architecture; "": amd64
	Partitions []diskimage.Partition
	Files      Files // of every root file system: configuration and the like
	// Fill writes what does not belong to a bank to the disk.
	Fill func(ctx context.Context, w *Workshop, disk *Disk) error
	// Firmware returns the arguments for QEMU.
	Firmware func(ctx context.Context, m *Machine) ([]string, error)
	Machine  string // QEMU's name of it
	// Forget makes the firmware of a machine that is off forget all that it was told.
	Forget  func(ctx context.Context, disk *Disk, dir string) error
	Devices []string // more arguments for QEMU
	// Loader returns the files of the component boot, by path; nil: there is none, and the kernel is /boot/vmlinuz of the root file system.
	Loader func(ctx context.Context, w *Workshop) (Sources, error)
	// SlotSize is that of a root file system's slot.
	SlotSize int64
}

// NewWorkshop installs fwu-ab from its source in top, as a user would, into a Debian for machines of a kind.
func NewWorkshop(ctx context.Context, top, dir string, kind Kind) (*Workshop, error) {
	makeDebian := MakeDebian
	if kind.Arch == arm64 {
		makeDebian = MakeDebianARM64
	}
	debian, err := makeDebian(ctx)
	if err != nil {
		return nil, err
	}
	w := &Workshop{dir: dir, debian: debian, tree: filepath.Join(dir, "tree"), kind: kind, Key: filepath.Join(dir, "release.key")}
	if err := run(ctx, "cp", "-a", debian.Tree, w.tree); err != nil {
		return nil, err
	}
	if err := run(ctx, "make", "-s", "-C", top, "install", "O="+filepath.Join(dir, "build"), "DESTDIR="+w.tree, "CAPI=no"); err != nil {
		return nil, err
	}
	build := []string{"-C", top, "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(w.tree, "usr/lib/vm-agent"), "./test/vm/agent"}
	arch := cmp.Or(kind.Arch, "amd64")
	if err := run(ctx, "env", append([]string{"CGO_ENABLED=0", "GOARCH=" + arch, "go"}, build...)...); err != nil {
		return nil, err
	}
	w.program = filepath.Join(w.tree, "usr/bin/fwu-ab")
	if kind.Arch != "" { // the host runs its own
		host := filepath.Join(dir, "fwu-ab")
		if err := os.Rename(w.program, host); err != nil {
			return nil, err
		}
		if err := run(ctx, "make", "-s", "-C", top, "cross", "ARCHES="+arch); err != nil {
			return nil, err
		}
		if err := run(ctx, "cp", filepath.Join(top, "build/fwu-ab-"+arch), w.program); err != nil {
			return nil, err
		}
		w.program = host
	}
	if err := run(ctx, "systemctl", "--root="+w.tree, "preset", "fwu-ab.service", "fwu-ab-health.service", "fwu-ab-accept.service", "fwu-ab-deadline.service"); err != nil {
		return nil, err
	}
	if err := run(ctx, w.program, "key", "generate", strings.TrimSuffix(w.Key, ".key")); err != nil {
		return nil, err
	}
	public, err := os.ReadFile(strings.TrimSuffix(w.Key, ".key") + ".pub")
	if err != nil {
		return nil, err
	}
	if err := put(w.tree, Files{"etc/fwu-ab/keys/release.pub": string(public)}); err != nil {
		return nil, err
	}
	if kind.Loader == nil {
		if err := run(ctx, "cp", debian.Kernel, filepath.Join(w.tree, "boot/vmlinuz")); err != nil {
			return nil, err
		}
	}
	return w, put(w.tree, kind.Files)
}

func put(tree string, files Files) error {
	for name, content := range files {
		mode := os.FileMode(0o644)
		if n, ok := strings.CutSuffix(name, "*"); ok {
			name, mode = n, 0o755
		}
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // it may be a link of a tree that is shared
			return err
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			return err
		}
	}
	return nil
}

// Root describes a root file system.
type Root struct {
	Version int      // of all components in its release record
	Files   Files    // beside those of the kind
	Remove  []string // of what the others have
}

// MakeRoot makes the image of a root file system at path.
func (w *Workshop) MakeRoot(ctx context.Context, path string, r Root) (err error) {
	tree, err := os.MkdirTemp(w.dir, "root-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tree)) }()
	if err := run(ctx, "cp", "-al", w.tree+"/.", tree); err != nil { // links: put makes files anew
		return err
	}
	release := ""
	for _, c := range []string{"boot", "rootfs", "app"} {
		release += fmt.Sprintf("[%s]\nversion = \"%d.0.0\"\nsequence = %d\n", c, r.Version, r.Version)
	}
	if err := put(tree, Files{"usr/lib/fwu-ab/release": release, "etc/version": fmt.Sprintf("%d\n", r.Version)}); err != nil {
		return err
	}
	for _, name := range r.Remove {
		found, err := filepath.Glob(filepath.Join(tree, name))
		if err != nil || len(found) == 0 {
			return errors.Join(fmt.Errorf("remove %s: it is not there", name), err)
		}
		for _, f := range found {
			if err := os.RemoveAll(f); err != nil {
				return err
			}
		}
	}
	if err := put(tree, r.Files); err != nil {
		return err
	}
	return run(ctx, "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-N", "8000", "-O", "^has_journal,^resize_inode", "-d", tree, path, fmt.Sprintf("%dk", w.kind.SlotSize>>10))
}

// MakeFAT makes a FAT file system at path; files are copied from the host, by their path in it.
func MakeFAT(ctx context.Context, path string, size int64, files Sources) error {
	if err := run(ctx, "mkfs.vfat", "-C", path, fmt.Sprint(size>>10)); err != nil {
		return err
	}
	made := map[string]bool{}
	for name, from := range files {
		dir := ""
		for _, d := range strings.Split(filepath.Dir(name), "/") {
			if dir += "/" + d; d == "." || made[dir] {
				continue
			}
			made[dir] = true
			if err := run(ctx, "mmd", "-i", path, "::"+dir); err != nil {
				return err
			}
		}
		if err := run(ctx, "mcopy", "-i", path, from, "::/"+name); err != nil {
			return err
		}
	}
	return nil
}

// MakeLoader makes the image of the component boot at path.
func (w *Workshop) MakeLoader(ctx context.Context, path string) error {
	files, err := w.kind.Loader(ctx, w)
	if err != nil {
		return err
	}
	return MakeFAT(ctx, path, w.size("boot_a"), files)
}

func (w *Workshop) size(label string) int64 {
	for _, p := range w.kind.Partitions {
		if p.Name == label {
			return p.Size
		}
	}
	return 0
}

// Disk is the disk of a machine, as a file of the host.
type Disk struct {
	Path    string
	Extents map[string]diskimage.Extent // by label
}

// MakeDisk makes a disk whose bank a holds the images, by component, and provisions it.
func (w *Workshop) MakeDisk(ctx context.Context, path string, images map[string]string) (*Disk, error) {
	extents, err := diskimage.Create(path, diskimage.Layout{Partitions: w.kind.Partitions})
	if err != nil {
		return nil, err
	}
	d := &Disk{Path: path, Extents: map[string]diskimage.Extent{}}
	for i, p := range w.kind.Partitions {
		d.Extents[p.Name] = extents[i]
	}
	for component, image := range images {
		if err := d.Copy(component+"_a", image); err != nil {
			return nil, err
		}
	}
	if err := w.kind.Fill(ctx, w, d); err != nil {
		return nil, err
	}
	// As in an image build: the tree that was installed, and a drop-in that names the image file.
	root := filepath.Join(w.dir, "provision")
	for _, dir := range []string{"usr/lib/fwu-ab", "usr/share/fwu-ab", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, err
		}
		if err := run(ctx, "cp", "-aT", filepath.Join(w.tree, dir), filepath.Join(root, dir)); err != nil {
			return nil, err
		}
	}
	release, err := debugfs(ctx, images["rootfs"], "cat /usr/lib/fwu-ab/release")
	if err != nil {
		return nil, err
	}
	if err := put(root, Files{"etc/fwu-ab/fwu-ab.toml.d/disk.toml": fmt.Sprintf("disk = %q\n", path), "usr/lib/fwu-ab/release": release}); err != nil {
		return nil, err
	}
	return d, run(ctx, w.program, "--root", root, "provision", "--bank", "a")
}

func debugfs(ctx context.Context, image, command string) (string, error) {
	out, err := output(ctx, "debugfs", "-R", command, image)
	return string(out), err
}

// Copy writes a file to the beginning of a partition.
func (d *Disk) Copy(label, file string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	e, ok := d.Extents[label]
	info, err := in.Stat()
	if err != nil || !ok || info.Size() > e.Size {
		return errors.Join(fmt.Errorf("%s does not fit into partition %q", file, label), err)
	}
	return d.write(e.Offset, in)
}

// Wipe fills a partition with zeroes.
func (d *Disk) Wipe(label string) error {
	e, ok := d.Extents[label]
	if !ok {
		return fmt.Errorf("no partition %q", label)
	}
	return d.write(e.Offset, io.LimitReader(zeroes{}, e.Size))
}

func (d *Disk) write(at int64, r io.Reader) error {
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(&sparse{f, at}, r)
	return errors.Join(err, f.Close())
}

// sparse writes what is not zero already.
type sparse struct {
	f  *os.File
	at int64
}

func (s *sparse) Write(p []byte) (int, error) {
	old := make([]byte, len(p))
	if n, err := s.f.ReadAt(old, s.at); err == nil || n == len(p) {
		if string(old) == string(p) {
			s.at += int64(len(p))
			return len(p), nil
		}
	}
	n, err := s.f.WriteAt(p, s.at)
	s.at += int64(n)
	return n, err
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
