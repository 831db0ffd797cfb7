package update

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"

	"github.com/fwu-ab/fwu-ab/bundle"
	"github.com/fwu-ab/fwu-ab/files"
	"github.com/fwu-ab/fwu-ab/files/kind"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/zstdframe"
)

// Source is what was given to be installed: an envelope with images for one component or several, or one image without a manifest.
type Source struct {
	name      string // for people
	component string // of an image without a manifest
	bare      file   // that image
	path      string // of a bundle that is a file that can be read more than once
	header    suit.Header
	manifest  *suit.Manifest
	payloads  []suit.Payload // of that bundle
	stream    *suit.Bundle   // of a bundle that is read once, from front to back; else nil
	in        io.Reader      // what the stream reads from
	files     []file         // with the images that the manifest describes, in its order
	close     func() error   // may be nil
}

// Close closes the files that sources read from.
func Close(sources []Source) error {
	var errs []error
	for _, src := range sources {
		if src.close != nil {
			errs = append(errs, src.close())
		}
		for _, f := range append(src.files, src.bare) {
			if f.once != nil {
				errs = append(errs, f.once.Close())
			}
		}
	}
	return errors.Join(errs...)
}

// Open looks at the files given and finds the components that they are for; stdin is the stream
// that "-" stands for. Nothing is verified: the service does that. A pipe is read as far as the
// header of the bundle in it. The caller closes the sources with Close.
func Open(ctx context.Context, names []string, stdin io.Reader) (out []Source, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, Close(out))
			out = nil
		}
	}()
	for i := 0; i < len(names); i++ {
		if component, path, ok := bareImage(names[i]); ok {
			f, err := openFile(ctx, path, stdin)
			if err != nil {
				return out, err
			}
			out = append(out, Source{name: f.name, component: component, bare: f})
			continue
		}
		src, missing, err := openEnvelope(ctx, names[i], stdin)
		out = append(out, src)
		if err != nil {
			return out, err
		}
		if rest := names[i+1:]; missing > len(rest) {
			return out, fmt.Errorf("%s is a manifest of %d images that are not in it, and %d files follow: name them after it", names[i], missing, len(rest))
		}
		for _, name := range names[i+1 : i+1+missing] {
			f, err := openFile(ctx, name, stdin)
			if err != nil {
				return out, err
			}
			out[len(out)-1].files = append(out[len(out)-1].files, f)
		}
		i += missing
	}
	return out, nil
}

// bareImage takes NAME=IMAGE apart. A file whose name has an equals sign in it is a file.
func bareImage(arg string) (component, path string, ok bool) {
	component, path, ok = strings.Cut(arg, "=")
	if !ok || strings.Contains(component, "/") {
		return "", "", false
	}
	_, err := os.Stat(arg)
	return component, path, err != nil
}

// file is an image outside a bundle.
type file struct {
	name string // for people
	path string // of one that can be read more than once
	size int64  // of that
	kind kind.Kind
	once *stream // of one that cannot
}

// stream is an image that is read once.
type stream struct {
	*bufio.Reader
	in    io.Reader
	close func() error
}

func (s *stream) Close() error { return s.close() }

func openFile(ctx context.Context, name string, stdin io.Reader) (f file, err error) {
	r, closeInput := stdin, func() error { return nil }
	if name == files.Standard {
		f.name = "standard input"
	} else {
		in, err := files.Open(ctx, name)
		if err != nil {
			return f, err
		}
		if in.Seekable() {
			f.name, f.path, f.size = name, name, in.Size()
			f.kind, err = kind.OfFile(in, in.Size())
			return f, errors.Join(err, in.Close())
		}
		r, closeInput, f.name = in, in.Close, name
	}
	f.once = &stream{bufio.NewReaderSize(r, kind.HeadSize), r, closeInput}
	head, err := f.once.Peek(kind.HeadSize)
	if err != nil && err != io.EOF { //nolint:errorlint // of Peek
		return f, errors.Join(fmt.Errorf("%s: %w", f.name, err), closeInput())
	}
	f.kind = kind.Of(head)
	return f, nil
}

