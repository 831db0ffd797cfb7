package dbus

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// ReasonBusy: the call was not to wait, and would have to.
const ReasonBusy fwu.Reason = "busy"

// holders are the clients that prepare components: for each component the last one that called
// something for it that changes it, as long as that client is connected. Two clients that update
// the same component find each other by it.
type holders struct {
	mu  sync.Mutex
	all map[fwu.ID]holder
}

type holder struct {
	sender string
	client fwu.Client
}

// get returns who holds a component, if it is not asker.
func (h *holders) get(id fwu.ID, asker string) fwu.Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	if held := h.all[id]; held.sender != asker {
		return held.client
	}
	return fwu.Client{}
}

func (h *holders) holds(id fwu.ID, sender string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[id].sender == sender
}

func (h *holders) set(id fwu.ID, one holder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = map[fwu.ID]holder{}
	}
	h.all[id] = one
}

// release forgets who holds a component.
func (h *holders) release(id fwu.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.all, id)
}

// gone forgets a client that has disconnected.
func (h *holders) gone(sender string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, held := range h.all {
		if held.sender == sender {
			delete(h.all, id)
		}
	}
}

// hold makes the caller the holder of the component that the call is for.
func (s *session) hold(r *request) {
	if !r.object.component || !r.method.holds || s.holders.holds(r.id(), r.sender) {
		return
	}
	one := holder{r.sender, s.describe(r.sender)}
	one.client.Since = s.server.now().Unix()
	s.holders.set(r.id(), one)
	if r.peer.bulk.Err() != nil { // it has disconnected meanwhile, and nobody will say so again
		s.holders.gone(r.sender)
	}
}

// describe says who a caller is, as far as the bus and /proc tell.
func (s *session) describe(sender string) fwu.Client {
	ctx, cancel := context.WithTimeout(s.work, connectTimeout)
	defer cancel()
	c := fwu.Client{Name: "a client on the bus, " + sender}
	if err := s.conn.BusObject().CallWithContext(ctx, busName+".GetConnectionUnixProcessID", 0, sender).Store(&c.PID); err != nil {
		return c // it has gone
	}
	if name := unitOf(readProc(c.PID, "cgroup")); name != "" {
		c.Name = name
	} else if name := strings.TrimSpace(readProc(c.PID, "comm")); name != "" {
		c.Name = name
	}
	return c
}

// readProc reads a file of a process; it is empty where the process has gone or may not be looked
// at.
func readProc(pid uint32, name string) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		return ""
	}
	return clean(string(b))
}

// unitOf is the service in the control group of a process (/proc/PID/cgroup), empty if it is none:
// what a person started.
func unitOf(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || fields[1] != "" && fields[1] != "name=systemd" {
			continue
		}
		if unit := path.Base(fields[2]); strings.HasSuffix(unit, ".service") && !strings.HasPrefix(unit, "user@") {
			return unit
		}
	}
	return ""
}

// mustNotWait tells whether the options of a call say that it is not to wait for others.
func (r *request) mustNotWait() bool {
	args := r.args // a copy: the call reads them again
	before, ok := strings.CutSuffix(r.method.in, "a{sv}")
	if !ok {
		return false
	}
	for before != "" {
		switch {
		case strings.HasPrefix(before, "ay"):
			args.bytes()
			before = before[1:]
		case before[0] == 't':
			args.uint64()
		case before[0] == 's':
			args.string()
		default: // h and i
			args.uint32()
		}
		before = before[1:]
	}
	values, _ := args.options("reason", "text", optionWait)
	return values[optionWait] == waitNo
}

// The option of every call that takes options and may have to wait.
const (
	optionWait = "wait"
	waitNo     = "no"
)

// inTheWay is the answer to a call that was not to wait.
func (s *session) inTheWay(r *request) error {
	who := "another call"
	if r.object.component {
		if c := s.holders.get(r.id(), r.sender); c.Name != "" {
			who = c.String()
		}
	}
	return &fwu.Error{Status: fwu.BadState, Reason: ReasonBusy, Text: fmt.Sprintf("%s: it would have to wait for %s; nothing was done", r.member, who)}
}
