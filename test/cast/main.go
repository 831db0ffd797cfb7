// Command cast records a run of the real program on a device of package lab, in a terminal that is
// as wide as a phone's screen, and makes an animated picture of it for the README.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/test/lab"
)

func main() {
	program := flag.String("fwu-ab", "build/fwu-ab", "the program")
	out := flag.String("o", "docs/demo.svg", "the picture")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := record(ctx, *program, *out)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "cast: %v\n", err)
		os.Exit(1)
	}
}

const title = "fwu-ab: an update is cut off by a power cut, goes on, runs on trial, and is accepted; a broken one is rolled back"

// recorder plays scenes on a machine, and records them.
type recorder struct {
	*terminal
	machine *lab.Machine
	dir     string
	path    string // of programs
	last    time.Time
}

func record(ctx context.Context, program, out string) (err error) {
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "cast") // short: a socket lies in it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r := &recorder{terminal: newTerminal(), dir: dir, path: filepath.Dir(program)}
	f := lab.Factory{Dir: dir, Program: program, Run: func(ctx context.Context, args ...string) error {
		if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("fwu-ab %s: %w: %s", args[0], err, out)
		}
		return nil
	}}
	if err := f.Run(ctx, "key", "generate", filepath.Join(dir, "release")); err != nil {
		return err
	}
	for v := 1; v <= 3; v++ {
		if err := f.Image(ctx, v, v != 3); err != nil {
			return err
		}
	}
	device, err := f.NewDevice(ctx)
	if err != nil {
		return err
	}
	silent := true
	note := func(format string, args ...any) {
		if !silent {
			r.pause(400 * time.Millisecond)
			r.write(fmt.Sprintf(format, args...) + "\n")
		}
	}
	if r.machine, err = lab.NewMachine(ctx, dir, device, lab.Options{Program: program, Rate: 16 << 20, Note: note}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.machine.Close()) }()
	if err := r.machine.PowerOn(ctx); err != nil {
		return err
	}
	silent = false
	if err := r.story(ctx); err != nil {
		return err
	}
	r.pause(5 * time.Second)
	return os.WriteFile(out, []byte(picture(r.terminal, title, r.now)), 0o644)
}

// story is the run that is recorded.
func (r *recorder) story(ctx context.Context) error {
	const update = "fwu-ab update rootfs-2.suit --reboot"
	if err := r.machine.CutAfter(36 << 20); err != nil {
		return err
	}
	r.comment("the power fails in the middle of an update")
	if err := r.types(ctx, update, 1); err != nil {
		return err
	}
	<-r.machine.Failed()
	if err := r.machine.PowerCut(1); err != nil {
		return err
	}
	if err := r.machine.PowerOn(ctx); err != nil {
		return err
	}
	r.comment("it goes on, and the new system starts on trial")
	if err := r.types(ctx, update, 0); err != nil {
		return err
	}
	<-r.machine.RebootAsked()
	if err := r.machine.Reboot(ctx); err != nil {
		return err
	}
	if err := r.types(ctx, "fwu-ab status | grep next", 0); err != nil {
		return err
	}
	if err := r.types(ctx, "fwu-ab accept", 0); err != nil {
		return err
	}
	r.comment("version 3 does not come up: nobody is needed")
	if err := r.types(ctx, "fwu-ab clean rootfs", 0); err != nil {
		return err
	}
	if err := r.types(ctx, "fwu-ab update rootfs-3.suit --reboot", 0); err != nil {
		return err
	}
	<-r.machine.RebootAsked()
	if err := r.machine.Reboot(ctx); err != nil {
		return err
	}
	return r.types(ctx, "fwu-ab status | grep rootfs:", 0)
}

// pause lets time go by in the picture.
func (r *recorder) pause(d time.Duration) { r.now += d }

func (r *recorder) comment(text string) {
	if len(r.seen) > 0 {
		r.pause(1500 * time.Millisecond)
		r.write("\n")
	}
	r.write("# " + text + "\n")
	r.pause(time.Second)
}

// types types a command and runs it in a shell, and compares its exit code.
func (r *recorder) types(ctx context.Context, command string, code int) error {
	r.pause(500 * time.Millisecond)
	r.write("$ ")
	for rest := command; rest != ""; {
		n := min(4, len(rest))
		r.write(rest[:n])
		rest = rest[n:]
		r.pause(80 * time.Millisecond)
	}
	r.write("\n")
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "FWU_AB_BUS="+r.machine.Bus, "PATH="+r.path+":"+os.Getenv("PATH"))
	if err := r.run(cmd); err != nil {
		return err
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		return fmt.Errorf("%s: exit code %d, want %d:\n%s", command, got, code, r.text())
	}
	return nil
}

// text is everything that was shown, at its end.
func (r *recorder) text() string {
	var b strings.Builder
	for _, l := range r.lines {
		b.WriteString(string(l) + "\n")
	}
	return b.String()
}

// The longest time without a change in the picture, and the shortest time for which one is seen.
const longest, shortest = time.Second, 150 * time.Millisecond

// run runs a command on a terminal of its own and records its output.
func (r *recorder) run(cmd *exec.Cmd) error {
	ours, theirs, err := openTerminal()
	if err != nil {
		return err
	}
	defer ours.Close()
	cmd.Stdout, cmd.Stderr = theirs, theirs
	err = cmd.Start()
	if closeErr := theirs.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	r.last = time.Now()
	buf := make([]byte, 64<<10)
	for {
		n, err := ours.Read(buf)
		if n > 0 {
			r.pause(max(shortest, min(longest, time.Since(r.last))))
			r.last = time.Now()
			r.write(string(buf[:n]))
		}
		if err != nil { // EIO: the terminal's other side is closed
			break
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// openTerminal makes a pseudo terminal (pty(7)).
func openTerminal() (ours, theirs *os.File, err error) {
	if ours, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = ours.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	if theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	if err = unix.IoctlSetWinsize(int(ours.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		_ = theirs.Close()
	}
	return ours, theirs, err
}
