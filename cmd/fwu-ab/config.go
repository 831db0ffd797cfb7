package main

import (
	"io"

	"github.com/spf13/cobra"
)

func newConfigCommand(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "config", Short: "Print the configuration that is in force, and where each value comes from", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := loadMachine(g.root)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), m.cfg.Report)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), m.cfg.Report.String())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
