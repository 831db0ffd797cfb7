package dbus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fwu-ab/fwu-ab/fwu"
)

func TestClientCallsWhatTheServiceOffers(t *testing.T) {
	s := serve(t, Options{})
	c := s.client(t)
	ctx := t.Context()

	if diff := cmp.Diff(s.Components(), c.Components()); diff != "" {
		t.Errorf("components (-service +client):\n%s", diff)
	}
	if diff := cmp.Diff(s.System(), c.System(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("system (-service +client):\n%s", diff)
	}
	steps := []struct {
		name string
		call func() error
		want string
	}{
		{"start with a manifest", func() error { return c.Start(ctx, 0, []byte("m")) }, `start 0 "m"`},
		{"start without", func() error { return c.Start(ctx, 7, nil) }, `start 7 ""`},
		{"write", func() error { return c.Write(ctx, 0, 0, make([]byte, 4096)) }, "write 0 0 4096"},
		{"write nothing", func() error { return c.Write(ctx, 0, 4096, nil) }, "write 0 4096 0"},
		{"write the largest block", func() error { return c.Write(ctx, 0, 0, make([]byte, fwu.MaxWriteSize)) }, "write 0 0 1048576"},
		{"finish", func() error { return c.Finish(ctx, 0) }, "finish 0"},
		{"cancel", func() error { return c.Cancel(ctx, 0) }, "cancel 0"},
		{"clean", func() error { return c.Clean(ctx, 7) }, "clean 7"},
		{"install", func() error { return wantStatus(fwu.SuccessReboot)(c.Install(ctx)) }, "install"},
		{"accept", func() error { return c.Accept(ctx) }, "accept"},
		{"reject", func() error { return wantStatus(fwu.SuccessReboot)(c.Reject(ctx, fwu.Rejection{Error: -77})) }, "reject -77"},
		{"reject for a reason", func() error {
			return wantStatus(fwu.SuccessReboot)(c.Reject(ctx, fwu.Rejection{Reason: fwu.ReasonTrialCheck, Text: "no network"}))
		}, `reject 0 trial-check "no network"`},
		{"reboot", func() error { return c.RequestReboot(ctx) }, "reboot"},
		{"repair", func() error { return c.Repair(ctx, fwu.RepairRecord) }, "repair record"},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			if err := step.call(); err != nil {
				t.Fatal(err)
			}
			all := s.recorded()
			if got := all[len(all)-1]; got != step.want {
				t.Errorf("service was asked to %q, want %q", got, step.want)
			}
		})
	}
}

func wantStatus(want fwu.Status) func(fwu.Status, error) error {
	return func(got fwu.Status, err error) error {
		if err == nil && got != want {
			return errors.New("status is " + got.String())
		}
		return err
	}
}

func TestQueryCarriesEverything(t *testing.T) {
	s := serve(t, Options{})
	c := s.client(t)
	want := fwu.Info{
		State: fwu.Failed, Error: fwu.InvalidSignature, Version: fwu.Version{Major: 255, Minor: 254, Patch: 65535, Build: 1<<32 - 1},
		MaxSize: 1<<63 - 1, Flags: 3, Location: 1,
		Impl: fwu.Impl{
			Written: 1 << 40, ImageSize: 1 << 41, ManifestDigest: "sha256:aa", Digest: "sha256:bb", ActiveSlot: "/dev/a", SecondSlot: "/dev/b",
			Second: fwu.Second{Version: fwu.Version{Major: 1}, Digest: "sha256:cc", Manifest: "sha256:dd", Sequence: 1 << 63, Signer: "CN=you", By: fwu.Client{Name: "a.service", PID: 7, Since: 9},
				Blocked: "needs", BlockedBy: []fwu.ID{3, 255}},
			ActiveErrors: fwu.MediumErrors{Read: 5, Write: 6, Flush: 7}, SecondErrors: fwu.MediumErrors{Read: 8, Write: 9, Flush: 10},
			StoreErrors: [2]fwu.MediumErrors{{Read: 11, Write: 12, Flush: 13, Retried: 14}, {Read: 1<<64 - 1}},
			Sequence:    1<<64 - 1, Reason: fwu.ReasonManifestSignature, Text: "bad", Operation: fwu.OpWrite, Done: 3, Total: 4,
		},
	}
	s.set(7, func(i *fwu.Info) { *i = want })
	got, err := c.Query(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("info (-service +client):\n%s", diff)
	}
	if _, err := c.Query(t.Context(), 9); !errors.Is(err, fwu.DoesNotExist) || fwu.ReasonOf(err) != fwu.ReasonNoSuch {
		t.Errorf("component that is not configured: %v", err)
	}
}

