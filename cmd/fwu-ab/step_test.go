package main

import (
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

func TestAComponentIsFoundByNameBeforeId(t *testing.T) {
	components := []fwu.ComponentInfo{{ID: 1, Name: "rootfs"}, {ID: 0, Name: "1"}}
	for s, want := range map[string]string{"rootfs": "rootfs", "1": "1", "0": "1"} {
		got, err := findComponent(components, s)
		if err != nil || got.Name != want {
			t.Errorf("%q is %q, %v; want %q", s, got.Name, err, want)
		}
	}
	if _, err := findComponent(components, "256"); err == nil {
		t.Error("256 was found")
	}
}
