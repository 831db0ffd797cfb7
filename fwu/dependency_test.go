package fwu_test

import (
	"slices"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
)

func TestDependenciesOfACandidate(t *testing.T) {
	image := randomImage(3, 40960)
	candidate := func(id fwu.ID, name, version string) func(*device) {
		return func(d *device) { d.candidate(id, name, image, version, 2) }
	}
	writing := func(id fwu.ID, name, version string) func(*device) {
		return func(d *device) { d.do(d.Start(d.t.Context(), id, d.manifest(name, image, version, 2))) }
	}
	for _, tt := range []struct {
		name   string
		needs  string
		before func(*device)
		stands []fwu.ID // in the way
		ok     bool
	}{
		{name: "the active version", needs: "rootfs>=1.0.0", ok: true},
		{name: "more than the active version", needs: "rootfs>=1.0.1", stands: []fwu.ID{0}},
		{name: "a candidate of the same install", needs: "lib>=2.0.0", before: candidate(1, "lib", "2.0.0"), ok: true},
		{name: "more than a candidate of the same install", needs: "lib>=2.0.0", before: candidate(1, "lib", "1.9.0"), stands: []fwu.ID{1}},
		{name: "what is only being written", needs: "lib>=2.0.0", before: writing(1, "lib", "2.0.0"), stands: []fwu.ID{1}},
		{name: "what is only being written to the other bank", needs: "rootfs>=2.0.0", before: writing(0, "rootfs", "2.0.0"), stands: []fwu.ID{0}},
		{name: "the active version of what is being written", needs: "rootfs>=1.0.0", before: writing(0, "rootfs", "2.0.0"), ok: true},
		{name: "a component that the device lacks", needs: "radio>=1.0.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDevice(t, true, bank("rootfs")[0], live(1, "lib", false), live(2, "app", false))
			if tt.before != nil {
				tt.before(d)
			}
			dep, err := suit.ParseDependency(tt.needs)
			d.do(err)
			d.candidate(2, "app", image, "2.0.0", 2, dep)
			before := d.states()
			info, err := d.Query(t.Context(), 2)
			d.do(err)
			second := info.Impl.Second
			if tt.ok {
				if second.Blocked != "" || second.BlockedBy != nil {
					t.Errorf("blocked: %q by %v", second.Blocked, second.BlockedBy)
				}
				d.installed(fwu.Success)
				return
			}
			_, err = d.Install(t.Context())
			d.wantStatus(err, fwu.DependencyNeeded, fwu.ReasonDependency)
			d.names(err, tt.stands...)
			d.want(before)
			if err.Error() != "install: "+second.Blocked || !slices.Equal(tt.stands, second.BlockedBy) {
				t.Errorf("install says %q, and Query %q by %v", err, second.Blocked, second.BlockedBy)
			}
		})
	}
}