// from opens the file where off is in it. A stream that can be read once only is read up to there.
func (f file) from(off int64) (io.ReadCloser, error) {
	if f.once == nil {
		return inFile(f.path, 0)(off)
	}
	return skip(f.once, f.once.in, off)
}

// skip reads up to off, and returns a reader of the rest.
func skip(r, in io.Reader, off int64) (io.ReadCloser, error) {
	_, err := io.CopyN(io.Discard, r, off)
	return reading{r, nil, in}, err
}

// openEnvelope returns the source and how many images it describes that are elsewhere.
func openEnvelope(ctx context.Context, name string, stdin io.Reader) (src Source, missing int, err error) {
	src = Source{name: name}
	r, seekable := stdin, false
	if name == files.Standard {
		src.name = "standard input"
	} else {
		in, err := files.Open(ctx, name)
		if err != nil {
			return src, 0, err
		}
		r, seekable, src.close = in, in.Seekable(), in.Close
	}
	head := &beginning{r: r}
	b, err := suit.NewBundle(head)
	if err == nil {
		src.header = b.Header
		src.manifest, err = suit.Unverified(b.Envelope)
	}
	if err != nil {
		return src, 0, fmt.Errorf("%s: %w", src.name, head.explain(err))
	}
	targets, err := src.manifest.Targets()
	if err != nil {
		return src, 0, fmt.Errorf("%s: %w", src.name, err)
	}
	images := targets[0].Images
	for _, i := range images {
		if !i.Integrated() && i.Content == nil {
			missing++
		}
	}
	if b.Payloads == 0 { // a detached manifest, even if it says where in a bundle the image would be
		missing = 0
		for _, i := range images {
			if i.Content == nil {
				missing++
			}
		}
	}
	if !seekable {
		src.stream, src.in = b, r
		if b.Payloads == 0 {
			src.stream = nil // the images come in files of their own
		}
		return src, missing, nil
	}
	src.path = name
	b, err = suit.NewBundle(io.NewSectionReader(r.(*files.Input), 0, r.(*files.Input).Size())) // which can skip payloads
	for err == nil {
		var p suit.Payload
		if p, err = b.Next(); err == nil {
			src.payloads = append(src.payloads, p)
		}
	}
	if err != io.EOF { //nolint:errorlint // as it is documented
		return src, 0, fmt.Errorf("%s: %w", src.name, err)
	}
	return src, missing, nil
}

// beginning keeps the first bytes of a stream, to name its kind if it is no envelope.
type beginning struct {
	r    io.Reader
	head []byte
	err  error // of reading
}

// beginningSize is enough to recognise the files that people hand over by mistake.
const beginningSize = 4 << 10

func (b *beginning) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.head = append(b.head, p[:min(n, max(beginningSize-len(b.head), 0))]...)
	if err != nil && err != io.EOF { //nolint:errorlint // of a reader
		b.err = err
	}
	return n, err
}

// explain names the kind of a stream that is no envelope.
func (b *beginning) explain(err error) error {
	if b.err != nil || !errors.Is(err, suit.ErrMalformed) {
		return err
	}
	if errors.Is(err, suit.ErrEnded) && len(b.head) > 0 && kind.Of(b.head).Name == "" {
		return endedEarly(err)
	}
	if in, ok := b.r.(*files.Input); ok && in.Seekable() {
		return bundle.NotBundle(in, in.Size(), err)
	}
	return bundle.Instead(kind.Of(b.head), err)
}

// image is one image of a source, and how to come by it.
type image struct {
	component string
	envelope  []byte // nil without a manifest
	manifest  string // digest of the manifest
	digest    string
	version   string
	head      []byte // of a bundle with this image only; nil if there is no payload
	size      int64  // of the payload, or of the image; unknownSize of an image that comes through a pipe without a manifest
	raw       int64  // of the image, if the payload is compressed; else 0
	from      func(off int64) (io.ReadCloser, error)
	whole     func(off int64) (io.ReadCloser, error) // of the bundle, where a file holds just that; else nil
	bundled   bool                                   // it comes in a bundle, as a payload
	kind      kind.Kind                              // of an image without a manifest
	source    string                                 // where it comes from, for people
	number    suit.Version                           // what version says
	needs     []suit.Dependency                      // of the manifest
}

