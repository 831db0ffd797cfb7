// Package bundle is what a firmware creator does with files: it makes bundles and manifests from a description, looks into them and takes them apart. What a bundle is
// says package suit; what the files of a description say is documented in docs/manifest.md.
package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/fwu-ab/fwu-ab/files"
	"github.com/fwu-ab/fwu-ab/files/kind"
	"github.com/fwu-ab/fwu-ab/suit"
)

// File is a file that holds an envelope, with payloads or without.
type File struct {
	suit.Header
	Payloads []suit.Payload
	file     *files.Input
}

// Open reads the envelope, and where its payloads are. The file has to end where the envelope does.
// Errors wrap those of package suit. Of a file that is no envelope at all, the error says what it
// is instead, where that is known. A pipe is read to its end first. ctx ends every read.
func Open(ctx context.Context, path string) (*File, error) {
	f, err := files.OpenSeekable(ctx, path)
	if err != nil {
		return nil, err
	}
	out, err := read(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", f.Name(), NotBundle(f, f.Size(), err)), f.Close())
	}
	return out, nil
}

// NotBundle is the error of reading an envelope from a file that is none: with the kind of the
// file, if that is known.
func NotBundle(r io.ReaderAt, size int64, err error) error {
	if !errors.Is(err, suit.ErrMalformed) {
		return err
	}
	k, readErr := kind.OfFile(r, size)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	return Instead(k, err)
}

// Instead is the error of reading an envelope from a file of a kind. Where no kind is known it is
// err.
func Instead(k kind.Kind, err error) error {
	if k.Name == "" {
		return err
	}
	return &KindError{k, err}
}

// KindError names the kind of a file that is no manifest or bundle.
type KindError struct {
	Kind kind.Kind
	Err  error // of reading it as an envelope
}

func (e *KindError) Error() string {
	return fmt.Sprintf("this is %s, and no manifest or bundle of fwu-ab", e.Kind.Name)
}

// Unwrap returns the error of reading it as an envelope.
func (e *KindError) Unwrap() error { return e.Err }

func read(f *files.Input) (*File, error) {
	b, err := suit.NewBundle(f)
	if err != nil {
		return nil, err
	}
	out := &File{Header: b.Header, file: f}
	for {
		p, err := b.Next()
		if err == io.EOF { //nolint:errorlint // as it is documented
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out.Payloads = append(out.Payloads, p)
	}
}

// Name is the path that the file was opened by, or "standard input".
func (f *File) Name() string { return f.file.Name() }

// Size is the size of the file.
func (f *File) Size() int64 { return f.file.Size() }

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// Payload reads a payload.
func (f *File) Payload(p suit.Payload) io.Reader {
	return io.NewSectionReader(f.file, p.Offset, p.Size)
}

// Find returns the payload with a key.
func (f *File) Find(key string) (suit.Payload, bool) {
	for _, p := range f.Payloads {
		if p.Key == key {
			return p, true
		}
	}
	return suit.Payload{}, false
}

// Sources are the payloads, to be written to another bundle.
func (f *File) Sources() []suit.PayloadSource {
	var all []suit.PayloadSource
	for _, p := range f.Payloads {
		all = append(all, suit.PayloadSource{Key: p.Key, Size: p.Size, Open: func() (io.ReadCloser, error) { return io.NopCloser(f.Payload(p)), nil }})
	}
	return all
}

// Change writes a copy of the bundle or manifest in file in to out, with the envelope that change
// makes of the one there. out may be in itself. inputs are the files that change reads.
func Change(ctx context.Context, in, out string, inputs []string, change func(envelope []byte) ([]byte, error)) error {
	f, err := Open(ctx, in)
	if err != nil {
		return err
	}
	defer f.Close()
	envelope, err := change(f.Envelope)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return files.Write(ctx, files.Target{Path: out, Inputs: inputs, InPlace: in, Replace: replaceable}, func(o *files.Output) error {
		return write(o, envelope, f.Sources())
	})
}

// replaceable tells whether a file may be replaced by a manifest or a bundle: if it is one.
func replaceable(head []byte, _ int64) bool {
	_, err := suit.ReadHeader(head)
	return err == nil || errors.Is(err, suit.ErrShort) || errors.Is(err, suit.ErrUnsupported)
}

// write writes an envelope, with the payloads if there are any.
func write(w io.Writer, envelope []byte, payloads []suit.PayloadSource) error {
	if len(payloads) == 0 {
		_, err := w.Write(envelope)
		return err
	}
	return suit.WriteBundle(w, envelope, payloads)
}
