package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/lab"
)

const (
	bankA = fwu.BankA
	bankB = fwu.BankB

	exitOK           = fwu.ExitOK
	exitNothing      = fwu.ExitNothingToDo
	exitNotPermitted = fwu.ExitNotPermitted
	exitVerification = fwu.ExitVerification

	checkpoint = fwu.CheckpointInterval
)

// device is a machine on which things are demonstrated.
type device struct {
	*lab.Machine // nil until there is one
	factory      lab.Factory
	dir, binary  string
	out          io.Writer
	steps        int
	summary      bytes.Buffer
}

func (d *device) path(name string) string { return filepath.Join(d.dir, name) }

// makeDevice makes the disk, with bank a filled, and the tree around it.
func (d *device) makeDevice(ctx context.Context) error {
	made, err := d.factory.NewDevice(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.SortedFunc(maps.Keys(made.Extents), func(a, b string) int { return cmp.Compare(made.Extents[a].Offset, made.Extents[b].Offset) }) {
		d.note("%-10s %6.1f MiB at %d", name, float64(made.Extents[name].Size)/(1<<20), made.Extents[name].Offset)
	}
	text, err := os.ReadFile(filepath.Join(made.Root, "etc/fwu-ab/fwu-ab.toml"))
	if err != nil {
		return err
	}
	fmt.Fprintln(d.out, "/etc/fwu-ab/fwu-ab.toml:")
	for line := range strings.Lines(strings.ReplaceAll(string(text), d.dir+"/", "")) {
		fmt.Fprintf(d.out, "    %s", line)
	}
	d.Machine, err = lab.NewMachine(ctx, d.dir, made, lab.Options{Program: d.binary, Note: d.note})
	return err
}

// rebooted waits until the service asked logind for a reboot, and does it.
func (d *device) rebooted(ctx context.Context) error {
	select {
	case <-d.RebootAsked():
	case <-ctx.Done():
		return ctx.Err()
	}
	return d.Reboot(ctx)
}

// end stops the machine. Of one that went wrong the log of the service is shown.
func (d *device) end(err error) error {
	if d.Machine == nil {
		return err
	}
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		text, _ := os.ReadFile(d.LogFile()) // of no use without the error that there is
		_, _ = d.out.Write(text)
	}
	return err
}

// fwu runs the program as a user would, shows what it prints, and compares the exit code.
func (d *device) fwu(ctx context.Context, want int, args ...string) error {
	shown := slices.Clone(args)
	if shown[0] == "--root" {
		shown = shown[2:]
	}
	for i, a := range shown {
		if strings.Contains(a, " ") {
			shown[i] = "'" + a + "'"
		}
	}
	fmt.Fprintf(d.out, "$ fwu-ab %s\n", strings.ReplaceAll(strings.Join(shown, " "), d.dir+"/", ""))
	cmd := exec.CommandContext(ctx, d.binary, args...)
	if d.Machine != nil {
		cmd.Env = append(os.Environ(), "FWU_AB_BUS="+d.Bus)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	for line := range strings.Lines(out.String()) {
		fmt.Fprintf(d.out, "    %s", strings.ReplaceAll(line, d.dir+"/", ""))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		return fmt.Errorf("fwu-ab %s: exit code %d, expected %d", args[0], code, want)
	}
	d.steps++
	return nil
}

// expect shows the state and compares it.
func (d *device) expect(ctx context.Context, rootfs, bootfw string, bank fwu.Bank) error {
	if err := d.fwu(ctx, exitOK, "status"); err != nil {
		return err
	}
	st, err := d.Status(ctx)
	if err != nil {
		return err
	}
	var got []string
	for _, c := range st.Components {
		got = append(got, c.State+" "+c.Version)
	}
	if g, want := strings.Join(got, ", "), rootfs+", "+bootfw; g != want || st.Booted != bank || len(st.Degraded) > 0 {
		return fmt.Errorf("the device is %s in bank %s (%v), expected %s in bank %s", g, st.Booted, st.Degraded, want, bank)
	}
	d.steps++
	return nil
}

func (d *device) written(ctx context.Context, component string) (int64, error) {
	st, err := d.Status(ctx)
	for _, c := range st.Components {
		if c.Name == component {
			return c.Written, err
		}
	}
	return 0, err
}

// cutInWrite starts an update, and cuts the power when it is past two checkpoints: the second one
// finds that the bytes the first made durable are read back.
func (d *device) cutInWrite(ctx context.Context, component, file string) error {
	if err := d.fwu(ctx, exitOK, "start", component); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	client := exec.CommandContext(ctx, d.binary, "--bus", d.Bus, "write", component, "-")
	in, err := client.StdinPipe()
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	defer func() {
		_ = client.Process.Kill() // it may have ended
		_ = client.Wait()         // its device is gone
	}()
	fmt.Fprintf(d.out, "$ fwu-ab write %s -\n", component)
	if _, err := io.CopyN(in, f, 2*checkpoint+1<<20+123456); err != nil {
		return err
	}
	for written := int64(0); written < checkpoint; {
		if written, err = d.written(ctx, component); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return d.PowerCut(4)
}
