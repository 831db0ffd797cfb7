package capi_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/capi"
)

// TestExamples runs the use cases of the specification's appendix B against the real service.
func TestExamples(t *testing.T) {
	library := capi.Build(t, root, "gcc")
	fwuab := program(t)
	examples := map[string]string{}
	for _, name := range []string{"versions", "one-block", "many-blocks", "together", "clean-all"} {
		examples[name] = library.Program(t, "examples/c-api/"+name+".c")
	}
	driver := library.Program(t, "psa/tests/driver.c")
	drive := func(b *bed) *capi.Driver {
		b.Helper()
		d, err := capi.Drive(b.bus, driver)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := d.Close(); err != nil {
				b.Error(err)
			}
		})
		return d
	}
	state := func(b *bed, d *capi.Driver, id fwu.ID, want fwu.State) fwu.Info {
		b.Helper()
		i, err := d.Query(context.Background(), id)
		if err != nil || i.State != want {
			b.Fatalf("component %d: %v, %v, want %v", id, i.State, err, want)
		}
		return i
	}

	t.Run("one block, no manifest, then given up", func(t *testing.T) {
		b := newBed(t, fwuab, "none")
		d := drive(b)
		b.run(examples["one-block"], "0", "small.img")
		<-b.reboots
		state(b, d, 0, fwu.Staged)
		b.run(examples["clean-all"])
		state(b, d, 0, fwu.Ready)
		b.run(examples["one-block"], "0", "small.img")
		b.reboot(1, "b")
		state(b, d, 0, fwu.Trial)
		b.run(examples["clean-all"])
		state(b, d, 0, fwu.Rejected)
		b.reboot(2, "a")
		if i := state(b, d, 0, fwu.Failed); i.Impl.Reason != fwu.ReasonRejected {
			t.Errorf("reason %q", i.Impl.Reason)
		}
		b.run(examples["clean-all"])
		state(b, d, 0, fwu.Ready)
	})
	t.Run("many blocks, bundled manifest", func(t *testing.T) {
		b := newBed(t, fwuab, "bundled")
		d := drive(b)
		b.run(examples["many-blocks"], "0", b.bundle("rootfs", "large.img", "2.3.4", "2"))
		b.reboot(1, "b")
		state(b, d, 0, fwu.Trial)
		if err := d.Accept(context.Background()); err != nil {
			t.Fatal(err)
		}
		if out := b.run(examples["versions"]); out != "0: 2.3.4+0\n" {
			t.Error(out)
		}
		b.run(examples["clean-all"])
		state(b, d, 0, fwu.Ready)
		b.fails("status -133", examples["many-blocks"], "0", b.bundle("rootfs", "small.img", "1.0.0", "1")) // a rollback
		b.run(examples["clean-all"])
		state(b, d, 0, fwu.Ready)
	})
	t.Run("many blocks, detached manifest", func(t *testing.T) {
		b := newBed(t, fwuab, "detached")
		b.run(examples["many-blocks"], "0", "large.img", b.manifest("rootfs", "large.img", "2.3.4", "2"))
		<-b.reboots
		state(b, drive(b), 0, fwu.Staged)
	})
	t.Run("together", func(t *testing.T) {
		b := newBed(t, fwuab, "bundled", "none")
		d := drive(b)
		b.fails("status -", examples["together"], "0", b.bundle("rootfs", "large.img", "2.0.0", "2"), "1", "release.key", "7", "small.img")
		state(b, d, 0, fwu.Ready)
		state(b, d, 1, fwu.Ready)
		b.run(examples["together"], "0", "rootfs-2.0.0.suit", "1", "small.img")
		state(b, d, 0, fwu.Staged)
		b.reboot(1, "b")
		state(b, d, 0, fwu.Trial)
		state(b, d, 1, fwu.Trial)
		if out := b.run(examples["versions"]); !strings.HasPrefix(out, "0: 2.0.0+0\n1: ") {
			t.Error(out)
		}
	})
}

