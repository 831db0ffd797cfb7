package fwu

import "context"

// HookStage is a moment of an update at which programs of the device run.
type HookStage string

// The stages. A hook may run twice for one update: where it, or the install, is called again after
// a failure or a power cut. After a power cut, one that was to run after the commit may not have
// run.
const (
	// HookPreInstall is before an install reads or changes anything. A hook that fails refuses it.
	HookPreInstall HookStage = "pre-install"
	// HookPostInstall is after an install, when it is durable. Nothing that a hook does takes it
	// back: Reject does.
	HookPostInstall HookStage = "post-install"
	// HookPostAccept is after Accept, when it is durable. An accept that was cut off, and that the
	// next boot completes, has none.
	HookPostAccept HookStage = "post-accept"
)

// HookStages are all of them.
func HookStages() []HookStage { return []HookStage{HookPreInstall, HookPostInstall, HookPostAccept} }

// HookCall is the update that a hook runs for.
type HookCall struct {
	Stage HookStage
	Bank  Bank // that is installed or accepted; NoBank: live components
	// that are installed or accepted, by id; not those that are carried over
	Components []HookVersion
}

// HookVersion is a component, and the version that it is installed with.
type HookVersion struct {
	Component string
	Version   Version
}

// Hooks runs the hooks of a stage in their order, until one fails or ctx ends. It calls step before
// each: the watchdog wants to see one every few minutes.
type Hooks func(ctx context.Context, call *HookCall, step func()) error

func (s *Service) hooks(ctx context.Context, call *HookCall) error {
	if s.cfg.Hooks == nil {
		return nil
	}
	return s.cfg.Hooks(ctx, call, func() { s.works(0) })
}

// mayInstall asks the hooks before an install. They hold up other calls on its components, never a
// query; Cancel ends them.
func (s *Service) mayInstall(ctx context.Context, inst *installation) error {
	err := s.hooks(ctx, s.hookCall(HookPreInstall, inst.candidates))
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	return &Error{Status: NotPermitted, Reason: ReasonHook, Text: "a hook of this device refuses the install", Err: err}
}

// hookCall describes an update of components, before it changes the record.
func (s *Service) hookCall(stage HookStage, components []*component) *HookCall {
	call := &HookCall{Stage: stage}
	for _, c := range components {
		cr := s.record().Components[c.Name]
		img := cr.next()
		if stage == HookPostAccept {
			img = cr.image()
		}
		if !c.Live {
			call.Bank = s.cfg.Boot.Bank
			if stage != HookPostAccept {
				call.Bank = call.Bank.Other()
			}
		}
		call.Components = append(call.Components, HookVersion{c.Name, img.Version})
	}
	return call
}

// afterwards runs hooks after the commit of their call, which holds no lock any more: they may call
// the service. The call has succeeded, whatever they do. They end when the service closes, not when
// the caller goes: the boot check waits half a minute for its accept.
func (s *Service) afterwards(ctx context.Context, call *HookCall) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(s.life, func() { cancel(errClosed) })()
	if err := s.hooks(ctx, call); err != nil {
		s.log.Warn("a hook failed, which changes nothing", "err", err)
	}
}
