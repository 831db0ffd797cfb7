package dbus

import (
	"context"
	"reflect"
	"sync"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// changes are the components that may have changed since somebody looked.
type changes struct {
	mu    sync.Mutex
	dirty [256]bool
	wake  chan struct{} // holds one
}

func (c *changes) add(id fwu.ID) {
	c.mark(id)
	select {
	case c.wake <- struct{}{}:
	default: // somebody will look
	}
}

func (c *changes) mark(id fwu.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty[id] = true
}

func (c *changes) take(id fwu.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.dirty[id]
	c.dirty[id] = false
	return was
}

// emitter tells clients what changed since they were told last.
type emitter struct {
	session *session
	ctx     context.Context
	stop    context.CancelFunc

	mu   sync.Mutex
	told map[*object]*told
}

// told is what clients know of an object, and when they were told.
type told struct {
	values map[string]any
	at     time.Time
}

func newEmitter(s *session) emitter {
	ctx, stop := context.WithCancel(s.work)
	return emitter{session: s, ctx: ctx, stop: stop, told: map[*object]*told{}}
}

// run tells changes until stop is called, and then those that are left.
func (e *emitter) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-e.ctx.Done():
			e.tell(true)
			return
		case <-e.session.server.changes.wake:
		case <-timer.C:
		}
		if wait := e.tell(false); wait > 0 {
			timer.Reset(wait)
		}
	}
}

// tell tells what changed, all of it or what may be told now. It returns how long to wait until the rest may be.
func (e *emitter) tell(all bool) (wait time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	touched := all
	for _, c := range e.session.components {
		if !e.session.server.changes.take(c.ID) && !all {
			continue
		}
		touched = true
		// What has to wait is marked, and looked at again when the first of them may be told.
		if w := e.update(e.session.tree[string(componentPath(c.ID))], all); w > 0 {
			e.session.server.changes.mark(c.ID)
			if wait == 0 || w < wait {
				wait = w
			}
		}
	}
	if touched {
		e.update(e.session.tree[Path], true)
	}
	return wait
}

// flush tells a change of state before what is told next, and the rest when it may be.
func (e *emitter) flush(id fwu.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.update(e.session.tree[string(componentPath(id))], false) > 0 {
		e.session.server.changes.add(id)
	}
}

// update tells what changed of an object, unless it is to be quiet for the time that it returns.
func (e *emitter) update(o *object, now bool) time.Duration {
	main := o.interfaces[0]
	values, err := e.session.variables(o, main)
	if err != nil {
		return 0 // nothing is known; the next change asks again
	}
	known := e.told[o]
	if known == nil {
		e.told[o] = &told{values: values}
		return 0
	}
	news := map[string]godbus.Variant{}
	for name, value := range values {
		if !reflect.DeepEqual(value, known.values[name]) {
			news[name] = godbus.MakeVariant(value)
		}
	}
	if len(news) == 0 {
		return 0
	}
	_, urgent := news["State"]
	if left := known.at.Add(e.session.server.quiet).Sub(e.session.server.now()); left > 0 && !now && !urgent {
		return left
	}
	e.told[o] = &told{values: values, at: e.session.server.now()}
	// A signal that cannot be sent has nobody to hear it.
	_ = e.session.conn.Emit(o.path, propertiesName+".PropertiesChanged", main.name, news, []string{})
	return 0
}

// variables are the properties of an interface that can change.
func (s *session) variables(o *object, i iface) (map[string]any, error) {
	v, err := s.view(s.work, o)
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	for _, p := range i.properties {
		if !p.constant {
			values[p.name] = p.get(v)
		}
	}
	return values, nil
}
