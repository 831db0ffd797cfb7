package fwu

import (
	"crypto"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/fwu-ab/fwu-ab/suit"
)

// record is all that survives a power cut. It is JSON, so that a person with a serial line and strings(1) can read it. Fields and components that this
// version does not know are kept: the other bank may hold a newer service.
type record struct {
	BootID     string                      `json:"boot,omitempty"`     // kernel boot id of the last reconciliation
	Settled    string                      `json:"settled,omitempty"`  // boot in which the selection was last committed
	Selector   string                      `json:"selector,omitempty"` // kind of selector
	Bank       Bank                        `json:"bank,omitempty"`     // booted bank at that time
	Signed     int64                       `json:"signed,omitempty"`   // seconds since 1970: the newest certificate that an accepted image was signed with is valid since then
	Return     string                      `json:"return,omitempty"`   // boot in which a reboot into the accepted bank was asked for, as the boot variables were lost
	Trial      *trialRecord                `json:"trial,omitempty"`    // present while the bank is STAGED, TRIAL or REJECTED
	Components map[string]*componentRecord `json:"components"`         // by name

	minor uint16 // minor format version it is written with
	fault error  // why it must not be saved
	extra extra
}

// trialRecord is what the members of a bank have in common while they are STAGED, TRIAL or REJECTED.
type trialRecord struct {
	Bank Bank `json:"bank"` // the new bank
	// it need not be accepted: the configuration that installed it said so
	NoTrial bool `json:"no-trial,omitempty"`
	// the selector is being armed or disarmed: an old bank that comes up proves nothing
	Arming    bool   `json:"arming,omitempty"`
	Accepting bool   `json:"accepting,omitempty"` // accept was called, and the selector perhaps committed
	Rejecting bool   `json:"rejecting,omitempty"` // reject was called while STAGED, and the heads perhaps destroyed
	Error     Status `json:"error,omitempty"`     // this and the next two: the Rejection, if Rejecting
	Reason    Reason `json:"reason,omitempty"`
	Text      string `json:"text,omitempty"`
	Rebooted  bool   `json:"rebooted,omitempty"` // the one automatic reboot was used up
	Asked     string `json:"asked,omitempty"`    // boot in which it was asked for
	Keeping   bool   `json:"keeping,omitempty"`  // the bank was given up, and is kept all the same, as the other one cannot be started

	extra extra
}

// componentRecord is what is known of one component.
type componentRecord struct {
	ID       ID            `json:"id"`
	State    State         `json:"-"`
	Error    Status        `json:"error,omitempty"`
	Reason   Reason        `json:"reason,omitempty"`
	Text     string        `json:"text,omitempty"`
	Active   int           `json:"active"`            // index of the active slot
	Carried  bool          `json:"carried,omitempty"` // the second slot holds a copy of the active image, made for the bank in trial
	Floor    uint64        `json:"floor"`             // lowest sequence number that is accepted
	Slots    [2]slotRecord `json:"slots"`
	Failed   []failedImage `json:"failed,omitempty"`   // oldest first
	Bypassed []failedImage `json:"bypassed,omitempty"` // images that were armed when a boot bypassed the bootloader; Trials counts these boots
	Since    int64         `json:"since,omitempty"`    // seconds since 1970: when it came into its state

	extra extra
}

// slotRecord is what is known of a slot and of the image in it.
type slotRecord struct {
	ID    string       `json:"id"`
	Size  int64        `json:"size"`
	Image *imageRecord `json:"image,omitempty"`

	extra extra
}

// imageRecord is what is known of an image. Without a manifest (mode none, or an image that was there before the first record) parts of it are missing.
type imageRecord struct {
	Version      Version           `json:"version"`
	Sequence     uint64            `json:"sequence,omitempty"`
	Digest       string            `json:"digest,omitempty"`
	Size         int64             `json:"size,omitempty"`
	Manifest     string            `json:"manifest,omitempty"` // digest of the manifest
	Payload      int64             `json:"payload,omitempty"`  // bundled: where the image begins in the stream
	Compression  string            `json:"compression,omitempty"`
	Written      int64             `json:"written,omitempty"` // durable bytes of the stream
	Decoded      int64             `json:"decoded,omitempty"` // compressed: the bytes of the image that they are
	End          int64             `json:"end,omitempty"`     // without a manifest: how far it was written, gaps included
	Open         bool              `json:"open,omitempty"`    // without a manifest: more was written since, and is lost if the service ends
	Head         *Head             `json:"head,omitempty"`    // since CANDIDATE
	Dependencies []suit.Dependency `json:"dependencies,omitempty"`
	Signed       int64             `json:"signed,omitempty"`  // seconds since 1970: the begin of validity of the signer's certificate
	With         []imageOf         `json:"with,omitempty"`    // images of the same manifest, for other components
	Battery      uint64            `json:"battery,omitempty"` // what the battery must hold, in mWh
	Signer       string            `json:"signer,omitempty"`  // of the manifest, for people
	By           *Client           `json:"by,omitempty"`      // who started the preparation
	// Signers are the keys that signed the manifest: each with the trust anchors that vouched for
	// it, all by their fingerprints. Anchors are the trust anchors of all of them, for older
	// versions, which recorded and read nothing else.
	Signers map[string][]string `json:"signers,omitempty"`
	Anchors []string            `json:"anchors,omitempty"`

	extra extra
}

