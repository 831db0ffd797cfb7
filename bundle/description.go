package bundle

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/files"
	"github.com/fwu-ab/fwu-ab/files/kind"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/zstdframe"
	"github.com/pelletier/go-toml/v2"
)

// Description is what a bundle, or a manifest, is made from.
type Description struct {
	Version    string           `toml:"version"` // of the whole
	Sequence   *uint64          `toml:"sequence"`
	Vendor     string           `toml:"vendor"`      // UUID
	VendorName string           `toml:"vendor-name"` // or what one is made from
	Class      string           `toml:"class"`       // UUID
	ClassName  string           `toml:"class-name"`  // or what one is made from
	Device     string           `toml:"device"`      // UUID of the one device that it is for; empty: it is for all of the class
	Digest     string           `toml:"digest"`      // sha256, which is the default, sha384 or sha512
	Depends    []string         `toml:"depends"`     // component>=version
	Battery    uint64           `toml:"battery"`     // mWh
	Images     map[string]Image `toml:"image"`       // by component
}

// Image is one image of a description.
type Image struct {
	File        string `toml:"file"`        // relative to the description
	Version     string `toml:"version"`     // empty: that of the whole
	Compression string `toml:"compression"` // empty, or suit.CompressionZstd
	Level       string `toml:"level"`       // of the compression: fastest, default, better or best
	Inline      bool   `toml:"inline"`      // the manifest itself holds the image
	// bytes that it may have, as the slots of the devices take; 0: any number
	MaxSize uint64 `toml:"max-size"`
}

// MaxInline bounds an image that the manifest itself holds, in bytes.
const MaxInline = 4096

// maxDescription bounds a description, in bytes.
const maxDescription = 1 << 20

// Load reads a description (TOML). A key that it does not know is an error, with the place where it stands. Paths in it are made relative to the description.
func Load(ctx context.Context, path string) (*Description, error) {
	f, err := files.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, err := Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s%w", path, err)
	}
	for name, i := range d.Images {
		if i.File != "" && !filepath.IsAbs(i.File) {
			i.File = filepath.Join(filepath.Dir(path), i.File)
			d.Images[name] = i
		}
	}
	return d, nil
}

// Parse reads a description. Its errors begin with the line and column, or with ": ".
func Parse(r io.Reader) (*Description, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxDescription+1))
	if err == nil && len(data) > maxDescription {
		err = fmt.Errorf("more than %d bytes", maxDescription)
	}
	if err != nil {
		return nil, fmt.Errorf(": %w", err)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // the byte order mark that some editors put before a text
	d := &Description{}
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(d); err != nil {
		return nil, placed(err)
	}
	return d, nil
}

// placed says where an error of the decoder is.
func placed(err error) error {
	if e := (*toml.StrictMissingError)(nil); errors.As(err, &e) && len(e.Errors) > 0 {
		row, column := e.Errors[0].Position()
		return fmt.Errorf(":%d:%d: unknown key %s", row, column, strings.Join(e.Errors[0].Key(), "."))
	}
	if e := (*toml.DecodeError)(nil); errors.As(err, &e) {
		row, column := e.Position()
		if strings.Contains(e.Error(), "cannot decode") || strings.Contains(e.Error(), "cannot convert") || strings.Contains(e.Error(), "cannot store") { // which names types of this program
			return fmt.Errorf(":%d:%d: %s: a value of another kind is expected, as in the example of fwu-ab bundle create --help", row, column, strings.Join(e.Key(), "."))
		}
		return fmt.Errorf(":%d:%d: %s", row, column, strings.TrimPrefix(e.Error(), "toml: "))
	}
	return fmt.Errorf(": %w", err)
}

// Sign makes the signed envelope of one that is not signed yet.
type Sign func(envelope []byte) ([]byte, error)

// Output is where a description goes.
type Output struct {
	Path   string   // "-" is standard output
	Inputs []string // files beside the images that it is made from: it must be none of them
	Sign   Sign     // nil does not sign
	// Warn is told of an image that a device would write, and could hardly start. Nil: nobody is.
	Warn func(text string)
}

// Create makes the bundle that is described. The same description and images give the same bytes,
// as long as Sign is deterministic. A compressed image needs room beside the output until it is
// done. ctx ends the work, and then nothing is left.
func (d *Description) Create(ctx context.Context, o Output) error {
	return d.create(ctx, o, true)
}

// CreateManifest makes the manifest without the images, which travel beside it.
func (d *Description) CreateManifest(ctx context.Context, o Output) error {
	return d.create(ctx, o, false)
}

func (d *Description) create(ctx context.Context, o Output, integrate bool) error {
	spec, err := d.spec()
	if err != nil {
		return err
	}
	inputs := o.Inputs
	for _, i := range d.Images {
		inputs = append(inputs, i.File)
	}
	return files.Write(ctx, files.Target{Path: o.Path, Inputs: inputs, Replace: replaceable}, func(w *files.Output) error {
		return d.writeTo(ctx, w, spec, o, integrate)
	})
}

func (d *Description) writeTo(ctx context.Context, w *files.Output, spec suit.Spec, o Output, integrate bool) error {
	hash, err := suit.ParseHash(cmp.Or(d.Digest, "sha256"))
	if err != nil {
		return err
	}
	var payloads []suit.PayloadSource
	for _, name := range slices.Sorted(maps.Keys(d.Images)) {
		image, payload, err := d.Images[name].make(ctx, name, spec.Version, hash, w.Dir(), integrate)
		for _, c := range payload.hold {
			defer c.Close()
		}
		if err != nil {
			return fmt.Errorf("image of %s: %w", name, err)
		}
		if err := d.Images[name].advise(payload.image, o.Warn); err != nil {
			return fmt.Errorf("image of %s: %w", name, err)
		}
		if image.Integrated() {
			payloads = append(payloads, payload.PayloadSource)
		}
		spec.Images = append(spec.Images, image)
	}
	envelope, err := suit.Create(spec)
	if err != nil {
		return err
	}
	if o.Sign != nil {
		if envelope, err = o.Sign(envelope); err != nil {
			return err
		}
	}
	return write(w, envelope, payloads)
}

