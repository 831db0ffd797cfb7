package dbus

import "sync"

// maxStuck bounds the reads of a user that were given up and still wait for a file system. Each has
// a thread and a buffer: whoever begins transfers from a file system that hangs, and cancels them,
// must not take all threads of the service.
const maxStuck = 4

// stuckReads counts these reads, by user.
type stuckReads struct {
	mu     sync.Mutex
	byUser map[uint32]int
}

func (s *stuckReads) full(user uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byUser[user] >= maxStuck
}

func (s *stuckReads) add(user uint32, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUser == nil {
		s.byUser = map[uint32]int{}
	}
	if s.byUser[user] += n; s.byUser[user] == 0 {
		delete(s.byUser, user)
	}
}
