package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/bootctl/uboot/model"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/test/sim"
)

const (
	envSize      = 8 << 10
	envText      = "bootcmd=run distro_bootcmd\nbootdelay=0\nfwu_iface=mmc\nfwu_disk=0\nfwu_part_a=2\nfwu_part_b=3\naltbootcmd=run swap bootcmd\nboot_part=2\n"
	mediumEnv    = "env"
	mediumMemory = "memory"
	mediumStore  = "store"

	// So small that each image has many pieces, and several checkpoints.
	pieceSize          = 16 << 10
	checkpointInterval = 32 << 10
)

// machine is a device: media, a bootloader, and the service as long as there is power.
type machine struct {
	w     *world
	dev   device
	media *sim.Media
	sets  map[string]bool // combinations of images that a client installed, and that of the factory

	boots     int
	booted    fwu.Bank
	bootID    string
	service   *fwu.Service
	store     io.Closer // the medium of its record that the service has open; nil: none to close
	starting  func()    // called before the service is started
	held      map[string]bool
	links     map[string]string
	current   []uint16 // boot entry that the firmware started
	asked     bool     // for a reboot, since the last boot
	automatic int      // reboots that the service asked for on its own, in this trial

	floors    map[string]uint64 // highest that was ever reported
	accepted  map[string]int    // lowest build that may run
	forgotten map[string]bool   // components whose record was lost: their version is that of the release record
	torn      map[string]bool   // components of which the cut left the head of a slot neither plain nor masked nor zero
	storeLost bool
	envLost   bool
	lostTwice bool
}

func mediumOf(name string, bank int) string { return name + "_" + string(fwu.BankOf(bank)) }

// factory makes a device as it leaves the factory: build 0 everywhere in bank a, and a record.
func (w *world) factory(ctx context.Context, dev device, o *sim.Order) (*machine, error) {
	m := w.machine(dev, w.root, o)
	for _, c := range dev.components {
		m.media.Add(mediumOf(c.name, 0), slotSize).Fill(w.images[c.name][0].content)
		m.media.Add(mediumOf(c.name, 1), slotSize)
	}
	m.media.Add(mediumEnv, 2*envSize)
	if dev.stored {
		m.media.Add(mediumMemory, 2*envSize)
	}
	m.media.Add(mediumStore, fwu.StoreSize)
	if dev.disks != nil {
		dev.disks.insert(m.media)
	}
	m.booted = fwu.BankA
	m.sets[m.combination(0, nil)] = true
	for _, c := range dev.components {
		m.accepted[c.name] = 0
	}
	sizes := map[string]int64{}
	for _, c := range dev.components {
		sizes[c.name] = int64(len(w.images[c.name][0].content))
	}
	cfg, err := m.config(ctx)
	if err == nil {
		err = fwu.Provision(ctx, cfg, sizes, false)
	}
	return m, errors.Join(err, m.closeStore())
}

func (w *world) machine(dev device, s sim.State, o *sim.Order) *machine {
	media := s.Media()
	media.Use(o)
	return &machine{w: w, dev: dev, media: media, sets: map[string]bool{}, held: map[string]bool{}, links: map[string]string{},
		floors: map[string]uint64{}, accepted: map[string]int{}, forgotten: map[string]bool{}, torn: map[string]bool{}}
}

// after is the device with what a cut left on its media.
func (m *machine) after(s sim.State, o *sim.Order) *machine {
	n := m.w.machine(m.dev, s, o)
	n.sets = maps.Clone(m.sets)
	return n
}

// handle is a medium that somebody opened.
type handle struct {
	*sim.Medium
	close func()
}

func (h *handle) Close() error {
	h.close()
	return nil
}

// zeroing is a medium that has a command for zeroes, and whose slots are discarded when they are
// erased.
type zeroing struct{ *handle }

func (z zeroing) WriteZeroes(off, n int64) error { return z.Zero(off, n) }

// parallel is a medium that is read while it is written, and has a command for zeroes: as block
// devices are.
type parallel struct{ zeroing }

func (parallel) Parallel() bool { return true }

// as gives a handle the abilities of a device's media.
func (d device) as(h *handle) partition.Device {
	switch d.media {
	case zeroes:
		return zeroing{h}
	case concurrent:
		return parallel{zeroing{h}}
	}
	return h
}

