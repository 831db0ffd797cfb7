// Package update is an update client: it takes what a firmware creator delivers, bundles or manifests with images, and drives the functions of the PSA Certified Firmware
// Update API in the order that the state of each component asks for. It goes on with what an earlier run, or a power cut, left behind.
//
// Its Service is a *fwu.Service in the same process or a client of one on a bus. Files are the interface to a firmware creator:
//
//	BUNDLE             a SUIT envelope with images in it
//	MANIFEST IMAGE...  a SUIT envelope, and the images that it describes
//	NAME=IMAGE         an image without a manifest, for a component whose configuration trusts the client
//	-                  a bundle from a stream, which is read once, from front to back
//
// A pipe or a FIFO takes the place of any of them.
package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/fwu-ab/fwu-ab/files/kind"
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

// Checker is a Service that can be asked whether it would take a manifest. It changes nothing by
// that.
type Checker interface {
	Check(ctx context.Context, id fwu.ID, manifest []byte) error
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
	// AsIs: an image without a manifest is written even if it looks as if it had to be unpacked
	// first, or were a whole disk.
	AsIs bool
	// TakeOver: the preparation of another client is cancelled.
	TakeOver bool
	// Device is for whom a manifest has to be that has an image for a component. With it and Battery (in mWh) a client that is on the device chooses between alternatives of a manifest as the service will. What is nil
	// is not known: then every identifier is taken for that of the device, and there is no battery to rely on.
	Device  func(component string) suit.Device
	Battery func() (mWh uint64, err error)
}

// Run prepares what the sources have for this device and installs it together. It returns what Install does, or ErrNothingToDo. Where a component waits for a reboot or a decision, it changes nothing.
// Everything that can be known of all sources is checked before anything is changed.
func Run(ctx context.Context, s Service, sources []Source, r Reporter, o Options) (fwu.Status, error) {
	if err := Prepare(ctx, s, sources, r, o); err != nil {
		return 0, err
	}
	r.Step("", "installing")
	return s.Install(ctx)
}

// Prepare is Run without the install: its images are candidates, which Install takes.
func Prepare(ctx context.Context, s Service, sources []Source, r Reporter, o Options) error {
	u := updater{Service: s, report: r, options: o}
	planned, err := u.plan(ctx, sources)
	if err != nil {
		return err
	}
	for _, p := range planned {
		if err := u.take(ctx, p); err != nil {
			return err
		}
	}
	if u.ready == 0 {
		return ErrNothingToDo
	}
	return nil
}

// Change is the effect that an update would have on a component.
type Change struct {
	Component string
	Version   string // of the image; empty without a manifest
	Digest    string
	Size      int64  // of the image, or what travels; -1 if that is not known
	From      string // version of the active image
	State     fwu.State
	Active    bool // the image is the active one: nothing would be done
	Continues bool // what was written before would be continued
	Reboot    bool // a reboot would complete it
}

// Plan returns the changes that Run would make, after every check that Run makes before it changes
// anything. With ErrNothingToDo it is nothing.
func Plan(ctx context.Context, s Service, sources []Source, o Options) ([]Change, error) {
	u := updater{Service: s, options: o}
	planned, err := u.plan(ctx, sources)
	if err != nil {
		return nil, err
	}
	var out []Change
	err = ErrNothingToDo
	for _, p := range planned {
		for _, i := range p.images {
			out = append(out, i.change)
			if !i.change.Active {
				err = nil
			}
		}
	}
	return out, err
}

type updater struct {
	Service
	report      Reporter
	options     Options
	ready       int // candidates
	bankCleared bool
}

// planned is a source, after everything that can be known of it was checked.
type planned struct {
	name   string
	images []checked
	come   iter.Seq2[image, error]
}

type checked struct {
	image
	change Change
}

// plan checks all sources.
func (u *updater) plan(ctx context.Context, sources []Source) ([]planned, error) {
	var all []planned
	updated := map[fwu.ID]suit.Version{}
	for _, src := range sources {
		images, come, err := src.images(ctx, u, u.options)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", src.name, err)
		}
		p := planned{name: src.name, come: come}
		for _, i := range images {
			c, err := u.find(i.component)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", src.name, err)
			}
			if _, twice := updated[c.ID]; twice {
				return nil, &fwu.Error{Status: fwu.InvalidArgument, Text: fmt.Sprintf("%s: a second image for %s: name one", src.name, c.Name)}
			}
			updated[c.ID] = i.number
			p.images = append(p.images, checked{image: i})
		}
		all = append(all, p)
	}
	for _, p := range all {
		for n := range p.images {
			if err := u.check(ctx, &p.images[n], updated); err != nil {
				return nil, fmt.Errorf("%s: %w", p.images[n].component, err)
			}
		}
	}
	return all, nil
}

// check finds out all that can be known before anything is changed. updated are the components that
// this update has images for, with their versions.
func (u *updater) check(ctx context.Context, i *checked, updated map[fwu.ID]suit.Version) error {
	c, err := u.find(i.component)
	if err != nil {
		return err
	}
	if err := fits(c, i.image); err != nil {
		return err
	}
	info, err := u.Query(ctx, c.ID)
	if err != nil {
		return err
	}
	i.change = Change{Component: c.Name, Version: i.version, Digest: i.digest, Size: i.size, From: info.Version.String(), State: info.State,
		Active: u.runs(info, i.image), Continues: info.State == fwu.Writing && ours(info, i.image), Reboot: !c.Live}
	if err := u.free(c, info); err != nil {
		return err
	}
	if err := u.usable(i.image); err != nil {
		return err
	}
	if size := max(i.size, i.raw); i.envelope == nil && info.MaxSize > 0 && size > info.MaxSize {
		return &fwu.Error{Status: fwu.InsufficientStorage, Reason: fwu.ReasonImageTooLarge, Text: fmt.Sprintf("%s has %d bytes, and the slots take %d", i.source, size, info.MaxSize)}
	}
	if i.change.Active || i.envelope == nil {
		return nil
	}
	return u.accepted(ctx, c, i.image, updated)
}

