package fwu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot/model"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
)

// No state is a dead end. Each combination of record, running bank, selection, boot, heads of the
// other bank, bootloader and client is made on media in memory. From there a client that knows the
// API and nothing else brings the device to a state in which an update succeeds.

const (
	memberSize = 144 << 10 // of a slot
	imageSize  = 9000
)

// firmware is the image of one member. Its head is one that Bootable knows.
func firmware(member string, version int) []byte {
	b := randomImage(uint64(100*len(member)+version), imageSize)
	copy(b, "hsqs")
	return b
}

// photo has the content of all media at some moment, and the boot in which that was.
type photo struct {
	media map[string][]byte
	boot  string
	bank  fwu.Bank // that ran
	trial bool
	pairs map[string]bool // the combinations of images that were installed together
}

func members() []string { return []string{"kernel", "rootfs"} }

// board is a device whose slots, store and bootloader the test rules.
type board struct {
	*fwutest.Machine
	ctx    context.Context
	pairs  map[string]bool
	loader loader
	uboot  *model.Bootloader // instead of loader
	boots  int

	mu      sync.Mutex // the service tries again by itself
	wrong   []string   // what must never happen, and did
	blind   map[string]bool
	running fwu.Bank
}

func (b *board) never(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
}

func (b *board) setBlind(id string, blind bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blind[id] = blind
}

func (b *board) isBlind(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.blind[id]
}

func (b *board) setRunning(bank fwu.Bank) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = bank
}

func (b *board) runs(bank fwu.Bank) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running == bank
}

// loader is a kind of bootloader.
type loader struct {
	name     string
	fallback bool     // it starts the other bank if the chosen one cannot be loaded
	refuses  fwu.Bank // a bank whose heads are whole, and that does not start
}

func newBoard(ctx context.Context, trial bool) (*board, error) {
	b := &board{Machine: fwutest.NewMachine(), ctx: ctx, pairs: map[string]bool{}, blind: map[string]bool{}}
	b.Config.Trial = trial
	for i, name := range members() {
		b.Add(fwu.Component{ID: fwu.ID(i), Name: name, Manifest: fwu.Detached}, memberSize, firmware(name, 1))
		b.Config.Release[name] = fwu.Release{Version: fwu.Version{Major: 1}, Sequence: 1}
	}
	b.pairs[b.pair(fwu.BankA)] = true
	for id, m := range b.Slots {
		bank := fwu.Bank(id[len(id)-1:])
		m.OnWrite = func(off int64) {
			if b.runs(bank) {
				b.never("the running bank was written to")
			}
			if off == 0 {
				b.setBlind(id, false)
			}
		}
		m.OnRead = func(off int64, _ int) error {
			if off < fwu.HeadSize && b.isBlind(id) {
				return errors.New("input/output error")
			}
			return nil
		}
	}
	return b, nil
}

// pair names the content of a bank's members.
func (b *board) pair(bank fwu.Bank) string {
	var out []string
	for _, name := range members() {
		found := "?"
		for v := 1; v < 6; v++ {
			if bytes.Equal(b.Slots[name+"_"+string(bank)].Bytes(imageSize), firmware(name, v)) {
				found = fmt.Sprint(v)
			}
		}
		out = append(out, found)
	}
	return strings.Join(out, "+")
}

func (b *board) startable(bank fwu.Bank) bool {
	for _, name := range members() {
		if b.isBlind(name + "_" + string(bank)) {
			return false
		}
	}
	return bank != b.loader.refuses && !strings.Contains(b.pair(bank), "?")
}

var errNothingBoots = errors.New("nothing boots")

// reset is the bootloader: a trial that is armed, once; the default; where there is none, what can
// be started.
func (b *board) reset() error {
	if err := b.Stop(); err != nil {
		return err
	}
	b.boots++
	if b.uboot != nil {
		out, err := b.uboot.Boot(b.startable)
		if err == nil && out.Bank == fwu.NoBank {
			err = errNothingBoots
		}
		if err != nil {
			return err
		}
		return b.run(fwu.Boot{ID: fmt.Sprint("reset ", b.boots), Bank: out.Bank})
	}
	var order []fwu.Bank
	if trial := b.Selector.Trial; trial != fwu.NoBank {
		order = append(order, trial)
	}
	b.Selector.Trial = fwu.NoBank
	switch def := b.Selector.Default; {
	case def == fwu.NoBank:
		order = append(order, fwu.BankA, fwu.BankB)
	case b.loader.fallback:
		order = append(order, def, def.Other())
	default:
		order = append(order, def)
	}
	for _, bank := range order {
		if b.startable(bank) {
			return b.run(fwu.Boot{ID: fmt.Sprint("reset ", b.boots), Bank: bank})
		}
	}
	return errNothingBoots
}

