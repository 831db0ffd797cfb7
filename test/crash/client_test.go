package crash

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// client is an update client: it knows the API, the images, and how to restart service and machine. It notes what each call may leave if it is cut.
type client struct {
	ctx     context.Context
	m       *machine
	phases  []*phase
	outer   *phase       // of a recovery: the phase until the service has started
	strict  bool         // check the invariants after each call
	failing bool         // a medium fails: errors are expected
	calling atomic.Value // name of the call, or of the boot, that runs: a string
	// afterBoot: a medium failed in a boot or a start of the service, so that the story does not go as it is told.
	afterBoot bool
}

// infos is a snapshot of all components.
func (c *client) infos() map[string]fwu.Info {
	out := map[string]fwu.Info{}
	if c.m.service == nil {
		return out
	}
	for _, comp := range c.m.dev.components {
		if info, err := c.m.service.Query(c.ctx, comp.id); err == nil {
			out[comp.name] = info
		}
	}
	return out
}

// call runs f as a phase. ids are the components that it is about.
func (c *client) call(name string, ids []fwu.ID, f func() error) error {
	c.m.media.Rest()
	p := c.begin(name, ids)
	var starts []*phase
	c.m.starting = func() { // from here on the bootloader is out of it
		q := *p
		q.from, q.running, q.killed, q.automatic = c.m.media.Position(), c.m.running(), q.allowed, c.m.automatic
		if name == "restart" {
			q.killed = p.killed
		}
		c.phases, starts = append(c.phases, &q), append(starts, &q)
	}
	err := f()
	c.m.media.Rest()
	p.defaults = append(slices.Clone(p.defaults), c.m.selection().Default)
	if c.m.service != nil {
		after := c.m.needed()
		p.needed = slices.DeleteFunc(slices.Clone(p.needed), func(n string) bool { return !slices.Contains(after, n) })
	}
	for _, q := range starts {
		q.defaults, q.needed = p.defaults, p.needed
	}
	if err != nil {
		return fmt.Errorf("%s %v: %w", name, ids, err)
	}
	if c.strict {
		if err := c.m.sound(); err != nil {
			return fmt.Errorf("after %s %v: %w", name, ids, err)
		}
	}
	return nil
}

func (c *client) begin(name string, ids []fwu.ID) *phase {
	m := c.m
	p := &phase{from: m.media.Position(), call: name, allowed: map[string]states{}, floors: maps.Clone(m.floors), accepted: maps.Clone(m.accepted), killed: map[string]states{}, automatic: m.automatic}
	if m.service == nil && c.outer != nil {
		o := *c.outer
		o.from = p.from
		c.phases = append(c.phases, &o)
		c.calling.Store(o.call)
		return &o
	}
	p.defaults = []fwu.Bank{m.selection().Default}
	for _, comp := range m.dev.components {
		state := c.infos()[comp.name].State
		own := isGlobal(name) || slices.Contains(ids, comp.id)
		p.allowed[comp.name] = m.dev.allowed(comp, name, own, state)
		p.killed[comp.name] = states{state}
		if after, ok := m.dev.calls(comp, name, state); own && ok {
			p.killed[comp.name] = states{state, after}
			if name == "reject" && state == fwu.Staged { // between disarming and destroying it looks like an install that was about to arm: not armed, and verified
				p.killed[comp.name] = append(p.killed[comp.name], fwu.Candidate)
			}
		}
		if !comp.live && (state == fwu.Staged || state == fwu.Trial || state == fwu.Rejected || state == fwu.Candidate && name == "install") {
			p.together = append(p.together, comp.name)
		}
	}
	if m.service != nil {
		p.needed = m.needed()
		if name != "reboot" {
			p.running = m.running()
		}
	}
	c.phases = append(c.phases, p)
	c.calling.Store(p.call)
	return p
}

func (c *client) start(id fwu.ID, build int) error {
	return c.call("start", []fwu.ID{id}, func() error {
		comp := c.m.dev.component(id)
		if comp.manifest == fwu.Bundled {
			return c.m.service.Start(c.ctx, id, nil)
		}
		return c.m.service.Start(c.ctx, id, c.image(id, build).manifest)
	})
}

