package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
	"github.com/fwu-ab/fwu-ab/config"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/suit"
)

// efi makes the selector in the variables of UEFI firmware: its boot entries are made of the partition table that is there now.
func (m *machine) efi(ctx context.Context) (selector, error) {
	e := m.cfg.Selector.EFI
	c := efi.Config{Variables: m.variables(), File: e.Path, Store: func(name string) (efi.Store, error) { return m.esp(context.WithoutCancel(ctx), name) }}
	for i := range c.Banks {
		bank := fwu.BankOf(i)
		p, err := m.memberPartition(ctx, e.Component, bank)
		if err != nil {
			return nil, fmt.Errorf("boot entry of bank %s: %w", bank, err)
		}
		uuids := map[string]string{}
		for _, name := range e.CommandLine.Components() {
			p, err := m.memberPartition(ctx, name, bank)
			if err != nil {
				return nil, fmt.Errorf("command line of bank %s: %w", bank, err)
			}
			uuids[name] = p.UUID
		}
		if c.Banks[i].Partition, err = bootPartition(p); err != nil {
			return nil, fmt.Errorf("boot entry of bank %s: %w", bank, err)
		}
		c.Banks[i].CommandLine = e.CommandLine.Expand(string(bank), uuids)
	}
	return efi.New(c)
}

func (m *machine) variables() efi.Directory {
	return efi.Directory{Path: m.path(m.cfg.Selector.EFI.Variables)}
}

// esp is the file of variables on the EFI system partition: where the configuration says, else
// where it is.
func (m *machine) esp(ctx context.Context, name string) (efi.Store, error) {
	found := &efi.ESP{Dir: m.path(m.cfg.Selector.EFI.ESP), Name: name}
	if m.cfg.Selector.EFI.ESP == "" {
		var dirs []string
		for _, dir := range config.ESPs() {
			dirs = append(dirs, m.path(dir))
		}
		var err error
		if found, err = found.Find(dirs); err != nil {
			return nil, err
		}
	}
	return found, m.environmentInSlot(ctx, found.Dir)
}

// memberPartition finds the partition that is a component's slot, in the table of the disk that the firmware looks at too.
func (m *machine) memberPartition(ctx context.Context, name string, bank fwu.Bank) (partition.Partition, error) {
	for _, c := range m.cfg.Components {
		if c.Name != name {
			continue
		}
		spec := c.Slots[bank.Index()]
		slot, err := m.finder.Find(ctx, spec)
		if err != nil {
			return partition.Partition{}, fmt.Errorf("component %s: %w", name, err)
		}
		all, err := m.finder.Partitions(ctx)
		if err != nil {
			return partition.Partition{}, fmt.Errorf("component %s: %w", name, err)
		}
		uuid, known := strings.CutPrefix(slot.Info().ID, "partuuid:")
		for _, p := range all {
			if known && p.UUID == uuid {
				return p, nil
			}
		}
		return partition.Partition{}, fmt.Errorf("component %s: %s is no partition in the GUID partition table of the disk, and firmware finds nothing else", name, spec)
	}
	return partition.Partition{}, fmt.Errorf("no component %s", name)
}

// bootPartition counts in sectors, as device paths do.
func bootPartition(p partition.Partition) (efi.Partition, error) {
	uuid, err := suit.ParseUUID(p.UUID)
	if err != nil {
		return efi.Partition{}, err
	}
	sector := int64(p.Sector)
	if p.Start%sector != 0 {
		return efi.Partition{}, fmt.Errorf("partition %d does not begin at a sector", p.Number)
	}
	return efi.Partition{Number: uint32(p.Number), UUID: [16]byte(uuid), Start: uint64(p.Start / sector), Size: uint64(p.Size / sector)}, nil
}

// onFirstBoot is the selector of an image that is built where its firmware, or the device of its environment, is not: the first start of the service on the device makes the running bank the default.
type onFirstBoot struct{ fwu.Selector }

func (onFirstBoot) Commit(fwu.Selection) error { return nil }