// accepted asks the service whether it takes the manifest.
func (u *updater) accepted(ctx context.Context, c fwu.ComponentInfo, i image, updated map[fwu.ID]suit.Version) error {
	checker, ok := u.Service.(Checker)
	if !ok || c.Manifest == fwu.None {
		return nil
	}
	err := checker.Check(ctx, c.ID, i.envelope)
	var e *fwu.Error
	switch {
	case errors.Is(err, fwu.NotSupported): // a service of an earlier version
		return nil
	case errors.As(err, &e) && e.Status == fwu.DependencyNeeded && len(e.Components) > 0:
		return u.together(c, i, updated, err)
	}
	return err
}

// together decides about a dependency that the running system does not meet: this update may.
func (u *updater) together(c fwu.ComponentInfo, i image, updated map[fwu.ID]suit.Version, unmet error) error {
	var e *fwu.Error
	if !errors.As(unmet, &e) || slices.ContainsFunc(e.Components, func(id fwu.ID) bool { _, ok := updated[id]; return !ok }) {
		return unmet
	}
	for _, d := range i.needs {
		other, err := u.find(d.Component)
		if err != nil {
			return err
		}
		if v, ok := updated[other.ID]; ok && !d.Present && !d.Met(v) {
			return &fwu.Error{Status: fwu.DependencyNeeded, Reason: fwu.ReasonDependency, Components: []fwu.ID{other.ID},
				Text: fmt.Sprintf("%s needs %s, and this update brings %s", c.Name, d, v)}
		}
	}
	return nil
}

// usable refuses an image without a manifest that its component cannot expect.
func (u *updater) usable(i image) error {
	k := i.kind
	if u.options.AsIs || i.envelope != nil {
		return nil
	}
	switch {
	case k.Form == kind.Packed:
		return unusable(i, "unpack it first, or --as-is writes it as it is")
	case k.Form == kind.WholeDisk:
		return unusable(i, "a slot takes the content of one partition; --as-is writes it as it is")
	case k.Form == kind.Foreign:
		return unusable(i, "take the image out of it with the tool that made it")
	case k == kind.Of(nil):
		return unusable(i, "there is nothing to write")
	}
	return nil
}

func unusable(i image, next string) error {
	return &fwu.Error{Status: fwu.InvalidArgument, Reason: ReasonKind, Text: fmt.Sprintf("%s is %s: %s", i.source, i.kind.Name, next)}
}

// ReasonKind: a file is of a kind that cannot be installed.
const ReasonKind fwu.Reason = "file-kind"

// ReasonOtherClient: another client prepares the component.
const ReasonOtherClient fwu.Reason = "other-client"

// free refuses a component that waits for a reboot or a decision, or that another client works on.
func (u *updater) free(c fwu.ComponentInfo, info fwu.Info) error {
	other := info.Impl.Client
	switch {
	case info.State == fwu.Staged, info.State == fwu.Trial, info.State == fwu.Rejected:
		return &fwu.Error{Status: fwu.BadState, Reason: fwu.ReasonState, Components: []fwu.ID{c.ID}, Text: "an update is under way: " + waitsFor(info.State)}
	case other.Name == "" || u.options.TakeOver:
	case info.State == fwu.Writing, info.State == fwu.Candidate, info.Impl.Operation != "":
		return &fwu.Error{Status: fwu.BadState, Reason: ReasonOtherClient, Components: []fwu.ID{c.ID},
			Text: "another client updates it: " + other.String()}
	}
	return nil
}

// ours tells whether the image in preparation was started with the manifest of i.
func ours(info fwu.Info, i image) bool {
	return i.manifest != "" && info.Impl.ManifestDigest == i.manifest
}

// runs tells whether i is the active image, and nothing is to be done.
func (u *updater) runs(info fwu.Info, i image) bool {
	return i.digest != "" && info.Impl.Digest == i.digest && !u.options.Force && info.State != fwu.Writing && info.State != fwu.Candidate
}

// take prepares every image of a source.
func (u *updater) take(ctx context.Context, p planned) error {
	for i, err := range p.come {
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
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
	info, err := u.Query(ctx, c.ID)
	if err != nil {
		return false, err
	}
	if err := u.free(c, info); err != nil { // it may have changed since it was checked
		return false, err
	}
	switch {
	case info.State == fwu.Candidate && ours(info, src):
		u.report.Step(c.Name, "is written and verified already")
		return true, nil
	case u.runs(info, src):
		u.report.Step(c.Name, "runs this image already")
		return false, nil
	case info.State == fwu.Writing && ours(info, src):
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
		return &fwu.Error{Status: fwu.InvalidArgument, Reason: fwu.ReasonManifestMissing, Text: "images of this component need a manifest: give it before its image"}
	case c.Manifest == fwu.Bundled && !src.bundled:
		return &fwu.Error{Status: fwu.InvalidArgument, Reason: fwu.ReasonManifestInvalid, Text: "this component takes a bundle, and a manifest with a separate image was given: make a bundle, with fwu-ab manifest create --bundle"}
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
	if length != 0 {
		length = max(length, 0) // which is for all that comes
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
