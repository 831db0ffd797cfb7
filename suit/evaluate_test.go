package suit

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// conditional are manifests that say more than Create can: changes of fullParts, whose components are rootfs and bootfw.
func conditional() map[string]func(testing.TB, *parts) {
	seq := func(t testing.TB, commands ...any) []byte { return encode(t, append(a{}, commands...)) }
	image := func(t testing.TB, content string) m {
		return m{3: digestOf(t, sum(content)), 14: len(content)}
	}
	digests := func(p *parts) { // the alternatives decide
		for _, v := range p.shared {
			if is, ok := v.(m); ok {
				delete(is, 3)
				delete(is, 14)
			}
		}
	}
	only := func(p *parts) { // no dependency
		p.common[2] = a{a{[]byte("rootfs")}}
		p.shared, p.validate, p.install = p.shared[2:], p.validate[2:], p.install[8:]
	}
	fetch := func(uri string) a { return a{20, m{21: uri}, 21, 15, 3, 15} }
	return map[string]func(testing.TB, *parts){
		"an image for each slot": func(t testing.TB, p *parts) {
			digests(p)
			p.shared = append(p.shared, 15, a{
				seq(t, 20, m{5: 0}, 5, 5, 20, image(t, "for a")),
				seq(t, 20, m{5: 1}, 5, 5, 20, image(t, "for slot b")),
			})
			p.install = append(a{12, 0, 15, a{
				seq(t, 20, m{5: 0}, 5, 5, 20, m{21: "#a"}),
				seq(t, 20, m{5: 1}, 5, 5, 20, m{21: "#b"}),
			}}, 21, 15, 3, 15)
			p.common[2] = a{a{[]byte("rootfs")}}
		},
		"a class for each alternative": func(t testing.TB, p *parts) {
			only(p)
			other := VendorID("other class")
			s := p.shared
			p.shared = append(append(a{}, s[:2]...), 1, 15, 15, a{
				seq(t, 20, m{2: other[:]}, 2, 15, 20, image(t, "for others")),
				seq(t, 20, m{2: small().Class}, 2, 15, 20, image(t, "for this")),
			})
		},
		"skipped where the image is there": func(t testing.TB, p *parts) {
			only(p)
			p.install = a{15, a{seq(t, 3, 15), seq(t, fetch("#rootfs")...)}}
		},
		"one download or the other": func(t testing.TB, p *parts) {
			only(p)
			p.install = a{15, a{seq(t, fetch("#first")...), seq(t, fetch("#second")...)}}
		},
		"given up after the download": func(t testing.TB, p *parts) {
			only(p)
			p.install = a{15, a{seq(t, append(fetch("#first"), 14, 15)...), seq(t, fetch("#second")...)}}
		},
		"nothing of it": func(t testing.TB, p *parts) {
			only(p)
			p.install = a{15, a{seq(t, 14, 15), seq(t, 14, 15), nil}}
		},
		"none of them": func(t testing.TB, p *parts) {
			only(p)
			p.install = a{15, a{seq(t, 14, 15), seq(t, 5, 15)}}
		},
		"failure that is not soft": func(t testing.TB, p *parts) {
			only(p)
			p.install = a{15, a{seq(t, 20, m{13: false}, 14, 15), seq(t, fetch("#rootfs")...)}}
		},
		"failure that is soft in a sequence": func(t testing.TB, p *parts) {
			only(p)
			p.install = append(a{32, seq(t, 20, m{13: true}, 14, 15)}, fetch("#rootfs")...)
		},
		"failure in a sequence": func(t testing.TB, p *parts) {
			only(p)
			p.install = append(a{32, seq(t, 14, 15)}, fetch("#rootfs")...)
		},
		"failure in a sequence of an alternative": func(t testing.TB, p *parts) {
			only(p)
			p.install = a{15, a{seq(t, 32, seq(t, 14, 15)), seq(t, fetch("#rootfs")...)}}
		},
		"soft failure does not go out of its sequence": func(t testing.TB, p *parts) {
			only(p)
			p.install = a{32, seq(t, 20, m{13: true}, 32, seq(t, 20, m{13: false}), 14, 15), 20, m{21: "#x"}, 21, 15, 3, 15}
		},
		"a version decides": func(t testing.TB, p *parts) {
			only(p)
			p.install = a{15, a{
				seq(t, 20, m{28: seq(t, 2, a{2})}, 28, 15, 20, m{21: "#new"}),
				seq(t, 20, m{28: seq(t, 5, a{2})}, 28, 15, 20, m{21: "#old"}),
			}, 21, 15, 3, 15}
		},
		"every component": func(t testing.TB, p *parts) {
			p.shared = append(a{12, true, 20, p.shared[3]}, p.shared[4:]...)
			p.shared = append(p.shared, 12, 1, 20, image(t, "firmware"))
			p.validate = a{12, true, 3, 15}
			p.install = a{12, a{1, 0}, 20, m{21: "http://example.com/x"}, 21, 15, 32, seq(t, 3, 15)}
		},
		"content in the manifest": func(t testing.TB, p *parts) {
			only(p)
			digests(p)
			p.install = a{20, m{18: []byte("setting")}, 18, 15}
			p.validate = a{20, m{18: []byte("setting")}, 6, 15}
		},
		"battery": func(t testing.TB, p *parts) {
			only(p)
			p.install = append(a{20, m{26: 1500}, 26, 15, 20, m{26: 1000}, 26, 15}, fetch("#rootfs")...)
		},
		"battery decides": func(t testing.TB, p *parts) {
			only(p)
			p.install = a{15, a{seq(t, append(a{20, m{26: 5000}, 26, 15}, fetch("#large")...)...), seq(t, fetch("#small")...)}}
		},
		"a version of its own, and compressed": func(t testing.TB, p *parts) {
			only(p)
			p.install = a{20, m{21: "#rootfs", -258: "zstd"}, 21, 15, 3, 15}
			p.validate = a{20, m{-257: seq(t, 7, 8)}, 3, 15}
		},
		"a vendor that need not be asked": func(t testing.TB, p *parts) {
			only(p)
			s := p.shared
			p.shared = append(append(a{}, s[:2]...), 2, 15, 15, a{seq(t, 1, 15), seq(t, 14, 15), nil})
		},
		"for one device": func(t testing.TB, p *parts) {
			only(p)
			p.shared[1].(m)[24] = make([]byte, 15, 16)
			p.shared[1].(m)[24] = append(p.shared[1].(m)[24].([]byte), 1)
			p.shared = append(p.shared, 24, 15)
		},
	}
}

