package fwu

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/zstdframe"
)

// Offsets here are of two kinds. The *stream* is what the client writes: the image, what it is compressed to, or a bundle. The *image* is what lies in the slot; in a bundle its payload begins
// at transfer.payload. Written, as callers see it, is an offset in the stream; of a compressed one, it is where a frame begins.

// transfer is an image that is being written.
type transfer struct {
	image   Image
	header  []byte // bundled: what came before the payload is known
	known   bool   // whether the manifest is known; always true for a detached one, never for none
	digest  suit.Digest
	size    int64              // of the image; 0 if not known
	payload int64              // where the image begins in the stream
	decoder *zstdframe.Decoder // of a compressed image; else nil
	next    int64              // in order: where the stream goes on
	have    int64              // in order: what of the stream was taken; bytes from next to have come a second time, and are dropped
	end     int64              // highest byte of the image that was written, plus one
	taken   int64              // bytes of the image that were written, those before an interruption as well; twice where they came twice
	dirty   int64              // bytes of the image since the last checkpoint
	resumed bool               // it goes on after an interruption, which may have voided what the client believes to be written
	marks   []mark             // of a compressed image: what is not on record yet
	lost    bool               // without a manifest: it has, and the client did not write again since
}

// ordered tells whether what c expects with an image is written in order, each byte after the one before.
func ordered(c *component, img *imageRecord) bool {
	return c.Manifest == Bundled || img.Compression != ""
}

var errCancelled = constError("cancelled")

// Start is psa_fwu_start (section 5.6.1). A detached manifest is verified here, whole; it names the digest that the image must have.
func (s *Service) Start(ctx context.Context, id ID, manifest []byte) error {
	c, cr, err := s.acquire(ctx, id, evStart)
	if err != nil {
		return err
	}
	defer c.op.give()
	img := &imageRecord{}
	switch {
	case c.Manifest == Detached && len(manifest) == 0:
		return refuse(InvalidArgument, ReasonManifestMissing, "start: %s expects a detached manifest, and none was given", c.Name)
	case c.Manifest != Detached && len(manifest) > 0:
		return refuse(InvalidArgument, ReasonManifestUnexpected, "start: %s takes no detached manifest (manifest = %q)", c.Name, c.Manifest)
	case c.Manifest == Detached:
		if img, err = s.readManifest(c, cr, manifest, nil); err != nil {
			s.refused(c.Name, err)
			return fmt.Errorf("start: %w", err)
		}
	}
	return s.startWriting(ctx, c, img)
}

func (s *Service) startWriting(ctx context.Context, c *component, img *imageRecord) error {
	if err := s.bank.take(ctx); err != nil {
		return err
	}
	defer s.bank.give()
	if err := s.claimSecondBank(ctx, c); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := s.release(c); err != nil {
		return s.slotError(c, 1-s.record().Components[c.Name].Active, err)
	}
	if err := s.openTransfer(ctx, c, img, 0); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	r := s.record()
	p := plan{do: append(s.destroySecond(r, c, false), save{"WRITING", func(r *record) {
		cr := r.Components[c.Name]
		cr.set(s.move(r, c.Component, evStart), Success, "", "")
		cr.Carried = false
		cr.second().Image = img
	}})}
	if err := s.run(ctx, p); err != nil {
		return fmt.Errorf("start: %w", errors.Join(err, s.release(c)))
	}
	s.setWritten(c, 0)
	if err := s.readOn(ctx, c); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return nil
}

