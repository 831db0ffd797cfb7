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
	return o.join(key)
}

// enterAlone is enter where nobody is in the queue of key, so that it is the caller's turn at once.
// ok is false if somebody is.
func (o *order) enterAlone(key any) (leave func(), ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tails[key] != nil {
		return nil, false
	}
	_, leave = o.join(key)
	return leave, true
}

// join is enter for who holds mu.
func (o *order) join(key any) (turn <-chan struct{}, leave func()) {
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