func (d Demand) short() string {
	var all []string
	for _, i := range d.Images {
		s := fmt.Sprintf("%s %v %d", i.Component, i.Version, i.Size)
		for _, more := range []string{i.URI, i.Compression, string(i.Content)} {
			if more != "" {
				s += " " + more
			}
		}
		all = append(all, s)
	}
	for _, n := range d.Dependencies {
		all = append(all, n.String())
	}
	if d.Battery > 0 {
		all = append(all, fmt.Sprint(d.Battery, " mWh"))
	}
	return strings.Join(all, ", ")
}

func TestEvaluate(t *testing.T) {
	versions := func(v Version) func(*Recipient) {
		return func(r *Recipient) { r.Version = func(string) (Version, bool) { return v, true } }
	}
	slot := func(n uint64) func(*Recipient) {
		return func(r *Recipient) { r.Slot = func(string) (uint64, bool) { return n, true } }
	}
	battery := func(n uint64, err error) func(*Recipient) {
		return func(r *Recipient) { r.Battery = func() (uint64, error) { return n, err } }
	}
	for name, cases := range map[string][]struct {
		device func(*Recipient)
		want   string
		err    error
	}{
		"an image for each slot": {
			{slot(0), "rootfs 1.2.3+4 5 #a", nil}, {slot(1), "rootfs 1.2.3+4 10 #b", nil}, {slot(2), "", ErrCondition}, {nil, "", ErrCondition}},
		"a class for each alternative": {
			{nil, "rootfs 1.2.3+4 8 #rootfs", nil}, {func(r *Recipient) { r.Class = VendorID("other class") }, "rootfs 1.2.3+4 10 #rootfs", nil},
			{func(r *Recipient) { r.Class = UUID{1} }, "", ErrClass}, {func(r *Recipient) { r.Anyone = true }, "rootfs 1.2.3+4 10 #rootfs", nil}},
		"skipped where the image is there":             {{nil, "rootfs 1.2.3+4 5 #rootfs", nil}},
		"one download or the other":                    {{nil, "rootfs 1.2.3+4 5 #first", nil}},
		"given up after the download":                  {{nil, "rootfs 1.2.3+4 5 #second", nil}},
		"nothing of it":                                {{nil, "rootfs 1.2.3+4 5", nil}},
		"none of them":                                 {{nil, "", ErrMalformed}},
		"failure that is not soft":                     {{nil, "", ErrCondition}},
		"failure that is soft in a sequence":           {{nil, "rootfs 1.2.3+4 5 #rootfs", nil}},
		"failure in a sequence":                        {{nil, "", ErrCondition}},
		"failure in a sequence of an alternative":      {{nil, "rootfs 1.2.3+4 5 #rootfs", nil}},
		"soft failure does not go out of its sequence": {{nil, "rootfs 1.2.3+4 5 #x", nil}},
		"a version decides": {
			{versions(Version{Major: 2}), "rootfs 1.2.3+4 5 #new, rootfs>=2", nil}, {versions(Version{1, 9, 9, 9}), "rootfs 1.2.3+4 5 #old, rootfs<2", nil}, {nil, "", ErrCondition}},
		"every component":         {{nil, "rootfs 1.2.3+4 5 http://example.com/x, bootfw 1.2.3+4 8 http://example.com/x", nil}},
		"content in the manifest": {{nil, "rootfs 1.2.3+4 7 setting", nil}},
		"battery":                 {{nil, "rootfs 1.2.3+4 5 #rootfs, 1500 mWh", nil}, {battery(10, nil), "rootfs 1.2.3+4 5 #rootfs, 1500 mWh", nil}},
		"battery decides": {
			{battery(5000, nil), "rootfs 1.2.3+4 5 #large, 5000 mWh", nil}, {battery(4999, nil), "rootfs 1.2.3+4 5 #small", nil},
			{battery(9000, errors.New("no battery")), "rootfs 1.2.3+4 5 #small", nil}, {nil, "rootfs 1.2.3+4 5 #small", nil}},
		"a version of its own, and compressed": {{nil, "rootfs 7.8.0 5 #rootfs zstd", nil}},
		"a vendor that need not be asked": {
			{nil, "rootfs 1.2.3+4 5 #rootfs", nil}, {func(r *Recipient) { r.Vendor = UUID{1} }, "", ErrMalformed}},
		"for one device": {
			{nil, "", ErrDevice}, {func(r *Recipient) { r.ID = UUID{15: 1} }, "rootfs 1.2.3+4 5 #rootfs", nil}},
	} {
		t.Run(name, func(t *testing.T) {
			p := fullParts(t)
			conditional()[name](t, p)
			m, err := Open(signRaw(t, p.encode(t)), anchors(t, edKey()), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range cases {
				r := small().recipient()
				if c.device != nil {
					c.device(&r)
				}
				d, err := m.Evaluate(r)
				if got := d.short(); got != c.want || !errors.Is(err, c.err) {
					t.Errorf("%d: got %q, %v, want %q, %v", i, got, err, c.want, c.err)
				}
			}
		})
	}
	if n := len(conditional()); n != 20 {
		t.Errorf("%d manifests, not all are evaluated", n)
	}
}

// TestTargets: each kind of device, and each alternative that a version or the battery decides for.
func TestTargets(t *testing.T) {
	for name, want := range map[string]string{
		"an image for each slot":       "slot 0: rootfs 1.2.3+4 5 #a; slot 1: rootfs 1.2.3+4 10 #b",
		"a class for each alternative": "rootfs 1.2.3+4 8 #rootfs; rootfs 1.2.3+4 10 #rootfs",
		"a version decides":            "rootfs 1.2.3+4 5 #new, rootfs>=2; rootfs 1.2.3+4 5 #old, rootfs<2",
		"battery decides":              "rootfs 1.2.3+4 5 #large, 5000 mWh; rootfs 1.2.3+4 5 #small",
		"battery":                      "rootfs 1.2.3+4 5 #rootfs, 1500 mWh",
		"one download or the other":    "rootfs 1.2.3+4 5 #first",
		"for one device":               "rootfs 1.2.3+4 5 #rootfs",
	} {
		t.Run(name, func(t *testing.T) {
			p := fullParts(t)
			conditional()[name](t, p)
			m, err := Unverified(signRaw(t, p.encode(t)))
			if err != nil {
				t.Fatal(err)
			}
			targets, err := m.Targets()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, target := range targets {
				s := target.short()
				if target.Slot >= 0 {
					s = fmt.Sprintf("slot %d: %s", target.Slot, s)
				}
				got = append(got, s)
			}
			if s := strings.Join(got, "; "); s != want {
				t.Errorf("got %s\nwant %s", s, want)
			}
		})
	}
}

func TestSequencesThatAreRefused(t *testing.T) {
	seq := func(commands ...any) []byte { return encode(t, append(a{}, commands...)) }
	installs := func(commands ...any) func(*parts) { return func(p *parts) { p.install = append(a{}, commands...) } }
	also := func(commands ...any) func(*parts) {
		return func(p *parts) { p.shared = append(p.shared, commands...) }
	}
	deep := seq(14, 15)
	for range maxDepth + 1 {
		deep = seq(32, deep)
	}
	var wide a // alternatives, each with alternatives: many to run, few to write
	inner := a{}
	for range 30 {
		inner = append(inner, 15, a{seq(14, 15), seq(14, 15), nil})
	}
	for range 2 {
		wide = append(wide, 32, seq(inner...))
	}
	many := a{12, true}
	for range maxCommands - 1 {
		many = append(many, 12, 0)
	}
	var parameters a
	for range maxParameters/2 + 1 {
		parameters = append(parameters, 20, m{12: true, 13: true})
	}
	checkRefusals(t, smallParts, map[string]refusal{
		"soft failure outside":                  {installs(20, m{13: true}), ErrMalformed, "soft-failure (13) in install, outside"},
		"soft failure in shared":                {also(20, m{13: true}), ErrMalformed, "soft-failure (13) in shared-sequence, outside"},
		"custom command in an alternative":      {installs(15, a{seq(-257, 15), seq(14, 15)}), ErrUnsupported, "custom command -257 in install"},
		"fetch in an alternative in shared":     {also(15, a{seq(21, 15), seq(14, 15)}), ErrUnsupported, "directive-fetch (21) in shared-sequence"},
		"copy where nobody comes":               {installs(15, a{seq(20, m{12: true}), seq(22, 15)}), ErrUnsupported, "directive-copy (22) in install"},
		"private parameter in shared":           {also(20, m{-257: seq(1)}), ErrUnsupported, "image-version (-257) in shared-sequence"},
		"one alternative":                       {installs(15, a{seq(14, 15)}), ErrMalformed, "alternatives has 1 elements"},
		"one alternative and nil":               {installs(15, a{seq(14, 15), nil}), ErrMalformed, "sequence within install is a simple value"},
		"alternatives before nil":               {installs(15, a{seq(14, 15), nil, seq(14, 15)}), ErrMalformed, "sequence within install is a simple value"},
		"true as alternative":                   {installs(15, a{seq(14, 15), seq(14, 15), true}), ErrMalformed, "not nil"},
		"empty alternative":                     {installs(15, a{seq(), seq(14, 15)}), ErrMalformed, "install has 0 elements"},
		"nested too deep":                       {installs(32, deep), ErrMalformed, "nested too deep"},
		"too many commands":                     {installs(many...), ErrMalformed, "more than 512 commands"},
		"too many parameters":                   {installs(parameters...), ErrMalformed, ""},
		"false as index":                        {also(12, false), ErrMalformed, "not true"},
		"empty list as index":                   {also(12, a{}), ErrMalformed, "component indices has 0 elements"},
		"list with an index too many":           {also(12, a{0, 1}), ErrMalformed, "component index 1 of 1"},
		"two images for one component":          {func(p *parts) { p.validate = a{3, 15, 20, m{3: digestOf(t, sum("other"))}, 3, 15} }, ErrMalformed, "two different images"},
		"another image after the download":      {installs(20, m{21: "#a", 3: digestOf(t, sum("other"))}, 21, 15, 3, 15), ErrMalformed, "two different images"},
		"two versions for one image":            {func(p *parts) { p.validate = a{20, m{-257: seq(1)}, 3, 15}; p.install = a{20, m{-257: seq(2)}} }, ErrMalformed, "two different versions"},
		"version asked after the download":      {installs(20, m{21: "#a", 28: seq(2, a{1})}, 21, 15, 28, 15), ErrUnsupported, "after its image came"},
		"content that is another image":         {installs(20, m{18: []byte("x")}, 18, 15), ErrMalformed, "content of rootfs"},
		"no content":                            {installs(20, m{18: []byte{}}, 18, 15), ErrMalformed, "without content"},
		"content not set":                       {installs(18, 15), ErrMalformed, "without parameter content (18)"},
		"compression by another":                {installs(20, m{21: "#a", -258: "xz"}, 21, 15), ErrUnsupported, `payload-compression (-258) "xz"`},
		"fetched twice, by either section":      {func(p *parts) { p.fetch = a{20, m{21: "#a"}, 21, 15}; p.install = p.fetch }, ErrUnsupported, "second fetch"},
		"component slot in validate":            {func(p *parts) { p.validate = a{5, 15, 3, 15} }, ErrMalformed, "without parameter component-slot (5)"},
		"device asked and not set":              {also(24, 15), ErrMalformed, "without parameter device-identifier (24)"},
		"source of a copy":                      {installs(20, m{22: 0}), ErrUnsupported, "source-component (22)"},
		"arguments for fetch":                   {installs(20, m{25: []byte{1}}), ErrUnsupported, "fetch-arguments (25)"},
		"battery above 2^63":                    {installs(20, m{26: uint64(1 << 63)}, 26, 15), ErrMalformed, "too large"},
		"parameters that are none":              {also(20, m{}), ErrMalformed, "without parameters"},
		"abort":                                 {also(14, 15), ErrCondition, "condition-abort (14)"},
		"severed install":                       {func(p *parts) { p.manifest[20] = a{-16, make([]byte, 32)} }, ErrUnsupported, "suit-install (20) was severed"},
		"severed text is of no account, abort":  {func(p *parts) { p.manifest[23] = a{-16, make([]byte, 32)}; p.install = a{14, 15} }, ErrCondition, "abort"},
		"severed with an unknown digest":        {func(p *parts) { p.manifest[20] = a{-17, make([]byte, 32)} }, ErrUnsupported, "digest algorithm -17"},
		"severed validate":                      {func(p *parts) { p.validate = nil; p.manifest[7] = a{-16, make([]byte, 32)} }, ErrMalformed, "suit-validate (7) is an array"},
		"loops that are too many":               {func(p *parts) { manyLoops(t, p) }, ErrMalformed, "commands to run"},
		"alternatives within alternatives, bad": {installs(append(wide, 14, 15)...), ErrCondition, "abort"},
	})
}

// manyLoops makes few bytes of many commands to run.
func manyLoops(t testing.TB, p *parts) {
	var components a
	for i := range maxComponents {
		components = append(components, a{[]byte{'a' + byte(i)}})
	}
	p.common[2] = components
	p.shared = append(a{12, true}, p.shared...)
	p.validate = append(a{12, true}, p.validate...)
	q := a{}
	for range 60 {
		q = append(q, 12, true, 20, m{12: true})
	}
	inner := encode(t, append(a{}, q...))
	p.install = a{12, true, 32, inner}
}

// A member that was moved to the envelope counts as if it were in the manifest.
func TestMovedMembers(t *testing.T) {
	for name, c := range map[string]struct {
		keys   []int64
		change func(moved map[int64][]byte)
		want   error
		text   string
	}{
		"install":                {[]int64{20}, nil, nil, ""},
		"install and text":       {[]int64{20, 23}, nil, nil, ""},
		"text, and it is gone":   {[]int64{20, 23}, func(m map[int64][]byte) { delete(m, 23) }, nil, ""},
		"software identifier":    {[]int64{14}, nil, nil, ""},
		"install, and it's gone": {[]int64{20}, func(m map[int64][]byte) { delete(m, 20) }, ErrUnsupported, "a manifest whose suit-install (20) was severed"},
		"install of another":     {[]int64{20}, func(m map[int64][]byte) { m[20] = encode(t, a{14, 15}) }, ErrSignature, "suit-install (20) of the envelope does not have the digest"},
		"one that is not severed": {[]int64{20}, func(m map[int64][]byte) { m[16] = encode(t, a{14, 15}) }, ErrMalformed,
			"suit-payload-fetch (16), of which the manifest has no digest"},
	} {
		t.Run(name, func(t *testing.T) {
			p := fullParts(t)
			p.manifest[23], p.manifest[14] = encode(t, m{"en": m{1: "a text"}}), []byte{0xa0}
			p.encode(t)
			moved := map[int64][]byte{}
			for _, key := range c.keys {
				content := p.manifest[int(key)].([]byte)
				moved[key] = content
				sum := sha256.Sum256(encode(t, content))
				p.manifest[int(key)] = a{-16, sum[:]}
			}
			f, err := whole(signRaw(t, encode(t, p.manifest)))
			if err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				c.change(moved)
			}
			f.moved = moved
			envelope := appendEnvelope(nil, f)
			if err := deterministic(envelope); err != nil {
				t.Error(err)
			}
			opened, err := Open(envelope, anchors(t, edKey()), time.Time{})
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Fatalf("got %v, want %v with %q", err, c.want, c.text)
			}
			if err != nil {
				return
			}
			d, err := opened.Evaluate(small().recipient())
			if want := "rootfs 1.2.3+4 5 #rootfs, bootfw>=1.2.0"; err != nil || d.short() != want {
				t.Errorf("%s, %v", d.short(), err)
			}
			h, err := ReadHeader(envelope)
			if err != nil || string(h.Envelope) != string(envelope) {
				t.Errorf("header: %v", err)
			}
		})
	}
}

