package diskimage

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCreate(t *testing.T) {
	layout := Layout{SectorSize: 4096, GUID: "99999999-2222-4333-8444-555555555555", Partitions: []Partition{
		{Name: "a", Size: 1 << 20, UUID: "11111111-2222-4333-8444-55555555aaaa"},
		{Name: "b", Size: 4096, UUID: "11111111-2222-4333-8444-55555555bbbb", Type: EFISystem},
		{Name: "c", Size: 3 << 20, UUID: "11111111-2222-4333-8444-55555555cccc"},
	}}
	dir := t.TempDir()
	var images [2][]byte
	for i, name := range []string{"one", "two"} {
		path := filepath.Join(dir, name)
		got, err := Create(path, layout)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]Extent{{1 << 20, 1 << 20}, {2 << 20, 4096}, {3 << 20, 3 << 20}}, got); d != "" {
			t.Error(d)
		}
		if images[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("two images of one layout differ")
	}
	if len(images[0]) != 7<<20 {
		t.Errorf("the image has %d bytes", len(images[0]))
	}
}

func TestCreateRefuses(t *testing.T) {
	ok := Partition{Name: "a", Size: 1 << 20}
	tests := map[string]Layout{
		"a sector size of 1024":    {SectorSize: 1024, Partitions: []Partition{ok}},
		"half a sector":            {Partitions: []Partition{{Name: "a", Size: 700}}},
		"no size":                  {Partitions: []Partition{{Name: "a"}}},
		"a name that is too long":  {Partitions: []Partition{{Name: strings.Repeat("x", 37), Size: 512}}},
		"a name of 19 surrogates":  {Partitions: []Partition{{Name: strings.Repeat("😀", 19), Size: 512}}},
		"a type that is no GUID":   {Partitions: []Partition{{Name: "a", Size: 512, Type: "linux"}}},
		"an UUID that is none":     {Partitions: []Partition{{Name: "a", Size: 512, UUID: "1"}}},
		"more than 128 partitions": {Partitions: slicesRepeat(ok, 129)},
		"a disk GUID that is none": {GUID: "x", Partitions: []Partition{ok}},
		"a size that is negative":  {Partitions: []Partition{{Name: "a", Size: -512}}},
	}
	for name, l := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			if _, err := Create(path, l); err == nil {
				t.Error("made")
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("something is left")
			}
		})
	}
}

func slicesRepeat(p Partition, n int) (all []Partition) {
	for range n {
		all = append(all, p)
	}
	return all
}

func TestCreateOverwritesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path, Layout{Partitions: []Partition{{Name: "a", Size: 512}}}); err == nil {
		t.Error("made")
	}
	if b, _ := os.ReadFile(path); string(b) != "x" {
		t.Error("overwritten")
	}
}
