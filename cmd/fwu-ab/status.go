package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/spf13/cobra"
)

// systemStatus is what status prints, as JSON with --json.
type systemStatus struct {
	Selector   string            `json:"selector"`
	Booted     fwu.Bank          `json:"booted"`
	Default    fwu.Bank          `json:"default"`
	Trial      fwu.Bank          `json:"trial"`
	Degraded   []fwu.Reason      `json:"degraded"`
	Components []componentStatus `json:"components"`
}

type componentStatus struct {
	ID             fwu.ID              `json:"id"`
	Name           string              `json:"name"`
	Activation     string              `json:"activation"`
	ManifestMode   fwu.ManifestMode    `json:"manifest_mode"`
	State          string              `json:"state"`
	Error          int32               `json:"error"`
	Since          string              `json:"since"` // when it came into its state (RFC 3339), empty if that is not known
	Reason         fwu.Reason          `json:"reason"`
	Text           string              `json:"text"`
	ReadOnly       fwu.Reason          `json:"read_only"` // why nothing is written to it, empty if it may be
	ReadOnlyText   string              `json:"read_only_text"`
	Version        string              `json:"version"`
	Active         fwu.Bank            `json:"active"`
	MaxSize        int64               `json:"max_size"`
	Volatile       bool                `json:"volatile_staging"`
	Written        int64               `json:"written"`
	ImageSize      int64               `json:"image_size"`
	Prepared       int64               `json:"prepared"` // bytes of the image that were taken: a share of image_size
	ManifestDigest string              `json:"manifest_digest"`
	Digest         string              `json:"digest"`
	Received       int64               `json:"received"`
	Equal          int64               `json:"equal"`
	Zeroed         int64               `json:"zeroed"`
	Stored         int64               `json:"stored"`
	ReadBack       int64               `json:"read_back"`
	Sequence       uint64              `json:"sequence"`
	Signatures     int                 `json:"required_signatures"` // how many different keys have to sign; 0: there is no manifest
	ActiveSlot     string              `json:"active_slot"`
	SecondSlot     string              `json:"second_slot"`
	ActiveErrors   fwu.MediumErrors    `json:"active_errors"` // of the slots' media, since the service was started
	SecondErrors   fwu.MediumErrors    `json:"second_errors"`
	StoreErrors    [2]fwu.MediumErrors `json:"store_errors"` // of the copies of the record, the same for each component
	Operation      string              `json:"operation"`
	Done           int64               `json:"done"`
	Total          int64               `json:"total"`

	state fwu.State
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
		Digest: i.Digest, Sequence: i.Sequence, Signatures: i.Signatures, ActiveSlot: i.ActiveSlot, SecondSlot: i.SecondSlot,
		ActiveErrors: i.ActiveErrors, SecondErrors: i.SecondErrors, StoreErrors: i.StoreErrors, Operation: i.Operation, Done: i.Done, Total: i.Total, state: q.State}, nil
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
		Degraded: append([]fwu.Reason{}, sys.Degraded...), Components: []componentStatus{}} // in JSON an array even if it is empty
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
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show banks, slots and states, and what comes next", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withClient(cmd.Context(), g, func(c *dbus.Client) error {
				st, err := systemStatusOf(cmd.Context(), c)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), st)
				}
				_, err = io.WriteString(cmd.OutOrStdout(), draw(st))
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// cell is the width of a slot in the drawing. Plain ASCII: it is read over serial lines.
const cell = 26

// draw shows banks as columns and components as rows.
func draw(st systemStatus) string {
	var b strings.Builder
	name := 12 // columns for the longest name
	for _, c := range st.Components {
		name = max(name, utf8.RuneCountInString(c.Name))
	}
	edge := "+" + strings.Repeat("-", cell) + "+"
	fmt.Fprintf(&b, "%-*s %s %s\n", name, "", center(bankTitle(st, fwu.BankA), cell+2), center(bankTitle(st, fwu.BankB), cell+2))
	for _, c := range st.Components {
		fmt.Fprintf(&b, "%-*s %s %s\n", name, "", edge, edge)
		fmt.Fprintf(&b, "%-*s |%s| |%s|  %s\n", name, c.Name, center(slotText(c, fwu.BankA), cell), center(slotText(c, fwu.BankB), cell), c.State)
	}
	fmt.Fprintf(&b, "%-*s %s %s\n", name, "", edge, edge)
	for _, r := range st.Degraded {
		fmt.Fprintf(&b, "! queries only, %s: %s\n", r, reasonHint(r))
	}
	for _, c := range st.Components {
		if c.Reason != "" {
			fmt.Fprintf(&b, "%s: %s: %s\n", c.Name, c.Reason, c.Text)
		}
		if c.ReadOnly != "" {
			fmt.Fprintf(&b, "! %s is read-only, %s: %s\n  -> %s\n", c.Name, c.ReadOnly, c.ReadOnlyText, reasonHint(c.ReadOnly))
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
		fmt.Fprintf(&b, "next: %s\n", n)
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
