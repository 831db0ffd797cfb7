package fwu_test

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// answer is the result of a read.
type answer struct {
	n   int
	err error
}

func (a answer) ReadAt([]byte, int64) (int, error) { return a.n, a.err }

func TestReadFull(t *testing.T) {
	wrapped := errors.Join(errors.New("disk"), io.EOF)
	tests := map[string]struct {
		answer
		want error
	}{
		"all of it":                             {answer{4, nil}, nil},
		"all of it, at the end of the medium":   {answer{4, io.EOF}, nil},
		"all of it, with an end that says more": {answer{4, wrapped}, nil},
		"all of it, with an error":              {answer{4, syscall.EIO}, syscall.EIO},
		"all of it, with the error of NVMe":     {answer{4, syscall.ENODATA}, syscall.ENODATA},
		"all of it, with an early end":          {answer{4, io.ErrUnexpectedEOF}, io.ErrUnexpectedEOF},
		"a part, and no error":                  {answer{3, nil}, io.ErrUnexpectedEOF},
		"a part, at the end of the medium":      {answer{3, io.EOF}, io.ErrUnexpectedEOF},
		"a part, with an error":                 {answer{3, syscall.EIO}, syscall.EIO},
		"nothing":                               {answer{0, syscall.EIO}, syscall.EIO},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := fwu.ReadFull(tt, make([]byte, 4), 0); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// A stream that was cut, as one of a compressed image is, was taken for a whole image where no
// manifest has its size.
func TestStreamThatWasCutIsNoImage(t *testing.T) {
	components := bank("rootfs")
	components[0].Manifest = fwu.None
	d := newDevice(t, true, components...)
	d.do(d.Start(t.Context(), 0, nil))
	for _, end := range []error{io.ErrUnexpectedEOF, syscall.EIO} {
		r := io.MultiReader(bytes.NewReader(randomImage(1, 70000)), failingReader{end})
		_, err := d.WriteFrom(t.Context(), 0, 0, r, 0)
		d.wantStatus(err, fwu.CommunicationFailure, "")
		if !errors.Is(err, end) {
			t.Errorf("%v does not say %v", err, end)
		}
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }
