package crash

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/fwu-ab/fwu-ab/test/sim"
)

// The format of the store, as the package fwu documents it, read and written here on its own.
const (
	storeCopy   = 128 << 10
	storeHeader = 64
	newMinor    = 7
)

type stored struct {
	major, minor uint16
	generation   uint64
	record       map[string]any
}

// readStore returns copy i; ok is false if it is damaged.
func readStore(d *sim.Medium, i int) (s stored, ok bool) {
	b := make([]byte, storeCopy)
	if _, err := d.ReadAt(b, int64(i)*storeCopy); err != nil || string(b[:8]) != "FWUABREC" {
		return stored{}, false
	}
	le := binary.LittleEndian
	n := int(le.Uint32(b[12:]))
	if n > storeCopy-storeHeader {
		return stored{}, false
	}
	payload := b[storeHeader : storeHeader+n]
	sum := sha256.Sum256(append(append([]byte{}, b[:24]...), payload...))
	if string(sum[:]) != string(b[24:56]) || json.Unmarshal(payload, &s.record) != nil {
		return stored{}, false
	}
	s.major, s.minor, s.generation = le.Uint16(b[8:]), le.Uint16(b[10:]), le.Uint64(b[16:])
	return s, true
}

// writeStore changes copy i on the medium, durably.
func writeStore(d *sim.Medium, i int, s stored) {
	payload, err := json.Marshal(s.record)
	if err != nil {
		panic(err)
	}
	b := make([]byte, storeCopy)
	copy(b, "FWUABREC")
	le := binary.LittleEndian
	le.PutUint16(b[8:], s.major)
	le.PutUint16(b[10:], s.minor)
	le.PutUint32(b[12:], uint32(len(payload)))
	le.PutUint64(b[16:], s.generation)
	sum := sha256.Sum256(append(append([]byte{}, b[:24]...), payload...))
	copy(b[24:], sum[:])
	copy(b[storeHeader:], payload)
	whole := make([]byte, 2*storeCopy)
	if _, err := d.ReadAt(whole, 0); err != nil {
		panic(err)
	}
	copy(whole[i*storeCopy:], b)
	d.Fill(whole)
}

// makeNewer makes both copies what a newer service would have written: a higher minor version, and fields that this one does not know.
func makeNewer(d *sim.Medium) {
	for i := range 2 {
		s, ok := readStore(d, i)
		if !ok {
			continue
		}
		s.minor = newMinor
		s.record["future"] = "record"
		if t, ok := s.record["trial"].(map[string]any); ok {
			t["future"] = "trial"
		}
		components := s.record["components"].(map[string]any)
		for _, c := range components {
			c.(map[string]any)["future"] = map[string]any{"of": "component"}
			for _, slot := range c.(map[string]any)["slots"].([]any) {
				slot.(map[string]any)["future"] = "slot"
			}
		}
		components["radio"] = map[string]any{"id": 77, "state": "READY", "active": 1, "floor": 3, "future": "other", "slots": []any{map[string]any{"id": "x", "size": 1}, map[string]any{"id": "y", "size": 2}}}
		writeStore(d, i, s)
	}
}

// keptNewer checks that everything unknown is still there.
func keptNewer(d *sim.Medium) error {
	var newest stored
	for i := range 2 {
		s, ok := readStore(d, i)
		if !ok {
			return fmt.Errorf("copy %d of the record is damaged", i)
		}
		if s.generation > newest.generation {
			newest = s
		}
	}
	if newest.minor != newMinor || newest.record["future"] != "record" {
		return fmt.Errorf("the record lost its future: version %d.%d, %v", newest.major, newest.minor, newest.record["future"])
	}
	components := newest.record["components"].(map[string]any)
	if radio, ok := components["radio"].(map[string]any); !ok || radio["floor"] != 3.0 || radio["future"] != "other" {
		return fmt.Errorf("an unknown component became %v", components["radio"])
	}
	for name, c := range components {
		if name == "radio" {
			continue
		}
		if c.(map[string]any)["future"] == nil {
			return fmt.Errorf("%s lost its future", name)
		}
		for i, slot := range c.(map[string]any)["slots"].([]any) {
			if slot.(map[string]any)["future"] != "slot" {
				return fmt.Errorf("slot %d of %s lost its future", i, name)
			}
		}
	}
	return nil
}

// makeUnknown gives the newest copy, or both, a major version that nobody knows.
func makeUnknown(d *sim.Medium, both bool) {
	newest, other := -1, -1
	var generation uint64
	for i := range 2 {
		s, ok := readStore(d, i)
		switch {
		case !ok:
		case newest < 0 || s.generation > generation:
			newest, other, generation = i, newest, s.generation
		default:
			other = i
		}
	}
	for _, i := range []int{newest, other} {
		if s, ok := readStore(d, max(i, 0)); ok && i >= 0 && (i == newest || both) {
			s.major = 2
			s.record = map[string]any{"nobody": "knows"}
			writeStore(d, i, s)
		}
	}
}
