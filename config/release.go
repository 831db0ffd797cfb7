package config

import (
	"errors"
	"io/fs"
	"math"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
)

// LoadRelease reads the release record of the image below the root directory: for each component a table with its version and
// sequence number,
//
//	[rootfs]
//	version = "1.2.0"
//	sequence = 7
//
// An image without a record gives nil. One that has it but cannot be read is an error, in the form of Load's.
func LoadRelease(root string) (fwu.ReleaseRecord, error) {
	t, err := openTree(root)
	if err != nil {
		return nil, err
	}
	data, err := t.read(ReleaseFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseRelease(t.name(ReleaseFile), data)
}

func parseRelease(file string, data []byte) (fwu.ReleaseRecord, error) {
	n, err := parse(file, data)
	if err != nil {
		return nil, err
	}
	r := &reader{}
	s := r.root(n)
	record := fwu.ReleaseRecord{}
	for _, name := range n.keys {
		if why := checkName(name); why != "" {
			r.fail(n.table[name].key, "component name %q: %s", name, why)
			continue
		}
		record[name] = s.scope(name).release()
	}
	if len(n.keys) == 0 {
		r.fail(n.at, "no component: want at least one table [<name>]")
	}
	if err := joinErrors([]string{file}, r.errs); err != nil {
		return nil, err
	}
	return record, nil
}

func (s *scope) release() fwu.Release {
	var v fwu.Release
	if s.table == nil {
		return v
	}
	text, at := s.text("version")
	if at == (Pos{}) {
		s.lacks("version")
	} else if text != "" {
		var err error
		if v.Version, err = suit.ParseVersion(text); err != nil {
			s.fail(at, "%sversion: %v", s.path, err)
		}
	}
	sequence, at, _ := s.number("sequence", 0, math.MaxInt64)
	if at == (Pos{}) {
		s.lacks("sequence")
	}
	v.Sequence = uint64(sequence)
	s.done()
	return v
}
