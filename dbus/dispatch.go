package dbus

import (
	"context"
	"errors"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// arrive takes a call from the socket. It runs in the goroutine that reads, so it neither waits nor
// works.
func (s *session) arrive(m *message) {
	if p, known := s.caller(m); known {
		s.take(p, m)
	}
}

// take finds the method of a call, gives it its place, and leaves it to a goroutine of its own.
func (s *session) take(p *peer, m *message) {
	if !s.hears(p) {
		m.close()
		return
	}
	r, err := s.recognise(m)
	if err == nil {
		r.peer = p
		err = s.admit(r)
	}
	if err != nil {
		m.close()
		s.reply(p, m, nil, err)
		return
	}
	leaveAuth := func() {}
	var turn <-chan struct{}
	if r.method.ordered {
		turn, leaveAuth = s.order.enter([2]string{m.sender, m.path})
	}
	go func() {
		defer s.dismiss(r)
		defer m.close()
		results, err := s.serve(r, turn, leaveAuth)
		m.close()
		s.reply(p, m, results, err)
	}()
}

// recognise finds what a call is for, and refuses what cannot be.
func (s *session) recognise(m *message) (*request, error) {
	o, err := s.tree.find(m.path)
	if err != nil {
		return nil, err
	}
	f, err := o.find(m.iface, m.member)
	switch {
	case err != nil:
		return nil, err
	case m.signature != f.in:
		return nil, refuse("InvalidArgs", "%s takes %q, not %q", m.member, f.in, m.signature)
	case int(m.header.descriptors) != len(m.descriptors):
		return nil, refuse("LimitsExceeded", "%s: the service has no room for %d descriptors", m.member, m.header.descriptors)
	case len(m.descriptors) != strings.Count(f.in, "h"):
		return nil, refuse("InvalidArgs", "%s takes %d descriptors, not %d", m.member, strings.Count(f.in, "h"), len(m.descriptors))
	case m.tooLarge() && m.member == "Write":
		return nil, m.blockTooLarge()
	case m.tooLarge():
		return nil, refuse("LimitsExceeded", "%s: arguments of %d bytes are too large", m.member, m.body)
	}
	return &request{session: s, message: m, object: o, method: f, args: cursor{data: m.data, order: m.fixed.order}}, nil
}

// serve does what a call asks for, when it may and when its turn has come.
func (s *session) serve(r *request, authTurn <-chan struct{}, leaveAuth func()) ([]any, error) {
	if !r.method.ordered {
		if err := s.authorize(r); err != nil {
			return nil, err
		}
		return r.method.call(s.work, r)
	}
	<-authTurn
	if err := s.authorize(r); err != nil {
		leaveAuth()
		return nil, err
	}
	leave, err := s.waitItsTurn(r, leaveAuth)
	if err != nil {
		return nil, err
	}
	defer leave()
	switch {
	case s.isStopping():
		return nil, refuse("ServiceUnknown", "%s: %v; nothing was done", r.member, errStopping)
	case errors.Is(context.Cause(r.peer.bulk), errVanished): // whoever asked wants it no more, and others have gone on
		return nil, refuse("Failed", "%s: %v; nothing was done", r.member, errVanished)
	}
	s.hold(r)
	ctx := s.work
	if r.method.bulk {
		ctx = r.peer.bulk
	}
	return r.method.call(ctx, r)
}

// waitItsTurn returns when the calls before it on the same object are done. leaveAuth is called
// when it has its place.
func (s *session) waitItsTurn(r *request, leaveAuth func()) (leave func(), err error) {
	if r.mustNotWait() {
		leave, ok := s.order.enterAlone(r.path)
		leaveAuth()
		if !ok {
			return nil, s.inTheWay(r)
		}
		return leave, nil
	}
	turn, leave := s.order.enter(r.path)
	leaveAuth()
	<-turn
	return leave, nil
}

// reply answers a caller who wants to know.
func (s *session) reply(p *peer, m *message, results []any, err error) {
	if answer := answerTo(m, results, err); answer != nil {
		s.spend(p, answer)
		s.send(answer)
	}
}

// send sends an answer. There is nobody to tell if that fails.
func (s *session) send(answer *godbus.Message) {
	if answer != nil {
		s.conn.Send(answer, nil)
	}
}

// answerTo makes the answer to a call, nil if the caller wants none.
func answerTo(m *message, results []any, err error) *godbus.Message {
	if !m.wantsReply() {
		return nil
	}
	answer := &godbus.Message{Type: godbus.TypeMethodReply, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldReplySerial: godbus.MakeVariant(m.serial),
	}}
	if m.sender != "" {
		answer.Headers[godbus.FieldDestination] = godbus.MakeVariant(m.sender)
	}
	if err != nil {
		answer.Type = godbus.TypeError
		var name string
		name, results = encodeError(err)
		answer.Headers[godbus.FieldErrorName] = godbus.MakeVariant(name)
	}
	if len(results) > 0 {
		answer.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(results...))
		answer.Body = results
	}
	return answer
}

// rest begins a new period of idleness. The caller holds mu.
func (s *session) rest() {
	if s.server.options.Idle > 0 && s.pending == 0 {
		s.idle.Reset(s.server.options.Idle)
	}
}

func (s *session) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending > 0
}

func (s *session) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// finished tells everybody that an operation has ended, after the state that it ended in.
func (s *session) finished(id fwu.ID, operation string, status fwu.Status, err error) {
	text := ""
	if err != nil {
		status, text = fwu.StatusOf(err), err.Error()
	}
	s.emitter.flush(id)
	// A signal that cannot be sent has nobody to hear it.
	_ = s.conn.Emit(componentPath(id), ComponentInterface+".OperationFinished", operation, int32(status), reasonOf(fwu.ReasonOf(err), text))
}

// authorize asks whether the caller may do what it asks for.
func (s *session) authorize(r *request) error {
	if r.method.action == "" {
		return nil
	}
	ask := s.server.options.Authorize
	if ask == nil {
		ask = s.server.ByRule
	}
	caller := Caller{Name: r.sender, User: r.peer.account.uid, Interactive: r.flags&godbus.FlagAllowInteractiveAuthorization != 0}
	err := ask(r.peer.bulk, caller, r.method.action)
	switch {
	case err == nil:
		return s.authorised(r)
	case s.isStopping(): // which ends questions to people
		return refuse("ServiceUnknown", "%s: %v; nothing was done", r.member, errStopping)
	}
	s.denied(r, err)
	return refuse("AccessDenied", "%s: %v", r.member, err)
}

// denied tells of a call that was not authorised, unless one of the same user was told of lately.
func (s *session) denied(r *request, err error) {
	s.mu.Lock()
	user, now := r.peer.account, s.server.now()
	tell := s.server.options.Denied != nil && now.Sub(user.denied) >= deniedInterval
	if tell {
		user.denied = now
	}
	s.mu.Unlock()
	if tell {
		s.server.options.Denied(Denial{user.uid, r.member, err})
	}
}
