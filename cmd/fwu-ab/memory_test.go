package main

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/test/lab"
	"github.com/fwu-ab/fwu-ab/zstdframe"
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

// TestBundleFromAPipe sends a bundle that is made while it is sent, and that no file ever holds: an image, and a compressed one for another component. Neither the service nor the client grows with it, and there is
// no place for a temporary file.
func TestBundleFromAPipe(t *testing.T) {
	limit, size := int64(40<<20), int64(48<<20)
	switch {
	case raceDetector:
		limit, size = 160<<20, 8<<20
	case os.Getenv("FWUAB_TEST_ALL") != "":
		size = 1 << 30
	}
	dir := t.TempDir()
	d, key := newLab(t, dir, size+1<<20, size+1<<20, "bundled")
	nowhere := "TMPDIR=" + filepath.Join(dir, "nowhere")
	daemon := startDaemon(t, d, nowhere)
	client := program("--bus", daemon.bus, "update", "--quiet", "-")
	client.Env = append(os.Environ(), nowhere)
	var said bytes.Buffer
	client.Stderr = &said
	in, err := client.StdinPipe()
	check(t, err)
	check(t, client.Start())
	files, ours := 0, int64(0)
	werr := writeGenerated(in, size, key, func() { // when the last byte is about to be sent
		// The kernel counts the memory of the process that starts a program into the figure of
		// wait4(2).
		ours = peak(t, client.Process.Pid)
		for _, pid := range []int{daemon.Process.Pid, client.Process.Pid} {
			links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
			check(t, err)
			for _, l := range links {
				name, _ := os.Readlink(l)
				files++
				if strings.Contains(name, "(deleted)") || strings.HasPrefix(name, dir) && !strings.HasPrefix(name, d.Disk) && !strings.HasPrefix(name, d.Root) {
					t.Errorf("process %d has %s", pid, name)
				}
			}
		}
	})
	_ = in.Close()
	if err := client.Wait(); err != nil || werr != nil || files == 0 {
		t.Fatalf("%v, %v, %d files: %s", werr, err, files, &said)
	}
	if out, err := program("--bus", daemon.bus, "status").Output(); err != nil || strings.Count(string(out), "STAGED") < 2 {
		t.Errorf("%v: %s", err, out)
	}
	service := peak(t, daemon.Process.Pid)
	t.Logf("two images of %d MiB: the service had %.1f MiB resident at most, the client %.1f", size>>20, float64(service)/(1<<20), float64(ours)/(1<<20))
	if service > limit || ours > limit {
		t.Errorf("more than %d MiB", limit>>20)
	}
}

// writeGenerated writes a bundle of an image for rootfs, and of the same one for bootfw, compressed. It tells when the end is near.
func writeGenerated(w io.Writer, size int64, keyFile string, end func()) error {
	compress := func(w io.Writer) (int64, error) {
		_, n, err := zstdframe.Compress(w, &generated{size: size}, zstdframe.Fastest)
		return n, err
	}
	digest, _, err := suit.Measure(&generated{size: size}, crypto.SHA256)
	if err != nil {
		return err
	}
	packed, err := compress(io.Discard)
	if err != nil {
		return err
	}
	device := suit.Device{Vendor: suit.VendorID("example.com")}
	device.Class = suit.ClassID(device.Vendor, "demo board")
	version := suit.Version{Major: 2}
	envelope, err := suit.Create(suit.Spec{Device: device, Version: version, Demand: suit.Demand{Sequence: 2, Images: []suit.Image{
		{Component: "rootfs", Digest: digest, Size: size, Version: version, URI: "#rootfs"},
		{Component: "bootfw", Digest: digest, Size: size, Version: version, URI: "#bootfw", Compression: suit.CompressionZstd},
	}}})
	if err != nil {
		return err
	}
	key, kid, err := suit.LoadSigner(keyFile)
	if err != nil {
		return err
	}
	if envelope, err = suit.Sign(envelope, key, suit.Identity{KID: kid}); err != nil {
		return err
	}
	return suit.WriteBundle(w, envelope, []suit.PayloadSource{
		{Key: "#bootfw", Size: packed, Open: func() (io.ReadCloser, error) {
			r, w := io.Pipe()
			go func() {
				_, err := compress(w)
				_ = w.CloseWithError(err)
			}()
			return r, nil
		}},
		{Key: "#rootfs", Size: size, Open: func() (io.ReadCloser, error) { return io.NopCloser(&generated{size: size, end: end}), nil }},
	})
}