// spec is what the description says, without its images.
func (d *Description) spec() (s suit.Spec, err error) {
	if d.Sequence == nil {
		return s, errors.New("no sequence number")
	}
	s.Sequence, s.Battery = *d.Sequence, d.Battery
	if s.Version, err = suit.ParseVersion(d.Version); err != nil {
		return s, err
	}
	switch {
	case d.Vendor != "" && d.VendorName != "":
		return s, errors.New("vendor and vendor-name: want one of them")
	case d.Class != "" && d.ClassName != "":
		return s, errors.New("class and class-name: want one of them")
	case d.VendorName != "":
		s.Vendor = suit.VendorID(d.VendorName)
	default:
		if s.Vendor, err = suit.ParseUUID(d.Vendor); err != nil {
			return s, fmt.Errorf("vendor: %w", err)
		}
	}
	if d.ClassName != "" {
		s.Class = suit.ClassID(s.Vendor, d.ClassName)
	} else if s.Class, err = suit.ParseUUID(d.Class); err != nil {
		return s, fmt.Errorf("class: %w", err)
	}
	if d.Device != "" {
		if s.ID, err = suit.ParseUUID(d.Device); err != nil {
			return s, fmt.Errorf("device: %w", err)
		}
	}
	for _, text := range d.Depends {
		dep, err := suit.ParseDependency(text)
		if err != nil {
			return s, err
		}
		_, dep.Present = d.Images[dep.Component]
		s.Dependencies = append(s.Dependencies, dep)
	}
	return s, nil
}

// payload is a payload, and the files that it needs open until it is written.
type payload struct {
	suit.PayloadSource
	hold  []io.Closer
	image *files.Input // as it is, before it is compressed
}

// advise warns of an image that has to be unpacked, or taken apart, before a slot can be started
// with it: a device writes the bytes that it is given.
func (i Image) advise(f *files.Input, warn func(string)) error {
	if warn == nil {
		return nil
	}
	k, err := kind.OfFile(f, f.Size())
	if err != nil {
		return err
	}
	next := map[kind.Form]string{kind.Packed: "unpack it first", kind.WholeDisk: "a slot takes the content of one partition",
		kind.Foreign: "take the image out of it with the tool that made it"}[k.Form]
	if next != "" {
		warn(fmt.Sprintf("%s is %s, and a device writes it as it is: %s", i.File, k.Name, next))
	}
	return nil
}

// make measures an image, and compresses it into a file in dir.
func (i Image) make(ctx context.Context, name string, version suit.Version, hash crypto.Hash, dir string, integrate bool) (out suit.Image, p payload, err error) {
	out = suit.Image{Component: name, Version: version}
	if i.Version != "" {
		if out.Version, err = suit.ParseVersion(i.Version); err != nil {
			return out, p, err
		}
	}
	level := zstdframe.Default
	if i.Level != "" {
		if level, err = zstdframe.ParseLevel(i.Level); err != nil {
			return out, p, err
		}
	}
	switch {
	case i.File == "":
		return out, p, errors.New("no file")
	case i.Inline && i.Compression != "", i.Level != "" && i.Compression == "":
		return out, p, errors.New("not compressed, but in the manifest itself, or with a level and without compression: want one of them")
	case !integrate && i.Compression != "":
		return out, p, errors.New("compressed, which only an image in a bundle can be")
	}
	f, err := files.OpenSeekable(ctx, i.File)
	if err != nil {
		return out, p, err
	}
	p.hold, p.image = append(p.hold, f), f
	if out.Digest, out.Size, err = suit.Measure(f, hash); err != nil {
		return out, p, fmt.Errorf("%s: %w", i.File, err)
	}
	if i.MaxSize > 0 && uint64(out.Size) > i.MaxSize {
		return out, p, fmt.Errorf("%s has %d bytes, and max-size is %d", i.File, out.Size, i.MaxSize)
	}
	if i.Inline {
		out.Content, err = inline(f, out.Size)
		return out, p, err
	}
	if !integrate {
		return out, p, nil
	}
	out.URI, out.Compression = "#"+name, i.Compression
	p.Key, p.Size = out.URI, out.Size
	p.Open = func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(f, 0, out.Size)), nil }
	if i.Compression == "" {
		return out, p, nil
	}
	if i.Compression != suit.CompressionZstd {
		return out, p, fmt.Errorf("compression %q: want %s", i.Compression, suit.CompressionZstd)
	}
	err = p.compress(f, dir, level)
	return out, p, err
}

func inline(f io.ReadSeeker, size int64) ([]byte, error) {
	if size > MaxInline {
		return nil, fmt.Errorf("%d bytes, of which a manifest takes %d", size, MaxInline)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, size))
}

// compress makes the payload of an image.
func (p *payload) compress(image io.ReadSeeker, dir string, level zstdframe.Level) error {
	if _, err := image.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".payload.*")
	if err != nil {
		return err
	}
	p.hold = append(p.hold, f)
	if err := os.Remove(f.Name()); err != nil { // it goes with its descriptor
		return err
	}
	if _, p.Size, err = zstdframe.Compress(f, image, level); err != nil {
		return err
	}
	p.Open = func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(f, 0, p.Size)), nil }
	return nil
}
