package conformance

import (
	"context"
	"errors"
	"fmt"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// modelDevice is the model as an Implementation: it tests the suite, and shows what an Implementation is.
type modelDevice struct {
	sys   system
	step  func(system, call) []outcome // system.next, or one with a deliberate fault
	known map[string]*Delivery         // by manifest or stream
	name  int
}

// NewModel returns a device that does what the model of the specification does, as a device to try the suite on.
func NewModel(p Profile, comps []Config) Implementation { return newModelDevice(p, comps) }

func newModelDevice(p Profile, comps []Config) *modelDevice {
	return &modelDevice{sys: newSystem(p, comps), step: system.next, known: map[string]*Delivery{}}
}

func (d *modelDevice) API() API     { return modelAPI{d} }
func (d *modelDevice) Close() error { return nil }

// Manifest makes 32 bytes of no meaning but to be recognised; bundled, they precede the image.
func (d *modelDevice) Manifest(id fwu.ID, img []byte, m Meta, def Defect) ([]byte, []byte, error) {
	d.name++
	head := fmt.Appendf(nil, "model manifest %17d", d.name)
	del := &Delivery{ID: id, Image: img, Meta: m, Defect: def, Manifest: head, Stream: img}
	c := d.sys.find(id)
	if c.Manifest == fwu.Bundled {
		del.Manifest, del.Stream = nil, append(append([]byte{}, head...), img...)
	}
	d.known[string(head)] = del
	return del.Manifest, del.Stream, nil
}

// recognise finds the delivery that a manifest, or the beginning of a stream, is of.
func (d *modelDevice) recognise(b []byte) *Delivery {
	if len(b) >= 32 {
		if del := d.known[string(b[:32])]; del != nil {
			return del
		}
	}
	return &Delivery{Defect: Garbage, Stream: b}
}

func (d *modelDevice) Reboot(how Reboot) error {
	event := [...]string{"reboot", "reboot-failing", "reboot-bypassed", "service-restart"}[how]
	written := map[fwu.ID]int64{}
	for _, c := range d.sys.comps {
		written[c.ID] = c.written(d.sys.Alignment)
	}
	d.sys = d.step(d.sys, call{event: event, written: written})[0].next
	return nil
}

// written is what Info.Impl.Written says: the whole units of the known beginning.
func (c *component) written(unit int64) int64 { return c.prefix(unit) / unit * unit }

func (d *modelDevice) Slot(id fwu.ID, l Location, n int) ([]byte, error) {
	c := d.sys.find(id)
	if c == nil {
		return nil, fmt.Errorf("component %d: does not exist", id)
	}
	data := c.Slots[c.Act].Data
	if l == Second {
		data = c.second().Data
	}
	b := make([]byte, n)
	copy(b, data)
	return b, nil
}

// Tamper implements Tamperer: what the medium holds no longer is what the manifest says.
func (d *modelDevice) Tamper(id fwu.ID) error {
	d.sys.find(id).Tampered = true
	return nil
}

// modelAPI is the API of a modelDevice.
type modelAPI struct{ d *modelDevice }

func (a modelAPI) do(c call) (fwu.Status, error) {
	out := a.d.step(a.d.sys, c)[0]
	a.d.sys = out.next
	if out.status < 0 {
		return 0, &fwu.Error{Status: out.status, Text: "model: " + c.event, Components: out.named}
	}
	return out.status, nil
}

func (a modelAPI) err(c call) error {
	_, err := a.do(c)
	return err
}

func (a modelAPI) Components() []fwu.ComponentInfo {
	var all []fwu.ComponentInfo
	for _, c := range a.d.sys.comps {
		all = append(all, fwu.ComponentInfo{ID: c.ID, Name: fmt.Sprintf("c%d", c.ID), Manifest: c.Manifest, Live: !c.Variant.Reboot})
	}
	return all
}

func (a modelAPI) Query(_ context.Context, id fwu.ID) (fwu.Info, error) {
	if err := a.err(call{event: "query", id: id}); err != nil {
		return fwu.Info{}, err
	}
	return a.d.sys.find(id).info(a.d.sys.Alignment), nil
}

// info is the answer to query (section 5.5.5).
func (c *component) info(unit int64) fwu.Info {
	i := fwu.Info{State: c.State, Version: c.Slots[c.Act].Version, MaxSize: c.Size, Location: uint32(c.Act)}
	if c.Variant.Volatile {
		i.Flags = fwu.FlagVolatileStaging
	}
	switch c.State {
	case fwu.Failed, fwu.Rejected:
		i.Error, i.Impl.Reason = c.Err, c.Reason
	case fwu.Writing:
		i.Impl.Written = c.written(unit)
	}
	return i
}

func (a modelAPI) Start(_ context.Context, id fwu.ID, manifest []byte) error {
	return a.err(call{event: "start", id: id, manifest: manifest, from: a.d.recognise(manifest)})
}

func (a modelAPI) Write(_ context.Context, id fwu.ID, off int64, block []byte) error {
	c := call{event: "write", id: id, off: off, block: block}
	if m := a.d.sys.find(id); m != nil && m.Manifest == fwu.Bundled {
		if c.from = m.From; off == 0 {
			c.from = a.d.recognise(block)
		}
	}
	return a.err(c)
}

func (a modelAPI) Finish(_ context.Context, id fwu.ID) error {
	return a.err(call{event: "finish", id: id})
}

func (a modelAPI) Cancel(_ context.Context, id fwu.ID) error {
	return a.err(call{event: "cancel", id: id})
}

func (a modelAPI) Clean(_ context.Context, id fwu.ID) error {
	return a.err(call{event: "clean", id: id})
}

func (a modelAPI) Install(context.Context) (fwu.Status, error) { return a.do(call{event: "install"}) }

func (a modelAPI) Accept(context.Context) error { return a.err(call{event: "accept"}) }

func (a modelAPI) Reject(_ context.Context, why fwu.Rejection) (fwu.Status, error) {
	return a.do(call{event: "reject", err: why.Error})
}

func (a modelAPI) RequestReboot(context.Context) error { return a.err(call{event: "request-reboot"}) }

// namedIn are the components that an error names.
func namedIn(err error) []fwu.ID {
	var e *fwu.Error
	if errors.As(err, &e) {
		return e.Components
	}
	return nil
}
