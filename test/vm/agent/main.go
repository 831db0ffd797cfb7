// Command agent runs in a virtual machine and does what the host asks for on a virtio-serial port: a request and a reply are a line of JSON each.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/fwu-ab/fwu-ab/test/vm/agent/wire"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

// open opens the port by the name that udev gives it, else by that of the kernel.
func open() (*os.File, error) {
	f, err := os.OpenFile("/dev/virtio-ports/"+wire.Port, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return os.OpenFile("/dev/vport0p1", os.O_RDWR, 0)
	}
	return f, err
}

func serve() error {
	port, err := open()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	reply := func(r wire.Reply) error {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		_, err = port.Write(append(b, '\n'))
		return err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	if err := reply(wire.Reply{Out: string(bytes.TrimSpace(boot))}); err != nil {
		return err
	}
	lines := bufio.NewScanner(port)
	lines.Buffer(nil, wire.MaxLine)
	for lines.Scan() {
		var q wire.Request
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return fmt.Errorf("request %q: %w", lines.Bytes(), err)
		}
		go func() { _ = reply(run(q, reply)) }() // a host that does not listen any more has no use for it
	}
	return lines.Err()
}

// run runs the command of q. If q asks for a stream, its output goes out by send, piece by piece.
func run(q wire.Request, send func(wire.Reply) error) wire.Reply {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(q.Seconds)*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, q.Args[0], q.Args[1:]...)
	cmd.Stdin = bytes.NewReader(q.Stdin)
	cmd.Dir = q.Dir
	cmd.Env = append(append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"), q.Env...)
	cmd.WaitDelay = time.Second
	var out, stderr limited
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if q.Stream {
		both := stream{q.ID, send}
		cmd.Stdout, cmd.Stderr = both, both
	}
	r := wire.Reply{ID: q.ID}
	err := cmd.Run()
	r.Out, r.Err = out.String(), stderr.String()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		r.Code, r.Err = -1, r.Err+fmt.Sprintf("\nended after %d seconds", q.Seconds)
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		r.Code, r.Err = -1, r.Err+err.Error()
	}
	return r
}

// limited keeps what fits into a line.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), max(0, wire.MaxLine/8-l.Len()))])
	return len(p), nil
}

// stream sends the bytes that are written to it as pieces of the output of a command.
type stream struct {
	id   int
	send func(wire.Reply) error
}

func (s stream) Write(p []byte) (int, error) {
	return len(p), s.send(wire.Reply{ID: s.id, Out: string(p), More: true})
}
