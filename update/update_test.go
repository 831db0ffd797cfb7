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
	"slices"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/zstdframe"
	"github.com/fxamacker/cbor/v2"
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

// imageFiles makes an image of 9000 bytes with its manifest, and a bundle of both.
func imageFiles(t *testing.T, component string) (manifest, image, bundle string, content []byte, d suit.Description) {
	t.Helper()
	dir := t.TempDir()
	content = bytes.Repeat([]byte("0123456789"), 900)
	digest, size, err := suit.Measure(bytes.NewReader(content), crypto.SHA256)
	check(t, err)
	device := suit.Device{Vendor: suit.VendorID("example.com")}
	device.Class = suit.ClassID(device.Vendor, "board")
	spec := suit.Spec{Device: device, Version: suit.Version{Major: 2}, Demand: suit.Demand{Sequence: 2, Images: []suit.Image{
		{Component: component, Digest: digest, Size: size, Version: suit.Version{Major: 2}}}}}
	envelope, err := suit.Create(spec)
	check(t, err)
	d, err = suit.Describe(envelope)
	check(t, err)
	spec.Images[0].URI = "#" + component
	integrated, err := suit.Create(spec)
	check(t, err)
	var b bytes.Buffer
	check(t, suit.WriteBundle(&b, integrated, []suit.PayloadSource{payload("#"+component, content)}))
	manifest, image, bundle = filepath.Join(dir, "m.suit"), filepath.Join(dir, "image"), filepath.Join(dir, "b.suit")
	check(t, os.WriteFile(manifest, envelope, 0o600))
	check(t, os.WriteFile(image, content, 0o600))
	check(t, os.WriteFile(bundle, b.Bytes(), 0o600))
	return manifest, image, bundle, content, d
}