// TestEachSeverableMember in the manifest, moved to the envelope, gone, and changed: with each digest algorithm. Of one that is needed the manifest is of no use without.
func TestEachSeverableMember(t *testing.T) {
	hashes := map[int]crypto.Hash{-16: crypto.SHA256, -43: crypto.SHA384, -44: crypto.SHA512}
	for key, gone := range map[int]string{14: "", 16: "suit-payload-fetch (16) was severed", 20: "suit-install (20) was severed", 23: ""} {
		for alg, hash := range hashes {
			t.Run(fmt.Sprint(key, " ", hash), func(t *testing.T) {
				p := fullParts(t)
				p.manifest[14], p.manifest[23] = []byte{0xa0}, encode(t, m{"en": m{1: "a text"}})
				p.fetch = a{12, 0, 2, 15}
				inPlace := signRaw(t, p.encode(t))
				content := p.manifest[key].([]byte)
				p.manifest[key] = a{alg, manifestDigest(hash, content).Sum}
				f, err := whole(signRaw(t, encode(t, p.manifest)))
				if err != nil {
					t.Fatal(err)
				}
				with := func(moved map[int64][]byte) []byte { f.moved = moved; return appendEnvelope(nil, f) }
				here, severed := with(map[int64][]byte{int64(key): content}), with(nil)
				for name, c := range map[string]struct {
					envelope []byte
					text     string // empty: it is taken
				}{"in place": {inPlace, ""}, "moved": {here, ""}, "moved, no tag": {here[2:], ""}, "severed": {severed, gone}} {
					opened, err := Open(c.envelope, anchors(t, edKey()), time.Time{})
					if c.text != "" {
						if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.text) {
							t.Errorf("%s: got %v, want %q", name, err, c.text)
						}
						if d, err := Describe(c.envelope); err != nil || !strings.Contains(d.Refused, c.text) {
							t.Errorf("%s: %v, %v", name, d, err)
						}
						continue
					}
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					d, err := opened.Evaluate(small().recipient())
					if want := "rootfs 1.2.3+4 5 #rootfs, bootfw>=1.2.0"; err != nil || d.short() != want {
						t.Errorf("%s: %s, %v", name, d.short(), err)
					}
				}
				// Every bit of what was moved is authenticated, and none of it may be missing.
				for i := range len(here) * 8 {
					flipped := bytes.Clone(here)
					flipped[i/8] ^= 1 << (i % 8)
					if _, err := Open(flipped, anchors(t, edKey()), time.Time{}); !decided(err) {
						t.Fatalf("bit %d of byte %d of %d: %v", i%8, i/8, len(here), err)
					}
				}
				for n := range content {
					if _, err := Open(with(map[int64][]byte{int64(key): content[:n]}), anchors(t, edKey()), time.Time{}); !errors.Is(err, ErrSignature) {
						t.Fatalf("%d bytes of it: %v", n, err)
					}
				}
			})
		}
	}
}