func (c *client) image(id fwu.ID, build int) *image {
	return c.m.w.images[c.m.dev.component(id).name][build]
}

// stream is what is written for a component: the image, or a bundle.
func (c *client) stream(id fwu.ID, build int) []byte {
	switch comp := c.m.dev.component(id); {
	case comp.compressed:
		return c.image(id, build).packed
	case comp.manifest == fwu.Bundled:
		return c.image(id, build).bundle
	}
	return c.image(id, build).content
}

// write sends what lies between from and to, in one transfer that ends durably.
func (c *client) write(id fwu.ID, build int, from, to int64) error {
	return c.call("write", []fwu.ID{id}, func() error {
		b := c.stream(id, build)
		_, err := c.m.service.WriteFrom(c.ctx, id, from, bytes.NewReader(b[from:min(to, int64(len(b)))]), 0)
		return err
	})
}

// scatter sends an image in blocks that do not follow each other, so that many writes are pending at once.
func (c *client) scatter(id fwu.ID, build int) error {
	return c.call("write", []fwu.ID{id}, func() error {
		b := c.stream(id, build)
		const block = 16 << 10
		n := (len(b) + block - 1) / block
		for i := range n {
			off := (i * 7 % n) * block
			if err := c.m.service.Write(c.ctx, id, int64(off), b[off:min(off+block, len(b))]); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeOn continues at what is durable.
func (c *client) writeOn(id fwu.ID, build int, n int64) error {
	from := c.infos()[c.m.dev.component(id).name].Impl.Written
	if from >= int64(len(c.stream(id, build))) {
		return nil
	}
	return c.write(id, build, from, from+n)
}

const all = int64(1) << 40

func (c *client) finish(id fwu.ID) error {
	return c.call("finish", []fwu.ID{id}, func() error { return c.m.service.Finish(c.ctx, id) })
}

func (c *client) cancel(id fwu.ID) error {
	return c.call("cancel", []fwu.ID{id}, func() error { return c.m.service.Cancel(c.ctx, id) })
}

func (c *client) clean(id fwu.ID) error {
	return c.call("clean", []fwu.ID{id}, func() error { return c.m.service.Clean(c.ctx, id) })
}

// install notes what bank is being made: the candidates, and what is active of the others.
func (c *client) install() error {
	with := map[string]int{}
	for name, info := range c.infos() {
		if info.State == fwu.Candidate {
			with[name] = c.m.w.buildOf(name, info.Impl.ManifestDigest, c.m.build(name, int(info.Location)))
		} else {
			with[name] = c.m.build(name, int(info.Location))
		}
	}
	c.m.sets[c.m.combination(0, with)] = true
	c.m.automatic = 0
	return c.call("install", nil, func() error {
		_, err := c.m.service.Install(c.ctx)
		return err
	})
}

// buildOf finds an image by its manifest, whichever it came with.
func (w *world) buildOf(name, manifest string, otherwise int) int {
	for _, i := range w.images[name] {
		if i.digest == manifest || i.bundled == manifest || i.squeezed == manifest {
			return i.build
		}
	}
	return otherwise
}

func (c *client) accept() error {
	return c.call("accept", nil, func() error { return c.m.service.Accept(c.ctx) })
}

func (c *client) reject() error {
	return c.call("reject", nil, func() error {
		_, err := c.m.service.Reject(c.ctx, fwu.Rejection{Error: -1000})
		return err
	})
}

// reboot shuts down in good order and boots.
func (c *client) reboot() error {
	return c.call("reboot", nil, func() error {
		if c.m.service != nil {
			if err := c.m.service.Close(); err != nil && !c.failing {
				return err
			}
			c.m.media.Settle()
		}
		return c.m.boot(c.ctx)
	})
}

// restart is a crash of the service alone.
func (c *client) restart() error {
	return c.call("restart", nil, func() error { return c.m.start(c.ctx) })
}

// update writes and finishes images of one build.
func (c *client) update(build int, ids ...fwu.ID) error {
	for _, id := range ids {
		if err := c.start(id, build); err != nil {
			return err
		}
		if err := c.write(id, build, 0, all); err != nil {
			return err
		}
		if err := c.finish(id); err != nil {
			return err
		}
	}
	return nil
}

// policy is what a client makes of what it finds.
type policy uint8

const (
	abandon policy = iota // back to what was
	carryOn               // forward to what is new
)

// settle brings every component to READY, by what the states demand.
func (c *client) settle(p policy) error {
	for range 30 {
		done, err := c.advance(p)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("still not READY: %s", c.describe())
}

func (c *client) describe() string {
	var out string
	infos := c.infos()
	for _, comp := range c.m.dev.components {
		out += fmt.Sprintf("%s %s, ", comp.name, infos[comp.name].State)
	}
	return out + fmt.Sprint(c.m.service.System().Why)
}

// advance makes one step. done tells that there was none to make.
func (c *client) advance(p policy) (done bool, err error) {
	infos := c.infos()
	in := func(s fwu.State) (ids []fwu.ID) {
		for _, comp := range c.m.dev.components {
			if infos[comp.name].State == s {
				ids = append(ids, comp.id)
			}
		}
		return ids
	}
	switch {
	case len(in(fwu.Rejected)) > 0, len(in(fwu.Staged)) > 0 && p == carryOn:
		return false, c.reboot()
	case len(in(fwu.Staged)) > 0, len(in(fwu.Trial)) > 0 && p == abandon:
		return false, c.reject()
	case len(in(fwu.Trial)) > 0:
		return false, c.accept()
	}
	for _, id := range slices.Concat(in(fwu.Failed), in(fwu.Updated)) {
		if err := c.clean(id); err != nil {
			return false, err
		}
	}
	for _, id := range in(fwu.Writing) {
		if err := c.goOn(id, p, infos[c.m.dev.component(id).name]); err != nil {
			return false, err
		}
	}
	if ids := in(fwu.Candidate); len(ids) > 0 && len(in(fwu.Writing)) == 0 {
		if p == carryOn && len(in(fwu.Failed)) == 0 && len(in(fwu.Updated)) == 0 && c.oneKind(ids) {
			return false, c.install()
		}
		if p == abandon || !c.oneKind(ids) {
			return false, c.cancel(ids[0])
		}
	}
	return len(in(fwu.Ready)) == len(c.m.dev.components), nil
}

func (c *client) oneKind(ids []fwu.ID) bool {
	return !slices.ContainsFunc(ids, func(id fwu.ID) bool { return c.m.dev.component(id).live != c.m.dev.component(ids[0]).live })
}

// goOn continues a transfer where it is durable, or ends it.
func (c *client) goOn(id fwu.ID, p policy, info fwu.Info) error {
	build := c.m.w.buildOf(c.m.dev.component(id).name, info.Impl.ManifestDigest, -1)
	if p == abandon || build < 0 {
		return c.cancel(id)
	}
	if n := info.Impl.Written; n < int64(len(c.stream(id, build))) {
		if err := c.write(id, build, n, all); err != nil {
			return err
		}
	}
	return c.finish(id)
}

// renew updates everything to the spare build, and cleans up.
func (c *client) renew() error {
	var live, bank []fwu.ID
	for _, comp := range c.m.dev.components {
		if comp.live {
			live = append(live, comp.id)
		} else {
			bank = append(bank, comp.id)
		}
	}
	for _, ids := range [][]fwu.ID{bank, live} {
		if len(ids) == 0 {
			continue
		}
		if err := c.update(spare, ids...); err != nil {
			return err
		}
		if err := c.install(); err != nil {
			return err
		}
		if err := c.settle(carryOn); err != nil {
			return err
		}
	}
	return c.renewed()
}

func (c *client) renewed() error {
	for name, info := range c.infos() {
		if info.Version != version(spare) || info.Impl.Sequence != sequence(spare) || info.State != fwu.Ready {
			return fmt.Errorf("%s is %s with version %v and floor %d after a whole update", name, info.State, info.Version, info.Impl.Sequence)
		}
	}
	return nil
}
