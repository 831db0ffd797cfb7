// Command sbom writes the bill of materials of a program or a shared library, as CycloneDX 1.6 in
// JSON. It says only the things that the file itself has: of a Go program the modules and the
// release of Go, whose standard library is in it, as the linker recorded them (go version -m); of
// any ELF file the shared libraries that it loads. The same file, version and time give the same
// bytes.
//
//	sbom -name fwu-ab -version 1.2.3 FILE > fwu-ab.cdx.json
//
// The time is that of SOURCE_DATE_EPOCH, in seconds since 1970.
package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

func main() {
	name := flag.String("name", "fwu-ab", "name of the product")
	version := flag.String("version", "", "its version")
	flag.Parse()
	if err := run(*name, *version, flag.Args(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(name, version string, args []string, w io.Writer) error {
	if len(args) != 1 || version == "" {
		return errors.New("want -version and one file")
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	b, err := bill(args[0], name, version, time.Unix(seconds, 0))
	if err != nil {
		return err
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // "&" in package URLs
	e.SetIndent("", "  ")
	return e.Encode(b)
}

// document is the part of CycloneDX 1.6 that is written.
type document struct {
	BOMFormat    string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	SerialNumber string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Ref        string     `json:"bom-ref"`
	Type       string     `json:"type"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	Scope      string     `json:"scope,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Licenses   []license  `json:"licenses,omitempty"`
	PURL       string     `json:"purl,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type license struct {
	License struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// bill makes the bill of materials of a file.
func bill(path, name, version string, at time.Time) (document, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return document{}, err
	}
	sum := sha256.Sum256(data)
	product := component{Ref: name, Type: "application", Name: name, Version: version, PURL: purl("generic", name, version),
		Hashes: []hash{{"SHA-256", fmt.Sprintf("%x", sum)}}, Licenses: make([]license, 1)}
	product.Licenses[0].License.ID = "Apache-2.0"
	goInfo, err := buildinfo.ReadFile(path)
	var parts []component
	if err == nil {
		parts = goModules(goInfo)
		for _, s := range goInfo.Settings {
			if slices.Contains([]string{"GOOS", "GOARCH", "CGO_ENABLED", "-tags"}, s.Key) {
				product.Properties = append(product.Properties, property{"fwu-ab:build:" + s.Key, s.Value})
			}
		}
	} else {
		product.Type = "library"
	}
	shared, err := sharedLibraries(path)
	if err != nil {
		return document{}, fmt.Errorf("%s: %w", path, err)
	}
	parts = append(parts, shared...)
	slices.SortFunc(parts, func(a, b component) int { return cmp.Compare(a.Ref, b.Ref) })
	d := document{BOMFormat: "CycloneDX", SpecVersion: "1.6", Version: 1, Components: parts,
		SerialNumber: "urn:uuid:" + uuid.NewSHA1(uuid.NameSpaceOID, slices.Concat(sum[:], []byte(name+"\x00"+version))).String(),
		Metadata:     metadata{Timestamp: at.UTC().Format(time.RFC3339), Component: product}}
	needs := dependency{Ref: product.Ref}
	for _, c := range parts {
		needs.DependsOn = append(needs.DependsOn, c.Ref)
		d.Dependencies = append(d.Dependencies, dependency{Ref: c.Ref})
	}
	d.Dependencies = append([]dependency{needs}, d.Dependencies...)
	return d, nil
}

// goModules are the standard library and the modules of a Go program.
func goModules(info *debug.BuildInfo) []component {
	release, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	parts := []component{goModule(&debug.Module{Path: "std", Version: release})}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		parts = append(parts, goModule(m))
	}
	return parts
}

func goModule(m *debug.Module) component {
	c := component{Type: "library", Name: m.Path, Version: m.Version, Scope: "required", PURL: purl("golang", m.Path, m.Version)}
	c.Ref = c.PURL
	if m.Sum != "" { // of a tree of files, and so none of the hashes that CycloneDX knows
		c.Properties = []property{{"fwu-ab:go-module-sum", m.Sum}}
	}
	return c
}

// sharedLibraries are the libraries that an ELF file loads. Which version it finds is decided on
// the device.
func sharedLibraries(path string) ([]component, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	var parts []component
	for _, n := range names {
		parts = append(parts, component{Ref: "shared:" + n, Type: "library", Name: n, Scope: "required",
			Properties: []property{{"fwu-ab:linked", "dynamically: the system provides it"}}})
	}
	return parts, nil
}

// purl is a package URL (https://github.com/package-url/purl-spec).
func purl(kind, name, version string) string {
	escape := strings.NewReplacer("%", "%25", "@", "%40", "?", "%3F", "#", "%23", "+", "%2B", "~", "%7E", " ", "%20")
	return "pkg:" + kind + "/" + escape.Replace(name) + "@" + escape.Replace(version)
}