func TestRequirements(t *testing.T) {
	for q, want := range map[string]string{ // versions that meet it
		"x>1.2": "1.3.0 2.0.0", "x>=1.2": "1.2.0 1.2.3 1.2.3+4 1.3.0 2.0.0", "x=1.2": "1.2.0 1.2.3 1.2.3+4", "x<=1.2": "1.1.9 1.2.0 1.2.3 1.2.3+4", "x<1.2": "1.1.9",
		"x=1.2.3": "1.2.3 1.2.3+4", "x=1.2.3+4": "1.2.3+4", "x>1.2.3": "1.3.0 2.0.0", "x>1": "2.0.0", "x>=0": "1.1.9 1.2.0 1.2.3 1.2.3+4 1.3.0 2.0.0",
	} {
		d, err := ParseDependency(q)
		if err != nil || d.String() != q {
			t.Fatalf("%s: %v, %v", q, d, err)
		}
		var met []string
		for _, s := range strings.Fields("1.1.9 1.2.0 1.2.3 1.2.3+4 1.3.0 2.0.0") {
			v, err := ParseVersion(s)
			if err != nil {
				t.Fatal(err)
			}
			if d.Met(v) {
				met = append(met, s)
			}
		}
		if got := strings.Join(met, " "); got != want {
			t.Errorf("%s is met by %s, want %s", q, got, want)
		}
	}
	for _, s := range []string{"", "x", "x>", "x>=", ">=1", "x==1", "x=>1", "x>=1.2.3.4", "x!1", "x><1", "x >=1", "x>=256"} {
		if d, err := ParseDependency(s); err == nil {
			t.Errorf("%q is taken as %v", s, d)
		}
	}
	if (Requirement{}).Met(Version{}) {
		t.Error("no comparison is met")
	}
}

