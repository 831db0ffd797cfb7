package fwu

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/iotest"
)

func drain(t *testing.T, in *intake) ([]byte, error) {
	t.Helper()
	var out []byte
	for {
		p, err := in.next()
		out = append(out, p...)
		if err != nil {
			in.stop()
			return out, err
		}
		if len(p) != intakeSize {
			t.Fatalf("%d bytes before the end", len(p))
		}
	}
}

func TestIntake(t *testing.T) {
	data := make([]byte, 3*intakeSize+77)
	for i := range data {
		data[i] = byte(i >> 12)
	}
	broken := errors.New("broken")
	tests := map[string]struct {
		r     func() io.Reader
		limit int64
		want  int
		err   error
	}{
		"all":                    {func() io.Reader { return bytes.NewReader(data) }, -1, len(data), io.EOF},
		"in small pieces":        {func() io.Reader { return iotest.HalfReader(bytes.NewReader(data)) }, -1, len(data), io.EOF},
		"a part":                 {func() io.Reader { return bytes.NewReader(data) }, 2*intakeSize + 5, 2*intakeSize + 5, io.EOF},
		"whole buffers":          {func() io.Reader { return bytes.NewReader(data) }, 2 * intakeSize, 2 * intakeSize, io.EOF},
		"less than there should": {func() io.Reader { return bytes.NewReader(data) }, 1 << 40, len(data), io.EOF},
		"nothing":                {func() io.Reader { return bytes.NewReader(nil) }, -1, 0, io.EOF},
		"an error": {func() io.Reader {
			return io.MultiReader(bytes.NewReader(data[:intakeSize+9]), iotest.ErrReader(broken))
		}, -1,
			intakeSize + 9, broken},
	}
	for name, tt := range tests {
		for _, abort := range []func(){nil, func() {}} {
			t.Run(name, func(t *testing.T) {
				got, err := drain(t, newIntake(tt.r(), tt.limit, abort))
				if !errors.Is(err, tt.err) || !bytes.Equal(got, data[:tt.want]) {
					t.Errorf("%d bytes and %v, want %d and %v", len(got), err, tt.want, tt.err)
				}
			})
		}
	}
}

// TestIntakeTakesNoMore: what is behind the limit is somebody else's.
func TestIntakeTakesNoMore(t *testing.T) {
	r := bytes.NewReader(make([]byte, 3*intakeSize))
	if _, err := drain(t, newIntake(r, intakeSize+1, func() {})); err != io.EOF {
		t.Fatal(err)
	}
	if left := r.Len(); left != 2*intakeSize-1 {
		t.Errorf("%d bytes are left", left)
	}
}

// TestIntakeIsStopped while it waits for what does not come.
func TestIntakeIsStopped(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	in := newIntake(a, -1, func() { interrupt(a) })
	go b.Write(make([]byte, intakeSize))
	p, err := in.next()
	if err != nil || len(p) != intakeSize {
		t.Fatal(len(p), err)
	}
	in.stop()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
