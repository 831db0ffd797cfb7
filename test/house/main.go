// Command house measures the rules of CONTRIBUTING.md that a program can measure. make check runs
// it.
//
//	house          checks the Go release, the links of all pages, and the files that
//	               test/house/converted.txt names
//	house -write   adds the files to that list that keep the rules now
//
// The list only grows: a file that is on it and breaks a rule makes the check fail.
package main

import (
	"errors"
	"flag"
	"fmt"
	"go/version"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// fixed is the first Go release without CVE-2026-27138 and two more holes in crypto/x509, which
// verifies the certificates of manifests.
const fixed = "go1.26.4"

const list = "test/house/converted.txt"

func main() {
	write := flag.Bool("write", false, "add the files that keep the rules now to "+list)
	flag.Parse()
	if err := run(*write); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(write bool) error {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		return err
	}
	names, err := converted()
	if err != nil {
		return err
	}
	if write {
		return add(names)
	}
	pages, err := tracked("*.md")
	if err != nil {
		return err
	}
	errs := []error{release(string(mod), runtime.Version()), links(pages)}
	for _, name := range names {
		faults, err := measure(name)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s names %s, which does not exist: remove the line", list, name)
		}
		errs = append(errs, err)
		for _, f := range faults {
			errs = append(errs, errors.New(f))
		}
	}
	return errors.Join(errs...)
}

// release refuses a Go release with known holes, in go.mod or as the one that runs.
func release(mod, running string) error {
	m := regexp.MustCompile(`(?m)^toolchain (\S+)$`).FindStringSubmatch(mod)
	if m == nil {
		return fmt.Errorf("go.mod has no toolchain line; it must name %s or later", fixed)
	}
	if version.Compare(m[1], fixed) < 0 {
		return fmt.Errorf("go.mod names %s, which has known holes in crypto/x509; it must name %s or later", m[1], fixed)
	}
	running, _, _ = strings.Cut(running, " ") // experiments follow
	if version.Compare(running, m[1]) < 0 {
		return fmt.Errorf("this is %s; go.mod asks for %s, without known holes: unset GOTOOLCHAIN, or update Go", running, m[1])
	}
	return nil
}

func converted() ([]string, error) {
	text, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(text)), nil
}

// tracked returns the files of the checkout that exist and match one of the patterns.
func tracked(patterns ...string) ([]string, error) {
	out, err := exec.Command("git", append([]string{"ls-files", "--"}, patterns...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	var names []string
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSuffix(name, "\n")
		if strings.Contains(name, "testdata/") {
			continue
		}
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			continue // removed, not committed yet
		}
		names = append(names, name)
	}
	return names, nil
}

func add(names []string) error {
	files, err := tracked("*.go", "*.md")
	if err != nil {
		return err
	}
	for _, name := range files {
		faults, err := measure(name)
		if err != nil {
			return err
		}
		if len(faults) == 0 {
			names = append(names, filepath.ToSlash(name))
		}
	}
	slices.Sort(names)
	return os.WriteFile(list, []byte(strings.Join(slices.Compact(names), "\n")+"\n"), 0o644)
}
