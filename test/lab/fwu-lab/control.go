package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// maxCommand is more than any command needs.
const maxCommand = 4096

// reply is the answer to a command.
type reply struct {
	Output string
	Error  string
}

// request is a command from another terminal.
type request struct {
	command string
	reply   chan<- reply
}

func socket(dir string) string { return filepath.Join(dir, "control") }

// send gives a command to the lab that runs in dir, and copies its answer to out.
func send(ctx context.Context, dir, command string, out io.Writer) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket(dir))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("no lab runs in %s; start one with: fwu-lab %s", dir, dir)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	if err := json.NewEncoder(conn).Encode(command); err != nil {
		return err
	}
	var r reply
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return fmt.Errorf("the lab ended: %w", err)
	}
	if _, err := io.WriteString(out, r.Output); err != nil {
		return err
	}
	if r.Error != "" {
		return errors.New(r.Error)
	}
	return nil
}

// listen takes commands from other terminals. The directory of the socket is ours alone.
func listen(dir string, requests chan<- request, done <-chan struct{}) (net.Listener, error) {
	if err := os.Remove(socket(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", socket(dir))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil { // it was closed
				return
			}
			go serve(conn, requests, done)
		}
	}()
	return l, nil
}

// serve takes one command from a connection. The goroutine ends with the lab, or with the
// connection.
func serve(conn net.Conn, requests chan<- request, done <-chan struct{}) {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second)) // else the read fails
	var command string
	if err := json.NewDecoder(io.LimitReader(conn, maxCommand)).Decode(&command); err != nil {
		return
	}
	answer := make(chan reply, 1)
	select {
	case requests <- request{command, answer}:
	case <-done:
		return
	}
	_ = json.NewEncoder(conn).Encode(<-answer) // whoever asked may be gone
}

// lock makes sure that one lab runs in a directory. The lock ends with the process.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("a lab runs in %s; fwu-lab %s quit ends it: %w", dir, dir, err), f.Close())
	}
	return f, nil
}
