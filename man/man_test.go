package man

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// TestTheContractIsWhole compares the page with the contract by another reader than the one that made it: a name that is not in it, or not as often, was left out.
func TestTheContractIsWhole(t *testing.T) {
	text, err := Contract(Edition{Date: "2026-01-31", Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	page := strings.ReplaceAll(string(text), "\\\n", "") // lines that go on
	type arg struct {
		Name string `xml:"name,attr"`
		Type string `xml:"type,attr"`
	}
	type member struct {
		arg
		Args []arg `xml:"arg"`
	}
	type node struct {
		Interfaces []struct {
			Name       string   `xml:"name,attr"`
			Methods    []member `xml:"method"`
			Properties []member `xml:"property"`
			Signals    []member `xml:"signal"`
		} `xml:"interface"`
	}
	type tree struct {
		node
		Below node `xml:"node"`
	}
	var contract tree
	if err := xml.Unmarshal([]byte(dbus.Contract()), &contract); err != nil {
		t.Fatal(err)
	}
	members := 0
	for _, i := range append(contract.Interfaces, contract.Below.Interfaces...) {
		_, text, found := strings.Cut(page, "\n.SS "+i.Name+"\n")
		if !found {
			t.Errorf("interface %s is not in it", i.Name)
		}
		text, _, _ = strings.Cut(text, "\n.SS ")
		for kind, list := range map[string][]member{"method": i.Methods, "property": i.Properties, "signal": i.Signals} {
			for _, m := range list {
				members++
				_, line, found := strings.Cut(text, "\n"+kind+` \fB`+m.Name+`\fR`)
				if line, _, _ = strings.Cut(line, "\n"); !found || !strings.Contains(line, m.Type) {
					t.Errorf("%s %s.%s is not in it", kind, i.Name, m.Name)
				}
				for _, a := range m.Args {
					if !strings.Contains(line, `\fI`+a.Name+`\fR `+a.Type) {
						t.Errorf("argument %s of %s.%s is not in it", a.Name, i.Name, m.Name)
					}
				}
			}
		}
	}
	if members < 40 {
		t.Errorf("%d members found", members)
	}
	for _, s := range fwu.Statuses() {
		if s < 0 && !strings.Contains(page, "\n"+s.DBusName()+"\t") {
			t.Errorf("error %s is not in it", s.DBusName())
		}
	}
}

func TestTextCannotBecomeRequests(t *testing.T) {
	p := &page{}
	p.text(".so /etc/passwd\n\n  'example \\fB\nit's `set` apart")
	want := "\\&.so /etc/passwd\n.IP\n.EX\n  \\(aqexample \\efB\n.EE\n.IP\nit\\(aqs \\fIset\\fR apart\n"
	if got := p.String(); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
