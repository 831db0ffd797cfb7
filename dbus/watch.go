package dbus

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"sync"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Event is news of a component.
type Event struct {
	Component fwu.ID
	// Info is what is known of it now. ImageSize, Digest, Sequence and the slots are not among the news: ask Query.
	Info fwu.Info
	// Finished is the operation that ended with Status, Reason and Text; empty if the news is a change of Info.
	Finished string
	Status   fwu.Status
	Reason   fwu.Reason
	Text     string
}

// Watch tells what happens to the components: first how each of them is, then every change, and the end of every operation. It goes on when
// the service ends and is started again. The channel is closed when ctx ends or the connection is lost. A receiver that is slow
// misses steps in between, never the last state nor the end of an operation.
func (c *Client) Watch(ctx context.Context) (<-chan Event, error) {
	w := &watcher{client: c, news: make(chan struct{}, 1)}
	c.watchers.add(w)
	if err := w.subscribe(ctx); err != nil {
		w.unsubscribe()
		return nil, err
	}
	events := make(chan Event)
	go w.run(ctx, events)
	return events, nil
}

// watchers pass what comes from the bus to whom it may concern. It implements godbus.SignalHandler, so signals keep their order.
type watchers struct {
	mu  sync.Mutex
	all map[*watcher]bool
}

func (w *watchers) add(one *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[*watcher]bool{}
	}
	w.all[one] = true
}

func (w *watchers) remove(one *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, one)
}

// DeliverSignal implements godbus.SignalHandler.
func (w *watchers) DeliverSignal(_, _ string, s *godbus.Signal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.all {
		one.signal(s)
	}
}

// watcher is one Watch.
type watcher struct {
	client *Client
	news   chan struct{} // holds one

	mu      sync.Mutex
	owner   string // unique name of the service: anybody can send a signal that looks like its own
	renewed bool   // another process owns the name: what was known is old
	infos   map[fwu.ID]fwu.Info
	since   map[fwu.ID]map[string]godbus.Variant // what changed while fetch asks
	queue   []Event
}

func watchRules() [][]godbus.MatchOption {
	return [][]godbus.MatchOption{
		{godbus.WithMatchSender(busName), godbus.WithMatchInterface(busName), godbus.WithMatchMember("NameOwnerChanged"), godbus.WithMatchArg(0, Name)},
		{godbus.WithMatchSender(Name), godbus.WithMatchPathNamespace(componentFolder)},
	}
}

func (w *watcher) subscribe(ctx context.Context) error {
	for _, rule := range watchRules() {
		if err := w.client.conn.AddMatchSignalContext(ctx, rule...); err != nil {
			return decodeError(ctx, "watch", err)
		}
	}
	// A question first, which starts the service where it does not run.
	if err := w.client.call(ctx, Path, busName+".Peer.Ping", nil); err != nil {
		return err
	}
	var owner string
	if err := w.client.conn.BusObject().CallWithContext(ctx, busName+".GetNameOwner", 0, Name).Store(&owner); err != nil {
		return decodeError(ctx, "watch", err)
	}
	w.mu.Lock()
	w.owner = owner
	w.mu.Unlock()
	return w.fetch(ctx)
}

func (w *watcher) unsubscribe() {
	w.client.watchers.remove(w)
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	for _, rule := range watchRules() {
		// A rule that cannot be removed costs signals that nobody reads.
		_ = w.client.conn.RemoveMatchSignalContext(ctx, rule...)
	}
}

