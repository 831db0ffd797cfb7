package fwu

import (
	"errors"
	"strings"
	"time"

	"github.com/fwu-ab/fwu-ab/suit"
)

// recipient is this device as manifests see it, by its record at one moment. It judges a manifest
// and changes nothing.
type recipient struct {
	record     *record
	components []*component
	now        time.Time // certificates are looked at as of then
	battery    func() (mWh uint64, err error)
	policy     policy
}

func (s *Service) recipient() recipient {
	r := s.record()
	return recipient{r, s.components, s.latestKnownTime(r), s.cfg.Battery, s.policy()}
}

// latestKnownTime is the latest time that has come for all that is known. A clock without a battery
// begins in the past.
func (s *Service) latestKnownTime(r *record) time.Time {
	var now time.Time
	if s.cfg.Time != nil {
		now = s.cfg.Time()
	}
	if seen := time.Unix(r.Signed, 0); seen.After(now) {
		return seen
	}
	return now
}

// read verifies a manifest for c, and that the bundle it came in, if any, carries the image that it
// describes. It returns the part that the record keeps.
func (d recipient) read(c *component, envelope []byte, bundle *suit.Header) (*imageRecord, error) {
	keys, err := c.anchors()
	if err != nil {
		return nil, err
	}
	m, err := suit.Open(envelope, keys, d.now)
	if err != nil {
		return nil, manifestError(err)
	}
	if err := m.RequireSigners(c.Signatures); err != nil {
		return nil, manifestError(err)
	}
	demand, err := m.Evaluate(d.parameters(c))
	if err != nil {
		return nil, manifestError(err)
	}
	si, err := demand.Image(c.Name)
	if err != nil {
		return nil, manifestError(err)
	}
	img := &imageRecord{Version: si.Version, Sequence: demand.Sequence, Digest: si.Digest.String(), Size: si.Size,
		Manifest: m.Digest().String(), Compression: si.Compression, Dependencies: demand.Dependencies, Battery: demand.Battery}
	img.signedBy(m.Signers())
	for _, signer := range m.Signers() {
		img.Signer = strings.TrimPrefix(img.Signer+", "+signer.Name, ", ")
	}
	if t := m.NotBefore(); !t.IsZero() {
		img.Signed = t.Unix()
	}
	if img.With, err = d.others(c, demand); err != nil {
		return nil, err
	}
	if bundle != nil {
		if err := bundle.Carries(si); err != nil {
			return nil, manifestError(err)
		}
		img.Payload = bundle.Offset
	}
	return img, d.policy.permits(c, d.record.Components[c.Name], img)
}

// others are the images for other components that a manifest brings together with the one for c.
func (d recipient) others(c *component, demand suit.Demand) (with []imageOf, err error) {
	for _, other := range demand.Images {
		if other.Component == c.Name {
			continue
		}
		if named(d.components, other.Component) == nil {
			return nil, refuse(NotPermitted, ReasonComponentMismatch, "the manifest has an image for %s, too, which this device does not have", other.Component)
		}
		with = append(with, imageOf{other.Component, other.Digest.String()})
	}
	return with, nil
}

// parameters are those that the conditions of a manifest are compared with, for an image for c.
func (d recipient) parameters(c *component) suit.Recipient {
	return suit.Recipient{
		Device: c.Device,
		Slot: func(name string) (uint64, bool) {
			cr := d.record.Components[name]
			if cr == nil {
				return 0, false
			}
			return uint64(1 - cr.Active), true
		},
		Version: func(name string) (suit.Version, bool) {
			cr := d.record.Components[name]
			if cr == nil {
				return suit.Version{}, false
			}
			return cr.image().Version, true
		},
		Battery: d.battery,
	}
}

// manifestError gives an error of the manifest library the status that the specification has for
// it.
func manifestError(err error) error {
	e := &Error{Status: InvalidArgument, Reason: ReasonManifestInvalid, Text: "manifest", Err: err}
	for _, m := range []struct {
		err    error
		status Status
		reason Reason
	}{
		{suit.ErrSignature, InvalidSignature, ReasonManifestSignature},
		{suit.ErrVendor, NotPermitted, ReasonVendorMismatch},
		{suit.ErrClass, NotPermitted, ReasonClassMismatch},
		{suit.ErrDevice, NotPermitted, ReasonDeviceMismatch},
		{suit.ErrCondition, NotPermitted, ReasonCondition},
		{suit.ErrComponent, NotPermitted, ReasonComponentMismatch},
	} {
		if errors.Is(err, m.err) {
			e.Status, e.Reason = m.status, m.reason
		}
	}
	return e
}
