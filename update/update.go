// Package update is an update client: it takes what a firmware creator delivers, bundles or manifests with images, and drives the functions of the PSA Certified Firmware
// Update API in the order that the state of each component asks for. It goes on with what an earlier run, or a power cut, left behind.
//
// Its Service is a *fwu.Service in the same process or a client of one on a bus. Files are the interface to a firmware creator:
//
//	BUNDLE          a SUIT envelope with the image in it
//	MANIFEST IMAGE  a SUIT envelope, and the image that it describes
//	NAME=IMAGE      an image without a manifest, for a component whose configuration trusts the client
package update

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
)

// Service is what an update needs of the update service.
type Service interface {
	Observer
	Stager
	Install(ctx context.Context) (fwu.Status, error)
}

// Observer tells what there is.
type Observer interface {
	Components() []fwu.ComponentInfo
	Query(ctx context.Context, id fwu.ID) (fwu.Info, error)
}

// Stager prepares an image.
type Stager interface {
	Start(ctx context.Context, id fwu.ID, manifest []byte) error
	WriteFrom(ctx context.Context, id fwu.ID, off int64, r io.Reader, length int64) (int64, error)
	Finish(ctx context.Context, id fwu.ID) error
	Cancel(ctx context.Context, id fwu.ID) error
	Clean(ctx context.Context, id fwu.ID) error
}

// ErrNothingToDo: every image is the active one already.
var ErrNothingToDo = constError("nothing to do: the active images are the given ones")

type constError string

func (e constError) Error() string { return string(e) }

// Reporter is told how an update goes on.
type Reporter interface {
	// Step is told each step before it is taken, as a sentence for people.
	Step(component, text string)
	// Progress is told how many bytes of an operation are done; total 0 if unknown.
	Progress(component, operation string, done, total int64)
}

// Source is one image to be installed.
type Source struct {
	Component string // name
	path      string
	envelope  []byte // nil for an image without manifest
	manifest  string // its digest
	digest    string // of the image
	version   string
	payload   int64 // where the image begins in the file
	size      int64 // of the image
	bundle    bool
}

// Open looks at the files given and says what they are for. Nothing is verified: the service does that.
func Open(files []string) ([]Source, error) {
	var out []Source
	for i := 0; i < len(files); i++ {
		if name, path, ok := strings.Cut(files[i], "="); ok && !strings.Contains(name, "/") {
			s, err := openImage(name, path)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
			continue
		}
		s, err := openEnvelope(files[i])
		if err != nil {
			return nil, err
		}
		if !s.bundle {
			if i++; i == len(files) {
				return nil, fmt.Errorf("%s is a manifest without an image in it, and no file with the image follows", files[i-1])
			}
			s.path = files[i]
			info, err := os.Stat(s.path)
			if err != nil {
				return nil, err
			}
			s.size = info.Size()
		}
		out = append(out, s)
	}
	return out, nil
}

func openImage(name, path string) (Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return Source{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Source{}, err
	}
	return Source{Component: name, path: path, size: info.Size()}, nil
}

func openEnvelope(path string) (Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return Source{}, err
	}
	defer f.Close()
	b, _, err := suit.ReadHeader(f)
	if err != nil {
		return Source{}, fmt.Errorf("%s: %w", path, err)
	}
	d, err := suit.Describe(b.Envelope)
	if err != nil {
		return Source{}, fmt.Errorf("%s: %w", path, err)
	}
	if len(d.Images) != 1 {
		return Source{}, fmt.Errorf("%s describes %d images", path, len(d.Images))
	}
	img := d.Images[0]
	return Source{Component: img.Component, path: path, envelope: b.Envelope, manifest: d.Manifest, digest: img.Digest, version: img.Version,
		payload: b.Offset, size: b.Size, bundle: b.Payload != ""}, nil
}

// Run prepares every source and installs them together. It returns what Install does, or ErrNothingToDo. Where a component waits for a reboot or a decision, it changes nothing.
// With force, an image that is active already is installed again.
func Run(ctx context.Context, s Service, sources []Source, r Reporter, force bool) (fwu.Status, error) {
	u := updater{Service: s, report: r}
	ready := 0
	for _, src := range sources {
		prepared, err := u.prepare(ctx, src, force)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", src.Component, err)
		}
		if prepared {
			ready++
		}
	}
	if ready == 0 {
		return 0, ErrNothingToDo
	}
	r.Step("", "installing")
	status, err := watch(ctx, &u, 0, "", func(ctx context.Context) (fwu.Status, error) { return s.Install(ctx) })
	return status, err
}

type updater struct {
	Service
	report      Reporter
	bankCleared bool
}

