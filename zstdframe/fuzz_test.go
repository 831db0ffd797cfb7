package zstdframe

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// maxFuzzed bounds the image in FuzzDecoder: a few bytes can be a frame of 4 MiB, and the fuzzer has many of them.
const maxFuzzed = 4 << 20

// FuzzDecoder: what a decoder says does not depend on how the stream was cut, nor on where it was resumed; it is bounded, and another decoder agrees.
func FuzzDecoder(f *testing.F) {
	image := testImage(60_000)[30_000:] // with text, so that the levels differ
	for _, level := range levels() {
		f.Add(mustCompress(f, image, level), uint32(len(image)), []byte{0, 3, 200})
	}
	f.Add(sequence(skippable(0, 0), raw("ab"), skippable(7, 9), raw("c")), uint32(3), []byte{5})
	f.Add(mustCompress(f, make([]byte, mib+1), Default), uint32(mib+1), []byte{30})
	f.Add(sequence(header(0x40, 0, 0, 7), bytes.Repeat(block(false, kindRLE, 1024, "x"), 2), block(true, kindRaw, 0, "")), uint32(2048), []byte{1})
	f.Add(sequence(header(0x20, 3), block(false, kindRaw, 2, "ab"), block(true, kindRaw, 2, "cd")), uint32(9), []byte{})
	f.Fuzz(func(t *testing.T, stream []byte, length uint32, cuts []byte) {
		size := int64(length % maxFuzzed)
		d := New(size)
		defer d.Close()
		want := push(d, stream)
		switch {
		case want.err != nil && !errors.Is(want.err, ErrFrame) && !errors.Is(want.err, io.ErrUnexpectedEOF):
			t.Fatal(want.err)
		case want.Decoded > size || want.Decoded != int64(len(want.Image)) || want.Encoded > int64(len(stream)):
			t.Fatalf("position %d, %d: %d bytes out, size %d", want.Encoded, want.Decoded, len(want.Image), size)
		case cap(d.frame.b) > MaxFrame || cap(d.image) > MaxContent:
			t.Fatalf("buffers of %d and %d bytes", cap(d.frame.b), cap(d.image))
		}
		pieces := make([]int, len(cuts))
		for i, c := range cuts {
			pieces[i] = int(c) + 1
		}
		if d := diff(want, decode(stream, size, pieces...)); d != "" {
			t.Fatal(d)
		}
		resumed(t, stream, size, len(cuts), want)
		if want.err == nil {
			libraryAgrees(t, stream, want.Image)
		}
	})
}

// resumed cuts the stream once, and goes on with another decoder. That knows nothing of the skippable frames before, which is the only difference.
func resumed(t *testing.T, stream []byte, size int64, seed int, want result) {
	t.Helper()
	if len(stream) == 0 || len(stream) > MaxSkipped {
		return
	}
	first := decode(stream[:seed*31%len(stream)], size)
	d := Resume(size, first.Encoded, first.Decoded)
	defer d.Close()
	got := push(d, stream[first.Encoded:])
	got.Image = append(first.Image, got.Image...)
	if d := diff(want, got); d != "" {
		t.Fatal(d)
	}
}

// libraryAgrees decodes a complete stream with the library alone, as a stream.
func libraryAgrees(t *testing.T, stream, image []byte) {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(stream), zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	got, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(got, image) {
		t.Fatalf("the library has %d bytes of %d: %v", len(got), len(image), err)
	}
}

// FuzzRoundTrip: every image comes back, repeated so often that it has several frames.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("a"), uint16(1), uint8(0))
	f.Add(testImage(5000), uint16(300), uint8(1))
	f.Add(testImage(100), uint16(1), uint8(2))
	f.Add([]byte{0}, uint16(60_000), uint8(3))
	f.Fuzz(func(t *testing.T, part []byte, times uint16, level uint8) {
		if len(part) == 0 {
			return
		}
		image := bytes.Repeat(part, min(int(times), (mib+mib/4)/len(part)+1))
		stream := mustCompress(t, image, levels()[level%4])
		got := decode(stream, int64(len(image)), 1+len(part))
		if got.err != nil || !bytes.Equal(got.Image, image) || got.Encoded != int64(len(stream)) {
			t.Fatalf("%d bytes of %d: %v", len(got.Image), len(image), got.err)
		}
	})
}
