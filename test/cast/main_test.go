package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTerminal(t *testing.T) {
	term := newTerminal()
	at := func(ms int, text string) {
		term.now = time.Duration(ms) * time.Millisecond
		term.write(text)
	}
	at(0, "begin\n")
	at(100, "10 %")
	at(200, "\r20 %")
	at(200, "\r30 %")
	at(300, "\r    \rdone\n")
	at(400, strings.Repeat("x", columns-3)+" word\n")
	ms := time.Millisecond
	want := []line{
		{0, "begin", 0, 0}, {1, "10 %", 100 * ms, 200 * ms}, {1, "30 %", 200 * ms, 300 * ms}, {1, "done", 300 * ms, 0},
		{2, strings.Repeat("x", columns-3), 400 * ms, 0}, {3, "word", 400 * ms, 0},
	}
	if diff := cmp.Diff(want, term.seen, cmp.AllowUnexported(line{})); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
	at(500, strings.Repeat("\n", rows))
	if last := term.scrolls[len(term.scrolls)-1]; last != (scroll{500 * ms, 5}) {
		t.Errorf("scrolled: %+v", last)
	}
}

// TestPictureInTheREADME reads the picture that was recorded: XML without a script and without
// anything from elsewhere, of a width that a phone shows.
func TestPictureInTheREADME(t *testing.T) {
	f, err := os.Open("../../docs/demo.svg")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > 100<<10 {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
	d := xml.NewDecoder(f)
	texts := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			switch e.Name.Local {
			case "text":
				texts++
			case "svg", "title", "rect", "g", "animate", "animateTransform":
			default:
				t.Errorf("an element %s", e.Name.Local)
			}
			for _, a := range e.Attr {
				if a.Name.Local != "xmlns" && strings.Contains(a.Value, "//") || strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "href" {
					t.Errorf("attribute %s=%q", a.Name.Local, a.Value)
				}
			}
		case xml.CharData:
			if n := len([]rune(strings.TrimSuffix(string(e), "\n"))); n > columns && !strings.HasPrefix(title, string(e[:6])) {
				t.Errorf("%d columns: %s", n, e)
			}
		}
	}
	if texts < 30 {
		t.Errorf("%d lines of text", texts)
	}
}
