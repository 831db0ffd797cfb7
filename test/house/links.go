package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// links returns an error for each link of the pages that leads nowhere within the checkout. A link
// to a section has the name that GitHub gives the heading.
func links(pages []string) error {
	var errs []error
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		for _, to := range targets(string(text)) {
			path, section, _ := strings.Cut(to, "#")
			file := page
			if path != "" {
				file = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(file); err != nil {
				errs = append(errs, fmt.Errorf("%s: the link to %s leads nowhere", page, to))
				continue
			}
			if section == "" {
				continue
			}
			there, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			if !slices.Contains(sections(string(there)), section) {
				errs = append(errs, fmt.Errorf("%s: %s has no section %s", page, file, section))
			}
		}
	}
	return errors.Join(errs...)
}

// targets returns the links of a page that are not addresses of other sites.
func targets(text string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$`).FindAllStringSubmatch(text, -1) {
		if to := m[1] + m[2]; !strings.Contains(to, ":") {
			out = append(out, to)
		}
	}
	return out
}

// sections returns the anchors of a page's headings: lower case, blanks become hyphens, and other
// signs go.
func sections(text string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(name, " ", "-"))
	}
	return out
}