// readManifest verifies a manifest for c, and that the bundle it came in, if any, carries the image that it describes. It returns what the record keeps.
func (s *Service) readManifest(c *component, cr *componentRecord, envelope []byte, bundle *suit.Header) (*imageRecord, error) {
	keys, err := c.anchors()
	if err != nil {
		return nil, err
	}
	m, err := suit.Open(envelope, keys, s.believed())
	if err != nil {
		return nil, manifestError(err)
	}
	d, err := m.Evaluate(s.recipient(c))
	if err != nil {
		return nil, manifestError(err)
	}
	si, err := d.Image(c.Name)
	if err != nil {
		return nil, manifestError(err)
	}
	img := &imageRecord{Version: si.Version, Sequence: d.Sequence, Digest: si.Digest.String(), Size: si.Size,
		Manifest: m.Digest().String(), Compression: si.Compression, Dependencies: d.Dependencies, Battery: d.Battery, Anchors: m.Anchors()}
	if t := m.NotBefore(); !t.IsZero() {
		img.Signed = t.Unix()
	}
	for _, other := range d.Images {
		if other.Component == c.Name {
			continue
		}
		if s.named(other.Component) == nil {
			return nil, refuse(NotPermitted, ReasonComponentMismatch, "the manifest has an image for %s, too, which this device does not have", other.Component)
		}
		img.With = append(img.With, imageOf{other.Component, other.Digest.String()})
	}
	if bundle != nil {
		if err := bundle.Carries(si); err != nil {
			return nil, manifestError(err)
		}
		img.Payload = bundle.Offset
	}
	return img, s.policy(c, cr, img)
}

// believed is the latest time that has come for all that is known: certificates are looked at as of then. A clock without a battery begins in the past.
func (s *Service) believed() time.Time {
	var now time.Time
	if s.cfg.Time != nil {
		now = s.cfg.Time()
	}
	if seen := time.Unix(s.record().Signed, 0); seen.After(now) {
		return seen
	}
	return now
}

// recipient is this device, for a manifest that has an image for c.
func (s *Service) recipient(c *component) suit.Recipient {
	r := s.record()
	return suit.Recipient{
		Device: c.Device,
		Slot: func(name string) (uint64, bool) {
			cr := r.Components[name]
			if cr == nil {
				return 0, false
			}
			return uint64(1 - cr.Active), true
		},
		Version: func(name string) (suit.Version, bool) {
			cr := r.Components[name]
			if cr == nil {
				return suit.Version{}, false
			}
			return cr.image().Version, true
		},
		Battery: s.cfg.Battery,
	}
}

// manifestError gives what the manifest library found the status that the specification has for it.
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

// policy is what a valid manifest can fail.
func (s *Service) policy(c *component, cr *componentRecord, img *imageRecord) error {
	switch {
	case img.Manifest != "" && img.Sequence < cr.Floor:
		return refuse(NotPermitted, ReasonSequenceRollback, "sequence number %d is lower than %d, which %s has reached", img.Sequence, cr.Floor, c.Name)
	case cr.failedTrials(img.Digest) >= s.cfg.MaxTrials:
		return refuse(NotPermitted, ReasonFailedBefore, "this image failed %d trials; fwu-ab reset forgets them", cr.failedTrials(img.Digest))
	case counted(cr.Bypassed, img.Digest) >= s.cfg.MaxTrials:
		return refuse(NotPermitted, ReasonBootBypassed, "%d reboots into this image bypassed the bootloader; have reboots pass it, and fwu-ab reset forgets them", counted(cr.Bypassed, img.Digest))
	case img.Size > maxSize(c):
		return refuse(InsufficientStorage, ReasonImageTooLarge, "image of %d bytes: the slots of %s take %d", img.Size, c.Name, maxSize(c))
	}
	return nil
}

// openTransfer opens c's second slot and goes on with img at written.
func (s *Service) openTransfer(ctx context.Context, c *component, img *imageRecord, written int64) (err error) {
	cr := s.record().Components[c.Name]
	t := &transfer{digest: suit.Digest{Hash: crypto.SHA256}}
	if img.Manifest != "" {
		if t.digest, err = parseDigest(img.Digest); err != nil {
			return &Error{Status: GenericError, Reason: ReasonManifestInvalid, Text: "record of " + c.Name, Err: err}
		}
		t.known, t.size, t.payload = true, img.Size, img.Payload
	}
	if written <= t.payload && c.Manifest == Bundled {
		*t = transfer{digest: suit.Digest{Hash: crypto.SHA256}}
		written = 0
	}
	t.next, t.have, t.end = written, written, max(written-t.payload, 0)
	if t.known && img.Compression != "" {
		t.end = img.Decoded
		t.decoder = zstdframe.Resume(t.size, written-t.payload, t.end)
	}
	t.taken = t.end
	if t.image, err = c.Slots[1-cr.Active].Open(ctx); err != nil {
		return s.slotError(c, 1-cr.Active, err)
	}
	c.transfer = t
	s.setPrepared(c, t.end)
	s.counting(c, t.image)
	return nil
}

