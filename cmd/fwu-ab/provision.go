package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
	"github.com/fwu-ab/fwu-ab/config"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/spf13/cobra"
)

func newProvisionCommand(g *globals) *cobra.Command {
	var bank string
	var sizes []string
	var force bool
	var disk string
	cmd := &cobra.Command{
		Use:   "provision",
		Short: "Write the first record of a device, in a factory or an image build",
		Long: `Write the first record of a device: the versions of the release record, the digests of what the active slots hold, the running bank as default.
In an image build, --root names the tree with the configuration, --disk the image file that stands for the configuration's disk, and --bank the bank that was filled.
Paths in the configuration then lie in the tree, and device nodes are refused: nothing of the machine that builds is written to.
--force overwrites a record that is there, and forgets every rollback floor in it; it also overwrites a file system in the place of the store.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			parsed, err := parseSizes(sizes)
			if err != nil {
				return err
			}
			if bank := fwu.Bank(bank); bank != fwu.NoBank && bank.Index() < 0 {
				return usageError{fmt.Errorf("--bank %s: want a or b", bank)}
			}
			return provision(cmd.Context(), g.root, disk, fwu.Bank(bank), parsed, force)
		},
	}
	cmd.Flags().StringVar(&bank, "bank", "", "bank that holds the system, a or b; default: the one that is running")
	cmd.Flags().StringArrayVar(&sizes, "size", nil, "COMPONENT=BYTES: size of the image in a component's active slot; default: the whole slot")
	cmd.Flags().StringVar(&disk, "disk", "", "disk image that stands for the configuration's disk in an image build")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite a record, or a file system, that is there")
	return cmd
}

func parseSizes(args []string) (map[string]int64, error) {
	sizes := map[string]int64{}
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		n, err := strconv.ParseInt(value, 10, 64)
		if !ok || err != nil || n <= 0 {
			return nil, usageError{fmt.Errorf("--size %s: want COMPONENT=BYTES", a)}
		}
		sizes[name] = n
	}
	return sizes, nil
}

func provision(ctx context.Context, root, disk string, bank fwu.Bank, sizes map[string]int64, force bool) (err error) {
	m, err := loadMachine(root)
	if err != nil {
		return err
	}
	m.build = true
	switch {
	case m.builds():
		if err := m.forBuild(disk); err != nil {
			return err
		}
		m.finder.Disk = m.cfg.Disk
	case disk != "":
		return usageError{errors.New("--disk is for an image build, with --root")}
	}
	cfg, err := m.service(ctx)
	if err != nil {
		return err
	}
	if cfg.Boot.Bank, err = m.provisionBank(ctx, cfg, bank); err != nil {
		return err
	}
	if cfg.Selector, err = m.atBuild(ctx, cfg.Selector); err != nil {
		return err
	}
	if err := checkSizes(cfg, sizes); err != nil {
		return err
	}
	if err := m.storeIsFree(ctx, force); err != nil {
		return err
	}
	store, err := m.store(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	cfg.Store = store
	err = fwu.Provision(ctx, cfg, sizes, force)
	if errors.Is(err, fwu.ErrProvisioned) {
		return hinted(err, "--force overwrites it, and forgets every rollback floor in it")
	}
	return err
}

// checkSizes refuses sizes of components that do not exist, and those that the active slot cannot
// hold.
func checkSizes(cfg fwu.Config, sizes map[string]int64) error {
	var errs []error
	for name, size := range sizes {
		i := slices.IndexFunc(cfg.Components, func(c fwu.Component) bool { return c.Name == name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("--size %s=%d: no component of this name is configured", name, size))
			continue
		}
		active := max(0, cfg.Boot.Bank.Index())
		if info := cfg.Components[i].Slots[active].Info(); size > info.Size {
			errs = append(errs, fmt.Errorf("--size %s=%d: the slot %s has %d bytes", name, size, info.Path, info.Size))
		}
	}
	if len(errs) > 0 {
		return usageError{errors.Join(errs...)}
	}
	return nil
}

// storeIsFree refuses a place for the store that has a file system, or another header that a
// bootloader or the kernel knows.
func (m *machine) storeIsFree(ctx context.Context, force bool) error {
	e, err := m.finder.Locate(ctx, m.cfg.Store.Device)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	known, err := partition.HasHeader(e)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if known && !force {
		return hinted(fmt.Errorf("store %s (%s): a file system or another known header is there, which the record would destroy", m.cfg.Store.Device, e.Path),
			"correct store.device; --force overwrites it")
	}
	return nil
}

// atBuild is the selector for provisioning. Where --root names a tree that is not the running system, nothing is written that is not in the disk image: a device that the
// configuration names is that of the device to be, and on this machine it may be another one's.
func (m *machine) atBuild(ctx context.Context, s fwu.Selector) (fwu.Selector, error) {
	if !m.builds() {
		return s, nil
	}
	switch m.cfg.Selector.Type {
	case config.EFISelector:
		if errors.Is(m.variables().Check(), efi.ErrNoVariables) {
			return onFirstBoot{s}, nil
		}
	case config.UBootSelector:
		locations, err := m.environment(ctx, m.cfg.Selector.UBoot)
		if err != nil {
			return nil, err
		}
		for _, l := range locations {
			if m.foreign(l.Path) {
				return onFirstBoot{s}, nil
			}
		}
	}
	return s, nil
}

// provisionBank is the bank that is running. The one that was given counts where that cannot be known, and must not be another: its slots would be taken for the
// running system's, and those of the running one overwritten.
func (m *machine) provisionBank(ctx context.Context, cfg fwu.Config, given fwu.Bank) (fwu.Bank, error) {
	if cfg.Selector == nil {
		return given, nil
	}
	boot, err := m.boot(ctx, cfg.Selector, cfg.Components)
	if err == nil && boot.Bank == fwu.NoBank {
		err = fmt.Errorf("which bank is running is not known: %s", boot.Why)
	}
	switch {
	case err != nil && given != fwu.NoBank:
		return given, nil
	case err != nil:
		return given, hinted(err, "--bank says it")
	case given != fwu.NoBank && given != boot.Bank:
		return given, fmt.Errorf("--bank %s, but %s", given, boot.Why)
	}
	return boot.Bank, nil
}

func newResetCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "reset",
		Short: "Forget which images failed their trials, so that they may be tried again",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			m, err := loadMachine(g.root)
			if err != nil {
				return err
			}
			store, err := m.store(cmd.Context())
			if errors.Is(err, fwu.ErrSlotBusy) {
				return hinted(err, "stop the service first: systemctl stop fwu-ab.service")
			}
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			return fwu.ForgetFailures(store)
		},
	}
}
