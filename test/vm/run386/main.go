// Command run386 runs 32-bit tests where the machine itself may be unable to.
//
//	run386 where                 prints "host" if this machine runs 32-bit programs, else "vm"
//	run386 vm go test ./...      runs a go command whose 32-bit test programs run in a virtual machine
//
// In the second form the go command gets this program as its -exec: it hands each test program to
// the virtual machine and passes on its output and its exit code.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fwu-ab/fwu-ab/test/vm"
	"github.com/fwu-ab/fwu-ab/test/vm/agent/wire"
)

// socketVariable tells the program under -exec where the virtual machine is.
const socketVariable = "FWUAB_RUN386_SOCKET"

// limit is how long a test program may run; its own -timeout ends it earlier.
const limit = 6 * time.Hour

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "run386:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (int, error) {
	if socket := os.Getenv(socketVariable); socket != "" && len(args) > 0 {
		return pass(socket, args)
	}
	switch {
	case len(args) == 1 && args[0] == "where":
		ok, err := here(ctx)
		if err != nil {
			return 0, err
		}
		where := "vm"
		if ok {
			where = "host"
		}
		fmt.Println(where)
		return 0, nil
	case len(args) > 2 && args[0] == "vm":
		return inVM(ctx, args[1:])
	}
	return 0, errors.New("usage: run386 where | run386 vm go test [arguments]")
}

// here tells whether this machine runs 32-bit programs by itself. A program that runs in an
// emulator does not count: Go's tests hang there.
func here(ctx context.Context) (_ bool, err error) {
	dir, err := os.MkdirTemp("", "run386-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tiny := filepath.Join(dir, "tiny")
	build := exec.CommandContext(ctx, "go", "build", "-o", tiny, "./test/vm/run386/tiny")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=386", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		return false, fmt.Errorf("build a 32-bit program: %w: %s", err, out)
	}
	cmd := exec.CommandContext(ctx, tiny)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return false, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, syscall.ENOEXEC) {
			return false, nil
		}
		return false, fmt.Errorf("start a 32-bit program: %w", err)
	}
	line := make([]byte, len("32\n"))
	_, readErr := io.ReadFull(stdout, line)
	image, linkErr := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid))
	if err := errors.Join(stdin.Close(), linkErr); err != nil {
		return false, errors.Join(err, cmd.Wait())
	}
	native := readErr == nil && string(line) == "32\n" && image == tiny
	return cmd.Wait() == nil && native, nil
}

// inVM runs a go command with a virtual machine for its test programs.
func inVM(ctx context.Context, args []string) (_ int, err error) {
	top, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "run386-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	begin := time.Now()
	guest, err := vm.MakeGuest(ctx)
	if err != nil {
		return 0, err
	}
	console, err := os.Create(filepath.Join(dir, "console"))
	if err != nil {
		return 0, err
	}
	defer console.Close()
	machine, err := guest.On(ctx, top, dir, console)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, machine.Off()) }()
	up, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if _, err := machine.WaitAgent(up); err != nil {
		text, _ := os.ReadFile(console.Name())
		return 0, fmt.Errorf("%w; its console:\n%s", err, text)
	}
	fmt.Printf("32-bit programs run in a virtual machine, which is up after %.0f s\n", time.Since(begin).Seconds())

	socket := filepath.Join(dir, "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return 0, err
	}
	s := &server{machine: machine}
	served := make(chan struct{})
	go func() { defer close(served); s.serve(ctx, listener) }()
	defer func() { <-served }()
	defer listener.Close()

	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	words := append([]string{args[0]}, append([]string{args[1], "-ldflags", "-s -w", "-exec", self}, args[2:]...)...)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(os.Environ(), socketVariable+"="+socket, "CGO_ENABLED=0", "GOARCH=386", "GOOS=linux")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// order asks the server to run a test program; piece is an answer. The last piece has no output.
type (
	order struct {
		Args []string
		Dir  string
		Env  []string
	}
	piece struct {
		Out   string
		Ended bool
		Code  int
		Err   string
	}
)

// pass hands a test program to the server and passes its output on.
func pass(socket string, args []string) (int, error) {
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	o := order{Args: args, Dir: dir}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "FWUAB_") && !strings.HasPrefix(v, socketVariable) {
			o.Env = append(o.Env, v)
		}
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(o); err != nil {
		return 0, err
	}
	answers := json.NewDecoder(conn)
	for {
		var p piece
		if err := answers.Decode(&p); err != nil {
			return 0, fmt.Errorf("the virtual machine is gone: %w", err)
		}
		if _, err := os.Stdout.WriteString(p.Out); err != nil {
			return 0, err
		}
		if p.Ended {
			if p.Err != "" {
				return 0, errors.New(p.Err)
			}
			return p.Code, nil
		}
	}
}

// server runs test programs in a virtual machine.
type server struct {
	machine *vm.RunningGuest
	count   atomic.Int32
}

// serve takes orders until the listener is closed, and returns when the last one is done.
func (s *server) serve(ctx context.Context, l net.Listener) {
	open := make(chan struct{}, 64)
	for {
		conn, err := l.Accept()
		if err != nil {
			break
		}
		open <- struct{}{}
		go func() {
			defer func() { <-open }()
			defer conn.Close()
			var o order
			if json.NewDecoder(conn).Decode(&o) != nil {
				return
			}
			out := writer{json.NewEncoder(conn)}
			end := piece{Ended: true}
			code, err := s.run(ctx, o, out)
			if end.Code = code; err != nil {
				end.Err = err.Error()
			}
			_ = out.to.Encode(end) // a go command that was interrupted does not listen
		}()
	}
	for range cap(open) {
		open <- struct{}{}
	}
}

func (s *server) run(ctx context.Context, o order, out io.Writer) (int, error) {
	program := fmt.Sprintf("/var/tmp/%d-%s", s.count.Add(1), filepath.Base(o.Args[0]))
	if err := s.machine.PutProgram(ctx, program, o.Args[0]); err != nil {
		return 0, err
	}
	q := wire.Request{Args: append([]string{program}, o.Args[1:]...), Dir: o.Dir, Env: o.Env, Seconds: int(limit.Seconds())}
	reply, err := s.machine.ExecStream(ctx, q, out)
	if err != nil {
		return 0, err
	}
	if reply.Code < 0 {
		return 0, fmt.Errorf("%s in the virtual machine: %s", program, reply.Err)
	}
	if _, err := s.machine.Exec(ctx, "rm", program); err != nil {
		return 0, err
	}
	return reply.Code, nil
}

// writer sends output as pieces.
type writer struct{ to *json.Encoder }

func (w writer) Write(p []byte) (int, error) {
	return len(p), w.to.Encode(piece{Out: string(p)})
}
