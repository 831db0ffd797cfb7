package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// CheckOwners returns an error for each of the paths that others than root can change: the file, or
// the folder that it lies in. The user and the group that this program runs as count as root, for a
// demonstration. A path that does not exist is right.
func CheckOwners(paths ...string) error {
	var errs []error
	seen := map[string]bool{}
	for _, path := range paths {
		for _, p := range []string{filepath.Dir(path), path} {
			if !seen[p] {
				errs = append(errs, checkOwner(p))
			}
			seen[p] = true
		}
	}
	return errors.Join(errs...)
}

func checkOwner(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look who can write %s: %w", path, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&os.ModeDevice != 0 { // a link to /dev/null masks a file
		return nil
	}
	mode := info.Mode().Perm()
	switch {
	case st.Uid != 0 && uint64(st.Uid) != uint64(os.Geteuid()):
		return fmt.Errorf("%s belongs to user %d (mode %04o): chown root %s", path, st.Uid, mode, path)
	case mode&0o002 != 0:
		return fmt.Errorf("%s can be written by every user (mode %04o): chmod o-w %s", path, mode, path)
	case mode&0o020 != 0 && st.Gid != 0 && uint64(st.Gid) != uint64(os.Getegid()):
		return fmt.Errorf("%s can be written by group %d (mode %04o): chmod g-w %s", path, st.Gid, mode, path)
	}
	return nil
}

// Folders returns those that the configuration is read from, below root.
func Folders(root string) []string {
	return []string{filepath.Join("/", root, VendorFile+dropIns), filepath.Join("/", root, AdminFile+dropIns)}
}
