package efi

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	"github.com/fwu-ab/fwu-ab/bootctl"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// Selector is the boot selector in the variables of UEFI firmware. Create it with New. It keeps nothing open and remembers nothing.
// It is safe for concurrent use.
type Selector struct {
	config Config
	mu     sync.Mutex
}

var _ fwu.Selector = (*Selector)(nil)

// Config says what is started, and where the variables are.
type Config struct {
	Variables Variables
	Banks     [2]Bank // a and b
	File      string  // of the loader on the partition, as `\EFI\example\linux.efi`
	// Store is the file of that name on the EFI system partition, for firmware that keeps its
	// variables in memory. nil: such firmware is refused.
	Store func(name string) (Store, error)
}

// Bank is what an entry for a bank is made of.
type Bank struct {
	Partition   Partition // with the loader
	CommandLine string    // empty: the loader gets none
}

// maxOption is the longest entry that is made.
const maxOption = 16 << 10

// New checks a configuration. It touches no variable.
func New(c Config) (*Selector, error) {
	switch {
	case c.File == "" || c.File[0] != '\\':
		return nil, fmt.Errorf("loader %q: want a path from the root of its partition, with backslashes", c.File)
	case c.Banks[0].Partition.UUID == c.Banks[1].Partition.UUID:
		return nil, errors.New("the loaders of both banks are on one partition")
	}
	s := &Selector{config: c}
	for i := range c.Banks {
		if n := len(s.wanted(fwu.BankOf(i)).Append(nil)); n > maxOption {
			return nil, fmt.Errorf("a boot entry for bank %s would have %d bytes, %d are supported", fwu.BankOf(i), n, maxOption)
		}
	}
	return s, nil
}

// Kind is "efi".
func (s *Selector) Kind() string { return "efi" }

// wanted is the entry for a bank.
func (s *Selector) wanted(bank fwu.Bank) LoadOption {
	b := s.config.Banks[bank.Index()]
	return LoadOption{Attributes: Active, Description: Description(bank), Path: FilePath(b.Partition, s.config.File), Optional: appendText(nil, b.CommandLine)}
}

// Read returns the selection that Look returns, where one can be committed too.
func (s *Selector) Read() (fwu.Selection, error) {
	store, err := s.usable()
	if err != nil {
		return fwu.Selection{}, err
	}
	st, err := s.lasting(store)
	return st.selection(), err
}

// Look returns the selection that the firmware goes by at the next boot. Where that names no bank,
// Default is fwu.NoBank and the error nil.
func (s *Selector) Look() (fwu.Selection, error) {
	store, err := s.store()
	if err != nil {
		return fwu.Selection{}, err
	}
	st, err := s.lasting(store)
	return st.selection(), err
}

// usable is store, where variables and file can be written.
func (s *Selector) usable() (Store, error) {
	if v, ok := s.config.Variables.(interface{ Writable() error }); ok {
		if err := v.Writable(); err != nil {
			return nil, err
		}
	}
	store, err := s.store()
	if err == nil && store != nil {
		err = store.Check()
	}
	return store, err
}

