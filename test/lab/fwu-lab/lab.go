package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fwu-ab/fwu-ab/test/lab"
)

const help = `  status                 what runs, what a power cut would lose, and fwu-ab status
  reset                  the reset button: the device boots again
  power-cut [SEED]       the device is off; a part of what it has not flushed is lost, which depends on SEED
  power-cut after SIZE   the same as soon as the service has written SIZE more, as 20M; 0 takes it back
  boot                   switch the device on
  quit                   shut the device down, and end the lab; DIR keeps it
  help                   this text
`

// ready marks a directory in which a device was made completely.
const ready = "lab.ready"

// running is a lab with its device. One goroutine uses it.
type running struct {
	dir, program string
	out          *tee
	machine      *lab.Machine
	lock         *os.File
	listener     net.Listener
	requests     chan request
	done         chan struct{} // closed when the lab ends
}

// open makes the device, if dir has none, and switches it on.
func open(ctx context.Context, dir, program string, rate int64, out io.Writer) (l *running, err error) {
	l = &running{dir: dir, program: program, out: &tee{out: out}, requests: make(chan request), done: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return l, err
	}
	fresh, err := isFresh(dir)
	if err != nil {
		return l, err
	}
	if l.lock, err = lock(dir); err != nil {
		return l, err
	}
	if fresh {
		if err := l.make(ctx); err != nil {
			return l, err
		}
	}
	device, err := lab.Load(ctx, dir)
	if err != nil {
		return l, err
	}
	if l.machine, err = lab.NewMachine(ctx, dir, device, lab.Options{Program: program, Rate: rate, Note: l.say}); err != nil {
		l.machine = nil
		return l, err
	}
	if l.listener, err = listen(dir, l.requests, l.done); err != nil {
		return l, err
	}
	if err := os.WriteFile(filepath.Join(dir, "env"), []byte(l.environment()), 0o600); err != nil {
		return l, err
	}
	if err := l.machine.PowerOn(ctx); err != nil {
		return l, err
	}
	if l.machine.Volatile != nil {
		l.say("power-cut loses nothing on this machine: %v", l.machine.Volatile)
	}
	return l, l.introduce(fresh)
}

// isFresh tells a directory in which a device is to be made from one that has one.
func isFresh(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.Name() == ready {
			return false, nil
		}
	}
	if len(entries) > 0 {
		return false, fmt.Errorf("%s is not empty, and holds no complete lab: remove it, or name another directory", dir)
	}
	return true, nil
}

// make is the factory.
func (l *running) make(ctx context.Context) error {
	l.say("making a device in %s: keys, three versions of a system, a disk with version 1 in bank a", l.dir)
	f := lab.Factory{Dir: l.dir, Program: l.program, Run: l.fwu}
	if err := l.fwu(ctx, "key", "generate", filepath.Join(l.dir, "release")); err != nil {
		return err
	}
	for v := 1; v <= 3; v++ {
		if err := f.Image(ctx, v, v != 3); err != nil {
			return err
		}
	}
	if _, err := f.NewDevice(ctx); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, ready), nil, 0o600)
}

// fwu runs the program fwu-ab.
func (l *running) fwu(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, l.program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fwu-ab %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

func (l *running) say(format string, args ...any) { fmt.Fprintf(l.out, format+"\n", args...) }

// environment is a file for shells: clients of the system bus find the lab's service.
func (l *running) environment() string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	return fmt.Sprintf("export FWU_AB_BUS=%s\nexport DBUS_SYSTEM_BUS_ADDRESS=\"$FWU_AB_BUS\"\nPATH=%s:\"$PATH\"\n",
		quote(l.machine.Bus), quote(filepath.Dir(l.program)))
}

// introduce says which commands to type.
func (l *running) introduce(fresh bool) error {
	name := "fwu-lab"
	if self, err := os.Executable(); err == nil {
		name = self
	}
	state := "resumed"
	if fresh {
		state = "new"
	}
	_, err := fmt.Fprintf(l.out, `
The device is on (%s). In another terminal:

    cd %s
    . ./env                                 # FWU_AB_BUS, DBUS_SYSTEM_BUS_ADDRESS, PATH
    fwu-ab status
    fwu-ab update rootfs-2.suit --reboot    # version 2; rootfs-3.suit has a kernel that panics
    fwu-ab accept                           # or a reset here: version 1 comes back
    fwu-ab clean rootfs
    fwu-ab --root root doctor
    fwu-ab update bootfw-2.suit bootfw-2.img
    busctl --address="$FWU_AB_BUS" introspect org.fwuab.FirmwareUpdate1 /org/fwuab/FirmwareUpdate1/component/0
    gdbus call --system --dest org.fwuab.FirmwareUpdate1 --object-path /org/fwuab/FirmwareUpdate1 \
        --method org.fwuab.FirmwareUpdate1.ListComponents

An agent that uses the system bus finds this device after ". ./env". release.key signs images for it,
root/etc/fwu-ab/fwu-ab.toml configures it, service.log has the log of the service. No boot check runs here:
you accept. Commands, here or as "%s . COMMAND":

%s
`, state, l.dir, name, help)
	return err
}

