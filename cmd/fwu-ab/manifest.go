package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/fwu-ab/fwu-ab/bundle"
	"github.com/fwu-ab/fwu-ab/files"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/spf13/cobra"
)

func newManifestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "manifest",
		Short: "Make, sign and look at manifests and bundles",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newManifestCreateCommand(), newManifestSignCommand(), newManifestDigestCommand(), newManifestAttachCommand(), newManifestShowCommand(), newManifestVerifyCommand())
	return cmd
}

// manifestFlags are the flags of manifest create.
type manifestFlags struct {
	bundle.Description
	image      bundle.Image
	component  string
	sequence   uint64
	key, chain string
	output     string
	bundle     bool
}

func newManifestCreateCommand() *cobra.Command {
	var f manifestFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make the manifest of an image, or a bundle of both",
		Long: `Make the manifest of an image, or with --bundle one file that holds both.
Without --key the result is not signed, which no device accepts: "manifest sign" signs it later, for instance on another machine.
"bundle create" makes bundles of several images, from a description that can be kept.`,
		Example: `  fwu-ab manifest create --component rootfs --image rootfs.img --version 1.2.3 --sequence 7 \
    --vendor-name example.com --class-name "gateway rev 2" --depends "bootfw>=1.2.0" --key release.key --bundle -o rootfs.suit`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.create(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.component, "component", "", "name of the component that the image is for")
	flags.StringVar(&f.image.File, "image", "", "the image")
	flags.StringVar(&f.Version, "version", "", "version of the image: major[.minor[.patch]][+build]")
	flags.Uint64Var(&f.sequence, "sequence", 0, "sequence number; a device refuses one that is lower than it has accepted")
	flags.StringVar(&f.Vendor, "vendor", "", "vendor identifier (UUID)")
	flags.StringVar(&f.VendorName, "vendor-name", "", "domain name of the vendor, from which the identifier is made")
	flags.StringVar(&f.Class, "class", "", "class identifier (UUID)")
	flags.StringVar(&f.ClassName, "class-name", "", "name of the device class, from which the identifier is made together with the vendor's")
	flags.StringArrayVar(&f.Depends, "depends", nil, "a component and the version of it that the image needs, such as bootfw>=1.2.0; may be repeated")
	flags.StringVar(&f.key, "key", "", "private key (PEM) to sign with, or - for standard input")
	chainFlag(cmd, &f.chain)
	flags.StringVar(&f.Digest, "digest", "sha256", "digest algorithm for image and manifest: sha256, sha384 or sha512")
	flags.BoolVar(&f.bundle, "bundle", false, "put the image into the file")
	flags.StringVar(&f.image.Compression, "compression", "", "compress the image in the bundle: zstd")
	flags.StringVar(&f.image.Level, "level", "", "work for a better ratio: fastest, default, better or best")
	flags.Uint64Var(&f.image.MaxSize, "max-size", 0, "refuse an image of more bytes than this, as the slots of the devices have")
	flags.StringVarP(&f.output, "output", "o", "", "file to write, or - for standard output")
	for _, name := range []string{"component", "image", "version", "sequence", "output"} {
		_ = cmd.MarkFlagRequired(name) // fails only for a flag that is not there
	}
	cmd.MarkFlagsOneRequired("vendor", "vendor-name")
	cmd.MarkFlagsMutuallyExclusive("vendor", "vendor-name")
	cmd.MarkFlagsOneRequired("class", "class-name")
	cmd.MarkFlagsMutuallyExclusive("class", "class-name")
	return cmd
}

// chainFlag adds the flag that names the certificates of a signer.
func chainFlag(cmd *cobra.Command, chain *string) {
	cmd.Flags().StringVar(chain, "chain", "", "certificates (PEM) of the signer, its own first, for devices that trust a certificate authority")
}

func (f *manifestFlags) create(cmd *cobra.Command) error {
	sign, err := signer(cmd, f.key, f.chain)
	if err != nil {
		return err
	}
	f.Sequence = &f.sequence
	f.Images = map[string]bundle.Image{f.component: f.image}
	warnOfSequence(cmd, f.sequence)
	out := bundle.Output{Path: f.output, Inputs: []string{f.key, f.chain}, Sign: sign, Warn: warner(cmd)}
	if f.bundle {
		return f.Create(cmd.Context(), out)
	}
	return f.CreateManifest(cmd.Context(), out)
}

// warn tells the person at the terminal about something that is done all the same.
func warn(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintf(cmd.ErrOrStderr(), "fwu-ab: warning: "+format+"\n", args...)
}

