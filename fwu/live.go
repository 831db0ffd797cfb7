package fwu

import (
	"context"
	"errors"
)

// installLive makes the candidates the active images, and restarts the units that use them. If one
// does not start with its new image, all get their old ones back.
func (s *Service) installLive(ctx context.Context, inst *installation) (Status, error) {
	ids, before := s.staged(inst)
	p := plan{
		do: append(unsealAll(before, ids), save{"live install", func(r *record) {
			for _, c := range inst.candidates {
				cr := r.Components[c.Name]
				to := s.move(r, c.Component, evInstall)
				cr.Active = 1 - cr.Active
				cr.set(to, Success, "", "")
				if to == Updated {
					cr.raiseFloor(r)
				}
			}
		}}),
		// the record of the install may be on the medium
		undo: append([]effect{save{"CANDIDATE", func(*record) {}}}, sealAll(before, ids)...),
	}
	var n news
	if err := s.perform(ctx, p, &n); err != nil {
		return 0, err
	}
	for _, c := range inst.candidates {
		if err := s.release(c); err != nil {
			s.log.Warn("slot not given up cleanly", "component", c.Name, "err", err)
		}
	}
	for _, c := range inst.candidates {
		if err := s.perform(ctx, plan{do: []effect{link{c.ID, 1 - before[c.ID].Active, false}}}, &n); err != nil {
			back := s.perform(ctx, s.putBack(inst, before, c), &n)
			if back == nil {
				s.tell(n)
			}
			return 0, errors.Join(err, back)
		}
	}
	s.tell(n)
	return Success, nil
}

// putBack gives the live components of an install their old images, because culprit does not run
// with its new one.
func (s *Service) putBack(inst *installation, before map[ID]*componentRecord, culprit *component) plan {
	p := plan{do: []effect{save{"FAILED", func(r *record) {
		for _, c := range inst.candidates {
			cr := r.Components[c.Name]
			to := s.move(r, c.Component, evInstallFailed)
			cr.Active, cr.Floor = before[c.ID].Active, before[c.ID].Floor
			cr.set(to, GenericError, ReasonUnitRestart, culprit.Name+" did not start with its new image")
			if c == culprit {
				cr.remember(cr.next().Digest)
			}
		}
	}}}}
	for _, c := range inst.candidates {
		p.do = append(p.do, link{c.ID, before[c.ID].Active, true})
	}
	for _, c := range inst.candidates {
		p.do = append(p.do, destroy{c.ID, 1 - before[c.ID].Active, true})
	}
	return p
}

func (s *Service) rejectLive(trial []*component, why Rejection) plan {
	r := s.record()
	p := plan{do: []effect{save{"FAILED", func(r *record) {
		for _, c := range trial {
			cr := r.Components[c.Name]
			to := s.move(r, c.Component, evReject)
			cr.remember(cr.image().Digest)
			cr.Active = 1 - cr.Active
			cr.fail(to, why.Error, why.Reason, why.Text)
		}
	}}}}
	for _, c := range trial {
		p.do = append(p.do, link{c.ID, 1 - r.Components[c.Name].Active, true})
	}
	for _, c := range trial {
		p.do = append(p.do, destroy{c.ID, r.Components[c.Name].Active, true})
	}
	return p
}
