package dbus

import (
	"context"
	"io"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Firmware is the update service as its callers see it. Server drives one, Client is one. Every error has a *fwu.Error in its chain, unless
// the context was at fault.
type Firmware interface {
	Observer
	Stager
	Installer
	Repairer
}

// Observer tells what there is. It never waits for an operation.
type Observer interface {
	Components() []fwu.ComponentInfo
	System() fwu.SystemInfo
	Query(ctx context.Context, id fwu.ID) (fwu.Info, error)
}

// Stager prepares the image of one component. A second operation on a component waits for the first, but for Cancel, which ends a running
// WriteFrom or Finish.
type Stager interface {
	// Start begins a preparation. An empty manifest is none.
	Start(ctx context.Context, id fwu.ID, manifest []byte) error
	Write(ctx context.Context, id fwu.ID, offset int64, block []byte) error
	// WriteFrom stores length bytes of r, all of it if length is 0. A blocked read is interrupted through SetReadDeadline if r has it.
	WriteFrom(ctx context.Context, id fwu.ID, offset int64, r io.Reader, length int64) (written int64, err error)
	Finish(ctx context.Context, id fwu.ID) error
	Cancel(ctx context.Context, id fwu.ID) error
}

// Installer decides over what was prepared.
type Installer interface {
	Install(ctx context.Context) (fwu.Status, error)
	Accept(ctx context.Context) error
	Reject(ctx context.Context, why fwu.Rejection) (fwu.Status, error)
	Clean(ctx context.Context, id fwu.ID) error
	RequestReboot(ctx context.Context) error
}

// Repairer ends a fault that waits for a decision.
type Repairer interface {
	Repair(ctx context.Context, what fwu.Repair) error
}
