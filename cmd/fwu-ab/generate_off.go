//go:build !generate

package main

import "github.com/spf13/cobra"

// addGenerate adds nothing: what manual pages are made with is not in the program.
func addGenerate(*cobra.Command) {}
