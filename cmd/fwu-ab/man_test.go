package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/man"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func manPages(t *testing.T) map[string][]byte {
	t.Helper()
	pages, err := man.Pages(newRootCommand(&globals{}), man.Edition{Date: "2026-01-31", Version: "1.2.3-4"})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// TestManualPages has two formatters look at the pages: one warns of what it does not understand, the other of what is unusual.
func TestManualPages(t *testing.T) {
	dir, pages := t.TempDir(), manPages(t)
	for name, text := range pages {
		t.Run(name, func(t *testing.T) {
			if page, ok := strings.CutPrefix(string(text), ".so "); ok {
				if pages[strings.TrimSpace(page)] == nil {
					t.Errorf("%s leads nowhere", text)
				}
				return
			}
			path := filepath.Join(dir, filepath.Base(name))
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
			needTools(t, "man", "groff", "mandoc")
			for _, tool := range [][]string{{"man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path}, {"groff", "-t", "-man", "-Tutf8", "-wall", "-ww", "-z", path}, {"mandoc", "-T", "lint", path}} {
				cmd := exec.Command(tool[0], tool[1:]...)
				cmd.Env = append(os.Environ(), "MANROFFSEQ=", "LC_ALL=C.UTF-8")
				var said strings.Builder
				if cmd.Stderr = &said; tool[0] == "mandoc" {
					cmd.Stdout = &said
				}
				if err := cmd.Run(); err != nil || said.Len() > 0 {
					t.Errorf("%s: %v\n%s", tool[0], err, &said)
				}
			}
		})
	}
}

func TestManualPagesAreTheSameEachTime(t *testing.T) {
	t.Setenv("FWU_AB_BUS", "unix:path=/somewhere")
	first := manPages(t)
	t.Setenv("FWU_AB_BUS", "")
	for name, text := range manPages(t) {
		if string(first[name]) != string(text) {
			t.Errorf("%s differs", name)
		}
	}
}

// TestTheManualHasEveryCommand: and each flag of it.
func TestTheManualHasEveryCommand(t *testing.T) {
	page := strings.ReplaceAll(string(manPages(t)["man1/fwu-ab.1"]), `\-`, "-")
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			name := strings.TrimPrefix(sub.CommandPath(), "fwu-ab ")
			_, after, found := strings.Cut(page, "\n.TP\n\\fB"+name+`\fR`)
			if !found {
				t.Errorf("%s is not in it", name)
			}
			sub.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
				if !strings.Contains(after, `\fB--`+f.Name+`\fR`) {
					t.Errorf("%s --%s is not in it", name, f.Name)
				}
			})
			walk(sub)
		}
	}
	walk(newRootCommand(&globals{}))
	for _, s := range []string{"\\fB--bus\\fR", ".SH EXIT STATUS\n.TP\n.B 0\ndone\n", "terminated (SIGTERM)\n.SH"} {
		if !strings.Contains(page, s) {
			t.Errorf("%q is not in it", s)
		}
	}
}
