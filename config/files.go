package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Where the files are, below the root directory.
const (
	VendorFile  = "/usr/lib/fwu-ab/fwu-ab.toml"
	AdminFile   = "/etc/fwu-ab/fwu-ab.toml"
	ReleaseFile = "/usr/lib/fwu-ab/release"

	dropIns = ".d" // appended to either file: its directory of drop-ins
)

// Bounds of what is read.
const (
	maxFileSize = 256 << 10
	maxDropIns  = 256
)

// tree is the file system below a root directory. Links are followed within it (InTree): not into
// the machine that builds an image.
type tree struct{ root string }

func openTree(root string) (*tree, error) {
	if root == "" {
		root = "/"
	}
	root = filepath.Clean(root)
	if _, err := os.ReadDir(root); err != nil {
		return nil, err
	}
	return &tree{root}, nil
}

// name is how people call the file.
func (t *tree) name(file string) string { return filepath.Join(t.root, file) }

// masked tells whether the file is a link to /dev/null.
func (t *tree) masked(file string) (bool, error) {
	dir, err := InTree(t.root, path.Dir(file))
	if err != nil {
		return false, err
	}
	link := filepath.Join(dir, path.Base(file))
	info, err := os.Lstat(link)
	if err != nil || info.Mode().Type() != fs.ModeSymlink {
		return false, err
	}
	target, err := os.Readlink(link)
	if err != nil {
		return false, err
	}
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(file), target)
	}
	return path.Clean(target) == os.DevNull, nil
}

func (t *tree) isLink(file string) bool {
	dir, err := InTree(t.root, path.Dir(file))
	if err != nil {
		return false
	}
	info, err := os.Lstat(filepath.Join(dir, path.Base(file)))
	return err == nil && info.Mode().Type() == fs.ModeSymlink
}

// read returns the content of a file: nil if it is masked, fs.ErrNotExist in the error if it is not there.
func (t *tree) read(file string) ([]byte, error) {
	if masked, err := t.masked(file); masked || err != nil {
		return nil, t.explain(file, err)
	}
	real, err := InTree(t.root, file)
	if err != nil {
		return nil, t.explain(file, err)
	}
	info, err := os.Stat(real)
	if errors.Is(err, fs.ErrNotExist) && t.isLink(file) { // somebody wanted a file there: it is not absent
		return nil, fmt.Errorf("read %s: a link to a file that does not exist", t.name(file))
	}
	if err != nil {
		return nil, t.explain(file, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", t.name(file))
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, t.explain(file, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, t.explain(file, err)
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("read %s: larger than %d KiB", t.name(file), maxFileSize>>10)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // the byte order mark that some editors put before a text
	if len(data) == 0 {
		return nil, nil
	}
	return data, nil
}

// explain names the file as people call it, not as it is called within the tree.
func (t *tree) explain(file string, err error) error {
	if err == nil {
		return nil
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("read %s: %w", t.name(file), err)
}

// source is a file that counts.
type source struct {
	name string
	data []byte
}

// sources returns what is to be merged, in this order.
func (t *tree) sources() ([]source, error) {
	files, err := t.dropIns()
	if err != nil {
		return nil, err
	}
	main := AdminFile
	data, err := t.read(main)
	if errors.Is(err, fs.ErrNotExist) {
		main = VendorFile
		data, err = t.read(main)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []source
	if data != nil {
		list = append(list, source{t.name(main), data})
	}
	for _, f := range files {
		data, err := t.read(f)
		if err != nil {
			return nil, err
		}
		if data != nil {
			list = append(list, source{t.name(f), data})
		}
	}
	if masked, maskErr := t.masked(main); list == nil && err == nil && !masked && maskErr == nil {
		return nil, fmt.Errorf("no configuration: %s is empty", t.name(main))
	}
	if list == nil {
		return nil, fmt.Errorf("no configuration: neither %s nor %s: %w", t.name(AdminFile), t.name(VendorFile), fs.ErrNotExist)
	}
	return list, nil
}

// dropIns returns the drop-ins in their order, those in /etc in place of those of the same name in /usr/lib.
func (t *tree) dropIns() ([]string, error) {
	found := map[string]string{}
	for _, dir := range []string{VendorFile + dropIns, AdminFile + dropIns} {
		real, err := InTree(t.root, dir)
		if err != nil {
			return nil, t.explain(dir, err)
		}
		entries, err := os.ReadDir(real)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, t.explain(dir, err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".toml") && !strings.HasPrefix(e.Name(), ".") {
				found[e.Name()] = path.Join(dir, e.Name())
			}
		}
	}
	if len(found) > maxDropIns {
		return nil, fmt.Errorf("read %s: more than %d files", t.name(AdminFile+dropIns), maxDropIns)
	}
	var names []string
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = found[name]
	}
	return names, nil
}
