// Package man makes the manual pages: fwu-ab(1) from the commands, org.fwuab.FirmwareUpdate1(5) from the contract and its comments, and fwu-ab.toml(5) and fwu-ab.service(8) from
// the files beside it, in which @date@ and @version@ stand for what their names say. The program does not import it; builds do.
//
// The pages are in the man macros (groff_man(7), man(7)). Same input, same bytes.
package man

import (
	"bytes"
	"embed"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed *.5 *.8
var written embed.FS

// Edition is what a page says of itself.
type Edition struct {
	Date    string // 2026-01-31
	Version string
}

// Pages are all pages by their paths below a directory of manual pages, such as man1/fwu-ab.1.
func Pages(root *cobra.Command, e Edition) (map[string][]byte, error) {
	contract, err := Contract(e)
	if err != nil {
		return nil, err
	}
	pages := map[string][]byte{
		"man1/fwu-ab.1":                    Command(root, e),
		"man5/org.fwuab.FirmwareUpdate1.5": contract,
	}
	entries, err := written.ReadDir(".")
	if err != nil {
		return nil, err
	}
	for _, f := range entries {
		text, err := written.ReadFile(f.Name())
		if err != nil {
			return nil, err
		}
		pages["man"+f.Name()[len(f.Name())-1:]+"/"+f.Name()] = e.fill(text)
	}
	for _, unit := range []string{"accept", "deadline", "health", "reject"} {
		pages["man8/fwu-ab-"+unit+".service.8"] = []byte(".so man8/fwu-ab.service.8\n")
	}
	return pages, nil
}

func (e Edition) fill(text []byte) []byte {
	return []byte(strings.NewReplacer("@date@", e.Date, "@version@", escape(e.Version)).Replace(string(text)))
}

// page is a page that is being written.
type page struct{ bytes.Buffer }

func newPage(title, section, manual string, e Edition) *page {
	p := &page{}
	p.line(`.TH %s %s %s "fwu\-ab %s" "%s"`, escape(strings.ToUpper(title)), section, e.Date, escape(e.Version), manual)
	return p
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) section(title string) { p.line(".SH %s", escape(title)) }

func (p *page) subsection(title string) { p.line(".SS %s", escape(title)) }

// tag begins a paragraph with a tag, which is roff already and one line to it.
func (p *page) tag(roff string) {
	p.line(".TP")
	line := ""
	for _, part := range strings.SplitAfter(roff, " ") {
		if line != "" && len(line)+len(part) > width {
			p.line(`%s\`, line)
			line = ""
		}
		line += part
	}
	p.line("%s", line)
}

// text writes paragraphs, with an empty line between them. Lines that are indented stay as they are. What stands between backquotes is set apart.
func (p *page) text(s string) {
	for i, b := range blocks(s) {
		if i > 0 || b.example {
			p.line(".IP")
		}
		if !b.example {
			p.fill(strings.Fields(strings.Join(b.lines, " ")))
			continue
		}
		p.line(".EX")
		for _, line := range b.lines {
			p.line("%s", guard(escape(line)))
		}
		p.line(".EE")
	}
}

type block struct {
	lines   []string
	example bool
}

// blocks are the paragraphs of a text. Indented ones that follow each other are one.
func blocks(s string) []block {
	var list []block
	for _, paragraph := range strings.Split(strings.TrimRight(s, "\n"), "\n\n") {
		fresh := true
		for _, line := range strings.Split(paragraph, "\n") {
			example := strings.HasPrefix(line, "  ")
			switch last := len(list) - 1; {
			case last < 0 || list[last].example != example || fresh && !example:
				list = append(list, block{[]string{line}, example})
			case fresh:
				list[last].lines = append(list[last].lines, "", line)
			default:
				list[last].lines = append(list[last].lines, line)
			}
			fresh = false
		}
	}
	return list
}

// width is how long a line of input becomes.
const width = 72

// fill writes words as lines of text.
func (p *page) fill(words []string) {
	line := ""
	italic := false
	for _, w := range words {
		parts := strings.Split(escape(w), "`")
		w = parts[0]
		for _, part := range parts[1:] {
			italic = !italic
			if w += `\fR`; italic {
				w = strings.TrimSuffix(w, `\fR`) + `\fI`
			}
			w += part
		}
		if line != "" && len(line)+1+len(w) > width {
			p.line("%s", guard(line))
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	if line != "" {
		p.line("%s", guard(line))
	}
}

// escape makes text of a string: a hyphen is one that can be copied, and nothing is an escape.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`).Replace(s)
}

// guard keeps a line of text from being a request.
func guard(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}
