package fwu

import (
	"context"
	"fmt"
)

// Check tells whether Start would take a manifest for a component, and Install what the component
// needs of others. It waits for nothing and changes nothing. The manifest of a component that takes
// bundles is the bundle's envelope without its payloads. A component whose client is trusted takes
// any.
func (s *Service) Check(_ context.Context, id ID, manifest []byte) error {
	c := s.component(id)
	if c == nil {
		return refuse(DoesNotExist, ReasonNoSuch, "component %d does not exist", id)
	}
	switch p, err := s.condition(); {
	case err != nil:
		return err
	case p != nil:
		return p.refusal("the service answers queries only")
	}
	r := s.record()
	switch {
	case c.Manifest == None:
		return nil
	case len(manifest) == 0:
		return refuse(InvalidArgument, ReasonManifestMissing, "check: images of %s need a manifest, and none was given", c.Name)
	}
	img, err := s.recipient().read(c, manifest, nil)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	return versions(r, c, img)
}
