package fwu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sort"
	"sync"
	"time"
)

// Config is the device that a service is made for, and its settings.
type Config struct {
	Components []Component
	Trial      bool // a new bank runs on trial until it is accepted
	MaxTrials  int  // failed trials after which an image is refused; 0 means 3
	// Checkpoint is how many bytes of an image are written between two checkpoints. 0 means
	// CheckpointInterval.
	Checkpoint int64
	Store      Medium
	Selector   Selector // nil if every component is live
	System     System
	Boot       Boot
	Release    ReleaseRecord // nil if the running image has none
	Log        *slog.Logger
	// Battery returns the charge of the battery, in mWh. The error says why that is not known. A
	// device without battery has more than anyone asks for. May be nil: there is none.
	Battery func() (mWh uint64, err error)
	// Time is the latest time that is known to have come: the clock, or when this system was built
	// if the clock is behind that. It is asked when a manifest comes with certificates. May be nil:
	// then no certificate is taken before one was.
	Time  func() time.Time
	Hooks Hooks // programs of the device that take part in an update; may be nil
	// Background lets Open return before it has read a bank again that was armed when the service
	// was away last.
	Background bool
	// Changed is called, with no lock held, after a value changed that Query reports. It must not
	// block. May be nil.
	Changed func(ID)
}

// Service is the update service. Its methods are the functions of the specification, section 5;
// they are safe for concurrent use. Operations on one component exclude each other. Query and
// System never wait for one. Cancel ends one that runs.
type Service struct {
	cfg        Config
	log        *slog.Logger
	store      *Store
	components []*component    // by id
	life       context.Context // ends with Close
	stop       context.CancelFunc
	tasks      sync.WaitGroup // goroutines that end with life

	// The locks, in the order in which they are taken. Who holds one takes none that stands before
	// it.
	opening lock // held while the service reconciles
	install lock // held by install, accept, reject, the repair of slots, and while a bank that is STAGED is verified again
	// component.op stands here. Only the holder of install holds more than one.
	bank   lock       // held while heads of more than one bank member are destroyed
	saving sync.Mutex // held while the record is written

	mu       sync.Mutex // guards the fields below; held for moments only
	rec      *record    // never changed in place
	sel      Selection
	degraded *problem // why queries alone are answered; nil if the service is healthy
	closed   bool
	settled  bool   // the selection was committed since Open
	ending   ending // of the start: how the bank stands
	working  int    // operations that run and do not wait for a client
	steps    uint64 // that were made
}

// component is a component at run time.
type component struct {
	Component
	op lock // held by the operation that runs on it

	// Guarded by Service.mu.
	operation   string
	done, total int64
	interrupt   context.CancelCauseFunc // ends the running operation; nil if it is not to be ended
	cancels     int                     // calls of Cancel that wait for the running operation, or for one that is about to begin
	written     int64                   // durable bytes of the image in preparation
	prepared    int64                   // bytes of the image that were taken since the slot was opened, and before; 0 while nothing is open
	counts      Counts                  // of the image in preparation, before writing was opened
	writing     Image                   // the slot that it is written to, nil if none is
	sealed      bool                    // the head of the second slot is known to be destroyed
	readOnly    *problem                // why nothing is written, nil if it may be

	// Owned by the holder of op.
	transfer *transfer
	held     Image // the second slot, open since the image in it was verified
}

// problem is a reason for answering queries only, or for not writing to a component.
type problem struct {
	reason Reason
	text   string
	medium bool // a medium failed: it may be read or written the next time
}

// refusal is the error of a call that p stands in the way of.
func (p problem) refusal(format string, args ...any) *Error {
	return refuse(NotPermitted, p.reason, "%s: %s", fmt.Sprintf(format, args...), p.text)
}

