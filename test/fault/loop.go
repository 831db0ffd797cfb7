// Package fault has real block devices that fail, for tests: loop devices of this machine's kernel,
// over files whose every access is a call of the test. Tests on them go the program's real way to a
// medium, O_DIRECT and ioctls included. Root and /dev/fuse are needed.
//
// Nothing outlives the process, however it ends: no mount, no loop device, and no thread that waits
// for one of them.
package fault

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// NeedRoot skips a test that is not run by root, or fails it where every test has to run.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		missing(t, "root")
	}
}

// missing skips a test that lacks something, or fails it where every test has to run.
func missing(t testing.TB, thing string) {
	t.Helper()
	if os.Getenv("FWUAB_TEST_ALL") == "" {
		t.Skip("missing: " + thing)
	}
	t.Fatal("missing: " + thing)
}

// attach makes a loop device of an open file, until the test ends, and returns its path.
func attach(t testing.TB, fd int) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatalf("find a free loop device: %v", err)
		}
		path := fmt.Sprint("/dev/loop", n)
		dev, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &unix.LoopConfig{Fd: uint32(fd), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO}})
		if errors.Is(err, unix.EBUSY) { // another process took it first
			dev.Close()
			continue
		}
		if err != nil {
			dev.Close()
			t.Fatalf("attach a file to %s: %v", path, err)
		}
		t.Cleanup(func() { dev.Close() }) // the last close detaches it
		return path
	}
	t.Fatal("no loop device stays free for long enough")
	return ""
}