func TestErrorsTravel(t *testing.T) {
	s := serve(t, Options{})
	c := s.client(t)
	for status := fwu.Status(-200); status < 0; status++ {
		if _, known := fwu.StatusFromDBus(status.DBusName()); !known {
			t.Fatalf("%v has no name", status)
		}
		sent := &fwu.Error{Status: status, Reason: fwu.ReasonDependency, Text: "text \xff\x00 of it", Components: []fwu.ID{3, 255}, Err: errors.New("cause")}
		s.mu.Lock()
		s.fail = sent
		s.mu.Unlock()
		err := c.Finish(t.Context(), 0)
		var got *fwu.Error
		if !errors.As(err, &got) {
			t.Fatalf("%v: no fwu.Error in %v", status, err)
		}
		want := &fwu.Error{Status: status, Reason: fwu.ReasonDependency, Text: "text \uFFFD\uFFFD of it: cause", Components: []fwu.ID{3, 255}}
		if status.DBusName() == "GenericError" {
			want.Status = fwu.GenericError
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v (-sent +received):\n%s", status, diff)
		}
	}
}

func TestWriteFrom(t *testing.T) {
	image := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, image, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(t *testing.T) io.Reader {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	tests := []struct {
		name   string
		source func(t *testing.T) io.Reader
		length int64
		want   []byte
	}{
		{"a file to its end", open, 0, image},
		{"a part of a file", open, 4096, image[:4096]},
		{"a file from where it stands", func(t *testing.T) io.Reader {
			f := open(t)
			_, _ = f.(*os.File).Seek(4096, io.SeekStart)
			return f
		}, 0, image[4096:]},
		{"a stream to its end", func(*testing.T) io.Reader { return bytes.NewReader(image) }, 0, image},
		{"a part of a stream", func(*testing.T) io.Reader { return bytes.NewReader(image) }, 100000, image[:100000]},
		{"a pipe", func(*testing.T) io.Reader {
			r, w, _ := os.Pipe()
			go func() { _, _ = w.Write(image); _ = w.Close() }()
			return r
		}, 0, image},
	}
	s := serve(t, Options{})
	c := s.client(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s.mu.Lock()
			s.images = map[fwu.ID][]byte{}
			s.mu.Unlock()
			source := test.source(t)
			n, err := c.WriteFrom(t.Context(), 7, 4096, source, test.length)
			if err != nil || n != int64(len(test.want)) {
				t.Fatalf("%d bytes written, %v", n, err)
			}
			if f, ok := source.(io.Closer); ok {
				_ = f.Close()
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if !bytes.Equal(s.images[7], test.want) {
				t.Error("other bytes arrived")
			}
		})
	}
}

type brokenReader struct{ n int }

func (r *brokenReader) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, errors.New("network is gone")
	}
	n := min(len(p), r.n)
	r.n -= n
	return n, nil
}

