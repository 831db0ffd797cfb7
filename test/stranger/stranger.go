// Package stranger lets a test act as an unprivileged user of the machine: with the user's real
// credentials, as the kernel, the bus and polkit see them.
package stranger

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// UID is the user that strangers are, nobody: the bus wants a user with an account.
const UID = 65534

// TB has the methods of a testing.TB that Need uses.
type TB interface {
	Helper()
	Skip(args ...any)
	Fatal(args ...any)
}

// Need skips a test that does not run as root, or fails it where every test has to run: nobody else
// can become a stranger.
func Need(t TB) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("FWUAB_TEST_ALL") == "":
		t.Skip("missing: root, to act as another user")
	default:
		t.Fatal("missing: root, to act as another user")
	}
}

// Do runs f as the user UID, without groups and capabilities. Only system calls that f makes in its
// own goroutine are the stranger's. A connection that f opens stays the stranger's, whoever uses it
// later.
func Do(f func() error) error { return As(UID, f) }

// As is Do as user uid.
func As(uid uint32, f func() error) error {
	return onThread(func() error {
		for _, call := range []struct {
			name       string
			trap, a, b uintptr
		}{{"setgroups", syscall.SYS_SETGROUPS, 0, 0}, {"setresgid", syscall.SYS_SETRESGID, uintptr(uid), uintptr(uid)}, {"setresuid", syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid)}} {
			if _, _, errno := syscall.RawSyscall(call.trap, call.a, call.b, call.b); errno != 0 {
				return fmt.Errorf("%s as user %d: %w", call.name, uid, errno)
			}
		}
		return nil
	}, f)
}

// onThread runs prepare and f on a thread that ends with them: changes that prepare makes to the
// thread reach nobody else.
func onThread(prepare, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := prepare()
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
