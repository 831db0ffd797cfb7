package partition

import (
	"fmt"
	"io"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// metered is the medium of a slot. Its errors name the slot, and are counted.
type metered struct {
	Device
	name  string
	meter *fwu.Meter
}

// readFull reads all of b at off, or returns an error, after which nothing of b counts.
func (m metered) readFull(b []byte, off int64) error {
	if err := fwu.ReadFull(m.Device, b, off); err != nil {
		err = fmt.Errorf("read %s at %d: %w", m.name, off, err)
		m.meter.Read(err)
		return err
	}
	return nil
}

// differs is the error of a medium that returned other bytes from off to end than were written.
func (m metered) differs(off, end int64) error {
	err := fmt.Errorf("read back %s from %d to %d: %w", m.name, off, end, fwu.ErrReadBack)
	m.meter.Read(err)
	return err
}

func (m metered) writeFull(b []byte, off int64) error {
	n, err := m.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		err = fmt.Errorf("write %s at %d: %w", m.name, off, err)
		m.meter.Write(err)
	}
	return err
}

func (m metered) flush() error {
	if err := m.Sync(); err != nil {
		err = fmt.Errorf("flush %s: %w", m.name, err)
		m.meter.Flush(err)
		return err
	}
	return nil
}