// open is the kernel: what is in use is not opened exclusively.
func (m *machine) open(c component, bank int, mode partition.Mode) (partition.Device, error) {
	name := mediumOf(c.name, bank)
	h := &handle{m.media.Medium(name), func() {}}
	if mode == partition.ReadOnly {
		return m.dev.as(h), nil
	}
	if m.held[name] || !c.live && m.booted.Index() == bank || c.live && m.links[c.name] == name {
		return nil, fmt.Errorf("open %s: %w", name, fwu.ErrSlotBusy)
	}
	m.held[name] = true
	h.close = func() { m.held[name] = false }
	return m.dev.as(h), nil
}

func (m *machine) slot(c component, bank int) fwu.Slot {
	name := mediumOf(c.name, bank)
	open := func(_ context.Context, mode partition.Mode) (partition.Device, error) { return m.open(c, bank, mode) }
	s := partition.NewSlot(fwu.SlotInfo{ID: "uuid-" + name, Path: name, Size: slotSize}, open, nil)
	s.Set(partition.Options{Piece: pieceSize, Discard: m.dev.media == zeroes})
	return s
}

// environment is that of U-Boot as the bootloader has it, and whoever looks from outside.
func (m *machine) environment() uboot.Environment {
	return uboot.Environment{
		Copies: []uboot.Location{{Path: mediumEnv, Size: envSize}, {Path: mediumEnv, Offset: envSize, Size: envSize}},
		Open: func(path string, _ bool) (uboot.Medium, error) {
			return m.media.Medium(path), nil
		},
	}
}

func defaultEnvironment() *uboot.Env {
	e, err := uboot.ParseDefault([]byte(envText))
	if err != nil {
		panic(err)
	}
	return e
}

// selector is that of a system that has the environment.
func (m *machine) selector(environment uboot.Environment) fwu.Selector {
	if m.dev.efi {
		return m.efiSelector()
	}
	s, err := uboot.New(uboot.Config{Environment: environment, Scheme: m.dev.scheme, BankVariables: m.dev.bankVariables(), Default: defaultEnvironment(), Locks: uboot.Locks{Root: "/nonexistent"}})
	if err != nil {
		panic(err)
	}
	return s
}

func (m *machine) config(ctx context.Context) (fwu.Config, error) {
	cfg := fwu.Config{Trial: m.dev.trial, Checkpoint: checkpointInterval, Store: m.media.Medium(mediumStore), Selector: m.selector(m.environment()), System: (*system)(m),
		Boot: fwu.Boot{ID: m.bootID, Bank: m.booted, Why: "booted by the model"}, Release: m.runningRelease()}
	for _, c := range m.dev.components {
		cfg.Components = append(cfg.Components, fwu.Component{ID: c.id, Name: c.name, Live: c.live, Trial: c.trial, Volatile: c.volatile, Manifest: c.manifest,
			Slots: [2]fwu.Slot{m.slot(c, 0), m.slot(c, 1)}, Device: m.w.device, Keys: m.w.keys})
	}
	if m.dev.disks == nil {
		return cfg, nil
	}
	return m.onDisks(ctx, cfg)
}

// closeStore closes the store that config opened.
func (m *machine) closeStore() error {
	if m.store == nil {
		return nil
	}
	err := m.store.Close()
	m.store = nil
	return err
}

// runningRelease is the release record of the booted root image.
func (m *machine) runningRelease() fwu.ReleaseRecord {
	members := m.dev.members()
	return m.dev.release(m.build(members[len(members)-1].name, m.booted.Index()))
}

// system is the machine as the service sees it.
type system machine

func (s *system) Reboot(context.Context) error {
	s.asked = true
	return nil
}

func (s *system) Link(_ context.Context, name, device string) (bool, error) {
	if s.dev.disks != nil {
		device = s.dev.disks.medium(device)
	}
	changed := s.links[name] != device
	s.links[name] = device
	return changed, (*machine)(s).mount()
}

func (s *system) Restart(context.Context, string) error { return nil }

// build is the image that lies whole and plain in a slot, -1 if none does.
func (m *machine) build(name string, bank int) int {
	for _, i := range m.w.images[name] {
		if m.media.Medium(mediumOf(name, bank)).Begins(i.whole) {
			return i.build
		}
	}
	return -1
}

