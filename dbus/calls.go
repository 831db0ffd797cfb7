package dbus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// request is a call whose object, method and signature are right.
type request struct {
	*session
	*message
	object *object
	method method
	peer   *peer
	pool   pool // guarded by session.mu
	args   cursor
}

func (r *request) id() fwu.ID { return r.object.comp.ID }

// options reads the last argument of most calls, where no key is known.
func (r *request) options() error {
	_, err := r.knownOptions()
	return err
}

// knownOptions reads the last argument of most calls. A key that we do not know is refused, so that nobody relies on what is ignored.
func (r *request) knownOptions(known ...string) (map[string]string, error) {
	values, unknown := r.args.options(append(known, optionWait)...)
	wait, ok := values[optionWait]
	switch {
	case unknown != nil:
		return nil, invalid("", "%s: unknown option %q", r.member, *unknown)
	case ok && wait != waitNo && wait != "yes":
		return nil, invalid("", "%s: option wait is %q, want yes or no", r.member, wait)
	}
	return values, r.arguments()
}

// arguments ends the reading of arguments.
func (r *request) arguments() error {
	if err := r.args.end(); err != nil {
		return refuse("InvalidArgs", "%s: %v", r.member, err)
	}
	return nil
}

// offset reads a t that is used as a position or a length.
func (r *request) offset(what string, why fwu.Reason) (int64, error) {
	n := r.args.uint64()
	if n > math.MaxInt64 {
		return 0, invalid(why, "%s: %s %d is beyond what a device can hold", r.member, what, n)
	}
	return int64(n), nil
}

func listComponents(_ context.Context, r *request) ([]any, error) {
	all := make([]listed, 0, len(r.components))
	for _, c := range r.components {
		all = append(all, listed{byte(c.ID), clean(c.Name), componentPath(c.ID)})
	}
	return []any{all}, nil
}

func install(ctx context.Context, r *request) ([]any, error) {
	if err := r.options(); err != nil {
		return nil, err
	}
	taking := r.candidates(ctx)
	status, err := r.firmware.Install(ctx)
	for _, id := range taking {
		if err == nil {
			r.holders.release(id)
		}
		r.finished(id, fwu.OpInstall, status, err)
	}
	return []any{int32(status)}, err
}

