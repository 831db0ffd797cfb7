package fwu_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
)

// refusalLog keeps the attributes of each refusal.
type refusalLog struct{ seen []map[string]string }

func (l *refusalLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *refusalLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *refusalLog) WithGroup(string) slog.Handler            { return l }

func (l *refusalLog) Handle(_ context.Context, r slog.Record) error {
	attrs := map[string]string{"level": r.Level.String()}
	r.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value.String(); return true })
	if attrs[fwu.EventKey] == string(fwu.EventRefused) {
		l.seen = append(l.seen, attrs)
	}
	return nil
}

// trustNow is the result that a service gets when it reads the trust anchors.
type trustNow struct {
	keys suit.VerifyKeys
	err  error
}

// refusals are ways to each of the reasons for which a manifest or an image is refused. Component 0
// takes detached manifests, component 1 bundles. Each returns the error of its last step.
func refusals(trust *trustNow) map[fwu.Reason]func(d *device) error {
	image := randomImage(20, 5000)
	changed := func(change func(*suit.Spec)) func(*device) error {
		return func(d *device) error {
			spec := d.spec("rootfs", image, "2.0.0", 2)
			change(&spec)
			m, err := d.Creator.Manifest(spec)
			d.do(err)
			return d.Start(d.t.Context(), 0, m)
		}
	}
	started := func(d *device, size int) {
		d.do(d.Start(d.t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2)))
		d.do(d.Write(d.t.Context(), 0, 0, randomImage(21, 5000)[:size]))
	}
	candidate := func(d *device, keys suit.VerifyKeys, err error) error {
		d.candidate(0, "rootfs", image, "2.0.0", 2)
		trust.keys, trust.err = keys, err
		_, err = d.Install(d.t.Context())
		return err
	}
	return map[fwu.Reason]func(d *device) error{
		fwu.ReasonManifestMissing:    func(d *device) error { return d.Start(d.t.Context(), 0, nil) },
		fwu.ReasonManifestUnexpected: func(d *device) error { return d.Start(d.t.Context(), 1, []byte("x")) },
		fwu.ReasonManifestInvalid:    func(d *device) error { return d.Start(d.t.Context(), 0, []byte("x")) },
		fwu.ReasonManifestSignature: func(d *device) error {
			return d.Start(d.t.Context(), 0, d.signedBy(image, 2, "stranger"))
		},
		fwu.ReasonVendorMismatch: changed(func(s *suit.Spec) { s.Vendor = suit.VendorID("example.net") }),
		fwu.ReasonClassMismatch:  changed(func(s *suit.Spec) { s.Class = suit.ClassID(s.Vendor, "other") }),
		fwu.ReasonDeviceMismatch: changed(func(s *suit.Spec) { s.ID = suit.UUID{1} }),
		fwu.ReasonComponentMismatch: func(d *device) error {
			return d.Start(d.t.Context(), 0, d.manifest("other", image, "2.0.0", 2))
		},
		fwu.ReasonCondition:        func(d *device) error { return d.Start(d.t.Context(), 0, d.forSlot(0, image)) },
		fwu.ReasonSequenceRollback: changed(func(s *suit.Spec) { s.Sequence = 0 }),
		fwu.ReasonSequenceTooHigh:  changed(func(s *suit.Spec) { s.Sequence = fwu.FreeSequence + 1 }),
		fwu.ReasonImageTooLarge:    changed(func(s *suit.Spec) { s.Images[0].Size = slotSize + 1 }),
		fwu.ReasonFailedBefore: func(d *device) error {
			d.Config.MaxTrials = 1
			d.restart()
			d.candidate(0, "rootfs", image, "2.0.0", 2)
			d.installed(fwu.SuccessReboot)
			d.reboot()
			d.reboot() // without an accept
			d.do(d.Clean(d.t.Context(), 0))
			return d.Start(d.t.Context(), 0, d.manifest("rootfs", image, "2.0.0", 2))
		},
		fwu.ReasonTrustRemoved: func(d *device) error { return candidate(d, nil, nil) },
		fwu.ReasonTrustUnreadable: func(d *device) error {
			return candidate(d, nil, errors.New("input/output error"))
		},
		fwu.ReasonPayload: func(d *device) error {
			err := changed(func(s *suit.Spec) { s.Images[0].URI, s.Images[0].Compression = "#rootfs", suit.CompressionZstd })(d)
			d.do(err)
			// which is not compressed
			_, err = d.WriteFrom(d.t.Context(), 0, 0, bytes.NewReader(image), 0)
			return err
		},
		fwu.ReasonImageDigest: func(d *device) error { started(d, 5000); return d.Finish(d.t.Context(), 0) },
		fwu.ReasonImageSize:   func(d *device) error { started(d, 4096); return d.Finish(d.t.Context(), 0) },
	}
}

