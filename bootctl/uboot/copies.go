package uboot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Environment is where an environment lies, and how it is reached.
type Environment struct {
	Copies []Location // one or two
	// SingleCopy accepts one copy. A power cut while it is written loses the environment.
	SingleCopy bool
	Open       Opener // OpenMedium, or a simulation
	// Free says why a location must not be overwritten although it is blank or damaged; nil:
	// nothing forbids it. It is asked before a copy without a good checksum is written.
	Free func(Location) error
}

// Copy is what was found at one Location.
type Copy struct {
	Location
	Err    error // the medium could not be read
	Valid  bool  // the CRC is good
	Flag   byte
	Active bool // U-Boot takes this one
	Env    *Env // of a valid copy

	contents contents
	first    string // name of the first variable of a damaged copy
}

// headerSize is what comes before the data of a copy where there are n copies.
func headerSize(n int) int64 {
	if n == 2 {
		return 5
	}
	return 4
}

func (e Environment) check() error {
	switch {
	case len(e.Copies) == 0 || len(e.Copies) > 2:
		return fmt.Errorf("environment with %d copies; want two, or one", len(e.Copies))
	case len(e.Copies) == 1 && !e.SingleCopy:
		return fmt.Errorf("environment %s has one copy only: a power cut while it is written loses it; the configuration has to accept that in as many words", e.Copies[0])
	case len(e.Copies) == 2 && e.SingleCopy:
		return fmt.Errorf("the configuration accepts a single copy of the environment, but names two")
	case e.Open == nil:
		return errors.New("environment without an opener")
	}
	return checkLocations(e.Copies)
}

// Read reads the copies and returns the active environment. The error wraps fwu.ErrNoSelection if
// no copy is valid, and not if one cannot be read; the copies are returned all the same. It takes
// no lock.
func (e Environment) Read() (*Env, []Copy, error) {
	m, err := e.open(false)
	if err != nil {
		return nil, nil, err
	}
	copies := m.read()
	active, err := choose(copies)
	if errors.Is(err, fwu.ErrNoSelection) {
		err = m.explain(err)
	}
	if err := m.close(); err != nil {
		return nil, nil, err
	}
	if err != nil {
		return nil, copies, err
	}
	return copies[active].Env, copies, nil
}

// Update changes the environment by one write of one copy, the inactive or damaged one, and reads
// it back. It writes nothing if change changes nothing. Where no copy is valid, base is changed and
// written if both places are blank or hold damaged copies of this geometry; else, and where base is
// nil, the error wraps fwu.ErrNoSelection. A damaged copy beside a valid one is overwritten under
// the same condition. The caller holds the locks.
func (e Environment) Update(base *Env, change func(*Env) error) error {
	_, err := e.update(base, noCopy, change)
	return err
}

const noCopy = -1

