package dbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// ReasonUnreachable is what System of a Client reports as Degraded when the service does not answer.
const ReasonUnreachable fwu.Reason = "service-unreachable"

// ReasonNoBus: the message bus cannot be reached, so that nothing is known of the service.
const ReasonNoBus fwu.Reason = "bus-unreachable"

// ReasonDenied: the caller lacks the right for this call.
const ReasonDenied fwu.Reason = "access-denied"

var _ Firmware = (*Client)(nil)

// Client is the update service at the other end of a bus. Its errors have a *fwu.Error in their chain, with the status, the reason and the
// components that the service named. Calls have no time limit but their context's; the end of a context ends the waiting, not the operation.
// Safe for concurrent use.
type Client struct {
	// NoWait: a call that would have to wait for one of another client fails with ReasonBusy. Set
	// it before the first call.
	NoWait bool

	conn       *godbus.Conn
	components []fwu.ComponentInfo
	watchers   watchers
}

// Dial connects to the bus at address ("system", "session", or an address as in the D-Bus Specification) and asks the service for its
// components, which starts it if the bus knows how. Connecting takes ten seconds at most, what follows as long as ctx allows.
func Dial(ctx context.Context, address string) (*Client, error) {
	c := &Client{}
	conn, err := connect(ctx, address, func(socket *net.UnixConn) (*godbus.Conn, error) {
		return godbus.DialUnix(socket, godbus.WithSignalHandler(&c.watchers))
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, &fwu.Error{Status: fwu.CommunicationFailure, Reason: ReasonNoBus, Text: "reach the update service", Err: err}
	}
	c.conn = conn
	if c.components, err = c.listComponents(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection, and with it every WriteFrom that is under way.
func (c *Client) Close() error { return c.conn.Close() }

// call calls a method and stores its results.
func (c *Client) call(ctx context.Context, path godbus.ObjectPath, method string, args []any, results ...any) error {
	call := c.conn.Object(Name, path).GoWithContext(ctx, method, 0, make(chan *godbus.Call, 1), args...)
	<-call.Done
	if call.Err != nil {
		return decodeError(ctx, method[strings.LastIndexByte(method, '.')+1:], call.Err)
	}
	if err := godbus.Store(call.Body, results...); err != nil {
		return &fwu.Error{Status: fwu.CommunicationFailure, Text: method + ": the service answered with other types than the contract has", Err: err}
	}
	return nil
}

func (c *Client) manager(ctx context.Context, method string, args []any, results ...any) error {
	return c.call(ctx, Path, ManagerInterface+"."+method, args, results...)
}

func (c *Client) component(ctx context.Context, id fwu.ID, method string, args []any, results ...any) error {
	return c.call(ctx, componentPath(id), ComponentInterface+"."+method, args, results...)
}

// options are those of every call.
func (c *Client) options() map[string]godbus.Variant {
	o := map[string]godbus.Variant{}
	if c.NoWait {
		o[optionWait] = godbus.MakeVariant(waitNo)
	}
	return o
}

// listComponents asks for what never changes while the service runs.
func (c *Client) listComponents(ctx context.Context) ([]fwu.ComponentInfo, error) {
	var all []listed
	if err := c.manager(ctx, "ListComponents", nil, &all); err != nil {
		return nil, err
	}
	infos := make([]fwu.ComponentInfo, 0, len(all))
	for _, l := range all {
		p, err := c.getAll(ctx, l.Path, ComponentInterface)
		if err != nil {
			return nil, err
		}
		info := fwu.ComponentInfo{ID: fwu.ID(l.ID), Name: l.Name}
		info.Manifest = fwu.ManifestMode(value[string](p, "ManifestMode"))
		info.Live = value[string](p, "Activation") == fwu.ComponentInfo{Live: true}.Activation()
		infos = append(infos, info)
	}
	return infos, nil
}

// getAll reads the properties of an object.
func (c *Client) getAll(ctx context.Context, path godbus.ObjectPath, ifaceName string) (map[string]godbus.Variant, error) {
	call := c.conn.Object(Name, path).CallWithContext(ctx, propertiesName+".GetAll", 0, ifaceName)
	var p map[string]godbus.Variant
	if err := call.Store(&p); err != nil {
		return nil, decodeError(ctx, "read properties", err)
	}
	return p, nil
}

// value is a property of a basic type, zero if it is missing.
func value[T any](p map[string]godbus.Variant, name string) T {
	v, _ := p[name].Value().(T)
	return v
}

// Components are those that the service had when Dial was called.
func (c *Client) Components() []fwu.ComponentInfo {
	return append([]fwu.ComponentInfo(nil), c.components...)
}

// System asks for the state of the whole. It waits for ten seconds at most; if the service does not answer, Degraded has ReasonUnreachable
// and Why says why.
func (c *Client) System() fwu.SystemInfo {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	p, err := c.getAll(ctx, Path, ManagerInterface)
	if err != nil {
		return fwu.SystemInfo{Degraded: []fwu.Reason{ReasonUnreachable}, Why: []string{err.Error()}}
	}
	s := fwu.SystemInfo{
		Selector: value[string](p, "Selector"),
		Booted:   fwu.Bank(value[string](p, "BootedBank")),
		Default:  fwu.Bank(value[string](p, "DefaultBank")),
		Trial:    fwu.Bank(value[string](p, "TrialBank")),
		Limits:   value[[]string](p, "Limits"), // nil: a service of before they were
	}
	for _, code := range value[[]string](p, "Degraded") {
		s.Degraded = append(s.Degraded, fwu.Reason(code))
		s.Why = append(s.Why, code) // the contract has no more
	}
	return s
}

// Query asks for a snapshot of a component. Operation, Done and Total are those of a moment later.
func (c *Client) Query(ctx context.Context, id fwu.ID) (fwu.Info, error) {
	var i fwu.Info
	var state uint8
	var failure int32
	var size uint64
	var impl map[string]godbus.Variant
	if err := c.component(ctx, id, "Query", nil, &state, &failure, &i.Version, &size, &i.Flags, &i.Location, &impl); err != nil {
		return fwu.Info{}, err
	}
	i.State, i.Error, i.MaxSize = fwu.State(state), fwu.Status(failure), int64(size)
	i.Impl = fwu.Impl{
		Written:        int64(value[uint64](impl, "written")),
		ImageSize:      int64(value[uint64](impl, "image_size")),
		Prepared:       int64(value[uint64](impl, "prepared")),
		ManifestDigest: value[string](impl, "manifest_digest"),
		Digest:         value[string](impl, "digest"),
		ActiveSlot:     value[string](impl, "active_slot"),
		SecondSlot:     value[string](impl, "second_slot"),
		Sequence:       value[uint64](impl, "sequence"),
		Signatures:     int(value[uint32](impl, "signatures")),
		Since:          int64(value[uint64](impl, "since")),
		Counts: fwu.Counts{
			Received: int64(value[uint64](impl, "received")),
			Equal:    int64(value[uint64](impl, "equal")),
			Zeroed:   int64(value[uint64](impl, "zeroed")),
			Written:  int64(value[uint64](impl, "stored")),
			ReadBack: int64(value[uint64](impl, "read_back")),
		},
	}
	i.Impl.Reason, i.Impl.Text = reasonPair(impl["reason"].Value())
	i.Impl.ReadOnly, i.Impl.ReadOnlyText = reasonPair(impl["read_only"].Value())
	i.Impl.Second = parseSecond(impl["second"])
	i.Impl.Client = fwu.Client{Name: value[string](impl, "client"), PID: value[uint32](impl, "client_pid"), Since: int64(value[uint64](impl, "client_since"))}
	i.Impl.ActiveErrors, i.Impl.SecondErrors = mediumErrors(impl["active_errors"].Value()), mediumErrors(impl["second_errors"].Value())
	copies := value[[][]any](impl, "store_errors")
	for n := range min(len(copies), len(i.Impl.StoreErrors)) {
		i.Impl.StoreErrors[n] = mediumErrors(copies[n])
	}
	p, err := c.getAll(ctx, componentPath(id), ComponentInterface)
	if err != nil {
		return fwu.Info{}, err
	}
	i.Impl.Operation = value[string](p, "Operation")
	i.Impl.Done, i.Impl.Total = progressPair(p["Progress"].Value())
	return i, nil
}

// parseSecond is the reverse of secondOf.
func parseSecond(v godbus.Variant) fwu.Second {
	p, _ := v.Value().(map[string]godbus.Variant)
	s := fwu.Second{
		Digest: value[string](p, "digest"), Manifest: value[string](p, "manifest"), Sequence: value[uint64](p, "sequence"), Signer: value[string](p, "signer"),
		By:      fwu.Client{Name: value[string](p, "by"), PID: uint32(value[uint64](p, "by_pid")), Since: int64(value[uint64](p, "by_since"))},
		Blocked: value[string](p, "blocked"), BlockedBy: idsOf(p["blocked_by"]),
	}
	if version, ok := p["version"]; ok {
		// of another type: as if it were not there
		_ = godbus.Store([]any{version.Value()}, &s.Version)
	}
	return s
}

func reasonPair(v any) (fwu.Reason, string) {
	pair, _ := v.([]any)
	if len(pair) != 2 {
		return "", ""
	}
	code, _ := pair[0].(string)
	text, _ := pair[1].(string)
	return fwu.Reason(code), text
}

// mediumErrors reads (tttt).
func mediumErrors(v any) fwu.MediumErrors {
	var n [4]uint64
	fields, _ := v.([]any)
	for i := range min(len(fields), len(n)) {
		n[i], _ = fields[i].(uint64)
	}
	return fwu.MediumErrors{Read: n[0], Write: n[1], Flush: n[2], Retried: n[3]}
}

func progressPair(v any) (done, total int64) {
	pair, _ := v.([]any)
	if len(pair) != 2 {
		return 0, 0
	}
	d, _ := pair[0].(uint64)
	t, _ := pair[1].(uint64)
	return int64(d), int64(t)
}

// Check asks whether Start would take a manifest. A service that does not know the question answers
// NotSupported.
func (c *Client) Check(ctx context.Context, id fwu.ID, manifest []byte) error {
	return c.component(ctx, id, "Check", []any{append([]byte{}, manifest...), c.options()})
}

// Start begins the preparation of an image.
func (c *Client) Start(ctx context.Context, id fwu.ID, manifest []byte) error {
	return c.component(ctx, id, "Start", []any{append([]byte{}, manifest...), c.options()})
}

// Write stores a block.
func (c *Client) Write(ctx context.Context, id fwu.ID, offset int64, block []byte) error {
	if offset < 0 {
		return invalid(fwu.ReasonOffset, "write at %d: offset is negative", offset)
	}
	return c.component(ctx, id, "Write", []any{uint64(offset), append([]byte{}, block...)})
}

// WriteFrom stores length bytes of r, all of it if length is 0.
//
// If r is an *os.File, the service gets its descriptor and reads from where the file stands; when ctx ends, WriteFrom returns, and the
// transfer goes on until it is done, Cancel is called, or this Client is closed. Any other r is fed through a pipe, which
// is closed when ctx ends, and that ends the transfer. More may have been read from r than was stored: go on from what written says, or from
// Written after an error. WriteFrom returns when no more is read from r; a read that waits is interrupted, and its deadline cleared, if r has
// SetReadDeadline.
func (c *Client) WriteFrom(ctx context.Context, id fwu.ID, offset int64, r io.Reader, length int64) (written int64, err error) {
	if offset < 0 || length < 0 {
		return 0, invalid(fwu.ReasonOffset, "write %d bytes at %d: offset or length is negative", length, offset)
	}
	if file, ok := r.(*os.File); ok {
		return c.writeFile(ctx, id, offset, file, length)
	}
	f, err := startFeed(r, length)
	if err != nil {
		return 0, fmt.Errorf("write from a stream: %w", err)
	}
	written, err = c.writeFile(ctx, id, offset, f.out, length)
	// To the service, a source that breaks looks like one that has ended.
	if readErr := f.end(); readErr != nil && ctx.Err() == nil {
		return written, &fwu.Error{Status: fwu.CommunicationFailure, Text: "read the image", Err: readErr}
	}
	return written, err
}

func (c *Client) writeFile(ctx context.Context, id fwu.ID, offset int64, file *os.File, length int64) (int64, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("write from %s: %w", file.Name(), err)
	}
	// A copy of the descriptor, because it must stay what it is until it was sent, and Fd would change the file.
	fd := -1
	var dupErr error
	err = raw.Control(func(f uintptr) { fd, dupErr = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, dupErr); err != nil {
		return 0, fmt.Errorf("write from %s: %w", file.Name(), err)
	}
	var stored uint64
	method := ComponentInterface + ".WriteFile"
	call := c.conn.Object(Name, componentPath(id)).GoWithContext(ctx, method, 0, make(chan *godbus.Call, 1),
		uint64(offset), godbus.UnixFD(fd), uint64(length), c.options())
	closeAll([]int{fd}) // it is on its way
	<-call.Done
	if err := call.Store(&stored); err != nil {
		return 0, decodeError(ctx, "WriteFile", err)
	}
	return int64(stored), nil
}

// feed copies a reader into a pipe.
type feed struct {
	out, in *os.File
	source  io.Reader
	done    chan error
}

func startFeed(r io.Reader, length int64) (*feed, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	f := &feed{out: out, in: in, source: r, done: make(chan error, 1)}
	if length > 0 {
		r = io.LimitReader(r, length)
	}
	go func() {
		_, err := io.Copy(struct{ io.Writer }{in}, struct{ io.Reader }{r})
		f.done <- errors.Join(err, in.Close())
	}()
	return f, nil
}

// end stops the copying and returns what the source failed with.
func (f *feed) end() error {
	_ = f.out.Close()
	select {
	case err := <-f.done:
		return withoutPipe(err)
	default:
	}
	// The source may be waiting for more. It is the caller's again when this returns, so it must not be read any longer.
	d, ok := f.source.(interface{ SetReadDeadline(time.Time) error })
	if !ok {
		return withoutPipe(<-f.done)
	}
	_ = d.SetReadDeadline(time.Unix(1, 0)) // one that cannot be interrupted is waited for
	err := <-f.done
	_ = d.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return withoutPipe(err)
}

// withoutPipe is err unless it says that the service had read enough.
func withoutPipe(err error) error {
	if errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

// Finish declares the image complete.
func (c *Client) Finish(ctx context.Context, id fwu.ID) error {
	return c.component(ctx, id, "Finish", []any{c.options()})
}

// Cancel ends the preparation, and a running WriteFrom or Finish.
func (c *Client) Cancel(ctx context.Context, id fwu.ID) error {
	return c.component(ctx, id, "Cancel", nil)
}

// Clean makes a component ready for the next image.
func (c *Client) Clean(ctx context.Context, id fwu.ID) error {
	return c.component(ctx, id, "Clean", []any{c.options()})
}

// Install installs what is a candidate.
func (c *Client) Install(ctx context.Context) (fwu.Status, error) {
	return c.decide(ctx, "Install", c.options())
}

// Accept keeps what is in trial.
func (c *Client) Accept(ctx context.Context) error {
	_, err := c.decide(ctx, "Accept", c.options())
	return err
}

// Reject gives up what is staged or in trial.
func (c *Client) Reject(ctx context.Context, why fwu.Rejection) (fwu.Status, error) {
	o := c.options()
	if why.Reason != "" {
		o["reason"] = godbus.MakeVariant(string(why.Reason))
	}
	if why.Text != "" {
		o["text"] = godbus.MakeVariant(clean(why.Text))
	}
	return c.decide(ctx, "Reject", int32(why.Error), o)
}

func (c *Client) decide(ctx context.Context, method string, args ...any) (fwu.Status, error) {
	var status int32
	err := c.manager(ctx, method, args, &status)
	if err != nil {
		return fwu.StatusOf(err), err
	}
	return fwu.Status(status), nil
}

// RequestReboot asks for a reboot.
func (c *Client) RequestReboot(ctx context.Context) error {
	return c.manager(ctx, "RequestReboot", []any{c.options()})
}

// Repair has the service make a repair that it does not make by itself, because it gives something
// up.
func (c *Client) Repair(ctx context.Context, what fwu.Repair) error {
	return c.manager(ctx, "Repair", []any{clean(string(what)), c.options()})
}
