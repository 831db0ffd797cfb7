package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/test/stranger"
)

// limit is how long a test waits for a condition: only a failure takes so long.
const limit = 2 * time.Minute

// user is an ordinary user, who has built the programs and tries them: nobody, if the test runs as
// root.
type user struct {
	t        *testing.T
	programs string
}

func newUser(t *testing.T) user {
	t.Helper()
	for _, tool := range []string{"dbus-daemon", "/usr/sbin/debugfs", "/usr/sbin/mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("FWUAB_TEST_ALL") == "" {
				t.Skipf("missing: %v", err)
			}
			t.Fatal(err)
		}
	}
	u := user{t: t}
	u.programs = u.folder()
	out, err := exec.Command("go", "build", "-o", u.programs, "../../../cmd/fwu-ab", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return u
}

// folder is one of the user's. Its name is short: a socket lies in it.
func (u user) folder() string {
	u.t.Helper()
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			u.t.Error(err)
		}
	})
	err = os.Chmod(dir, 0o755)
	if err == nil && os.Geteuid() == 0 {
		err = os.Chown(dir, stranger.UID, stranger.UID)
	}
	if err != nil {
		u.t.Fatal(err)
	}
	return dir
}

// command is one that the user types in a shell.
func (u user) command(script string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "HOME=/nonexistent", "PATH="+u.programs+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: stranger.UID, Gid: stranger.UID}
	}
	return cmd
}

// a terminal is a lab that runs, with its directory.
type terminal struct {
	user
	dir string
	cmd *exec.Cmd
	out *bufio.Reader
}

// lab starts a lab.
func (u user) lab(dir string) *terminal {
	u.t.Helper()
	l := &terminal{user: u, dir: dir, cmd: u.command("exec fwu-lab -fwu-ab " + u.programs + "/fwu-ab " + dir)}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		u.t.Fatal(err)
	}
	l.out = bufio.NewReader(out)
	l.cmd.Stderr = os.Stderr
	if err := l.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		_ = l.cmd.Process.Kill() // it may have ended
		_ = l.cmd.Wait()
	})
	return l
}

// on waits until the device is on, and returns the output of the lab till then.
func (l *terminal) on() string {
	l.t.Helper()
	var said strings.Builder
	for {
		line, err := l.out.ReadString('\n')
		said.WriteString(line)
		if err != nil {
			l.t.Fatalf("the lab ended: %v\n%s", err, said.String())
		}
		if strings.HasPrefix(line, "  help ") {
			go func() { _, _ = io.Copy(io.Discard, l.out) }() // ends with the lab
			return said.String()
		}
	}
}

// types runs a command in the lab's directory, after ". ./env", and compares its exit code and
// output.
func (l *terminal) types(code int, script string, want ...string) {
	l.t.Helper()
	out, err := l.command("cd " + l.dir + " && . ./env && " + script).CombinedOutput()
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		l.t.Fatal(err)
	}
	if got != code {
		l.t.Fatalf("%s: exit code %d, want %d\n%s", script, got, code, out)
	}
	for _, w := range want {
		if !regexp.MustCompile(w).Match(out) {
			l.t.Fatalf("%s: no match for %s in\n%s", script, w, out)
		}
	}
}

// processes are those with the lab's directory on their command line, beside the lab itself.
func (l *terminal) processes() []string {
	l.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		l.t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		b, _ := os.ReadFile(f) // it may have ended
		if line := string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})); strings.Contains(line, l.dir+"/") && !strings.Contains(line, "fwu-lab") {
			out = append(out, line)
		}
	}
	return out
}