// update is Update. suspect is the copy whose last write failed: whatever is read there, it may be gone after a cut, so that the other copy is changed, and suspect is
// written again in any case. It returns the copy that is suspect from now on.
func (e Environment) update(base *Env, suspect int, change func(*Env) error) (_ int, err error) {
	m, err := e.open(true)
	if err != nil {
		return suspect, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	copies := m.read()
	if suspect != noCopy && len(copies) == 2 && copies[1-suspect].Valid {
		copies[suspect].Valid = false
		activate(copies)
	}
	target, flag, old := 0, byte(0), base
	active, err := choose(copies)
	switch {
	case err == nil:
		target, flag, old = len(copies)-1-active, copies[active].Flag, copies[active].Env
	case !errors.Is(err, fwu.ErrNoSelection):
		return suspect, err
	case base == nil:
		return suspect, m.explain(err)
	}
	if err := m.mendable(copies, active, suspect); err != nil {
		return suspect, err
	}
	changed := old.Clone()
	if err := change(changed); err != nil {
		return suspect, err
	}
	if active >= 0 && suspect == noCopy && changed.Equal(old) { // the caller relies on it: who wrote it may not have flushed it
		return noCopy, m.flush(active)
	}
	if err := m.write(target, active, flag+1, changed); err != nil {
		return target, err
	}
	return noCopy, nil
}

// mendable says why a copy without a good checksum must not be overwritten, of those that are not
// suspect.
func (m *media) mendable(copies []Copy, active, suspect int) error {
	for i, c := range copies {
		if c.Valid || i == suspect {
			continue
		}
		if err := m.replaceable(copies, i, active >= 0); err != nil {
			return err
		}
	}
	return nil
}

// Repair writes what the valid copy says to a damaged other one. It writes nothing if both are valid, or neither is. The caller holds the locks.
func (e Environment) Repair() (err error) {
	m, err := e.open(true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	copies := m.read()
	active, err := choose(copies)
	if err != nil || len(copies) == 1 || copies[1-active].Valid {
		return nil
	}
	if err := m.replaceable(copies, 1-active, true); err != nil {
		return err
	}
	return m.write(1-active, active, copies[active].Flag+1, copies[active].Env)
}

// choose returns the index of the active copy, -1 and an error if there is none, or if a copy
// cannot be read.
func choose(copies []Copy) (int, error) {
	var where []string
	for _, c := range copies {
		if c.Err != nil { // it may be the newer one
			return -1, c.Err
		}
		where = append(where, c.Location.String())
	}
	for i, c := range copies {
		if c.Active {
			return i, nil
		}
	}
	return -1, fmt.Errorf("%w: no copy of the U-Boot environment has a good checksum (%s): save one in U-Boot with saveenv, or write one that mkenvimage made; a default-environment in the configuration fills blank places",
		fwu.ErrNoSelection, strings.Join(where, ", "))
}

// activate marks the copy that U-Boot takes (env_check_redund in env/common.c).
func activate(copies []Copy) {
	switch {
	case len(copies) == 1 || copies[0].Valid != copies[1].Valid:
		for i := range copies {
			copies[i].Active = copies[i].Valid
		}
	case copies[0].Valid:
		a, b := copies[0].Flag, copies[1].Flag
		second := b > a
		if a == 255 && b == 0 || a == 0 && b == 255 {
			second = !second // the counter wrapped
		}
		copies[0].Active, copies[1].Active = !second, second
	}
}

// media are the opened locations of an environment.
type media struct {
	locations []Location // offsets from the start
	media     []Medium   // of each location; twice the same if both lie on one
	free      func(Location) error
}

func (e Environment) open(write bool) (*media, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	m := &media{free: e.Free}
	for i, l := range e.Copies {
		var medium Medium
		if i == 1 && sameMedium(l.Path, e.Copies[0].Path) {
			medium = m.media[0]
		} else {
			var err error
			if medium, err = e.Open(l.Path, write); err != nil {
				return nil, errors.Join(fmt.Errorf("open U-Boot environment: %w", err), m.close())
			}
		}
		m.media = append(m.media, medium)
		m.locations = append(m.locations, l)
		if err := m.place(i); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	return m, nil
}

// sameMedium tells whether two paths lead to one medium: by a link, or by two nodes of one device. What does not exist here is known by its path only.
func sameMedium(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	var stA, stB unix.Stat_t
	if unix.Stat(a, &stA) != nil || unix.Stat(b, &stB) != nil {
		return false
	}
	if stA.Dev == stB.Dev && stA.Ino == stB.Ino {
		return true
	}
	return stA.Mode&unix.S_IFMT == unix.S_IFBLK && stB.Mode&unix.S_IFMT == unix.S_IFBLK && stA.Rdev == stB.Rdev
}

// place makes the offset of location i one from the start, and refuses one that lies outside of its medium or in the other copy.
func (m *media) place(i int) error {
	l := &m.locations[i]
	size := m.media[i].Size()
	if l.Offset < 0 {
		l.Offset += size
	}
	if l.Offset < 0 || l.Offset > size-l.Size {
		return fmt.Errorf("U-Boot environment of %#x bytes at %#x is not within %s (%#x bytes)", l.Size, l.Offset, l.Path, size)
	}
	if i == 1 && m.media[0] == m.media[1] && l.Offset < m.locations[0].Offset+l.Size && m.locations[0].Offset < l.Offset+l.Size {
		return fmt.Errorf("the copies of the U-Boot environment on %s overlap", l.Path)
	}
	return nil
}

func (m *media) close() error {
	var err error
	for i, c := range m.media {
		if i == 0 || c != m.media[0] {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

func (m *media) read() []Copy {
	copies := make([]Copy, len(m.locations))
	for i, l := range m.locations {
		copies[i] = Copy{Location: l}
		buf := make([]byte, l.Size)
		err := fwu.ReadFull(m.media[i], buf, l.Offset)
		if err != nil { // once more: without this copy nothing is known
			err = fwu.ReadFull(m.media[i], buf, l.Offset)
		}
		if err != nil {
			copies[i].Err = fmt.Errorf("read U-Boot environment %s: %w", l, err)
			continue
		}
		copies[i].decode(buf, len(m.locations))
	}
	activate(copies)
	return copies
}

func (c *Copy) decode(buf []byte, n int) {
	data := buf[headerSize(n):]
	if n == 2 {
		c.Flag = buf[4]
	}
	if c.Valid = crc32.ChecksumIEEE(data) == binary.LittleEndian.Uint32(buf); c.Valid {
		c.Env = ParseEnv(data)
		return
	}
	if c.contents = classify(buf, int(headerSize(n))); c.contents == headed {
		name, _, _ := bytes.Cut(data, []byte{'='})
		c.first = string(name)
	}
}

func encode(e *Env, flag byte, size int64, n int) ([]byte, error) {
	header := headerSize(n)
	data, err := e.Data(int(size - header))
	if err != nil {
		return nil, err
	}
	buf := binary.LittleEndian.AppendUint32(make([]byte, 0, size), crc32.ChecksumIEEE(data))
	if n == 2 {
		buf = append(buf, flag)
	}
	return append(buf, data...), nil
}

// write makes e the content of copy target, on the medium, and reads it back. The copy active, which a cut falls back to, is made durable before:
// whoever wrote it may not have flushed it.
func (m *media) write(target, active int, flag byte, e *Env) error {
	l := m.locations[target]
	buf, err := encode(e, flag, l.Size, len(m.locations))
	if err != nil {
		return err
	}
	if active >= 0 && active != target {
		if err := m.flush(active); err != nil {
			return err
		}
	}
	if _, err := m.media[target].WriteAt(buf, l.Offset); err != nil {
		return fmt.Errorf("write U-Boot environment %s: %w", l, err)
	}
	if err := m.flush(target); err != nil {
		return err
	}
	back := make([]byte, len(buf))
	if err := fwu.ReadFull(m.media[target], back, l.Offset); err != nil {
		return fmt.Errorf("read back U-Boot environment %s: %w", l, err)
	}
	if !bytes.Equal(buf, back) {
		return fmt.Errorf("U-Boot environment %s: %w", l, fwu.ErrReadBack)
	}
	return nil
}

func (m *media) flush(i int) error {
	if err := m.media[i].Sync(); err != nil {
		return fmt.Errorf("flush U-Boot environment %s: %w", m.locations[i], err)
	}
	return nil
}