// fetch asks how things are. What is heard meanwhile is as new as the answer, or newer.
func (w *watcher) fetch(ctx context.Context) error {
	w.mu.Lock()
	w.since = map[fwu.ID]map[string]godbus.Variant{}
	w.mu.Unlock()
	infos := map[fwu.ID]fwu.Info{}
	for _, comp := range w.client.components {
		p, err := w.client.getAll(ctx, componentPath(comp.ID), ComponentInterface)
		if err != nil {
			return err
		}
		infos[comp.ID] = merge(fwu.Info{}, p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.infos = infos
	for _, comp := range w.client.components {
		infos[comp.ID] = merge(infos[comp.ID], w.since[comp.ID])
		w.push(Event{Component: comp.ID, Info: infos[comp.ID]})
	}
	w.since = nil
	return nil
}

// signal takes in what comes from the bus. It never waits.
func (w *watcher) signal(s *godbus.Signal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id, fromComponent := componentOf(s.Path)
	switch {
	case s.Sender == busName && s.Name == busName+".NameOwnerChanged" && len(s.Body) == 3 && s.Body[0] == Name:
		w.owner, _ = s.Body[2].(string)
		w.renewed = w.owner != ""
		w.wake()
	case s.Sender != w.owner || !fromComponent:
	case s.Name == propertiesName+".PropertiesChanged" && len(s.Body) == 3 && s.Body[0] == ComponentInterface:
		p, _ := s.Body[1].(map[string]godbus.Variant)
		w.changed(id, p)
	case s.Name == ComponentInterface+".OperationFinished" && len(s.Body) == 3:
		e := Event{Component: id, Info: w.infos[id]}
		e.Finished, _ = s.Body[0].(string)
		status, _ := s.Body[1].(int32)
		e.Status = fwu.Status(status)
		e.Reason, e.Text = reasonPair(s.Body[2])
		w.push(e)
	}
}

func (w *watcher) changed(id fwu.ID, p map[string]godbus.Variant) {
	if w.since != nil {
		if w.since[id] == nil {
			w.since[id] = map[string]godbus.Variant{}
		}
		maps.Copy(w.since[id], p)
	}
	if w.infos == nil { // fetch will tell
		return
	}
	w.infos[id] = merge(w.infos[id], p)
	w.push(Event{Component: id, Info: w.infos[id]})
}

// push queues an event. A change of a component whose last change nobody has taken yet replaces that. The caller holds mu.
func (w *watcher) push(e Event) {
	defer w.wake()
	for i := len(w.queue) - 1; i >= 0 && e.Finished == ""; i-- {
		if q := &w.queue[i]; q.Component == e.Component {
			if q.Finished != "" {
				break
			}
			*q = e
			return
		}
	}
	w.queue = append(w.queue, e)
}

func (w *watcher) wake() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// run passes events on until the end.
func (w *watcher) run(ctx context.Context, events chan<- Event) {
	defer close(events)
	defer w.unsubscribe()
	lost := w.client.conn.Context().Done()
	for {
		select {
		case <-ctx.Done():
			return
		case <-lost:
			return
		case <-w.news:
		}
		if w.takeRenewed() {
			// If it is gone again, the next owner is asked.
			_ = w.fetch(ctx)
		}
		for e, ok := w.next(); ok; e, ok = w.next() {
			select {
			case <-ctx.Done():
				return
			case <-lost:
				return
			case events <- e:
			}
		}
	}
}

func (w *watcher) takeRenewed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.renewed
	w.renewed = false
	return was
}

func (w *watcher) next() (Event, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return Event{}, false
	}
	e := w.queue[0]
	w.queue = w.queue[1:]
	return e, true
}

func componentOf(path godbus.ObjectPath) (fwu.ID, bool) {
	last, ok := strings.CutPrefix(string(path), componentFolder+"/")
	n, err := strconv.ParseUint(last, 10, 8)
	return fwu.ID(n), ok && err == nil
}

// merge is info with the properties in p as they are there.
func merge(info fwu.Info, p map[string]godbus.Variant) fwu.Info {
	for name, v := range p {
		switch name {
		case "State":
			info.State = fwu.State(value[uint8](p, name))
		case "Error":
			info.Error = fwu.Status(value[int32](p, name))
		case "Reason":
			info.Impl.Reason, info.Impl.Text = reasonPair(v.Value())
		case "Version":
			_ = godbus.Store([]any{v.Value()}, &info.Version) // of another type: as if it were not there
		case "MaxSize":
			info.MaxSize = int64(value[uint64](p, name))
		case "Flags":
			info.Flags = value[uint32](p, name)
		case "Location":
			info.Location = value[uint32](p, name)
		case "Written":
			info.Impl.Written = int64(value[uint64](p, name))
		case "ManifestDigest":
			info.Impl.ManifestDigest = value[string](p, name)
		case "Second":
			info.Impl.Second = parseSecond(v)
		case "Operation":
			info.Impl.Operation = value[string](p, name)
		case "Progress":
			info.Impl.Done, info.Impl.Total = progressPair(v.Value())
		}
	}
	return info
}
