package update

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/google/go-cmp/cmp"
)

// recorder is a service that notes what it is asked for, and follows the states of the specification as far as an update needs them.
type recorder struct {
	calls []string
	comps []fwu.ComponentInfo
	info  map[fwu.ID]*fwu.Info
	fail  string // call that fails
}

var errRefused = &fwu.Error{Status: fwu.NotPermitted, Reason: fwu.ReasonSequenceRollback, Text: "refused"}

func (r *recorder) call(format string, args ...any) error {
	c := fmt.Sprintf(format, args...)
	r.calls = append(r.calls, c)
	if r.fail != "" && strings.HasPrefix(c, r.fail) {
		return errRefused
	}
	return nil
}

func (r *recorder) Components() []fwu.ComponentInfo { return r.comps }

func (r *recorder) Query(_ context.Context, id fwu.ID) (fwu.Info, error) { return *r.info[id], nil }

func (r *recorder) Start(_ context.Context, id fwu.ID, manifest []byte) error {
	r.info[id].State = fwu.Writing
	kind := "no manifest"
	if len(manifest) > 0 {
		kind = "manifest"
	}
	return r.call("start %d %s", id, kind)
}

func (r *recorder) WriteFrom(_ context.Context, id fwu.ID, off int64, src io.Reader, length int64) (int64, error) {
	b, err := io.ReadAll(io.LimitReader(src, length))
	if err != nil {
		return 0, err
	}
	return int64(len(b)), r.call("write %d at %d: %x", id, off, sha256.Sum256(b))
}

func (r *recorder) Finish(_ context.Context, id fwu.ID) error {
	r.info[id].State = fwu.Candidate
	return r.call("finish %d", id)
}

func (r *recorder) Cancel(_ context.Context, id fwu.ID) error {
	r.info[id].State = fwu.Failed
	return r.call("cancel %d", id)
}

func (r *recorder) Clean(_ context.Context, id fwu.ID) error {
	r.info[id].State = fwu.Ready
	return r.call("clean %d", id)
}

func (r *recorder) Install(context.Context) (fwu.Status, error) {
	return fwu.SuccessReboot, r.call("install")
}

type silent struct{}

func (silent) Step(string, string)                   {}
func (silent) Progress(string, string, int64, int64) {}