func warnOfSequence(cmd *cobra.Command, sequence uint64) {
	if sequence > fwu.FreeSequence {
		warn(cmd, "sequence number %d is above %d: only a device that accepted one which is at most %d lower takes it",
			sequence, fwu.FreeSequence, fwu.MaxSequenceStep)
	}
}

// warner prints warnings to standard error.
func warner(cmd *cobra.Command) func(string) {
	return func(text string) { warn(cmd, "%s", text) }
}

// signer signs with a private key and with certificates, as far as they are named; nil signs nothing.
func signer(cmd *cobra.Command, key, chain string) (bundle.Sign, error) {
	switch {
	case key != "":
		if info, err := os.Stat(key); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			warn(cmd, "private key %s can be used by others (mode %04o): chmod 600 %s", key, info.Mode().Perm(), key)
		}
		return func(envelope []byte) ([]byte, error) { return signWith(cmd.Context(), key, chain, envelope) }, nil
	case chain != "":
		return nil, errors.New("--chain is for a signature, which takes --key")
	}
	return nil, nil
}

func newManifestSignCommand() *cobra.Command {
	var key, chain, output string
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a manifest or a bundle, also one that others have signed",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sign, err := signer(cmd, key, chain)
			if err != nil {
				return err
			}
			return bundle.Change(cmd.Context(), args[0], cmp.Or(output, args[0]), []string{key, chain}, sign)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "private key (PEM) to sign with, or - for standard input")
	chainFlag(cmd, &chain)
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write (default: FILE itself)")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

// signWith signs with the private key of a file, and with the certificates of another if one is
// named.
func signWith(ctx context.Context, key, chain string, envelope []byte) ([]byte, error) {
	private, err := load(ctx, "private key", key, suit.ReadSigner)
	if errors.Is(err, suit.ErrEncrypted) {
		return nil, hinted(err, "openssl asks for the passphrase: openssl pkey -in "+key+" | fwu-ab ... --key -")
	}
	if err != nil {
		return nil, err
	}
	kid, err := suit.KeyID(private.Public())
	if err != nil {
		return nil, fmt.Errorf("private key %s: %w", key, err)
	}
	id, err := identity(ctx, suit.VerifyKey{KID: kid, Public: private.Public()}, chain)
	if err != nil {
		return nil, err
	}
	return suit.Sign(envelope, private, id)
}

// load reads a file with keys or certificates; kind names it for people.
func load[T any](ctx context.Context, kind, path string, read func(io.Reader) (T, error)) (out T, err error) {
	f, err := files.Open(ctx, path)
	if err == nil {
		defer f.Close()
		out, err = read(f)
	}
	if err != nil {
		return out, fmt.Errorf("%s %s: %w", kind, path, err)
	}
	return out, nil
}

func identity(ctx context.Context, k suit.VerifyKey, chain string) (id suit.Identity, err error) {
	id.Public, id.KID = k.Public, k.KID
	if chain != "" {
		id.Chain, err = load(ctx, "certificates", chain, suit.ReadChain)
	}
	return id, err
}

// trusted reads trust anchors.
func trusted(ctx context.Context, paths []string) (suit.VerifyKeys, error) {
	var all suit.VerifyKeys
	for _, path := range paths {
		keys, err := load(ctx, "trust anchor", path, suit.ReadKeys)
		if err != nil {
			return nil, err
		}
		for i := range keys {
			keys[i].Source = path
		}
		all = append(all, keys...)
	}
	return all, nil
}

