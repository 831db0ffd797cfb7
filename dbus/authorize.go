package dbus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// Caller is who asks for something.
type Caller struct {
	Name        string // its unique name on the bus
	User        uint32 // the user that it runs as
	Interactive bool   // a person may be asked to prove who they are, which can take minutes
}

// Authorize says whether a caller may do action, one of the Action constants. Any error means no; its text is what the caller is told. A
// caller's calls on one object are authorised one after the other, those of different callers side by side: one who has to be asked for a
// password holds up nobody else. ctx ends when the caller has gone, and when the service stops.
type Authorize func(ctx context.Context, caller Caller, action string) error

// ByRule is the rule of a Server that has no other: everybody may query; root and the user whom the
// service runs as may do the rest; anybody else if polkit says so, where the identifiers of the
// actions are the bus name, a dot, and the action. Where polkit does not answer in time, they may
// not.
func (s *Server) ByRule(ctx context.Context, caller Caller, action string) error {
	if action == ActionQuery || caller.User == 0 || uint64(caller.User) == uint64(os.Geteuid()) {
		return nil
	}
	ss := s.current.Load()
	if ss == nil {
		return errors.New("the service is not connected to a bus")
	}
	if err := ss.askPolkit(ctx, caller, Name+"."+action); err != nil {
		return fmt.Errorf("user %d may not %s: %w", caller.User, action, err)
	}
	return nil
}

// polkit, as in the reference of its D-Bus interface, org.freedesktop.PolicyKit1.Authority.
const (
	polkitName         = "org.freedesktop.PolicyKit1"
	polkitPath         = "/org/freedesktop/PolicyKit1/Authority"
	polkitAuthority    = polkitName + ".Authority"
	polkitAllowsPrompt = 1 // AllowUserInteraction
	// maxQuestions bounds the questions that polkit is asked at once: those that wait for a person,
	// and those that do not.
	maxQuestions = 16
	// polkitTimeout bounds a question that involves no person, personTimeout one that does. Waiting
	// until it can be asked is part of it.
	polkitTimeout = 30 * time.Second
	personTimeout = 2 * time.Minute
)

// subject is polkit's (sa{sv}).
type subject struct {
	Kind    string
	Details map[string]godbus.Variant
}

// errPolkitLate is why a question ended that polkit did not answer.
var errPolkitLate = errors.New("no answer in time")

// askPolkit asks polkit, for each user one question at a time. It lets go of the question when ctx
// ends, as a person's answer would come to nobody.
func (s *session) askPolkit(ctx context.Context, caller Caller, action string) error {
	limit, flags, open := polkitTimeout, uint32(0), s.questions
	if caller.Interactive {
		limit, flags, open = personTimeout, polkitAllowsPrompt, s.prompts
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errPolkitLate)
	defer cancel()
	for _, place := range []chan struct{}{s.questionOf(caller.User), open} {
		select {
		case place <- struct{}{}:
			defer func() { <-place }()
		case <-ctx.Done():
			return fmt.Errorf("ask polkit: other questions are open: %w", context.Cause(ctx))
		}
	}
	authorized, challenge, err := s.aside.checkAuthorization(ctx, caller.Name, action, flags)
	switch {
	case err != nil:
		return fmt.Errorf("ask polkit: %w", err)
	case authorized:
		return nil
	case challenge && !caller.Interactive:
		return fmt.Errorf("polkit wants %s to be authenticated, and the call does not allow for interaction", action)
	}
	return fmt.Errorf("polkit does not authorise %s", action)
}

func (s *session) questionOf(uid uint32) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accounts.of(uid, s.server.now()).question
}

// checkAuthorization asks polkit about the connection name.
func (a *aside) checkAuthorization(ctx context.Context, name, action string, flags uint32) (authorized, challenge bool, err error) {
	bus, err := a.bus(ctx)
	if err != nil {
		return false, false, err
	}
	polkit := bus.Object(polkitName, polkitPath)
	var answer struct {
		Authorized, Challenge bool
		Details               map[string]string
	}
	question := strconv.FormatUint(a.questions.Add(1), 10)
	who := subject{"system-bus-name", map[string]godbus.Variant{"name": godbus.MakeVariant(name)}}
	err = polkit.CallWithContext(ctx, polkitAuthority+".CheckAuthorization", 0, who, action, map[string]string{}, flags, question).Store(&answer)
	if ctx.Err() != nil {
		polkit.Go(polkitAuthority+".CancelCheckAuthorization", godbus.FlagNoReplyExpected, nil, question)
		return false, false, context.Cause(ctx)
	}
	return answer.Authorized, answer.Challenge, err
}
