package uboot

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnvSet(t *testing.T) {
	for name, tt := range map[string]struct {
		env         string
		name, value string
		want        []string
	}{
		"new one goes to the end":              {"b=1\x00a=2\x00\x00", "c", "x=y", []string{"b=1", "a=2", "c=x=y"}},
		"known one stays in its place":         {"b=1\x00a=2\x00c=3\x00\x00", "a", "4", []string{"b=1", "a=4", "c=3"}},
		"one that occurs twice":                {"b=1\x00a=2\x00b=3\x00\x00", "b", "4", []string{"b=4", "a=2"}},
		"deleted":                              {"b=1\x00a=2\x00b=3\x00\x00", "b", "", []string{"a=2"}},
		"deleted where it is not":              {"b=1\x00\x00", "a", "", []string{"b=1"}},
		"begins like another":                  {"ab=1\x00a=2\x00\x00", "a", "3", []string{"ab=1", "a=3"}},
		"entries that U-Boot ignores are kept": {"#a=1\x00junk\x00 a=2\x00\x00", "a", "3", []string{"#a=1", "junk", "a=3"}},
		"what follows the end is dropped":      {"a=1\x00\x00z=9\x00\x00", "b", "2", []string{"a=1", "b=2"}},
		"no end at all":                        {"a=1\x00b=2", "c", "3", []string{"a=1", "b=2", "c=3"}},
		"empty environment":                    {"", "c", "3", []string{"c=3"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := ParseEnv([]byte(tt.env))
			if err := e.Set(tt.name, tt.value); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, e.Entries()); diff != "" {
				t.Error(diff)
			}
			if got, ok := e.Get(tt.name); got != tt.value || ok != (tt.value != "") {
				t.Errorf("get: %q, %v", got, ok)
			}
		})
	}
}

func TestEnvRefusesWhatWouldSpoilIt(t *testing.T) {
	for _, name := range []string{"", "a=b", "#a", " a", "a\x00b", "a\nb"} {
		if err := ParseEnv(nil).Set(name, "x"); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
	if err := ParseEnv(nil).Set("a", "b\x00c=d"); err == nil {
		t.Error("a value with NUL was taken")
	}
}

func TestEnvFitsExactly(t *testing.T) {
	e := ParseEnv([]byte("a=1\x00b=2\x00\x00")) // 9 bytes with the end
	if data, err := e.Data(9); err != nil || string(data) != "a=1\x00b=2\x00\x00" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := e.Data(8); err == nil {
		t.Error("9 bytes fit into 8")
	}
}

func TestParseDefault(t *testing.T) {
	const boot = "bootcmd=run x\n"
	for name, tt := range map[string]struct {
		text string
		want []string // nil: refused
	}{
		"lines, comments, empty lines": {"# comment\n\na=1\n" + boot + "\n#x=2\n", []string{"a=1", "bootcmd=run x"}},
		"value with = and #":           {boot + "a=b=c#d\n", []string{"bootcmd=run x", "a=b=c#d"}},
		"last line without an end":     {"a=1\nbootcmd=x", []string{"a=1", "bootcmd=x"}},
		"line break in a value":        {boot + "a=1 \\\n  2\\\n3\nb=4\n", []string{"bootcmd=run x", "a=1 \n  2\n3", "b=4"}},
		"separated by NUL":             {"a=1\n2\x00bootcmd=x\x00\x00\xff\xff", []string{"a=1\n2", "bootcmd=x"}},
		"without bootcmd":              {"fwu_active=a\n", nil},
		"bootcmd is empty":             {"bootcmd=\n", nil},
		"line without =":               {boot + "junk\n", nil},
		"line without a name":          {boot + "=x\n", nil},
		"indented comment":             {boot + " # a=b\n", nil},
		"line ends of DOS":             {"bootcmd=x\r\n", nil},
		"empty":                        {"", nil},
		"too long":                     {boot + strings.Repeat("a=1\n", MaxSize/4), nil},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := ParseDefault([]byte(tt.text))
			if (err != nil) != (tt.want == nil) {
				t.Fatal(err)
			}
			if err == nil {
				if diff := cmp.Diff(tt.want, e.Entries()); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func FuzzEnv(f *testing.F) {
	f.Add([]byte("a=1\x00b=2\x00\x00"), "b", "3")
	f.Add([]byte("a=1\x00 #b=2\x00a\x00=\x00"), "a", "")
	f.Fuzz(func(t *testing.T, data []byte, name, value string) {
		e := ParseEnv(data)
		out, err := e.Data(len(data) + 2)
		if err != nil {
			t.Fatal("an environment grew:", err)
		}
		if !ParseEnv(out).Equal(e) || !bytes.HasPrefix(append(data, 0, 0), bytes.TrimRight(out, "\x00")) {
			t.Errorf("%q became %q", data, out)
		}
		others := e.Entries()
		if e.Set(name, value) != nil {
			return
		}
		if got, ok := e.Get(name); got != value || ok != (value != "") {
			t.Errorf("set %q=%q, got %q, %v", name, value, got, ok)
		}
		for _, entry := range others {
			if n, _, _ := strings.Cut(strings.TrimLeft(entry, " \t"), "="); n != name && !strings.Contains("\x00"+strings.Join(e.Entries(), "\x00")+"\x00", "\x00"+entry+"\x00") {
				t.Errorf("setting %q lost %q", name, entry)
			}
		}
	})
}

func FuzzDefault(f *testing.F) {
	f.Add([]byte("bootcmd=x\na=1\\\n2\n"))
	f.Add([]byte("bootcmd=x\x00a=1\x00\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := ParseDefault(text)
		if err != nil {
			return
		}
		if data, err := e.Data(len(text) + 2); err != nil || !ParseEnv(data).Equal(e) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
