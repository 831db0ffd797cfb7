package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// systemStatus is what status prints, as JSON with --json.
type systemStatus struct {
	Selector   string            `json:"selector"`
	Booted     fwu.Bank          `json:"booted"`
	Default    fwu.Bank          `json:"default"`
	Trial      fwu.Bank          `json:"trial"`
	Degraded   []fwu.Reason      `json:"degraded"`
	Limits     []string          `json:"limits"`
	Components []componentStatus `json:"components"`
}

type componentStatus struct {
	ID           fwu.ID           `json:"id"`
	Name         string           `json:"name"`
	Activation   string           `json:"activation"`
	ManifestMode fwu.ManifestMode `json:"manifest_mode"`
	State        string           `json:"state"`
	Error        int32            `json:"error"`
	// when it came into its state (RFC 3339), empty if that is not known
	Since  string     `json:"since"`
	Reason fwu.Reason `json:"reason"`
	Text   string     `json:"text"`
	// why nothing is written to it, empty if it may be
	ReadOnly     fwu.Reason `json:"read_only"`
	ReadOnlyText string     `json:"read_only_text"`
	Version      string     `json:"version"`
	Active       fwu.Bank   `json:"active"`
	MaxSize      int64      `json:"max_size"`
	Volatile     bool       `json:"volatile_staging"`
	Written      int64      `json:"written"`
	ImageSize    int64      `json:"image_size"`
	// bytes of the image that were taken: a share of image_size
	Prepared       int64  `json:"prepared"`
	ManifestDigest string `json:"manifest_digest"`
	Digest         string `json:"digest"`
	Received       int64  `json:"received"`
	Equal          int64  `json:"equal"`
	Zeroed         int64  `json:"zeroed"`
	Stored         int64  `json:"stored"`
	ReadBack       int64  `json:"read_back"`
	Sequence       uint64 `json:"sequence"`
	// how many different keys have to sign; 0: there is no manifest
	Signatures int    `json:"required_signatures"`
	ActiveSlot string `json:"active_slot"`
	SecondSlot string `json:"second_slot"`
	// of the slots' media, since the service was started
	ActiveErrors fwu.MediumErrors `json:"active_errors"`
	SecondErrors fwu.MediumErrors `json:"second_errors"`
	// of the copies of the record, the same for each component
	StoreErrors [2]fwu.MediumErrors `json:"store_errors"`
	Second      secondStatus        `json:"second"` // the image in the second slot
	Operation   string              `json:"operation"`
	Done        int64               `json:"done"`
	Total       int64               `json:"total"`

	state  fwu.State
	second fwu.Second
}

