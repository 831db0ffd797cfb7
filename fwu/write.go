package fwu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/zstdframe"
)

// Write is psa_fwu_write (section 5.6.1): block is at offset off of the stream. An error of the
// medium voids the bytes that are not durable: go on at Written.
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

// WriteFrom writes the bytes of r, from offset off on: length bytes, or all up to the end of r
// where length is 0. It returns how many bytes were stored. It makes them durable in any case, so
// that a transfer that was interrupted continues at Written. A reader with SetReadDeadline is
// interrupted when ctx ends or Cancel is called.
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
		// a file that has no deadlines does not block either
		defer context.AfterFunc(ctx, func() { _ = d.SetReadDeadline(time.Unix(1, 0)) })()
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
			// A block that has come is stored, even if the client has gone meanwhile: to stop in
			// the middle would void the blocks before it.
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

// putStream takes a block of a bundle, or of a compressed image: contiguous, or again from Written
// on.
func (s *Service) putStream(ctx context.Context, c *component, off int64, p []byte) error {
	t := c.transfer
	if err := t.follows(off, int64(len(p)), s.durable(c)&^(WriteAlignment-1)); err != nil {
		return err
	}
	if off == 0 && t.have > 0 { // nothing is durable, and the client begins anew
		t.restart(c.Manifest)
		s.setPrepared(c, 0)
		if err := s.readOn(ctx, c); err != nil {
			return err
		}
	}
	p = t.advance(off, p)
	if len(p) == 0 {
		return nil
	}
	if !t.known {
		return s.putHeader(ctx, c, p)
	}
	return s.putPayload(ctx, c, p)
}

// putPayload stores the next bytes of the payload.
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
	// the decoder does not go on after an error, and begins again where the image is durable
	return s.void(c, err)
}

// putHeader collects a bundle up to its payload, verifies the manifest, and stores the bytes of the
// payload that came with it.
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
	img, err := s.recipient().read(c, b.Envelope, &b)
	if err != nil {
		return s.invalid(ctx, c, fmt.Errorf("write: %w", err))
	}
	img.By = s.record().Components[c.Name].next().By
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
	if at := t.payload + off; t.decoder == nil && at < s.durable(c) {
		// a cut must not find it promised while it is written over
		if err := s.promise(ctx, c, at); err != nil {
			return err
		}
	}
	// Without a manifest no digest would find the bytes that an interruption voids.
	if c.Manifest == None && !s.record().Components[c.Name].next().Open {
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

// void gives up a transfer whose medium failed. The durable bytes stay, and the next call goes on
// from there.
func (s *Service) void(c *component, err error) error {
	second := 1 - s.record().Components[c.Name].Active
	return s.slotError(c, second, errors.Join(err, s.release(c)))
}

// checkpoint makes the stored bytes durable, and records how far they are: all with Image.Sync,
// those that the checkpoint before flushed with Image.Checkpoint. Bytes that were durable before
// and were not written over still are, though a prefix that was hashed begins anew after a block
// was written again.
func (s *Service) checkpoint(ctx context.Context, c *component, durable func(Image, context.Context) (int64, error)) error {
	t := c.transfer
	if c.Manifest == None { // without a digest nothing tells which of the other bytes are durable
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

// promiseFrames records how much of a compressed stream is durable, and how much of the image that
// is.
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

// deadliner is a reader that can be interrupted.
type deadliner interface {
	SetReadDeadline(time.Time) error
}

// intakeSize is how much is read at once where the bytes are not read into the memory of the slot:
// the beginning of a stream, and bytes that have to be decoded.
const intakeSize = 128 << 10

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