// readOn makes the slot ready to be written from where the transfer is: what lies before is read again.
func (s *Service) readOn(ctx context.Context, c *component) error {
	t := c.transfer
	if err := t.image.Resume(ctx, t.digest.New(), t.end); err != nil {
		return s.void(c, err)
	}
	return nil
}

// resume makes sure that there is a transfer: a restart of the service, or an error of the medium, ended the one before.
func (s *Service) resume(ctx context.Context, c *component, cr *componentRecord) error {
	if c.transfer != nil {
		return nil
	}
	if err := s.openTransfer(ctx, c, cr.next(), s.durable(c)); err != nil {
		return err
	}
	c.transfer.resumed, c.transfer.lost = true, cr.next().Open
	return s.readOn(ctx, c)
}

// Write is psa_fwu_write (section 5.6.1): block at offset off of what is written. An error of the medium voids what is not durable: go on at Written.
func (s *Service) Write(ctx context.Context, id ID, off int64, block []byte) error {
	c, cr, err := s.acquire(ctx, id, evWrite)
	if err != nil {
		return err
	}
	defer c.op.give()
	ctx, end := s.begin(ctx, c, "")
	defer end()
	if len(block) == 0 || len(block) > MaxWriteSize {
		return refuse(InvalidArgument, ReasonSize, "write: block of %d bytes: from 1 to %d are taken", len(block), MaxWriteSize)
	}
	if err := aligned(off); err != nil {
		return err
	}
	return s.ended(ctx, s.put(ctx, c, cr, off, block))
}

// aligned refuses an offset at which a client may not write.
func aligned(off int64) error {
	if off < 0 || off%WriteAlignment != 0 {
		return refuse(InvalidArgument, ReasonOffset, "write at %d: offsets are multiples of %d", off, WriteAlignment)
	}
	return nil
}

// WriteFrom writes what r has, from offset off on: length bytes, or all up to its end where length is 0. It returns how many bytes were stored. It makes them durable in
// any case, so that a transfer that was interrupted continues at Written. A reader with SetReadDeadline is interrupted when ctx ends or Cancel is called.
func (s *Service) WriteFrom(ctx context.Context, id ID, off int64, r io.Reader, length int64) (int64, error) {
	c, cr, err := s.acquire(ctx, id, evWrite)
	if err != nil {
		return 0, err
	}
	defer c.op.give()
	if length < 0 {
		return 0, refuse(InvalidArgument, ReasonSize, "write: negative length")
	}
	if err := aligned(off); err != nil {
		return 0, err
	}
	ctx, end := s.begin(ctx, c, OpWrite)
	defer end()
	if d, ok := r.(deadliner); ok {
		defer context.AfterFunc(ctx, func() { _ = d.SetReadDeadline(time.Unix(1, 0)) })() // a file that has no deadlines does not block either
	}
	n, err := s.copyFrom(ctx, c, cr, off, r, length)
	if c.transfer != nil && n > 0 {
		err = errors.Join(err, s.checkpoint(context.WithoutCancel(ctx), c, Image.Sync))
	}
	if err == nil && n == 0 {
		err = refuse(InvalidArgument, ReasonSize, "write: nothing to read")
	}
	return n, s.ended(ctx, err)
}

// deadliner is a reader that can be interrupted.
type deadliner interface {
	SetReadDeadline(time.Time) error
}

// intakeSize is how much is read at once where it is not read to where it is stored from: the beginning, and what has to be decoded.
const intakeSize = 128 << 10

// space returns the memory into which the bytes of the stream from off on are read: that of the
// slot, if they go on there as they are, else own.
func (c *component) space(off int64, own []byte) []byte {
	if t := c.transfer; t != nil && t.known && t.decoder == nil {
		if p := t.image.Space(off - t.payload); p != nil {
			return p
		}
	}
	return own
}

