// Command agent is an update agent in Go, on the client of this module. Package update does the same for whole bundles.
//
//	agent update COMPONENT MANIFEST IMAGE [--reboot]     MANIFEST is - for a component that takes bundles
//	agent accept
//	agent reject
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
)

func main() {
	args := os.Args[1:]
	reboot := len(args) == 5 && args[4] == "--reboot"
	isUpdate := len(args) >= 4 && args[0] == "update" && (len(args) == 4 || reboot)
	if !isUpdate && !slices.Equal(args, []string{"accept"}) && !slices.Equal(args, []string{"reject"}) {
		fmt.Fprintln(os.Stderr, "usage: agent update COMPONENT MANIFEST IMAGE [--reboot] | accept | reject")
		os.Exit(2)
	}
	err := run(context.Background(), args, reboot)
	var refused *fwu.Error
	switch {
	case err == nil:
		return
	case errors.As(err, &refused):
		fmt.Fprintf(os.Stderr, "%s.Error.%s: %v (%s)\n", dbus.Name, refused.Status.DBusName(), err, refused.Reason)
	default:
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string, reboot bool) (err error) {
	c, err := dbus.Dial(ctx, "system")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	a := agent{c, reboot}
	switch args[0] {
	case "accept":
		return c.Accept(ctx)
	case "reject":
		status, err := c.Reject(ctx, fwu.Rejection{})
		if err == nil && status == fwu.SuccessReboot {
			err = a.rebootNeeded(ctx)
		}
		return err
	}
	return a.update(ctx, args[1], args[2], args[3])
}

type agent struct {
	*dbus.Client
	reboot bool
}

func (a agent) update(ctx context.Context, name, manifestFile, imageFile string) (err error) {
	image, err := os.Open(imageFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	var manifest []byte // none in a call for a bundle, which has it in front
	var envelope io.ReaderAt = image
	if manifestFile != "-" {
		file, err := os.Open(manifestFile)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		if manifest, err = io.ReadAll(file); err != nil {
			return err
		}
		envelope = file
	}
	id, err := a.find(ctx, name)
	if err != nil {
		return err
	}
	info, err := a.Query(ctx, id)
	if err != nil {
		return err
	}
	state := info.State
	switch state {
	case fwu.Staged, fwu.Rejected: // nothing else can be done before
		if err := a.rebootNeeded(ctx); err != nil || a.reboot {
			return err
		}
		return fmt.Errorf("%s is %s", name, state)
	case fwu.Trial:
		return fmt.Errorf("%s is on trial: accept or reject it first", name)
	case fwu.Writing, fwu.Candidate:
		ours, err := startedWith(info, envelope)
		if err != nil {
			return err
		}
		if ours {
			break
		}
		fmt.Printf("%s: cancelling another update\n", name)
		if err := a.Cancel(ctx, id); err != nil {
			return err
		}
		if err := a.clean(ctx, id, name); err != nil {
			return err
		}
		state = fwu.Ready
	}
	switch state {
	case fwu.Ready:
		fmt.Printf("%s: starting\n", name)
		if err := a.Start(ctx, id, manifest); err != nil {
			return err
		}
		err = a.transfer(ctx, id, name, image, 0)
	case fwu.Writing:
		fmt.Printf("%s: continuing at %d\n", name, info.Impl.Written)
		err = a.transfer(ctx, id, name, image, info.Impl.Written)
	}
	if err != nil {
		return err
	}
	fmt.Println("installing")
	status, err := a.Install(ctx)
	if err != nil {
		return err
	}
	if status == fwu.SuccessReboot {
		return a.rebootNeeded(ctx)
	}
	return nil
}

// find cleans what earlier updates left behind, in every component, as they are installed as a whole; it returns the one with a name.
func (a agent) find(ctx context.Context, wanted string) (id fwu.ID, err error) {
	found := false
	for _, c := range a.Components() {
		info, err := a.Query(ctx, c.ID)
		if err != nil {
			return 0, err
		}
		if info.State == fwu.Failed || info.State == fwu.Updated {
			if err := a.clean(ctx, c.ID, c.Name); err != nil {
				return 0, err
			}
		}
		if c.Name == wanted {
			id, found = c.ID, true
		}
	}
	if !found {
		return 0, fmt.Errorf("this device has no component %s", wanted)
	}
	return id, nil
}

func (a agent) clean(ctx context.Context, id fwu.ID, name string) error {
	info, err := a.Query(ctx, id)
	if err != nil {
		return err
	}
	fmt.Printf("%s: cleaning: %s %s\n", name, info.Impl.Reason, info.Impl.Text)
	return a.Clean(ctx, id)
}

// startedWith tells whether the image in preparation was started with the manifest of an envelope.
func startedWith(info fwu.Info, envelope io.ReaderAt) (bool, error) {
	b, err := suit.NewBundle(io.NewSectionReader(envelope, 0, suit.MaxHeader))
	if err != nil {
		return false, err
	}
	m, err := suit.Unverified(b.Envelope)
	if err != nil {
		return false, err
	}
	return m.Digest().String() == info.Impl.ManifestDigest, nil
}

// transfer writes from an offset on. WriteFrom passes the descriptor of a file, and waits as long as it takes.
func (a agent) transfer(ctx context.Context, id fwu.ID, name string, image *os.File, offset int64) error {
	size, err := image.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := image.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	if offset != size {
		if _, err := a.WriteFrom(ctx, id, offset, image, 0); err != nil {
			return err
		}
	}
	fmt.Printf("%s: verifying\n", name)
	return a.Finish(ctx, id)
}

func (a agent) rebootNeeded(ctx context.Context) error {
	fmt.Println("a reboot is needed")
	if !a.reboot {
		return nil
	}
	return a.RequestReboot(ctx)
}
