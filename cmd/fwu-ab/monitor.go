package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/spf13/cobra"
)

func newMonitorCommand(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "monitor",
		Short: "Follow states and progress of all components",
		Long: `Print a line for each component as it is now, and then for each change of its state, for its progress and for the end of each operation, until it is interrupted. It goes on when the
service leaves and comes back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withClient(cmd.Context(), g, func(c *dbus.Client) error {
				names := map[fwu.ID]string{}
				for _, info := range c.Components() {
					names[info.ID] = info.Name
				}
				events, err := c.Watch(cmd.Context())
				if err != nil {
					return err
				}
				m := monitor{out: cmd.OutOrStdout(), json: asJSON, now: time.Now}
				for e := range events {
					if err := m.print(names[e.Component], e); err != nil {
						return err
					}
				}
				if cmd.Context().Err() == nil {
					return &fwu.Error{Status: fwu.CommunicationFailure, Text: "the connection to the bus was lost"}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a line of JSON for each")
	return cmd
}

// monitor prints events, one line each.
type monitor struct {
	out  io.Writer
	json bool
	now  func() time.Time
}

// seen is an event as monitor --json prints it.
type seen struct {
	Time      string     `json:"time"`
	Component string     `json:"component"`
	State     string     `json:"state"`
	Operation string     `json:"operation,omitempty"` // that runs, or has ended
	Done      int64      `json:"done,omitempty"`
	Total     int64      `json:"total,omitempty"`
	Written   int64      `json:"written,omitempty"`
	Finished  bool       `json:"finished,omitempty"` // the operation has ended with status
	Status    int32      `json:"status,omitempty"`
	Error     int32      `json:"error,omitempty"`
	Reason    fwu.Reason `json:"reason,omitempty"`
	Text      string     `json:"text,omitempty"`
}

func (m monitor) print(name string, e dbus.Event) error {
	i := e.Info.Impl
	s := seen{Time: m.now().UTC().Format(time.RFC3339Nano), Component: name, State: e.Info.State.String(), Operation: i.Operation, Done: i.Done, Total: i.Total, Written: i.Written,
		Error: int32(e.Info.Error), Reason: i.Reason, Text: i.Text}
	if e.Finished != "" {
		s.Operation, s.Done, s.Total, s.Finished, s.Status, s.Reason, s.Text = e.Finished, 0, 0, true, int32(e.Status), e.Reason, e.Text
	}
	if m.json {
		return json.NewEncoder(m.out).Encode(s)
	}
	_, err := fmt.Fprintln(m.out, s)
	return err
}

// String is the event as a line for people.
func (s seen) String() string {
	at, err := time.Parse(time.RFC3339Nano, s.Time)
	if err != nil {
		return err.Error()
	}
	line := fmt.Sprintf("%s %-12s %-9s", at.Format("15:04:05"), s.Component, s.State)
	switch {
	case s.Finished && s.Status == 0:
		line += " " + s.Operation + " done"
	case s.Finished:
		line += fmt.Sprintf(" %s ended with %v", s.Operation, fwu.Status(s.Status))
	case s.Operation != "" && s.Total > 0:
		line += fmt.Sprintf(" %s %d %% of %s", s.Operation, percent(s.Done, s.Total), size(s.Total))
	case s.Operation != "":
		line += fmt.Sprintf(" %s %s", s.Operation, size(s.Done))
	}
	if s.Reason != "" || s.Text != "" {
		line += fmt.Sprintf(", %s: %s", s.Reason, s.Text)
	}
	return line
}
