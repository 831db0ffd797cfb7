package vm

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/test/vm/agent/wire"
)

// Exit is how a machine ended.
type Exit string

// How a machine ends. It never resets in place: each boot is a QEMU of its own on the same files, which costs less than a warm reset and keeps nothing in memory.
const (
	Reset    Exit = "guest-reset"
	PowerOff Exit = "guest-shutdown"
	Quit     Exit = "host-qmp-quit"
	Killed   Exit = "killed"
)

// Hardware is what a QEMU is started with.
type Hardware struct {
	Arch     string   // "": amd64
	Machine  string   // QEMU's name of it
	Firmware []string // arguments for the firmware
	Memory   int      // MiB; 0 means 512
	Disks    []string // arguments for -blockdev, in the order of their NVMe controllers; each needs the node name "disk<n>"
	More     []string
	Console  io.Writer // takes what the serial console prints; not nil
}

// Running is a machine that is switched on.
type Running struct {
	cmd     *exec.Cmd
	qmp     *qmp
	agent   *agent
	console *console
	done    chan struct{}
}

// Start switches a machine on. It is killed when ctx ends.
func Start(ctx context.Context, h Hardware) (*Running, error) {
	memory := cmp.Or(h.Memory, 512)
	program, cpu := "qemu-system-x86_64", "max,-aes"
	if h.Arch == arm64 {
		program, cpu = "qemu-system-aarch64", "max,pauth-impdef=on"
	}
	args := []string{
		"-machine", h.Machine, "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", "2", "-m", fmt.Sprint(memory), "-nodefaults", "-display", "none", "-no-reboot", "-no-user-config",
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=console,fd=4", "-serial", "chardev:console",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,fd=5", "-device", "virtserialport,chardev=agent,name=" + wire.Port,
	}
	args = append(args, h.Firmware...)
	for i, d := range h.Disks {
		args = append(args, "-blockdev", d, "-device", fmt.Sprintf("nvme,drive=disk%d,serial=disk%d", i, i))
	}
	r := &Running{done: make(chan struct{})}
	var ours [3]net.Conn
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
	}()
	for i := range ours {
		conn, file, err := socketPair()
		if err != nil {
			return nil, errors.Join(err, closeAll(ours[:i]))
		}
		ours[i], theirs = conn, append(theirs, file)
	}
	r.cmd = exec.CommandContext(ctx, program, append(args, h.More...)...)
	r.cmd.ExtraFiles = theirs
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing is left running when the tests are killed
	var stderr bytes.Buffer
	r.cmd.Stderr = &stderr
	if err := r.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start QEMU: %w", err), closeAll(ours[:]))
	}
	r.qmp, r.console, r.agent = newQMP(ours[0]), newConsole(ours[1], h.Console), newAgent(ours[2])
	go func() {
		defer close(r.done)
		err := r.cmd.Wait()
		_ = closeAll(ours[:])
		r.qmp.wait()
		r.console.wait()
		r.agent.wait()
		if r.qmp.exit == "" {
			r.qmp.exit = Killed
			if err != nil && stderr.Len() > 0 && ctx.Err() == nil {
				r.qmp.err = fmt.Errorf("QEMU: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
			}
		}
	}()
	return r, nil
}

func closeAll(conns []net.Conn) error {
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// socketPair returns a connection, and the other end of it for a child process.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest")
	defer mine.Close()
	conn, err := net.FileConn(mine)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return conn, theirs, nil
}

// Wait waits until the machine is off, and tells how it ended.
func (r *Running) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-r.done:
		return r.qmp.exit, r.qmp.err
	case <-ctx.Done():
		return "", fmt.Errorf("wait for the end of the machine: %w", context.Cause(ctx))
	}
}

// Kill ends the machine at once: to the guest, the power is gone, but what it had written to the disk is there.
func (r *Running) Kill() {
	_ = r.cmd.Process.Kill() // it may have ended
	<-r.done
}

// Press resets the machine as its reset button does, and waits for its end.
func (r *Running) Press(ctx context.Context) error {
	if err := r.qmp.send("system_reset"); err != nil {
		return err
	}
	_, err := r.Wait(ctx)
	return err
}

// WaitAgent waits until the agent of the guest is up, and returns the boot id.
func (r *Running) WaitAgent(ctx context.Context) (string, error) {
	select {
	case id := <-r.agent.hello:
		return id, nil
	case <-r.done:
		return "", errors.Join(fmt.Errorf("the machine ended (%s) before its agent was up", r.qmp.exit), r.qmp.err)
	case <-ctx.Done():
		return "", fmt.Errorf("wait for the guest's agent: %w", context.Cause(ctx))
	}
}

// Exec runs a command in the guest.
func (r *Running) Exec(ctx context.Context, args ...string) (wire.Reply, error) {
	return r.do(ctx, wire.Request{Args: args, Seconds: 600}, nil)
}

// ExecStream runs the command of q in the guest. While it runs, its output is written to w.
func (r *Running) ExecStream(ctx context.Context, q wire.Request, w io.Writer) (wire.Reply, error) {
	q.Stream = true
	return r.do(ctx, q, w)
}

