package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/update"
)

// textsFile has every text of an error that a user can meet, with the package that makes it.
const textsFile = "testdata/texts.txt"

// TestEveryTextWasRead: whoever writes a text of an error, or changes one, asks of it: is it true
// in every case in which it is said, and does the reader know the next step now, from the text, or
// from the hint of its reason or cause (hint.go)? Then the text goes to testdata/texts.txt, which
// FWUAB_WRITE=1 writes, and is looked at again with the change.
func TestEveryTextWasRead(t *testing.T) {
	found := map[string]bool{}
	for _, dir := range packagesOfTheProgram(t) {
		collectTexts(t, dir, found)
	}
	if len(found) < 500 {
		t.Fatalf("%d texts: the collector does not see them", len(found))
	}
	all := strings.Join(slices.Sorted(maps.Keys(found)), "\n") + "\n"
	if os.Getenv("FWUAB_WRITE") != "" {
		if err := os.WriteFile(textsFile, []byte(all), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(textsFile)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		known[strings.TrimSuffix(line, "\n")] = true
	}
	for text := range found {
		if !known[text] {
			t.Errorf("not read yet: %s", text)
		}
	}
	for text := range known {
		if !found[text] {
			t.Errorf("nobody says this any more: %s", text)
		}
	}
}

// packagesOfTheProgram are the folders of our packages that the program is made of.
func packagesOfTheProgram(t *testing.T) []string {
	t.Helper()
	const module = "github.com/fwu-ab/fwu-ab/"
	out, err := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, path := range strings.Fields(string(out)) {
		if rest, ours := strings.CutPrefix(path, module); ours {
			dirs = append(dirs, rest)
		}
	}
	return dirs
}

// collectTexts adds the texts of the errors that a package makes: the formats and texts that are
// given to functions which make errors, and those of composite literals of errors.
func collectTexts(t *testing.T, dir string, found map[string]bool) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		add := func(e ast.Expr, among []ast.Expr) {
			if text := textOf(e); strings.ContainsAny(text, "abcdefghijklmnopqrstuvwxyz") {
				found[strings.TrimSuffix(fmt.Sprintf("%s\t%s\t%s", dir, text, reasonAmong(among)), "\t")] = true
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if makers()[nameOf(n.Fun)] {
					for _, a := range n.Args {
						add(a, n.Args)
					}
				}
			case *ast.CompositeLit:
				values := map[string]ast.Expr{}
				for _, e := range n.Elts {
					if kv, ok := e.(*ast.KeyValueExpr); ok {
						values[nameOf(kv.Key)] = kv.Value
					}
				}
				for _, key := range []string{"Text", "text", "why"} {
					add(values[key], slices.Collect(maps.Values(values)))
				}
			}
			return true
		})
	}
}

// reasonAmong is the reason that goes with a text, empty if there is none.
func reasonAmong(all []ast.Expr) string {
	for _, e := range all {
		if name := nameOf(e); strings.HasPrefix(name, "Reason") && name != "Reason" && !strings.HasSuffix(name, "Of") {
			return name
		}
	}
	return ""
}

// TestEveryReasonHasANextStep: the hint of a reason says the step, or the reason stands here with
// why it needs none.
func TestEveryReasonHasANextStep(t *testing.T) {
	without := map[fwu.Reason]string{
		fwu.ReasonOffset: "the text has the offset that is right", fwu.ReasonSize: "the text has the limit", fwu.ReasonRejection: "the text has the limit",
		fwu.ReasonRepair: "the text says which repair is", fwu.ReasonSlotReadOnly: "the text has the step, which depends on the device",
		update.ReasonKind:        "the text says what to do with that kind",
		fwu.ReasonRecordTooLarge: "a limit of the format, which no configuration that is taken reaches",
		fwu.ReasonRejected:       "of a state: clean is the next step, and status says so", fwu.ReasonTrialNotBooted: "as before", fwu.ReasonTrialReset: "as before",
		fwu.ReasonTrialCheck: "as before", fwu.ReasonTrialDeadline: "as before",
	}
	seen := 0
	for _, dir := range []string{"fwu", "dbus", "update"} {
		for _, r := range reasonsOf(t, dir) {
			seen++
			if h, why := reasonHint(r), without[r]; (h == "") == (why == "") {
				t.Errorf("%s: hint %q, and it needs none: %q", r, h, why)
			}
		}
	}
	if seen < 50 {
		t.Errorf("%d reasons", seen)
	}
}

// reasonsOf are the values of the constants of a package whose names begin with Reason.
func reasonsOf(t *testing.T, dir string) (all []fwu.Reason) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Reason") && len(v.Values) == 1 {
				if text := textOf(v.Values[0]); text != "" {
					all = append(all, fwu.Reason(text))
				}
			}
			return true
		})
	}
	return all
}

// makers are the functions that make errors and the texts in them.
func makers() map[string]bool {
	m := map[string]bool{}
	for _, name := range []string{"errors.New", "fmt.Errorf", "fmt.Sprintf", "constError", "refuse", "invalid", "malformed", "unsupported", "ended", "needs", "refusal", "fail", "lacks",
		"hinted", "usageError", "bad", "problem", "warn", "Warn", "failed"} {
		m[name] = true
	}
	return m
}

// nameOf is the name of a function as it is called: with its package, or without its receiver.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if p, ok := e.X.(*ast.Ident); ok && (p.Name == "errors" || p.Name == "fmt") {
			return p.Name + "." + e.Sel.Name
		}
		return e.Sel.Name
	}
	return ""
}

// textOf is a text that stands in the source, also one that is put together of several; empty if it
// is none. A part that is not in the source is %v.
func textOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			if s, err := strconv.Unquote(e.Value); err == nil {
				return strings.ReplaceAll(s, "\n", "\\n")
			}
		}
	case *ast.BinaryExpr:
		if l, r := textOf(e.X), textOf(e.Y); e.Op == token.ADD && l+r != "" {
			if l == "" {
				l = "%v"
			}
			if r == "" {
				r = "%v"
			}
			return l + r
		}
	}
	return ""
}