// candidates are the components that an Install is about.
func (s *session) candidates(ctx context.Context) []fwu.ID {
	var ids []fwu.ID
	for _, c := range s.components {
		// A component that cannot even be asked takes no part; Install says what is wrong with it.
		if info, err := s.firmware.Query(ctx, c.ID); err == nil && info.State == fwu.Candidate {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func accept(ctx context.Context, r *request) ([]any, error) {
	if err := r.options(); err != nil {
		return nil, err
	}
	return []any{int32(fwu.Success)}, r.firmware.Accept(ctx)
}

func reject(ctx context.Context, r *request) ([]any, error) {
	code := fwu.Status(r.args.int32())
	options, err := r.knownOptions("reason", "text")
	if err != nil {
		return nil, err
	}
	status, err := r.firmware.Reject(ctx, fwu.Rejection{Error: code, Reason: fwu.Reason(options["reason"]), Text: options["text"]})
	return []any{int32(status)}, err
}

func requestReboot(ctx context.Context, r *request) ([]any, error) {
	if err := r.options(); err != nil {
		return nil, err
	}
	return nil, r.firmware.RequestReboot(ctx)
}

func repair(ctx context.Context, r *request) ([]any, error) {
	what := fwu.Repair(r.args.string())
	if err := r.options(); err != nil {
		return nil, err
	}
	return nil, r.firmware.Repair(ctx, what)
}

func query(ctx context.Context, r *request) ([]any, error) {
	i, err := r.firmware.Query(ctx, r.id())
	if err != nil {
		return nil, err
	}
	impl := implOf(i.Impl)
	if c := r.holders.get(r.id(), r.sender); c.Name != "" {
		impl["client"] = godbus.MakeVariant(clean(c.Name))
		impl["client_pid"] = godbus.MakeVariant(c.PID)
		impl["client_since"] = godbus.MakeVariant(uint64(max(c.Since, 0)))
	}
	return []any{byte(i.State), int32(i.Error), i.Version, uint64(i.MaxSize), i.Flags, i.Location, impl}, nil
}

// implOf is the part of the answer to Query that is the implementation's.
func implOf(i fwu.Impl) map[string]godbus.Variant {
	return map[string]godbus.Variant{
		"written":         godbus.MakeVariant(uint64(i.Written)),
		"image_size":      godbus.MakeVariant(uint64(i.ImageSize)),
		"prepared":        godbus.MakeVariant(uint64(i.Prepared)),
		"manifest_digest": godbus.MakeVariant(clean(i.ManifestDigest)),
		"digest":          godbus.MakeVariant(clean(i.Digest)),
		"active_slot":     godbus.MakeVariant(clean(i.ActiveSlot)),
		"second_slot":     godbus.MakeVariant(clean(i.SecondSlot)),
		"sequence":        godbus.MakeVariant(i.Sequence),
		"signatures":      godbus.MakeVariant(uint32(i.Signatures)),
		"since":           godbus.MakeVariant(uint64(max(i.Since, 0))),
		"received":        godbus.MakeVariant(uint64(i.Counts.Received)),
		"equal":           godbus.MakeVariant(uint64(i.Counts.Equal)),
		"zeroed":          godbus.MakeVariant(uint64(i.Counts.Zeroed)),
		"stored":          godbus.MakeVariant(uint64(i.Counts.Written)),
		"read_back":       godbus.MakeVariant(uint64(i.Counts.ReadBack)),
		"reason":          godbus.MakeVariant(reasonOf(i.Reason, i.Text)),
		"active_errors":   godbus.MakeVariant(i.ActiveErrors),
		"second_errors":   godbus.MakeVariant(i.SecondErrors),
		"store_errors":    godbus.MakeVariant(i.StoreErrors[:]),
		"read_only":       godbus.MakeVariant(reasonOf(i.ReadOnly, i.ReadOnlyText)),
		"second":          godbus.MakeVariant(secondOf(i.Second)),
	}
}

// secondOf has the facts known of the image in the second slot: none that is empty.
func secondOf(s fwu.Second) map[string]godbus.Variant {
	m := map[string]godbus.Variant{}
	for key, text := range map[string]string{"digest": s.Digest, "manifest": s.Manifest, "signer": s.Signer, "by": s.By.Name, "blocked": s.Blocked} {
		if text != "" {
			m[key] = godbus.MakeVariant(clean(text))
		}
	}
	for key, n := range map[string]uint64{"sequence": s.Sequence, "by_since": uint64(max(s.By.Since, 0)), "by_pid": uint64(s.By.PID)} {
		if n != 0 {
			m[key] = godbus.MakeVariant(n)
		}
	}
	if s.Version != (fwu.Version{}) || s.Manifest != "" {
		m["version"] = godbus.MakeVariant(s.Version)
	}
	if len(s.BlockedBy) > 0 {
		m["blocked_by"] = godbus.MakeVariant(bytesOf(s.BlockedBy))
	}
	return m
}

// Checker is a Firmware that can say whether Start would take a manifest.
type Checker interface {
	Check(ctx context.Context, id fwu.ID, manifest []byte) error
}

func check(ctx context.Context, r *request) ([]any, error) {
	manifest := r.args.bytes()
	if err := r.options(); err != nil {
		return nil, err
	}
	c, ok := r.firmware.(Checker)
	if !ok {
		return nil, &fwu.Error{Status: fwu.NotSupported, Text: "Check: this service cannot tell"}
	}
	return nil, c.Check(ctx, r.id(), manifest)
}

func start(ctx context.Context, r *request) ([]any, error) {
	manifest := r.args.bytes()
	if err := r.options(); err != nil {
		return nil, err
	}
	return nil, r.firmware.Start(fwu.WithClient(ctx, r.holders.get(r.id(), "")), r.id(), manifest)
}

func write(ctx context.Context, r *request) ([]any, error) {
	offset, err := r.offset("offset", fwu.ReasonOffset)
	if err != nil {
		return nil, err
	}
	block := r.args.bytes()
	if err := r.arguments(); err != nil {
		return nil, err
	}
	if len(block) > fwu.MaxWriteSize {
		return nil, r.blockTooLarge()
	}
	return nil, r.firmware.Write(ctx, r.id(), offset, block)
}

func (m *message) blockTooLarge() error {
	return invalid(fwu.ReasonSize, "%s: block is larger than %d bytes", m.member, fwu.MaxWriteSize)
}

func writeFile(ctx context.Context, r *request) ([]any, error) {
	offset, err := r.offset("offset", fwu.ReasonOffset)
	if err != nil {
		return nil, err
	}
	index := r.args.uint32()
	length, err := r.offset("length", fwu.ReasonSize)
	if err != nil {
		return nil, err
	}
	if err := r.options(); err != nil {
		return nil, err
	}
	fd, ok := r.takeDescriptor(index)
	if !ok {
		return nil, refuse("InvalidArgs", "%s: the message has no descriptor %d", r.member, index)
	}
	user := r.peer.account.uid
	if r.server.stuck.full(user) {
		closeAll([]int{fd})
		return nil, refuse("LimitsExceeded", "%s: %d files of user %d were given up, and their file systems do not answer", r.member, maxStuck, user)
	}
	file, err := newDescriptor(fd, func(n int) { r.server.stuck.add(user, n) })
	if err != nil {
		return nil, fmt.Errorf("%s: prepare to read: %w", r.member, err)
	}
	defer file.Close()
	written, err := r.firmware.WriteFrom(ctx, r.id(), offset, file, length)
	if err != nil && errors.Is(err, context.Canceled) {
		err = &fwu.Error{Status: fwu.StatusOf(err), Text: fmt.Sprintf("%s: ended at %d (%v); it can be continued at Written", r.member, offset+written, context.Cause(ctx)), Err: err}
	}
	r.finished(r.id(), fwu.OpWrite, fwu.Success, err)
	return []any{uint64(written)}, err
}

func finish(ctx context.Context, r *request) ([]any, error) {
	if err := r.options(); err != nil {
		return nil, err
	}
	err := r.firmware.Finish(ctx, r.id())
	r.finished(r.id(), fwu.OpFinish, fwu.Success, err)
	return nil, err
}

func cancel(ctx context.Context, r *request) ([]any, error) {
	err := r.firmware.Cancel(ctx, r.id())
	if err == nil {
		r.holders.release(r.id())
	}
	return nil, err
}

func cleanUp(ctx context.Context, r *request) ([]any, error) {
	if err := r.options(); err != nil {
		return nil, err
	}
	err := r.firmware.Clean(ctx, r.id())
	r.holders.release(r.id()) // it is READY, and nobody's
	r.finished(r.id(), fwu.OpClean, fwu.Success, err)
	return nil, err
}

func introspect(_ context.Context, r *request) ([]any, error) {
	return []any{r.object.describe()}, nil
}

// getMachineID answers as the specification of org.freedesktop.DBus.Peer demands, with what machine-id(5) describes.
func getMachineID(context.Context, *request) ([]any, error) {
	b, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return nil, refuse("Failed", "read the machine id: %v", err)
	}
	return []any{clean(strings.TrimSpace(string(b)))}, nil
}

func getProperty(ctx context.Context, r *request) ([]any, error) {
	ifaceName, name := r.args.string(), r.args.string()
	if err := r.arguments(); err != nil {
		return nil, err
	}
	values, err := r.properties(ctx, r.object, ifaceName)
	if err != nil {
		return nil, err
	}
	v, ok := values[name]
	if !ok {
		return nil, refuse("UnknownProperty", "object %s has no property %q on interface %q", r.object.path, name, ifaceName)
	}
	return []any{v}, nil
}

func getAllProperties(ctx context.Context, r *request) ([]any, error) {
	ifaceName := r.args.string()
	if err := r.arguments(); err != nil {
		return nil, err
	}
	values, err := r.properties(ctx, r.object, ifaceName)
	return []any{values}, err
}

func setProperty(ctx context.Context, r *request) ([]any, error) {
	ifaceName, name := r.args.string(), r.args.string()
	values, err := r.properties(ctx, r.object, ifaceName)
	if err != nil {
		return nil, err
	}
	if _, ok := values[name]; !ok {
		return nil, refuse("UnknownProperty", "object %s has no property %q on interface %q", r.object.path, name, ifaceName)
	}
	return nil, refuse("PropertyReadOnly", "property %s of %s is read-only", name, r.object.path)
}

func getManagedObjects(ctx context.Context, r *request) ([]any, error) {
	all := map[godbus.ObjectPath]map[string]map[string]godbus.Variant{}
	for _, o := range r.tree {
		if !o.component {
			continue
		}
		interfaces := map[string]map[string]godbus.Variant{}
		for _, i := range o.interfaces {
			values, err := r.properties(ctx, o, i.name)
			if err != nil {
				return nil, err
			}
			interfaces[i.name] = values
		}
		all[o.path] = interfaces
	}
	return []any{all}, nil
}

// properties are those of one interface of o, of all if the name is empty.
func (s *session) properties(ctx context.Context, o *object, ifaceName string) (map[string]godbus.Variant, error) {
	values, known := map[string]godbus.Variant{}, ifaceName == ""
	v, err := s.view(ctx, o)
	if err != nil {
		return nil, err
	}
	for _, i := range o.interfaces {
		if ifaceName != "" && ifaceName != i.name {
			continue
		}
		known = true
		for _, p := range i.properties {
			values[p.name] = godbus.MakeVariant(p.get(v))
		}
	}
	if !known {
		return nil, refuse("UnknownInterface", "object %s has no interface %s", o.path, ifaceName)
	}
	return values, nil
}

// view takes the snapshot that properties of o are read from.
func (s *session) view(ctx context.Context, o *object) (view, error) {
	v := view{options: &s.server.options, comp: o.comp}
	var err error
	if o.component {
		v.info, err = s.firmware.Query(ctx, o.comp.ID)
	} else {
		v.system = s.firmware.System()
	}
	return v, err
}