// imageOf is the image of a component, by its digest.
type imageOf struct {
	Component string `json:"component"`
	Digest    string `json:"digest"`
}

// failedImage counts the failed trials of an image.
type failedImage struct {
	Digest string `json:"digest"`
	Trials int    `json:"trials"`
}

// maxFailedImages bounds the memory of failed images per component.
const maxFailedImages = 16

type extra map[string]json.RawMessage

// decode reads the fields of v, a pointer to a struct without methods, and returns the others.
// Which fields v has is read from its struct tags, and kept nowhere else.
func decode(b []byte, v any) (extra, error) {
	if err := json.Unmarshal(b, v); err != nil {
		return nil, err
	}
	var all extra
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	for name := range fields(reflect.TypeOf(v).Elem()) {
		delete(all, name)
	}
	return all, nil
}

// fields yields the names that the fields of a struct have in JSON, those of embedded structs too.
func fields(t reflect.Type) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, f := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.IsExported() && name != "" && name != "-" && !yield(name) {
				return
			}
		}
	}
}

// encode is the reverse of decode.
func encode(v any, x extra) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil || len(x) == 0 {
		return b, err
	}
	all := maps.Clone(x)
	var own extra
	if err := json.Unmarshal(b, &own); err != nil {
		return nil, err
	}
	maps.Copy(all, own)
	return json.Marshal(all)
}

func (r *record) UnmarshalJSON(b []byte) (err error) {
	type plain record
	r.extra, err = decode(b, (*plain)(r))
	return err
}

func (r *record) MarshalJSON() ([]byte, error) {
	type plain record
	return encode((*plain)(r), r.extra)
}

func (t *trialRecord) UnmarshalJSON(b []byte) (err error) {
	type plain trialRecord
	t.extra, err = decode(b, (*plain)(t))
	return err
}

func (t *trialRecord) MarshalJSON() ([]byte, error) {
	type plain trialRecord
	return encode((*plain)(t), t.extra)
}

// componentJSON spells the state out, for people.
type componentJSON struct {
	State string `json:"state"`
	*plainComponent
}
type plainComponent componentRecord

func (c *componentRecord) UnmarshalJSON(b []byte) (err error) {
	j := componentJSON{plainComponent: (*plainComponent)(c)}
	c.extra, err = decode(b, &j)
	if err != nil {
		return err
	}
	for s := Ready; s <= Updated; s++ {
		if s.String() == j.State {
			c.State = s
			return nil
		}
	}
	return fmt.Errorf("component %d: unknown state %q", c.ID, j.State)
}

func (c *componentRecord) MarshalJSON() ([]byte, error) {
	return encode(componentJSON{State: c.State.String(), plainComponent: (*plainComponent)(c)}, c.extra)
}

func (s *slotRecord) UnmarshalJSON(b []byte) (err error) {
	type plain slotRecord
	s.extra, err = decode(b, (*plain)(s))
	return err
}

func (s slotRecord) MarshalJSON() ([]byte, error) {
	type plain slotRecord
	return encode(plain(s), s.extra)
}

func (i *imageRecord) UnmarshalJSON(b []byte) (err error) {
	type plain imageRecord
	i.extra, err = decode(b, (*plain)(i))
	return err
}

func (i *imageRecord) MarshalJSON() ([]byte, error) {
	type plain imageRecord
	return encode((*plain)(i), i.extra)
}

// check refuses a record that nobody can have written and that would lead an index or a state astray.
func (r *record) check() error {
	bound := false
	for name, c := range r.Components {
		switch {
		case c == nil:
			return fmt.Errorf("component %s: no content", name)
		case c.Active != 0 && c.Active != 1:
			return fmt.Errorf("component %s: active slot %d", name, c.Active)
		}
		for _, s := range c.Slots {
			if s.Size < 0 || s.Image != nil && (s.Image.Size < 0 || s.Image.Written < 0 || s.Image.Payload < 0 || s.Image.Decoded < 0) {
				return fmt.Errorf("component %s: negative size", name)
			}
			if s.Image != nil && s.Image.Head != nil {
				if h := s.Image.Head; h.Sectors < 0 || h.Sectors > HeadSize/SectorSize || len(h.Bits) < (h.Sectors+7)/8 {
					return fmt.Errorf("component %s: head of %d sectors with %d bytes", name, h.Sectors, len(h.Bits))
				}
			}
		}
		bound = bound || c.State == Staged || c.State == Rejected
	}
	if r.Trial != nil && r.Trial.Bank.Index() < 0 {
		return fmt.Errorf("trial of bank %q", r.Trial.Bank)
	}
	if bound && r.Trial == nil {
		return fmt.Errorf("a component is staged or rejected, and no bank is in trial")
	}
	return nil
}

