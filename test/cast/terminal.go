package main

import (
	"strings"
	"time"
)

// Columns and rows of the terminal: a phone shows so many in a size that can be read.
const columns, rows = 50, 18

// line is the text of a line for a time. Lines are numbered from the first one on, also when they
// have left the screen.
type line struct {
	number   int
	text     string
	from, to time.Duration // to is 0 if it stays to the end
}

// scroll is the number of the uppermost line, from a time on.
type scroll struct {
	from time.Duration
	top  int
}

// terminal is the part of a terminal that fwu-ab makes use of: it writes, begins lines anew, and
// wraps at the edge, where a word begins. It keeps the lines that were seen, and when.
type terminal struct {
	now     time.Duration
	lines   [][]rune
	column  int
	seen    []line
	open    []int // by line: index in seen of its text, -1 if that is empty
	scrolls []scroll
}

func newTerminal() *terminal {
	return &terminal{lines: [][]rune{nil}, open: []int{-1}, scrolls: []scroll{{0, 0}}}
}

// write shows text, now.
func (t *terminal) write(text string) {
	changed := map[int]bool{}
	for _, r := range text {
		last := len(t.lines) - 1
		switch {
		case r == '\r':
			t.column = 0
			continue
		case r == '\n':
			t.feed()
			continue
		case t.column == columns:
			changed[last] = true
			t.wrap()
			last++
		}
		for len(t.lines[last]) <= t.column {
			t.lines[last] = append(t.lines[last], ' ')
		}
		t.lines[last][t.column] = r
		t.column++
		changed[last] = true
	}
	for n := range t.lines {
		if changed[n] {
			t.show(n)
		}
	}
	if top := max(0, len(t.lines)-rows); top != t.scrolls[len(t.scrolls)-1].top {
		t.scrolls = append(t.scrolls, scroll{t.now, top})
	}
}

// wrap begins a line with the word that the full one ends with: a picture is there to be read.
func (t *terminal) wrap() {
	n := len(t.lines) - 1
	text := t.lines[n]
	t.feed()
	for i := len(text) - 1; i > 0; i-- {
		if text[i] == ' ' {
			t.lines[n], t.lines[n+1] = text[:i], append([]rune(nil), text[i+1:]...)
			break
		}
	}
	t.column = len(t.lines[n+1])
}

func (t *terminal) feed() {
	t.lines, t.open, t.column = append(t.lines, nil), append(t.open, -1), 0
}

// show notes the text that a line shows now.
func (t *terminal) show(n int) {
	text := strings.TrimRight(string(t.lines[n]), " ")
	if i := t.open[n]; i >= 0 {
		switch {
		case t.seen[i].text == text:
			return
		case t.seen[i].from == t.now: // nobody saw it
			t.seen[i].text = text
			return
		}
		t.seen[i].to = t.now
	}
	t.open[n] = -1
	if text != "" {
		t.open[n] = len(t.seen)
		t.seen = append(t.seen, line{number: n, text: text, from: t.now})
	}
}
