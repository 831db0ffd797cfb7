package suit

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
)

// deterministic tells whether another decoder and encoder reproduce the bytes, strings that hold CBOR not looked into.
func deterministic(b []byte) error {
	dec, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden}.DecMode()
	if err != nil {
		return err
	}
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return err
	}
	var v any
	if err := dec.Unmarshal(b, &v); err != nil {
		return err
	}
	again, err := enc.Marshal(v)
	if err == nil && !bytes.Equal(again, b) {
		err = errors.New("encoded again, the bytes differ")
	}
	return err
}

func decided(err error) bool {
	return errors.Is(err, ErrMalformed) || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrSignature)
}

// FuzzHeader: a header is found at the same place whatever comes after it, never in a part of it, and is an envelope of its own.
func FuzzHeader(f *testing.F) {
	envelope := mustSign(f, mustCreate(f, full()), edKey())
	f.Add(envelope, uint(10))
	f.Add(bundle(f, envelope, "#rootfs", 5, "image"), uint(7))
	f.Add(bundle(f, envelope, "#rootfs", 5<<32, "image"), uint(300))
	f.Add([]byte{0xa3, 2, 0x40, 3, 0x40, 0x62, '#', 'a', 0x40}, uint(4))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint) {
		h, err := ReadHeader(stream)
		prefix := stream[:cut%uint(len(stream)+1)]
		part, perr := ReadHeader(prefix)
		switch {
		case err == ErrShort: //nolint:errorlint // exactly this
			if perr != ErrShort { //nolint:errorlint // exactly this
				t.Fatalf("%d bytes are short, %d of them %v", len(stream), len(prefix), perr)
			}
			return
		case err != nil:
			if perr == nil || !decided(err) {
				t.Fatalf("%d bytes: %v, %d of them: %v", len(stream), err, len(prefix), perr)
			}
			return
		}
		if h.Offset < 0 || h.Size < 0 || h.Offset > math.MaxInt64-h.Size || h.Offset > int64(len(stream)) || h.Offset > MaxHeader {
			t.Fatalf("%+v", h)
		}
		if h.Payload == "" && h.Size != 0 {
			t.Fatalf("%+v", h)
		}
		if want := int64(len(prefix)) >= h.Offset; want != (perr == nil) || !want && perr != ErrShort { //nolint:errorlint // exactly this
			t.Fatalf("payload at %d, %d bytes: %v", h.Offset, len(prefix), perr)
		}
		if d := cmp.Diff(h, part); perr == nil && d != "" {
			t.Fatal(d)
		}
		if err := deterministic(h.Envelope); err != nil {
			t.Fatalf("envelope: %v", err)
		}
		again, err := ReadHeader(h.Envelope)
		if d := cmp.Diff(Header{Envelope: h.Envelope, Offset: int64(len(h.Envelope))}, again); err != nil || d != "" {
			t.Fatal(err, d)
		}
	})
}

// FuzzOpen: nothing is opened but the one manifest that was signed.
func FuzzOpen(f *testing.F) {
	signed := mustSign(f, mustCreate(f, full()), edKey())
	want, err := Open(signed, anchors(f, edKey()), time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(signed[2:])
	f.Add(mustCreate(f, small()))
	f.Add(bundle(f, signed, "#rootfs", 5, "image"))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		got, err := Open(envelope, anchors(t, edKey(), ecKey(t)), time.Time{})
		if err != nil {
			if !decided(err) {
				t.Fatal(err)
			}
			return
		}
		if !cmp.Equal(got.Digest(), want.Digest()) || !bytes.Equal(got.encode(), want.encode()) {
			t.Fatalf("%+v", got)
		}
	})
}

