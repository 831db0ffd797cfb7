// Package bundle is what a firmware creator does with files: it makes bundles and manifests from a description, looks into them and takes them apart. What a bundle is
// says package suit; what the files of a description say is documented in docs/manifest.md.
package bundle

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fwu-ab/fwu-ab/suit"
)

// File is a file that holds an envelope, with payloads or without.
type File struct {
	suit.Header
	Payloads []suit.Payload
	file     *os.File
}

// Open reads the envelope, and where its payloads are. The file has to end where the envelope does. Errors wrap those of package suit.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	out, err := read(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

func read(f *os.File) (*File, error) {
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

// Name is the path that the file was opened by.
func (f *File) Name() string { return f.file.Name() }

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

// Write writes an envelope, with the payloads if there are any, to a file. The file is replaced when everything is written and durable, so that nobody finds half a bundle, and
// payloads may come from the file itself.
func Write(path string, envelope []byte, payloads []suit.PayloadSource) error {
	err := replace(path, func(w io.Writer) error {
		if len(payloads) == 0 {
			_, err := w.Write(envelope)
			return err
		}
		return suit.WriteBundle(w, envelope, payloads)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// replace replaces a file by what write writes.
func replace(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
