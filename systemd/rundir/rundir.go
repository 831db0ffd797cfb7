// Package rundir runs the executables of a directory: health checks of a new system
// (systemd/bootcheck), and hooks of an update. Each runs once, in the order of the file names, with
// a time limit and without arguments. Exit code 0 is success. A file in a later directory takes the
// place of the one with the same name in an earlier directory; if it is empty, or a link to
// /dev/null, it takes it away. A file that cannot be executed fails: a program that is left out
// without a word is worse than one that is in the way.
package rundir

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Program is an executable.
type Program struct {
	Name string // with the directory it lies in: "required.d/10-network"
	Path string
}

// Find lists the programs in the directory sub of each of dirs below root, in the order in which
// they run.
func Find(root string, dirs []string, sub string) ([]Program, error) {
	found := map[string]string{} // path by file name
	for _, dir := range dirs {
		dir = filepath.Join("/", root, dir, sub)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for programs to run: %w", err)
		}
		for _, e := range entries {
			found[e.Name()] = filepath.Join(dir, e.Name())
		}
	}
	var out []Program
	for name, path := range found {
		if !strings.HasPrefix(name, ".") && !masked(path) {
			out = append(out, Program{sub + "/" + name, path})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// masked tells whether path is an empty file, or leads to /dev/null.
func masked(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir() && info.Size() == 0
}

// Runner runs programs.
type Runner struct {
	Timeout time.Duration
	// Trust returns an error for a program that must not run, as others than root can change it.
	// Such a program fails.
	Trust func(path string) error
	// Output takes each line that a program prints.
	Output func(program, line string)
	// Env is the environment; nil: that of this process.
	Env []string
}

// maxLine bounds a line of output: more of it is the next line.
const maxLine = 4 << 10

// Run runs a program. The error says why it failed, with the last line that it printed. When its
// time is over, or ctx ends, its process group is killed.
func (r Runner) Run(ctx context.Context, p Program) error {
	if err := r.Trust(p.Path); err != nil {
		return fmt.Errorf("%s is not run: %w", p.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Path)
	cmd.Env = r.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// with the processes that it started
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	// a process that left its group may hold the pipe
	cmd.WaitDelay = time.Second
	out := &lines{emit: func(line string) { r.Output(p.Name, line) }}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	out.flush()
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		err = fmt.Errorf("took longer than %v", r.Timeout)
	case errors.Is(err, exec.ErrWaitDelay): // it did its work, and left something running
		err = nil
	}
	if err == nil {
		return nil
	}
	if out.last != "" {
		return fmt.Errorf("%s: %w: %s", p.Name, err, out.last)
	}
	return fmt.Errorf("%s: %w", p.Name, err)
}

// lines splits the text written to it. exec writes from one goroutine where Stdout and Stderr are
// the same.
type lines struct {
	emit    func(string)
	pending []byte
	last    string
}

func (l *lines) Write(p []byte) (int, error) {
	l.pending = append(l.pending, p...)
	for {
		n, line, err := bufio.ScanLines(l.pending, false)
		if err != nil || n == 0 {
			break
		}
		l.tell(line)
		l.pending = l.pending[n:]
	}
	for len(l.pending) > maxLine {
		l.tell(l.pending[:maxLine])
		l.pending = l.pending[maxLine:]
	}
	return len(p), nil
}

func (l *lines) flush() {
	if len(l.pending) > 0 {
		l.tell(l.pending)
		l.pending = nil
	}
}

func (l *lines) tell(line []byte) {
	s := strings.ToValidUTF8(string(line), "?")
	if t := strings.TrimSpace(s); t != "" {
		l.last = t
	}
	l.emit(s)
}

var _ io.Writer = (*lines)(nil)
