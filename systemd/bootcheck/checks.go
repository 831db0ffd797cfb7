// Package bootcheck decides whether a new system is healthy: it runs health checks, and ends a trial that nobody else can end.
//
// # Health checks
//
// Executables in required.d and wanted.d of /usr/lib/fwu-ab/check.d and /etc/fwu-ab/check.d. Each is run once, in the order of the file names, with a time limit and without
// arguments. Exit code 0 is healthy. A required check decides, a wanted one warns. A file in /etc takes the place of the one of the same name in /usr/lib; empty, or a link to
// /dev/null, it takes it away. A file that cannot be executed is a check that fails: a check that is left out without a word is worse than one that is in the way.
package bootcheck

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

// Directories are where checks are looked for; what comes later takes the place of what comes before.
func Directories() []string { return []string{"/usr/lib/fwu-ab/check.d", "/etc/fwu-ab/check.d"} }

// Check is a health check.
type Check struct {
	Name     string // "required.d/10-network"
	Path     string
	Required bool
}

// Find lists the checks below root, in the order in which they are run: the wanted ones after the required ones.
func Find(root string) ([]Check, error) {
	var out []Check
	for _, kind := range []string{"required.d", "wanted.d"} {
		found := map[string]string{} // path by file name
		for _, dir := range Directories() {
			dir = filepath.Join("/", root, dir, kind)
			entries, err := os.ReadDir(dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("look for health checks: %w", err)
			}
			for _, e := range entries {
				found[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
		for name, path := range found {
			if !strings.HasPrefix(name, ".") && !masked(path) {
				out = append(out, Check{kind + "/" + name, path, kind == "required.d"})
			}
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

// Runner runs checks.
type Runner struct {
	Timeout time.Duration
	// Trust returns an error for a program that must not be run, as others than root can change it.
	// Such a check fails.
	Trust func(path string) error
	// Output takes each line that a check prints.
	Output func(check, line string)
}

// maxLine bounds a line of output: more of it is the next line.
const maxLine = 4 << 10

// Run runs a check. The error says why it is not healthy, with the last line that it printed.
func (r Runner) Run(ctx context.Context, c Check) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) } // with what it started
	cmd.WaitDelay = time.Second                                                    // what left its group may hold the pipe
	out := &lines{emit: func(line string) { r.Output(c.Name, line) }}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	out.flush()
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		err = fmt.Errorf("took longer than %v", r.Timeout)
	case errors.Is(err, exec.ErrWaitDelay): // it was healthy, and left something running
		err = nil
	}
	if err == nil {
		return nil
	}
	if out.last != "" {
		return fmt.Errorf("%s: %w: %s", c.Name, err, out.last)
	}
	return fmt.Errorf("%s: %w", c.Name, err)
}

// lines splits what is written to it. exec writes from one goroutine where Stdout and Stderr are the same.
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