func (r *Running) do(ctx context.Context, q wire.Request, w io.Writer) (wire.Reply, error) {
	reply, err := r.agent.do(ctx, q, w)
	if err != nil {
		return reply, fmt.Errorf("%q in the guest: %w", q.Args, err)
	}
	return reply, nil
}

// WaitConsole waits until the console has printed something that matches.
func (r *Running) WaitConsole(ctx context.Context, what *regexp.Regexp) error {
	err := r.console.find(ctx, what)
	if err != nil {
		err = fmt.Errorf("wait for %q on the console: %w", what, err)
	}
	return err
}

// qmp is the monitor connection (QEMU Machine Protocol).
type qmp struct {
	conn  net.Conn
	ended chan struct{}
	exit  Exit // these two once ended is closed
	err   error
}

func newQMP(conn net.Conn) *qmp {
	q := &qmp{conn: conn, ended: make(chan struct{})}
	go q.read()
	return q
}

func (q *qmp) read() {
	defer close(q.ended)
	d := json.NewDecoder(q.conn)
	for {
		var m struct {
			QMP   json.RawMessage
			Event string
			Data  struct{ Reason string }
			Error struct{ Desc string }
		}
		if err := d.Decode(&m); err != nil {
			return // closed
		}
		switch {
		case m.QMP != nil:
			q.err = q.send("qmp_capabilities")
		case m.Event == "SHUTDOWN":
			q.exit = Exit(m.Data.Reason)
		case m.Error.Desc != "":
			q.err = fmt.Errorf("QMP: %s", m.Error.Desc)
		}
	}
}

func (q *qmp) send(command string) error {
	_, err := fmt.Fprintf(q.conn, `{"execute": %q}`+"\n", command)
	if err != nil {
		err = fmt.Errorf("QMP %s: %w", command, err)
	}
	return err
}

func (q *qmp) wait() { <-q.ended }

// console keeps what the serial line prints.
type console struct {
	mu    sync.Mutex
	text  []byte
	more  chan struct{} // closed when there is more
	ended chan struct{}
}

func newConsole(conn net.Conn, w io.Writer) *console {
	c := &console{more: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			_, _ = w.Write(b[:n]) // a log
			c.mu.Lock()
			c.text = append(c.text, b[:n]...)
			close(c.more)
			c.more = make(chan struct{})
			c.mu.Unlock()
		}
	}()
	return c
}

func (c *console) find(ctx context.Context, what *regexp.Regexp) error {
	for {
		c.mu.Lock()
		found, more := what.Match(c.text), c.more
		c.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-more:
		case <-c.ended:
			return io.EOF
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (c *console) wait() { <-c.ended }

// agent is the connection to the guest's agent.
type agent struct {
	conn  net.Conn
	hello chan string
	ended chan struct{}

	mu      sync.Mutex
	last    int
	waiting map[int]call
}

// call is a command that runs in the guest.
type call struct {
	output io.Writer // takes the pieces of a stream
	done   chan wire.Reply
}

func newAgent(conn net.Conn) *agent {
	a := &agent{conn: conn, hello: make(chan string, 1), ended: make(chan struct{}), waiting: map[int]call{}}
	go a.read()
	return a
}

func (a *agent) read() {
	defer close(a.ended)
	lines := bufio.NewScanner(a.conn)
	lines.Buffer(nil, wire.MaxLine)
	for lines.Scan() {
		var reply wire.Reply
		if json.Unmarshal(lines.Bytes(), &reply) != nil { // the rest of a line of an agent that was killed
			continue
		}
		if reply.ID == 0 {
			select {
			case a.hello <- reply.Out:
			default: // the agent was restarted
			}
			continue
		}
		a.mu.Lock()
		c, ok := a.waiting[reply.ID]
		if !reply.More {
			delete(a.waiting, reply.ID)
		}
		a.mu.Unlock()
		switch {
		case !ok:
		case reply.More:
			_, _ = io.WriteString(c.output, reply.Out) // it is for people to read
		default:
			c.done <- reply
		}
	}
}

func (a *agent) do(ctx context.Context, q wire.Request, w io.Writer) (wire.Reply, error) {
	c := call{output: w, done: make(chan wire.Reply, 1)}
	a.mu.Lock()
	a.last++
	q.ID = a.last
	a.waiting[q.ID] = c
	a.mu.Unlock()
	b, err := json.Marshal(q)
	if err != nil {
		return wire.Reply{}, err
	}
	if err := a.conn.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		return wire.Reply{}, err
	}
	if _, err := a.conn.Write(append(b, '\n')); err != nil {
		return wire.Reply{}, err
	}
	select {
	case reply := <-c.done:
		return reply, nil
	case <-a.ended:
		return wire.Reply{}, io.EOF
	case <-ctx.Done():
		return wire.Reply{}, context.Cause(ctx)
	}
}

func (a *agent) wait() { <-a.ended }
