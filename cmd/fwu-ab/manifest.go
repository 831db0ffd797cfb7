package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

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
	component, image, version string
	sequence                  uint64
	vendor, vendorName        string
	class, className          string
	depends                   []string
	key, chain                string
	output, digest            string
	bundle                    bool
}

func newManifestCreateCommand() *cobra.Command {
	var f manifestFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make the manifest of an image, or a bundle of both",
		Long: `Make the manifest of an image, or with --bundle one file that holds both.
Without --key the result is not signed, which no device accepts: "manifest sign" signs it later, for instance on another machine.`,
		Example: `  fwu-ab manifest create --component rootfs --image rootfs.img --version 1.2.3 --sequence 7 \
    --vendor-name example.com --class-name "gateway rev 2" --depends "bootfw>=1.2.0" --key release.key --bundle -o rootfs.suit`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return f.create() },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.component, "component", "", "name of the component that the image is for")
	flags.StringVar(&f.image, "image", "", "the image")
	flags.StringVar(&f.version, "version", "", "version of the image: major[.minor[.patch]][+build]")
	flags.Uint64Var(&f.sequence, "sequence", 0, "sequence number; a device refuses one that is lower than it has accepted")
	flags.StringVar(&f.vendor, "vendor", "", "vendor identifier (UUID)")
	flags.StringVar(&f.vendorName, "vendor-name", "", "domain name of the vendor, from which the identifier is made")
	flags.StringVar(&f.class, "class", "", "class identifier (UUID)")
	flags.StringVar(&f.className, "class-name", "", "name of the device class, from which the identifier is made together with the vendor's")
	flags.StringArrayVar(&f.depends, "depends", nil, "another component and the lowest version of it that the image needs: component>=version; may be repeated")
	flags.StringVar(&f.key, "key", "", "private key (PEM) to sign with")
	chainFlag(cmd, &f.chain)
	flags.StringVar(&f.digest, "digest", "sha256", "digest algorithm for image and manifest: sha256, sha384 or sha512")
	flags.BoolVar(&f.bundle, "bundle", false, "put the image into the file")
	flags.StringVarP(&f.output, "output", "o", "", "file to write")
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

func (f *manifestFlags) create() error {
	if f.chain != "" && f.key == "" {
		return errors.New("--chain is for a signature, which takes --key")
	}
	spec, err := f.spec()
	if err != nil {
		return err
	}
	hash, err := suit.ParseHash(f.digest)
	if err != nil {
		return err
	}
	image, err := os.Open(f.image)
	if err != nil {
		return err
	}
	defer image.Close()
	if spec.Digest, spec.Size, err = suit.Measure(image, hash); err != nil {
		return fmt.Errorf("%s: %w", f.image, err)
	}
	envelope, err := suit.Create(spec)
	if err != nil {
		return err
	}
	if f.key != "" {
		if envelope, err = signWith(f.key, f.chain, envelope); err != nil {
			return err
		}
	}
	if !f.bundle {
		return writeEnvelope(f.output, envelope, suit.Bundle{}, nil)
	}
	if _, err := image.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("%s: %w", f.image, err)
	}
	return writeEnvelope(f.output, envelope, suit.Bundle{Payload: spec.Payload, Size: spec.Size}, image)
}

// spec is what the flags say, without what only the image says.
func (f *manifestFlags) spec() (s suit.Spec, err error) {
	s.Component, s.Sequence = f.component, f.sequence
	if f.bundle {
		s.Payload = "#" + f.component
	}
	if s.Version, err = suit.ParseVersion(f.version); err != nil {
		return s, err
	}
	s.Vendor = suit.VendorID(f.vendorName)
	if f.vendorName == "" {
		if s.Vendor, err = suit.ParseUUID(f.vendor); err != nil {
			return s, err
		}
	}
	s.Class = suit.ClassID(s.Vendor, f.className)
	if f.className == "" {
		if s.Class, err = suit.ParseUUID(f.class); err != nil {
			return s, err
		}
	}
	for _, text := range f.depends {
		d, err := suit.ParseDependency(text)
		if err != nil {
			return s, err
		}
		s.Dependencies = append(s.Dependencies, d)
	}
	return s, nil
}

