package man

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// exitCodes begins the paragraph of the root command's description that becomes a section of its own.
const exitCodes = "Exit codes: "

// Command is the page of a program with all of its commands.
func Command(root *cobra.Command, e Edition) []byte {
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	root.InitDefaultCompletionCmd()
	p := newPage(root.Name(), "1", "User Commands", e)
	p.section("NAME")
	p.line(`%s \- %s`, escape(root.Name()), escape(root.Short))
	p.section("SYNOPSIS")
	p.line(".B %s\n.RI [ OPTION ...]\n.I COMMAND\n.RI [ OPTION ...]\n.RI [ ARGUMENT ...]", escape(root.Name()))
	p.section("DESCRIPTION")
	var codes string
	for i, paragraph := range strings.Split(root.Long, "\n\n") {
		if text, ok := strings.CutPrefix(paragraph, exitCodes); ok {
			codes = text
			continue
		}
		if i > 0 {
			p.line(".PP")
		}
		p.text(paragraph)
	}
	p.section("COMMANDS")
	for _, g := range root.Groups() {
		p.subsection(strings.TrimSuffix(g.Title, ":"))
		p.commands(root, func(c *cobra.Command) bool { return c.GroupID == g.ID })
	}
	p.subsection("Other")
	p.commands(root, func(c *cobra.Command) bool { return c.GroupID == "" && c.Name() != "help" })
	p.section("OPTIONS OF ALL COMMANDS")
	p.flags(root.LocalFlags())
	p.section("EXIT STATUS")
	for _, c := range strings.Split(strings.TrimSuffix(codes, "."), ", ") {
		number, text, _ := strings.Cut(c, " ")
		p.tag(".B " + number)
		p.text(text)
	}
	p.WriteString(tail)
	return p.Bytes()
}

// tail is what commands do not know.
const tail = `.SH ENVIRONMENT
.TP
.B FWU_AB_BUS
What
.B \-\-bus
is where it is not given.
.SH FILES
.TP
.IR /usr/lib/fwu\-ab/fwu\-ab.toml ", " /etc/fwu\-ab/fwu\-ab.toml
The configuration, see
.BR fwu\-ab.toml (5).
.TP
.I /usr/lib/fwu\-ab/release
The release record: what the running image is.
.TP
.IR /usr/lib/fwu\-ab/check.d ", " /etc/fwu\-ab/check.d
Health checks, see
.BR fwu\-ab.service (8).
.TP
.IR /usr/lib/fwu\-ab/hooks.d ", " /etc/fwu\-ab/hooks.d
Hooks, see
.BR fwu\-ab.service (8).
.TP
.I /usr/share/doc/fwu\-ab
What boards and firmware creators need to know.
.SH SEE ALSO
.BR fwu\-ab.toml (5),
.BR org.fwuab.FirmwareUpdate1 (5),
.BR fwu\-ab.service (8)
`

func (p *page) commands(parent *cobra.Command, which func(*cobra.Command) bool) {
	for _, c := range parent.Commands() {
		if c.Hidden || !which(c) {
			continue
		}
		p.command(c)
		if c.Name() != "completion" { // one for each shell
			p.commands(c, func(*cobra.Command) bool { return true })
		}
	}
}

func (p *page) command(c *cobra.Command) {
	name, args, _ := strings.Cut(c.Use, " ")
	if c.Name() == "completion" {
		args = "SHELL"
	}
	for q := c.Parent(); q.HasParent(); q = q.Parent() {
		name = q.Name() + " " + name
	}
	tag := `\fB` + escape(name) + `\fR`
	if args != "" {
		tag += ` \fI` + escape(args) + `\fR`
	}
	p.tag(tag)
	text := c.Long
	if text == "" || c.Name() == "completion" {
		text = c.Short + "."
	}
	p.text(text)
	if c.LocalFlags().HasAvailableFlags() {
		p.line(".RS")
		p.flags(c.LocalFlags())
		p.line(".RE")
	}
	if c.Example != "" {
		p.text(c.Example)
	}
}

func (p *page) flags(flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		tag := `\fB` + escape("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			tag = `\fB` + escape("-"+f.Shorthand) + `\fR, ` + tag
		}
		kind, usage := pflag.UnquoteUsage(f)
		if kind != "" {
			tag += ` \fI` + escape(kind) + `\fR`
		}
		p.tag(tag)
		p.text(usage + defaultOf(f))
	})
}

// defaultOf says what a flag is where it is not given, unless that is nothing or its description says it.
func defaultOf(f *pflag.Flag) string {
	switch f.DefValue {
	case "", "0", "0s", "false", "[]":
		return ""
	}
	if strings.Contains(f.Usage, "default") {
		return ""
	}
	return fmt.Sprintf("; default %s", f.DefValue)
}
