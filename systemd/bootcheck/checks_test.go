package bootcheck

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// script puts a check below root.
func script(t *testing.T, root, name, body string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if body != "" {
		body = "#!/bin/sh\n" + body + "\n"
	}
	syscall.ForkLock.RLock() // a process that another test starts just now would have it open for writing, and what is can't be executed
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	root := t.TempDir()
	script(t, root, "usr/lib/fwu-ab/check.d/required.d/20-disk", "true")
	script(t, root, "usr/lib/fwu-ab/check.d/required.d/10-network", "true")
	script(t, root, "usr/lib/fwu-ab/check.d/required.d/30-empty-in-etc", "true")
	script(t, root, "usr/lib/fwu-ab/check.d/required.d/31-null-in-etc", "true")
	script(t, root, "usr/lib/fwu-ab/check.d/required.d/.hidden", "true")
	script(t, root, "usr/lib/fwu-ab/check.d/wanted.d/05-clock", "true")
	script(t, root, "etc/fwu-ab/check.d/required.d/20-disk", "false")
	script(t, root, "etc/fwu-ab/check.d/required.d/30-empty-in-etc", "")
	script(t, root, "etc/fwu-ab/check.d/wanted.d/06-own", "true")
	if err := os.Symlink("/dev/null", filepath.Join(root, "etc/fwu-ab/check.d/required.d/31-null-in-etc")); err != nil {
		t.Fatal(err)
	}
	got, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	lib, etc := filepath.Join(root, "usr/lib/fwu-ab/check.d/"), filepath.Join(root, "etc/fwu-ab/check.d/")
	want := []Check{
		{"required.d/10-network", lib + "/required.d/10-network", true},
		{"required.d/20-disk", etc + "/required.d/20-disk", true},
		{"wanted.d/05-clock", lib + "/wanted.d/05-clock", false},
		{"wanted.d/06-own", etc + "/wanted.d/06-own", false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
	if got, err := Find(t.TempDir()); err != nil || len(got) != 0 {
		t.Errorf("without directories: %v, %v", got, err)
	}
}

func TestFindWhatIsNoDirectory(t *testing.T) {
	root := t.TempDir()
	script(t, root, "etc/fwu-ab/check.d/required.d", "true")
	if got, err := Find(root); err == nil {
		t.Errorf("found %v", got)
	}
}

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
			err := Runner{timeout, nil, func(_, line string) { out = append(out, line) }}.Run(t.Context(), Check{"c", filepath.Join(root, "c"), true})
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
		if err := (Runner{time.Second, nil, func(string, string) {}}).Run(t.Context(), Check{path, filepath.Join(root, path), true}); err == nil {
			t.Errorf("%s is healthy", path)
		} else if !strings.HasPrefix(fmt.Sprint(err), path+": ") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
