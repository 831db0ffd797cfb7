package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
)

// plainValue is the node as the library's decoder would have it.
func plainValue(n *node) any {
	switch {
	case n.table != nil:
		m := map[string]any{}
		for k, v := range n.table {
			m[k] = plainValue(v)
		}
		return m
	case n.array != nil:
		a := []any{}
		for _, v := range n.array {
			a = append(a, plainValue(v))
		}
		return a
	}
	return n.value
}

// withoutOthers replaces scalars of other kinds.
func withoutOthers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = withoutOthers(e)
		}
	case []any:
		for i, e := range v {
			v[i] = withoutOthers(e)
		}
	case string, bool, int64:
	default:
		return otherKind("")
	}
	return v
}

// FuzzParse holds the tree with its positions against the library's own decoder.
func FuzzParse(f *testing.F) {
	f.Add(readExample(f))
	f.Add("a.b = 1\n[[c]]\nd = [1, {e = 0x_f}, 'x']\n[c.f]\ng = 1.5\n[[c]]\n\"h i\".j = 1979-05-27\n")
	f.Add("[a]\r\nb = \"\"\"\r\nx\\\r\n y\"\"\" # c\r\n[a.c]\r\n")
	f.Add("x = [ # one\n # two\n 1, # three\n]\ny = {}\nz = []\n")
	f.Add(strings.Repeat("[", 2000))
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parse("f", []byte(text))
		var want map[string]any
		if toml.Unmarshal([]byte(text), &want) != nil {
			if err == nil {
				t.Fatal("taken, but it is no TOML")
			}
			return
		}
		if err != nil {
			if !strings.Contains(err.Error(), "key of more than") {
				t.Fatal(err)
			}
			return
		}
		if want == nil {
			want = map[string]any{}
		}
		if diff := cmp.Diff(withoutOthers(want), withoutOthers(plainValue(n))); diff != "" {
			t.Error("-library +ours:\n" + diff)
		}
		checkPositions(t, n, strings.Split(text, "\n"))
	})
}

// checkPositions looks whether each key stands where it is said to.
func checkPositions(t *testing.T, n *node, lines []string) {
	for _, e := range n.array {
		checkPositions(t, e, lines)
	}
	for key, e := range n.table {
		at := e.key
		if at.Line < 1 || at.Line > len(lines) || at.Column < 1 || at.Column > len(lines[at.Line-1]) {
			t.Fatalf("%q is said to be at %v", key, at)
		}
		there := lines[at.Line-1][at.Column-1:]
		if !strings.HasPrefix(there, key) && there[0] != '"' && there[0] != '\'' {
			t.Errorf("%q is said to be at %v, where %q stands", key, at, there)
		}
		checkPositions(t, e, lines)
	}
}

// FuzzLoad looks for panics, and holds each configuration that is taken against its own report.
func FuzzLoad(f *testing.F) {
	f.Add(readExample(f), "")
	f.Add(smallest, "[component.radio]\nid = 4\n")
	f.Add(bank, "selector.uboot.env-config = ''\nselector.uboot.copies = [{device = '/x', offset = -4, size = 16}, {device = '/y', size = 16}]\n")
	f.Add(bank, "selector = {type = 'efi', efi = {path = '\\EFI\\x.efi', command-line = 'fwu.bank={bank} root=PARTUUID={partuuid:rootfs}'}}\n")
	f.Add(bank, "selector = {type = 'efi', efi = {component = 'x', path = '/a', command-line = '{x} {', efivars = '/b'}}\n")
	f.Fuzz(func(t *testing.T, base, over string) {
		c, err := load([]source{{"base", []byte(base)}, {"over", []byte(over)}})
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a text")
			}
			return
		}
		again, err := load([]source{{"report", []byte(c.Report.String())}})
		if err != nil {
			t.Fatalf("the report cannot be loaded: %v\n%s", err, c.Report)
		}
		c.Report, again.Report = Report{}, Report{}
		if diff := cmp.Diff(c, again, namesOfIdentity()); diff != "" {
			t.Error("-files +report:\n" + diff)
		}
	})
}

func FuzzRelease(f *testing.F) {
	f.Add("[rootfs]\nversion = \"1.2.0\"\nsequence = 7\n")
	f.Fuzz(func(t *testing.T, text string) {
		record, err := parseRelease("f", []byte(text))
		if (record == nil) == (err == nil) {
			t.Errorf("record %v, error %v", record, err)
		}
	})
}
