package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"
)

const (
	goColumns       = 100
	markdownColumns = 120
	// One line of prose in so many may have the word "what". As a noun it hides the name of a
	// thing.
	whatEvery = 50
)

// line is a line of prose: its number, its width in the file, and its words.
type line struct {
	number, width int
	text          string
}

// measure returns the faults of a Go or a Markdown file.
func measure(name string) ([]string, error) {
	source, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".md") {
		return faults(name, markdown(string(source)), markdownColumns), nil
	}
	lines, err := comments(name, source)
	return faults(name, lines, goColumns), err
}

func faults(name string, lines []line, columns int) []string {
	var out []string
	whats := 0
	what := regexp.MustCompile(`(?i)\bwhat\b`)
	for _, l := range lines {
		if l.width > columns {
			out = append(out, fmt.Sprintf("%s:%d: the line has %d columns, the limit is %d", name, l.number, l.width, columns))
		}
		if what.MatchString(l.text) {
			whats++
		}
	}
	if limit := len(lines) / whatEvery; whats > limit {
		out = append(out, fmt.Sprintf("%s: %d of %d lines of prose have the word \"what\", the limit is %d: name the thing", name, whats, len(lines), limit))
	}
	return out
}

// width counts a tab as four columns.
func width(s string) int { return utf8.RuneCountInString(s) + 3*strings.Count(s, "\t") }

// comments returns the lines of the comments of a Go file. A comment without a space, such as an
// address or a directive, cannot be broken and does not count.
func comments(name string, source []byte) ([]line, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, source, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	whole := strings.Split(string(source), "\n")
	var out []line
	for _, group := range file.Comments {
		for _, c := range group.List {
			first := fset.Position(c.Pos()).Line
			for i, text := range strings.Split(c.Text, "\n") {
				words := strings.TrimSpace(strings.TrimPrefix(text, "//"))
				if words == "" || !strings.Contains(words, " ") {
					continue
				}
				out = append(out, line{first + i, width(whole[first+i-1]), words})
			}
		}
	}
	return out, nil
}

// markdown returns the lines of prose of a page: no code blocks, no tables, no addresses.
func markdown(source string) []line {
	var out []line
	fenced := false
	n := 0
	for text := range strings.Lines(source) {
		n++
		text = strings.TrimSuffix(text, "\n")
		words := strings.TrimSpace(text)
		switch {
		case strings.HasPrefix(words, "```"):
			fenced = !fenced
		case fenced, words == "", strings.HasPrefix(text, "    "), strings.HasPrefix(words, "|"), !strings.Contains(words, " "):
		default:
			out = append(out, line{n, width(text), words})
		}
	}
	return out
}