func payload(key string, content []byte) suit.PayloadSource {
	return suit.PayloadSource{Key: key, Size: int64(len(content)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatAnUpdateDoesDependsOnTheState(t *testing.T) {
	manifest, image, _, content, d := imageFiles(t, "rootfs")
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
		"the image is the active one": {info: fwu.Info{State: fwu.Ready, Impl: fwu.Impl{Digest: d.Targets[0].Images[0].Digest}}, err: ErrNothingToDo},
		"the active one, once more":   {info: fwu.Info{State: fwu.Ready, Impl: fwu.Impl{Digest: d.Targets[0].Images[0].Digest}}, force: true, want: whole},
	} {
		t.Run(name, func(t *testing.T) {
			info := c.info
			r := &recorder{comps: []fwu.ComponentInfo{{Name: "rootfs", Manifest: fwu.Detached}}, info: map[fwu.ID]*fwu.Info{0: &info}}
			sources, err := Open(t.Context(), []string{manifest, image}, nil)
			check(t, err)
			_, err = Run(t.Context(), r, sources, silent{}, Options{Force: c.force})
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
	manifest, image, bundle, content, _ := imageFiles(t, "rootfs")
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
			sources, err := Open(t.Context(), c.files, nil)
			check(t, err)
			_, err = Run(t.Context(), r, sources, silent{}, Options{})
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
	rootfs, image, _, _, _ := imageFiles(t, "rootfs")
	bootfw, image2, _, _, _ := imageFiles(t, "bootfw")
	sources, err := Open(t.Context(), []string{rootfs, image, bootfw, image2}, nil)
	check(t, err)
	r := &recorder{comps: []fwu.ComponentInfo{{Name: "rootfs", Manifest: fwu.Detached}, {ID: 1, Name: "bootfw", Manifest: fwu.Detached}},
		info: map[fwu.ID]*fwu.Info{0: {}, 1: {}}, fail: "finish 1"}
	if _, err := Run(t.Context(), r, sources, silent{}, Options{}); !errors.Is(err, fwu.NotPermitted) {
		t.Fatal(err)
	}
	for _, c := range r.calls {
		if c == "install" {
			t.Fatal("installed")
		}
	}
}

func TestOtherMembersOfTheBankAreCleanedBeforeTheyAreCarriedOver(t *testing.T) {
	manifest, image, _, content, _ := imageFiles(t, "rootfs")
	r := &recorder{comps: []fwu.ComponentInfo{{Name: "rootfs", Manifest: fwu.Detached}, {ID: 1, Name: "bootfw"}, {ID: 2, Name: "radio", Live: true}, {ID: 3, Name: "logo"}},
		info: map[fwu.ID]*fwu.Info{0: {State: fwu.Updated}, 1: {State: fwu.Updated}, 2: {State: fwu.Updated}, 3: {State: fwu.Candidate}}}
	sources, err := Open(t.Context(), []string{manifest, image}, nil)
	check(t, err)
	_, err = Run(t.Context(), r, sources, silent{}, Options{})
	check(t, err)
	want := []string{"clean 1", "clean 0", "start 0 manifest", fmt.Sprintf("write 0 at 0: %x", sha256.Sum256(content)), "finish 0", "install"}
	if diff := cmp.Diff(want, r.calls); diff != "" {
		t.Error(diff)
	}
}

func TestFilesThatAreNoUpdate(t *testing.T) {
	manifest, image, _, _, _ := imageFiles(t, "rootfs")
	for name, args := range map[string][]string{
		"missing":               {"nosuch.suit"},
		"no envelope":           {image},
		"a manifest, no image":  {manifest},
		"its image is missing":  {manifest, "nosuch.img"},
		"a named image missing": {"rootfs=nosuch.img"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(t.Context(), args, nil); err == nil {
				t.Fatal("taken")
			}
		})
	}
	sources, err := Open(t.Context(), []string{manifest, image}, nil)
	check(t, err)
	r := &recorder{comps: []fwu.ComponentInfo{{Name: "radio"}}, info: map[fwu.ID]*fwu.Info{0: {}}}
	if _, err := Run(t.Context(), r, sources, silent{}, Options{}); !errors.Is(err, fwu.DoesNotExist) {
		t.Fatal(err)
	}
}

// several makes a bundle with images for three components, and the content of each by the key of its payload.
func several(t *testing.T) (bundle string, contents map[string][]byte) {
	t.Helper()
	device := suit.Device{Vendor: suit.VendorID("example.com")}
	device.Class = suit.ClassID(device.Vendor, "board")
	spec := suit.Spec{Device: device, Version: suit.Version{Major: 2}, Demand: suit.Demand{Sequence: 2}}
	contents = map[string][]byte{}
	var payloads []suit.PayloadSource
	for i, name := range []string{"rootfs", "bootfw", "app"} {
		content := bytes.Repeat([]byte(name), 1500+i)
		digest, size, err := suit.Measure(bytes.NewReader(content), crypto.SHA256)
		check(t, err)
		spec.Images = append(spec.Images, suit.Image{Component: name, Digest: digest, Size: size, Version: spec.Version, URI: "#" + name})
		contents[name] = content
		if name == "app" { // compressed: what the component expects is what the manifest says, or the image if there is none for it
			var b bytes.Buffer
			_, _, err := zstdframe.Compress(&b, bytes.NewReader(content), zstdframe.Default)
			check(t, err)
			spec.Images[i].Compression, contents["app.zst"], content = suit.CompressionZstd, b.Bytes(), b.Bytes()
		}
		payloads = append(payloads, payload("#"+name, content))
	}
	setting := []byte("setting")
	digest, size, err := suit.Measure(bytes.NewReader(setting), crypto.SHA256)
	check(t, err)
	spec.Images = append(spec.Images, suit.Image{Component: "setting", Digest: digest, Size: size, Version: spec.Version, Content: setting})
	contents["setting"] = setting
	envelope, err := suit.Create(spec)
	check(t, err)
	bundle = filepath.Join(t.TempDir(), "b.suit")
	f, err := os.Create(bundle)
	check(t, err)
	check(t, suit.WriteBundle(f, envelope, payloads))
	check(t, f.Close())
	return bundle, contents
}

// A bundle for several components gives each of them its own image, from a file as from a stream, and what was written before is not written again.
func TestBundleForSeveralComponents(t *testing.T) {
	bundle, contents := several(t)
	b, err := os.Open(bundle)
	check(t, err)
	defer b.Close()
	read, err := suit.NewBundle(b)
	check(t, err)
	single := func(name string) []byte {
		head, err := read.Single(suit.Payload{Key: "#" + name, Size: int64(len(contents[name]))})
		check(t, err)
		return append(head, contents[name]...)
	}
	manifest, err := suit.Unverified(read.Envelope)
	check(t, err)
	write := func(id int, off int, b []byte) string {
		return fmt.Sprintf("write %d at %d: %x", id, off, sha256.Sum256(b[off:]))
	}
	device := func() *recorder {
		return &recorder{comps: []fwu.ComponentInfo{{Name: "rootfs", Manifest: fwu.Bundled}, {ID: 1, Name: "bootfw", Manifest: fwu.Detached}, {ID: 2, Name: "app", Manifest: fwu.None}, {ID: 3, Name: "setting", Manifest: fwu.Detached}},
			info: map[fwu.ID]*fwu.Info{0: {}, 1: {}, 2: {}, 3: {}}}
	}
	app := []string{"start 2 no manifest", write(2, 0, contents["app"]), "finish 2"}
	bootfw := []string{"start 1 manifest", write(1, 0, contents["bootfw"]), "finish 1"}
	rootfs := []string{"start 0 no manifest", write(0, 0, single("rootfs")), "finish 0"}
	setting := []string{"start 3 manifest", write(3, 0, contents["setting"]), "finish 3"}
	ours := func(state fwu.State, written int64) *fwu.Info {
		return &fwu.Info{State: state, Impl: fwu.Impl{ManifestDigest: manifest.Digest().String(), Written: written}}
	}
	for name, c := range map[string]struct {
		info   map[fwu.ID]*fwu.Info
		file   [][]string
		stream [][]string
	}{
		"from the begin": {nil, [][]string{rootfs, bootfw, app, setting}, [][]string{setting, app, bootfw, rootfs}},
		"one was cut off, one is done": {map[fwu.ID]*fwu.Info{0: ours(fwu.Writing, 4096), 1: ours(fwu.Candidate, 0)},
			[][]string{{write(0, 4096, single("rootfs")), "finish 0"}, app, setting}, [][]string{setting, app, {write(0, 4096, single("rootfs")), "finish 0"}}},
		"an image without manifest, cut off": {map[fwu.ID]*fwu.Info{2: {State: fwu.Writing, Impl: fwu.Impl{Written: 4096}}},
			[][]string{rootfs, bootfw, append([]string{"cancel 2", "clean 2"}, app...), setting}, [][]string{setting, append([]string{"cancel 2", "clean 2"}, app...), bootfw, rootfs}},
		"detached, cut off": {map[fwu.ID]*fwu.Info{1: ours(fwu.Writing, 4096)},
			[][]string{rootfs, {write(1, 4096, contents["bootfw"]), "finish 1"}, app, setting}, [][]string{setting, app, {write(1, 4096, contents["bootfw"]), "finish 1"}, rootfs}},
	} {
		for from, want := range map[string][][]string{bundle: c.file, "-": c.stream} {
			t.Run(name+" from "+filepath.Base(from), func(t *testing.T) {
				r := device()
				for id, info := range c.info {
					copied := *info
					r.info[id] = &copied
				}
				stdin, err := os.Open(bundle)
				check(t, err)
				defer stdin.Close()
				sources, err := Open(t.Context(), []string{from}, struct{ io.Reader }{stdin})
				check(t, err)
				_, err = Run(t.Context(), r, sources, silent{}, Options{})
				check(t, err)
				if diff := cmp.Diff(append(slices.Concat(want...), "install"), r.calls); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// alternatives makes a bundle with an image for each of two classes, and for the second one a large and a small one, of which the battery decides.
func alternatives(t *testing.T, vendor, first, second suit.UUID) string {
	t.Helper()
	type m = map[int]any
	mode, err := cbor.CoreDetEncOptions().EncMode()
	check(t, err)
	encode := func(v any) []byte { b, err := mode.Marshal(v); check(t, err); return b }
	seq := func(commands ...any) []byte { return encode(commands) }
	var payloads []suit.PayloadSource
	image := func(name string) m {
		sum := sha256.Sum256([]byte(name))
		payloads = append(payloads, payload("#"+name, []byte(name)))
		return m{3: encode([]any{-16, sum[:]}), 14: len(name), 21: "#" + name}
	}
	shared := seq(20, m{1: vendor[:]}, 1, 15, 15, []any{
		seq(20, m{2: first[:]}, 2, 15, 20, image("first")),
		seq(20, m{2: second[:]}, 2, 15, 15, []any{
			seq(20, m{26: 5000}, 26, 15, 20, image("large")),
			seq(20, image("small")),
		}),
	})
	manifest := encode(m{1: 1, 2: 7, 3: encode(m{2: []any{[]any{[]byte("rootfs")}}, 4: shared}), 6: encode([]int{1, 2, 3}), 7: seq(3, 15), 20: seq(21, 15)})
	digest := sha256.Sum256(encode(manifest))
	envelope := encode(cbor.Tag{Number: 107, Content: m{2: encode([]any{encode([]any{-16, digest[:]})}), 3: manifest}})
	path := filepath.Join(t.TempDir(), "b.suit")
	f, err := os.Create(path)
	check(t, err)
	check(t, suit.WriteBundle(f, envelope, payloads))
	check(t, f.Close())
	return path
}

// Which image of a bundle a device is given depends on what it is: as far as the client knows that.
func TestBundleWithAlternatives(t *testing.T) {
	vendor := suit.VendorID("example.com")
	first, second := suit.ClassID(vendor, "first"), suit.ClassID(vendor, "second")
	bundle := alternatives(t, vendor, first, second)
	is := func(class suit.UUID) func(string) suit.Device {
		return func(string) suit.Device { return suit.Device{Vendor: vendor, Class: class} }
	}
	battery := func(mWh uint64, err error) func() (uint64, error) { return func() (uint64, error) { return mWh, err } }
	for name, c := range map[string]struct {
		options Options
		want    string
	}{
		"the first class":                    {Options{Device: is(first)}, "first"},
		"the second, and no battery known":   {Options{Device: is(second)}, "small"},
		"the second, charged":                {Options{Device: is(second), Battery: battery(5000, nil)}, "large"},
		"the second, not charged":            {Options{Device: is(second), Battery: battery(4999, nil)}, "small"},
		"the second, no telling":             {Options{Device: is(second), Battery: battery(9000, errors.New("no answer"))}, "small"},
		"another class: the service says so": {Options{Device: is(vendor)}, "first"},
		"not known":                          {Options{}, "first"},
		"of another component only": {Options{Device: func(c string) suit.Device {
			if c == "rootfs" {
				return is(second)("")
			}
			return is(first)("")
		}}, "small"},
	} {
		for _, from := range []string{bundle, "-"} {
			t.Run(name+" from "+filepath.Base(from), func(t *testing.T) {
				r := &recorder{comps: []fwu.ComponentInfo{{ID: 1, Name: "bootfw", Manifest: fwu.Detached}, {Name: "rootfs", Manifest: fwu.Detached}}, info: map[fwu.ID]*fwu.Info{0: {}, 1: {}}}
				stdin, err := os.Open(bundle)
				check(t, err)
				defer stdin.Close()
				sources, err := Open(t.Context(), []string{from}, struct{ io.Reader }{stdin})
				check(t, err)
				_, err = Run(t.Context(), r, sources, silent{}, c.options)
				check(t, err)
				want := []string{"start 0 manifest", fmt.Sprintf("write 0 at 0: %x", sha256.Sum256([]byte(c.want))), "finish 0", "install"}
				if diff := cmp.Diff(want, r.calls); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestStreamThatEndsEarly(t *testing.T) {
	bundle, _ := several(t)
	whole, err := os.ReadFile(bundle)
	check(t, err)
	for _, n := range []int{100, len(whole) / 3, len(whole) - 5000, len(whole) - 1} {
		r := &recorder{comps: []fwu.ComponentInfo{{Name: "rootfs", Manifest: fwu.Detached}, {ID: 1, Name: "bootfw", Manifest: fwu.Detached}, {ID: 2, Name: "app", Manifest: fwu.Detached}, {ID: 3, Name: "setting", Manifest: fwu.Detached}},
			info: map[fwu.ID]*fwu.Info{0: {}, 1: {}, 2: {}, 3: {}}}
		sources, err := Open(t.Context(), []string{"-"}, bytes.NewReader(whole[:n]))
		if err == nil {
			_, err = Run(t.Context(), r, sources, silent{}, Options{})
		}
		if !errors.Is(err, suit.ErrMalformed) || slices.Contains(r.calls, "install") {
			t.Errorf("%d bytes of %d: %v, %v", n, len(whole), err, r.calls)
		}
	}
}