// fill reads until p is full or r returns an error. Unlike io.ReadFull it leaves the error as it
// is: an io.ErrUnexpectedEOF of r is not the end of the image, but a stream that was cut.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	if n == len(p) {
		err = nil
	}
	return n, err
}

func (s *Service) copyFrom(ctx context.Context, c *component, cr *componentRecord, off int64, r io.Reader, length int64) (n int64, err error) {
	total := length
	if total == 0 && cr.next().Size > 0 && cr.next().Compression == "" {
		total = cr.next().Payload + cr.next().Size - off
	}
	report := s.progress(c)
	own := make([]byte, intakeSize)
	for {
		p := c.space(off+n, own)
		if length > 0 {
			p = p[:min(length-n, int64(len(p)))]
		}
		s.works(-1)
		k, readErr := fill(r, p)
		s.works(1)
		if err := ctx.Err(); err != nil {
			return n, err
		}
		if k > 0 {
			if err := s.resume(ctx, c, cr); err != nil {
				return n, fmt.Errorf("write: %w", err)
			}
			// A block that has come is stored, whoever has gone meanwhile: to stop in the middle would void the ones before it.
			if err := s.put(context.WithoutCancel(ctx), c, cr, off+n, p[:k]); err != nil {
				return n, err
			}
			n += int64(k)
			report(n, total)
		}
		if length > 0 && n == length {
			readErr = io.EOF
		}
		switch {
		case errors.Is(readErr, io.EOF) && length > 0 && n < length:
			return n, refuse(CommunicationFailure, ReasonSize, "write: the data ended after %d of %d bytes", n, length)
		case errors.Is(readErr, io.EOF):
			return n, nil
		case readErr != nil:
			return n, &Error{Status: CommunicationFailure, Text: "write: read from the caller's descriptor", Err: readErr}
		}
	}
}

// ended gives the error of an operation that was interrupted its reason.
func (s *Service) ended(ctx context.Context, err error) error {
	var found *Error
	if err == nil || ctx.Err() == nil || errors.As(err, &found) {
		return err
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errCancelled):
		return &Error{Status: BadState, Reason: ReasonCancelled, Text: "the update of this component was cancelled"}
	case errors.Is(cause, errClosed):
		return &Error{Status: CommunicationFailure, Text: "the service is closing; the transfer continues at what was written", Err: cause}
	default:
		return &Error{Status: CommunicationFailure, Text: "the transfer was ended; it can be continued at what was written", Err: cause}
	}
}

// put stores a block of the stream.
func (s *Service) put(ctx context.Context, c *component, cr *componentRecord, off int64, p []byte) error {
	if err := s.resume(ctx, c, cr); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	t := c.transfer
	s.mu.Lock()
	c.counts.Received += int64(len(p))
	s.mu.Unlock()
	limit := maxSize(c)
	if t.known {
		limit = t.size
	}
	if ordered(c, s.record().Components[c.Name].next()) {
		return s.putStream(ctx, c, off, p)
	}
	if off > limit-int64(len(p)) {
		return refuse(InvalidArgument, ReasonSize, "write of %d bytes at %d: the image has %d at most", len(p), off, limit)
	}
	if c.Manifest == None && t.resumed && off > t.end { // no digest would find the hole
		return refuse(InvalidArgument, ReasonOffset, "write at %d: the transfer was interrupted, and continues at %d", off, t.end&^(WriteAlignment-1))
	}
	return s.putImage(ctx, c, off, p)
}

