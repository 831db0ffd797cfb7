package systemd

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/google/go-cmp/cmp"
)

// entry is what the journal was sent.
type entry struct {
	Message  string
	Priority int
	Fields   map[string]string
}

func TestLogHandlerForTheJournal(t *testing.T) {
	var out bytes.Buffer
	var got []entry
	full := false
	log := slog.New(newJournalHandler(&out, slog.LevelDebug, func(_ context.Context, message string, priority int, fields map[string]string) error {
		if full {
			return syscall.ENOBUFS
		}
		got = append(got, entry{message, priority, fields})
		return nil
	}))
	log.Debug("opened slot", "slot", "b")
	log.With("component", "rootfs").Info("image verified", "size", 42, "event", "candidate")
	log.Warn("two\nlines")
	log.WithGroup("boot").Error("trial not booted", "bank", "b", "level", "kept")
	log.Info("odd names", "a-b.c", 1, "ü", 2, "_x", slog.GroupValue(slog.Int("y", 3)))
	full = true
	log.Error("does not get there", "slot", "b")
	const id = "SYSLOG_IDENTIFIER"
	want := []entry{
		{`msg="opened slot" slot=b`, 7, map[string]string{id: "fwu-ab", "FWU_SLOT": "b"}},
		{`msg="image verified" component=rootfs size=42 event=candidate`, 6,
			map[string]string{id: "fwu-ab", "FWU_COMPONENT": "rootfs", "FWU_SIZE": "42", "FWU_EVENT": "candidate", "MESSAGE_ID": MessageID(fwu.EventCandidate)}},
		{`msg="two\nlines"`, 4, map[string]string{id: "fwu-ab"}},
		{`msg="trial not booted" boot.bank=b boot.level=kept`, 3, map[string]string{id: "fwu-ab"}},
		{`msg="odd names" a-b.c=1 ü=2 _x.y=3`, 6, map[string]string{id: "fwu-ab", "FWU_A_B_C": "1"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
	if diff := cmp.Diff("<3>msg=\"does not get there\" slot=b\n", out.String()); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
}

// TestCatalog: each event has an identifier of its own, and an entry in the catalog that the tool takes.
func TestCatalog(t *testing.T) {
	path := filepath.Join("..", "share", "fwu-ab.catalog")
	catalog, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]fwu.Event{}
	for _, e := range fwu.Events() {
		id := MessageID(e)
		if len(id) != 32 || seen[id] != "" {
			t.Errorf("%s has identifier %q, as %q", e, id, seen[id])
		}
		seen[id] = e
		if strings.Count(string(catalog), "-- "+id+"\nSubject: ") != 1 {
			t.Errorf("%s (%s) is not in the catalog", e, id)
		}
	}
	if n := strings.Count(string(catalog), "\n-- "); n != len(seen) {
		t.Errorf("%d entries in the catalog, %d events", n, len(seen))
	}
	if MessageID("other") != "" {
		t.Error("something that is no event has an identifier")
	}
	journalctl, err := exec.LookPath("journalctl")
	if err != nil {
		if os.Getenv("FWUAB_TEST_ALL") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	root := t.TempDir()
	dir := filepath.Join(root, "usr/lib/systemd/catalog")
	for _, d := range []string{dir, filepath.Join(root, "var/lib/systemd/catalog")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "fwu-ab.catalog"), catalog, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--update-catalog"}, {"--list-catalog"}} {
		out, err := exec.Command(journalctl, append([]string{"--root", root}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		if args[0] == "--list-catalog" && bytes.Count(out, []byte("fwu-ab")) != len(seen) {
			t.Errorf("%s", out)
		}
	}
}

func TestLogHandlerHonoursTheLevel(t *testing.T) {
	var out bytes.Buffer
	fail := func(context.Context, string, int, map[string]string) error { return syscall.ENOENT }
	for name, h := range map[string]slog.Handler{"text": LogHandler(&out, false, slog.LevelWarn), "journal": newJournalHandler(&out, slog.LevelWarn, fail)} {
		out.Reset()
		log := slog.New(h)
		log.Info("hidden")
		log.Warn("shown")
		if got := out.String(); strings.Contains(got, "hidden") || !strings.Contains(got, "shown") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestLogHandlerForATerminal(t *testing.T) {
	var out bytes.Buffer
	slog.New(LogHandler(&out, false, slog.LevelInfo)).Info("ready")
	if got := out.String(); !strings.HasPrefix(got, "time=") || !strings.HasSuffix(got, "level=INFO msg=ready\n") {
		t.Errorf("got %q", got)
	}
}

func TestIsJournal(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket := os.NewFile(uintptr(fds[0]), "socket")
	defer socket.Close()
	defer syscall.Close(fds[1])
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tests := []struct {
		name   string
		f      *os.File
		stream string
		want   bool
	}{
		{"the journal's socket", socket, identify(t, socket), true},
		{"another socket", socket, "1:2", false},
		{"not started by systemd", socket, "", false},
		{"redirected into a file", file, identify(t, socket), false},
		{"a file that has the numbers", file, identify(t, file), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := IsJournal(tt.f, tt.stream); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func identify(t *testing.T, f *os.File) string {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