// generated is an image whose blocks differ.
type generated struct {
	size, at int64
	end      func() // is called once, before the last block; nil: nothing is
	block    []byte
	left     []byte
}

func (g *generated) Read(p []byte) (int, error) {
	if g.block == nil {
		g.block = make([]byte, 1<<20)
		for i := range g.block {
			g.block[i] = byte(i>>8 ^ i)
		}
	}
	if len(g.left) == 0 {
		n := min(int64(len(g.block)), g.size-g.at)
		if n == 0 {
			return 0, io.EOF
		}
		copy(g.block, fmt.Sprint("block ", g.at))
		g.left = g.block[:n]
		if g.at += n; g.at == g.size && g.end != nil {
			g.end()
		}
	}
	n := copy(p, g.left)
	g.left = g.left[n:]
	return n, nil
}

// newLab makes a device that was provisioned, whose root file system takes manifests in a mode, and a key that it trusts.
func newLab(t *testing.T, dir string, rootfs, bootfw int64, mode string) (d *lab.Device, key string) {
	t.Helper()
	d, err := lab.New(dir, rootfs, bootfw, mode)
	check(t, err)
	check(t, d.Booted(1, "fwu.bank=a"))
	check(t, d.Write("usr/lib/fwu-ab/release", "[rootfs]\nversion = \"1.0.0\"\nsequence = 1\n"))
	key = filepath.Join(dir, "release")
	runFwu(t, "key", "generate", key)
	pub, err := os.ReadFile(key + ".pub")
	check(t, err)
	check(t, d.Write("etc/fwu-ab/keys/release.pub", string(pub)))
	// bootfw is part of the bank, and is carried over where an update does not bring it.
	runFwu(t, "--root", d.Root, "provision", "--bank", "a", "--size", "rootfs=4096")
	return d, key + ".key"
}

// running is the service, on a bus of its own.
type running struct {
	*exec.Cmd
	bus string
}

// startDaemon starts the service on a device, until the test ends.
func startDaemon(t *testing.T, d *lab.Device, env ...string) running {
	t.Helper()
	bus := privatebus.ForTest(t)
	cmd := program("--root", d.Root, "--bus", bus, "daemon")
	cmd.Env = append(os.Environ(), env...)
	var log bytes.Buffer
	cmd.Stderr = &log
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, log.Bytes())
		}
	})
	check(t, waitForService(t.Context(), bus))
	return running{cmd, bus}
}

// updateAndMeasure returns the peak of the resident set of the service in bytes.
func updateAndMeasure(t *testing.T, mode string, size int64) int64 {
	dir := t.TempDir()
	manifest := mode
	if mode == "compressed" {
		manifest = "bundled"
	}
	d, key := newLab(t, dir, size+1<<20, 1<<20, manifest)
	image := filepath.Join(dir, "image")
	check(t, writeImage(image, size))
	args := []string{"manifest", "create", "--component", "rootfs", "--image", image, "--version", "2.0.0", "--sequence", "2", "--vendor-name", "example.com", "--class-name", "demo board", "--key", key}
	update := []string{"update", "--quiet", filepath.Join(dir, "rootfs.suit")}
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
	daemon := startDaemon(t, d)
	runFwu(t, append([]string{"--bus", daemon.bus}, update...)...)
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
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		c, err := dbus.Dial(ctx, bus)
		if err == nil {
			return c.Close()
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// writeImage makes a file that is generated.
func writeImage(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, &generated{size: size}); err != nil {
		_ = f.Close()
		return err
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
