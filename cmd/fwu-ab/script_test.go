package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/test/lab"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if arguments := os.Getenv(stormVariable); arguments != "" {
		if err := stormMain(arguments); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testscript.Main(m, map[string]func(){"fwu-ab": main})
}

func TestScripts(t *testing.T) {
	needTools(t, "dbus-daemon")
	testscript.Run(t, scripts("testdata/script"))
}

// scripts are those of a directory, which run the program on devices without hardware.
func scripts(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": codeCmd, "device": deviceCmd, "boot": bootCmd, "fill": fillCmd, "wipe": wipeCmd, "up": upCmd, "configure": configureCmd, "efivar": efivarCmd, "loop": loopCmd,
		},
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return os.Getuid() == 0 || os.Getenv("FWUAB_TEST_ALL") != "", nil // where everything has to run, it fails without
		},
	}
}

// code runs a command and compares its exit code: code N COMMAND ARGS...
func codeCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\n%s%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// device makes a device that was booted from bank a, and a message bus: device
func deviceCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: device")
	}
	d, err := lab.New(ts.MkAbs("."), 1<<20, 1<<20, "detached")
	ts.Check(err)
	ts.Check(d.Write("usr/lib/fwu-ab/release", "[rootfs]\nversion = \"1.0.0\"\nsequence = 1\n[bootfw]\nversion = \"1.0.0\"\nsequence = 1\n"))
	ts.Check(d.Booted(0, "fwu.bank=a"))
	dir, err := os.MkdirTemp("", "fwu") // the path of a socket is short
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	address, stop, err := privatebus.Start(context.Background(), dir)
	ts.Check(err)
	ts.Defer(func() { _ = stop() })
	ts.Setenv("FWU_AB_BUS", address)
	parts, err := partition.Finder{Disk: d.Disk}.Partitions(context.Background())
	ts.Check(err)
	for _, p := range parts {
		ts.Setenv("UUID_"+strings.ReplaceAll(p.Label, "-", "_"), p.UUID)
	}
	for name, e := range d.Extents {
		ts.Setenv("AT_"+strings.ReplaceAll(name, "-", "_"), strconv.FormatInt(e.Offset, 10))
	}
}

// configure adds a file, in which variables are replaced, to the configuration: configure FILE
func configureCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: configure file")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs("root/etc/fwu-ab/fwu-ab.toml.d/10-configure.toml"), []byte(text), 0o644))
}

// loopCmd makes a loop device of a file, and $LOOP its path: loop FILE. If the file is truncated,
// the kernel answers EIO for the blocks that are missing, until they are written.
func loopCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: loop file")
	}
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", ts.MkAbs(args[0])).CombinedOutput()
	if err != nil {
		ts.Fatalf("losetup: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	ts.Defer(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			ts.Logf("losetup: %v: %s", err, out)
		}
	})
	ts.Setenv("LOOP", device)
}

// efivar writes a variable of the UEFI boot manager as firmware does, or deletes it: efivar NAME [HEX]. Four digits are a number.
func efivarCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: efivar name [hex]")
	}
	path := ts.MkAbs("root/sys/firmware/efi/efivars/" + args[0] + "-8be4df61-93ca-11d2-aa0d-00e098032b8c")
	if len(args) == 1 {
		ts.Check(os.Remove(path))
		return
	}
	data, err := hex.DecodeString(args[1])
	ts.Check(err)
	if len(data) == 2 {
		slices.Reverse(data)
	}
	ts.Check(os.WriteFile(path, append([]byte{7, 0, 0, 0}, data...), 0o644))
}

// up waits until the service answers: up
func upCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: up")
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		c, err := dbus.Dial(context.Background(), ts.Getenv("FWU_AB_BUS"))
		if err == nil {
			ts.Check(c.Close())
			return
		}
	}
	ts.Fatalf("the service does not come up")
}

// boot makes the tree that of a system that was booted: boot N CMDLINE...
func bootCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: boot N cmdline...")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	d := lab.Device{Root: ts.MkAbs("root")}
	ts.Check(d.Booted(n, strings.Join(args[1:], " ")))
}

// fill makes a file of bytes that depend on a number: fill FILE SIZE N
func fillCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: fill file size n")
	}
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	b := make([]byte, size)
	for i := range b {
		b[i] = byte((i*7 + i>>8*13 + n*31) % 251)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
}

// wipe overwrites bytes of the disk: wipe BASE OFFSET SIZE
func wipeCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: wipe base offset size [byte]")
	}
	n := [4]int64{3: 0xa5}
	for i, a := range args {
		v, err := strconv.ParseInt(a, 10, 64)
		ts.Check(err)
		n[i] = v
	}
	f, err := os.OpenFile(ts.MkAbs("disk.img"), os.O_RDWR, 0)
	ts.Check(err)
	b := make([]byte, n[2])
	for i := range b {
		b[i] = byte(n[3])
	}
	_, err = f.WriteAt(b, n[0]+n[1])
	ts.Check(err)
	ts.Check(f.Close())
}