// Commit makes sel the selection, as fwu.Selector demands. The package comment has the order of its writes.
func (s *Selector) Commit(sel fwu.Selection) error {
	if sel.Default.Index() < 0 || sel.Trial != fwu.NoBank && sel.Trial != sel.Default.Other() {
		return fmt.Errorf("commit of default bank %q with trial %q: not a selection", sel.Default, sel.Trial)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	store, err := s.usable()
	if err != nil {
		return err
	}
	st, err := s.load(s.config.Variables)
	if err != nil {
		return err
	}
	kept, err := s.commit(&st, sel)
	if err == nil {
		s.tidy(&st, kept)
		err = s.persist(store)
	}
	if err != nil {
		return fmt.Errorf("commit of default bank %q with trial %q: %w", sel.Default, sel.Trial, err)
	}
	return nil
}

// commit returns the numbers of the entries that count from now on.
func (s *Selector) commit(st *state, sel fwu.Selection) (kept []uint16, err error) {
	n, err := s.ensure(st, sel.Default, s.proven)
	if err != nil {
		return nil, err
	}
	if !st.settled(n) {
		order := st.newOrder(n)
		if err := s.put(BootOrder, AppendNumbers(nil, order...)); err != nil {
			return nil, err
		}
		st.order = order
	}
	if sel.Trial == fwu.NoBank {
		return []uint16{n}, s.disarm(st)
	}
	t, err := s.ensure(st, sel.Trial, func(*state, entry, LoadOption) bool { return false })
	if err != nil {
		return nil, err
	}
	if !slices.Equal(st.next, []uint16{t}) {
		if err := s.put(BootNext, AppendNumbers(nil, t)); err != nil {
			return nil, err
		}
		st.next = []uint16{t}
	}
	return []uint16{n, t}, nil
}

// disarm deletes a BootNext that is ours. One that is not is what a person chose for once, or the firmware itself.
func (s *Selector) disarm(st *state) error {
	if len(st.next) == 0 || st.entries[st.next[0]].bank == fwu.NoBank {
		return nil
	}
	if err := s.remove(BootNext); err != nil {
		return err
	}
	st.next = nil
	return nil
}

// proven tells whether an entry of the default bank that differs from the wanted one is to stay: the system was started by an entry of ours, so that they are known to work.
// What is new in the wanted one is first tried by a trial.
func (s *Selector) proven(st *state, e entry, wanted LoadOption) bool {
	started := slices.ContainsFunc(st.current, func(n uint16) bool { return st.entries[n].good })
	return started && e.option.intact(wanted, e.bank)
}

// ensure makes sure that there is an entry for the bank, and returns its number. An entry that differs from the wanted one stays if keep says so, else it is replaced in one write.
func (s *Selector) ensure(st *state, bank fwu.Bank, keep func(*state, entry, LoadOption) bool) (uint16, error) {
	wanted := s.wanted(bank)
	var n uint16
	if found := st.ours(bank, wanted); len(found) > 0 {
		e := found[0]
		if e.variable.Attributes == Attributes && (e.option.same(wanted) || keep(st, e, wanted)) {
			return e.number, nil
		}
		n = e.number
	} else {
		free, err := st.free()
		if err != nil {
			return 0, err
		}
		n = free
	}
	v := Variable{Attributes, wanted.Append(nil)}
	if err := s.put(EntryName(n), v.Data); err != nil {
		return 0, err
	}
	st.entries[n] = s.parse(n, v)
	return n, nil
}

// tidy deletes other entries of ours that nothing refers to any more. They are no part of the selection: one that cannot be deleted is shown by Doctor and tried again by the
// next commit.
func (s *Selector) tidy(st *state, kept []uint16) {
	for n, e := range st.entries {
		stale := !e.good || slices.ContainsFunc(kept, func(k uint16) bool { return st.entries[k].bank == e.bank })
		if e.bank == fwu.NoBank || !stale || slices.Contains(kept, n) || slices.Contains(st.order, n) || slices.Contains(st.next, n) || slices.Contains(st.current, n) {
			continue
		}
		_ = s.remove(EntryName(n))
	}
}

// put writes a variable and reads it back.
func (s *Selector) put(name string, data []byte) error {
	want := Variable{Attributes, data}
	if err := s.config.Variables.Write(name, want); err != nil {
		return err
	}
	got, err := s.config.Variables.Read(name)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if !got.equal(want) {
		return fmt.Errorf("read firmware variable %s back: %w", name, fwu.ErrReadBack)
	}
	return nil
}

// remove deletes a variable and makes sure that it is gone.
func (s *Selector) remove(name string) error {
	if err := s.config.Variables.Delete(name); err != nil {
		return err
	}
	switch _, err := s.config.Variables.Read(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("read back: %w", err)
	}
	return fmt.Errorf("firmware variable %s is there after it was deleted: %w", name, fwu.ErrReadBack)
}

// StartedOnTrial tells from the variables alone, without a configuration, whether the running system was started by an entry of a bank that is not the default.
func StartedOnTrial(v Variables) (bool, error) {
	st, err := (&Selector{config: Config{Variables: v}}).load(v)
	if err != nil || len(st.current) == 0 {
		return false, err
	}
	running := st.entries[st.current[0]].bank
	for _, n := range st.order {
		if e := st.entries[n]; e.bank != fwu.NoBank && e.option.Attributes&Active != 0 {
			return running != fwu.NoBank && running != e.bank, nil
		}
	}
	return false, nil
}

// Booted is the evidence of BootCurrent. An entry that is not ours tells nothing: the fallback of the firmware, its shell or a person may have started a bank from it.
func (s *Selector) Booted() bootctl.Evidence {
	out := bootctl.Evidence{Source: "BootCurrent"}
	st, err := s.load(s.config.Variables)
	switch {
	case err != nil:
		out.Text = err.Error()
		return out
	case len(st.current) == 0:
		out.Text = "the firmware does not say"
		return out
	}
	e, exists := st.entries[st.current[0]]
	switch {
	case !exists:
		out.Text = fmt.Sprintf("Boot%04X, which is not there", st.current[0])
	case !e.good:
		out.Text = e.String() + ", which is no entry of ours"
	default:
		out.Text, out.Bank = e.String(), e.bank
	}
	return out
}