// secondStatus is the image in the second slot: nothing that is not known.
type secondStatus struct {
	Version  string `json:"version,omitempty"`
	Digest   string `json:"digest,omitempty"`
	Manifest string `json:"manifest,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	Signer   string `json:"signer,omitempty"`
	// unit or program of the client that started its preparation
	By        string   `json:"by,omitempty"`
	ByPID     uint32   `json:"by_pid,omitempty"`
	BySince   string   `json:"by_since,omitempty"` // RFC 3339
	Blocked   string   `json:"blocked,omitempty"`  // the requirement that an install would miss
	BlockedBy []fwu.ID `json:"blocked_by,omitempty"`
}

func secondStatusOf(s fwu.Second) secondStatus {
	out := secondStatus{Digest: s.Digest, Manifest: s.Manifest, Sequence: s.Sequence, Signer: s.Signer, By: s.By.Name, ByPID: s.By.PID, BySince: timeOf(s.By.Since),
		Blocked: s.Blocked, BlockedBy: s.BlockedBy}
	if s.Manifest != "" || s.Version != (fwu.Version{}) {
		out.Version = s.Version.String()
	}
	return out
}

func componentStatusOf(ctx context.Context, c *dbus.Client, info fwu.ComponentInfo) (componentStatus, error) {
	q, err := c.Query(ctx, info.ID)
	if err != nil {
		return componentStatus{}, err
	}
	i := q.Impl
	return componentStatus{ID: info.ID, Name: info.Name, Activation: info.Activation(), ManifestMode: info.Manifest,
		State: q.State.String(), Since: timeOf(i.Since), Error: int32(q.Error), Reason: i.Reason, Text: i.Text, ReadOnly: i.ReadOnly, ReadOnlyText: i.ReadOnlyText, Version: q.Version.String(), Active: fwu.BankOf(int(q.Location & 1)),
		MaxSize: q.MaxSize, Volatile: q.Flags&fwu.FlagVolatileStaging != 0, Written: i.Written, ImageSize: i.ImageSize, Prepared: i.Prepared, ManifestDigest: i.ManifestDigest,
		Received: i.Counts.Received, Equal: i.Counts.Equal, Zeroed: i.Counts.Zeroed, Stored: i.Counts.Written, ReadBack: i.Counts.ReadBack,
		Digest: i.Digest, Sequence: i.Sequence, Signatures: i.Signatures, ActiveSlot: i.ActiveSlot, SecondSlot: i.SecondSlot, Second: secondStatusOf(i.Second),
		ActiveErrors: i.ActiveErrors, SecondErrors: i.SecondErrors, StoreErrors: i.StoreErrors, Operation: i.Operation, Done: i.Done, Total: i.Total, state: q.State, second: i.Second}, nil
}

// timeOf is a time as status and monitor print it, empty for none.
func timeOf(unix int64) string {
	if unix == 0 {
		return ""
	}
	return time.Unix(unix, 0).UTC().Format(time.RFC3339)
}

func systemStatusOf(ctx context.Context, c *dbus.Client) (systemStatus, error) {
	sys := c.System()
	out := systemStatus{Selector: sys.Selector, Booted: sys.Booted, Default: sys.Default, Trial: sys.Trial,
		// in JSON an array even if it is empty
		Degraded: append([]fwu.Reason{}, sys.Degraded...), Limits: append([]string{}, sys.Limits...), Components: []componentStatus{}}
	for _, info := range c.Components() {
		st, err := componentStatusOf(ctx, c, info)
		if err != nil {
			return out, err
		}
		out.Components = append(out.Components, st)
	}
	return out, nil
}

func newStatusCommand(g *globals) *cobra.Command {
	var asJSON, watch, exit bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show banks, slots and states, and what comes next",
		Long: `Show banks, slots and states, and what comes next: in colour on a terminal, unless NO_COLOR is set.

With --exit-code the command ends with 6 if the service answers queries only, or if a component is read-only; the output says why.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withClient(cmd.Context(), g, func(c *dbus.Client) error {
				if watch {
					return watchStatus(cmd.Context(), c, cmd.OutOrStdout())
				}
				st, err := systemStatusOf(cmd.Context(), c)
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(cmd.OutOrStdout(), st)
				} else {
					_, err = io.WriteString(cmd.OutOrStdout(), painterFor(cmd.OutOrStdout(), os.Getenv).draw(st))
				}
				if err == nil && exit {
					err = st.degraded()
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again at each change, until it is interrupted")
	cmd.Flags().BoolVar(&exit, "exit-code", false, "end with 6 if the service answers queries only, or a component is read-only")
	cmd.MarkFlagsMutuallyExclusive("watch", "json")
	cmd.MarkFlagsMutuallyExclusive("watch", "exit-code")
	return cmd
}

// errDegraded: no update can be made, or not of every component.
var errDegraded = errors.New("degraded")

// degraded is an error that says which part of the device cannot be updated, nil if there is none.
func (st systemStatus) degraded() error {
	var why []string
	for _, r := range st.Degraded {
		why = append(why, "the service answers queries only, "+string(r))
	}
	for _, c := range st.Components {
		if c.ReadOnly != "" {
			why = append(why, c.Name+" is read-only, "+string(c.ReadOnly))
		}
	}
	if why == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", errDegraded, strings.Join(why, "; "))
}

// watchStatus shows the status at each change, on a terminal in the same place.
func watchStatus(ctx context.Context, c *dbus.Client, out io.Writer) error {
	events, err := c.Watch(ctx)
	if err != nil {
		return err
	}
	paint := painterFor(out, os.Getenv)
	for shown := ""; ; {
		st, err := systemStatusOf(ctx, c)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if text := paint.draw(st); text != shown {
			before := "\n"
			if isTerminal(out) {
				before = "\x1b[H\x1b[J" // to the top, and nothing below
			} else if shown == "" {
				before = ""
			}
			if _, err := io.WriteString(out, before+text); err != nil {
				return err
			}
			shown = text
		}
		if _, ok := <-events; !ok {
			if ctx.Err() != nil {
				return nil
			}
			return &fwu.Error{Status: fwu.CommunicationFailure, Text: "the connection to the bus was lost"}
		}
	}
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// painter colours texts where that is wanted.
type painter bool

// painterFor paints on a terminal that is not dumb, unless NO_COLOR is set (no-color.org).
func painterFor(out io.Writer, getenv func(string) string) painter {
	return painter(isTerminal(out) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb")
}

// The colours, as SGR parameters (ECMA-48).
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
)

func (p painter) paint(colour, text string) string {
	if !p {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// colourOf says how much a state wants to be looked at.
func colourOf(s fwu.State) string {
	switch s {
	case fwu.Ready, fwu.Updated:
		return green
	case fwu.Failed, fwu.Rejected:
		return red
	}
	return yellow
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// cell is the width of a slot in the drawing. Plain ASCII: it is read over serial lines.
const cell = 26

// draw shows banks as columns and components as rows.
func (p painter) draw(st systemStatus) string {
	var b strings.Builder
	name := 12 // columns for the longest name
	for _, c := range st.Components {
		name = max(name, utf8.RuneCountInString(c.Name))
	}
	edge := "+" + strings.Repeat("-", cell) + "+"
	fmt.Fprintf(&b, "%-*s %s %s\n", name, "", center(bankTitle(st, fwu.BankA), cell+2), center(bankTitle(st, fwu.BankB), cell+2))
	for _, c := range st.Components {
		fmt.Fprintf(&b, "%-*s %s %s\n", name, "", edge, edge)
		fmt.Fprintf(&b, "%-*s |%s| |%s|  %s\n", name, c.Name, center(slotText(c, fwu.BankA), cell), center(slotText(c, fwu.BankB), cell), p.paint(colourOf(c.state), c.State))
	}
	fmt.Fprintf(&b, "%-*s %s %s\n", name, "", edge, edge)
	for _, r := range st.Degraded {
		b.WriteString(p.paint(red, fmt.Sprintf("! queries only, %s: %s", r, reasonHint(r))) + "\n")
	}
	for _, l := range st.Limits {
		fmt.Fprintf(&b, "limit %s: %s\n", l, limitText(l))
	}
	for _, c := range st.Components {
		b.WriteString(c.waits())
		if c.Reason != "" {
			fmt.Fprintf(&b, "%s: %s: %s\n", c.Name, c.Reason, c.Text)
		}
		if c.ReadOnly != "" {
			b.WriteString(p.paint(red, fmt.Sprintf("! %s is read-only, %s: %s", c.Name, c.ReadOnly, c.ReadOnlyText)) + "\n  -> " + reasonHint(c.ReadOnly) + "\n")
		}
	}
	for _, c := range st.Components {
		if c.Signatures > 1 {
			fmt.Fprintf(&b, "%s: an image needs the signatures of %d keys\n", c.Name, c.Signatures)
		}
		b.WriteString(failures(c.Name, string(c.Active), c.ActiveErrors) + failures(c.Name, string(c.Active.Other()), c.SecondErrors))
	}
	for _, c := range st.Components[:min(1, len(st.Components))] { // each has those of the record
		b.WriteString(failures("record", "0", c.StoreErrors[0]) + failures("record", "1", c.StoreErrors[1]))
	}
	if c, ok := latest(st); ok {
		fmt.Fprintf(&b, "last: %s is %s since %s\n", c.Name, c.State, c.Since)
	}
	for _, n := range nextSteps(st) {
		b.WriteString(p.paint(bold, "next: "+n) + "\n")
	}
	return b.String()
}

// failures names a medium that failed.
func failures(medium, part string, n fwu.MediumErrors) string {
	if n.Total() == 0 {
		return ""
	}
	return fmt.Sprintf("! %s %s: %d reads, %d writes and %d flushes failed since the service was started\n", medium, part, n.Read, n.Write, n.Flush)
}

// waits says which image is in the second slot, if it waits there or was given up.
func (c componentStatus) waits() string {
	verb := map[fwu.State]string{fwu.Writing: "is being written", fwu.Candidate: "waits for install", fwu.Staged: "waits for a reboot", fwu.Failed: "was given up"}[c.state]
	if verb == "" || c.Second.Version == "" && c.Second.By == "" {
		return ""
	}
	s := fmt.Sprintf("%s: %s %s", c.Name, cmp.Or(c.Second.Version, "an image without manifest"), verb)
	if c.Second.Signer != "" {
		s += ", signed by " + c.Second.Signer
	}
	if c.Second.By != "" {
		s += ", started by " + c.second.By.String()
	}
	s += "\n"
	if c.Second.Digest != "" {
		s += "  image " + c.Second.Digest + "\n"
	}
	if c.Second.Manifest != "" {
		s += "  manifest " + c.Second.Manifest + "\n"
	}
	if c.Second.Blocked != "" {
		s += "  ! it cannot be installed yet: " + c.Second.Blocked + "\n"
	}
	return s
}

// limitText says for people the meaning of a limit of the boot selector.
func limitText(limit string) string {
	if limit == fwu.LimitSingleCopy {
		return "the boot environment has one copy: a power cut while it is written loses it, and U-Boot starts with its built-in one"
	}
	return "see docs/porting.md"
}

// latest is the component that changed last. Times of one form are ordered like texts.
func latest(st systemStatus) (last componentStatus, ok bool) {
	for _, c := range st.Components {
		if c.Since > last.Since {
			last, ok = c, true
		}
	}
	return last, ok
}

func bankTitle(st systemStatus, bank fwu.Bank) string {
	title := "bank " + string(bank)
	var marks []string
	if bank == st.Booted {
		marks = append(marks, "running")
	}
	if bank == st.Default {
		marks = append(marks, "default")
	}
	if bank == st.Trial {
		marks = append(marks, "trial")
	}
	if len(marks) > 0 {
		title += " (" + strings.Join(marks, ", ") + ")"
	}
	return title
}

func center(s string, width int) string {
	if r := []rune(s); len(r) > width {
		s = string(r[:width])
	}
	left := max(0, (width-utf8.RuneCountInString(s))/2)
	return fmt.Sprintf("%-*s", width, strings.Repeat(" ", left)+s)
}

// slotText says what a slot holds.
func slotText(c componentStatus, bank fwu.Bank) string {
	if bank == c.Active {
		if c.Activation == "live" {
			return c.Version + ", in use"
		}
		return c.Version
	}
	switch c.state {
	case fwu.Writing:
		if c.ImageSize > 0 {
			return fmt.Sprintf("writing, %d %%", percent(c.Prepared, c.ImageSize))
		}
		return fmt.Sprintf("writing, %s", size(c.Written))
	case fwu.Candidate:
		return "verified, sealed"
	case fwu.Staged:
		return "started by next reset"
	case fwu.Trial:
		return "previous"
	case fwu.Rejected:
		return "previous, next reset"
	case fwu.Failed:
		return "failed"
	case fwu.Updated:
		return "previous, expired"
	}
	return "-"
}

// size is a number of bytes for people.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n), -1
	for f >= 1024 {
		f /= 1024
		u++
	}
	return fmt.Sprintf("%.1f %ciB", f, units[u])
}

// nextSteps says what the states wait for.
func nextSteps(st systemStatus) []string {
	has := map[fwu.State][]string{}
	for _, c := range st.Components {
		has[c.state] = append(has[c.state], c.Name)
	}
	var out []string
	for _, s := range []struct {
		state fwu.State
		text  string
	}{
		{fwu.Writing, "fwu-ab update FILE continues, fwu-ab cancel %s gives up"},
		{fwu.Candidate, "fwu-ab install, or fwu-ab cancel %s"},
		{fwu.Staged, "fwu-ab reboot starts the trial, fwu-ab reject gives up"},
		{fwu.Trial, "fwu-ab accept keeps it, fwu-ab reject or a reset gives the previous system back"},
		{fwu.Rejected, "fwu-ab reboot gives the previous system back"},
		{fwu.Failed, "fwu-ab clean %s"},
		{fwu.Updated, "fwu-ab clean %s"},
	} {
		if names := has[s.state]; len(names) > 0 {
			text := s.text
			if strings.Contains(text, "%s") {
				text = fmt.Sprintf(text, strings.Join(names, ", "))
			}
			out = append(out, text)
		}
	}
	return out
}
