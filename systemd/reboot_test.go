package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
)

// logind is a logind that remembers how it was called.
type logind struct {
	mu    sync.Mutex
	calls []string
}

func (l *logind) called(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, fmt.Sprintf(format, args...))
}

func (l *logind) seen() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

func (l *logind) reboot(answer *godbus.Error) func(bool) *godbus.Error {
	return func(interactive bool) *godbus.Error {
		l.called("Reboot(%v)", interactive)
		return answer
	}
}

func (l *logind) rebootWithFlags(answer *godbus.Error) func(uint64) *godbus.Error {
	return func(flags uint64) *godbus.Error {
		l.called("RebootWithFlags(%d)", flags)
		return answer
	}
}

func TestReboot(t *testing.T) {
	inhibited := godbus.NewError("org.freedesktop.login1.BlockedByInhibitorLock",
		[]any{"Operation denied due to active block inhibitor"})
	tests := []struct {
		name    string
		old     bool          // knows no RebootWithFlags
		answer  *godbus.Error // of logind
		kexec   string        // content of kexec_loaded; empty: a kernel without kexec
		calls   []string
		err     string
		refused bool
	}{
		{name: "accepted", kexec: "0\n", calls: []string{"RebootWithFlags(0)"}},
		{name: "kexec kernel loaded, but not asked for", kexec: "1\n", calls: []string{"RebootWithFlags(0)"}},
		{name: "blocked by an inhibitor", answer: inhibited, calls: []string{"RebootWithFlags(0)"}, refused: true,
			err: "reboot refused by logind: Operation denied due to active block inhibitor"},
		{name: "old logind, kernel without kexec", old: true, calls: []string{"Reboot(false)"}},
		{name: "old logind, no kexec kernel", old: true, kexec: "0\n", calls: []string{"Reboot(false)"}},
		{name: "old logind, kexec kernel loaded", old: true, kexec: "1\n", refused: true,
			err: "reboot refused: a kexec kernel is loaded (ROOT/sys/kernel/kexec_loaded), and this logind cannot be told to go through the bootloader; unload it with kexec -u"},
		{name: "old logind, something else in kexec_loaded", old: true, kexec: "\n", refused: true,
			err: "reboot refused: a kexec kernel is loaded (ROOT/sys/kernel/kexec_loaded), and this logind cannot be told to go through the bootloader; unload it with kexec -u"},
		{name: "old logind, kexec_loaded cannot be read", old: true, kexec: "directory", refused: true,
			err: "reboot refused: it is unknown whether a kexec kernel is loaded: read ROOT/sys/kernel/kexec_loaded: is a directory"},
		{name: "old logind, blocked by an inhibitor", old: true, answer: inhibited, calls: []string{"Reboot(false)"}, refused: true,
			err: "reboot refused by logind: Operation denied due to active block inhibitor"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address := startBus(t)
			l := &logind{}
			methods := map[string]any{"Reboot": l.reboot(tt.answer)}
			if !tt.old {
				methods["RebootWithFlags"] = l.rebootWithFlags(tt.answer)
			}
			serve(t, connect(t, address), logindName, logindPath, "org.freedesktop.login1.Manager", methods)
			root := t.TempDir()
			writeKexecLoaded(t, root, tt.kexec)
			err := Host{Bus: connect(t, address), Root: root}.Reboot(t.Context())
			if diff := cmp.Diff(tt.calls, l.seen()); diff != "" {
				t.Error("calls (-want +got):\n" + diff)
			}
			checkError(t, err, tt.err, root)
			if errors.Is(err, ErrRefused) != tt.refused {
				t.Errorf("refused is %v, want %v: %v", !tt.refused, tt.refused, err)
			}
		})
	}
}

func writeKexecLoaded(t *testing.T, root, content string) {
	t.Helper()
	file := filepath.Join(root, "sys/kernel/kexec_loaded")
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	switch {
	case err != nil || content == "":
	case content == "directory":
		err = os.Mkdir(file, 0o755)
	default:
		err = os.WriteFile(file, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func checkError(t *testing.T, err error, want, root string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if root != "" {
		got = strings.ReplaceAll(got, root, "ROOT")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("error (-want +got):\n" + diff)
	}
}

func TestRebootWithoutLogind(t *testing.T) {
	err := Host{Bus: connect(t, startBus(t))}.Reboot(t.Context())
	if !errors.Is(err, ErrRefused) {
		t.Errorf("nobody can reboot, but the error is not marked: %v", err)
	}
}

func TestRebootWithoutAnAnswerIsNotRefused(t *testing.T) {
	t.Run("logind dies", func(t *testing.T) {
		address := startBus(t)
		conn := connect(t, address)
		serve(t, conn, logindName, logindPath, "org.freedesktop.login1.Manager", map[string]any{
			"RebootWithFlags": func(uint64) *godbus.Error { _ = conn.Close(); return nil },
		})
		err := Host{Bus: connect(t, address)}.Reboot(t.Context())
		if err == nil || errors.Is(err, ErrRefused) {
			t.Errorf("want an error without the mark, got %v", err)
		}
	})
	t.Run("logind does not answer in time", func(t *testing.T) {
		address := startBus(t)
		done := make(chan struct{})
		t.Cleanup(func() { close(done) })
		serve(t, connect(t, address), logindName, logindPath, "org.freedesktop.login1.Manager", map[string]any{
			"RebootWithFlags": func(uint64) *godbus.Error { <-done; return nil },
		})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		err := Host{Bus: connect(t, address)}.Reboot(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrRefused) {
			t.Errorf("want the deadline without the mark, got %v", err)
		}
	})
}
