package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/dbus"
)

// shaRate is how many bytes per second one core hashes.
func shaRate() float64 {
	p := make([]byte, 1<<20)
	r := testing.Benchmark(func(b *testing.B) {
		for range b.N {
			sha256.Sum256(p)
		}
	})
	return float64(r.N) * float64(len(p)) / r.T.Seconds()
}

// noSHA is the setting of GODEBUG with which Go leaves the processor's instructions for SHA-256 alone.
func noSHA() string {
	if runtime.GOARCH == "arm64" {
		return "cpu.sha2=off"
	}
	return "cpu.sha=off"
}

// cost is what the service costs by itself.
type cost struct {
	sizes         []string
	start         []float64 // seconds
	idle          []float64 // bytes
	sha, shaPlain float64   // bytes per second: as it is, and without the processor's instructions for it
	shaGeneric    float64   // without any instructions but those that every such processor has
	more          string    // what service measures
}

func (b *bed) cost(ctx context.Context) (c cost, err error) {
	if _, err := command(ctx, "make", "-s", "cross"); err != nil {
		return c, err
	}
	for _, arch := range []string{"amd64", "arm", "arm64", "riscv64"} {
		c.sizes = append(c.sizes, fmt.Sprintf("%s %.1f MiB", arch, mib(sizeOf("build/fwu-ab-"+arch))))
	}
	for _, s := range []struct {
		debug string
		rate  *float64
	}{{"", &c.sha}, {noSHA(), &c.shaPlain}, {"cpu.all=off", &c.shaGeneric}} {
		self, err := os.Executable()
		if err != nil {
			return c, err
		}
		cmd := exec.CommandContext(ctx, self, "-sha")
		cmd.Env = append(os.Environ(), "GODEBUG="+s.debug)
		out, err := cmd.Output()
		if err != nil {
			return c, err
		}
		if *s.rate, err = strconv.ParseFloat(strings.TrimSpace(string(out)), 64); err != nil {
			return c, err
		}
	}
	for range 10 {
		if err := b.try(b.media[0], func(a *attempt) error { return a.startUp(ctx, &c) }); err != nil {
			return c, fmt.Errorf("start by the bus: %w", err)
		}
	}
	c.more, err = b.service(ctx)
	return c, err
}

// startUp asks for a service that the bus has to start first.
func (a *attempt) startUp(ctx context.Context, c *cost) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	root, err := a.device(ctx, a.medium, "PARTLABEL=fwu-store", "")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(a.path("services"), 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("[D-BUS Service]\nName=%s\nExec=%s --root %s --bus unix:path=%s daemon\n", dbus.Name, a.program, root, a.path("bus"))
	if err := os.WriteFile(a.path("services/"+dbus.Name+".service"), []byte(text), 0o644); err != nil {
		return err
	}
	address, err := a.bus(ctx, "<servicedir>"+a.path("services")+"</servicedir>")
	if err != nil {
		return err
	}
	began := time.Now()
	client, err := dbus.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	if _, err := client.Query(ctx, 0); err != nil {
		return err
	}
	c.start = append(c.start, time.Since(began).Seconds())
	time.Sleep(time.Second)
	for _, pid := range a.group.processes() {
		if n, name := memoryOf(pid, "VmRSS"); name == "fwu-ab" {
			c.idle = append(c.idle, float64(n))
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				return err
			}
		}
	}
	return nil
}

func mib[T int64 | float64](n T) float64 { return float64(n) / (1 << 20) }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
