package efi

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFirmwareThatRefusesForAWhile(t *testing.T) {
	for refusals, want := range map[int]error{0: nil, 1: nil, 4: nil, 5: unix.EPERM} {
		var waited time.Duration
		d := Directory{Path: t.TempDir(), Sleep: func(w time.Duration) { waited += w }}
		calls := 0
		err := d.mutable(BootNext, func() error {
			if calls++; calls <= refusals {
				return fmt.Errorf("refused: %w", unix.EPERM)
			}
			return nil
		})
		if !errors.Is(err, want) || want == nil && calls != refusals+1 || waited > time.Second {
			t.Errorf("%d refusals: %v after %d calls and %v", refusals, err, calls, waited)
		}
	}
}

func TestErrorsThatAreNotTriedAgain(t *testing.T) {
	d := Directory{Path: t.TempDir(), Sleep: func(time.Duration) { t.Error("waits") }}
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EROFS, unix.EIO, unix.EINVAL, unix.EACCES} {
		calls := 0
		err := d.mutable(BootNext, func() error { calls++; return &fs.PathError{Op: "open", Path: "x", Err: errno} })
		if advised := d.advise(err); !errors.Is(advised, errno) || len(advised.Error()) < len(err.Error())+10 || calls != 1 {
			t.Errorf("%v: %v after %d calls", errno, advised, calls)
		}
	}
}