// clone returns a copy that shares nothing that is ever changed in place: images and heads are replaced, never edited, except by the clone's owner.
func (r *record) clone() *record {
	n := *r
	if r.Trial != nil {
		t := *r.Trial
		n.Trial = &t
	}
	n.Components = make(map[string]*componentRecord, len(r.Components))
	for name, c := range r.Components {
		cc := *c
		cc.Failed, cc.Bypassed = slices.Clone(c.Failed), slices.Clone(c.Bypassed)
		for i, s := range c.Slots {
			if s.Image != nil {
				img := *s.Image
				cc.Slots[i].Image = &img
			}
		}
		n.Components[name] = &cc
	}
	return &n
}

// is tells whether the record is that of a slot. Older versions recorded the path of a slot that
// has an identity of its own by now, and of a slot that was missing nothing.
func (r slotRecord) is(s SlotInfo) bool {
	return r.ID == s.ID || r.ID == "" || strings.HasPrefix(r.ID, "/") && r.ID == s.Path
}

func (c *componentRecord) second() *slotRecord { return &c.Slots[1-c.Active] }

// next is the image in the second slot; never nil for a component that is WRITING or CANDIDATE.
func (c *componentRecord) next() *imageRecord {
	if img := c.second().Image; img != nil {
		return img
	}
	return &imageRecord{}
}

// image is the active image; never nil.
func (c *componentRecord) image() *imageRecord {
	if img := c.Slots[c.Active].Image; img != nil {
		return img
	}
	return &imageRecord{}
}

// set moves the component to a state, with the reason behind it.
func (c *componentRecord) set(s State, e Status, r Reason, text string) {
	c.State, c.Error, c.Reason, c.Text = s, e, r, text
}

// fail moves the component to s, which is FAILED or, with volatile staging, READY; there nothing is left to report.
func (c *componentRecord) fail(s State, e Status, r Reason, text string) {
	if s == Ready {
		e, r, text = Success, "", ""
		c.second().Image = nil
	}
	c.set(s, e, r, text)
}

// endTrial ends the trial of a bank. Members that the running configuration does not know, or does not know as such, have no future in it: they are READY, with the
// slot of bank b active.
func (r *record) endTrial(b Bank) {
	r.Trial = nil
	for _, c := range r.Components {
		if c.State == Staged || c.State == Rejected {
			c.Active = b.Index()
			c.fail(Ready, Success, "", "")
			c.Carried = false
		}
	}
}

// forget makes an image one that never failed: it was accepted.
func (c *componentRecord) forget(digest string) {
	c.Failed = slices.DeleteFunc(c.Failed, func(f failedImage) bool { return f.Digest == digest })
}

// remember counts a failed trial of the image with this digest.
func (c *componentRecord) remember(digest string) { c.Failed = count(c.Failed, digest) }

func (c *componentRecord) failedTrials(digest string) int { return counted(c.Failed, digest) }

// count adds one to the count of the image with this digest. It returns maxFailedImages images at
// most, the last one that was counted at the end.
func count(list []failedImage, digest string) []failedImage {
	if digest == "" {
		return list
	}
	n := counted(list, digest) + 1
	list = append(slices.DeleteFunc(list, func(f failedImage) bool { return f.Digest == digest }), failedImage{digest, n})
	return list[max(0, len(list)-maxFailedImages):]
}

// counted is the count of the image with this digest.
func counted(list []failedImage, digest string) int {
	for _, f := range list {
		if f.Digest == digest && digest != "" {
			return f.Trials
		}
	}
	return 0
}

// parseDigest reads what suit.Digest.String writes.
func parseDigest(s string) (suit.Digest, error) {
	for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		d := suit.Digest{Hash: h}
		if rest, ok := strings.CutPrefix(s, d.String()); ok {
			sum, err := hex.DecodeString(rest)
			if err != nil || len(sum) != h.Size() {
				return suit.Digest{}, fmt.Errorf("digest %q: want %d hexadecimal digits", s, 2*h.Size())
			}
			d.Sum = sum
			return d, nil
		}
	}
	return suit.Digest{}, fmt.Errorf("digest %q: unknown algorithm", s)
}

func imageIn(cr *componentRecord, b Bank) *imageRecord {
	if img := cr.Slots[b.Index()].Image; img != nil {
		return img
	}
	return &imageRecord{}
}
