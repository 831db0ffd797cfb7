package fwu_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/google/go-cmp/cmp"
)

// mediumLog keeps the lines about media that failed.
type mediumLog struct {
	slog.Handler
	mu    *sync.Mutex
	lines *[]string
	attrs []slog.Attr
}

func newMediumLog() mediumLog { return mediumLog{slog.DiscardHandler, &sync.Mutex{}, &[]string{}, nil} }

func (l mediumLog) Enabled(context.Context, slog.Level) bool { return true }

func (l mediumLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	l.attrs = append(slices.Clip(l.attrs), attrs...)
	return l
}

func (l mediumLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "medium error" {
		return nil
	}
	line := ""
	tell := func(a slog.Attr) bool { line += fmt.Sprintf("%s=%s ", a.Key, a.Value); return true }
	for _, a := range l.attrs {
		tell(a)
	}
	r.Attrs(tell)
	l.mu.Lock()
	defer l.mu.Unlock()
	*l.lines = append(*l.lines, line)
	return nil
}

func (l mediumLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := *l.lines
	*l.lines = nil
	return lines
}

func (d *device) wantLines(l mediumLog, want ...string) {
	d.t.Helper()
	if diff := cmp.Diff(strings.Join(want, "\n"), strings.Join(l.take(), "\n")); diff != "" {
		d.t.Error("journal: -want +got:\n" + diff)
	}
}

// TestErrorsOfTheRecordAreCountedByCopy has one copy fail, and then be dead.
func TestErrorsOfTheRecordAreCountedByCopy(t *testing.T) {
	d, b := accepted(t)
	l := newMediumLog()
	d.Config.Log = slog.New(l)
	d.restart()
	d.wantLines(l)
	bad := newest(d)
	b.spoil(unix.EIO, bad)
	d.openDegraded()
	want := [2]fwu.MediumErrors{}
	want[bad] = fwu.MediumErrors{Read: 2, Retried: 1}
	info, err := d.Query(t.Context(), 0)
	d.do(err)
	if diff := cmp.Diff(want, info.Impl.StoreErrors); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
	line := fmt.Sprintf("record=%d err=read the store at %d: input/output error ", bad, bad*copySize)
	d.wantLines(l, line)
	for range 3 { // it is read again, and is as it was
		_ = d.Accept(t.Context())
	}
	d.wantLines(l)
	info, err = d.Query(t.Context(), 0)
	d.do(err)
	if n := info.Impl.StoreErrors[bad]; n.Read < 8 || n.Retried*2 != n.Read {
		t.Errorf("counted: %+v", n)
	}
	b.spoil(unix.ENODATA, bad)
	_ = d.Accept(t.Context())
	d.wantLines(l, fmt.Sprintf("record=%d err=read the store at %d: no data available ", bad, bad*copySize))
}
