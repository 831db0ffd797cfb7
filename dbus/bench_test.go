package dbus

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/dbus/privatebus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
)

// BenchmarkQueryDuringATransfer asks the real service, on a bus, while another client sends it images into a medium in memory as fast as it takes them.
func BenchmarkQueryDuringATransfer(b *testing.B) {
	const size = 64 << 20
	address := privatebus.ForTest(b)
	m := fwutest.NewMachine()
	m.Add(fwu.Component{Name: "rootfs", Manifest: fwu.None}, size, make([]byte, size))
	m.Config.Release["rootfs"] = fwu.Release{Version: fwu.Version{Major: 1}, Sequence: 1}
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	ready := make(chan struct{})
	server := New(Options{Ready: func() { close(ready) }})
	m.Config.Changed = server.Changed
	must(fwu.Provision(b.Context(), m.Config, nil, false))
	must(m.Reset())
	defer func() { must(m.Stop()) }()
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, address, m.Service) }()
	defer func() { stop(); must(<-ended) }()
	<-ready

	sender, err := Dial(b.Context(), address)
	must(err)
	defer sender.Close()
	zero, err := os.Open("/dev/zero")
	must(err)
	defer zero.Close()
	transfers, enough := context.WithCancel(b.Context())
	defer enough()
	sent, sending, begun := int64(0), make(chan error, 1), make(chan struct{})
	send := func() error {
		err := sender.Start(b.Context(), 0, nil)
		for close(begun); err == nil; err = sender.Start(b.Context(), 0, nil) {
			n, err := sender.WriteFrom(transfers, 0, 0, zero, size)
			sent += n
			if transfers.Err() != nil {
				return nil
			}
			if err := errors.Join(err, sender.Cancel(b.Context(), 0), sender.Clean(b.Context(), 0)); err != nil {
				return err
			}
		}
		return err
	}
	go func() { sending <- send() }()
	asker, err := Dial(b.Context(), address)
	must(err)
	defer asker.Close()
	<-begun

	var took []time.Duration
	start := time.Now()
	for b.Loop() {
		begin := time.Now()
		_, err := asker.Query(b.Context(), 0)
		must(err)
		took = append(took, time.Since(begin))
	}
	elapsed := time.Since(start)
	enough()
	must(<-sending)
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1e3, "median-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms")
	b.ReportMetric(float64(sent)/1e6/elapsed.Seconds(), "transfer-MB/s")
}
