package rundir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// script puts a program below root.
func script(t *testing.T, root, name, body string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if body != "" {
		body = "#!/bin/sh\n" + body + "\n"
	}
	// a process that another test starts just now would have it open for writing, and such a file
	// can't be executed
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
}

func trusted(string) error { return nil }

func TestRun(t *testing.T) {
	for name, tc := range map[string]struct{ body, want, output string }{
		"healthy":                       {"echo fine", "", "fine"},
		"not healthy":                   {"echo a; echo b >&2; exit 3", "c: exit status 3: b", "a|b"},
		"silent":                        {"exit 1", "c: exit status 1", ""},
		"killed":                        {"kill -9 $$", "c: signal: killed", ""},
		"takes too long, with children": {"echo waiting; sleep 1000 & wait", "c: took longer than 200ms: waiting", "waiting"},
		"ends without a line break":     {"printf 'no end'; exit 1", "c: exit status 1: no end", "no end"},
		"prints no text":                {`printf '\377\n'; exit 1`, "c: exit status 1: ?", "?"},
		"a very long line":              {"head -c 10000 /dev/zero | tr '\\0' x", "", strings.Repeat("x", maxLine) + "|" + strings.Repeat("x", maxLine) + "|" + strings.Repeat("x", 10000-2*maxLine)},
		"leaves a child that prints":    {"sleep 3 & echo done", "", "done"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			script(t, root, "c", tc.body)
			timeout := 20 * time.Second
			if strings.Contains(tc.want, "longer") {
				timeout = 200 * time.Millisecond
			}
			var out []string
			err := Runner{timeout, trusted, func(_, line string) { out = append(out, line) }, nil}.Run(t.Context(), Program{"c", filepath.Join(root, "c")})
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tc.want || strings.Join(out, "|") != tc.output {
				t.Errorf("got %q and printed %q; want %q and %q", got, strings.Join(out, "|"), tc.want, tc.output)
			}
		})
	}
}

func TestRunWhatCannotBeExecuted(t *testing.T) {
	root := t.TempDir()
	script(t, root, "c", "true")
	if err := os.Chmod(filepath.Join(root, "c"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"c", "missing", "."} {
		if err := (Runner{time.Second, trusted, func(string, string) {}, nil}).Run(t.Context(), Program{path, filepath.Join(root, path)}); err == nil {
			t.Errorf("%s is healthy", path)
		} else if !strings.HasPrefix(fmt.Sprint(err), path+": ") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestRunWithoutTrust(t *testing.T) {
	root := t.TempDir()
	script(t, root, "c", "touch "+filepath.Join(root, "ran"))
	untrusted := errors.New("others can change it")
	err := Runner{20 * time.Second, func(string) error { return untrusted }, func(string, string) {}, nil}.Run(t.Context(), Program{"c", filepath.Join(root, "c")})
	if !errors.Is(err, untrusted) || !strings.Contains(fmt.Sprint(err), "c is not run") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "ran")); err == nil {
		t.Error("it ran")
	}
}

// TestCancelKillsTheGroup cancels a program whose child ignores the end of its parent.
func TestCancelKillsTheGroup(t *testing.T) {
	root := t.TempDir()
	script(t, root, "c", "sleep 1000 & echo $!; wait")
	ctx, cancel := context.WithCancel(t.Context())
	var child int
	err := Runner{2 * time.Minute, trusted, func(_, line string) {
		if _, err := fmt.Sscan(line, &child); err != nil {
			t.Error(err)
		}
		cancel()
	}, nil}.Run(ctx, Program{"c", filepath.Join(root, "c")})
	if err == nil || child == 0 {
		t.Errorf("child %d: %v", child, err)
	}
	for end := time.Now().Add(2 * time.Minute); unix.Kill(child, 0) == nil && !zombie(child); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the child lives")
		}
	}
}

// zombie tells whether a process has ended, and nobody has asked why.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

func TestEnvironment(t *testing.T) {
	root := t.TempDir()
	script(t, root, "c", `echo "$FWU_HOOK|$HOME"`)
	var out string
	err := Runner{20 * time.Second, trusted, func(_, line string) { out = line }, []string{"FWU_HOOK=x"}}.Run(t.Context(), Program{"c", filepath.Join(root, "c")})
	if err != nil || out != "x|" {
		t.Errorf("%q, %v", out, err)
	}
}