func (u *updater) find(name string) (fwu.ComponentInfo, error) {
	var names []string
	for _, c := range u.Components() {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	return fwu.ComponentInfo{}, &fwu.Error{Status: fwu.DoesNotExist, Reason: fwu.ReasonNoSuch,
		Text: fmt.Sprintf("this device has no component %q; it has %s", name, strings.Join(names, ", "))}
}

// prepare makes src a candidate. It tells whether there is one now.
func (u *updater) prepare(ctx context.Context, src Source, force bool) (bool, error) {
	c, err := u.find(src.Component)
	if err != nil {
		return false, err
	}
	if err := fits(c, src); err != nil {
		return false, err
	}
	info, err := u.Query(ctx, c.ID)
	if err != nil {
		return false, err
	}
	ours := src.manifest != "" && info.Impl.ManifestDigest == src.manifest
	switch {
	case info.State == fwu.Staged, info.State == fwu.Trial, info.State == fwu.Rejected:
		return false, &fwu.Error{Status: fwu.BadState, Reason: fwu.ReasonState, Components: []fwu.ID{c.ID}, Text: "an update is under way: " + waitsFor(info.State)}
	case info.State == fwu.Candidate && ours:
		u.report.Step(c.Name, "is written and verified already")
		return true, nil
	case src.digest != "" && info.Impl.Digest == src.digest && !force && info.State != fwu.Writing && info.State != fwu.Candidate:
		u.report.Step(c.Name, "runs this image already")
		return false, nil
	case info.State == fwu.Writing && ours:
		u.report.Step(c.Name, fmt.Sprintf("continuing at %d bytes", info.Impl.Written))
		return true, u.fill(ctx, c, src, info.Impl.Written)
	}
	if err := u.clearBank(ctx, c); err != nil {
		return false, err
	}
	if err := u.clear(ctx, c, info.State); err != nil {
		return false, err
	}
	u.report.Step(c.Name, "starting"+withVersion(src.version))
	var manifest []byte
	if c.Manifest == fwu.Detached {
		manifest = src.envelope
	}
	if err := u.Start(ctx, c.ID, manifest); err != nil {
		return false, err
	}
	return true, u.fill(ctx, c, src, 0)
}

func withVersion(v string) string {
	if v == "" {
		return ""
	}
	return " version " + v
}

func waitsFor(s fwu.State) string {
	switch s {
	case fwu.Staged:
		return "it waits for a reboot"
	case fwu.Trial:
		return "the running system is on trial and waits to be accepted or rejected"
	}
	return "it was rejected, and waits for a reboot"
}

// fits refuses a file that the component's configuration has no use for.
func fits(c fwu.ComponentInfo, src Source) error {
	switch {
	case c.Manifest == fwu.None && src.envelope != nil && !src.bundle:
		return nil // its image is what is written
	case c.Manifest != fwu.None && src.envelope == nil:
		return &fwu.Error{Status: fwu.InvalidArgument, Reason: fwu.ReasonManifestMissing, Text: "images of this component need a manifest"}
	case c.Manifest == fwu.Bundled && !src.bundle:
		return &fwu.Error{Status: fwu.InvalidArgument, Reason: fwu.ReasonManifestInvalid, Text: "this component takes a bundle, and a manifest with a separate image was given"}
	}
	return nil
}

// clearBank cleans what earlier updates left in the bank of c: its other members are carried over, and must be READY for that.
func (u *updater) clearBank(ctx context.Context, c fwu.ComponentInfo) error {
	if c.Live || u.bankCleared {
		return nil
	}
	u.bankCleared = true
	for _, m := range u.Components() {
		if m.Live || m.ID == c.ID {
			continue
		}
		info, err := u.Query(ctx, m.ID)
		if err != nil {
			return err
		}
		if info.State != fwu.Failed && info.State != fwu.Updated {
			continue
		}
		if err := u.clear(ctx, m, info.State); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	return nil
}

// clear brings a component to READY.
func (u *updater) clear(ctx context.Context, c fwu.ComponentInfo, state fwu.State) error {
	if state == fwu.Writing || state == fwu.Candidate {
		u.report.Step(c.Name, "cancelling what was prepared before")
		if err := u.Cancel(ctx, c.ID); err != nil {
			return err
		}
		state = fwu.Failed
	}
	if state != fwu.Failed && state != fwu.Updated {
		return nil
	}
	u.report.Step(c.Name, "cleaning the second slot")
	_, err := watch(ctx, u, c.ID, c.Name, func(ctx context.Context) (struct{}, error) { return struct{}{}, u.Clean(ctx, c.ID) })
	return err
}

// fill writes from offset off of what the component expects on, and finishes.
func (u *updater) fill(ctx context.Context, c fwu.ComponentInfo, src Source, off int64) error {
	f, err := os.Open(src.path)
	if err != nil {
		return err
	}
	defer f.Close()
	from, length := off, src.size-off
	switch {
	case c.Manifest == fwu.Bundled:
		length = src.payload + src.size - off // all of the bundle
	case src.bundle:
		from = src.payload + off // the image in it
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return err
	}
	if length > 0 {
		_, err = watch(ctx, u, c.ID, c.Name, func(ctx context.Context) (int64, error) { return u.WriteFrom(ctx, c.ID, off, f, length) })
		if err != nil {
			return err
		}
	}
	u.report.Step(c.Name, "verifying")
	_, err = watch(ctx, u, c.ID, c.Name, func(ctx context.Context) (struct{}, error) { return struct{}{}, u.Finish(ctx, c.ID) })
	return err
}

// watch calls f, and reports the progress of the component's operation while it runs. Without a name there is nothing to report.
func watch[T any](ctx context.Context, u *updater, id fwu.ID, name string, f func(context.Context) (T, error)) (T, error) {
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
				u.tell(ctx, id, name)
			}
		}
	}()
	v, err := f(ctx)
	close(stop)
	<-done
	if err == nil && name != "" {
		u.report.Progress(name, "", 1, 1)
	}
	return v, err
}

func (u *updater) tell(ctx context.Context, id fwu.ID, name string) {
	if name == "" {
		return
	}
	info, err := u.Query(ctx, id)
	if err != nil || info.Impl.Operation == "" {
		return // the operation itself tells what is wrong
	}
	u.report.Progress(name, info.Impl.Operation, info.Impl.Done, info.Impl.Total)
}