// Each refusal is in the log once, in one form, with the reason that the caller is told.
func TestEveryRefusalIsAnEvent(t *testing.T) {
	all := slices.Sorted(maps.Keys(refusals(nil)))
	if diff := cmp.Diff(refusalReasons(t), all); diff != "" {
		t.Error("-reasons of refusals +those that are tried:\n" + diff)
	}
	for _, reason := range all {
		t.Run(string(reason), func(t *testing.T) {
			comps := bank("rootfs", "boot")
			comps[1].Manifest = fwu.Bundled
			d := newDevice(t, true, comps...)
			l := &refusalLog{}
			d.Config.Log = slog.New(l)
			trust := &trustNow{keys: d.Config.Components[0].Keys}
			d.Config.Components[0].Anchors = func() (suit.VerifyKeys, error) { return trust.keys, trust.err }
			d.restart()
			err := refusals(trust)[reason](d)
			if fwu.ReasonOf(err) != reason {
				t.Fatalf("refused with %v, %q", err, fwu.ReasonOf(err))
			}
			if len(l.seen) != 1 {
				t.Fatalf("%d events: %v", len(l.seen), l.seen)
			}
			got := l.seen[0]
			if got["reason"] != string(reason) || got["text"] == "" || got["component"] == "" || got["level"] != "WARN" ||
				got["error"] != strconv.Itoa(int(fwu.StatusOf(err))) {
				t.Errorf("%v", got)
			}
		})
	}
}

// refusalReasons reads from the source which reasons there are for which a manifest or an image is
// refused: the first two groups of the reasons.
func refusalReasons(t *testing.T) (reasons []fwu.Reason) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "status.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		d, ok := n.(*ast.GenDecl)
		if !ok || d.Tok != token.CONST {
			return true
		}
		refusal := false
		for _, s := range d.Specs {
			v := s.(*ast.ValueSpec)
			if v.Doc != nil {
				refusal = strings.HasPrefix(v.Doc.Text(), "A manifest was refused") || strings.HasPrefix(v.Doc.Text(), "An image was refused")
			}
			if refusal {
				text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				reasons = append(reasons, fwu.Reason(text))
			}
		}
		return true
	})
	slices.Sort(reasons)
	return reasons
}

// forSlot makes a manifest that is for one slot only, which our own tool does not make.
func (d *device) forSlot(slot uint64, image []byte) []byte {
	d.t.Helper()
	type m = map[int64]any
	type a = []any
	mode, err := cbor.CoreDetEncOptions().EncMode()
	d.do(err)
	encode := func(v any) []byte { b, err := mode.Marshal(v); d.do(err); return b }
	spec := d.spec("rootfs", image, "2.0.0", 2)
	digest := func(b []byte) []byte { sum := sha256.Sum256(b); return encode(a{-16, sum[:]}) }
	shared := a{20, m{1: spec.Vendor[:], 2: spec.Class[:], 3: digest(image), 5: slot, 14: len(image)}, 1, 15, 2, 15, 5, 15}
	manifest := encode(m{1: 1, 2: 2, 3: encode(m{2: a{a{[]byte("rootfs")}}, 4: encode(shared)}), 6: encode(a{2, 0, 0}), 7: encode(a{3, 15})})
	wrapper := encode(a{digest(encode(manifest))})
	signed, err := suit.Sign(encode(cbor.Tag{Number: 107, Content: m{2: wrapper, 3: manifest}}), d.Creator.Key, suit.Identity{KID: d.Creator.KID})
	d.do(err)
	return signed
}
