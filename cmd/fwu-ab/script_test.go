package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/partition/diskimage"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fwu-ab": main})
}

func TestScripts(t *testing.T) {
	if _, err := exec.LookPath("dbus-daemon"); err != nil && os.Getenv("FWUAB_TEST_ALL") == "" {
		t.Skip("dbus-daemon is missing")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": codeCmd, "device": deviceCmd, "boot": bootCmd, "fill": fillCmd, "wipe": wipeCmd, "up": upCmd,
		},
	})
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

// device makes a disk, the tree root/ of a booted system, and a message bus: device
func deviceCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: device")
	}
	const slot = 1 << 20
	layout := diskimage.Layout{Partitions: []diskimage.Partition{
		{Name: "uboot-env", Size: 128 << 10}, {Name: "rootfs_a", Size: slot}, {Name: "rootfs_b", Size: slot},
		{Name: "bootfw_a", Size: slot}, {Name: "bootfw_b", Size: slot}, {Name: "fwu-store", Size: slot},
	}}
	extents, err := diskimage.Create(ts.MkAbs("disk.img"), layout)
	ts.Check(err)
	for i, p := range layout.Partitions {
		ts.Setenv("AT_"+strings.ReplaceAll(p.Name, "-", "_"), strconv.FormatInt(extents[i].Offset, 10))
	}
	for name, content := range map[string]string{
		"etc/fwu-ab/fwu-ab.toml":         fmt.Sprintf(deviceConfig, ts.MkAbs("disk.img")),
		"usr/lib/fwu-ab/release":         "[rootfs]\nversion = \"1.0.0\"\nsequence = 1\n[bootfw]\nversion = \"1.0.0\"\nsequence = 1\n",
		"usr/share/fwu-ab/env":           "bootcmd=run fwu_ab\n",
		"proc/cmdline":                   "fwu.bank=a\n",
		"proc/sys/kernel/random/boot_id": bootID("0"),
	} {
		writeTree(ts, name, content)
	}
	for _, dir := range []string{"run", "var/lock", "etc/fwu-ab/keys", "etc/fwu-ab/fwu-ab.toml.d"} {
		ts.Check(os.MkdirAll(ts.MkAbs("root/"+dir), 0o755))
	}
	dir, err := os.MkdirTemp("", "fwu") // the path of a socket is short
	ts.Check(err)
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	address, stop, err := privatebus.Start(context.Background(), dir)
	ts.Check(err)
	ts.Defer(func() { _ = stop() })
	ts.Setenv("FWU_AB_BUS", address)
}

const deviceConfig = `disk = %q
[store]
device = "PARTLABEL=fwu-store"
[selector]
type = "uboot"
[selector.uboot]
scheme = "one-shot"
copies = [
  {device = "PARTLABEL=uboot-env", offset = 0x0, size = 0x10000},
  {device = "PARTLABEL=uboot-env", offset = -65536, size = 0x10000},
]
default-environment = "/usr/share/fwu-ab/env"
[identity]
vendor-name = "example.com"
class-name = "board"
[trust]
keys = ["/etc/fwu-ab/keys"]
[component.rootfs]
id = 0
slots = {a = "PARTLABEL=rootfs_a", b = "PARTLABEL=rootfs_b"}
[component.bootfw]
id = 1
manifest = "bundled"
slots = {a = "PARTLABEL=bootfw_a", b = "PARTLABEL=bootfw_b"}
`

func writeTree(ts *testscript.TestScript, name, content string) {
	path := ts.MkAbs(filepath.Join("root", name))
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, []byte(content), 0o644))
}

// up waits until the service answers: up
func upCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: up")
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		c, err := dbus.Dial(context.Background(), ts.Getenv("FWU_AB_BUS"))
		if err == nil {
			ts.Check(c.Close())
			return
		}
	}
	ts.Fatalf("the service does not come up")
}

func bootID(n string) string { return fmt.Sprintf("00000000-0000-4000-8000-%012s\n", n) }

// boot makes the tree that of a system that was booted: boot N CMDLINE...
func bootCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: boot N cmdline...")
	}
	line := ""
	for _, a := range args[1:] {
		line += a + " "
	}
	writeTree(ts, "proc/cmdline", line+"\n")
	writeTree(ts, "proc/sys/kernel/random/boot_id", bootID(args[0]))
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
	if neg || len(args) != 3 {
		ts.Fatalf("usage: wipe base offset size")
	}
	var n [3]int64
	for i, a := range args {
		v, err := strconv.ParseInt(a, 10, 64)
		ts.Check(err)
		n[i] = v
	}
	f, err := os.OpenFile(ts.MkAbs("disk.img"), os.O_RDWR, 0)
	ts.Check(err)
	b := make([]byte, n[2])
	for i := range b {
		b[i] = 0xa5
	}
	_, err = f.WriteAt(b, n[0]+n[1])
	ts.Check(err)
	ts.Check(f.Close())
}
