package efi_test

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
	"github.com/fwu-ab/fwu-ab/suit"
)

// TestBytes holds an entry against one that was put together by hand from the UEFI specification, sections 3.1.3 and 10.3.5.
func TestBytes(t *testing.T) {
	uuid, err := suit.ParseUUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
	if err != nil {
		t.Fatal(err)
	}
	p := efi.Partition{Number: 3, UUID: [16]byte(uuid), Start: 0x1234, Size: 0x8000}
	o := efi.LoadOption{Attributes: efi.Active, Description: "fwu-ab b", Path: efi.FilePath(p, `\k`), Optional: utf16("x=é"[:2])}
	want := strings.Join([]string{
		"01000000", "3800", // active; 56 bytes of device path
		"660077007500" + "2d00" + "61006200" + "2000" + "6200" + "0000", // fwu-ab b
		"0401" + "2a00", "03000000", "3412000000000000", "0080000000000000", // media, hard drive, 42 bytes; number; start; size
		"af3dc60f" + "8384" + "7247" + "8e79" + "3d69d8477de4", "02" + "02", // signature; GPT, GUID
		"0404" + "0a00" + "5c006b00" + "0000", // media, file, 10 bytes; \k
		"7fff" + "0400",                       // end
		"7800" + "3d00",                       // x=
	}, "")
	b := o.Append(nil)
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	again, err := efi.ParseLoadOption(b)
	if diff := cmp.Diff(o, again); err != nil || diff != "" {
		t.Error(err, diff)
	}
	gotP, file, ok := again.File()
	if gotP != p || file != `\k` || !ok {
		t.Errorf("%v, %q, %v", gotP, file, ok)
	}
}

func TestDevicePathsThatAreNoFileOnAPartition(t *testing.T) {
	good := efi.FilePath(part(0), loader)
	end := []byte{0x7f, 0xff, 4, 0}
	hd, file := good[:42], good[42:len(good)-4]
	mbr := bytes.Clone(hd)
	mbr[40], mbr[41] = 1, 1
	tests := map[string][]byte{
		"nothing":                  nil,
		"no end":                   good[:len(good)-4],
		"the end is cut":           good[:len(good)-1],
		"a partition only":         slices.Concat(hd, end),
		"a file only":              slices.Concat(file, end),
		"a partition of an MBR":    slices.Concat(mbr, file, end),
		"a node of no length":      slices.Concat(hd, []byte{4, 4, 0, 0}, end),
		"a node that is too long":  slices.Concat(hd, []byte{4, 4, 0xff, 0xff}, end),
		"a hard drive that is cut": slices.Concat([]byte{4, 1, 20, 0}, hd[4:20], file, end),
		"a name without an end":    slices.Concat(hd, []byte{4, 4, 6, 0, 'x', 0}, end),
		"two paths in one":         slices.Concat(hd, file, []byte{0x7f, 1, 4, 0}, hd, file, end),
		"something behind it":      slices.Concat(hd, []byte{4, 3, 4, 0}, file, end),
	}
	for name, path := range tests {
		if p, f, ok := (efi.LoadOption{Path: path}).File(); ok {
			t.Errorf("%s: %v %q", name, p, f)
		}
	}
	split := slices.Concat([]byte{2, 1, 12, 0, 1, 2, 3, 4, 5, 6, 7, 8}, hd, []byte{4, 4, 10, 0, '\\', 0, 'x', 0, 0, 0, 4, 4, 8, 0, 'y', 0, 0, 0}, end)
	if _, f, ok := (efi.LoadOption{Path: split}).File(); !ok || f != `\x\y` {
		t.Errorf("a name in two nodes: %q, %v", f, ok)
	}
}

func FuzzLoadOption(f *testing.F) {
	for _, w := range words() {
		f.Add(option(w).Append(nil))
	}
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := efi.ParseLoadOption(b)
		if err != nil {
			return
		}
		o.File()
		again, err := efi.ParseLoadOption(o.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(o, again); diff != "" {
			t.Error(diff)
		}
	})
}

// FuzzVariables gives the selector whatever the firmware may hold: it must not panic, keep what is not ours, and do what it is told.
func FuzzVariables(f *testing.F) {
	for _, w := range words() {
		f.Add(option(w).Append(nil), option("usb").Append(nil), []byte{0, 0, 1, 0}, []byte{1, 0}, []byte{0, 0})
	}
	f.Add([]byte{}, []byte{1}, []byte{5, 0, 5, 0, 5}, []byte{}, []byte{1, 0, 2})
	f.Fuzz(func(t *testing.T, zero, one, order, next, current []byte) {
		m, _ := firmware(t, "| | |")
		for name, data := range map[string][]byte{efi.EntryName(0): zero, efi.EntryName(1): one, efi.BootOrder: order, efi.BootNext: next, efi.BootCurrent: current} {
			if len(data) > 0 && len(data) < 64<<10 {
				m.Content[name] = efi.Variable{Attributes: 7, Data: data}
			}
		}
		foreign := map[uint16]bool{}
		for n, data := range map[uint16][]byte{0: zero, 1: one} {
			o, err := efi.ParseLoadOption(data)
			foreign[n] = err != nil || o.Description != "fwu-ab a" && o.Description != "fwu-ab b"
		}
		s := selector(t, m)
		s.Doctor()
		s.Booted()
		for _, sel := range []string{"a b", "a", "b", "b a"} {
			want := bankPair(sel)
			if err := s.Commit(want); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Read(); err != nil || got != want {
				t.Fatalf("%v, %v after a commit of %v", got, err, want)
			}
			started(t, m, want)
		}
		for n, data := range map[uint16][]byte{0: zero, 1: one} {
			if foreign[n] && len(data) > 0 && len(data) < 64<<10 && !bytes.Equal(m.Content[efi.EntryName(n)].Data, data) {
				t.Errorf("entry %d was changed", n)
			}
		}
	})
}