func newManifestSignCommand() *cobra.Command {
	var key, chain, output string
	cmd := &cobra.Command{
		Use:   "sign FILE",
		Short: "Sign a manifest or a bundle, also one that others have signed",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if output == "" {
				output = args[0]
			}
			return signFile(key, chain, args[0], output)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "private key (PEM) to sign with")
	chainFlag(cmd, &chain)
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write (default: FILE itself)")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

func signFile(key, chain, in, out string) error {
	return changeEnvelope(in, out, func(envelope []byte) ([]byte, error) { return signWith(key, chain, envelope) })
}

// changeEnvelope writes what change makes of the envelope of a file, with the same payload.
func changeEnvelope(in, out string, change func(envelope []byte) ([]byte, error)) error {
	e, err := openEnvelope(in)
	if err != nil {
		return err
	}
	defer e.file.Close()
	envelope, err := change(e.Envelope)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	return writeEnvelope(out, envelope, e.Bundle, e.payload())
}

// signWith signs with the private key of a file, and with the certificates of another if one is named.
func signWith(key, chain string, envelope []byte) ([]byte, error) {
	signer, kid, err := suit.LoadSigner(key)
	if err != nil {
		return nil, err
	}
	id, err := identity(suit.VerifyKey{KID: kid, Public: signer.Public()}, chain)
	if err != nil {
		return nil, err
	}
	return suit.Sign(envelope, signer, id)
}

func identity(k suit.VerifyKey, chain string) (id suit.Identity, err error) {
	id.Public, id.KID = k.Public, k.KID
	if chain != "" {
		id.Chain, err = suit.LoadChain(chain)
	}
	return id, err
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
			signer, err := publicIdentity(key, chain)
			if err != nil {
				return err
			}
			e, err := openEnvelope(args[0])
			if err != nil {
				return err
			}
			defer e.file.Close()
			message, err := suit.ToBeSigned(e.Envelope, signer)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if hashed {
				if message, err = suit.Hashed(message, signer.Public); err != nil {
					return err
				}
			}
			if output == "" {
				_, err = cmd.OutOrStdout().Write(message)
				return err
			}
			return os.WriteFile(output, message, 0o644)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "public key (PEM) of the signer")
	chainFlag(cmd, &chain)
	cmd.Flags().BoolVar(&hashed, "hashed", false, "write the digest that an ECDSA key signs")
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write (default: standard output)")
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

func newManifestAttachCommand() *cobra.Command {
	var key, chain, signature, output string
	cmd := &cobra.Command{
		Use:   "attach FILE",
		Short: "Put a signature that was made elsewhere into a manifest or a bundle",
		Long: `Put a signature over what "manifest digest" wrote into a manifest or a bundle. An ECDSA signature may be in ASN.1, as openssl makes it, or r and s one after the other, as
PKCS #11 has it. It is verified with the public key first. --chain is what it was for "manifest digest": the certificates are part of what is signed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			signer, err := publicIdentity(key, chain)
			if err != nil {
				return err
			}
			sig, err := readSignature(signature)
			if err != nil {
				return err
			}
			if output == "" {
				output = args[0]
			}
			return notVerified(changeEnvelope(args[0], output, func(envelope []byte) ([]byte, error) { return suit.Attach(envelope, signer, sig) }))
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
func publicIdentity(key, chain string) (id suit.Identity, err error) {
	keys, err := suit.LoadKeys(key)
	switch {
	case err != nil:
		return id, err
	case len(keys) != 1:
		return id, fmt.Errorf("public key %s: %d keys, want one", key, len(keys))
	case keys[0].CA != nil:
		return id, fmt.Errorf("public key %s: a certificate, want the key of the signer", key)
	}
	return identity(keys[0], chain)
}

// maxSignature bounds a file with a signature: one on P-521 in ASN.1 has up to 141 bytes.
const maxSignature = 1 << 10

func readSignature(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sig, err := io.ReadAll(io.LimitReader(f, maxSignature+1))
	if err == nil && len(sig) > maxSignature {
		err = errors.New("too large for a signature")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
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
			s, err := describeFile(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
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
	Integrated *shownPayload `json:"integrated,omitempty"`
}

// shownPayload is the image in a bundle.
type shownPayload struct {
	Payload string `json:"payload"`
	Offset  int64  `json:"offset"`
	Size    int64  `json:"size"`
}

func (s shown) String() string {
	if s.Integrated == nil {
		return s.Description.String()
	}
	return s.Description.String() + fmt.Sprintf("%-11s %s, %d bytes at %d\n", "integrated", s.Integrated.Payload, s.Integrated.Size, s.Integrated.Offset)
}

func describeFile(path string) (shown, error) {
	e, err := openEnvelope(path)
	if err != nil {
		return shown{}, err
	}
	defer e.file.Close()
	d, err := suit.Describe(e.Envelope)
	if err != nil {
		return shown{}, fmt.Errorf("%s: %w", path, err)
	}
	s := shown{Description: d}
	if e.Payload != "" {
		s.Integrated = &shownPayload{e.Payload, e.Offset, e.Size}
	}
	return s, nil
}

func newManifestVerifyCommand() *cobra.Command {
	var keys []string
	var image, at string
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
			said, err := verifyFile(args[0], keys, image, when)
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "public key (PEM) of a signer that is trusted, or certificate of an authority; may be repeated")
	cmd.Flags().StringVar(&image, "image", "", "the image")
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

// verifyFile returns what was verified.
func verifyFile(path string, keyFiles []string, image string, at time.Time) (string, error) {
	keys, err := suit.LoadKeys(keyFiles...)
	if err != nil {
		return "", err
	}
	e, err := openEnvelope(path)
	if err != nil {
		return "", notVerified(err)
	}
	defer e.file.Close()
	m, err := suit.Open(e.Envelope, keys, at)
	if err != nil {
		return "", notVerified(fmt.Errorf("%s: %w", path, err))
	}
	said := ""
	for _, t := range m.Targets() {
		i, err := m.Image(t.Device, t.Component)
		if err != nil {
			return "", err
		}
		what, err := verifyImages(e, image, i)
		if err != nil {
			return "", notVerified(err)
		}
		said += fmt.Sprintf("%s %v, sequence %d: %s", i.Component, i.Version, i.Sequence, what)
	}
	return said, nil
}

// verifyImages verifies the image in the bundle, and the one in a file, as far as they are there.
func verifyImages(e *envelopeFile, image string, i suit.Image) (string, error) {
	said := "signature is valid"
	if e.Payload != "" {
		if err := e.Carries(i); err != nil {
			return "", fmt.Errorf("%s: %w", e.file.Name(), err)
		}
		if err := i.Check(e.payload()); err != nil {
			return "", fmt.Errorf("%s: %w", e.file.Name(), err)
		}
		said += ", integrated image is the one that it describes"
	}
	if image != "" {
		f, err := os.Open(image)
		if err != nil {
			return "", err
		}
		defer f.Close()
		if err := i.Check(f); err != nil {
			return "", fmt.Errorf("%s: %w", image, err)
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

// envelopeFile is a file that holds an envelope, with a payload or without.
type envelopeFile struct {
	suit.Bundle
	file *os.File
}

// openEnvelope opens a file and reads the header. The file has to end where the envelope does.
func openEnvelope(path string) (*envelopeFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	h, _, err := suit.ReadHeader(f)
	if err == nil {
		err = endsAt(f, h.End())
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &envelopeFile{Bundle: h, file: f}, nil
}

func endsAt(f *os.File, end int64) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size != end {
		err = fmt.Errorf("%w: file of %d bytes, the envelope has %d", suit.ErrMalformed, size, end)
	}
	return err
}

// payload reads the payload.
func (e *envelopeFile) payload() io.Reader { return io.NewSectionReader(e.file, e.Offset, e.Size) }

// writeEnvelope writes an envelope, with the payload b from r if b has one, to a file. The file is replaced when everything is written, so that
// nobody finds half a bundle, and in and out may be the same file.
func writeEnvelope(path string, envelope []byte, b suit.Bundle, r io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if b.Payload == "" {
		_, err = f.Write(envelope)
	} else {
		err = suit.WriteBundle(f, envelope, b.Payload, b.Size, r)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