// BenchmarkOpen verifies and evaluates a manifest of 2 KiB, by each algorithm, and by one with a certificate.
func BenchmarkOpen(b *testing.B) {
	p := fullParts(b)
	p.manifest[23] = make([]byte, 2048-len(signRaw(b, p.encode(b))))
	f, err := whole(signRaw(b, p.encode(b)))
	if err != nil {
		b.Fatal(err)
	}
	f.authentication = encode(b, a{encode(b, a{-16, manifestDigest(crypto.SHA256, f.manifest).Sum})})
	unsigned := appendEnvelope(nil, f)
	bench := func(name string, envelope []byte, keys VerifyKeys) {
		b.Run(fmt.Sprintf("%s/%dbytes", name, len(envelope)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m, err := Open(envelope, keys, year(2035))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := m.Evaluate(small().recipient()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for name, key := range signers(b) {
		bench(name, mustSign(b, unsigned, key), anchors(b, key))
	}
	root := authority(b, "root")
	signer := root.signer(b)
	chained, err := Sign(unsigned, signer.key, Identity{Chain: chainOf(signer)})
	if err != nil {
		b.Fatal(err)
	}
	bench("ed25519 below a CA", chained, trust(root))
}

// TestMemory: what a manifest says cannot make anyone take more than 1 MiB, signed or not, whatever it is that it says too much of.
func TestMemory(t *testing.T) {
	seq := func(commands ...any) []byte { return encode(t, append(a{}, commands...)) }
	repeat := func(n int, commands ...any) a {
		q := a{}
		for range n {
			q = append(q, commands...)
		}
		return q
	}
	for name, change := range map[string]func(*parts){
		"commands":   func(p *parts) { p.install = repeat(maxCommands-10, 12, 0) },
		"parameters": func(p *parts) { p.install = repeat(maxParameters/2-10, 20, m{12: true, 22: 0}) },
		"content":    func(p *parts) { p.install = a{20, m{18: make([]byte, 60000)}} },
		"text":       func(p *parts) { p.manifest[23] = make([]byte, 64000) },
		"alternatives": func(p *parts) {
			p.install = a{}
			for range 4 {
				q := a{}
				for range 40 {
					q = append(q, seq(14, 15))
				}
				p.install = append(p.install, 15, append(q, nil))
			}
		},
		"components with alternatives": func(p *parts) {
			manyLoops(t, p)
			p.install = a{12, true, 32, seq(repeat(20, 15, a{seq(14, 15), seq(14, 15), nil})...)}
		},
		"indices in sequences of sequences": func(p *parts) {
			manyLoops(t, p)
			p.install = a{12, true, 32, seq(12, true, 32, seq(12, true, 32, seq(repeat(400, 12, true)...)))}
		},
		"versions": func(p *parts) {
			p.install = a{}
			for i := range 240 {
				p.install = append(p.install, 20, m{28: seq(2, a{i})}, 28, 15)
			}
		},
		"versions in alternatives": func(p *parts) {
			manyLoops(t, p)
			p.install = a{12, true, 20, m{28: seq(2, a{1})}, 15, append(repeat(60, seq(28, 15, 14, 15)), nil)}
		},
		"slots of long names": func(p *parts) {
			manyLoops(t, p)
			for i, c := range p.common[2].(a) {
				c.(a)[0] = fmt.Appendf(nil, "%064d", i)
			}
			p.shared = append(p.shared, 20, m{5: 9})
			p.install = a{12, true, 15, append(repeat(62, seq(5, 15)), nil), 15, append(repeat(60, seq(5, 15)), nil)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := smallParts(t)
			change(p)
			envelope := signRaw(t, p.encode(t))
			keys := anchors(t, edKey())
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			m, err := Open(envelope, keys, time.Time{})
			if err == nil {
				_, err = m.Evaluate(small().recipient())
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("%d bytes for an envelope of %d (%v)", n, len(envelope), err)
			} else {
				t.Logf("%d bytes for an envelope of %d (%v)", n, len(envelope), err)
			}
		})
	}
}
