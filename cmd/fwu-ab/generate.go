//go:build generate

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fwu-ab/fwu-ab/man"
	"github.com/spf13/cobra"
)

// addGenerate adds the command that builds run.
func addGenerate(root *cobra.Command) {
	var e man.Edition
	cmd := &cobra.Command{
		Use: "generate DIR", Short: "Write manual pages and completions", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := man.Pages(root, e)
			if err != nil {
				return err
			}
			for name, write := range map[string]func(io.Writer) error{
				"completions/fwu-ab.bash": func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
				"completions/fwu-ab.zsh":  root.GenZshCompletion,
				"completions/fwu-ab.fish": func(w io.Writer) error { return root.GenFishCompletion(w, true) },
			} {
				var text bytes.Buffer
				if err := write(&text); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				files[name] = text.Bytes()
			}
			for name, text := range files {
				path := filepath.Join(args[0], name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(path, text, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&e.Date, "date", "", "date of the pages")
	cmd.Flags().StringVar(&e.Version, "version", "", "version of the program")
	root.AddCommand(cmd)
}
