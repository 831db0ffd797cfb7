package fwu

import (
	"context"
	"fmt"
	"hash"
	"io"

	"github.com/fwu-ab/fwu-ab/suit"
)

// ID identifies a component (psa_fwu_component_t).
type ID uint8

// State is a component's state (section 5.5.3 of the specification).
type State uint8

// The states, with the values of the specification.
const (
	Ready State = iota
	Writing
	Candidate
	Staged
	Failed
	Trial
	Rejected
	Updated
)

func (s State) String() string {
	names := [...]string{"READY", "WRITING", "CANDIDATE", "STAGED", "FAILED", "TRIAL", "REJECTED", "UPDATED"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Flags of a component (section 5.5.4).
const (
	FlagVolatileStaging uint32 = 1
	FlagEncryption      uint32 = 2
)

// Version is the version of an image (psa_fwu_image_version_t).
type Version = suit.Version

// Limits of Write, constants of this version of the API.
const (
	WriteAlignment = 4096
	MaxWriteSize   = 1 << 20
	// CheckpointInterval is how much of an image is written between two checkpoints, unless Config
	// says something else. An interruption costs twice as much at most: the last checkpoint is not
	// read back yet.
	CheckpointInterval = 16 << 20
)

// APIMajor and APIMinor are the version of the specification that is implemented.
const (
	APIMajor = 1
	APIMinor = 0
)

// Bank names a set of slots that is booted together.
type Bank string

// The banks. NoBank means: none, or not known.
const (
	NoBank Bank = ""
	BankA  Bank = "a"
	BankB  Bank = "b"
)

// Other is the other bank, NoBank for NoBank.
func (b Bank) Other() Bank {
	switch b {
	case BankA:
		return BankB
	case BankB:
		return BankA
	}
	return NoBank
}

// Index is the index of the bank's slots: 0 for a, 1 for b, -1 for NoBank.
func (b Bank) Index() int {
	switch b {
	case BankA:
		return 0
	case BankB:
		return 1
	}
	return -1
}

// BankOf is the bank of slot index i.
func BankOf(i int) Bank { return [2]Bank{BankA, BankB}[i] }

// ManifestMode says how the manifest of a component's image reaches the service.
type ManifestMode string

// The manifest modes.
const (
	Detached ManifestMode = "detached" // given to Start
	Bundled  ManifestMode = "bundled"  // a SUIT envelope with the image as integrated payload is written
	None     ManifestMode = "none"     // the client is trusted; nothing is checked
)

// Selection is what the boot selector says.
type Selection struct {
	Default Bank // started by a plain reset
	Trial   Bank // armed to be started once, by the next reset; NoBank if none
}

// Selector tells the bootloader which bank to start. Implementations: package bootctl and below.
type Selector interface {
	// Kind is the kind of selector, "uboot" or "efi".
	Kind() string
	// Read returns what the medium says. An error that wraps ErrNoSelection means that there is nothing valid to read
	// (and Commit may be able to create it); any other is an error of the medium.
	Read() (Selection, error)
	// Commit makes s the selection with one atomic write and reads it back from the medium. Committing what is there writes nothing,
	// but it makes whole again what a boot used up or others left beside the selection; the service commits once in each boot for that.
	// On an error the medium holds the old or the new selection, nothing else.
	Commit(s Selection) error
}

// Repairer is a Selector whose storage has copies of the selection, one of which can be damaged.
type Repairer interface {
	// Repair brings a damaged copy back, with what the valid one says. It writes nothing if there is no damaged or no valid one.
	Repair() error
}

// Limiter is a Selector that cannot make, on every device, each promise that others make.
type Limiter interface {
	// Limits are codes for the promises that it cannot make on this one, as LimitSingleCopy.
	Limits() []string
}

// LimitSingleCopy: the selection is kept in one copy, which a power cut in the middle of a commit
// can lose.
const LimitSingleCopy = "single-copy"

// Errors of Slot and Selector that the service has to tell from a failing medium. Implementations wrap them.
var (
	// ErrNoSelection: the selector's storage holds nothing valid.
	ErrNoSelection = constError("no valid boot selection")
	// ErrSlotBusy: the slot is mounted, swapped on, held by another driver or process, or booted from; the text names by whom.
	ErrSlotBusy = constError("slot is in use")
	// ErrReadOnly: the slot cannot be written, and that is known before anything is: the text says
	// why, and the next step.
	ErrReadOnly = constError("slot is read-only")
	// ErrReadBack: the medium returned something else than was written.
	ErrReadBack = constError("medium returned other data than was written")
)

type constError string

func (e constError) Error() string { return string(e) }

// SlotInfo identifies a slot.
type SlotInfo struct {
	ID   string // durable identity: "partuuid:" and the PARTUUID in lower case where there is one, else the configured path
	Path string // for people: device or file
	Size int64  // bytes
}

// Slot is one of the two locations of a component. Implementation: package partition. Safe for concurrent use.
type Slot interface {
	Info() SlotInfo
	// Open takes the slot exclusively, to be written. It fails with ErrSlotBusy if somebody else uses it in any way.
	Open(ctx context.Context) (Image, error)
	// Source opens the slot to copy the active image from it.
	Source(ctx context.Context) (Source, error)
	// Bootable looks at the head without a Head to compare with: false if it is empty, or masked content of a kind it knows.
	// With an error nothing is known of the head: it may be bootable or not.
	Bootable(ctx context.Context) (bool, error)
}

// MissingSlot stands for a slot that cannot be found. Nothing is written to its component, and
// nothing is asked of it that would need the slot; everything else works.
type MissingSlot struct {
	Path string // as it is configured
	Err  error  // why it cannot be found
}

var _ Slot = MissingSlot{}

// Info has the path alone.
func (m MissingSlot) Info() SlotInfo { return SlotInfo{Path: m.Path} }

// Open, Source and Bootable fail.
func (m MissingSlot) Open(context.Context) (Image, error)    { return nil, m.Err }
func (m MissingSlot) Source(context.Context) (Source, error) { return nil, m.Err }
func (m MissingSlot) Bootable(context.Context) (bool, error) { return false, m.Err }

// Source is an active image that is being copied.
type Source interface {
	// ReadAt is read with ReadFull: nothing of p counts if it returns an error.
	io.ReaderAt
	// Frozen returns nil while nobody can change the slot: it is not mounted, or mounted read-only. Else the error says why not.
	Frozen() error
	Close() error
}

// HeadSize is how much of a slot is sealed from its first byte on: no file system, table, kernel or
// container keeps its first superblock or header beyond it. An Image also seals the places where
// some formats have a second one.
const HeadSize = 128 << 10

// SectorSize is the unit that a medium writes whole or not at all when power is cut.
const SectorSize = 512

// Head is what is needed to tell masked from plain, sector by sector, and to check the whole: kept in the store while a slot is sealed.
type Head struct {
	// Bits holds the lowest bit of the first byte of each plain sector, sector n in bit n%8 of byte n/8. A masked sector has every bit inverted.
	Bits []byte `json:"bits"`
	// Sectors is the number of sectors: those of the image, rounded up to 4096 bytes, HeadSize at most.
	Sectors int `json:"sectors"`
	// SHA256 is the digest of the plain sectors.
	SHA256 []byte `json:"sha256"`
}

// HeadState is what a slot's head was found to be.
type HeadState uint8

// The states of a head.
const (
	HeadUnknown HeadState = iota // it could not be read, or nobody looked: it may be any of the others
	HeadOther                    // neither of the others: destroyed, or never written
	HeadMasked                   // every sector masked, and each second header that a format has outside of the head
	HeadMixed                    // some masked, some plain: an unmasking that was cut
	HeadPlain                    // every sector plain
)

// Image is a slot held exclusively, and the image that is prepared in it. The first HeadSize bytes are stored masked; every
// offset and every digest below is of the image as the client knows it. Not safe for concurrent use.
type Image interface {
	Writer
	Sealer
	// Erase destroys the head, then the rest: by discard where the device offers it, and in any case so that the old image cannot be mounted.
	// It is idempotent. progress may be nil.
	Erase(ctx context.Context, progress func(done, total int64)) error
	// Counts tells what became of the bytes of the image since the slot was opened. It may be called at any time.
	Counts() Counts
	// Close gives the slot up. What was not synced is lost.
	Close() error
}

// Counts are bytes of an image that is being written: what became of them since its slot was opened. After an interruption they begin anew.
type Counts struct {
	Received int64 // taken from the client, of what it writes; an Image does not know
	Equal    int64 // not written, as the medium has them
	Zeroed   int64 // zeroes that the medium was told to have
	Written  int64 // written
	ReadBack int64 // read back and compared with what was written
}

// Writer writes an image and believes nothing that the medium did not return.
type Writer interface {
	// Resume declares [0,n) written earlier: it is read from the medium and hashed with h, which is the Writer's from then on. n need not be aligned.
	// With n = 0 it begins anew.
	Resume(ctx context.Context, h hash.Hash, n int64) error
	// WriteAt stores p at off, a multiple of WriteAlignment or the end of the write before it. A tail that is no multiple of WriteAlignment is padded
	// with zeroes when it is synced. It may buffer, and return before p is stored: an error may be that of a write before. p is not used after it.
	WriteAt(ctx context.Context, p []byte, off int64) error
	// Space returns memory for bytes that belong at off: WriteAt does not copy them. It is nil
	// unless off is the end of the write before, or of the part that Resume was told of. It is
	// valid until the next call, and for WriteAt at off only: WriteAt refuses it elsewhere. WriteAt
	// takes other memory anywhere.
	Space(off int64) []byte
	// Sync makes everything written durable and reads it back from the medium: ErrReadBack if that differs. It returns the length of the prefix
	// of the image that is durable, read back and hashed. After an error everything since the last good Sync is void: the caller goes on from that prefix, after Resume.
	Sync(ctx context.Context) (prefix int64, err error)
	// Checkpoint makes durable what was stored, and leaves it to the writes that follow to have it read back. The prefix is that of the Checkpoint before: read back meanwhile.
	// What is buffered is not stored.
	Checkpoint(ctx context.Context) (prefix int64, err error)
	// Sum syncs, and returns the digest of the first size bytes as the medium returns them, with what identifies their head.
	// Parts that were read back and hashed in order since Resume are not read again.
	Sum(ctx context.Context, size int64, progress func(done, total int64)) (digest []byte, head Head, err error)
}

// Sealer changes the head. Each method is durable and read back when it returns, idempotent, and can be called again after a cut.
type Sealer interface {
	// Destroy overwrites the head with zeroes.
	Destroy(ctx context.Context) error
	// Seal masks each sector of the head that is plain.
	Seal(ctx context.Context, h Head) error
	// Unseal makes each sector of the head plain that is masked. ErrReadBack if the result does not have h's digest.
	Unseal(ctx context.Context, h Head) error
	// HeadState returns the state of the head. A head that cannot be read is HeadUnknown, and the
	// error of the medium.
	HeadState(ctx context.Context, h Head) (HeadState, error)
}

// System is what the service asks of the machine around it.
type System interface {
	// Reboot asks for a reboot through the bootloader, never by kexec. It returns when the request was accepted.
	Reboot(ctx context.Context) error
	// Link makes /run/fwu-ab/slots/<name> point to device, and tells whether it was changed. Atomic.
	Link(ctx context.Context, name, device string) (changed bool, err error)
	// Restart restarts a unit and waits for the outcome.
	Restart(ctx context.Context, unit string) error
}

// Inhibitor is a System that can be kept from going down or to sleep. It is asked to while a decision is committed, which takes moments: an install at its end, accept and reject.
type Inhibitor interface {
	// Inhibit does so until release is called.
	Inhibit(ctx context.Context, why string) (release func(), err error)
}

// Boot is the evidence about the running system.
type Boot struct {
	ID   string // the kernel's boot id
	Bank Bank   // bank that it was booted from; NoBank if the evidence is missing or contradicts itself
	Why  string // for people: where the bank is known from, or why it is not
}

// ReleaseRecord is what the running image says of itself, per component name: the content of /usr/lib/fwu-ab/release.
type ReleaseRecord map[string]Release

// Release is the version and the sequence number of one component's image.
type Release struct {
	Version  Version
	Sequence uint64
}

// Component describes one component to the service.
type Component struct {
	ID       ID
	Name     string
	Live     bool // installed without a reboot
	Trial    bool // of a live component; a bank member has that of the bank
	Volatile bool // staging does not survive a reboot
	Manifest ManifestMode
	Slots    [2]Slot
	Unit     string          // unit that is restarted when a live component's image changes; may be empty
	Device   suit.Device     // what a manifest must be for
	Keys     suit.VerifyKeys // trust anchors
	// Anchors reads the trust anchors anew, when a manifest is verified and before an image is
	// installed; nil: Keys do not change.
	Anchors func() (suit.VerifyKeys, error)
	// Signatures is how many different keys have to sign a manifest; 0 is 1.
	Signatures int
}