func TestWriteFromOfAStreamThatBreaks(t *testing.T) {
	s := serve(t, Options{})
	n, err := s.client(t).WriteFrom(t.Context(), 0, 0, &brokenReader{n: 8192}, 0)
	if n != 8192 || err == nil || !strings.Contains(err.Error(), "network is gone") {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestWriteFromEnded(t *testing.T) {
	tests := []struct {
		name string
		end  func(t *testing.T, s *service, c *Client, cancel context.CancelFunc)
		want error
	}{
		{"by cancel", func(t *testing.T, _ *service, c *Client, _ context.CancelFunc) {
			if err := c.Cancel(t.Context(), 0); err != nil {
				t.Error(err)
			}
		}, fwu.BadState},
		{"by its context", func(_ *testing.T, _ *service, _ *Client, cancel context.CancelFunc) { cancel() }, context.Canceled},
		{"by the end of the service", func(_ *testing.T, s *service, _ *Client, _ context.CancelFunc) { s.stop() }, fwu.GenericError},
		{"by the end of its connection", func(_ *testing.T, _ *service, c *Client, _ context.CancelFunc) { _ = c.Close() }, fwu.CommunicationFailure},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, Options{})
			c := s.client(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			defer r.Close()
			done := make(chan error, 1)
			go func() {
				_, err := c.WriteFrom(ctx, 0, 0, struct {
					io.Reader
					deadliner
				}{r, r}, 0)
				done <- err
			}()
			if _, err := w.Write(make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			s.began(t)
			eventually(t, "bytes arrive", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.images[0]) == 100 })
			test.end(t, s, c, cancel)
			select {
			case err := <-done:
				if !errors.Is(err, test.want) {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(hang):
				t.Fatal("goes on")
			}
			eventually(t, "the service is idle", func() bool { return !s.server.Busy() })
		})
	}
}

type deadliner interface{ SetReadDeadline(time.Time) error }

func TestDialWithoutService(t *testing.T) {
	t.Run("nobody owns the name", func(t *testing.T) {
		s := serve(t, Options{})
		s.stop()
		if err := s.wait(t); err != nil {
			t.Fatal(err)
		}
		_, err := Dial(t.Context(), s.address)
		if !errors.Is(err, fwu.CommunicationFailure) || fwu.ReasonOf(err) != ReasonUnreachable {
			t.Errorf("got %v", err)
		}
	})
	for name, address := range map[string]string{
		"no socket": "unix:path=/nonexistent/bus", "no address": "", "other transport": "tcp:host=localhost,port=1", "no path": "unix:dir=/tmp", "bad escape": "unix:path=%zz",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Dial(t.Context(), address); !errors.Is(err, fwu.CommunicationFailure) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWatch(t *testing.T) {
	s := serve(t, Options{})
	c := s.client(t)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := c.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []fwu.ID{0, 7} {
		if e := <-events; e.Component != id || e.Info.MaxSize == 0 || e.Finished != "" {
			t.Errorf("first event of %d: %+v", id, e)
		}
	}
	if err := c.Start(t.Context(), 0, nil); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Info.State != fwu.Writing || e.Info.Version.Patch != 3 {
		t.Errorf("after start: %+v", e)
	}
	if _, err := c.WriteFrom(t.Context(), 0, 0, strings.NewReader("abc"), 0); err != nil {
		t.Fatal(err)
	}
	sawFinish := false
	for e := range events {
		if e.Finished != "" {
			sawFinish = e.Finished == fwu.OpWrite && e.Status == fwu.Success
		}
		if sawFinish && e.Info.Impl.Operation == "" && e.Info.Impl.Written == 3 {
			break
		}
	}
	cancel()
	for range events { // until it is closed
	}
}

func TestWatchSurvivesTheService(t *testing.T) {
	s := serve(t, Options{})
	c := s.client(t)
	events, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	if err := s.wait(t); err != nil {
		t.Fatal(err)
	}
	next := serveAt(t, s.address, Options{})
	next.set(0, func(i *fwu.Info) { i.State = fwu.Updated })
	for e := range events {
		if e.Component == 0 && e.Info.State == fwu.Updated {
			break
		}
	}
	_ = c.Close()
	for range events {
	}
}
