// Package suit reads, verifies, evaluates, makes and signs SUIT envelopes (draft-ietf-suit-manifest-37) for devices to which images are pushed: the manifest
// says what images must be, and for which device; it never makes the device fetch anything. The package knows no device and no service.
//
// A device uses two functions. [Open] takes an envelope and the trust anchors, and returns a [Manifest] only if it is authentic and of the profile;
// [Manifest.Evaluate] says what it demands of that device: images for components, versions, a charge of the battery. Where envelope and image arrive as one stream, [ReadHeader] comes
// first. A client that has a bundle for several components takes it apart with [NewBundle].
//
// The profile (docs/manifest.md has it in full):
//   - One manifest describes the images of one or several components, which are one update, and what that update needs of other components.
//   - The encoding is deterministic CBOR (RFC 8949, section 4.2.1): definite and shortest lengths, sorted keys, nothing twice, nothing trailing.
//   - The manifest is authenticated by SHA-256, SHA-384 or SHA-512 and up to eight COSE_Sign1 (RFC 9052) with ECDSA on P-256, P-384 or P-521, or Ed25519. One by a
//     trust anchor, or by who has a certificate of one (RFC 9360), is enough.
//   - Command sequences are run by the draft's abstract machine. What copies, swaps, loads or invokes, depends on other manifests, or is not known, is refused by name and never skipped; except for
//     the members suit-reference-uri, suit-text and suit-coswid of a manifest, which a recipient does not need, as the drafts say.
//
// Labels come from the draft and, for versions and the battery, from draft-ietf-suit-update-management-14. Two parameters are private: image-version (-257) and payload-compression (-258).
package suit

import "fmt"

// MaxHeader bounds an envelope without its integrated payload. Nothing larger is read or made.
const MaxHeader = 64 << 10

// Bounds within an envelope; anything above is refused before memory is taken for it.
const (
	maxComponents = 16
	maxName       = 64
	maxKID        = 64
	maxSignatures = 8
)

type constError string

func (e constError) Error() string { return string(e) }

// The decisions that a caller can take. Every error of Open, Header and Manifest.Image wraps one of them.
const (
	// ErrMalformed: the bytes are no envelope or manifest of the profile.
	ErrMalformed = constError("malformed manifest")
	// ErrUnsupported: valid SUIT that the profile does not have. The text names it.
	ErrUnsupported = constError("not supported in a manifest")
	// ErrSignature: not signed, not by one of the keys, or changed since.
	ErrSignature = constError("manifest signature not valid")
	// ErrComponent: the manifest describes no image of this component.
	ErrComponent = constError("manifest is for another component")
	// ErrVendor: the manifest is for devices of another vendor.
	ErrVendor = constError("manifest is for another vendor")
	// ErrClass: the manifest is for another class of device.
	ErrClass = constError("manifest is for another device class")
	// ErrDevice: the manifest is for another device.
	ErrDevice = constError("manifest is for another device")
	// ErrCondition: the manifest asks for something else that the device is not.
	ErrCondition = constError("condition of the manifest is not met")
	// ErrImage: an image is not the one that the manifest describes.
	ErrImage = constError("image is not that of the manifest")
	// ErrShort: Header needs more of the stream.
	ErrShort = constError("header is not complete")
)

// ErrEnded: a stream ended before the envelope did. It is an ErrMalformed.
const ErrEnded = constError("ends early")

func ended(what string, at int64) error {
	return fmt.Errorf("%w: %s %w, after %d bytes", ErrMalformed, what, ErrEnded, at)
}

// Why a signature is not valid. Each is an ErrSignature.
const (
	// ErrEncrypted: a private key is protected by a passphrase.
	ErrEncrypted = constError("the key is encrypted")
	// ErrUnsigned: nobody signed the manifest.
	ErrUnsigned = constError("the manifest is not signed")
	// ErrSigners: fewer keys signed than are required.
	ErrSigners = constError("signed by too few keys")
	// ErrUnknownSigner: no trust anchor has the key.
	ErrUnknownSigner = constError("signed by nobody who is trusted")
	// ErrCertificate: a certificate of the signer is refused: it is not valid at the time, for
	// another use, or of an authority that is not trusted.
	ErrCertificate = constError("certificate of the signer refused")
)

// signatureError is an ErrSignature with its cause, which the text says in more words.
type signatureError struct {
	cause error
	text  string
}

func (e *signatureError) Error() string { return ErrSignature.Error() + ": " + e.text }

func (e *signatureError) Unwrap() []error { return []error{ErrSignature, e.cause} }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)
}