// TestLab is a day in a lab, as an ordinary user, while a second lab runs beside it.
func TestLab(t *testing.T) {
	u := newUser(t)
	first, second := u.lab(filepath.Join(u.folder(), "one")), u.lab(filepath.Join(u.folder(), "two"))
	said := first.on()
	for _, want := range []string{"fwu-ab update rootfs-2.suit --reboot", "busctl --address", "gdbus call --system"} {
		if !strings.Contains(said, want) {
			t.Errorf("the lab does not say %s:\n%s", want, said)
		}
	}
	if strings.Contains(said, "loses nothing") {
		t.Fatalf("a power cut loses nothing:\n%s", said)
	}
	second.on()
	first.types(1, "fwu-lab .", "a lab runs in")

	// The power fails in the middle of a write, past the second checkpoint: the first one counts.
	first.types(0, "fwu-lab . power-cut after 36M", "fails after 37748736 more bytes")
	first.types(1, "fwu-ab update rootfs-2.suit --reboot")
	first.types(0, "fwu-lab . status", "the device is off")
	first.types(1, "fwu-ab status")

	// The lab is killed: nothing of it goes on, and it is resumed.
	if n := len(first.processes()); n != 1 {
		t.Errorf("%d processes, want the bus alone: %q", n, first.processes())
	}
	kill(t, first)
	log, err := os.ReadFile(filepath.Join(first.dir, "service.log"))
	if err != nil || len(log) == 0 {
		t.Errorf("the log of the service has %d bytes: %v", len(log), err)
	}
	first.types(1, "fwu-lab . status", "no lab runs in")
	first = u.lab(first.dir)
	if said := first.on(); !strings.Contains(said, "(resumed)") {
		t.Errorf("the lab is not resumed:\n%s", said)
	}
	first.types(0, "fwu-ab status", "rootfs .*WRITING")
	first.types(0, "fwu-ab update rootfs-2.suit --reboot", "continuing at [0-9]{8} bytes")
	first.types(0, "fwu-lab . status", "the device is on, bank b", "rootfs .*TRIAL")
	first.types(0, "fwu-ab accept")
	first.types(0, "fwu-lab . reset", `\[bootloader\] starting bank b: version 2.0.0`)
	first.types(0, "fwu-ab status", "rootfs .*UPDATED")

	// A reset in a trial is a rollback, and so is a kernel that panics.
	first.types(0, "fwu-ab clean rootfs && fwu-ab update bootfw-2.suit bootfw-2.img --reboot")
	first.types(0, "fwu-lab . status", "bank a", "bootfw .*TRIAL")
	first.types(0, "fwu-lab . reset", `\[bootloader\] starting bank b`)
	first.types(0, "fwu-ab status", "bootfw: trial-reset")
	first.types(0, "fwu-ab clean bootfw && fwu-ab update rootfs-3.suit --reboot")
	first.types(0, "fwu-lab . status", "bank b", "rootfs: trial-not-booted")

	// A power cut while the service runs loses writes that are not flushed, and boot ends it.
	first.types(0, "fwu-lab . power-cut 7", `\[power\] off: \d+ of \d+ sectors that were not flushed are lost \(seed 7\)`)
	first.types(1, "fwu-lab . power-cut", "the device is off")
	first.types(0, "fwu-lab . boot", `\[bootloader\] starting bank b`)
	first.types(1, "fwu-lab . boot", "the device is on")
	first.types(1, "fwu-lab . fly", "no command", "help")
	first.types(1, "fwu-lab . power-cut after 20X", "no size")

	// The second lab has seen nothing of that. quit ends it, and leaves nothing.
	second.types(0, "fwu-ab status", "bank a \\(running, default\\)", "rootfs .*READY", "bootfw .*READY")
	second.types(0, "fwu-lab . quit")
	if err := second.cmd.Wait(); err != nil {
		t.Errorf("quit: %v", err)
	}
	gone(t, second)
	kill(t, first)
}

// kill kills a lab, and its processes end.
func kill(t *testing.T, l *terminal) {
	t.Helper()
	if err := l.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = l.cmd.Wait() // killed
	gone(t, l)
}

func gone(t *testing.T, l *terminal) {
	t.Helper()
	for end := time.Now().Add(limit); len(l.processes()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("they go on: %q", l.processes())
		}
	}
}

func TestADirectoryThatIsNoLab(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t.Context(), dir, "/nonexistent", 0, io.Discard); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("it is taken for a lab: %v", err)
	}
}
