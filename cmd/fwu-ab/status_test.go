package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// TestColour: there is some on a terminal, unless NO_COLOR is set or the terminal is dumb; and the
// drawing is the same without it.
func TestColour(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	for _, c := range []struct {
		env  map[string]string
		want painter
	}{
		{nil, true},
		{map[string]string{"TERM": "xterm"}, true},
		{map[string]string{"NO_COLOR": "1"}, false},
		{map[string]string{"TERM": "dumb"}, false},
	} {
		if got := painterFor(terminal, func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%v: %v", c.env, got)
		}
	}
	if painterFor(&bytes.Buffer{}, func(string) string { return "" }) {
		t.Error("it paints where there is no terminal")
	}
	st := systemStatus{Booted: fwu.BankA, Degraded: []fwu.Reason{fwu.ReasonRecordLost}}
	for s := fwu.Ready; s <= fwu.Updated; s++ {
		st.Components = append(st.Components, componentStatus{Name: s.String(), State: s.String(), state: s, ReadOnly: fwu.ReasonSlotMissing})
	}
	plain, painted := painter(false).draw(st), painter(true).draw(st)
	for _, code := range []string{red, green, yellow, bold, "0"} {
		if strings.Contains(plain, "\x1b") || !strings.Contains(painted, "\x1b["+code+"m") {
			t.Errorf("%s is not in %q, or an escape in %q", code, painted, plain)
		}
		painted = strings.ReplaceAll(painted, "\x1b["+code+"m", "")
	}
	if painted != plain {
		t.Errorf("in colour it is\n%s\nand without\n%s", painted, plain)
	}
}
