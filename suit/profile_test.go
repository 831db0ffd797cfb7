package suit

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
)

// An independent encoder makes what the tests read: deterministic CBOR from maps and arrays.
type (
	m = map[any]any
	a = []any
)

func encode(t testing.TB, v any) []byte {
	t.Helper()
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := mode.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parts is a manifest before it is encoded. A nil sequence is left out.
type parts struct {
	manifest m
	common   m
	shared   a
	validate a
	fetch    a
	install  a
}

func (p *parts) parameters() m { return p.shared[1].(m) }

func digestOf(t testing.TB, d Digest) []byte { return encode(t, a{-16, d.Sum}) }

func smallParts(t testing.TB) *parts {
	s := small()
	return &parts{
		manifest: m{1: 1, 2: 7, 6: encode(t, a{1, 2, 3})},
		common:   m{2: a{a{[]byte("rootfs")}}},
		shared:   a{20, m{1: s.Vendor[:], 2: s.Class[:], 3: digestOf(t, s.Images[0].Digest), 14: 5}, 1, 15, 2, 15},
		validate: a{3, 15},
	}
}

// fullParts is full() without its second dependency.
func fullParts(t testing.TB) *parts {
	p := smallParts(t)
	p.manifest[6] = encode(t, a{1, 2, 3, 4})
	p.common[2] = a{a{[]byte("rootfs")}, a{[]byte("bootfw")}}
	p.shared = append(a{12, 0}, p.shared...)
	p.validate = append(a{12, 0}, p.validate...)
	p.install = a{12, 1, 20, m{28: encode(t, a{2, a{1, 2, 0}})}, 28, 15, 12, 0, 20, m{21: "#rootfs"}, 21, 15, 3, 15}
	return p
}

func (p *parts) encode(t testing.TB) []byte {
	if p.shared != nil {
		p.common[4] = encode(t, p.shared)
	}
	if p.common != nil {
		p.manifest[3] = encode(t, p.common)
	}
	for key, s := range map[int]a{7: p.validate, 16: p.fetch, 20: p.install} {
		if s != nil {
			p.manifest[key] = encode(t, s)
		}
	}
	return encode(t, p.manifest)
}

// signRaw makes an envelope of any manifest, signed by edKey.
func signRaw(t testing.TB, manifest []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(encode(t, manifest))
	digest := encode(t, a{-16, sum[:]})
	protected := algorithmOf(algEdDSA).protected(Identity{})
	block := signBlock(protected, signMessage(t, edKey(), toBeSigned(protected, digest)))
	return encode(t, cbor.Tag{Number: 107, Content: m{2: encode(t, a{digest, block}), 3: manifest}})
}

func TestCreateEncodesAsAnotherEncoderDoes(t *testing.T) {
	spec := full()
	spec.Dependencies = spec.Dependencies[:1]
	for name, c := range map[string]struct {
		spec  Spec
		parts *parts
	}{"small": {small(), smallParts(t)}, "full": {spec, fullParts(t)}} {
		t.Run(name, func(t *testing.T) {
			f, err := whole(mustCreate(t, c.spec))
			if err != nil {
				t.Fatal(err)
			}
			if want := c.parts.encode(t); !bytes.Equal(f.manifest, want) {
				t.Errorf("got\n%swant\n%s", hex.Dump(f.manifest), hex.Dump(want))
			}
		})
	}
}

func TestManifestsOfOthersThatFitTheProfile(t *testing.T) {
	changed := func(change func(*Spec)) Demand { s := small(); change(&s); return s.Demand }
	detached := small().Demand
	integrated := changed(func(s *Spec) { s.Images[0].URI = "#rootfs" })
	needs := changed(func(s *Spec) { s.Dependencies = []Dependency{atLeast("bootfw", Version{Major: 1, Minor: 2}, 2)} })
	version := func(v Version) Demand { return changed(func(s *Spec) { s.version(v) }) }
	for name, c := range map[string]struct {
		change func(*parts)
		want   Demand
	}{
		"as it is":                     {func(*parts) {}, detached},
		"with a reference":             {func(p *parts) { p.manifest[4] = "https://example.com/full.suit" }, detached},
		"with text":                    {func(p *parts) { p.manifest[23] = encode(t, m{"en": m{1: "a text"}}) }, detached},
		"with a software identifier":   {func(p *parts) { p.manifest[14] = []byte{0xa0} }, detached},
		"size set again":               {func(p *parts) { p.shared = append(a{20, m{14: 99}}, p.shared...) }, detached},
		"for whichever component":      {func(p *parts) { p.shared = append(a{12, true}, p.shared...); p.validate = a{12, a{0}, 3, 15} }, detached},
		"class asked again in install": {func(p *parts) { p.install = a{2, 15} }, detached},
		"uri, and no fetch":            {func(p *parts) { p.install = a{20, m{21: "#rootfs"}} }, detached},
		"uri in shared":                {func(p *parts) { p.parameters()[21] = "#rootfs"; p.install = a{21, 15} }, integrated},
		"digest in validate":           {func(p *parts) { p.validate = a{20, m{3: p.parameters()[3]}, 3, 15}; delete(p.parameters(), 3) }, detached},
		"fetched from elsewhere": {func(p *parts) { p.install = a{20, m{21: "https://example.com/rootfs.img"}, 21, 15} },
			changed(func(s *Spec) { s.Images[0].URI = "https://example.com/rootfs.img" })},
		"present version demanded": {func(p *parts) { p.install = a{20, m{28: encode(t, a{2, a{1}})}, 28, 15} },
			changed(func(s *Spec) {
				s.Dependencies = []Dependency{{"rootfs", Requirement{GreaterEqual, Version{Major: 1}, 1}, true}}
			})},
		"with text moved elsewhere":     {func(p *parts) { p.manifest[23] = a{-16, make([]byte, 32)} }, detached},
		"version of one number":         {func(p *parts) { p.manifest[6] = encode(t, a{9}) }, version(Version{Major: 9})},
		"largest version":               {func(p *parts) { p.manifest[6] = encode(t, a{255, 255, 65535, uint32(1<<32 - 1)}) }, version(Version{255, 255, 65535, 1<<32 - 1})},
		"fetched by payload-fetch":      {func(p *parts) { p.fetch = a{20, m{21: "#rootfs"}, 21, 2} }, integrated},
		"index where none is needed":    {func(p *parts) { p.validate = a{12, 0, 3, 15} }, detached},
		"parameters one at a time":      {func(p *parts) { p.shared = split(p.shared) }, detached},
		"image is the second component": {second, needs},
		"version demanded in the shared sequence": {func(p *parts) {
			p.common[2] = a{a{[]byte("rootfs")}, a{[]byte("bootfw")}}
			p.shared = append(append(a{12, 0}, p.shared...), 12, 1, 20, m{28: encode(t, a{2, a{1, 2}})}, 28, 0)
			p.validate = a{12, 0, 3, 15}
		}, needs},
	} {
		t.Run(name, func(t *testing.T) {
			p := smallParts(t)
			c.change(p)
			opened, err := Open(signRaw(t, p.encode(t)), anchors(t, edKey()), time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := opened.Evaluate(small().recipient())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// split gives each parameter a command of its own.
func split(shared a) a {
	var s a
	for _, key := range []int{14, 3, 2, 1} {
		s = append(s, 20, m{key: shared[1].(m)[key]})
	}
	return append(s, shared[2:]...)
}

func second(p *parts) {
	p.common[2] = a{a{[]byte("bootfw")}, a{[]byte("rootfs")}}
	p.shared = append(a{12, 1}, p.shared...)
	p.validate = a{12, 1, 3, 15}
	p.install = a{12, 0, 20, m{28: []byte{0x82, 2, 0x82, 1, 2}}, 28, 15}
}

type refusal struct {
	change func(*parts)
	want   error
	text   string
}

func checkRefusals(t *testing.T, base func(testing.TB) *parts, cases map[string]refusal) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := base(t)
			c.change(p)
			m, err := Open(signRaw(t, p.encode(t)), anchors(t, edKey()), time.Time{})
			if err == nil {
				_, err = m.Evaluate(small().recipient())
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}

func TestMembersThatAreRefused(t *testing.T) {
	drop := func(key int) func(*parts) { return func(p *parts) { delete(p.manifest, key) } }
	afterCommon := func(p *parts) {
		p.common[4] = encode(t, p.shared)
		p.manifest[3] = append(encode(t, p.common), 0)
		p.common, p.shared = nil, nil
	}
	components := func(ids ...any) func(*parts) { return func(p *parts) { p.common[2] = append(a{}, ids...) } }
	rootfs := a{[]byte("rootfs")}
	var many a
	for i := range maxComponents + 1 {
		many = append(many, a{[]byte{'a' + byte(i)}})
	}
	checkRefusals(t, smallParts, map[string]refusal{
		"load":                        {func(p *parts) { p.manifest[8] = encode(t, a{3, 15}) }, ErrUnsupported, "suit-load (8)"},
		"invoke":                      {func(p *parts) { p.manifest[9] = encode(t, a{23, 2}) }, ErrUnsupported, "suit-invoke (9)"},
		"unknown":                     {func(p *parts) { p.manifest[99] = 1 }, ErrUnsupported, "member 99"},
		"private":                     {func(p *parts) { p.manifest[-1] = 1 }, ErrUnsupported, "member -1"},
		"largest negative":            {func(p *parts) { p.manifest[int64(-1<<63)] = 1 }, ErrUnsupported, "member -9223372036854775808"},
		"largest positive":            {func(p *parts) { p.manifest[uint64(1<<64-1)] = 1 }, ErrMalformed, "number too large"},
		"named":                       {func(p *parts) { p.manifest["x"] = 1 }, ErrMalformed, "key in manifest is a text"},
		"version of the encoding":     {func(p *parts) { p.manifest[1] = 2 }, ErrUnsupported, "manifest version 2"},
		"negative sequence number":    {func(p *parts) { p.manifest[2] = -1 }, ErrMalformed, "sequence number is a negative number"},
		"no version of the encoding":  {drop(1), ErrMalformed, "no member 1"},
		"no sequence number":          {drop(2), ErrMalformed, "no member 2"},
		"no common":                   {func(p *parts) { p.common, p.shared, p.validate = nil, nil, nil }, ErrMalformed, "no member 3"},
		"validate without common":     {func(p *parts) { p.common, p.shared = nil, nil }, ErrMalformed, "validate without components"},
		"no version":                  {drop(6), ErrMalformed, "no member 6"},
		"no validate":                 {func(p *parts) { p.validate = nil }, ErrMalformed, "no member 7"},
		"something after common":      {afterCommon, ErrMalformed, "1 bytes after common"},
		"not wrapped common":          {func(p *parts) { p.common, p.shared, p.manifest[3] = nil, nil, m{2: a{rootfs}} }, ErrMalformed, "common is a map"},
		"dependencies of manifests":   {func(p *parts) { p.common[1] = m{0: m{}} }, ErrUnsupported, "suit-dependencies (1)"},
		"no components":               {func(p *parts) { delete(p.common, 2) }, ErrMalformed, "without components"},
		"empty list of components":    {components(), ErrMalformed, "components has 0 elements"},
		"too many components":         {components(many...), ErrMalformed, "components has 17 elements"},
		"a component twice":           {components(rootfs, rootfs), ErrMalformed, "rootfs is there twice"},
		"component without segments":  {components(a{}), ErrUnsupported, "identifier of 0 segments"},
		"component of two segments":   {components(a{[]byte("a"), []byte("b")}), ErrUnsupported, "identifier of 2 segments"},
		"component that is no name":   {components(a{[]byte{0}}), ErrUnsupported, "[h'00']"},
		"component that is a path":    {components(a{[]byte("../a")}), ErrUnsupported, "[h'2e2e2f61']"},
		"component of a long name":    {components(a{bytes.Repeat([]byte("a"), 65)}), ErrUnsupported, "component identifier"},
		"component that is text":      {components(a{"rootfs"}), ErrMalformed, "component identifier is a text"},
		"version of no numbers":       {func(p *parts) { p.manifest[6] = encode(t, a{}) }, ErrUnsupported, "version of 0 numbers"},
		"version of five numbers":     {func(p *parts) { p.manifest[6] = encode(t, a{1, 2, 3, 4, 5}) }, ErrUnsupported, "version of 5 numbers"},
		"release candidate":           {func(p *parts) { p.manifest[6] = encode(t, a{1, 2, -1, 3}) }, ErrUnsupported, "pre-release version (-1)"},
		"major number too large":      {func(p *parts) { p.manifest[6] = encode(t, a{256}) }, ErrUnsupported, "256 as number 1"},
		"minor number too large":      {func(p *parts) { p.manifest[6] = encode(t, a{1, 256}) }, ErrUnsupported, "256 as number 2"},
		"patch number too large":      {func(p *parts) { p.manifest[6] = encode(t, a{1, 1, 65536}) }, ErrUnsupported, "65536 as number 3"},
		"build number too large":      {func(p *parts) { p.manifest[6] = encode(t, a{1, 1, 1, uint64(1 << 32)}) }, ErrUnsupported, "4294967296 as number 4"},
		"version that is not wrapped": {func(p *parts) { p.manifest[6] = a{1} }, ErrMalformed, "version is an array"},
	})
}

func TestCommandsThatAreRefused(t *testing.T) {
	also := func(commands ...any) func(*parts) {
		return func(p *parts) { p.shared = append(p.shared, commands...) }
	}
	installs := func(commands ...any) func(*parts) { return func(p *parts) { p.install = append(a{}, commands...) } }
	checkRefusals(t, smallParts, map[string]refusal{
		"set parameters of old":      {also(19, m{14: 5}), ErrUnsupported, "directive-set-parameters (19)"},
		"unknown":                    {also(300, 15), ErrUnsupported, "command 300"},
		"private":                    {also(-257, 15), ErrUnsupported, "custom command -257"},
		"fetch in shared":            {also(21, 15), ErrUnsupported, "directive-fetch (21) in shared-sequence"},
		"copy":                       {installs(22, 15), ErrUnsupported, "directive-copy (22) in install"},
		"write in shared":            {also(18, 15), ErrUnsupported, "directive-write (18) in shared-sequence"},
		"image asked in shared":      {also(3, 15), ErrUnsupported, "condition-image-match (3) in shared-sequence"},
		"use before":                 {also(4, 15), ErrUnsupported, "condition-use-before (4)"},
		"wait":                       {installs(29, 15), ErrUnsupported, "directive-wait (29)"},
		"another manifest":           {also(11, 15), ErrUnsupported, "directive-process-dependency (11)"},
		"swap":                       {installs(31, 15), ErrUnsupported, "directive-swap (31) in install"},
		"invoke":                     {installs(23, 15), ErrUnsupported, "directive-invoke (23) in install"},
		"version asked in validate":  {func(p *parts) { p.validate = a{3, 15, 28, 15} }, ErrUnsupported, "condition-version (28) in validate"},
		"fetch in validate":          {func(p *parts) { p.validate = a{3, 15, 21, 15} }, ErrUnsupported, "directive-fetch (21) in validate"},
		"reporting policy":           {also(1, 16), ErrMalformed, "reporting policy 16"},
		"argument instead of policy": {also(1, []byte{1}), ErrMalformed, "reporting policy is a byte string"},
		"half a command":             {also(1), ErrMalformed, "ends within a command"},
		"empty sequence":             {installs(), ErrMalformed, "install has 0 elements"},
		"endless sequence":           {also(make(a, 2*maxCommands)...), ErrMalformed, "elements"},
		"command that is no number":  {also("1", 15), ErrMalformed, "command in shared-sequence is a text"},
		"no such component":          {also(12, 1), ErrMalformed, "component index 1 of 1"},
		"largest index":              {also(12, uint64(1<<64-1)), ErrMalformed, "component index"},
		"fetch without uri":          {installs(21, 15), ErrMalformed, "without parameter uri (21)"},
		"second fetch":               {installs(20, m{21: "#rootfs"}, 21, 15, 21, 15), ErrUnsupported, "second fetch"},
		"version not set":            {installs(28, 15), ErrMalformed, "without parameter version (28)"},
		"several without index": {func(p *parts) { p.common[2] = a{a{[]byte("rootfs")}, a{[]byte("b")}} }, ErrMalformed,
			"does not begin with an index"},
		"vendor not asked": {func(p *parts) { p.shared = a{20, p.shared[1], 2, 15} }, ErrMalformed, "condition-vendor-identifier (1) is missing"},
		"class not asked":  {func(p *parts) { p.shared = a{20, p.shared[1], 1, 15} }, ErrMalformed, "condition-class-identifier (2) is missing"},
		"image not asked": {func(p *parts) {
			p.validate, p.install = a{12, 0}, a{20, m{21: "#rootfs"}, 21, 15, 3, 15}
		}, ErrMalformed, "condition-image-match (3) of rootfs is missing in validate"},
		"nothing asked of the image": {func(p *parts) { p.validate = a{12, 0} }, ErrMalformed, "asks nothing of component rootfs"},
		"vendor asked before it is set": {func(p *parts) { p.shared = append(a{1, 15}, p.shared...) }, ErrMalformed,
			"without parameter vendor-identifier (1)"},
	})
}

// TestEveryCommandIsRefusedByItsName where the profile does not have it: in each sequence, and in an alternative that is never run.
func TestEveryCommandIsRefusedByItsName(t *testing.T) {
	names := map[int64]string{
		4: "condition-use-before", 7: "condition-dependency-integrity", 8: "condition-is-dependency", 11: "directive-process-dependency", 19: "directive-set-parameters",
		22: "directive-copy", 23: "directive-invoke", 25: "condition-image-not-match", 27: "condition-update-authorized", 29: "directive-wait", 31: "directive-swap",
		33: "directive-unlink", 34: "directive-override-multiple", 35: "directive-copy-params",
	}
	for code := range int64(40) { // and whatever else the drafts have, or will have
		switch name := commandOf(code).name; {
		case names[code] != "":
			names[code] += fmt.Sprintf(" (%d)", code)
		case name == "":
			names[code] = fmt.Sprintf("command %d", code)
		}
	}
	names[-1], names[-257], names[1<<62] = "custom command -1", "custom command -257", fmt.Sprintf("command %d", int64(1<<62))
	if len(names) < 14+12 {
		t.Fatalf("%d commands", len(names))
	}
	for code, name := range names {
		never := a{15, a{encode(t, a{12, true, 12, true}), encode(t, a{12, true, code, 15})}}
		for place, change := range map[string]func(*parts){
			"shared-sequence":                 func(p *parts) { p.shared = append(p.shared, code, 15) },
			"payload-fetch":                   func(p *parts) { p.fetch = a{code, 15} },
			"install":                         func(p *parts) { p.install = a{code, 15} },
			"validate":                        func(p *parts) { p.validate = append(p.validate, code, 15) },
			"shared-sequence, an alternative": func(p *parts) { p.shared = append(p.shared, never...) },
			"install, an alternative":         func(p *parts) { p.install = never },
			"validate, a sequence": func(p *parts) {
				p.validate = append(p.validate, 32, encode(t, a{12, true, 32, encode(t, a{code, 15})}))
			},
		} {
			t.Run(name+" in "+place, func(t *testing.T) {
				p := smallParts(t)
				change(p)
				section, _, _ := strings.Cut(place, ",")
				envelope := signRaw(t, p.encode(t))
				_, err := Open(envelope, anchors(t, edKey()), time.Time{})
				if want := name + " in " + section; !errors.Is(err, ErrUnsupported) || !strings.HasSuffix(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
				if d, err := Describe(envelope); err == nil && (!strings.Contains(d.Refused, name) || !strings.Contains(d.String(), strings.Split(name, " ")[0]+")")) {
					t.Errorf("not shown:\n%v", d)
				}
			})
		}
	}
}

func TestParametersThatAreRefused(t *testing.T) {
	set := func(key int, value any) func(*parts) { return func(p *parts) { p.parameters()[key] = value } }
	drop := func(key int) func(*parts) { return func(p *parts) { delete(p.parameters(), key) } }
	uri := func(s any) func(*parts) { return func(p *parts) { p.install = a{20, m{21: s}, 21, 15} } }
	checkRefusals(t, smallParts, map[string]refusal{
		"unknown":                     {set(99, 1), ErrUnsupported, "parameter 99"},
		"private":                     {set(-300, 1), ErrUnsupported, "parameter -300"},
		"nil device":                  {set(24, make([]byte, 16)), ErrMalformed, "is not a UUID"},
		"encrypted":                   {set(19, []byte{1}), ErrUnsupported, "encryption-info (19) in shared-sequence"},
		"use before":                  {set(4, 1), ErrUnsupported, "use-before (4) in shared-sequence"},
		"update priority":             {set(27, 1), ErrUnsupported, "update-priority (27) in shared-sequence"},
		"wait info":                   {set(29, []byte{1}), ErrUnsupported, "wait-info (29) in shared-sequence"},
		"component metadata":          {set(30, []byte{1}), ErrUnsupported, "component-metadata (30) in shared-sequence"},
		"vendor as number":            {set(1, cbor.Tag{Number: 112, Content: []byte{1}}), ErrUnsupported, "private enterprise number"},
		"nil vendor":                  {set(1, make([]byte, 16)), ErrMalformed, "is not a UUID"},
		"short class":                 {set(2, make([]byte, 15)), ErrMalformed, "is not a UUID"},
		"digest by SHA-512/256":       {set(3, encode(t, a{-17, make([]byte, 32)})), ErrUnsupported, "digest algorithm -17"},
		"short digest by SHA-512":     {set(3, encode(t, a{-44, make([]byte, 48)})), ErrMalformed, "image digest of 48 bytes, want 64"},
		"short digest":                {set(3, encode(t, a{-16, make([]byte, 31)})), ErrMalformed, "image digest of 31 bytes"},
		"digest with a parameter":     {set(3, encode(t, a{-16, make([]byte, 32), 1})), ErrMalformed, "image digest has 3 elements"},
		"digest not wrapped":          {set(3, a{-16, make([]byte, 32)}), ErrMalformed, "image digest is an array"},
		"digest and something after":  {set(3, append(digestOf(t, small().Images[0].Digest), 0)), ErrMalformed, "1 bytes after image digest"},
		"empty image":                 {set(14, 0), ErrMalformed, "image size 0"},
		"image too large for a size":  {set(14, uint64(1<<63)), ErrMalformed, "image-size (14) 9223372036854775808 is too large"},
		"no vendor":                   {drop(1), ErrMalformed, "without parameter vendor-identifier"},
		"no class":                    {drop(2), ErrMalformed, "without parameter class-identifier"},
		"no digest":                   {drop(3), ErrMalformed, "without parameter image-digest"},
		"no size":                     {drop(14), ErrMalformed, "without parameter image-size"},
		"uri that is too long":        {uri(strings.Repeat("a", 1025)), ErrUnsupported, `uri (21) "aaaa`},
		"uri that is empty":           {uri(""), ErrUnsupported, `uri (21) ""`},
		"uri that is a mark only":     {uri("#"), ErrUnsupported, `uri "#"`},
		"uri with control characters": {uri("#a\n"), ErrUnsupported, `uri (21) "#a\n"`},
		"uri that is bytes":           {uri([]byte("#a")), ErrMalformed, "uri (21) is a byte string"},
	})
	match := func(v any) func(*parts) {
		return func(p *parts) { p.install[3] = m{28: encode(t, v)} }
	}
	checkRefusals(t, fullParts, map[string]refusal{
		"comparison of none":                   {match(a{6, a{1}}), ErrUnsupported, "version comparison 6"},
		"comparison that is not set":           {match(a{0, a{1}}), ErrUnsupported, "version comparison 0"},
		"version without comparison":           {match(a{a{1}}), ErrMalformed, "version match has 1 elements"},
		"pre-release":                          {match(a{2, a{1, 2, 3, -1}}), ErrUnsupported, "pre-release version"},
		"version overflows":                    {match(a{2, a{1, 2, 65536}}), ErrUnsupported, "65536 as number 3"},
		"something after the version":          {func(p *parts) { p.install[3] = m{28: append(encode(t, a{2, a{1}}), 0)} }, ErrMalformed, "1 bytes after version match"},
		"second sequence without index":        {func(p *parts) { p.validate = a{3, 15} }, ErrMalformed, "validate of several components does not begin with an index"},
		"a component of which nothing is said": {func(p *parts) { p.install = a{12, 1} }, ErrMalformed, "asks nothing of component bootfw"},
		"version set, but not asked":           {func(p *parts) { p.install = a{12, 1, 20, m{28: encode(t, a{2, a{1}})}} }, ErrMalformed, "asks nothing of component bootfw"},
		"no image":                             {noImage, ErrMalformed, "describes no image"},
	})
}

func noImage(p *parts) {
	p.common[2] = a{a{[]byte("bootfw")}}
	p.shared = a{20, m{28: []byte{0x82, 2, 0x81, 1}}, 28, 15}
	p.validate, p.install = a{12, 0}, nil
}

// TestEncodingThatIsNotDeterministic takes the bytes of a good manifest and changes how, not what, they say.
func TestEncodingThatIsNotDeterministic(t *testing.T) {
	good := hex.EncodeToString(smallParts(t).encode(t))
	for name, c := range map[string]struct{ old, new, text string }{
		"number too long":              {"0207", "021807", "number of 1 bytes that needs 0"},
		"number much too long":         {"0207", "021b0000000000000007", "number of 8 bytes that needs 0"},
		"map of indefinite length":     {"a50101", "bf0101", "indefinite or reserved length"},
		"array of indefinite length":   {"83010203", "9f010203", "indefinite or reserved length"},
		"reserved length":              {"a50101", "bc0101", "indefinite or reserved length"},
		"keys out of order":            {"01010207", "02070101", "out of order, or there twice"},
		"key twice":                    {"01010207", "02070207", "out of order, or there twice"},
		"parameter twice":              {"0e05", "0e05" + "0e05", "out of order, or there twice"},
		"common out of order":          {commonOf(good), commonOf(good)[:2] + commonOf(good)[22:] + commonOf(good)[2:22], "shared-sequence without components"},
		"length of map too small":      {"a50101", "a40101", "bytes after manifest"},
		"length of map too large":      {"a50101", "a60101", "ends early"},
		"floating point":               {"0207", "02f94700", "a simple value, not"},
		"byte string longer than rest": {"4483010203", "5883010203", "ends early"},
		"something after the version":  {"4483010203", "458301020300", "1 bytes after version"},
		"something after the sequence": {"4382030f", "4482030f00", "1 bytes after validate"},
	} {
		t.Run(name, func(t *testing.T) {
			if n := strings.Count(good, c.old); n != 1 {
				t.Fatalf("%s is there %d times", c.old, n)
			}
			changed := strings.Replace(good, c.old, c.new, 1)
			if name == "parameter twice" {
				changed = longer(changed)
			}
			b, err := hex.DecodeString(changed)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(signRaw(t, b), anchors(t, edKey()), time.Time{})
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
}

// commonOf is the content of common in the manifest of small(), in hexadecimal: a map, its components, its shared sequence.
func commonOf(manifest string) string {
	begin := strings.Index(manifest, "035862") + 6
	return manifest[begin : begin+2*0x62]
}

// TestHeadersOfASignatureInOrder: keys of COSE headers are sorted, and none is there twice.
func TestHeadersOfASignatureInOrder(t *testing.T) {
	f, err := whole(mustCreate(t, small()))
	if err != nil {
		t.Fatal(err)
	}
	digest := encode(t, a{-16, manifestDigest(crypto.SHA256, f.manifest).Sum})
	for name, c := range map[string]struct{ protected, unprotected string }{
		"as it should be":                 {"a201270441aa", "a0"},
		"out of order":                    {"a20441aa0127", "a0"},
		"algorithm twice":                 {"a201270127", "a0"},
		"identifier twice":                {"a301270441aa0441aa", "a0"},
		"identifier twice, not protected": {"a10127", "a20441aa0441aa"},
		"more than there is":              {"a301270441aa", "a0"},
		"less than there is":              {"a101270441aa", "a0"},
		"of indefinite length":            {"bf01270441aaff", "a0"},
		"of indefinite length, the other": {"a10127", "bfff"},
		"length that is too long":         {"b80101 27", "a0"},
		"algorithm that is too long":      {"a1013807", "a0"},
		"none, as a map":                  {"a0", "a0"},
		"none":                            {"", "a0"},
		"a text as key":                   {"a201276161f6", "a0"},
	} {
		t.Run(name, func(t *testing.T) {
			protected, err := hex.DecodeString(strings.ReplaceAll(c.protected, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			unprotected, err := hex.DecodeString(c.unprotected)
			if err != nil {
				t.Fatal(err)
			}
			block := appendBytes([]byte{0xd2, 0x84}, protected)
			block = append(append(block, unprotected...), 0xf6)
			block = appendBytes(block, signMessage(t, edKey(), encode(t, a{"Signature1", protected, []byte{}, digest})))
			f.authentication = encode(t, a{digest, block})
			_, err = Open(appendEnvelope(nil, f), VerifyKeys{{KID: []byte{0xaa}, Public: edKey().Public()}}, time.Time{})
			if name == "as it should be" && err != nil || name != "as it should be" && !errors.Is(err, ErrMalformed) {
				t.Error(err)
			}
		})
	}
}

// longer corrects the lengths around the parameters of small() for two bytes more in them.
func longer(manifest string) string {
	return strings.NewReplacer("035862a2", "035864a2", "0458548614a4", "0458568614a5").Replace(manifest)
}

func TestSignaturesOfOthers(t *testing.T) {
	f, err := whole(mustCreate(t, small()))
	if err != nil {
		t.Fatal(err)
	}
	rawDigest := encode(t, a{-16, manifestDigest(crypto.SHA256, f.manifest).Sum})
	kid := anchors(t, edKey())[0].KID
	// block makes a COSE_Sign1 with these headers.
	block := func(protected, unprotected any, payload any, key crypto.Signer) []byte {
		p := encode(t, protected)
		sig := signMessage(t, key, encode(t, a{"Signature1", p, []byte{}, rawDigest}))
		return encode(t, cbor.Tag{Number: 18, Content: a{p, unprotected, payload, sig}})
	}
	none := m{}
	for name, c := range map[string]struct {
		blocks a
		want   error
		text   string
	}{
		"EdDSA, identifier not protected": {a{block(m{1: -8}, m{4: kid}, nil, edKey())}, nil, ""},
		"Ed25519":                         {a{block(m{1: -19}, none, nil, edKey())}, nil, ""},
		"ES256":                           {a{block(m{1: -7}, none, nil, ecKey(t))}, nil, ""},
		"ESP256":                          {a{block(m{1: -9}, none, nil, ecKey(t))}, nil, ""},
		"no signature":                    {a{}, ErrSignature, "not signed"},
		"ES384":                           {a{block(m{1: -35}, none, nil, signers(t)["p384"])}, nil, ""},
		"ESP384":                          {a{block(m{1: -51}, none, nil, signers(t)["p384"])}, nil, ""},
		"ES512":                           {a{block(m{1: -36}, none, nil, signers(t)["p521"])}, nil, ""},
		"ESP512":                          {a{block(m{1: -52}, none, nil, signers(t)["p521"])}, nil, ""},
		"two signatures":                  {a{block(m{1: -8}, none, nil, edKey()), block(m{1: -7}, none, nil, ecKey(t))}, nil, ""},
		"two, the first is of no use":     {a{block(m{1: -8}, none, nil, ecKey(t)), block(m{1: -7}, none, nil, ecKey(t))}, nil, ""},
		"nine signatures":                 {slices.Repeat(a{block(m{1: -8}, none, nil, edKey())}, 9), ErrMalformed, "authentication wrapper"},
		"ES256 by a key on P-384":         {a{block(m{1: -7}, none, nil, signers(t)["p384"])}, ErrSignature, ""},
		"key of another algorithm":        {a{block(m{1: -8}, none, nil, ecKey(t))}, ErrSignature, ""},
		"PS256":                           {a{block(m{1: -37}, none, nil, edKey())}, ErrUnsupported, "signature algorithm -37"},
		"no algorithm":                    {a{block(none, none, nil, edKey())}, ErrMalformed, "protected header names no algorithm"},
		"algorithm not protected":         {a{block(none, m{1: -8}, nil, edKey())}, ErrMalformed, "protected header names no algorithm"},
		"algorithm by name":               {a{block(m{1: "EdDSA"}, none, nil, edKey())}, ErrMalformed, "signature algorithm is a text"},
		"algorithm twice":                 {a{block(m{1: -8}, m{1: -8}, nil, edKey())}, ErrUnsupported, "COSE header parameter 1 in the unprotected header"},
		"identifier twice":                {a{block(m{1: -8, 4: kid}, m{4: kid}, nil, edKey())}, ErrUnsupported, "COSE header parameter 4"},
		"identifier too long":             {a{block(m{1: -8, 4: make([]byte, 65)}, none, nil, edKey())}, ErrMalformed, "key identifier of 65 bytes"},
		"identifier of another key":       {a{block(m{1: -8, 4: []byte("x")}, none, nil, edKey())}, ErrSignature, "key identifier 78"},
		"critical header":                 {a{block(m{1: -8, 2: a{99}, 99: 1}, none, nil, edKey())}, ErrUnsupported, "critical"},
		"certificate":                     {a{block(m{1: -8}, m{33: []byte{1}}, nil, edKey())}, ErrMalformed, "certificate: x509"},
		"payload not detached":            {a{block(m{1: -8}, none, rawDigest, edKey())}, ErrMalformed, "not detached"},
		"message code":                    {a{encode(t, cbor.Tag{Number: 17, Content: a{}})}, ErrUnsupported, "COSE_Mac0"},
		"several signers":                 {a{encode(t, cbor.Tag{Number: 98, Content: a{}})}, ErrUnsupported, "COSE_Sign"},
		"no tag":                          {a{encode(t, a{[]byte{}, none, nil, []byte{}})}, ErrMalformed, "signature is an array"},
		"something after the signature":   {a{append(block(m{1: -8}, none, nil, edKey()), 0)}, ErrMalformed, "1 bytes after signature"},
		"empty signature":                 {a{encode(t, cbor.Tag{Number: 18, Content: a{encode(t, m{1: -8}), none, nil, []byte{}}})}, ErrSignature, ""},
		"empty signature, ES256":          {a{encode(t, cbor.Tag{Number: 18, Content: a{encode(t, m{1: -7}), none, nil, []byte{}}})}, ErrSignature, ""},
		"signature of zeroes, ES256":      {a{encode(t, cbor.Tag{Number: 18, Content: a{encode(t, m{1: -7}), none, nil, make([]byte, 64)}})}, ErrSignature, ""},
	} {
		t.Run(name, func(t *testing.T) {
			wrapper := encode(t, append(a{rawDigest}, c.blocks...))
			_, err := Open(appendEnvelope(nil, frame{authentication: wrapper, manifest: f.manifest}), anchors(t, slices.Collect(maps.Values(signers(t)))...), time.Time{})
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}

// TestDigestIsCheckedBesideTheSignature: the signature covers the digest only.
func TestDigestIsCheckedBesideTheSignature(t *testing.T) {
	f, err := whole(mustSign(t, mustCreate(t, small()), edKey()))
	if err != nil {
		t.Fatal(err)
	}
	other, err := whole(mustCreate(t, full()))
	if err != nil {
		t.Fatal(err)
	}
	f.manifest = other.manifest
	swapped := appendEnvelope(nil, f)
	if _, err := Open(swapped, anchors(t, edKey()), time.Time{}); !errors.Is(err, ErrSignature) {
		t.Error(err)
	}
	if _, err := Describe(swapped); !errors.Is(err, ErrSignature) {
		t.Error(err)
	}
	f.authentication = encode(t, a{encode(t, a{-16, make([]byte, 32)})})
	if _, err := Sign(appendEnvelope(nil, f), edKey(), Identity{}); !errors.Is(err, ErrSignature) {
		t.Error(err)
	}
}

// TestSomethingBehindInTheWrapper: all of it is signed, and refused all the same.
func TestSomethingBehindInTheWrapper(t *testing.T) {
	f, err := whole(mustCreate(t, small()))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ digest, protected, wrapper []byte }{
		"nothing":                     {},
		"behind the digest":           {digest: []byte{0}},
		"behind the protected header": {protected: []byte{0}},
		"behind the wrapper":          {wrapper: []byte{0}},
	} {
		t.Run(name, func(t *testing.T) {
			digest := append(encode(t, a{-16, manifestDigest(crypto.SHA256, f.manifest).Sum}), c.digest...)
			protected := append(encode(t, m{1: -8}), c.protected...)
			sig := signMessage(t, edKey(), encode(t, a{"Signature1", protected, []byte{}, digest}))
			block := encode(t, cbor.Tag{Number: 18, Content: a{protected, m{}, nil, sig}})
			wrapper := append(encode(t, a{digest, block}), c.wrapper...)
			_, err = Open(appendEnvelope(nil, frame{authentication: wrapper, manifest: f.manifest}), anchors(t, edKey()), time.Time{})
			if name == "nothing" && err != nil || name != "nothing" && !errors.Is(err, ErrMalformed) {
				t.Error(err)
			}
		})
	}
}
