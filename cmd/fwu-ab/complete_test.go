package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestEveryPlaceHasACompletion: also if it is nothing. What is new must be thought of.
func TestEveryPlaceHasACompletion(t *testing.T) {
	g := &globals{}
	arguments, flags := g.arguments(), g.flags()
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		_, use, _ := strings.Cut(c.Use, " ")
		for _, name := range strings.Fields(use) {
			if arguments[name] == nil {
				t.Errorf("%s: argument %s", c.CommandPath(), name)
			}
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() != "bool" && flags[f.Name] == nil {
				t.Errorf("%s: flag --%s", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(g))
}

// bashCompletes types a line and the tabulator into a bash with a terminal, and returns the arguments of the command that it became.
const bashCompletes = `cat > rc <<'END'
PS1='$ '
. /usr/share/bash-completion/bash_completion
. ./completion
fwu-ab() {
	case $1 in __complete*) command fwu-ab "$@" ;; *) printf '<%s>' "$@" > said; exit ;; esac
}
END
printf 'set enable-bracketed-paste off\nset bell-style none\n' > inputrc
fwu-ab completion bash > completion
printf 'fwu-ab %s\t\n' "$LINE" | INPUTRC=$PWD/inputrc TERM=dumb timeout 60 script -qec 'bash --noprofile --rcfile rc -i' /dev/null > screen || :
cat said`

func TestBashCompletes(t *testing.T) {
	needTools(t, "bash", "script", "timeout")
	if _, err := os.Stat("/usr/share/bash-completion/bash_completion"); err != nil {
		if os.Getenv("FWUAB_TEST_ALL") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"release.suit": "", "root/usr/lib/fwu-ab/fwu-ab.toml": `[store]
device = "/store"
[component.radio]
id = 3
kind = "live"
manifest = "none"
slots = {a = "/a", b = "/b"}
`} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{T: t, dir: dir, env: []string{"FWU_AB_BUS=unix:path=" + filepath.Join(dir, "no-bus")}}
	for name, c := range map[string]struct{ line, said string }{
		"a command":                      {"fini", "<finish>"},
		"a command below a command":      {"manifest ver", "<manifest><verify>"},
		"a flag":                         {"update --reb", "<update><--reboot>"},
		"a word of a flag":               {"key generate --type ed", "<key><generate><--type><ed25519>"},
		"a file":                         {"update rel", "<update><release.suit>"},
		"a file of a flag":               {"start radio --manifest rel", "<start><radio><--manifest><release.suit>"},
		"no file where none belongs":     {"status rel", "<status><rel>"},
		"a component, without a service": {"--root root clean ", "<--root><root><clean><radio>"},
		"no component without a service and a configuration": {"--root none clean ra", "<--root><none><clean><ra>"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bench{T: t, dir: b.dir, env: append([]string{"LINE=" + c.line}, b.env...)}
			if said := b.sh("rm -f said; " + bashCompletes); said != c.said {
				t.Errorf("got %s, want %s", said, c.said)
			}
		})
	}
}

// TestNamesComeFromTheService when it runs; nothing is said when it does not.
func TestNamesComeFromTheService(t *testing.T) {
	g := &globals{root: t.TempDir(), bus: "unix:path=/nowhere"}
	if names := g.componentNames(context.Background()); names != nil {
		t.Errorf("names %v of nowhere", names)
	}
}
