// Command demo takes a device from version 1 to version 2 and back from a broken version 3, cuts the power in the middle of an update, and tries to sell it a forged image.
//
// What runs is what runs on a device: the service on a message bus, the command line, the slots on a disk with a partition table and ext4 in them, the U-Boot
// environment with two copies. Only the machine around it is simulated: its bootloader by a model that does what the boot script does, its kernels by a
// text that says whether they would come up. It needs no root and touches nothing outside its directory.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/lab"
)

func main() {
	binary := flag.String("fwu-ab", "build/fwu-ab", "the program to demonstrate")
	keep := flag.Bool("keep", false, "keep the directory of the demonstration")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	err := run(ctx, *binary, *keep)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string, keep bool) (err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fwu-ab-demo-") // short: a socket lies in it
	if err != nil {
		return err
	}
	if keep {
		fmt.Println("directory:", dir)
	} else {
		defer func() { _ = os.RemoveAll(dir) }()
	}
	d := &device{dir: dir, binary: binary, out: os.Stdout}
	d.factory = lab.Factory{Dir: dir, Program: binary, Run: func(ctx context.Context, args ...string) error { return d.fwu(ctx, exitOK, args...) }}
	defer func() { err = d.end(err) }()
	began := time.Now()
	for _, chapter := range []func(context.Context) error{
		d.inTheFactory, d.acceptedUpdate, d.brokenUpdate, d.cutOff, d.forged,
	} {
		if err := chapter(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("\n%s\n%d steps, each as expected, in %.1f s\n", d.summary.String(), d.steps, time.Since(began).Seconds())
	return nil
}

func (d *device) title(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(d.out, "\n=== %s\n", text)
}

func (d *device) note(format string, args ...any) {
	fmt.Fprintf(d.out, "    %s\n", fmt.Sprintf(format, args...))
}

func (d *device) told(format string, args ...any) {
	fmt.Fprintf(&d.summary, "  - "+format+"\n", args...)
}

// inTheFactory makes images, keys and the disk, and fills bank a.
func (d *device) inTheFactory(ctx context.Context) error {
	d.title("In the factory: keys, four versions of a system, a disk with bank a filled")
	for _, k := range []string{"release", "attacker"} {
		if err := d.fwu(ctx, exitOK, "key", "generate", d.path(k)); err != nil {
			return err
		}
	}
	for v := 1; v <= 4; v++ {
		if err := d.factory.Image(ctx, v, v != 3); err != nil {
			return err
		}
	}
	if err := d.makeDevice(ctx); err != nil {
		return err
	}
	if err := d.PowerOn(ctx); err != nil {
		return err
	}
	if err := d.fwu(ctx, exitOK, "--root", d.Root, "doctor"); err != nil {
		return err
	}
	return d.expect(ctx, "READY 1.0.0", "READY 1.0.0", bankA)
}

// acceptedUpdate installs version 2 of both components and keeps it.
func (d *device) acceptedUpdate(ctx context.Context) error {
	d.title("Version 2 of both components: written beside the running system, started once, accepted")
	if err := d.fwu(ctx, exitOK, "update", d.path("rootfs-2.suit"), d.path("bootfw-2.suit"), d.path("bootfw-2.img"), "--reboot"); err != nil {
		return err
	}
	if err := d.rebooted(ctx); err != nil {
		return err
	}
	if err := d.expect(ctx, "TRIAL 2.0.0", "TRIAL 2.0.0", bankB); err != nil {
		return err
	}
	d.note("the new system is up and finds itself in order; a reset now would bring version 1 back")
	if err := d.fwu(ctx, exitOK, "accept"); err != nil {
		return err
	}
	if err := d.expect(ctx, "UPDATED 2.0.0", "UPDATED 2.0.0", bankB); err != nil {
		return err
	}
	d.note("a plain reset, to see that it stays")
	if err := d.Reset(ctx); err != nil {
		return err
	}
	d.told("1 -> 2: both components, one trial, accepted; bank b is the default")
	if err := d.expect(ctx, "UPDATED 2.0.0", "UPDATED 2.0.0", bankB); err != nil {
		return err
	}
	return d.fwu(ctx, exitNothing, "update", d.path("rootfs-2.suit"))
}

// brokenUpdate installs a version whose kernel does not come up.
func (d *device) brokenUpdate(ctx context.Context) error {
	d.title("Version 3 of rootfs alone: its kernel panics. bootfw is carried over to the new bank")
	if err := d.fwu(ctx, exitOK, "clean", "bootfw"); err != nil {
		return err
	}
	if err := d.fwu(ctx, exitOK, "update", d.path("rootfs-3.suit"), "--reboot"); err != nil {
		return err
	}
	if err := d.rebooted(ctx); err != nil {
		return err
	}
	d.told("2 -> 3: never reached user space; the bootloader alone went back to 2")
	if err := d.expect(ctx, "FAILED 2.0.0", "READY 2.0.0", bankB); err != nil {
		return err
	}
	return d.fwu(ctx, exitOK, "clean", "rootfs")
}

// cutOff cuts the power while version 4 is being written, and goes on.
func (d *device) cutOff(ctx context.Context) error {
	d.title("Version 4: the power fails while it is written")
	if err := d.cutInWrite(ctx, "rootfs", d.path("rootfs-4.suit")); err != nil {
		return err
	}
	if err := d.PowerOn(ctx); err != nil {
		return err
	}
	for _, b := range []fwu.Bank{bankA, bankB} {
		d.note("bank %s can be started: %v", b, d.Bootable(ctx, b))
	}
	if d.Bootable(ctx, bankA) {
		return fmt.Errorf("a half-written bank can be started")
	}
	written, err := d.written(ctx, "rootfs")
	if err != nil {
		return err
	}
	if written < checkpoint {
		return fmt.Errorf("only %d bytes survived the power cut", written)
	}
	if err := d.fwu(ctx, exitOK, "update", d.path("rootfs-4.suit"), "--reboot"); err != nil {
		return err
	}
	if err := d.rebooted(ctx); err != nil {
		return err
	}
	if err := d.expect(ctx, "TRIAL 4.0.0", "READY 2.0.0", bankA); err != nil {
		return err
	}
	if err := d.fwu(ctx, exitOK, "accept"); err != nil {
		return err
	}
	d.told("2 -> 4: cut off, continued at %d bytes, accepted; bank a is the default", written)
	return d.expect(ctx, "UPDATED 4.0.0", "READY 2.0.0", bankA)
}

// forged offers what no device may take.
func (d *device) forged(ctx context.Context) error {
	d.title("Forgeries: another key, a changed image, an old version")
	if err := d.fwu(ctx, exitOK, "clean", "rootfs"); err != nil {
		return err
	}
	if err := d.factory.Manifest(ctx, "rootfs", 5, d.path("rootfs-2.img"), d.path("attacker.key"), d.path("forged.suit")); err != nil {
		return err
	}
	if err := d.fwu(ctx, exitVerification, "update", d.path("forged.suit")); err != nil {
		return err
	}
	if err := d.fwu(ctx, exitNotPermitted, "update", d.path("rootfs-2.suit")); err != nil {
		return err
	}
	if err := d.factory.Manifest(ctx, "rootfs", 5, d.path("rootfs-2.img"), d.path("release.key"), d.path("rootfs-5.suit")); err != nil {
		return err
	}
	if err := d.changeOneByte(d.path("rootfs-5.suit"), d.path("changed.suit")); err != nil {
		return err
	}
	if err := d.fwu(ctx, exitVerification, "update", d.path("changed.suit")); err != nil {
		return err
	}
	d.told("refused: signed with a key that is not trusted, older than what was accepted, one bit changed in the image")
	return d.expect(ctx, "FAILED 4.0.0", "READY 2.0.0", bankA)
}

// changeOneByte copies a bundle with one bit of its image flipped.
func (d *device) changeOneByte(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	b = bytes.Clone(b)
	b[len(b)/2] ^= 1
	return os.WriteFile(to, b, 0o644)
}
