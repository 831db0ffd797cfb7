// Package update is an update client: it takes what a firmware creator delivers, bundles or manifests with images, and drives the functions of the PSA Certified Firmware
// Update API in the order that the state of each component asks for. It goes on with what an earlier run, or a power cut, left behind.
//
// Its Service is a *fwu.Service in the same process or a client of one on a bus. Files are the interface to a firmware creator:
//
//	BUNDLE             a SUIT envelope with images in it
//	MANIFEST IMAGE...  a SUIT envelope, and the images that it describes
//	NAME=IMAGE         an image without a manifest, for a component whose configuration trusts the client
//	-                  a bundle from a stream, which is read once, from front to back
package update

import (
	"context"
	"fmt"
	"io"
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

// Options are what an update can be told beside its files.
type Options struct {
	// Force: an image that is active already is installed again.
	Force bool
	// Device is for whom a manifest has to be that has an image for a component. With it and Battery (in mWh) a client that is on the device chooses between alternatives of a manifest as the service will. What is nil
	// is not known: then every identifier is taken for that of the device, and there is no battery to rely on.
	Device  func(component string) suit.Device
	Battery func() (mWh uint64, err error)
}

// Run prepares what the sources have for this device and installs it together. It returns what Install does, or ErrNothingToDo. Where a component waits for a reboot or a decision, it changes nothing.
func Run(ctx context.Context, s Service, sources []Source, r Reporter, o Options) (fwu.Status, error) {
	u := updater{Service: s, report: r, options: o}
	for _, src := range sources {
		if err := u.take(ctx, src); err != nil {
			return 0, err
		}
	}
	if u.ready == 0 {
		return 0, ErrNothingToDo
	}
	r.Step("", "installing")
	status, err := watch(ctx, &u, 0, "", func(ctx context.Context) (fwu.Status, error) { return s.Install(ctx) })
	return status, err
}

type updater struct {
	Service
	report      Reporter
	options     Options
	ready       int // candidates
	bankCleared bool
}

// take prepares every image of a source.
func (u *updater) take(ctx context.Context, src Source) error {
	images, err := src.images(ctx, u, u.options)
	if err != nil {
		return fmt.Errorf("%s: %w", src.name, err)
	}
	for i, err := range images {
		if err != nil {
			return fmt.Errorf("%s: %w", src.name, err)
		}
		prepared, err := u.prepare(ctx, i)
		if err != nil {
			return fmt.Errorf("%s: %w", i.component, err)
		}
		if prepared {
			u.ready++
		}
	}
	return nil
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
func (u *updater) prepare(ctx context.Context, src image) (bool, error) {
	c, err := u.find(src.component)
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
	case src.digest != "" && info.Impl.Digest == src.digest && !u.options.Force && info.State != fwu.Writing && info.State != fwu.Candidate:
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
func fits(c fwu.ComponentInfo, src image) error {
	switch {
	case c.Manifest != fwu.None && src.envelope == nil:
		return &fwu.Error{Status: fwu.InvalidArgument, Reason: fwu.ReasonManifestMissing, Text: "images of this component need a manifest"}
	case c.Manifest == fwu.Bundled && src.head == nil:
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
func (u *updater) fill(ctx context.Context, c fwu.ComponentInfo, src image, off int64) error {
	r, length, err := src.open(c.Manifest, off)
	if err != nil {
		return err
	}
	defer r.Close()
	if length > 0 {
		_, err = watch(ctx, u, c.ID, c.Name, func(ctx context.Context) (int64, error) { return u.WriteFrom(ctx, c.ID, off, r, length) })
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