// unknownSize is the size of a stream whose length nobody knows.
const unknownSize = -1

// images are those of the source that are for this device: a list of them as they will be, and then
// each as it comes.
func (src Source) images(ctx context.Context, o Observer, known Options) (planned []image, come iter.Seq2[image, error], err error) {
	if src.component != "" {
		planned = []image{{component: src.component, size: src.bare.size, from: src.bare.from, kind: src.bare.kind, source: src.bare.name}}
		if src.bare.once != nil {
			planned[0].size = unknownSize
		}
		return planned, each(planned), nil
	}
	recipient, err := recipientOf(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	recipient.Battery = known.Battery
	d, err := src.demand(recipient, o.Components(), known.Device)
	if err != nil {
		return nil, nil, err
	}
	if src.stream != nil {
		for _, i := range d.Images {
			made := src.made(i)
			made.needs = d.Dependencies
			planned = append(planned, made)
		}
		return planned, src.streamed(d), nil
	}
	files := src.files
	for _, i := range d.Images {
		made, used, err := src.image(i, files)
		if err != nil {
			return nil, nil, err
		}
		files = files[used:]
		made.needs = d.Dependencies
		planned = append(planned, made)
	}
	return planned, each(planned), nil
}

func each(all []image) iter.Seq2[image, error] {
	return func(yield func(image, error) bool) {
		for _, i := range all {
			if !yield(i, nil) {
				return
			}
		}
	}
}

// demand is what the manifest demands of this device: of each component as the device that it is. Where that is not known, and where the manifest is for no such device, it is what it demands of anyone: it is for the service
// to say who it is.
func (src Source) demand(r suit.Recipient, components []fwu.ComponentInfo, device func(string) suit.Device) (suit.Demand, error) {
	own := func(component string) (d suit.Demand, i suit.Image, err error) {
		r.Device = device(component)
		if d, err = src.manifest.Evaluate(r); err == nil {
			i, err = d.Image(component)
		}
		return d, i, err
	}
	if device == nil {
		components = nil
	}
	for _, c := range components {
		d, _, err := own(c.Name)
		if err != nil {
			continue
		}
		for at, i := range d.Images { // another component may be another device
			if _, i, err = own(i.Component); err == nil {
				d.Images[at] = i
			}
		}
		return d, nil
	}
	r.Anyone = true
	return src.manifest.Evaluate(r)
}

// recipientOf is the device as the service shows it.
func recipientOf(ctx context.Context, o Observer) (suit.Recipient, error) {
	infos := map[string]fwu.Info{}
	for _, c := range o.Components() {
		info, err := o.Query(ctx, c.ID)
		if err != nil {
			return suit.Recipient{}, err
		}
		infos[c.Name] = info
	}
	return suit.Recipient{
		Slot: func(name string) (uint64, bool) {
			info, ok := infos[name]
			return uint64(1 - min(info.Location, 1)), ok
		},
		Version: func(name string) (suit.Version, bool) {
			info, ok := infos[name]
			return info.Version, ok
		},
	}, nil
}

func (src Source) made(i suit.Image) image {
	made := image{source: src.name, bundled: src.stream != nil && i.Content == nil, component: i.Component, envelope: src.header.Envelope, manifest: src.manifest.Digest().String(), digest: i.Digest.String(), version: i.Version.String(), number: i.Version, size: i.Size}
	if i.Compression != "" {
		made.raw = i.Size
	}
	return made
}

// image says where an image is; used is how many of the files.
func (src Source) image(i suit.Image, files []file) (made image, used int, err error) {
	made = src.made(i)
	if i.Content != nil {
		made.from = func(off int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(i.Content[off:])), nil }
		return made, 0, nil
	}
	for _, p := range src.payloads {
		if p.Key == i.URI {
			made.bundled, made.from, made.size = true, inFile(src.path, p.Offset), p.Size
			made.head, err = src.header.Single(p)
			if len(src.payloads) == 1 && int64(len(made.head)) == p.Offset {
				made.whole = inFile(src.path, 0)
			}
			return made, 0, err
		}
	}
	switch {
	case i.Compression != "":
		return made, 0, fmt.Errorf("the image of %s travels compressed, in its bundle", i.Component)
	case len(files) == 0:
		return made, 0, fmt.Errorf("no image for %s", i.Component)
	}
	f := files[0]
	if f.once == nil && f.size != i.Size {
		return made, 0, fmt.Errorf("%s has %d bytes, and is not the image of %s that the manifest describes: that has %d", f.name, f.size, i.Component, i.Size)
	}
	made.from = f.from
	return made, 1, nil
}