// files makes an image of 9000 bytes with its manifest, and a bundle of both.
func files(t *testing.T, component string) (manifest, image, bundle string, content []byte, d suit.Description) {
	t.Helper()
	dir := t.TempDir()
	content = bytes.Repeat([]byte("0123456789"), 900)
	digest, size, err := suit.Measure(bytes.NewReader(content), crypto.SHA256)
	check(t, err)
	device := suit.Device{Vendor: suit.VendorID("example.com")}
	device.Class = suit.ClassID(device.Vendor, "board")
	spec := suit.Spec{Device: device, Image: suit.Image{Component: component, Digest: digest, Size: size, Sequence: 2, Version: suit.Version{Major: 2}}}
	envelope, err := suit.Create(spec)
	check(t, err)
	d, err = suit.Describe(envelope)
	check(t, err)
	spec.Payload = "#" + component
	integrated, err := suit.Create(spec)
	check(t, err)
	var b bytes.Buffer
	check(t, suit.WriteBundle(&b, integrated, spec.Payload, size, bytes.NewReader(content)))
	manifest, image, bundle = filepath.Join(dir, "m.suit"), filepath.Join(dir, "image"), filepath.Join(dir, "b.suit")
	check(t, os.WriteFile(manifest, envelope, 0o600))
	check(t, os.WriteFile(image, content, 0o600))
	check(t, os.WriteFile(bundle, b.Bytes(), 0o600))
	return manifest, image, bundle, content, d
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatAnUpdateDoesDependsOnTheState(t *testing.T) {
	manifest, image, _, content, d := files(t, "rootfs")
	all := fmt.Sprintf("write 0 at 0: %x", sha256.Sum256(content))
	whole := []string{"start 0 manifest", all, "finish 0", "install"}
	ours := fwu.Impl{ManifestDigest: d.Manifest, Written: 4096}
	for name, c := range map[string]struct {
		info  fwu.Info
		force bool
		want  []string
		err   error
	}{
		"ready":                       {info: fwu.Info{State: fwu.Ready}, want: whole},
		"failed":                      {info: fwu.Info{State: fwu.Failed}, want: append([]string{"clean 0"}, whole...)},
		"updated":                     {info: fwu.Info{State: fwu.Updated}, want: append([]string{"clean 0"}, whole...)},
		"writing another image":       {info: fwu.Info{State: fwu.Writing}, want: append([]string{"cancel 0", "clean 0"}, whole...)},
		"candidate, another image":    {info: fwu.Info{State: fwu.Candidate}, want: append([]string{"cancel 0", "clean 0"}, whole...)},
		"writing this image, cut off": {info: fwu.Info{State: fwu.Writing, Impl: ours}, want: []string{fmt.Sprintf("write 0 at 4096: %x", sha256.Sum256(content[4096:])), "finish 0", "install"}},
		"candidate, this image":       {info: fwu.Info{State: fwu.Candidate, Impl: ours}, want: []string{"install"}},
		"written to the end, cut off": {info: fwu.Info{State: fwu.Writing, Impl: fwu.Impl{ManifestDigest: d.Manifest, Written: 9000}}, want: []string{"finish 0", "install"}},
		"staged":                      {info: fwu.Info{State: fwu.Staged}, err: fwu.BadState},
		"trial":                       {info: fwu.Info{State: fwu.Trial}, err: fwu.BadState},
		"rejected":                    {info: fwu.Info{State: fwu.Rejected}, err: fwu.BadState},
		"the image is the active one": {info: fwu.Info{State: fwu.Ready, Impl: fwu.Impl{Digest: d.Images[0].Digest}}, err: ErrNothingToDo},
		"the active one, once more":   {info: fwu.Info{State: fwu.Ready, Impl: fwu.Impl{Digest: d.Images[0].Digest}}, force: true, want: whole},
	} {
		t.Run(name, func(t *testing.T) {
			info := c.info
			r := &recorder{comps: []fwu.ComponentInfo{{Name: "rootfs", Manifest: fwu.Detached}}, info: map[fwu.ID]*fwu.Info{0: &info}}
			sources, err := Open([]string{manifest, image})
			check(t, err)
			_, err = Run(t.Context(), r, sources, silent{}, c.force)
			if !errors.Is(err, c.err) || c.err == nil && err != nil {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if diff := cmp.Diff(c.want, r.calls); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAFileFitsTheComponentsManifestMode(t *testing.T) {
	manifest, image, bundle, content, _ := files(t, "rootfs")
	stream, err := os.ReadFile(bundle)
	check(t, err)
	for name, c := range map[string]struct {
		mode  fwu.ManifestMode
		files []string
		want  []string
		err   error
	}{
		"bundle for bundled":             {fwu.Bundled, []string{bundle}, []string{"start 0 no manifest", fmt.Sprintf("write 0 at 0: %x", sha256.Sum256(stream)), "finish 0", "install"}, nil},
		"bundle for detached: split":     {fwu.Detached, []string{bundle}, []string{"start 0 manifest", fmt.Sprintf("write 0 at 0: %x", sha256.Sum256(content)), "finish 0", "install"}, nil},
		"manifest and image for bundled": {fwu.Bundled, []string{manifest, image}, nil, fwu.InvalidArgument},
		"image alone for detached":       {fwu.Detached, []string{"rootfs=" + image}, nil, fwu.InvalidArgument},
		"image alone for none":           {fwu.None, []string{"rootfs=" + image}, []string{"start 0 no manifest", fmt.Sprintf("write 0 at 0: %x", sha256.Sum256(content)), "finish 0", "install"}, nil},
		"bundle for none: its image":     {fwu.None, []string{bundle}, []string{"start 0 no manifest", fmt.Sprintf("write 0 at 0: %x", sha256.Sum256(content)), "finish 0", "install"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{comps: []fwu.ComponentInfo{{Name: "rootfs", Manifest: c.mode}}, info: map[fwu.ID]*fwu.Info{0: {}}}
			sources, err := Open(c.files)
			check(t, err)
			_, err = Run(t.Context(), r, sources, silent{}, false)
			if !errors.Is(err, c.err) || c.err == nil && err != nil {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if diff := cmp.Diff(c.want, r.calls); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNothingIsInstalledIfOneImageIsRefused(t *testing.T) {
	rootfs, image, _, _, _ := files(t, "rootfs")
	bootfw, image2, _, _, _ := files(t, "bootfw")
	sources, err := Open([]string{rootfs, image, bootfw, image2})
	check(t, err)
	r := &recorder{comps: []fwu.ComponentInfo{{Name: "rootfs", Manifest: fwu.Detached}, {ID: 1, Name: "bootfw", Manifest: fwu.Detached}},
		info: map[fwu.ID]*fwu.Info{0: {}, 1: {}}, fail: "finish 1"}
	if _, err := Run(t.Context(), r, sources, silent{}, false); !errors.Is(err, fwu.NotPermitted) {
		t.Fatal(err)
	}
	for _, c := range r.calls {
		if c == "install" {
			t.Fatal("installed")
		}
	}
}

func TestOtherMembersOfTheBankAreCleanedBeforeTheyAreCarriedOver(t *testing.T) {
	manifest, image, _, content, _ := files(t, "rootfs")
	r := &recorder{comps: []fwu.ComponentInfo{{Name: "rootfs", Manifest: fwu.Detached}, {ID: 1, Name: "bootfw"}, {ID: 2, Name: "radio", Live: true}, {ID: 3, Name: "logo"}},
		info: map[fwu.ID]*fwu.Info{0: {State: fwu.Updated}, 1: {State: fwu.Updated}, 2: {State: fwu.Updated}, 3: {State: fwu.Candidate}}}
	sources, err := Open([]string{manifest, image})
	check(t, err)
	_, err = Run(t.Context(), r, sources, silent{}, false)
	check(t, err)
	want := []string{"clean 1", "clean 0", "start 0 manifest", fmt.Sprintf("write 0 at 0: %x", sha256.Sum256(content)), "finish 0", "install"}
	if diff := cmp.Diff(want, r.calls); diff != "" {
		t.Error(diff)
	}
}

func TestFilesThatAreNoUpdate(t *testing.T) {
	manifest, image, _, _, _ := files(t, "rootfs")
	for name, args := range map[string][]string{
		"missing":               {"nosuch.suit"},
		"no envelope":           {image},
		"a manifest, no image":  {manifest},
		"its image is missing":  {manifest, "nosuch.img"},
		"a named image missing": {"rootfs=nosuch.img"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(args); err == nil {
				t.Fatal("taken")
			}
		})
	}
	sources, err := Open([]string{manifest, image})
	check(t, err)
	r := &recorder{comps: []fwu.ComponentInfo{{Name: "radio"}}}
	if _, err := Run(t.Context(), r, sources, silent{}, false); !errors.Is(err, fwu.DoesNotExist) {
		t.Fatal(err)
	}
}