// putStream takes a block of a bundle, or of a compressed image: contiguous, or again from Written on.
func (s *Service) putStream(ctx context.Context, c *component, off int64, p []byte) error {
	t := c.transfer
	written := s.durable(c) &^ (WriteAlignment - 1)
	if off != t.next && off != written {
		return refuse(InvalidArgument, ReasonOffset, "write at %d: what is bundled or compressed is written in order, and continues at %d", off, t.next)
	}
	if t.known && t.decoder == nil && off > t.payload+t.size-int64(len(p)) {
		return refuse(InvalidArgument, ReasonSize, "write of %d bytes at %d: the bundle has %d", len(p), off, t.payload+t.size)
	}
	if off == 0 && t.have > 0 { // nothing is durable, and the client begins anew
		if err := s.restart(ctx, c); err != nil {
			return err
		}
	}
	t.next = off + int64(len(p))
	again := min(t.have-off, int64(len(p)))
	p = p[again:] // what lies in the slot is what will be verified, so what comes twice needs no second look
	t.have = max(t.have, t.next)
	if len(p) == 0 {
		return nil
	}
	if !t.known {
		return s.putHeader(ctx, c, p)
	}
	return s.putPayload(ctx, c, p)
}

// restart forgets what was taken of a stream of which nothing is durable.
func (s *Service) restart(ctx context.Context, c *component) error {
	t := c.transfer
	t.close()
	anew := transfer{image: t.image, digest: suit.Digest{Hash: crypto.SHA256}}
	if c.Manifest == Detached {
		anew.digest, anew.known, anew.size, anew.decoder = t.digest, true, t.size, zstdframe.New(t.size)
	}
	*t = anew
	s.setPrepared(c, 0)
	return s.readOn(ctx, c)
}

// mark is a place in what is compressed where a frame ends: how much of the stream that is, and of the image.
type mark struct{ encoded, decoded int64 }

// marksOfACheckpoint bounds the marks that are remembered between two checkpoints.
const marksOfACheckpoint = 16

// mark remembers where the last frame ended, if that is distance bytes of the image or more from
// where the last one did.
func (t *transfer) mark(distance int64) {
	encoded, decoded := t.decoder.Position()
	if n := len(t.marks); n == 0 || decoded-t.marks[n-1].decoded >= distance {
		t.marks = append(t.marks, mark{encoded, decoded})
	}
}

// reached returns the last mark that is in the first prefix bytes of the image, and forgets those before.
func (t *transfer) reached(prefix int64) (m mark, ok bool) {
	if encoded, decoded := t.decoder.Position(); decoded <= prefix {
		t.marks = t.marks[:0]
		return mark{encoded, decoded}, decoded > 0
	}
	i := 0
	for i < len(t.marks) && t.marks[i].decoded <= prefix {
		m = t.marks[i]
		i++
	}
	t.marks = slices.Delete(t.marks, 0, i)
	return m, m.decoded > 0
}

// close frees what a transfer holds beside its slot.
func (t *transfer) close() {
	if t.decoder != nil {
		t.decoder.Close()
	}
}