func newManifestDigestCommand() *cobra.Command {
	var key, chain, output string
	var hashed bool
	cmd := &cobra.Command{
		Use:   "digest FILE",
		Short: "Write what is to be signed, for a private key that is elsewhere",
		Long: `Write what a private key is to sign that this program cannot reach, as in a hardware security module: a Sig_structure (RFC 9052, section 4.4) for the public key that is given.
An ECDSA key signs its digest, which --hashed writes instead: SHA-256 for a key on P-256, SHA-384 on P-384, SHA-512 on P-521. An Ed25519 key signs the bytes as they are.
"manifest attach" puts the signature in.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			message, err := toBeSigned(cmd.Context(), args[0], key, chain, hashed)
			if err != nil {
				return err
			}
			t := files.Target{Path: cmp.Or(output, files.Standard), Inputs: []string{args[0], key, chain}, Replace: wasToBeSigned}
			return files.Write(cmd.Context(), t, func(o *files.Output) error {
				_, err := o.Write(message)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "public key (PEM) of the signer")
	chainFlag(cmd, &chain)
	cmd.Flags().BoolVar(&hashed, "hashed", false, "write the digest that an ECDSA key signs")
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write (default: standard output)")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

// toBeSigned returns the bytes that a private key elsewhere has to sign for the manifest in a file.
func toBeSigned(ctx context.Context, path, key, chain string, hashed bool) ([]byte, error) {
	signer, err := publicIdentity(ctx, key, chain)
	if err != nil {
		return nil, err
	}
	e, err := bundle.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	message, err := suit.ToBeSigned(e.Envelope, signer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if hashed {
		return suit.Hashed(message, signer.Public)
	}
	return message, nil
}

// wasToBeSigned tells whether an earlier "manifest digest" may have written a file: a
// Sig_structure or a digest.
func wasToBeSigned(head []byte, size int64) bool {
	return bytes.HasPrefix(head, []byte("\x84\x6aSignature1")) || size == 32 || size == 48 || size == 64
}

func newManifestAttachCommand() *cobra.Command {
	var key, chain, signature, output string
	cmd := &cobra.Command{
		Use:   "attach FILE",
		Short: "Put a signature that was made elsewhere into a manifest or a bundle",
		Long: `Put a signature over what "manifest digest" wrote into a manifest or a bundle. An ECDSA signature may be in ASN.1, as openssl makes it, or r and s one after the other, as
PKCS #11 has it. It is verified with the public key first. --chain is what it was for "manifest digest": the certificates are part of what is signed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			signer, err := publicIdentity(cmd.Context(), key, chain)
			if err != nil {
				return err
			}
			sig, err := load(cmd.Context(), "signature", signature, readSignature)
			if err != nil {
				return err
			}
			return notVerified(bundle.Change(cmd.Context(), args[0], cmp.Or(output, args[0]), []string{key, chain, signature},
				func(envelope []byte) ([]byte, error) { return suit.Attach(envelope, signer, sig) }))
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "public key (PEM) of the signer")
	chainFlag(cmd, &chain)
	cmd.Flags().StringVar(&signature, "signature", "", "file with the signature")
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write (default: FILE itself)")
	_ = cmd.MarkFlagRequired("key")
	_ = cmd.MarkFlagRequired("signature")
	return cmd
}

// publicIdentity reads the one public key of a file, and the certificates of another if one is named.
func publicIdentity(ctx context.Context, key, chain string) (id suit.Identity, err error) {
	keys, err := trusted(ctx, []string{key})
	switch {
	case err != nil:
		return id, err
	case len(keys) != 1:
		return id, fmt.Errorf("public key %s: %d keys, want one", key, len(keys))
	case keys[0].CA != nil:
		return id, fmt.Errorf("public key %s: a certificate, want the key of the signer", key)
	}
	return identity(ctx, keys[0], chain)
}

// maxSignature bounds a file with a signature: one on P-521 in ASN.1 has up to 141 bytes.
const maxSignature = 1 << 10

func readSignature(r io.Reader) ([]byte, error) {
	sig, err := io.ReadAll(io.LimitReader(r, maxSignature+1))
	switch {
	case err != nil:
		return nil, err
	case len(sig) > maxSignature:
		return nil, fmt.Errorf("more than %d bytes, which no signature has", maxSignature)
	}
	return sig, nil
}

func newManifestShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Say what a manifest or a bundle says, without verifying it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := describeFile(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				enc.SetEscapeHTML(false) // "bootfw>=1.2.0"
				return enc.Encode(s)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), s)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "answer in JSON")
	return cmd
}

// shown is what manifest show answers.
type shown struct {
	suit.Description
	Integrated []shownPayload `json:"integrated,omitempty"`

	size int64 // of the file
}

// shownPayload is a payload of a bundle.
type shownPayload struct {
	Payload string `json:"payload"`
	Offset  int64  `json:"offset"`
	Size    int64  `json:"size"`
}

func (s shown) String() string {
	out := s.Description.String()
	for _, p := range s.Integrated {
		out += fmt.Sprintf("%-11s %s, %d bytes at %d\n", "integrated", p.Payload, p.Size, p.Offset)
	}
	return out
}

func describeFile(ctx context.Context, path string) (shown, error) {
	f, err := bundle.Open(ctx, path)
	if err != nil {
		return shown{}, err
	}
	defer f.Close()
	d, err := suit.Describe(f.Envelope)
	if err != nil {
		return shown{}, fmt.Errorf("%s: %w", path, err)
	}
	s := shown{Description: d, size: f.Size()}
	for _, p := range f.Payloads {
		s.Integrated = append(s.Integrated, shownPayload{p.Key, p.Offset, p.Size})
	}
	return s, nil
}

