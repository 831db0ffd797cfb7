package fwu

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// disk is a medium that can be cut.
type disk struct {
	data    []byte
	writes  int
	cut     int // bytes of the next write that arrive; -1: all
	syncErr error
	bad     map[int64]bool // offsets of blocks that cannot be read
}

func newDisk() *disk { return &disk{data: make([]byte, StoreSize), cut: -1} }

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	for at := off; at < off+int64(len(p)); at += storeBlock {
		if d.bad[at] {
			return copy(p[:at-off], d.data[off:]), errors.New("medium error")
		}
	}
	return copy(p, d.data[off:]), nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.writes++
	if d.cut >= 0 {
		copy(d.data[off:], p[:min(d.cut, len(p))])
		return 0, errors.New("power cut")
	}
	return copy(d.data[off:], p), nil
}

func (d *disk) Sync() error { return d.syncErr }
func (d *disk) Size() int64 { return int64(len(d.data)) }

func open(t *testing.T, d *disk) *Store {
	t.Helper()
	s, err := OpenStore(d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func load(t *testing.T, d *disk) *record {
	t.Helper()
	r, err := open(t, d).load()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func sample(bootID string) *record {
	return &record{BootID: bootID, Selector: "uboot", Bank: BankA, Trial: &trialRecord{Bank: BankB}, Components: map[string]*componentRecord{
		"rootfs": {ID: 3, State: Staged, Active: 0, Floor: 7, Slots: [2]slotRecord{
			{ID: "partuuid:1", Size: 1 << 33, Image: &imageRecord{Version: Version{Major: 1, Minor: 2, Patch: 3, Build: 4}, Sequence: 7, Digest: "sha256:00", Size: 1 << 32}},
			{ID: "partuuid:2", Size: 1 << 33, Image: &imageRecord{Version: Version{Major: 2}, Head: &Head{Bits: []byte{1, 2}, Sectors: 16, SHA256: []byte{3}}}},
		}, Failed: []failedImage{{"sha256:11", 2}}},
	}}
}

func encoded(t *testing.T, r *record) string {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRecordComesBackFromTheStore(t *testing.T) {
	d := newDisk()
	if _, err := open(t, d).load(); !errors.Is(err, errNoRecord) {
		t.Fatalf("empty store: %v", err)
	}
	want := sample("1")
	if err := open(t, d).save(want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(encoded(t, want), encoded(t, load(t, d))); diff != "" {
		t.Error(diff)
	}
}

func TestCommitThatIsCutLeavesTheOldRecordOrTheNew(t *testing.T) {
	before, after := sample("before"), sample("after")
	for _, first := range []int{1, 2} { // the copy that is overwritten is either one
		for cut := 0; cut <= 8192; cut += SectorSize {
			d := newDisk()
			s := open(t, d)
			for range first {
				if err := s.save(before); err != nil {
					t.Fatal(err)
				}
			}
			d.cut = cut
			if err := s.save(after); StatusOf(err) != StorageFailure {
				t.Fatalf("a save that was cut: %v", err)
			}
			if id := load(t, d).BootID; id != "before" && id != "after" {
				t.Fatalf("cut at %d: record of boot %q", cut, id)
			}
			d.cut = -1
			if err := s.save(after); err != nil {
				t.Fatal(err)
			}
			if id := load(t, d).BootID; id != "after" {
				t.Fatalf("after the next save: record of boot %q", id)
			}
		}
	}
}

func TestCommitIsOneWriteAndSaysWhenItWasNotFlushed(t *testing.T) {
	d := newDisk()
	s := open(t, d)
	d.syncErr = errors.New("flush failed")
	if err := s.save(sample("1")); StatusOf(err) != StorageFailure {
		t.Fatalf("save: %v", err)
	}
	d.syncErr, d.writes = nil, 0
	if err := s.save(sample("2")); err != nil || d.writes != 1 {
		t.Fatalf("save: %v with %d writes", err, d.writes)
	}
	if id := load(t, d).BootID; id != "2" {
		t.Fatalf("record of boot %q", id)
	}
}

func TestDamage(t *testing.T) {
	two := func(t *testing.T) *disk {
		d := newDisk()
		s := open(t, d)
		for _, id := range []string{"old", "new"} { // copy 0, copy 1
			if err := s.save(sample(id)); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	for name, c := range map[string]struct {
		damage func(*disk)
		boot   string
		err    error
	}{
		"none":                         {func(*disk) {}, "new", nil},
		"the newer copy":               {func(d *disk) { d.data[storeCopySize+100] ^= 1 }, "old", nil},
		"the older copy":               {func(d *disk) { d.data[100] ^= 1 }, "new", nil},
		"both":                         {func(d *disk) { d.data[100] ^= 1; d.data[storeCopySize+30] ^= 1 }, "", errRecordLost},
		"both, overwritten":            {func(d *disk) { copy(d.data, bytes.Repeat([]byte{0xa5}, StoreSize)) }, "", errRecordLost},
		"a length beyond the copy":     {func(d *disk) { binary.LittleEndian.PutUint32(d.data[storeCopySize+12:], 1<<31) }, "old", nil},
		"erased, as flash is":          {func(d *disk) { copy(d.data, bytes.Repeat([]byte{0xff}, StoreSize)) }, "", errNoRecord},
		"one erased, the other broken": {func(d *disk) { clear(d.data[:storeCopySize]); d.data[storeCopySize+100] ^= 1 }, "", errRecordLost},
	} {
		t.Run(name, func(t *testing.T) {
			d := two(t)
			c.damage(d)
			r, err := open(t, d).load()
			if !errors.Is(err, c.err) || err == nil && r.BootID != c.boot {
				t.Fatalf("got %+v, %v", r, err)
			}
		})
	}
}

// A copy that cannot be read may be the one that counts, unless its header can be read and is the
// older one's.
func TestUnreadableCopy(t *testing.T) {
	const copy1 = storeCopySize
	for name, c := range map[string]struct {
		bad  []int64
		boot string
		err  error
	}{
		"the newer copy":                     {[]int64{copy1}, "", errRecordUnreadable},
		"the newer copy behind its header":   {[]int64{copy1 + storeBlock}, "", errRecordUnreadable},
		"the newer copy behind its record":   {[]int64{copy1 + 16*storeBlock}, "new", nil},
		"the older copy":                     {[]int64{0}, "", errRecordUnreadable},
		"the older copy behind its header":   {[]int64{storeBlock}, "new", nil},
		"both copies":                        {[]int64{0, copy1}, "", errRecordUnreadable},
		"both copies behind their headers":   {[]int64{storeBlock, copy1 + storeBlock}, "", errRecordUnreadable},
		"the newer copy, the other is blank": {[]int64{copy1, -1}, "", errRecordUnreadable},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk()
			s := open(t, d)
			for _, id := range []string{"old", "new"} {
				r := sample(id)
				r.Components["rootfs"].Text = strings.Repeat("x", 2*storeBlock)
				if err := s.save(r); err != nil {
					t.Fatal(err)
				}
			}
			d.bad = map[int64]bool{}
			for _, off := range c.bad {
				d.bad[off] = true
			}
			if d.bad[-1] {
				clear(d.data[:storeCopySize])
			}
			s = open(t, d)
			r, err := s.load()
			if !errors.Is(err, c.err) || err == nil && r.BootID != c.boot {
				t.Fatalf("got %+v, %v", r, err)
			}
			if err != nil {
				return
			}
			d.bad = nil
			for range 2 { // the copy that was unreadable first
				if err := s.save(sample("next")); err != nil {
					t.Fatal(err)
				}
				if id := load(t, d).BootID; id != "next" {
					t.Fatalf("after the next save: record of boot %q", id)
				}
			}
		})
	}
}

// withPayload is a copy with any payload, as another version would have written it.
func withPayload(major, minor uint16, payload string) *disk {
	d := newDisk()
	copy(d.data, encodeCopy(storeCopy{major, minor, 9, []byte(payload)}))
	return d
}

func TestWhatANewerServiceWroteSurvives(t *testing.T) {
	const text = `{"boot":"x","colour":"red","trial":{"bank":"b","why":[1]},"components":{
		"rootfs":{"id":3,"state":"TRIAL","active":1,"floor":7,"mood":{"a":1},"slots":[{"id":"p1","size":5,"x":1,"image":{"version":{"major":1,"minor":0,"patch":0,"build":0},"taste":"sweet"}},{"id":"p2","size":5}]},
		"radio":{"id":9,"state":"READY","active":0,"floor":1,"slots":[{"id":"p3","size":5},{"id":"p4","size":5}]}}}`
	d := withPayload(storeMajor, 42, text)
	s := open(t, d)
	r, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.save(r.clone()); err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	c, err := s.readCopy(s.newest)
	if err != nil || c.minor != 42 {
		t.Fatalf("format %d.%d, %v", c.major, c.minor, err)
	}
	if err := json.Unmarshal(c.payload, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRecordsThatNobodyCanHaveWritten(t *testing.T) {
	for name, c := range map[string]struct {
		d   *disk
		err error
	}{
		"another major version":       {withPayload(2, 0, `{}`), errRecordVersion},
		"no JSON":                     {withPayload(1, 0, `{"boot":`), errRecordLost},
		"an active slot that is none": {withPayload(1, 0, `{"components":{"x":{"state":"READY","active":2,"slots":[{},{}]}}}`), errRecordLost},
		"a state that is none":        {withPayload(1, 0, `{"components":{"x":{"state":"HAPPY","slots":[{},{}]}}}`), errRecordLost},
		"staged without a bank":       {withPayload(1, 0, `{"components":{"x":{"state":"STAGED","slots":[{},{}]}}}`), errRecordLost},
		"trial of bank c":             {withPayload(1, 0, `{"trial":{"bank":"c"},"components":{}}`), errRecordLost},
		"a negative size":             {withPayload(1, 0, `{"components":{"x":{"state":"READY","slots":[{"size":-1},{}]}}}`), errRecordLost},
		"a head larger than a head":   {withPayload(1, 0, `{"components":{"x":{"state":"READY","slots":[{"image":{"head":{"sectors":300}}},{}]}}}`), errRecordLost},
		"a component that is null":    {withPayload(1, 0, `{"components":{"x":null}}`), errRecordLost},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := open(t, c.d).load(); !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
		})
	}
}

func TestMemoryOfFailedImagesIsBounded(t *testing.T) {
	c := &componentRecord{}
	for n := range 3 * maxFailedImages {
		c.remember(string(rune('a' + n)))
	}
	c.remember(string(rune('a' + 3*maxFailedImages - 1)))
	if len(c.Failed) != maxFailedImages || c.failedTrials(string(rune('a'+3*maxFailedImages-1))) != 2 {
		t.Fatalf("%v", c.Failed)
	}
}

var golden = flag.Bool("golden", false, "write the store of this version")

// The store of every release stays readable.
func TestStoresOfEveryRelease(t *testing.T) {
	name := filepath.Join("testdata", "store-1.0")
	if *golden {
		d := newDisk()
		if err := open(t, d).save(sample("golden")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, d.data[:4096], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob("testdata/store-*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		d := newDisk()
		copy(d.data, b)
		if diff := cmp.Diff(encoded(t, sample("golden")), encoded(t, load(t, d))); diff != "" {
			t.Errorf("%s: %s", f, diff)
		}
	}
}

func FuzzStore(f *testing.F) {
	b, err := os.ReadFile("testdata/store-1.0")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, false)
	f.Add([]byte(`{"components":{}}`), true)
	f.Add([]byte(`{"trial":{"bank":"a"},"components":{"x":{"state":"TRIAL","slots":[{"image":{"head":{"sectors":8,"bits":"AA=="}}},{}]}}}`), true)
	f.Fuzz(func(t *testing.T, b []byte, payload bool) {
		if len(b) > storeCopySize-storeHeaderSize {
			return
		}
		d := newDisk()
		copy(d.data, b)
		if payload { // with a good checksum around it
			d = withPayload(storeMajor, 0, string(b))
		}
		s := open(t, d)
		r, err := s.load()
		if err != nil {
			return
		}
		if err := s.save(r.clone()); err != nil && ReasonOf(err) != ReasonRecordTooLarge {
			t.Fatal(err)
		}
		if _, err := s.load(); err != nil {
			t.Fatalf("what was read and saved again: %v", err)
		}
	})
}

// Every call of the specification has a row or is BAD_STATE, and no two rows answer the same question.
func TestTableIsUnambiguous(t *testing.T) {
	for _, v := range variants() {
		for s := Ready; s <= Updated; s++ {
			for e := evStart; e <= evTrialBroken; e++ {
				n := 0
				for _, tr := range transitions() {
					if tr.from == s && tr.on == e && tr.live.has(v.live) && tr.trial.has(v.trial) && tr.volatile.has(v.volatile) {
						n++
					}
				}
				if n > 1 {
					t.Errorf("%+v, %v, %v: %d rows", v, s, e, n)
				}
			}
		}
	}
}

func variants() (out []variant) {
	for n := range 8 {
		out = append(out, variant{n&1 != 0, n&2 != 0, n&4 != 0})
	}
	return out
}

// States that a variant does not have are never reached.
func TestVariantsHaveTheStatesOfTheirFigure(t *testing.T) {
	for _, v := range variants() {
		reached := map[State]bool{Ready: true}
		for grown := true; grown; {
			grown = false
			for s := range reached {
				for e := evStart; e <= evTrialBroken; e++ {
					if to, _, err := v.next(s, e); err == nil && !reached[to] {
						reached[to], grown = true, true
					}
				}
			}
		}
		want := map[State]bool{Ready: true, Writing: true, Candidate: true, Failed: true, Updated: true,
			Staged: !v.live, Trial: v.trial, Rejected: !v.live && v.trial}
		if !v.live && !v.trial && v.volatile {
			want[Updated] = false // figure 13: a reboot goes from STAGED to READY
		}
		for s := Ready; s <= Updated; s++ {
			if reached[s] != want[s] {
				t.Errorf("%+v: %v reached: %v", v, s, reached[s])
			}
		}
	}
}
