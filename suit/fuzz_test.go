package suit

import (
	"bytes"
	"errors"
	"testing"
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
		h, err := Header(stream)
		prefix := stream[:cut%uint(len(stream)+1)]
		part, perr := Header(prefix)
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
		if h.Offset < 0 || h.Size < 0 || h.End() < h.Offset || h.Offset > int64(len(stream)) || h.Offset > MaxHeader {
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
		again, err := Header(h.Envelope)
		if d := cmp.Diff(Bundle{Envelope: h.Envelope, Offset: int64(len(h.Envelope))}, again); err != nil || d != "" {
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
		if !cmp.Equal(got.Digest(), want.Digest()) || !cmp.Equal(got.Targets(), want.Targets()) {
			t.Fatalf("%+v", got)
		}
	})
}

// FuzzManifest: what is accepted is deterministic CBOR and within the bounds, can be said by Create, and means the same then.
func FuzzManifest(f *testing.F) {
	for _, b := range [][]byte{smallParts(f).encode(f), fullParts(f).encode(f)} {
		f.Add(b)
	}
	p := smallParts(f)
	second(p)
	p.manifest[4], p.manifest[23] = "https://example.com", []byte{0xa0}
	f.Add(p.encode(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > MaxHeader {
			return
		}
		got, err := parseManifest(b)
		if err != nil {
			if !decided(err) {
				t.Fatal(err)
			}
			return
		}
		if err := deterministic(b); err != nil {
			t.Fatal(err)
		}
		if got.image.Size <= 0 || got.device.Vendor == (UUID{}) || got.device.Class == (UUID{}) || !validName(got.image.Component) {
			t.Fatalf("%+v", got)
		}
		f, err := whole(mustCreate(t, Spec{got.device, got.image}))
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseManifest(f.manifest)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(got.image, again.image); d != "" || got.device != again.device {
			t.Fatal(d)
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
			_, _ = s.verify(auth.rawDigest, anchors(t, edKey(), ecKey(t)), time.Time{})
		}
	})
}
