package fwu

import (
	"context"
	"errors"
)

// Second is the image in the second slot of a component, as far as it is known: the one that waits
// (WRITING, CANDIDATE, STAGED), that was given up (FAILED), or that ran before (TRIAL, REJECTED,
// UPDATED).
type Second struct {
	Version   Version
	Digest    string // algorithm:hex; while it is WRITING, the one that its manifest demands
	Manifest  string // sha256:hex of its manifest; empty if it has none
	Sequence  uint64
	Signer    string // who signed the manifest: the subject of a certificate, or a key
	By        Client // who started its preparation
	Blocked   string // of a CANDIDATE, for people: the lack that stops Install; empty if none
	BlockedBy []ID   // the components that Blocked is about
}

type clientKey struct{}

// WithClient returns a context that tells Start on whose behalf it is called.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

func clientOf(ctx context.Context) *Client {
	if c, ok := ctx.Value(clientKey{}).(Client); ok && c.Name != "" {
		return &c
	}
	return nil
}

// secondOf returns the facts known of the image in the second slot of c.
func secondOf(r *record, all []*component, c *component) (out Second) {
	cr := r.Components[c.Name]
	img := cr.next()
	out = Second{Version: img.Version, Digest: img.Digest, Manifest: img.Manifest, Sequence: img.Sequence, Signer: img.Signer}
	if img.By != nil {
		out.By = *img.By
	}
	if cr.State != Candidate {
		return out
	}
	err := othersWait(r, all, c)
	if err == nil {
		err = dependencies(r, c, cr)
	}
	var e *Error
	if errors.As(err, &e) {
		out.Blocked, out.BlockedBy = e.Error(), e.Components
	}
	return out
}
