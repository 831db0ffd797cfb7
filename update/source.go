package update

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/zstdframe"
)

// Source is what was given to be installed: an envelope with images for one component or several, or one image without a manifest.
type Source struct {
	name      string // for people
	component string // of an image without a manifest
	path      string // of the bundle or the image; empty for a stream
	header    suit.Header
	manifest  *suit.Manifest
	payloads  []suit.Payload // of a bundle that is a file
	stream    *suit.Bundle   // of one that is not
	files     []string       // with the images that the manifest describes, in its order
}

// Open looks at the files given and says what they are for; stdin is the stream that "-" stands for. Nothing is verified: the service does that.
func Open(files []string, stdin io.Reader) ([]Source, error) {
	var out []Source
	for i := 0; i < len(files); i++ {
		if name, path, ok := strings.Cut(files[i], "="); ok && !strings.Contains(name, "/") {
			if _, err := os.Stat(path); err != nil {
				return nil, err
			}
			out = append(out, Source{name: path, component: name, path: path})
			continue
		}
		src, missing, err := openEnvelope(files[i], stdin)
		if err != nil {
			return nil, err
		}
		if rest := files[i+1:]; missing > len(rest) {
			return nil, fmt.Errorf("%s is a manifest of %d images that are not in it, and %d files follow", files[i], missing, len(rest))
		}
		src.files = files[i+1 : i+1+missing]
		for _, f := range src.files {
			if _, err := os.Stat(f); err != nil {
				return nil, err
			}
		}
		i += missing
		out = append(out, src)
	}
	return out, nil
}

// openEnvelope returns the source and how many images it describes that are elsewhere.
func openEnvelope(path string, stdin io.Reader) (src Source, missing int, err error) {
	src = Source{name: path, path: path}
	r := stdin
	if path == "-" {
		src.name, src.path = "standard input", ""
	} else {
		f, err := os.Open(path)
		if err != nil {
			return src, 0, err
		}
		defer f.Close()
		r = f
	}
	b, err := suit.NewBundle(r)
	if err == nil {
		src.header = b.Header
		src.manifest, err = suit.Unverified(b.Envelope)
	}
	if err != nil {
		return src, 0, fmt.Errorf("%s: %w", src.name, err)
	}
	targets, err := src.manifest.Targets()
	if err != nil {
		return src, 0, fmt.Errorf("%s: %w", src.name, err)
	}
	if src.path == "" {
		src.stream = b
		return src, 0, nil
	}
	for _, i := range targets[0].Images {
		if !i.Integrated() && i.Content == nil {
			missing++
		}
	}
	for {
		p, err := b.Next()
		if err == io.EOF { //nolint:errorlint // as it is documented
			break
		}
		if err != nil {
			return src, 0, fmt.Errorf("%s: %w", src.name, err)
		}
		src.payloads = append(src.payloads, p)
	}
	if len(src.payloads) == 0 { // a detached manifest, even if it says where in a bundle the image would be
		missing = len(targets[0].Images)
	}
	return src, missing, nil
}

// image is one image of a source, and how to come by it.
type image struct {
	component string
	envelope  []byte // nil without a manifest
	manifest  string // digest of the manifest
	digest    string
	version   string
	head      []byte // of a bundle with this image only; nil if there is no payload
	size      int64  // of the payload, or of the image
	raw       int64  // of the image, if the payload is compressed; else 0
	from      func(off int64) (io.ReadCloser, error)
	whole     func(off int64) (io.ReadCloser, error) // of the bundle, where a file holds just that; else nil
}

// images are those of the source that are for this device, in the order in which they come.
func (src Source) images(ctx context.Context, o Observer, known Options) (iter.Seq2[image, error], error) {
	if src.component != "" {
		info, err := os.Stat(src.path)
		if err != nil {
			return nil, err
		}
		i := image{component: src.component, size: info.Size(), from: inFile(src.path, 0)}
		return func(yield func(image, error) bool) { yield(i, nil) }, nil
	}
	recipient, err := recipientOf(ctx, o)
	if err != nil {
		return nil, err
	}
	recipient.Battery = known.Battery
	d, err := src.demand(recipient, o.Components(), known.Device)
	if err != nil {
		return nil, err
	}
	if src.stream != nil {
		return src.streamed(d), nil
	}
	all := make([]image, 0, len(d.Images))
	files := src.files
	for _, i := range d.Images {
		made, used, err := src.image(i, files)
		if err != nil {
			return nil, err
		}
		files = files[used:]
		all = append(all, made)
	}
	return func(yield func(image, error) bool) {
		for _, i := range all {
			if !yield(i, nil) {
				return
			}
		}
	}, nil
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
	made := image{component: i.Component, envelope: src.header.Envelope, manifest: src.manifest.Digest().String(), digest: i.Digest.String(), version: i.Version.String(), size: i.Size}
	if i.Compression != "" {
		made.raw = i.Size
	}
	return made
}

// image says where an image is; used is how many of the files.
func (src Source) image(i suit.Image, files []string) (made image, used int, err error) {
	made = src.made(i)
	if i.Content != nil {
		made.from = func(off int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(i.Content[off:])), nil }
		return made, 0, nil
	}
	for _, p := range src.payloads {
		if p.Key == i.URI {
			made.from, made.size = inFile(src.path, p.Offset), p.Size
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
	info, err := os.Stat(files[0])
	if err != nil {
		return made, 0, err
	}
	made.from, made.size = inFile(files[0], 0), info.Size()
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
				yield(image{}, err)
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
			made.from = func(off int64) (io.ReadCloser, error) {
				_, err := io.CopyN(io.Discard, src.stream, off)
				return io.NopCloser(src.stream), err
			}
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
		return readCloser{d, closers{d, r}}, i.raw - off, nil
	case mode != fwu.Bundled:
		r, err := i.from(off)
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
	return readCloser{io.MultiReader(bytes.NewReader(i.head[off:]), r), r}, head + i.size - off, nil
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

type readCloser struct {
	io.Reader
	io.Closer
}
