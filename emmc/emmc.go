// Package emmc lifts the write protection that Linux puts on the boot partitions of an eMMC,
// /dev/mmcblk0boot0 and boot1, and puts it back.
//
// The kernel shows it as the file force_ro of the disk in sysfs
// (Documentation/driver-api/mmc/mmc-dev-attrs.rst): 1 refuses all writes, 0 takes them. RAUC and
// libubootenv do the same.
package emmc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Protected tells whether the disk with this directory in sysfs has force_ro set. A disk that has
// no such file is not protected.
func Protected(dir string) (bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, "force_ro"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return strings.TrimSpace(string(b)) != "0", nil
}

// Unprotect lifts the protection, if there is one. protect restores the earlier setting; it does
// nothing if there was none.
func Unprotect(dir string) (protect func() error, err error) {
	set, err := Protected(dir)
	if err != nil || !set {
		return func() error { return nil }, err
	}
	if err := put(dir, "0"); err != nil {
		return nil, err
	}
	return func() error { return put(dir, "1") }, nil
}

func put(dir, value string) error {
	path := filepath.Join(dir, "force_ro")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set force_ro to %s: %w", value, err)
	}
	return nil
}
