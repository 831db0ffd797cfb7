package stranger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestOnlyFIsTheStranger(t *testing.T) {
	Need(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() error {
		f, err := os.Open(secret)
		if err == nil {
			f.Close()
		}
		return err
	}
	if err := Do(open); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the stranger opens a file of root: %v", err)
	}
	if err := Do(func() error {
		if uid, _, _ := syscall.RawSyscall(syscall.SYS_GETUID, 0, 0, 0); uid != UID {
			t.Errorf("user is %d", uid)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := open(); err != nil {
		t.Errorf("root: %v", err)
	}
	if err := os.Chmod(secret, 0); err != nil {
		t.Fatal(err)
	}
	if err := Unprivileged(open); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("root without capabilities opens a file that nobody may: %v", err)
	}
}
