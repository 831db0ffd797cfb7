package systemd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
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

// LogHandler writes records of at least level to w, each on one line of text with time and level. For the journal it sends them there instead, with the attributes as fields and with
// the message identifier of an event; what cannot be sent goes to w, with its priority before it (sd-daemon(3)).
func LogHandler(w io.Writer, journal bool, level slog.Leveler) slog.Handler {
	if !journal {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
	}
	return newJournalHandler(w, level, sendJournal)
}

func newJournalHandler(w io.Writer, level slog.Leveler, send sender) *journalHandler {
	line := &bytes.Buffer{}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTimeAndLevel}
	return &journalHandler{text: slog.NewTextHandler(line, options), mu: &sync.Mutex{}, line: line, w: w, send: send}
}

func withoutTimeAndLevel(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// sender hands an entry to the journal; priorities are those of syslog(3).
type sender func(ctx context.Context, message string, priority int, fields map[string]string) error

// journalHandler lets text write a record into line, and sends that.
type journalHandler struct {
	text  slog.Handler
	attrs []slog.Attr // of the logger, outside of groups: those are part of the line only
	group bool
	mu    *sync.Mutex // guards line and w
	line  *bytes.Buffer
	w     io.Writer
	send  sender
}

func (h *journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.text.Enabled(ctx, level)
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reset()
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	of := r
	if h.group {
		of = slog.Record{}
	}
	line := strings.TrimSuffix(h.line.String(), "\n")
	if h.send(ctx, line, priority(r.Level), fields(h.attrs, of)) == nil {
		return nil
	}
	_, err := fmt.Fprintf(h.w, "<%d>%s\n", priority(r.Level), line)
	return err
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.text = h.text.WithAttrs(attrs)
	if !h.group {
		next.attrs = append(slices.Clip(h.attrs), attrs...)
	}
	return &next
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.text, next.group = h.text.WithGroup(name), true
	return &next
}

// priority is the level as syslog(3) counts.
func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}