// FuzzManifest: what is read is deterministic CBOR, is encoded again as the same bytes, and takes little memory, to be read as to be evaluated. What some device takes can be said by Create, as far as it can
// say it, and means the same then.
func FuzzManifest(f *testing.F) {
	for _, b := range [][]byte{smallParts(f).encode(f), fullParts(f).encode(f)} {
		f.Add(b)
	}
	p := smallParts(f)
	second(p)
	p.manifest[4], p.manifest[23] = "https://example.com", []byte{0xa0}
	f.Add(p.encode(f))
	for _, e := range draftExamples(f) {
		w, err := whole(e.envelope)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(w.manifest)
	}
	for _, change := range conditional() {
		p := fullParts(f)
		change(f, p)
		f.Add(p.encode(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxHeader {
			return
		}
		var got *Manifest
		var err error
		n := allocated(func() {
			if got, err = readManifest(b, nil); err == nil && got.check() == nil {
				_, _ = got.Evaluate(small().recipient())
			}
		})
		if n > maxAllocated {
			t.Fatalf("%d bytes allocated", n)
		}
		if err != nil {
			if !decided(err) {
				t.Fatal(err)
			}
			return
		}
		if err := deterministic(b); err != nil {
			t.Fatal(err)
		}
		if again := got.encode(); !bytes.Equal(again, b) {
			t.Fatalf("encoded as %x", again)
		}
		_ = got.words()
		targets, err := got.Targets()
		if err != nil && !decided(err) && !unmetAnyway(err) {
			t.Fatal(err)
		}
		for _, target := range targets {
			for _, i := range target.Images {
				if i.Size <= 0 || !validName(i.Component) || len(i.Digest.Sum) != i.Digest.Hash.Size() {
					t.Fatalf("%+v", i)
				}
			}
			if target.Vendor == (UUID{}) || target.Class == (UUID{}) {
				t.Fatalf("%+v", target)
			}
			created, err := Create(Spec{Device: target.Device, Version: got.version, Demand: target.Demand})
			if err != nil {
				t.Fatal(err)
			}
			if len(created) > MaxHeader {
				t.Fatal(len(created))
			}
		}
	})
}

// unmetAnyway tells whether a manifest was read and is for no device.
func unmetAnyway(err error) bool {
	return errors.Is(err, ErrCondition) || errors.Is(err, ErrVendor) || errors.Is(err, ErrClass) || errors.Is(err, ErrDevice)
}

// FuzzBundle: a bundle is read the same way in whatever pieces it comes, and no payload has more than it says.
func FuzzBundle(f *testing.F) {
	var b bytes.Buffer
	if err := WriteBundle(&b, mustCreate(f, uncompressed()), []PayloadSource{source("#rootfs", "image"), source("#app", "other image")}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:b.Len()-3])
	f.Add(append(bytes.Clone(b.Bytes()), 0))
	f.Add(bundle(f, mustCreate(f, full()), "#rootfs", 5, "image"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		type payload struct {
			Payload
			content string
		}
		read := func(r io.Reader) (list []payload, err error) {
			b, err := NewBundle(r)
			for err == nil {
				var p Payload
				if p, err = b.Next(); err != nil {
					break
				}
				var content []byte
				content, err = io.ReadAll(b)
				list = append(list, payload{p, string(content)})
			}
			return list, err
		}
		got, err := read(bytes.NewReader(stream))
		slow, serr := read(iotest.OneByteReader(bytes.NewReader(stream)))
		if !slices.Equal(got, slow) || (err == io.EOF) != (serr == io.EOF) { //nolint:errorlint // exactly this
			t.Fatalf("%+v, %v; byte by byte %+v, %v", got, err, slow, serr)
		}
		if err != io.EOF && !decided(err) { //nolint:errorlint // exactly this
			t.Fatal(err)
		}
		for i, p := range got {
			whole := p.Size == int64(len(p.content))
			if !whole && (err == io.EOF || i < len(got)-1) || !strings.HasPrefix(string(stream[p.Offset:]), p.content) { //nolint:errorlint // exactly this
				t.Fatalf("%+v, %v", p, err)
			}
		}
	})
}

// FuzzAuthentication: the wrapper is read before anything is authentic.
func FuzzAuthentication(f *testing.F) {
	for _, e := range [][]byte{mustSign(f, mustCreate(f, small()), edKey()), mustSign(f, mustCreate(f, full()), ecKey(f)), mustCreate(f, small())} {
		w, err := whole(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(w.authentication)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		auth, err := readAuthentication(b)
		if err != nil {
			if !decided(err) {
				t.Fatal(err)
			}
			return
		}
		if err := deterministic(b); err != nil {
			t.Fatal(err)
		}
		if len(auth.signatures) > maxSignatures || len(auth.blocks) != len(auth.signatures) {
			t.Fatalf("%d signatures", len(auth.signatures))
		}
		for _, s := range auth.signatures {
			if s.alg.id == 0 || len(s.kid) > maxKID {
				t.Fatalf("%+v", s)
			}
			_, _, _ = s.verify(auth.rawDigest, anchors(t, edKey(), ecKey(t)), time.Time{})
		}
	})
}
