package systemd

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLogHandlerForTheJournal(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(LogHandler(&out, true, slog.LevelDebug))
	log.Debug("opened slot", "slot", "b")
	log.With("component", "rootfs").Info("image verified", "size", 42)
	log.Warn("two\nlines")
	log.WithGroup("boot").Error("trial not booted", "bank", "b", "level", "kept")
	want := `<7>msg="opened slot" slot=b
<6>msg="image verified" component=rootfs size=42
<4>msg="two\nlines"
<3>msg="trial not booted" boot.bank=b boot.level=kept
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
}

func TestLogHandlerHonoursTheLevel(t *testing.T) {
	for _, journal := range []bool{false, true} {
		var out bytes.Buffer
		log := slog.New(LogHandler(&out, journal, slog.LevelWarn))
		log.Info("hidden")
		log.Warn("shown")
		if got := out.String(); strings.Contains(got, "hidden") || !strings.Contains(got, "shown") {
			t.Errorf("journal %v: %q", journal, got)
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
