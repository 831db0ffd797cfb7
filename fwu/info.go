package fwu

import (
	"fmt"
	"time"
)

// Info is what Query answers (psa_fwu_component_info_t): one consistent snapshot of a component.
type Info struct {
	State    State
	Error    Status // meaningful in FAILED and REJECTED
	Version  Version
	MaxSize  int64
	Flags    uint32
	Location uint32 // index of the active slot: 0 = a, 1 = b
	Impl     Impl
}

// Impl is the part of Info that is the implementation's.
type Impl struct {
	Written        int64  // durable bytes of what is being written: where a transfer continues
	ImageSize      int64  // size of the image in preparation, 0 if unknown
	Prepared       int64  // how many bytes of that image were taken, decompressed: a share of ImageSize, unlike Written
	ManifestDigest string // sha256:hex of the manifest that the image in preparation was started with
	Digest         string // algorithm:hex of the active image, empty if unknown
	ActiveSlot     string // device path
	SecondSlot     string
	Sequence       uint64 // rollback floor
	// how many different keys have to sign a manifest; 0: none, there is no manifest
	Signatures int
	// when the component came into its state, in seconds since 1970; 0 if that is not known
	Since  int64
	Reason Reason // behind State or Error; empty if there is nothing to say
	Text   string // the same for people
	// why nothing is written to the component: config-differs, slot-missing, slot-resized; empty if
	// it may be
	ReadOnly     Reason
	ReadOnlyText string          // the same for people
	Counts       Counts          // of the image in preparation
	ActiveErrors MediumErrors    // of the active slot's medium
	SecondErrors MediumErrors    // of the second slot's medium
	StoreErrors  [2]MediumErrors // of the copies of the record
	Operation    string          // "", "write", "finish", "clean", "install"
	Done, Total  int64           // progress of it, in bytes; Total 0 if unknown
	Second       Second          // the image in the second slot
	// another one that prepares the component; a Service knows none, a client of one is told
	Client Client
}

// Client is an update client that is connected to the service.
type Client struct {
	Name  string `json:"name"`            // of its unit or program; empty: there is no client
	PID   uint32 `json:"pid,omitempty"`   // 0 if it is not known
	Since int64  `json:"since,omitempty"` // when it began, in seconds since 1970
}

// String names the client for people.
func (c Client) String() string {
	s := c.Name
	if c.PID != 0 {
		s += fmt.Sprintf(" (pid %d)", c.PID)
	}
	if c.Since != 0 {
		s += time.Unix(c.Since, 0).Format(", since 15:04:05 on 2006-01-02")
	}
	return s
}

// ComponentInfo is what never changes while the service runs.
type ComponentInfo struct {
	ID       ID
	Name     string
	Manifest ManifestMode
	Live     bool
}

// Activation is "bank" or "live".
func (c ComponentInfo) Activation() string {
	if c.Live {
		return "live"
	}
	return "bank"
}

// SystemInfo is the state of the whole.
type SystemInfo struct {
	Selector string // kind of the selector, empty if every component is live
	Booted   Bank   // by evidence
	Default  Bank   // as last read from the selector
	Trial    Bank   // armed for a trial, or running in one
	Degraded []Reason
	Why      []string // for people, one text for each of Degraded
	Limits   []string // see Limiter
}

// The names of the operations that Info reports and that OperationFinished tells the end of.
const (
	OpWrite   = "write"
	OpFinish  = "finish"
	OpClean   = "clean"
	OpInstall = "install"
)