// Open starts the service: it reads the store, looks at the boot and the selector, and brings the
// three into agreement (reconciles). A fault that it cannot mend makes the service degraded: it
// answers Query, and refuses the rest. If a medium was at fault it reconciles again at the next
// call, and from time to time by itself. An error means that there is no service at all. ctx is
// that of the start alone; Close ends the service.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxTrials == 0 {
		cfg.MaxTrials = 3
	}
	if cfg.Checkpoint == 0 {
		cfg.Checkpoint = CheckpointInterval
	}
	if cfg.Changed == nil {
		cfg.Changed = func(ID) {}
	}
	store, err := OpenStore(cfg.Store)
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, log: cfg.Log, store: store, install: newLock(), bank: newLock(), opening: newLock()}
	s.cfg.Components = slices.Clone(cfg.Components)
	// sort.Slice is one function for all types. slices.SortFunc has 40 kB for this one.
	sort.Slice(s.cfg.Components, func(i, j int) bool { return s.cfg.Components[i].ID < s.cfg.Components[j].ID })
	for i, c := range s.cfg.Components {
		if i > 0 && s.cfg.Components[i-1].ID == c.ID {
			return nil, fmt.Errorf("component id %d is used twice", c.ID)
		}
		if !c.Live && cfg.Selector == nil {
			return nil, fmt.Errorf("component %s is a bank member, and no selector is configured", c.Name)
		}
		if c.Manifest == None {
			s.log.Warn("the update client is trusted: images of this component are not verified", "component", c.Name)
		}
		s.components = append(s.components, &component{Component: c, op: newLock()})
	}
	s.watchMedia()
	s.life, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.setProblem(s.start(ctx))
	if s.problem() == nil {
		s.endOrphans(ctx)
	}
	if p := s.problem(); p != nil && p.medium {
		s.tasks.Go(func() { s.keepTrying(s.life) })
	}
	return s, nil
}

// Close ends the operations that run, makes durable the bytes that were stored, and gives up all
// slots. The state stays in the store. Calls after it are refused.
func (s *Service) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.tasks.Wait()
	s.opening.force()
	defer s.opening.give()
	for _, c := range s.components {
		s.interrupt(c, errClosed)
	}
	s.install.force()
	defer s.install.give()
	var errs []error
	for _, c := range s.components {
		c.op.force()
		s.bank.force()
		if c.transfer != nil {
			errs = append(errs, s.checkpoint(context.Background(), c, Image.Sync))
		}
		errs = append(errs, s.release(c))
		s.bank.give()
		c.op.give()
	}
	return errors.Join(errs...)
}

var errClosed = constError("service is closing")

// release gives up the second slot. The holder of c.op calls it.
func (s *Service) release(c *component) error {
	var errs []error
	if c.held != nil {
		errs = append(errs, c.held.Close())
		c.held = nil
	}
	if c.transfer != nil {
		s.counting(c, nil)
		errs = append(errs, c.transfer.image.Close())
		c.transfer.close()
		c.transfer = nil
		s.setPrepared(c, 0)
	}
	return errors.Join(errs...)
}

func (s *Service) component(id ID) *component {
	for _, c := range s.components {
		if c.ID == id {
			return c
		}
	}
	return nil
}

// named returns the component with a name, nil if there is none.
func named(components []*component, name string) *component {
	for _, c := range components {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// variant of a component: trial is a property of the bank for its members.
func (s *Service) variant(c Component) variant {
	v := variant{live: c.Live, trial: c.Trial, volatile: c.Volatile}
	if !c.Live {
		v.trial = s.cfg.Trial
	}
	return v
}

// trialVariant is the variant of a component in a bank that was installed: whether it is on trial
// was decided then, by the configuration of the bank before.
func (s *Service) trialVariant(r *record, c Component) variant {
	v := s.variant(c)
	if !c.Live && r.Trial != nil {
		v.trial = !r.Trial.NoTrial
	}
	return v
}

// record returns the record that counts. It is not to be changed.
func (s *Service) record() *record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec
}

// update makes an edited copy of the record the one that counts, and adds the change to n.
func (s *Service) update(edit func(*record), n *news) error {
	if err := s.saveEdited(edit, n); err != nil {
		return err
	}
	for _, c := range s.components {
		s.cfg.Changed(c.ID)
	}
	return nil
}

func (s *Service) saveEdited(edit func(*record), n *news) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	before := s.record()
	r := before.clone()
	edit(r)
	if r.fault != nil {
		return r.fault
	}
	s.date(before, r)
	if err := s.store.save(r); err != nil {
		// The failed save may lie on the medium all the same, and would count after a cut: the
		// record that counts has to be the newest again before anything else is done.
		return errors.Join(err, s.store.save(s.record()))
	}
	s.mu.Lock()
	s.rec = r
	s.mu.Unlock()
	n.add(before, r)
	return nil
}

func (s *Service) setSelection(sel Selection) {
	s.mu.Lock()
	s.sel = sel
	s.mu.Unlock()
}