// TestLibrary runs programs that look for mistakes, and a whole update with blocks in any order, against the real service; plain, with sanitizers and under valgrind.
func TestLibrary(t *testing.T) {
	fwuab := program(t)
	for _, how := range []struct {
		name, cc string
		flags    []string
		under    []string
	}{
		{"gcc", "gcc", nil, nil},
		{"clang", "clang", nil, nil},
		{"sanitizers", "gcc", []string{"-fsanitize=address,undefined", "-fno-sanitize-recover=all"}, nil},
		{"valgrind", "gcc", nil, []string{"valgrind", "-q", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite,possible", "--show-leak-kinds=definite,possible"}},
	} {
		t.Run(how.name, func(t *testing.T) {
			capi.Need(t, append([]string{how.cc}, how.under...)[:min(1+len(how.under), 2)]...)
			library := capi.Build(t, root, how.cc, how.flags...)
			b := newBed(t, fwuab, "none", "bundled")
			exercise(b, library, how.under...)
		})
	}
}

// exercise runs the programs, under another one that is given, on a device whose component 0 has no manifest and whose component 1 has bundles.
func exercise(b *bed, library *capi.Library, under ...string) {
	b.Helper()
	for _, name := range []string{"arguments", "threads"} {
		if out := b.run(append(slices.Clone(under), library.Program(b, "psa/tests/"+name+".c"), "0")...); out != "" {
			b.Errorf("%s: %s", name, out)
		}
	}
	d, err := capi.Drive(b.bus, append(slices.Clone(under), library.Program(b, "psa/tests/driver.c"))...)
	if err != nil {
		b.Fatal(err)
	}
	anyOrder(b, d)
	inOrder(b, d)
	if err := d.Close(); err != nil {
		b.Error(err)
	}
}

// anyOrder writes an image without a manifest from its end to its beginning, with the service going away and coming back.
func anyOrder(b *bed, d *capi.Driver) {
	b.Helper()
	ctx := context.Background()
	image := pattern(2_700_001)
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	must(d.Start(ctx, 0, nil))
	for off := len(image) / fwu.MaxWriteSize * fwu.MaxWriteSize; off >= 0; off -= fwu.MaxWriteSize {
		must(d.Write(ctx, 0, int64(off), image[off:min(off+fwu.MaxWriteSize, len(image))]))
	}
	must(d.Finish(ctx, 0))
	counted, err := d.Query(ctx, 0)
	must(err)
	if n := counted.Impl.Counts; n.Received != int64(len(image)) || n.Equal+n.Zeroed+n.Written < n.Received || n.ReadBack != n.Zeroed+n.Written {
		b.Fatalf("%d bytes came, and %+v", len(image), n)
	}
	b.stop()
	if _, err := d.Query(ctx, 0); fwu.StatusOf(err) != fwu.CommunicationFailure {
		b.Fatalf("no service: %v", err)
	}
	b.start()
	i, err := d.Query(ctx, 0)
	must(err)
	if i.State != fwu.Candidate || i.MaxSize != 4<<20 || i.Impl.SecondSlot == "" {
		b.Fatalf("%+v", i)
	}
	must(d.Cancel(ctx, 0))
	must(d.Clean(ctx, 0))
}

// inOrder writes an image that is bundled with its manifest: a gap is refused, and it goes on.
func inOrder(b *bed, d *capi.Driver) {
	b.Helper()
	ctx := context.Background()
	stream, err := os.ReadFile(b.path(b.bundle("bootfw", "large.img", "2.0.0", "2")))
	if err != nil {
		b.Fatal(err)
	}
	if err := d.Start(ctx, 1, stream[:100]); fwu.StatusOf(err) != fwu.InvalidArgument {
		b.Fatalf("start with a manifest: %v", err)
	}
	if err := d.Start(ctx, 1, nil); err != nil {
		b.Fatal(err)
	}
	if err := d.Write(ctx, 1, fwu.MaxWriteSize, stream[fwu.MaxWriteSize:2*fwu.MaxWriteSize]); fwu.StatusOf(err) != fwu.InvalidArgument {
		b.Fatalf("a gap: %v", err)
	}
	for off := 0; off < len(stream); off += fwu.MaxWriteSize {
		if err := d.Write(ctx, 1, int64(off), stream[off:min(off+fwu.MaxWriteSize, len(stream))]); err != nil {
			b.Fatal(err)
		}
	}
	if err := d.Finish(ctx, 1); err != nil {
		b.Fatal(err)
	}
	if i, err := d.Query(ctx, 1); err != nil || i.State != fwu.Candidate || !strings.HasPrefix(i.Impl.ManifestDigest, "sha256:") {
		b.Fatalf("%+v, %v", i, err)
	} else if s := i.Impl.Second; s.Version != (fwu.Version{Major: 2}) || !strings.HasPrefix(s.Digest, "sha256:") || s.Manifest != i.Impl.ManifestDigest ||
		!strings.HasPrefix(s.Signer, "key ") || s.By.Name == "" || s.By.Since == 0 || s.Blocked != "" {
		b.Fatalf("the candidate is %+v", s)
	}
}

// TestDependencyThatIsMissing: a client that gets DEPENDENCY_NEEDED finds which components stand in
// the way, in impl and in the journal.
func TestDependencyThatIsMissing(t *testing.T) {
	b := newBed(t, program(t), "bundled", "none")
	d := drive(t, b.bus)
	ctx := t.Context()
	stream, err := os.ReadFile(b.path(b.manifest("rootfs", "small.img", "2.0.0", "2", "--bundle", "--depends", "bootfw>=9.0.0")))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Start(ctx, 0, nil), d.Write(ctx, 0, 0, stream), d.Finish(ctx, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Install(ctx); fwu.StatusOf(err) != fwu.DependencyNeeded {
		t.Fatal(err)
	}
	i, err := d.Query(ctx, 0)
	if err != nil || !slices.Equal(i.Impl.Second.BlockedBy, []fwu.ID{1}) || !strings.Contains(i.Impl.Second.Blocked, "rootfs needs bootfw>=9.0.0") {
		t.Errorf("%+v, %v", i.Impl.Second, err)
	}
	b.stop() // its log is complete
	if log := b.log.String(); !strings.Contains(log, "event=not-installed") || !strings.Contains(log, "needs=bootfw") {
		t.Errorf("the log does not tell: %s", log)
	}
}

// TestCancelInAnotherThread: the finish that it ends reads an image that is large, and nearly all of it a hole.
func TestCancelInAnotherThread(t *testing.T) {
	library := capi.Build(t, root, "gcc")
	const size = 1 << 30
	b := newBedOn(t, privatebus.ForTest(t), program(t), size, "none")
	d := drive(t, b.bus)
	ctx := t.Context()
	if err := errors.Join(d.Start(ctx, 0, nil), d.Write(ctx, 0, 0, pattern(4096)), d.Write(ctx, 0, size-4096, pattern(4096))); err != nil {
		t.Fatal(err)
	}
	client, err := dbus.Dial(ctx, b.bus)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	events, err := client.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cmd := b.command(library.Program(t, "psa/tests/cancel.c"), "0")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	finished := false
	for e := range events {
		if finished = e.Finished == fwu.OpFinish; finished {
			if e.Status != fwu.BadState || e.Reason != fwu.ReasonCancelled {
				t.Errorf("the finish ended with %v, %q, %s", e.Status, e.Reason, e.Text)
			}
			break
		}
		if e.Component == 0 && e.Info.Impl.Operation == fwu.OpFinish {
			_ = in.Close() // now it cancels
		}
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil || said.Len() > 0 || !finished {
		t.Fatalf("%v, finished: %v\n%s", err, finished, &said)
	}
	if i, err := d.Query(ctx, 0); err != nil || i.State != fwu.Failed || i.Impl.Reason != fwu.ReasonCancelled {
		t.Errorf("%v, %q, %v", i.State, i.Impl.Reason, err)
	}
}

// TestOrdinaryUser: who is neither root nor known to polkit may query.
func TestOrdinaryUser(t *testing.T) {
	library := capi.Build(t, root, "gcc")
	b := newBedOn(t, systemBus(t), program(t), 4<<20, "none")
	driver := library.Program(t, "psa/tests/driver.c")
	if err := errors.Join(os.Chmod(library.Dir, 0o755), os.Chmod(filepath.Dir(library.Dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	user, err := capi.Drive(b.bus, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", driver)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if i, err := user.Query(ctx, 0); err != nil || i.State != fwu.Ready {
		t.Errorf("query: %v, %v", i.State, err)
	}
	_, install := user.Install(ctx)
	_, reject := user.Reject(ctx, fwu.Rejection{})
	for name, err := range map[string]error{
		"start": user.Start(ctx, 0, nil), "write": user.Write(ctx, 0, 0, pattern(100)), "finish": user.Finish(ctx, 0), "cancel": user.Cancel(ctx, 0), "clean": user.Clean(ctx, 0),
		"install": install, "reject": reject, "accept": user.Accept(ctx), "request_reboot": user.RequestReboot(ctx),
	} {
		if fwu.StatusOf(err) != fwu.NotPermitted {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := user.Close(); err != nil {
		t.Error(err)
	}
	if err := drive(t, b.bus).Start(ctx, 0, nil); err != nil {
		t.Errorf("start by root: %v", err)
	}
}
