package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxLinks is how many symbolic links a path may go through, as for the kernel.
const maxLinks = 40

// InTree is where the file at the absolute path name of the system in the directory root lies:
// links are followed as if root were "/", absolute ones too, and none leads out of it. What does
// not exist is where it would be. The tree must not change meanwhile.
func InTree(root, name string) (string, error) {
	if root = filepath.Clean(root); root == "/" || root == "." {
		return name, nil
	}
	done, rest := "/", name // done is resolved, and is a path in the tree
	for links := 0; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		next := filepath.Join(done, part) // ".." ends at "/"
		info, err := os.Lstat(filepath.Join(root, next))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err != nil || info.Mode().Type() != fs.ModeSymlink {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: too many symbolic links", filepath.Join(root, name))
		}
		target, err := os.Readlink(filepath.Join(root, next))
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			done = "/"
		}
		rest = target + "/" + rest
	}
	return filepath.Join(root, done), nil
}
