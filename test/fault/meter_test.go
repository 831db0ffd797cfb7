package fault_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// mediumLog counts the lines about media that failed.
type mediumLog struct {
	slog.Handler
	lines *atomic.Int32
}

func (l mediumLog) Enabled(context.Context, slog.Level) bool { return true }
func (l mediumLog) WithAttrs([]slog.Attr) slog.Handler       { return l }

func (l mediumLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "medium error" {
		l.lines.Add(1)
	}
	return nil
}

func (d *device) wantErrors(t *testing.T, least, most uint64) {
	t.Helper()
	info, err := d.Query(t.Context(), 1)
	check(t, err)
	n := info.Impl.SecondErrors
	if n.Read < least || n.Read > most || n.Write != 0 || n.Flush != 0 {
		t.Errorf("errors of the second slot: %+v, want from %d to %d reads", n, least, most)
	}
	if n := info.Impl.ActiveErrors; n != (fwu.MediumErrors{}) {
		t.Errorf("errors of the active slot: %+v", n)
	}
}

func (l mediumLog) want(t *testing.T, lines int32) {
	t.Helper()
	if got := l.lines.Swap(0); got != lines {
		t.Errorf("%d lines in the journal, want %d", got, lines)
	}
}

// TestMediumErrorsAreCounted has a slot lost. Most of its blocks fail while it is compared with
// a new image, which mends them; then the image cannot be read.
func TestMediumErrorsAreCounted(t *testing.T) {
	d := newDevice(t)
	l := mediumLog{slog.DiscardHandler, &atomic.Int32{}}
	d.Config.Log = slog.New(l)
	check(t, d.Restart())
	d.wantErrors(t, 0, 0)
	d.slots[1].lose(t, 0)
	check(t, d.prepare(t.Context()))
	d.wantErrors(t, 1, slotSize/4096)
	l.want(t, 2) // one of the start, which looks for other headers, and one of the transfer

	check(t, d.Restart()) // nothing holds the slot since it was verified
	restore := d.slots[1].lose(t, slotSize/2)
	for range 3 {
		_, err := d.Install(t.Context())
		wantMediumError(t, err)
	}
	d.wantErrors(t, 4, slotSize/4096)
	l.want(t, 1) // the same place each time
	restore()
	d.slots[1].lose(t, fwu.HeadSize)
	_, err := d.Install(t.Context())
	wantMediumError(t, err)
	l.want(t, 1)
}
