package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/fwu-ab/fwu-ab/systemd"
	godbus "github.com/godbus/dbus/v5"
)

func TestLinkOfALiveComponent(t *testing.T) {
	ctx := context.Background()
	h := &host{links: filepath.Join(t.TempDir(), "slots")}
	for _, step := range []struct {
		device  string
		changed bool
	}{{"/dev/a", true}, {"/dev/a", false}, {"/dev/b", true}} {
		changed, err := h.Link(ctx, "app", step.device)
		if err != nil || changed != step.changed {
			t.Errorf("link to %s: changed %t, %v; want %t", step.device, changed, err, step.changed)
		}
		if got, err := os.Readlink(filepath.Join(h.links, "app")); got != step.device {
			t.Errorf("the link leads to %q, %v; want %s", got, err, step.device)
		}
	}
	if err := os.Mkdir(filepath.Join(h.links, "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if changed, err := h.Link(ctx, "other", "/dev/a"); err == nil || changed {
		t.Errorf("a directory is in the way: changed %t, %v; want an error", changed, err)
	}
	entries, err := os.ReadDir(h.links)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v; want the link and the directory", entries, err)
	}
}

func TestNoMessageBus(t *testing.T) {
	absent := errors.New("no bus")
	h := &host{dial: func() (*godbus.Conn, error) { return nil, absent }}
	if err := h.Reboot(context.Background()); !errors.Is(err, systemd.ErrRefused) || !errors.Is(err, absent) {
		t.Errorf("reboot: %v, want a refusal with its cause", err)
	}
	if err := h.Restart(context.Background(), "app.service"); !errors.Is(err, absent) {
		t.Errorf("restart: %v, want the cause", err)
	}
	h.close()
}