// putPayload stores what comes next of the payload.
func (s *Service) putPayload(ctx context.Context, c *component, p []byte) error {
	t := c.transfer
	if t.decoder == nil {
		return s.putImage(ctx, c, t.end, p)
	}
	err := t.decoder.Write(p, func(frame []byte) error {
		t.mark(s.cfg.Checkpoint / marksOfACheckpoint)
		for block := range slices.Chunk(frame, MaxWriteSize) {
			if err := s.putImage(ctx, c, t.end, block); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, zstdframe.ErrFrame):
		return s.invalid(ctx, c, &Error{Status: InvalidArgument, Reason: ReasonPayload, Text: "write", Err: err})
	case c.transfer == nil: // void already
		return err
	}
	return s.void(c, err) // the decoder does not go on after an error, and begins again where the image is durable
}

// putHeader collects a bundle up to its payload, verifies the manifest, and stores what came of the payload.
func (s *Service) putHeader(ctx context.Context, c *component, p []byte) error {
	t := c.transfer
	t.header = append(t.header, p...)
	b, err := suit.ReadHeader(t.header)
	if errors.Is(err, suit.ErrShort) {
		return nil
	}
	if err != nil {
		return s.invalid(ctx, c, fmt.Errorf("write: %w", manifestError(err)))
	}
	img, err := s.readManifest(c, s.record().Components[c.Name], b.Envelope, &b)
	if err != nil {
		return s.invalid(ctx, c, fmt.Errorf("write: %w", err))
	}
	rest := t.header[b.Offset:]
	if int64(len(rest)) > b.Size {
		return s.invalid(ctx, c, refuse(InvalidArgument, ReasonManifestInvalid, "write: %d bytes after the payload", int64(len(rest))-b.Size))
	}
	if err := s.save(ctx, "manifest", func(r *record) { r.Components[c.Name].second().Image = img }); err != nil {
		return err
	}
	if t.digest, err = parseDigest(img.Digest); err != nil {
		return err
	}
	t.known, t.size, t.payload, t.header = true, img.Size, b.Offset, nil
	if img.Compression != "" {
		t.decoder = zstdframe.New(t.size)
	}
	if err := s.readOn(ctx, c); err != nil {
		return err
	}
	for len(rest) > 0 {
		n := min(len(rest), MaxWriteSize)
		if err := s.putPayload(ctx, c, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// putImage stores a block of the image.
func (s *Service) putImage(ctx context.Context, c *component, off int64, p []byte) error {
	t := c.transfer
	if at := t.payload + off; t.decoder == nil && at < s.durable(c) { // a cut must not find it promised while it is written over
		if err := s.promise(ctx, c, at); err != nil {
			return err
		}
	}
	if c.Manifest == None && !s.record().Components[c.Name].next().Open { // no digest would find what an interruption voids
		if err := s.save(ctx, "open", func(r *record) { r.Components[c.Name].next().Open = true }); err != nil {
			return err
		}
	}
	t.lost = false
	s.works(0)
	if err := t.image.WriteAt(ctx, p, off); err != nil {
		return s.void(c, err)
	}
	t.end = max(t.end, off+int64(len(p)))
	t.taken += int64(len(p))
	s.setPrepared(c, min(t.end, t.taken))
	if t.dirty += int64(len(p)); t.dirty < s.cfg.Checkpoint {
		return nil
	}
	return s.checkpoint(ctx, c, Image.Checkpoint)
}

// void gives up a transfer whose medium failed. What is durable stays, and the next call goes on from there.
func (s *Service) void(c *component, err error) error {
	second := 1 - s.record().Components[c.Name].Active
	return s.slotError(c, second, errors.Join(err, s.release(c)))
}

// checkpoint makes what was written durable, and records how far that is: all with Image.Sync, what the checkpoint before flushed with Image.Checkpoint. What was durable before and was not
// written over still is, though a prefix that was hashed begins anew after a block was written again.
func (s *Service) checkpoint(ctx context.Context, c *component, durable func(Image, context.Context) (int64, error)) error {
	t := c.transfer
	if c.Manifest == None { // without a digest there is no telling what of the rest is durable
		durable = Image.Sync
	}
	prefix, err := durable(t.image, ctx)
	if err != nil {
		return s.void(c, err)
	}
	t.dirty = 0
	if t.decoder != nil {
		if m, ok := t.reached(prefix); ok {
			return s.promiseFrames(ctx, c, t.payload+m.encoded, m.decoded)
		}
		return nil
	}
	written := t.payload + prefix
	if c.Manifest == Bundled && written <= t.payload {
		written = 0
	}
	written = max(written, s.durable(c))
	if c.Manifest != None {
		return s.promise(ctx, c, written)
	}
	err = s.save(ctx, "written", func(r *record) {
		img := r.Components[c.Name].next()
		img.Written, img.End, img.Open = written, max(img.End, t.end), false
	})
	if err == nil {
		s.setWritten(c, written)
	}
	return err
}

// durable is how much of the stream is on record as durable.
func (s *Service) durable(c *component) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.written
}

// promise records how much of the stream is durable.
func (s *Service) promise(ctx context.Context, c *component, written int64) error {
	if written == s.durable(c) {
		return nil
	}
	if err := s.save(ctx, "written", func(r *record) { r.Components[c.Name].next().Written = written }); err != nil {
		return err
	}
	s.setWritten(c, written)
	return nil
}

// promiseFrames records how much of a compressed stream is durable, and how much of the image that is.
func (s *Service) promiseFrames(ctx context.Context, c *component, written, decoded int64) error {
	if written == s.durable(c) {
		return nil
	}
	err := s.save(ctx, "written", func(r *record) {
		img := r.Components[c.Name].next()
		img.Written, img.Decoded = written, decoded
	})
	if err == nil {
		s.setWritten(c, written)
	}
	return err
}

// invalid moves a component to FAILED, because of what a check found, and returns that.
func (s *Service) invalid(ctx context.Context, c *component, cause error) error {
	err := s.abandon(ctx, c, evInvalid, StatusOf(cause), ReasonOf(cause), cause.Error())
	if err != nil {
		return errors.Join(cause, err)
	}
	return cause
}

// abandon moves a component to FAILED and destroys what was prepared. The record comes first: what is WRITING or CANDIDATE has its image, whatever instant the
// power is cut at.
func (s *Service) abandon(ctx context.Context, c *component, e event, status Status, reason Reason, text string) error {
	s.bank.force()
	defer s.bank.give()
	cr := s.record().Components[c.Name]
	to, _, err := s.variant(c.Component).next(cr.State, e)
	if err != nil {
		return err
	}
	err = s.run(ctx, plan{do: []effect{
		save{to.String(), func(r *record) { r.Components[c.Name].set(to, status, reason, text) }},
		destroy{c.ID, 1 - cr.Active, true},
	}})
	if err != nil {
		return err
	}
	if err := s.release(c); err != nil {
		s.log.Warn("slot not given up cleanly", "component", c.Name, "err", err)
	}
	return nil
}

// Finish is psa_fwu_finish (section 5.6.1): the image is read back from the medium, whole, and compared with its manifest.
func (s *Service) Finish(ctx context.Context, id ID) error {
	c, cr, err := s.acquire(ctx, id, evFinish)
	if err != nil {
		return err
	}
	defer c.op.give()
	ctx, end := s.begin(ctx, c, OpFinish)
	defer end()
	if err := s.resume(ctx, c, cr); err != nil {
		return s.ended(ctx, fmt.Errorf("finish: %w", err))
	}
	if err := s.complete(c); err != nil {
		if c.Manifest == None {
			return err
		}
		return s.invalid(ctx, c, err)
	}
	if err := s.verifyWritten(ctx, c); err != nil {
		return s.ended(ctx, err)
	}
	return nil
}

// complete checks that there is an image, of the size that it must have.
func (s *Service) complete(c *component) error {
	t := c.transfer
	switch {
	case c.Manifest == None && (t.lost || t.end < s.record().Components[c.Name].next().End):
		return refuse(InvalidArgument, ReasonImageSize, "finish: the transfer was interrupted, and continues at %d", t.end&^(WriteAlignment-1))
	case c.Manifest == None && t.end == 0:
		return refuse(InvalidArgument, ReasonImageSize, "finish: nothing was written")
	case c.Manifest == Bundled && !t.known:
		return refuse(InvalidArgument, ReasonManifestInvalid, "finish: the bundle ended within its manifest, after %d bytes", t.have)
	case t.known && t.end < t.size:
		return refuse(InvalidArgument, ReasonImageSize, "finish: the image has %d of %d bytes", t.end, t.size)
	case t.known && t.next < t.have:
		return refuse(InvalidArgument, ReasonImageSize, "finish: what was written was started again at an earlier offset and not completed")
	}
	if t.decoder != nil {
		if err := t.decoder.Complete(); err != nil {
			return &Error{Status: InvalidArgument, Reason: ReasonPayload, Text: "finish", Err: err}
		}
	}
	if !t.known {
		t.size = t.end
	}
	return nil
}

func (s *Service) verifyWritten(ctx context.Context, c *component) error {
	t := c.transfer
	sum, head, err := t.image.Sum(ctx, t.size, s.progress(c))
	if err != nil {
		return s.void(c, err)
	}
	if t.known && !bytes.Equal(sum, t.digest.Sum) {
		return s.invalid(ctx, c, refuse(InvalidSignature, ReasonImageDigest, "finish: the image has digest %s, and its manifest says %s",
			suit.Digest{Hash: t.digest.Hash, Sum: sum}, t.digest))
	}
	digest := suit.Digest{Hash: t.digest.Hash, Sum: sum}.String()
	if cr := s.record().Components[c.Name]; cr.failedTrials(digest) >= s.cfg.MaxTrials {
		return s.invalid(ctx, c, refuse(NotPermitted, ReasonFailedBefore, "finish: this image failed %d trials; fwu-ab reset forgets them", cr.failedTrials(digest)))
	}
	s.bank.force() // who prepares another member of the bank looks at held
	defer s.bank.give()
	written := t.payload + t.size
	if t.decoder != nil {
		written = t.have
	}
	err = s.save(ctx, "CANDIDATE", func(r *record) {
		cr := r.Components[c.Name]
		cr.set(s.move(r, c.Component, evFinish), Success, "", "")
		img := cr.next()
		img.Digest, img.Size, img.Head, img.Written, img.Decoded, img.End, img.Open = digest, t.size, &head, written, 0, 0, false
	})
	if err != nil {
		return err
	}
	t.close()
	s.counting(c, nil)
	c.held, c.transfer = t.image, nil
	s.setPrepared(c, 0)
	s.setWritten(c, written)
	return nil
}

// Cancel is psa_fwu_cancel (section 5.6.1). It ends a WriteFrom, a Finish or an Install that uses the component, and does not wait for the client of it.
func (s *Service) Cancel(ctx context.Context, id ID) error {
	c := s.component(id)
	if c == nil {
		return refuse(DoesNotExist, ReasonNoSuch, "component %d does not exist", id)
	}
	if err := s.healthy(ctx); err != nil {
		return err
	}
	if st := s.record().Components[c.Name].State; st != Writing && st != Candidate {
		err := refuse(BadState, ReasonState, "cancel: %s is %s, and waits for %s", c.Name, st, st.waitsFor())
		err.Components = []ID{id}
		return err
	}
	if err := s.stopAndTake(ctx, c); err != nil {
		return err
	}
	defer c.op.give()
	if _, err := s.admitCall(c, evCancel); err != nil {
		return err
	}
	if err := s.abandon(ctx, c, evCancel, Success, ReasonCancelled, "cancelled by the client"); err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	return nil
}

// stopAndTake ends the operation that runs on c, or is about to begin, and takes c.
func (s *Service) stopAndTake(ctx context.Context, c *component) error {
	s.mu.Lock()
	c.cancels++
	if c.interrupt != nil {
		c.interrupt(errCancelled)
	}
	s.mu.Unlock()
	err := c.op.take(ctx)
	s.mu.Lock()
	c.cancels--
	s.mu.Unlock()
	return err
}

// Clean is psa_fwu_clean (section 5.6.1). The second slot is erased here, and nowhere else.
func (s *Service) Clean(ctx context.Context, id ID) error {
	c, cr, err := s.acquire(ctx, id, evClean)
	if err != nil {
		return err
	}
	defer c.op.give()
	ctx, end := s.begin(ctx, c, OpClean)
	defer end()
	second := 1 - cr.Active
	if err := s.destroyForClean(ctx, c); err != nil {
		return fmt.Errorf("clean: %w", err)
	}
	err = s.withImage(ctx, id, second, func(img Image) error { return img.Erase(ctx, s.progress(c)) })
	if err != nil {
		return s.ended(ctx, fmt.Errorf("clean: %w", err))
	}
	err = s.save(ctx, "READY", func(r *record) {
		cr := r.Components[c.Name]
		cr.set(s.move(r, c.Component, evClean), Success, "", "")
		cr.second().Image = nil
	})
	if err != nil {
		return fmt.Errorf("clean: %w", err)
	}
	return nil
}

func (s *Service) destroyForClean(ctx context.Context, c *component) error {
	if err := s.bank.take(ctx); err != nil {
		return err
	}
	defer s.bank.give()
	if err := s.claimSecondBank(ctx, c); err != nil {
		return err
	}
	return s.run(ctx, plan{do: s.destroySecond(s.record(), c, false)})
}
