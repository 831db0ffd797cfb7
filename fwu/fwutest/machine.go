// Package fwutest is a machine in memory, to test the service and what is built on it: media that never fail, a boot selection with the bootloader that obeys
// it, the system around, and a firmware creator. Media that lose power or fail are those of package test/sim.
package fwutest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// Selector keeps the boot selection in memory.
type Selector struct {
	fwu.Selection
	Failing int // so many commits fail, as if another program held a lock
}

var _ fwu.Selector = (*Selector)(nil)

// Kind is "test".
func (s *Selector) Kind() string { return "test" }

// Read returns the selection.
func (s *Selector) Read() (fwu.Selection, error) { return s.Selection, nil }

// Commit replaces it, unless it is to fail.
func (s *Selector) Commit(sel fwu.Selection) error {
	if s.Failing > 0 {
		s.Failing--
		return errors.New("locked by another program")
	}
	s.Selection = sel
	return nil
}

// Next is what the bootloader does after a reset: it takes the trial, once, or else the default.
func (s *Selector) Next() fwu.Bank {
	bank := s.Trial
	s.Trial = fwu.NoBank
	if bank == fwu.NoBank {
		bank = s.Default
	}
	return bank
}

// System is the system around the service. A reboot that is asked for is counted, and is the test's to make. The service uses it from any goroutine; a test
// uses the fields while no call runs.
type System struct {
	mu      sync.Mutex
	Reboots int
	Links   map[string]string // component to device
	Started []string          // units, in the order in which they were restarted
	Failing string            // unit that does not start
	Held    []string          // why shutdown was inhibited, and "" each time that it was not any longer
	Free    bool              // there is nobody to inhibit it

	// BeforeLink and BeforeRestart are called first, with the component or the unit. One that waits is a system that takes its time, one that panics ends the
	// service there: see Kill. May be nil.
	BeforeLink, BeforeRestart func(name string)
}

var (
	_ fwu.System    = (*System)(nil)
	_ fwu.Inhibitor = (*System)(nil)
)

// Inhibit notes why.
func (s *System) Inhibit(_ context.Context, why string) (func(), error) {
	note := func(why string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.Held = append(s.Held, why)
	}
	if s.Free {
		return nil, errors.New("nobody answers")
	}
	note(why)
	return func() { note("") }, nil
}

// Reboot counts.
func (s *System) Reboot(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Reboots++
	return nil
}

// Link notes where a link points.
func (s *System) Link(_ context.Context, name, device string) (bool, error) {
	if s.BeforeLink != nil {
		s.BeforeLink(name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.Links[name] != device
	s.Links[name] = device
	return changed, nil
}

// Linked is the device that a component's link points to, empty if there is none.
func (s *System) Linked(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Links[name]
}

// Restart notes the unit.
func (s *System) Restart(_ context.Context, unit string) error {
	if s.BeforeRestart != nil {
		s.BeforeRestart(unit)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Started = append(s.Started, unit)
	if unit == s.Failing {
		return errors.New("did not start")
	}
	return nil
}

// Machine is a device, and the service on it.
type Machine struct {
	*fwu.Service            // nil until the first boot
	Config       fwu.Config // what the service is started with
	Creator      Creator    // whom the components trust
	Slots        map[string]*Medium
	Store        *Medium
	Selector     *Selector
	System       *System
	boots        int
}

// NewMachine makes a machine without components that was not provisioned; bank a is the default. Slots are named after component and bank, "rootfs_a".
func NewMachine() *Machine {
	m := &Machine{Creator: NewCreator("creator"), Slots: map[string]*Medium{}, Store: NewMedium(fwu.StoreSize),
		Selector: &Selector{Selection: fwu.Selection{Default: fwu.BankA}}, System: &System{Links: map[string]string{}}}
	m.Config = fwu.Config{Store: m.Store, Selector: m.Selector, System: m.System, Boot: fwu.Boot{Bank: fwu.BankA}, Release: fwu.ReleaseRecord{}}
	return m
}

// Add adds a component with two slots of size bytes. image is what is active.
func (m *Machine) Add(c fwu.Component, size int64, image []byte) {
	c.Device, c.Keys = Board("example.com", "board"), m.Creator.Anchors()
	for i := range c.Slots {
		id := c.Name + "_" + string(fwu.BankOf(i))
		m.Slots[id] = NewMedium(size)
		c.Slots[i] = m.Slots[id].Slot(id)
	}
	copy(m.Slots[c.Name+"_a"].data, image)
	m.Config.Components = append(m.Config.Components, c)
}

// Boot starts bank, whatever the selector says, and the service in it. Links do not survive it.
func (m *Machine) Boot(bank fwu.Bank) error {
	m.boots++
	m.Config.Boot = fwu.Boot{ID: fmt.Sprint("boot ", m.boots), Bank: bank}
	clear(m.System.Links)
	return m.Restart()
}

// Reset boots what the bootloader takes.
func (m *Machine) Reset() error { return m.Boot(m.Selector.Next()) }

// Restart ends the service and starts it again, in the same boot.
func (m *Machine) Restart() error {
	if err := m.Stop(); err != nil {
		return err
	}
	s, err := fwu.Open(context.Background(), m.Config)
	if err != nil {
		return err
	}
	m.Service = s
	if info := s.System(); len(info.Degraded) > 0 {
		return fmt.Errorf("degraded: %v", info.Why)
	}
	return nil
}

// Stop ends the service.
func (m *Machine) Stop() error {
	s := m.Service
	m.Service = nil
	if s == nil {
		return nil
	}
	return s.Close()
}

// Kill is what becomes of a service that was killed: nothing is made durable, and what it had open is closed. Nothing of it may still run.
func (m *Machine) Kill() {
	m.Service = nil
	for _, s := range m.Slots {
		s.hold(false)
	}
}
