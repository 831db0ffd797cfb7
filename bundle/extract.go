package bundle

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/fwu-ab/fwu-ab/files"
	"github.com/fwu-ab/fwu-ab/suit"
)

// Extracted is an image that was taken out of a bundle.
type Extracted struct {
	suit.Image
	Path string
}

// Extract takes the images out of a bundle, which it reads from front to back, and writes each to a file in dir that is named after its payload, decompressed. A file is written whole and verified or not
// at all: an image must be what the manifest says. Whether the manifest is authentic is for the caller to know, whom open gives the envelope first.
func Extract(ctx context.Context, r io.Reader, dir string, open func(envelope []byte) (*suit.Manifest, error)) ([]Extracted, error) {
	b, err := suit.NewBundle(r)
	if err != nil {
		return nil, err
	}
	m, err := open(b.Envelope)
	if err != nil {
		return nil, err
	}
	targets, err := m.Targets()
	if err != nil {
		return nil, err
	}
	images := map[string]suit.Image{}
	var out []Extracted
	for _, t := range targets {
		for _, i := range t.Images {
			if i.Content != nil && images[i.Component].Content == nil {
				e := Extracted{i, filepath.Join(dir, i.Component)}
				if err := files.Write(ctx, files.Target{Path: e.Path, Chosen: true}, func(w *files.Output) error { return i.Check(io.TeeReader(bytes.NewReader(i.Content), w)) }); err != nil {
					return out, fmt.Errorf("%s: %w", e.Path, err)
				}
				images[i.Component] = i
				out = append(out, e)
			} else if i.Integrated() {
				images[i.URI] = i
			}
		}
	}
	for {
		p, err := b.Next()
		if err == io.EOF { //nolint:errorlint // as it is documented
			return out, nil
		}
		if err != nil {
			return out, err
		}
		i, ok := images[p.Key]
		if !ok {
			return out, fmt.Errorf("%w: payload %s, which the manifest does not name", suit.ErrMalformed, p.Key)
		}
		e := Extracted{i, filepath.Join(dir, p.Key[1:])}
		if err := files.Write(ctx, files.Target{Path: e.Path, Chosen: true}, func(w *files.Output) error { return i.Unpack(w, b) }); err != nil {
			return out, fmt.Errorf("%s: %w", e.Path, err)
		}
		out = append(out, e)
	}
}
