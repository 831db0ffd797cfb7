package man

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// Contract is the page of the D-Bus interface. What its comments say of a member stands before it.
func Contract(e Edition) ([]byte, error) {
	preface, interfaces, err := readContract(dbus.Contract())
	if err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	p := newPage(dbus.Name, "5", "D\\-Bus", e)
	p.section("NAME")
	p.line(`%s \- D\-Bus interface of the A/B firmware update service`, dbus.Name)
	p.section("DESCRIPTION")
	for i, paragraph := range strings.Split(preface, "\n\n") {
		if i > 0 {
			p.line(".PP")
		}
		p.text(paragraph)
	}
	p.section("INTERFACES")
	for _, i := range interfaces {
		p.subsection(i.name)
		for _, m := range i.members {
			p.tag(m.signature())
			p.text(m.text)
		}
	}
	p.section("ERRORS")
	p.line(".TS\nL L L.\nName in %s.Error\tPSA_ERROR_\tValue", dbus.Name)
	for _, s := range fwu.Statuses() {
		if s < 0 {
			p.line("%s\t%s\t%s", s.DBusName(), s, escape(fmt.Sprint(int32(s))))
		}
	}
	p.line(".TE")
	p.section("SEE ALSO")
	p.line(".BR fwu\\-ab (1),\n.BR fwu\\-ab.service (8)\n.PP\nPSA Certified Firmware Update API 1.0, IHI 0093")
	return p.Bytes(), nil
}

type iface struct {
	name    string
	members []*member
}

// member is a method, a property or a signal.
type member struct {
	kind, name, text string
	in, out          []string // roff; of a property its type
	constant         bool
}

func (m *member) signature() string {
	s := m.kind + ` \fB` + m.name + `\fR`
	if m.kind == "property" {
		s += " " + m.out[0]
		if m.constant {
			s += ", constant"
		}
		return s
	}
	s += "(" + strings.Join(m.in, ", ") + ")"
	if len(m.out) > 0 {
		s += ` \(-> ` + strings.Join(m.out, ", ")
	}
	return s
}

// readContract reads what stands before the first node, and the interfaces.
func readContract(text string) (preface string, list []iface, err error) {
	var comment string
	var m *member
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return preface, list, nil
		}
		if err != nil {
			return "", nil, err
		}
		switch t := token.(type) {
		case xml.Comment:
			comment = paragraphs(string(t))
		case xml.StartElement:
			attr := func(name string) string {
				for _, a := range t.Attr {
					if a.Name.Local == name {
						return a.Value
					}
				}
				return ""
			}
			switch t.Name.Local {
			case "node":
				preface, comment = preface+comment, ""
			case "interface":
				list = append(list, iface{name: attr("name")})
			case "method", "signal", "property":
				m = &member{kind: t.Name.Local, name: attr("name"), text: comment}
				comment = ""
				if m.kind == "property" {
					m.out = []string{escape(attr("type"))}
				}
				last := &list[len(list)-1]
				last.members = append(last.members, m)
			case "arg":
				a := `\fI` + attr("name") + `\fR ` + escape(attr("type"))
				if attr("direction") == "out" {
					m.out = append(m.out, a)
				} else {
					m.in = append(m.in, a)
				}
			case "annotation":
				m.constant = attr("value") == "const"
			}
		}
	}
}

// paragraphs takes the indentation away.
func paragraphs(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return strings.Join(lines, "\n")
}
