package zstdframe

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math"
	"strings"
	"testing"
	"testing/iotest"
)

const (
	kindRaw = iota
	kindRLE
	kindCompressed
	kindReserved
)

func TestRefused(t *testing.T) {
	const size = 10
	damaged := mustCompress(t, []byte("0123456789"), Default)
	damaged[len(damaged)-1]++
	for name, test := range map[string]struct {
		stream []byte
		want   string // of the error
		image  string // what came out before
	}{
		"not zstd at all":                     {[]byte("\x1f\x8b\x08\x00"), "frame at 0: magic number 0x88b1f", ""},
		"a frame and then not zstd":           {sequence(raw("abc"), []byte("more")), "frame at 12: magic number", "abc"},
		"format of zstd 0.1":                  {[]byte{0x1e, 0xb5, 0x2f, 0xfd}, "legacy format", ""},
		"format of zstd 0.7":                  {[]byte{0x27, 0xb5, 0x2f, 0xfd}, "legacy format", ""},
		"a dictionary":                        {[]byte{0x37, 0xa4, 0x30, 0xec}, "dictionary where a frame should be", ""},
		"frame that needs a dictionary":       {header(0x21), "needs a dictionary", ""},
		"reserved bit":                        {header(0x28), "reserved bit", ""},
		"unused bit":                          {header(0x30), "unused bit", ""},
		"streamed, without a content size":    {header(0x04), "does not state the size", ""},
		"no content":                          {raw(""), "has no content", ""},
		"content above the bound":             {header(0xa0, 1, 0, 64, 0), "content of 4194305 bytes, more than 4194304", ""},
		"content above 4 GiB":                 {header(0xe0, 1, 0, 0, 0, 1, 0, 0, 0), "content of 4294967297 bytes", ""},
		"content above 63 bits":               {header(0xe0, 1, 0, 0, 0, 0, 0, 0, 0x80), "content of 9223372036854775809 bytes", ""},
		"window above the bound":              {header(0x80, 12<<3|1, 1, 0, 0, 0), "window of 4718592 bytes, more than 4194304", ""},
		"the largest window":                  {header(0x80, 0xff, 1, 0, 0, 0), "window of 4123168604160 bytes", ""},
		"content above the image":             {raw("0123456789a"), "content of 11 bytes, where the image has 10 left", ""},
		"frame after the last byte":           {sequence(raw("0123456789"), raw("a")), "where the image has 0 left", "0123456789"},
		"block of the reserved type":          {sequence(header(0x20, 3), block(true, kindReserved, 3, "")), "reserved type", ""},
		"block larger than the content":       {sequence(header(0x20, 3), block(true, kindRaw, 4, "")), "block of 4 bytes, more than 3", ""},
		"block of one byte, too often":        {sequence(header(0x20, 3), block(true, kindRLE, 4, "")), "block of 4 bytes, more than 3", ""},
		"more empty blocks than make sense":   {sequence(header(0x20, 3), bytes.Repeat(block(false, kindRaw, 0, ""), 20)), "longer than 67 bytes for 3 bytes of content", ""},
		"less in the blocks than stated":      {sequence(header(0x20, 3), block(true, kindRaw, 2, "ab")), "frame at 0: ", ""},
		"more in the blocks than stated":      {sequence(header(0x20, 3), block(false, kindRaw, 2, "ab"), block(true, kindRaw, 2, "cd")), "frame at 0: ", ""},
		"RLE blocks that would fill a memory": {sequence(header(0x20, 9), bytes.Repeat(block(false, kindRLE, 9, "x"), 12), block(true, kindRLE, 9, "x")), "frame at 0: ", ""},
		"compressed block that is none":       {sequence(header(0x20, 9), block(true, kindCompressed, 9, "\xff\xff\xff\xff\xff\xff\xff\xff\xff")), "frame at 0: ", ""},
		"compressed block without anything":   {sequence(header(0x20, 9), block(true, kindCompressed, 0, "")), "frame at 0: ", ""},
		"wrong checksum":                      {damaged, "frame at 0: ", ""},
		"skippable frame above the bound":     {sequence(raw("abc"), skippable(0, MaxSkippable+1)), "frame at 12: skippable frame of 65537 bytes", "abc"},
		"skippable frame of 4 GiB":            {[]byte{0x5f, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff}, "skippable frame of 4294967295 bytes", ""},
		"nothing but skippable frames":        {bytes.Repeat(skippable(3, MaxSkippable), 17), "skippable frames of more than 1048576 bytes in all", ""},
		"nothing but empty skippable frames":  {bytes.Repeat(skippable(3, 0), MaxSkipped/8+1), "frame at 1048576: skippable frames of more than", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := decode(test.stream, size)
			if !errors.Is(got.err, ErrFrame) || !strings.Contains(got.Write, test.want) {
				t.Errorf("%v, want %q", got.err, test.want)
			}
			if got.Complete != got.Write || string(got.Image) != test.image {
				t.Errorf("%q, %s", got.Image, got.Complete)
			}
			if d := diff(got, decode(test.stream, size, 1)); d != "" {
				t.Errorf("byte by byte: %s", d)
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	const most = "\x00\x00\x40\x00"
	blocks := sequence(bytes.Repeat(block(false, kindRLE, maxBlock, "x"), MaxContent/maxBlock-1), block(true, kindRLE, maxBlock, "x"))
	for name, test := range map[string]struct {
		stream []byte
		want   string
	}{
		"one byte":                             {raw("x"), "x"},
		"content size of 2 bytes":              {sequence(header(0x60, 1, 0), block(true, kindRLE, 257, "x")), strings.Repeat("x", 257)},
		"content size of 4 bytes":              {sequence(header(0xa0, 3, 0, 0, 0), block(true, kindRaw, 3, "abc")), "abc"},
		"content size of 8 bytes":              {sequence(header(0xe0, 3, 0, 0, 0, 0, 0, 0, 0), block(true, kindRaw, 3, "abc")), "abc"},
		"no single segment, smallest window":   {sequence(header(0x40, 0, 0, 7), bytes.Repeat(block(false, kindRLE, 1024, "x"), 2), block(true, kindRaw, 0, "")), strings.Repeat("x", 2048)},
		"no single segment, largest window":    {sequence(header(0x80, 12<<3), []byte(most), blocks), strings.Repeat("x", MaxContent)},
		"the largest content":                  {sequence(header(0xa0, []byte(most)...), blocks), strings.Repeat("x", MaxContent)},
		"as many empty blocks as make sense":   {sequence(header(0x20, 3), bytes.Repeat(block(false, kindRaw, 0, ""), 18), block(true, kindRaw, 3, "abc")), "abc"},
		"skippable frames around the others":   {sequence(skippable(0, 0), raw("ab"), skippable(7, 9), skippable(15, 1), raw("c"), skippable(14, MaxSkippable)), "abc"},
		"as many skippable frames as may be":   {sequence(raw("abc"), bytes.Repeat(skippable(0, MaxSkippable-8), MaxSkipped/MaxSkippable)), "abc"},
		"what the largest frame was, and less": {sequence(mustCompress(t, testImage(MaxContent), Best), raw("abc")), string(testImage(MaxContent)) + "abc"},
	} {
		t.Run(name, func(t *testing.T) {
			want := result{Image: []byte(test.want), Encoded: int64(len(test.stream)), Decoded: int64(len(test.want))}
			for _, cut := range []int{len(test.stream), 1, 3, 4096} {
				if d := diff(want, decode(test.stream, int64(len(test.want)), cut)); d != "" {
					t.Errorf("pieces of %d: %.500s", cut, d)
				}
			}
		})
	}
}

func TestComplete(t *testing.T) {
	stream := sequence(raw("abcd"), skippable(0, 5), raw("efgh"))
	for name, test := range map[string]struct {
		length int
		size   int64
		want   string
	}{
		"nothing of nothing":             {0, 0, ""},
		"nothing":                        {0, 8, "the image has 0 bytes of 8"},
		"within the first magic number":  {3, 8, "3 bytes of a frame at 0, where the image has 0 bytes of 8"},
		"within the first frame":         {12, 8, "12 bytes of a frame at 0, where the image has 0 bytes of 8"},
		"after the first frame":          {13, 8, "the image has 4 bytes of 8"},
		"within a skippable frame":       {25, 8, "12 bytes of a frame at 13, where the image has 4 bytes of 8"},
		"after a skippable frame":        {26, 8, "the image has 4 bytes of 8"},
		"everything":                     {39, 8, ""},
		"everything, of a longer image":  {39, 9, "the image has 8 bytes of 9"},
		"the image, then half a frame":   {25, 4, "12 bytes of a frame at 13, where the image has 4 bytes of 4"},
		"the image, then a seek table":   {26, 4, ""},
		"an image of less than no bytes": {0, -1, "the image has 0 bytes of -1"},
	} {
		t.Run(name, func(t *testing.T) {
			got := decode(stream[:test.length], test.size)
			switch {
			case got.Write != "":
				t.Error(got.Write)
			case test.want == "" && got.Complete != "", !strings.Contains(got.Complete, test.want):
				t.Errorf("%q, want %q", got.Complete, test.want)
			case test.want != "" && (!errors.Is(got.err, io.ErrUnexpectedEOF) || errors.Is(got.err, ErrFrame)):
				t.Error(got.err)
			}
		})
	}
}

// TestResumed cuts a transfer off and goes on from the position, with whatever was lost after it.
func TestResumed(t *testing.T) {
	image := testImage(3*mib + 1234)
	size := int64(len(image))
	stream := sequence(mustCompress(t, image, Default), skippable(14, 100))
	for cut := 0; cut <= len(stream); cut += len(stream)/17 - 1 {
		d := New(size)
		first := push(d, stream[:cut], 5000)
		d.Close()
		if encoded, decoded := d.Position(); encoded != first.Encoded || decoded != first.Decoded {
			t.Errorf("closed: %d, %d", encoded, decoded)
		}
		if first.Encoded > int64(cut) || int64(cut)-first.Encoded > MaxFrame || int64(len(first.Image)) != first.Decoded {
			t.Fatalf("position %d, %d after %d bytes, %d out", first.Encoded, first.Decoded, cut, len(first.Image))
		}
		d = Resume(size, first.Encoded, first.Decoded)
		second := push(d, stream[first.Encoded:])
		d.Close()
		if second.err != nil || !bytes.Equal(append(first.Image, second.Image...), image) {
			t.Errorf("cut at %d: %v", cut, second.err)
		}
		if second.Encoded != int64(len(stream)) || second.Decoded != size {
			t.Errorf("cut at %d: ends at %d, %d", cut, second.Encoded, second.Decoded)
		}
	}
}

func TestResumedAtTheEnd(t *testing.T) {
	d := Resume(10, 99, 10)
	defer d.Close()
	if err := d.Complete(); err != nil {
		t.Error(err)
	}
	got := push(d, sequence(skippable(0, 3), raw("a")))
	if !errors.Is(got.err, ErrFrame) || !strings.Contains(got.Write, "frame at 110") || got.Encoded != 110 || got.Decoded != 10 {
		t.Errorf("%+v", got)
	}
}

func TestResumedOfAHugeImage(t *testing.T) {
	d := Resume(math.MaxInt64, math.MaxInt64/2, math.MaxInt64-3)
	defer d.Close()
	got := push(d, sequence(raw("abc")))
	if got.err != nil || got.Decoded != math.MaxInt64 {
		t.Errorf("%+v", got)
	}
}

// TestOutFails: the frame whose content was not taken is not behind the position.
func TestOutFails(t *testing.T) {
	full := errors.New("no space left")
	d := New(8)
	defer d.Close()
	var calls int
	write := func(p []byte) error {
		return d.Write(p, func([]byte) error {
			if calls++; calls == 2 {
				return full
			}
			return nil
		})
	}
	err := write(sequence(raw("abcd"), raw("efgh")))
	if !errors.Is(err, full) || errors.Is(err, ErrFrame) || !strings.Contains(err.Error(), "4 bytes of the image at 4: ") {
		t.Error(err)
	}
	if encoded, decoded := d.Position(); encoded != 13 || decoded != 4 {
		t.Errorf("position %d, %d", encoded, decoded)
	}
	if again := write(nil); again != err || calls != 2 { //nolint:errorlint // exactly this
		t.Errorf("%v, %d calls", again, calls)
	}
	if again := d.Complete(); again != err { //nolint:errorlint // exactly this
		t.Error(again)
	}
}

func TestClosed(t *testing.T) {
	d := New(4)
	d.Close()
	d.Close()
	if err := d.Write(raw("abcd"), nil); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	if err := d.Complete(); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

// TestMemory: however large frames are, and however they come, the buffers hold one of them, and are made once.
func TestMemory(t *testing.T) {
	image := make([]byte, 2*MaxContent)
	copy(image[MaxContent:], testImage(MaxContent))
	// The largest frame that there can be: raw blocks of 1 KiB, then empty ones up to the bound.
	largest := header(0x80, 0, 0, 0, 64, 0)
	for range MaxContent / 1024 {
		largest = append(largest, block(false, kindRaw, 1024, string(make([]byte, 1024)))...)
	}
	for len(largest)+3+3 <= MaxFrame {
		largest = append(largest, block(false, kindRaw, 0, "")...)
	}
	largest = append(largest, block(true, kindRaw, 0, "")...)
	stream := sequence(largest, mustCompress(t, image, Better))

	d := New(math.MaxInt64)
	defer d.Close()
	out := func([]byte) error { return nil }
	for p := stream; len(p) > 0; {
		n := min(len(p), 1000)
		if err := d.Write(p[:n], out); err != nil {
			t.Fatal(err)
		}
		p = p[n:]
		if cap(d.frame.b) > MaxFrame || cap(d.image) > MaxContent {
			t.Fatalf("buffers of %d and %d bytes", cap(d.frame.b), cap(d.image))
		}
	}
	allocs := testing.AllocsPerRun(5, func() {
		if err := d.Write(stream, out); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 20 {
		t.Errorf("%v allocations for 3 frames", allocs)
	}
}

// TestMemoryIsNotTakenForAPromise: a header that promises 4 MiB takes what came, no more.
func TestMemoryIsNotTakenForAPromise(t *testing.T) {
	d := New(MaxContent)
	defer d.Close()
	got := push(d, sequence(header(0xa0, 0, 0, 64, 0), block(false, kindRaw, maxBlock, "few")), 1)
	if !errors.Is(got.err, io.ErrUnexpectedEOF) || cap(d.frame.b) > 64 || d.image != nil {
		t.Errorf("%v, buffers of %d and %d bytes", got.err, cap(d.frame.b), cap(d.image))
	}
}

func TestReader(t *testing.T) {
	image := testImage(2*mib + 77)
	stream := sequence(skippable(1, 9), mustCompress(t, image, Default), skippable(14, 100))
	size := int64(len(image))
	for name, r := range map[string]io.Reader{
		"in one":                bytes.NewReader(stream),
		"byte by byte":          iotest.OneByteReader(bytes.NewReader(stream)),
		"last data with EOF":    iotest.DataErrReader(bytes.NewReader(stream)),
		"half of what is asked": iotest.HalfReader(bytes.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			z := NewReader(r, size)
			if err := iotest.TestReader(z, image); err != nil {
				t.Error(err)
			}
			if err := z.Close(); err != nil {
				t.Error(err)
			}
			if _, err := z.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
				t.Error(err)
			}
		})
	}
	broken := errors.New("line is down")
	for name, test := range map[string]struct {
		r    io.Reader
		size int64
		want error
	}{
		"cut off between frames": {bytes.NewReader(stream[:len(stream)-108]), size + 1, io.ErrUnexpectedEOF},
		"cut off in a frame":     {bytes.NewReader(stream[:len(stream)-109]), size, io.ErrUnexpectedEOF},
		"not of the format":      {strings.NewReader("no zstd"), size, ErrFrame},
		"longer than the image":  {bytes.NewReader(stream), size - 1, ErrFrame},
		"something after it":     {bytes.NewReader(sequence(stream, raw("a"))), size, ErrFrame},
		"a reader that fails":    {io.MultiReader(bytes.NewReader(stream[:len(stream)/2]), iotest.ErrReader(broken)), size, broken},
		"fails after the end":    {io.MultiReader(bytes.NewReader(stream), iotest.ErrReader(broken)), size, broken},
	} {
		t.Run(name, func(t *testing.T) {
			z := NewReader(test.r, test.size)
			defer z.Close()
			got, err := io.ReadAll(z)
			if !errors.Is(err, test.want) || !bytes.HasPrefix(image, got) {
				t.Errorf("%d bytes: %v", len(got), err)
			}
			if _, again := z.Read(make([]byte, 1)); again != err { //nolint:errorlint // exactly this
				t.Errorf("then %v", again)
			}
		})
	}
}

// TestReaderOfManyLargeFramesInFewBytes: all of the stream fits the buffer for reading, none but one frame of the image is held.
func TestReaderOfManyLargeFramesInFewBytes(t *testing.T) {
	const frames = 64
	stream := bytes.Repeat(mustCompress(t, make([]byte, mib), Default), frames)
	if len(stream) > 64<<10 {
		t.Fatalf("%d bytes of stream", len(stream))
	}
	z := NewReader(bytes.NewReader(stream), frames*mib)
	defer z.Close()
	p := make([]byte, 2*mib)
	for i := range frames {
		if n, err := z.Read(p); n != mib || err != nil {
			t.Fatalf("frame %d: %d bytes, %v", i, n, err)
		}
	}
	if n, err := z.Read(p); n != 0 || err != io.EOF {
		t.Errorf("%d bytes, %v", n, err)
	}
}
