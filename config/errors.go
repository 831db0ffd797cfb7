package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Pos is a place in a file. Line and column count from 1, the column in bytes; 0 where only the file is known.
type Pos struct {
	File   string
	Line   int
	Column int
}

// String returns file:line:column, as far as it is known.
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Error is one mistake in a file.
type Error struct {
	Pos  Pos
	Text string
}

func (e *Error) Error() string { return e.Pos.String() + ": " + e.Text }

// maxErrors is how many mistakes are reported: who has more has the wrong file.
const maxErrors = 20

// joinErrors returns the mistakes in the order of files and lines, nil if there are none.
func joinErrors(files []string, errs []*Error) error {
	if len(errs) == 0 {
		return nil
	}
	// sort.SliceStable is one function for all types. slices.SortStableFunc has 9 kB for this one.
	sort.SliceStable(errs, func(i, j int) bool {
		a, b := errs[i], errs[j]
		return cmp.Or(
			cmp.Compare(slices.Index(files, a.Pos.File), slices.Index(files, b.Pos.File)),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column),
		) < 0
	})
	errs = slices.CompactFunc(errs, func(a, b *Error) bool { return *a == *b }) // of what all components inherit
	var list []error
	for i, e := range errs {
		if i == maxErrors {
			list = append(list, fmt.Errorf("and %d more mistakes", len(errs)-maxErrors))
			break
		}
		list = append(list, e)
	}
	return errors.Join(list...)
}

// hint says what was probably meant by word: the nearest of known, or all of them.
func hint(word string, known []string) string {
	if len(known) == 0 {
		return ""
	}
	best, distance := "", max(2, len(word)/3)+1
	for _, k := range known {
		if d := editDistance(plain(word), plain(k)); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; known here: " + strings.Join(slices.Compact(slices.Sorted(slices.Values(known))), ", ")
}

func plain(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }

// editDistance is the number of bytes to insert, delete or replace to make a into b. Words that are far too long are far away.
func editDistance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// quoteList writes words for a message: "a", "b" or "c".
func quoteList(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	if n := len(quoted); n > 1 {
		return strings.Join(quoted[:n-1], ", ") + " or " + quoted[n-1]
	}
	return strings.Join(quoted, "")
}
