package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/test/lab"
)

// TestMemoryDoesNotGrowWithTheImage sends an image through the real service and looks at what the kernel counted: 1 GiB with FWUAB_TEST_ALL, else 64 MiB.
func TestMemoryDoesNotGrowWithTheImage(t *testing.T) {
	limit, size := int64(32<<20), int64(64<<20)
	switch {
	case raceDetector: // it takes a multiple of the program's memory, and time
		limit, size = 128<<20, 16<<20
	case os.Getenv("FWUAB_TEST_ALL") != "":
		size = 1 << 30
	}
	for _, mode := range []string{"detached", "bundled", "compressed"} {
		t.Run(mode, func(t *testing.T) {
			rss := updateAndMeasure(t, mode, size)
			t.Logf("image of %d MiB, %s: the service had %.1f MiB resident at most", size>>20, mode, float64(rss)/(1<<20))
			limit := limit
			if mode == "compressed" {
				limit += 8 << 20 // a frame that is not whole yet, and one that is
			}
			if rss > limit {
				t.Errorf("more than %d MiB", limit>>20)
			}
		})
	}
}

// updateAndMeasure returns the peak of the resident set of the service in bytes.
func updateAndMeasure(t *testing.T, mode string, size int64) int64 {
	ctx := t.Context()
	bus := privatebus.ForTest(t)
	dir := t.TempDir()
	manifest := mode
	if mode == "compressed" {
		manifest = "bundled"
	}
	d, err := lab.New(dir, size+1<<20, 1<<20, manifest)
	check(t, err)
	check(t, d.Booted(1, "fwu.bank=a"))
	check(t, d.Write("usr/lib/fwu-ab/release", "[rootfs]\nversion = \"1.0.0\"\nsequence = 1\n"))
	key := filepath.Join(dir, "release")
	runFwu(t, "key", "generate", key)
	pub, err := os.ReadFile(key + ".pub")
	check(t, err)
	check(t, d.Write("etc/fwu-ab/keys/release.pub", string(pub)))
	// bootfw is part of the bank, and is carried over.
	runFwu(t, "--root", d.Root, "provision", "--bank", "a", "--size", "rootfs=4096")

	image := filepath.Join(dir, "image")
	check(t, writeImage(image, size))
	args := []string{"manifest", "create", "--component", "rootfs", "--image", image, "--version", "2.0.0", "--sequence", "2", "--vendor-name", "example.com", "--class-name", "demo board", "--key", key + ".key"}
	update := []string{"--bus", bus, "update", "--quiet", filepath.Join(dir, "rootfs.suit")}
	if mode == "compressed" {
		args = append(args, "--compression", "zstd", "--level", "better") // the largest frames
	}
	if manifest == "bundled" {
		runFwu(t, append(args, "--bundle", "-o", filepath.Join(dir, "rootfs.suit"))...)
		check(t, os.Remove(image))
	} else {
		runFwu(t, append(args, "-o", filepath.Join(dir, "rootfs.suit"))...)
		update = append(update, image)
	}
	daemon := program("--root", d.Root, "--bus", bus, "daemon")
	var log bytes.Buffer
	daemon.Stderr = &log
	check(t, daemon.Start())
	defer func() {
		_ = daemon.Process.Signal(os.Interrupt)
		if err := daemon.Wait(); err != nil {
			t.Errorf("%v: %s", err, log.Bytes())
		}
	}()
	check(t, waitForService(ctx, bus))
	runFwu(t, update...)
	return peak(t, daemon.Process.Pid)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// program is fwu-ab as a process of its own: TestMain makes it of this test.
func program(args ...string) *exec.Cmd { return exec.Command("fwu-ab", args...) }

func runFwu(t *testing.T, args ...string) {
	t.Helper()
	if out, err := program(args...).CombinedOutput(); err != nil {
		t.Fatalf("fwu-ab %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func waitForService(ctx context.Context, bus string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if c, err := dbus.Dial(ctx, bus); err == nil {
			return c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return ctx.Err()
}

// writeImage makes an image whose blocks differ.
func writeImage(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i>>8 ^ i)
	}
	for n := int64(0); n < size; n += int64(len(block)) {
		copy(block, fmt.Sprint("block ", n))
		if _, err := f.Write(block[:min(int64(len(block)), size-n)]); err != nil {
			_ = f.Close()
			return err
		}
	}
	return f.Close()
}

// peak reads VmHWM (proc_pid_status(5)).
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			check(t, err)
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