// run starts the service in a boot.
func (b *board) run(boot fwu.Boot) (err error) {
	if p := b.pair(boot.Bank); !b.pairs[p] {
		b.never("bank %s was booted, and it is %s, which nobody installed", boot.Bank, p)
	}
	b.setRunning(boot.Bank)
	b.Config.Boot, b.System.Reboots = boot, 0
	clear(b.System.Links)
	b.Service, err = fwu.Open(b.ctx, b.Config)
	if err == nil {
		err = b.foreseen()
	}
	return err
}

// update writes both members, and installs them.
// foreseen compares the state of the service with the one that is foreseen of its record.
func (b *board) foreseen() error {
	var want fwu.Reason
	if d := b.Service.System().Degraded; len(d) > 0 {
		want = d[0]
	}
	report, err := fwu.InspectStore(b.Config.Store)
	if err == nil {
		err = report.Refusal(b.ctx, b.Config)
	}
	if got := fwu.ReasonOf(err); got != want || (err == nil) != (want == "") {
		return fmt.Errorf("the service has %q, and %q was foreseen: %v", want, got, err)
	}
	return nil
}

func (b *board) update(version int, names ...string) error {
	for i, name := range members() {
		if !slices.Contains(names, name) {
			continue
		}
		image := firmware(name, version)
		v := fwu.Version{Major: uint8(version)}
		m, err := b.Creator.Manifest(fwutest.Spec(name, image, v, uint64(version)))
		if err != nil {
			return err
		}
		if err := b.Start(b.ctx, fwu.ID(i), m); err != nil {
			return err
		}
		if _, err := b.WriteFrom(b.ctx, fwu.ID(i), 0, bytes.NewReader(image), 0); err != nil {
			return err
		}
		if err := b.Finish(b.ctx, fwu.ID(i)); err != nil {
			return err
		}
	}
	return nil
}

func (b *board) install() error {
	if _, err := b.Install(b.ctx); err != nil {
		return err
	}
	b.pairs[b.pair(b.Config.Boot.Bank.Other())] = true
	return nil
}

func (b *board) states() (out []fwu.State, err error) {
	for i := range members() {
		info, err := b.Query(b.ctx, fwu.ID(i))
		if err != nil {
			return nil, err
		}
		out = append(out, info.State)
	}
	return out, nil
}

func (b *board) photo() (photo, error) {
	if err := b.Stop(); err != nil {
		return photo{}, err
	}
	p := photo{media: map[string][]byte{"store": b.Store.Bytes(fwu.StoreSize)}, boot: b.Config.Boot.ID, bank: b.Config.Boot.Bank, trial: b.Config.Trial, pairs: maps.Clone(b.pairs)}
	for id, m := range b.Slots {
		p.media[id] = m.Bytes(memberSize)
	}
	return p, nil
}

// develop makes a board of a photo.
func (p photo) develop(ctx context.Context) (*board, error) {
	b, err := newBoard(ctx, p.trial)
	if err != nil {
		return nil, err
	}
	b.pairs = maps.Clone(p.pairs)
	for id, m := range b.Slots {
		if _, err := m.WriteAt(p.media[id], 0); err != nil {
			return nil, err
		}
	}
	_, err = b.Store.WriteAt(p.media["store"], 0)
	return b, err
}