// inFile opens a file where something begins in it.
func inFile(path string, start int64) func(off int64) (io.ReadCloser, error) {
	return func(off int64) (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		if _, err := f.Seek(start+off, io.SeekStart); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
}

// streamed are the images as they come. Payloads that are not for this device are passed over; what the manifest itself has comes first.
func (src Source) streamed(d suit.Demand) iter.Seq2[image, error] {
	return func(yield func(image, error) bool) {
		expected := map[string]suit.Image{}
		for _, i := range d.Images {
			if i.Content == nil {
				expected[i.URI] = i
				continue
			}
			made, _, err := src.image(i, nil)
			if !yield(made, err) {
				return
			}
		}
		for {
			p, err := src.stream.Next()
			if err == io.EOF { //nolint:errorlint // as it is documented
				break
			}
			if err != nil {
				yield(image{}, endedEarly(err))
				return
			}
			i, ok := expected[p.Key]
			if !ok {
				continue
			}
			delete(expected, p.Key)
			made := src.made(i)
			made.size = p.Size
			made.head, err = src.header.Single(p)
			made.from = func(off int64) (io.ReadCloser, error) { return skip(src.stream, src.in, off) }
			if !yield(made, err) {
				return
			}
		}
		for _, i := range expected {
			yield(image{}, fmt.Errorf("no image for %s in the bundle", i.Component))
			return
		}
	}
}

// endedEarly says of a stream that stopped in its middle that the sender may be at fault, and not
// who made the bundle.
func endedEarly(err error) error {
	if errors.Is(err, suit.ErrEnded) {
		return fmt.Errorf("the stream stopped before the bundle was complete: was its sender interrupted? (%w)", err)
	}
	return err
}

// open opens what a component expects at an offset, and says how much follows: the bundle, or the image.
func (i image) open(mode fwu.ManifestMode, off int64) (io.ReadCloser, int64, error) {
	head := int64(len(i.head))
	switch {
	case mode == fwu.None && i.raw > 0: // nothing tells the service that what it gets is compressed
		r, err := i.from(0)
		if err != nil {
			return nil, 0, err
		}
		d := zstdframe.NewReader(r, i.raw)
		if _, err := io.CopyN(io.Discard, d, off); err != nil {
			return nil, 0, errors.Join(err, d.Close(), r.Close())
		}
		return reading{d, closers{d, r}, r}, i.raw - off, nil
	case mode != fwu.Bundled:
		r, err := i.from(off)
		if i.size == unknownSize {
			return r, unknownSize, err
		}
		return r, i.size - off, err
	case i.whole != nil:
		r, err := i.whole(off)
		return r, head + i.size - off, err
	case off >= head:
		r, err := i.from(off - head)
		return r, head + i.size - off, err
	}
	r, err := i.from(0)
	if err != nil {
		return nil, 0, err
	}
	return reading{io.MultiReader(bytes.NewReader(i.head[off:]), r), r, r}, head + i.size - off, nil
}

// closers are closed one after the other.
type closers []io.Closer

func (c closers) Close() error {
	var errs []error
	for _, one := range c {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// reading reads, closes its source, and passes on the interruption of a read that waits.
type reading struct {
	io.Reader
	closer io.Closer // may be nil
	in     any       // SetReadDeadline of this one interrupts a read, if it has it
}

// Close closes its source.
func (r reading) Close() error {
	if r.closer == nil {
		return nil
	}
	return r.closer.Close()
}

// SetReadDeadline makes a Read that waits fail from t on. Where that is not possible it returns
// os.ErrNoDeadline.
func (r reading) SetReadDeadline(t time.Time) error {
	if d, ok := r.in.(interface{ SetReadDeadline(time.Time) error }); ok {
		return d.SetReadDeadline(t)
	}
	return os.ErrNoDeadline
}