// withImage calls f with a component's slot open: the handle that the component holds if it is the
// second slot, else one of its own.
func (s *Service) withImage(ctx context.Context, id ID, slot int, f func(Image) error) error {
	c := s.component(id)
	if c == nil {
		return refuse(DoesNotExist, ReasonNoSuch, "component %d does not exist", id)
	}
	if p := s.readOnly(c); p != nil {
		return p.refusal("%s is read-only", c.Name)
	}
	if !c.Live && slot == s.cfg.Boot.Bank.Index() { // nothing that we do ever needs that
		return refuse(NotPermitted, ReasonSlotBusy, "slot %s of %s belongs to the running bank", BankOf(slot), c.Name)
	}
	img := c.held
	if c.transfer != nil {
		img = c.transfer.image
	}
	if img != nil && slot == 1-s.record().Components[c.Name].Active {
		return s.slotError(c, slot, f(img))
	}
	img, err := c.Slots[slot].Open(ctx)
	if err != nil {
		return s.slotError(c, slot, err)
	}
	return s.slotError(c, slot, errors.Join(f(img), img.Close()))
}

// slotError gives an error of a slot its status. Errors that have one, and those of a context, stay
// as they are.
func (s *Service) slotError(c *component, slot int, err error) error {
	var e *Error
	switch {
	case err == nil, errors.As(err, &e), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, ErrSlotBusy):
		return &Error{Status: NotPermitted, Reason: ReasonSlotBusy, Text: fmt.Sprintf("slot %s of %s", BankOf(slot), c.Name), Components: []ID{c.ID}, Err: err}
	case errors.Is(err, ErrReadOnly):
		return &Error{Status: NotPermitted, Reason: ReasonSlotReadOnly, Text: fmt.Sprintf("slot %s of %s", BankOf(slot), c.Name), Components: []ID{c.ID}, Err: err}
	}
	return &Error{Status: StorageFailure, Reason: ReasonMedium, Text: fmt.Sprintf("slot %s of %s", BankOf(slot), c.Name), Components: []ID{c.ID}, Err: err}
}

// RequestReboot is psa_fwu_request_reboot (section 5.6.2). It returns when the system accepted the
// request.
func (s *Service) RequestReboot(ctx context.Context) error {
	if err := s.cfg.System.Reboot(ctx); err != nil {
		return &Error{Status: NotPermitted, Reason: ReasonRebootRefused, Text: "request a reboot", Err: err}
	}
	return nil
}

// healthy refuses a call that changes something while the service is degraded. If a medium was at
// fault, it tries again first.
func (s *Service) healthy(ctx context.Context) error {
	p, err := s.condition()
	if err == nil && p != nil && p.medium {
		if err := s.tryAgain(ctx); err != nil {
			return err
		}
		p, err = s.condition()
	}
	if err == nil && p != nil {
		return p.refusal("the service answers queries only")
	}
	return err
}

// condition returns the service's problem, or an error if it is closed.
func (s *Service) condition() (*problem, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, &Error{Status: CommunicationFailure, Err: errClosed}
	}
	return s.degraded, nil
}

func (s *Service) setSealed(id ID, sealed bool) {
	c := s.component(id)
	s.mu.Lock()
	c.sealed = sealed
	s.mu.Unlock()
}

func (s *Service) isSealed(c *component) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.sealed
}

// claimSecondBank commits the running bank as the default, so that the bootloader does not start
// the second bank while it is being changed. It fails where the second bank is not ours as a whole.
func (s *Service) claimSecondBank(ctx context.Context, c *component) error {
	if c.Live {
		return nil
	}
	if p := s.readOnlyBank(); p != nil {
		return p.refusal("a member of the bank is read-only")
	}
	return s.run(ctx, plan{do: []effect{claim{s.cfg.Boot.Bank}}})
}

// readOnly says why nothing is written to c, nil if it may be.
func (s *Service) readOnly(c *component) *problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.readOnly
}

// readOnlyBank says why the bank is not written: one of its members is read-only.
func (s *Service) readOnlyBank() *problem {
	for _, m := range s.components {
		if p := s.readOnly(m); !m.Live && p != nil {
			return p
		}
	}
	return nil
}

// closeQuietly closes after an error that says more.
func closeQuietly(c io.Closer, err error) error {
	return errors.Join(err, c.Close())
}
