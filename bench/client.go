package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/dbus"
)

// sent is what sending an image took: seconds until the last write was answered, and from the call of Finish until that was, with what the disk wrote and read meanwhile.
type sent struct {
	Write, Finish float64
	Written, Read int64
}

// send is a client of the service that sends and installs one image, and says what that took. It is a process of its own, so that its processor time can be counted.
func send(ctx context.Context, out io.Writer, args []string) (err error) {
	if len(args) != 4 {
		return errors.New("BUS SIZE LOOP FILE are needed")
	}
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	client, err := dbus.Dial(ctx, args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if err := client.Start(ctx, 0, nil); err != nil {
		return err
	}
	began := time.Now()
	if size > 0 {
		err = writeBlocks(ctx, client, args[3], size)
	} else {
		err = writeAll(ctx, client, args[3])
	}
	if err != nil {
		return err
	}
	traffic, written := trafficOf(args[2]), time.Now()
	if err := client.Finish(ctx, 0); err != nil {
		return err
	}
	finished := time.Now()
	traffic = trafficOf(args[2]).minus(traffic)
	if _, err := client.Install(ctx); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(sent{written.Sub(began).Seconds(), finished.Sub(written).Seconds(), traffic.written, traffic.read})
}

// writeAll gives the service a file to read.
func writeAll(ctx context.Context, client *dbus.Client, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = client.WriteFrom(ctx, 0, 0, f, 0)
	return err
}

// writeBlocks sends each block of a file when the one before was answered, as psa_fwu_write does.
func writeBlocks(ctx context.Context, client *dbus.Client, file string, size int) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	p := make([]byte, size)
	for off := int64(0); ; {
		n, err := io.ReadFull(f, p)
		if n > 0 {
			if err := client.Write(ctx, 0, off, p[:n]); err != nil {
				return err
			}
			off += int64(n)
		}
		switch {
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// component is the component that is updated, at the other end of a bus.
func component(ctx context.Context, bus string) (godbus.BusObject, error) {
	conn, err := godbus.Connect(bus, godbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", bus, err)
	}
	return conn.Object(dbus.Name, dbus.Path+"/component/0"), nil
}

// ask calls Query until done is closed, each time 10 ms after the answer, and returns how long the answers took.
func ask(ctx context.Context, object godbus.BusObject, done <-chan struct{}) (seconds []float64, err error) {
	for wait(done, 10*time.Millisecond) {
		began := time.Now()
		if err := object.CallWithContext(ctx, dbus.ComponentInterface+".Query", 0).Err; err != nil {
			return nil, fmt.Errorf("query: %w", err)
		}
		seconds = append(seconds, time.Since(began).Seconds())
	}
	return seconds, nil
}

// paced gives what it reads at a rate, as a download does. At rate 0 it does not wait.
type paced struct {
	io.Reader
	rate  float64 // bytes per second
	began time.Time
	given int64
}

func (p *paced) Read(b []byte) (int, error) {
	if p.began.IsZero() {
		p.began = time.Now()
	}
	if p.rate > 0 {
		time.Sleep(time.Until(p.began.Add(time.Duration(float64(p.given) / p.rate * float64(time.Second)))))
	}
	n, err := p.Reader.Read(b)
	p.given += int64(n)
	return n, err
}