// records are photos of a device in every state that a record can have, or in those that are named.
func records(t *testing.T, named ...string) map[string]photo {
	ctx := t.Context()
	type act func(b *board) error
	begin := func(b *board) error {
		sizes := map[string]int64{}
		for _, name := range members() {
			sizes[name] = imageSize
		}
		b.Selector.Selection = fwu.Selection{Default: fwu.BankA}
		if err := fwu.Provision(ctx, b.Config, sizes, false); err != nil {
			return err
		}
		b.loader.fallback = true
		return b.reset()
	}
	write := func(b *board) error { return b.update(2, members()...) }
	part := func(b *board) error { return b.update(2, "rootfs") }
	install := func(b *board) error { return b.install() }
	reset := func(b *board) error { return b.reset() }
	accept := func(b *board) error { return b.Accept(ctx) }
	reject := func(r fwu.Reason) act {
		return func(b *board) error { _, err := b.Reject(ctx, fwu.Rejection{Reason: r}); return err }
	}
	clean := func(b *board) error { return errors.Join(b.Clean(ctx, 0), b.Clean(ctx, 1)) }
	cancel := func(b *board) error { return errors.Join(b.Cancel(ctx, 0), b.Cancel(ctx, 1)) }
	start := func(b *board) error {
		m, err := b.Creator.Manifest(fwutest.Spec("rootfs", firmware("rootfs", 3), fwu.Version{Major: 3}, 3))
		return errors.Join(err, b.Start(ctx, 1, m))
	}
	edit := func(f func(r, trial map[string]any)) act {
		return func(b *board) error {
			if err := b.Stop(); err != nil {
				return err
			}
			return fwu.EditRecord(b.Store, func(r map[string]any) {
				trial, _ := r["trial"].(map[string]any)
				f(r, trial)
			})
		}
	}
	trialHas := func(name string, v any) act {
		set := edit(func(_, trial map[string]any) { trial[name] = v })
		return func(b *board) error {
			if st, err := b.states(); err != nil || !slices.Contains([]fwu.State{fwu.Staged, fwu.Trial, fwu.Rejected}, st[1]) {
				return errors.Join(err, fwu.BadState)
			}
			return set(b)
		}
	}
	lose := func(b *board) error {
		if err := b.Stop(); err != nil {
			return err
		}
		_, err := b.Store.WriteAt(make([]byte, fwu.StoreSize), 0)
		return err
	}
	asked := edit(func(r, trial map[string]any) { trial["rebooted"], trial["asked"] = true, r["boot"] })
	onTrial := []act{write, install, reset}
	carried := []act{part, install, reset}
	then := func(before []act, more ...act) []act { return append(slices.Clone(before), more...) }
	out := map[string]photo{}
	for name, acts := range map[string][]act{
		"READY":                          nil,
		"READY in b":                     then(onTrial, accept, clean),
		"UPDATED":                        then(onTrial, accept),
		"UPDATED, of one member":         then(carried, accept),
		"WRITING":                        {start},
		"CANDIDATE":                      {write},
		"CANDIDATE in b":                 then(onTrial, accept, clean, func(b *board) error { return b.update(3, members()...) }),
		"FAILED":                         {write, cancel},
		"STAGED":                         {write, install},
		"STAGED, one carried over":       {part, install},
		"STAGED, being armed":            {write, install, trialHas("arming", true)},
		"STAGED, rejecting":              {write, install, trialHas("rejecting", true)},
		"TRIAL":                          onTrial,
		"TRIAL, one carried over":        carried,
		"TRIAL in a":                     then(onTrial, accept, clean, func(b *board) error { return b.update(3, members()...) }, install, reset),
		"ACCEPTING":                      then(onTrial, trialHas("accepting", true)),
		"REJECTED by a client":           then(onTrial, reject(fwu.ReasonRejected)),
		"REJECTED by a check":            then(onTrial, reject(fwu.ReasonTrialCheck)),
		"REJECTED, one carried over":     then(carried, reject(fwu.ReasonTrialCheck)),
		"REJECTED, a reboot was asked":   then(onTrial, reject(fwu.ReasonTrialCheck), asked),
		"REJECTED, a reboot led back":    then(onTrial, reject(fwu.ReasonTrialCheck), trialHas("rebooted", true)),
		"REJECTED by a client, led back": then(onTrial, reject(fwu.ReasonRejected), trialHas("rebooted", true)),
		"kept":                           then(onTrial, reject(fwu.ReasonTrialCheck), trialHas("keeping", true)),
		"kept, one carried over":         then(carried, reject(fwu.ReasonTrialCheck), trialHas("keeping", true)),
		"return asked":                   then(onTrial, accept, edit(func(r, _ map[string]any) { r["return"] = r["boot"] })),
		"return led back":                then(onTrial, accept, edit(func(r, _ map[string]any) { r["return"] = "before" })),
		"no record":                      {lose},
		"no record, two systems":         then(onTrial, accept, lose),
	} {
		for _, trial := range []bool{true, false} {
			if len(named) > 0 && !(trial && slices.Contains(named, name)) {
				continue
			}
			b, err := newBoard(ctx, trial)
			if err == nil {
				err = begin(b)
			}
			possible := true
			for _, a := range acts {
				if err == nil {
					err = a(b)
				}
				if !trial && errors.Is(err, fwu.BadState) {
					possible, err = false, nil // there is no TRIAL
					break
				}
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !possible {
				continue
			}
			p, err := b.photo()
			if err != nil {
				t.Fatal(err)
			}
			if !trial {
				name += ", no trial"
			}
			out[name] = p
		}
	}
	return out
}

// combination is where a device starts from.
type combination struct {
	record string
	booted fwu.Bank
	sel    fwu.Selection
	same   bool   // the service was restarted, not the system
	other  string // what became of the bank that does not run
	loader loader
	reject bool // the client rejects what is on trial
}

func (c combination) String() string {
	return fmt.Sprintf("%s; bank %s runs, default %q, armed %q, same boot %v, other bank %s, bootloader %s, client rejects %v",
		c.record, c.booted, c.sel.Default, c.sel.Trial, c.same, c.other, c.loader.name, c.reject)
}

// combinations calls f with all of them.
func combinations(records map[string]photo, f func(combination)) {
	banks := []fwu.Bank{fwu.NoBank, fwu.BankA, fwu.BankB}
	for _, name := range slices.Sorted(maps.Keys(records)) {
		for _, booted := range banks[1:] {
			for _, def := range banks {
				for _, armed := range banks {
					if armed == def && armed != fwu.NoBank {
						continue // no selector says that
					}
					for _, other := range []string{"as it is", "dead", "half dead", "unreadable"} {
						for n := range 8 {
							c := combination{name, booted, fwu.Selection{Default: def, Trial: armed}, n&1 != 0, other, loader{name: "falls back", fallback: true}, n&2 != 0}
							if n&4 != 0 {
								if c.loader = (loader{"does not start the other bank", true, booted.Other()}); other != "as it is" {
									c.loader = loader{name: "does not fall back"}
								}
							}
							f(c)
						}
					}
				}
			}
		}
	}
}

// set makes the device; false if no bootloader can have started that bank.
func (c combination) set(ctx context.Context, p photo) (*board, bool, error) {
	b, err := p.develop(ctx)
	if err != nil {
		return nil, false, err
	}
	b.loader = c.loader
	if !b.startable(c.booted) || c.same && c.booted != p.bank {
		return nil, false, nil
	}
	other := c.booted.Other()
	hurt := members()
	if c.other == "half dead" {
		hurt = hurt[1:]
	}
	for _, name := range hurt {
		id := name + "_" + string(other)
		switch c.other {
		case "dead", "half dead":
			if _, err := b.Slots[id].WriteAt(make([]byte, fwu.HeadSize), 0); err != nil {
				return nil, false, err
			}
		case "unreadable":
			b.setBlind(id, true)
		}
	}
	b.Selector.Selection = c.sel
	return b, true, nil
}

// agent is a client that knows the API, and makes the calls that the states ask for.
type agent struct {
	*board
	reject bool
	tried  bool // a reboot, for a service that answers queries only
	steps  []string
	auto   int
}

func (a *agent) note(format string, args ...any) {
	a.steps = append(a.steps, fmt.Sprintf(format, args...))
}

// ready brings the device to a state in which an update can begin.
func (a *agent) ready() error {
	for range 30 {
		states, err := a.states()
		if err != nil {
			return err
		}
		sys := a.Service.System()
		a.note("bank %s runs, default %q, armed %q: %v, queries only: %v", sys.Booted, sys.Default, sys.Trial, states, sys.Degraded)
		reboot := false
		switch {
		case a.Machine.System.Reboots > 0:
			a.auto++
			a.note("the service asks for a reboot")
			a.tried, reboot = true, true
		case len(sys.Degraded) > 0 && !a.tried:
			a.tried, reboot = true, true
		case len(sys.Degraded) > 0:
			a.note("accept, to keep this bank")
			err = a.Accept(a.ctx)
		case slices.Contains(states, fwu.Staged), slices.Contains(states, fwu.Rejected):
			reboot = true
		case slices.Contains(states, fwu.Trial) && a.reject:
			var st fwu.Status
			st, err = a.Reject(a.ctx, fwu.Rejection{})
			a.note("reject: %v", st)
			reboot = st == fwu.SuccessReboot
		case slices.Contains(states, fwu.Trial):
			a.note("accept")
			err = a.Accept(a.ctx)
		default:
			done := true
			for i, st := range states {
				if st == fwu.Writing || st == fwu.Candidate {
					err = errors.Join(err, a.Cancel(a.ctx, fwu.ID(i)))
				}
				done = done && st == fwu.Ready
			}
			for i, st := range states {
				if st != fwu.Ready {
					err = errors.Join(err, a.Clean(a.ctx, fwu.ID(i)))
				}
			}
			if done {
				return err
			}
		}
		if reboot && err == nil {
			a.note("reboot")
			err = a.reset()
		}
		if err != nil {
			return err
		}
	}
	return errors.New("it goes on for ever")
}

// recover brings the device to an update that succeeds.
func (a *agent) recover(boot fwu.Boot) error {
	if err := a.run(boot); err != nil {
		return err
	}
	if err := a.ready(); err != nil {
		return err
	}
	if a.boots > 3 {
		return fmt.Errorf("%d boots", a.boots)
	}
	if a.auto > 1 {
		return fmt.Errorf("the service asked for %d reboots", a.auto)
	}
	a.reject = false
	a.loader.refuses = fwu.NoBank // what is written now is whole
	a.note("update")
	if err := errors.Join(a.update(5, members()...), a.install(), a.reset()); err != nil {
		return err
	}
	if err := a.ready(); err != nil {
		return err
	}
	if p := a.pair(a.Config.Boot.Bank); p != "5+5" {
		return fmt.Errorf("%s runs after the update", p)
	}
	return nil
}

// broken tells that a reset leads nowhere, and that this is not our doing: the bootloader does not
// fall back, and the default bank was lost, or cannot be read.
func (c combination) broken(b *board) bool {
	return !c.loader.fallback && (b.Selector.Selection.Default == c.sel.Default || c.other == "unreadable")
}

// sampled is how many combinations there are to one that is tried: 1 with FWUAB_CRASH=full, which
// takes minutes. FWUAB_SAMPLE selects which.
func sampled(t *testing.T) (every, sample int) {
	if os.Getenv("FWUAB_CRASH") == "full" {
		return 1, 0
	}
	if text := os.Getenv("FWUAB_SAMPLE"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("FWUAB_SAMPLE: %v", err)
		}
		sample = n
	}
	return 31, sample
}

func TestNoStateIsADeadEnd(t *testing.T) {
	all := records(t)
	tried, impossible, dark, n := 0, 0, 0, 0
	every, sample := sampled(t)
	combinations(all, func(c combination) {
		if n++; n%every != sample%every {
			return
		}
		p := all[c.record]
		b, ok, err := c.set(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			impossible++
			return
		}
		tried++
		boot := fwu.Boot{ID: "another", Bank: c.booted}
		if c.same {
			boot.ID = p.boot
		}
		a := &agent{board: b, reject: c.reject}
		err = a.recover(boot)
		if errors.Is(err, errNothingBoots) && c.broken(b) {
			dark++
			err = nil
		}
		if len(b.wrong) > 0 {
			err = errors.Join(err, errors.New(b.wrong[0]))
		}
		if err != nil {
			t.Errorf("%s: %v\n\t%s", c, err, strings.Join(a.steps, "\n\t"))
		}
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%d combinations of %d records; %d more cannot come about; in %d nothing boots, as the bootloader does not fall back from a lost bank", tried, len(all), impossible, dark)
}