// tornHead tells whether the head in a slot is neither that of an image, plain or masked, nor erased.
func (m *machine) tornHead(name string, bank int) bool {
	d := m.media.Medium(mediumOf(name, bank))
	for _, i := range m.w.images[name] {
		if d.Begins(i.head) || d.Begins(i.masked) {
			return false
		}
	}
	b := make([]byte, fwu.HeadSize)
	m.media.Quiet(func() { _, _ = d.ReadAt(b, 0) })
	return bytes.Count(b, b[:1]) != len(b)
}

// startable tells whether a bootloader would load something from a bank: from its member with the lowest id.
func (m *machine) startable(bank fwu.Bank) bool {
	first := m.dev.members()[0].name
	for _, i := range m.w.images[first] {
		if m.media.Medium(mediumOf(first, bank.Index())).Begins(i.head) {
			return true
		}
	}
	return false
}

// combination names what a bank consists of; with holds those builds.
func (m *machine) combination(bank int, with map[string]int) string {
	var parts []string
	for _, c := range m.dev.members() {
		b, ok := with[c.name]
		if !ok {
			b = m.build(c.name, bank)
		}
		parts = append(parts, fmt.Sprint(c.name, b))
	}
	return strings.Join(parts, "+")
}

var errLoop = errors.New("the machine reboots for ever")

// boot starts the machine, and the service; a reboot that the service asks for on its own is made.
func (m *machine) boot(ctx context.Context) error {
	for range 4 {
		if err := m.bootOnce(); err != nil {
			return err
		}
		if err := m.start(ctx); err != nil {
			return err
		}
		if !m.asked {
			return nil
		}
		allowed := 1
		if m.envLost && m.lostTwice {
			allowed = 2 // the way back into the accepted bank, for each loss of all variables
		}
		if m.automatic++; m.automatic > allowed {
			return fmt.Errorf("automatic reboot number %d in one trial", m.automatic)
		}
		m.media.Settle()
	}
	return errLoop
}

// bootOnce is the bootloader.
func (m *machine) bootOnce() error {
	m.boots++
	m.bootID, m.asked = fmt.Sprint("boot-", m.boots), false
	m.die()
	clear(m.held)
	clear(m.links)
	if err := m.unmount(); err != nil {
		return err
	}
	out, err := m.bootloader()
	if err != nil {
		return err
	}
	if out.Bank == fwu.NoBank {
		return fmt.Errorf("nothing can be booted: bank a is %s, bank b is %s, selection %v", m.combination(0, nil), m.combination(1, nil), m.selection())
	}
	if out.Resets > 1 && !(m.envLost && m.dev.scheme == uboot.BootOrder) { // three attempts with the bank that it begins with
		return fmt.Errorf("%d resets before a bank started", out.Resets)
	}
	m.booted = out.Bank
	if set := m.combination(out.Bank.Index(), nil); !m.sets[set] {
		return fmt.Errorf("bank %s was booted, and it is %s, which nobody installed", out.Bank, set)
	}
	return m.mount()
}

// bootloader starts a bank, or none.
func (m *machine) bootloader() (model.Outcome, error) {
	if m.dev.efi {
		return m.firmware()
	}
	return model.Bootloader{Environment: m.environment(), Builtin: defaultEnvironment(), Scheme: m.dev.scheme, BankVariables: m.dev.bankVariables()}.Boot(m.startable)
}

// start starts the service, in the boot that runs.
func (m *machine) start(ctx context.Context) (err error) {
	m.die()
	clear(m.held)
	if m.starting != nil {
		m.starting()
	}
	cfg, err := m.config(ctx)
	if err != nil {
		return err
	}
	m.service, err = fwu.Open(ctx, cfg)
	return err
}

// die ends the service as a crash does: none of its accesses reaches a medium any more.
func (m *machine) die() {
	m.media.Power(false)
	if m.service != nil {
		_ = m.service.Close() // which finds that all media fail
	}
	_ = m.closeStore()
	m.media.Power(true)
	m.service = nil
}

// off ends the service and the system that runs.
func (m *machine) off() {
	m.die()
	_ = m.unmount()
}

// selection is what the environment says, as seen from outside.
func (m *machine) selection() (sel fwu.Selection) {
	m.media.Quiet(func() { sel, _ = m.selector(m.environment()).Read() })
	return sel
}
