package systemd

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// IsJournal tells whether f is connected to the journal; stream is the value of $JOURNAL_STREAM (systemd.exec(5)).
func IsJournal(f *os.File, stream string) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == strconv.FormatUint(uint64(st.Dev), 10)+":"+strconv.FormatUint(uint64(st.Ino), 10)
}

// LogHandler writes records of at least level to w, each on one line. For the journal a line begins with its priority (sd-daemon(3)),
// and leaves the time to the journal; else it is plain text with time and level.
func LogHandler(w io.Writer, journal bool, level slog.Leveler) slog.Handler {
	if !journal {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
	}
	line := &bytes.Buffer{}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTimeAndLevel}
	return &journalHandler{slog.NewTextHandler(line, options), &sync.Mutex{}, line, w}
}

func withoutTimeAndLevel(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// journalHandler lets text write a record into line, and puts the priority before it.
type journalHandler struct {
	text slog.Handler
	mu   *sync.Mutex // guards line and w
	line *bytes.Buffer
	w    io.Writer
}

func (h *journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.text.Enabled(ctx, level)
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reset()
	h.line.WriteString(priority(r.Level))
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.w.Write(h.line.Bytes())
	return err
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &journalHandler{h.text.WithAttrs(attrs), h.mu, h.line, h.w}
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	return &journalHandler{h.text.WithGroup(name), h.mu, h.line, h.w}
}

// priority is the level as syslog(3) counts.
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	}
	return "<7>"
}