// run obeys until the lab is to end.
func (l *running) run(ctx context.Context, lines <-chan string) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.machine.RebootAsked():
			l.reboot(ctx)
		case <-l.machine.Failed():
			l.powerFailed()
		case <-l.machine.Ended():
			if !l.settle(ctx) {
				l.say("[service] ended by itself: %v; see %s. boot starts it again", l.machine.Gone(), l.machine.LogFile())
			}
		case line := <-lines:
			quit, err := l.obey(ctx, line)
			if err != nil {
				l.say("%v", err)
			}
			if quit {
				return nil
			}
		case r := <-l.requests:
			if l.serve(ctx, r) {
				return nil
			}
		}
	}
}

// settle does a reboot or a power cut that waits to be done, so that a status after a reboot is
// that of the new system.
func (l *running) settle(ctx context.Context) bool {
	select {
	case <-l.machine.RebootAsked():
		l.reboot(ctx)
	case <-l.machine.Failed():
		l.powerFailed()
	default:
		return false
	}
	return true
}

func (l *running) reboot(ctx context.Context) {
	if err := l.machine.Reboot(ctx); err != nil {
		l.say("%v", err)
	}
}

func (l *running) powerFailed() {
	if err := l.machine.PowerCut(rand.Uint64N(seeds)); err != nil {
		l.say("%v", err)
	}
}

// seeds are few, so that they are easy to type again.
const seeds = 1000

// serve obeys a command from another terminal. It tells there and here of its effects.
func (l *running) serve(ctx context.Context, r request) (quit bool) {
	var told bytes.Buffer
	l.out.also = &told
	quit, err := l.obey(ctx, r.command)
	l.out.also = nil
	answer := reply{Output: told.String()}
	if err != nil {
		l.say("%v", err)
		answer.Error = err.Error()
	}
	r.reply <- answer
	return quit
}

// obey carries out a command.
func (l *running) obey(ctx context.Context, line string) (quit bool, err error) {
	l.settle(ctx)
	words := strings.Fields(line)
	if len(words) == 0 {
		return false, nil
	}
	if words[0] == "power-cut" {
		return false, l.powerCut(words[1:])
	}
	if len(words) > 1 {
		return false, fmt.Errorf("%s takes no arguments; help lists the commands", words[0])
	}
	switch words[0] {
	case "status":
		return false, l.status(ctx)
	case "reset":
		return false, l.machine.Reset(ctx)
	case "boot":
		return false, l.machine.PowerOn(ctx)
	case "quit":
		return true, nil
	case "help":
		l.say("%s", strings.TrimSuffix(help, "\n"))
		return false, nil
	}
	return false, fmt.Errorf("there is no command %q; help lists the commands", words[0])
}

func (l *running) powerCut(args []string) error {
	if len(args) == 2 && args[0] == "after" {
		n, err := parseSize(args[1])
		if err != nil {
			return err
		}
		if err := l.machine.CutAfter(n); err != nil {
			return err
		}
		l.say("[power] fails after %d more bytes", n)
		return nil
	}
	seed := rand.Uint64N(seeds)
	switch len(args) {
	case 0:
	case 1:
		n, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil {
			return fmt.Errorf("the seed %q is no number", args[0])
		}
		seed = n
	default:
		return errors.New("power-cut takes a seed, or: power-cut after SIZE")
	}
	if !l.machine.On() {
		return errors.New("the device is off; boot switches it on")
	}
	return l.machine.PowerCut(seed)
}

func (l *running) status(ctx context.Context) error {
	if !l.machine.On() {
		l.say("the device is off; boot switches it on")
		return nil
	}
	l.say("the device is on, bank %s; a power cut now could lose %d bytes", l.machine.Bank, l.machine.Unflushed())
	out, err := exec.CommandContext(ctx, l.program, "--bus", l.machine.Bus, "status").CombinedOutput()
	if err != nil {
		return fmt.Errorf("fwu-ab status: %w: %s", err, bytes.TrimSpace(out))
	}
	_, err = l.out.Write(out)
	return err
}

// close shuts the device down.
func (l *running) close() error {
	close(l.done)
	var err error
	if l.listener != nil {
		err = errors.Join(err, l.listener.Close())
	}
	if l.machine != nil {
		err = errors.Join(err, l.machine.Close())
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
	}
	return err
}

// parseSize reads a number of bytes; K, M and G are powers of 1024.
func parseSize(s string) (int64, error) {
	number, shift := s, 0
	for unit, n := range map[string]int{"K": 10, "M": 20, "G": 30} {
		if rest, ok := strings.CutSuffix(s, unit); ok {
			number, shift = rest, n
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is no size; say 20M, for example", s)
	}
	return n << shift, nil
}
