package fwu

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// filler sets every exported field below a value, each to another value, but for the states and
// banks that a record may have.
type filler struct {
	n    int64
	seen []string // paths of the fields that were set
}

func (f *filler) fill(path string, v reflect.Value) {
	f.n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() {
				f.fill(path+"."+field.Name, v.Field(i))
			}
		}
		return
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(path, v.Elem())
		return
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		elem := reflect.New(v.Type().Elem()).Elem()
		f.fill(path, elem)
		v.SetMapIndex(reflect.ValueOf("rootfs").Convert(v.Type().Key()), elem)
		return
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 16, 16)) // as many as there are bytes of bits in a head of 128 sectors
		for i := range v.Len() {
			f.fill(path, v.Index(i))
		}
		return
	case reflect.Array:
		for i := range v.Len() {
			f.fill(fmt.Sprintf("%s[%d]", path, i), v.Index(i))
		}
		return
	}
	f.seen = append(f.seen, path)
	switch v.Type() {
	case reflect.TypeFor[Bank]():
		v.SetString(string(BankB))
	case reflect.TypeFor[State]():
		v.SetUint(uint64(Trial))
	default:
		switch {
		case strings.HasSuffix(path, ".Active"):
			v.SetInt(1)
		case strings.HasSuffix(path, ".Sectors"):
			v.SetInt(128)
		case v.CanInt():
			v.SetInt(f.n)
		case v.CanUint():
			v.SetUint(uint64(f.n % 200))
		case v.Kind() == reflect.String:
			v.SetString(fmt.Sprint("text ", f.n))
		case v.Kind() == reflect.Bool:
			v.SetBool(true)
		default:
			panic("nothing to set " + path + " to")
		}
	}
}

// A field that is set comes back from the store, and one that was cleared does not come back: a
// field that the codec does not know is kept as one of a newer version, for ever.
func TestEveryFieldOfTheRecordIsStoredAndCleared(t *testing.T) {
	options := cmp.Options{cmpopts.IgnoreUnexported(record{}, trialRecord{}, componentRecord{}, slotRecord{}, imageRecord{}), cmpopts.EquateEmpty()}
	full := &record{}
	var f filler
	f.fill("record", reflect.ValueOf(full).Elem())
	if len(f.seen) < 80 {
		t.Fatalf("%d fields only: %v", len(f.seen), f.seen)
	}
	reload := func(r *record) *record {
		t.Helper()
		d := newDisk()
		if err := open(t, d).save(r); err != nil {
			t.Fatal(err)
		}
		return load(t, d)
	}
	got := reload(full)
	if diff := cmp.Diff(full, got, options); diff != "" {
		t.Fatalf("(-saved +loaded):\n%s", diff)
	}
	none := func(where string, x extra) {
		t.Helper()
		if len(x) > 0 {
			t.Errorf("%s: taken for fields of a newer version: %v", where, x)
		}
	}
	none("record", got.extra)
	none("trial", got.Trial.extra)
	for _, c := range got.Components {
		none("component", c.extra)
		for _, s := range c.Slots {
			none("slot", s.extra)
			none("image", s.Image.extra)
		}
	}
	// Each level alone: the levels above it go on to exist.
	got.Trial.clear()
	c := got.Components["rootfs"]
	for i := range c.Slots {
		c.Slots[i].Image.clear()
	}
	c.clear()
	want := &record{BootID: full.BootID, Settled: full.Settled, Selector: full.Selector, Bank: full.Bank, Signed: full.Signed, Return: full.Return, Trial: &trialRecord{Bank: BankB},
		Components: map[string]*componentRecord{"rootfs": {Slots: [2]slotRecord{{Image: &imageRecord{}}, {Image: &imageRecord{}}}}}}
	if diff := cmp.Diff(want, reload(got), options); diff != "" {
		t.Errorf("(-cleared +loaded):\n%s", diff)
	}
	x := got.extra
	*got = record{extra: x, Components: map[string]*componentRecord{}}
	if diff := cmp.Diff(&record{Components: map[string]*componentRecord{}}, reload(got), options); diff != "" {
		t.Errorf("(-cleared +loaded):\n%s", diff)
	}
}

func (t *trialRecord) clear() { *t = trialRecord{Bank: t.Bank, extra: t.extra} }
func (i *imageRecord) clear() { *i = imageRecord{extra: i.extra} }
func (c *componentRecord) clear() { // its images are cleared by themselves
	slots := c.Slots
	for i := range slots {
		slots[i].ID, slots[i].Size = "", 0
	}
	*c = componentRecord{Slots: slots, extra: c.extra}
}
