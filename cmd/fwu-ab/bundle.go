package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/fwu-ab/fwu-ab/bundle"
	"github.com/fwu-ab/fwu-ab/files"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/spf13/cobra"
)

func newBundleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Make bundles of images, and take them apart",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBundleCreateCommand(), newBundleInfoCommand(), newBundleExtractCommand())
	return cmd
}

func newBundleCreateCommand() *cobra.Command {
	var key, chain, output string
	var detached bool
	cmd := &cobra.Command{
		Use:   "create DESCRIPTION",
		Short: "Make a bundle of the images that a description names",
		Long: `Make a bundle: one manifest and all the images that it describes, in one file, as a description says (TOML):

  version = "2.0.0"                  # of the whole
  sequence = 12                      # grows with every release
  vendor-name = "example.com"        # or vendor = "<UUID>"
  class-name = "gateway rev 2"       # or class = "<UUID>"
  depends = ["radio>=1.4"]           # versions that must be there

  [image.rootfs]
  file = "rootfs.img"                # relative to the description
  compression = "zstd"
  level = "best"                     # fastest, default, better or best
  max-size = 268435456               # refuse an image of more bytes than the slots of the devices have

  [image.bootfw]
  file = "bootfw.bin"
  version = "1.9.1"                  # if it is not that of the whole

More keys are digest = "sha256" (or sha384, sha512), device = "<UUID>" for one device only, battery = <mWh>, and inline = true for an image of a few bytes that the manifest
itself holds. Same input, same bytes. Without --key the bundle is not signed: "manifest sign" does that, too.`,
		Example: `  fwu-ab bundle create release.toml --key release.key -o release.suit`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sign, err := signer(cmd, key, chain)
			if err != nil {
				return err
			}
			d, err := bundle.Load(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if d.Sequence != nil {
				warnOfSequence(cmd, *d.Sequence)
			}
			out := bundle.Output{Path: output, Inputs: []string{args[0], key, chain}, Sign: sign, Warn: warner(cmd)}
			if detached {
				err = d.CreateManifest(cmd.Context(), out)
			} else {
				err = d.Create(cmd.Context(), out)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "private key (PEM) to sign with, or - for standard input")
	chainFlag(cmd, &chain)
	cmd.Flags().BoolVar(&detached, "detached", false, "write the manifest only; the images travel beside it")
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write, or - for standard output")
	_ = cmd.MarkFlagRequired("output")
	return cmd
}

func newBundleInfoCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info FILE",
		Short: "List what is in a bundle, without verifying it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := listBundle(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(list)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), list)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "answer in JSON")
	return cmd
}

// listed is what bundle info answers.
type listed struct {
	Version  string          `json:"version"`
	Sequence uint64          `json:"sequence"`
	Signed   bool            `json:"signed"`
	Size     int64           `json:"size"` // of the file
	Payloads []listedPayload `json:"payloads"`
}

type listedPayload struct {
	shownPayload
	Component   string `json:"component"`
	Version     string `json:"version"`
	Compression string `json:"compression,omitempty"`
	ImageSize   int64  `json:"imageSize"`
}

func listBundle(ctx context.Context, path string) (listed, error) {
	s, err := describeFile(ctx, path)
	if err != nil {
		return listed{}, err
	}
	if s.Refused != "" {
		return listed{}, fmt.Errorf("%s: %s", path, s.Refused)
	}
	l := listed{Version: s.Version, Sequence: s.Sequence, Signed: len(s.Signatures) > 0, Size: s.size, Payloads: []listedPayload{}}
	for _, p := range s.Integrated {
		e := listedPayload{shownPayload: p}
		for _, t := range s.Targets {
			for _, i := range t.Images {
				if i.URI == p.Payload {
					e.Component, e.Version, e.Compression, e.ImageSize = i.Component, i.Version, i.Compression, i.Size
				}
			}
		}
		l.Payloads = append(l.Payloads, e)
	}
	return l, nil
}

func (l listed) String() string {
	signed := "signed (not verified)"
	if !l.Signed {
		signed = "not signed"
	}
	out := fmt.Sprintf("version %s, sequence %d, %s, %s\n", l.Version, l.Sequence, signed, size(l.Size))
	for _, p := range l.Payloads {
		out += fmt.Sprintf("%-16s %-12s %12d bytes", p.Component, p.Version, p.ImageSize)
		if p.Compression != "" {
			out += fmt.Sprintf(", %s: %d, %d %%", p.Compression, p.Size, 100*p.Size/max(p.ImageSize, 1))
		}
		out += "\n"
	}
	return out
}

func newBundleExtractCommand() *cobra.Command {
	var keys []string
	var dir, at string
	cmd := &cobra.Command{
		Use:   "extract FILE",
		Short: "Take the images out of a bundle",
		Long: `Take the images out of a bundle, decompressed, each into a file that is named after its payload. FILE may be -, the standard input. Each image must be the one that the
manifest describes. Who signed the manifest is looked at only where --key says who is trusted.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			when, err := parseTime(at)
			if err != nil {
				return err
			}
			open := suit.Unverified
			if len(keys) > 0 {
				anchors, err := trusted(cmd.Context(), keys)
				if err != nil {
					return err
				}
				open = func(envelope []byte) (*suit.Manifest, error) { return suit.Open(envelope, anchors, when) }
			}
			return extract(cmd, args[0], dir, open)
		},
	}
	cmd.Flags().StringVarP(&dir, "directory", "C", ".", "directory to write to")
	cmd.Flags().StringArrayVar(&keys, "key", nil, "public key (PEM) of a signer that is trusted, or certificate of an authority; may be repeated")
	cmd.Flags().StringVar(&at, "at", "", "time at which certificates have to be valid, such as 2026-01-31T12:00:00Z (default: now)")
	return cmd
}

func extract(cmd *cobra.Command, path, dir string, open func([]byte) (*suit.Manifest, error)) error {
	in, err := files.Open(cmd.Context(), path)
	if err != nil {
		return err
	}
	defer in.Close()
	images, err := bundle.Extract(cmd.Context(), in, dir, open)
	for _, i := range images {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s %v, %d bytes\n", filepath.Clean(i.Path), i.Component, i.Version, i.Size); err != nil {
			return err
		}
	}
	if err != nil {
		return notVerified(fmt.Errorf("%s: %w", path, err))
	}
	return nil
}