func newManifestVerifyCommand() *cobra.Command {
	var keys, images []string
	var at string
	var signatures int
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Verify a manifest or a bundle, and the image",
		Long: `Verify the signature of a manifest, and that the image in the bundle, or the one given with --image, is the one that it describes.
This is what a device does, except that it also asks whether the manifest is for this device, and knows the time in its own way.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			when, err := parseTime(at)
			if err != nil {
				return err
			}
			said, err := verifyFile(cmd.Context(), args[0], keys, signatures, images, when)
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "public key (PEM) of a signer that is trusted, or certificate of an authority; may be repeated")
	cmd.Flags().IntVar(&signatures, "required-signatures", 1, "how many different keys have to sign")
	cmd.Flags().StringArrayVar(&images, "image", nil, "the image, or component=image where there are several; may be repeated")
	cmd.Flags().StringVar(&at, "at", "", "time at which certificates have to be valid, such as 2026-01-31T12:00:00Z (default: now)")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

// parseTime reads a time (RFC 3339); none is now.
func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Now(), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("time %q: want one such as 2026-01-31T12:00:00Z", s)
	}
	return t, nil
}

// verifyFile returns what was verified. The images are those in files, by component; one without a name is that of the only component.
func verifyFile(ctx context.Context, path string, keyFiles []string, signatures int, images []string, at time.Time) (string, error) {
	keys, err := trusted(ctx, keyFiles)
	if err != nil {
		return "", err
	}
	f, err := bundle.Open(ctx, path)
	if err != nil {
		return "", notVerified(err)
	}
	defer f.Close()
	m, err := suit.Open(f.Envelope, keys, at)
	if err == nil {
		err = m.RequireSigners(signatures)
	}
	if err != nil {
		return "", notVerified(fmt.Errorf("%s: %w", path, err))
	}
	targets, err := m.Targets()
	if err != nil {
		return "", notVerified(fmt.Errorf("%s: %w", path, err))
	}
	var said []string
	checked := map[string]bool{}
	for _, t := range targets {
		for _, i := range t.Images {
			id := i.Component + " " + i.Digest.String()
			if checked[id] {
				continue
			}
			checked[id] = true
			what, err := verifyImage(ctx, f, images, i, len(t.Images) == 1)
			if err != nil {
				return "", notVerified(err)
			}
			said = append(said, fmt.Sprintf("%s %v, sequence %d: signature is valid%s", i.Component, i.Version, t.Sequence, what))
		}
	}
	return strings.Join(said, "\n"), nil
}

// verifyImage verifies the image in the bundle, and the one in a file, as far as they are there.
func verifyImage(ctx context.Context, f *bundle.File, images []string, i suit.Image, only bool) (string, error) {
	said := ""
	switch p, ok := f.Find(i.URI); {
	case ok:
		if err := i.CheckPayload(f.Payload(p)); err != nil {
			return "", fmt.Errorf("%s: %w", f.Name(), err)
		}
		said = ", integrated image is the one that it describes"
	case i.Integrated() && len(f.Payloads) > 0:
		return "", fmt.Errorf("%s: %w: payload %s is missing", f.Name(), suit.ErrMalformed, i.URI)
	case i.Content != nil:
		said = ", image is in the manifest"
	}
	for _, named := range images {
		component, path, ok := strings.Cut(named, "=")
		if !ok && only {
			component, path = i.Component, named
		}
		if component != i.Component {
			continue
		}
		image, err := files.Open(ctx, path)
		if err != nil {
			return "", err
		}
		if err := errors.Join(i.Check(image), image.Close()); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		said += ", image is the one that it describes"
	}
	return said, nil
}

// notVerified gives an error the status of a failed verification if it is one, and not one of reading.
func notVerified(err error) error {
	for _, c := range []struct {
		err    error
		reason fwu.Reason
	}{
		{suit.ErrSignature, fwu.ReasonManifestSignature},
		{suit.ErrMalformed, fwu.ReasonManifestInvalid},
		{suit.ErrUnsupported, fwu.ReasonManifestInvalid},
		{suit.ErrImage, fwu.ReasonImageDigest},
	} {
		if errors.Is(err, c.err) {
			return &fwu.Error{Status: fwu.InvalidSignature, Reason: c.reason, Err: err}
		}
	}
	return err
}
