package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSignalEndsWork: a signal ends every command that waits for a pipe or works on a large file,
// with the exit code that a shell gives it, and leaves nothing behind.
func TestSignalEndsWork(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"fifo", "out.fifo"} {
		if err := unix.Mkfifo(at(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Nobody can compress or hash it in the time of a test: the file is sparse.
	large, err := os.Create(at("large.img"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(large.Truncate(1<<40), large.Close()); err != nil {
		t.Fatal(err)
	}
	create := []string{"manifest", "create", "--component", "rootfs", "--version", "1", "--sequence", "1", "--vendor-name", "example.com", "--class-name", "board", "-o", at("out.suit")}
	for name, args := range map[string][]string{
		"create of a large image":           append(create, "--image", at("large.img")),
		"create of a large image, packed":   append(create, "--image", at("large.img"), "--bundle", "--compression", "zstd"),
		"create of an image in a FIFO":      append(create, "--image", at("fifo")),
		"create with a key in a FIFO":       append(create, "--image", os.Args[0], "--key", at("fifo")),
		"create into a FIFO without reader": append(create, "--image", os.Args[0], "-o", at("out.fifo")),
		"description in a FIFO":             {"bundle", "create", at("fifo"), "-o", at("out.suit")},
		"show of a FIFO":                    {"manifest", "show", at("fifo")},
		"show of standard input":            {"manifest", "show", "-"},
		"verify with a key in a FIFO":       {"manifest", "verify", at("large.img"), "--key", at("fifo")},
		"extract from standard input":       {"bundle", "extract", "-", "-C", dir},
		"sign of standard input":            {"manifest", "sign", "-", "--key", at("fifo"), "-o", at("out.suit")},
		"update from standard input":        {"--bus", "unix:path=" + at("nobus"), "update", "-"},
		"update from a FIFO":                {"--bus", "unix:path=" + at("nobus"), "update", at("fifo")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
				if code, said := interrupt(t, args, s); code != 128+int(s) {
					t.Errorf("%v: exit code %d\n%s", s, code, said)
				}
			}
		})
	}
	t.Cleanup(func() {
		left, err := filepath.Glob(at(".*"))
		if more, _ := filepath.Glob(at("*.suit")); err != nil || len(left)+len(more) > 0 {
			t.Errorf("left: %v %v, %v", left, more, err)
		}
	})
}

// interrupt runs the program and sends it a signal when it is at work. The first milliseconds of a
// process, in which a signal ends it as it ends any other, are no part of this: then it is started
// again, and given more time.
func interrupt(t *testing.T, args []string, s syscall.Signal) (code int, said string) {
	t.Helper()
	for delay := 50 * time.Millisecond; delay < 10*time.Second; delay *= 2 {
		cmd := exec.Command("fwu-ab", args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		stdin, err := cmd.StdinPipe() // never written to
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(delay)
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatalf("before the signal: %v\n%s", err, stderr.String())
		}
		hung := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		stopped := hung.Stop()
		_ = stdin.Close()
		if !stopped {
			t.Fatal("a minute after the signal it was still there")
		}
		if code := cmd.ProcessState.ExitCode(); code >= 0 {
			return code, stderr.String()
		}
	}
	return -1, "the signal ends the program by default: nothing was cleaned up"
}

// TestSecondSignalEndsTheProgram: work that cannot be interrupted, here writing to a pipe that
// nobody reads, ends with the second signal.
func TestSecondSignalEndsTheProgram(t *testing.T) {
	ctx, stop := interruptible(t.Context())
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, interrupted{syscall.SIGTERM}) {
		t.Fatal(cause)
	}
	stuck := exec.Command("fwu-ab", "manifest", "create", "--component", "rootfs", "--image", os.Args[0], "--bundle", "--version", "1", "--sequence", "1",
		"--vendor-name", "example.com", "--class-name", "board", "-o", "-")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stuck.Stdout = w
	if err := errors.Join(stuck.Start(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil { // it writes, and the pipe is full soon
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = stuck.Wait(); close(ended) }()
	for range 2 {
		_ = stuck.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
			return
		case <-time.After(time.Second):
		}
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		_ = stuck.Process.Kill()
		t.Fatal("a minute after the second signal it is still there")
	}
}
