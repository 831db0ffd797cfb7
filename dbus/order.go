package dbus

import "sync"

// order is who comes next: queues by key, each of which exists as long as somebody is in it.
type order struct {
	mu    sync.Mutex
	tails map[any]chan struct{}
}

// enter takes the next place in the queue of key. turn is closed when everybody before has left; leave is to be called once, after turn.
func (o *order) enter(key any) (turn <-chan struct{}, leave func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.tails[key]
	if before == nil {
		before = make(chan struct{})
		close(before)
	}
	mine := make(chan struct{})
	if o.tails == nil {
		o.tails = map[any]chan struct{}{}
	}
	o.tails[key] = mine
	return before, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.tails[key] == mine {
			delete(o.tails, key)
		}
		close(mine)
	}
}
