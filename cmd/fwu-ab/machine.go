package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fwu-ab/fwu-ab/bootctl"
	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/config"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/power"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/systemd/bootcheck"
)

// machine turns a configuration into what the service is made of. Files of the system are below root; devices are where the configuration says.
type machine struct {
	root   string
	cfg    *config.Config
	finder partition.Finder
	build  bool // a device is provisioned, or an image built: no live component is put into use

	deviceDisk string // in a build, the configuration's disk, which an image stands for
}

func loadMachine(root string) (*machine, error) {
	if root != "" {
		var err error
		if root, err = filepath.Abs(root); err != nil {
			return nil, err
		}
	}
	if info, err := os.Stat(cmp.Or(root, "/")); err != nil {
		return nil, usageError{fmt.Errorf("--root: %w", err)}
	} else if !info.IsDir() {
		return nil, usageError{fmt.Errorf("--root %s: not a directory", root)}
	}
	cfg, err := config.Load(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, hinted(err, "write "+config.AdminFile+"; share/doc/fwu-ab has a complete example")
	}
	if err != nil {
		return nil, err
	}
	return &machine{root: root, cfg: cfg, finder: partition.Finder{Disk: cfg.Disk, LiftForceRO: cfg.LiftForceRO}}, nil
}

// path is where a file of the system lies. Links are followed within the root directory.
func (m *machine) path(name string) string {
	path, err := config.InTree(m.root, name)
	if err != nil { // to open it fails as well, and says so
		return filepath.Join(m.root, name)
	}
	return path
}

// component finds the slots and reads the trust anchors of one component.
func (m *machine) component(ctx context.Context, c config.Component) (fwu.Component, error) {
	out := fwu.Component{ID: c.ID, Name: c.Name, Live: c.Live, Trial: c.Trial, Volatile: c.VolatileStaging, Manifest: c.Manifest, Unit: c.Unit, Device: c.Device, Signatures: c.Signatures}
	out.Device.ID, _ = m.deviceID() // without it, images for one device are not for this one; doctor says why
	for i, spec := range c.Slots {
		slot, err := m.finder.Find(ctx, spec)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		if err != nil { // the service makes this component read-only; the others, and a trial, can do without it
			out.Slots[i] = fwu.MissingSlot{Path: spec, Err: err}
			continue
		}
		slot.Set(partition.Options{Discard: c.Discard, NoReadBack: !c.ReadBack})
		e, err := m.finder.Locate(ctx, spec)
		if err == nil && c.Live && e.Start != 0 && !m.build { // units open it by the path of a link
			err = errors.New("a live component needs a partition with a device node, or a file of its own")
		}
		if err != nil {
			return out, fmt.Errorf("component %s, slot %s, %s: %w", c.Name, fwu.BankOf(i), slot.Info().Path, err)
		}
		out.Slots[i] = slot
		if in, ok := strings.CutPrefix(spec, m.root+"/"); ok && m.build && m.builds() {
			out.Slots[i] = builtSlot{slot, "/" + in}
		}
	}
	keys, err := m.keys(c)
	if err != nil {
		return out, fmt.Errorf("component %s: %w", c.Name, err)
	}
	out.Keys = keys
	out.Anchors = func() (suit.VerifyKeys, error) {
		if err := config.CheckOwners(m.keyPaths(c)...); err != nil {
			return nil, err
		}
		return m.keys(c)
	}
	return out, nil
}

// deviceID is the identifier of this very device, the nil UUID where none is configured.
func (m *machine) deviceID() (suit.UUID, error) {
	if m.cfg.DeviceFile == "" {
		return suit.UUID{}, nil
	}
	f, err := os.Open(m.path(m.cfg.DeviceFile))
	if err != nil {
		return suit.UUID{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return suit.UUID{}, err
	}
	id, err := parseDevice(strings.TrimSpace(string(b)))
	if err != nil {
		return suit.UUID{}, fmt.Errorf("%s: %w", m.cfg.DeviceFile, err)
	}
	return id, nil
}

// parseDevice reads a UUID with or without dashes (machine-id(5)).
func parseDevice(s string) (suit.UUID, error) {
	if len(s) == 32 {
		s = s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
	}
	return suit.ParseUUID(s)
}

// battery is what the battery holds, in mWh: more than anyone asks for where there is none.
func (m *machine) battery() (uint64, error) {
	mWh, ok, err := power.Charge(os.DirFS(m.path("/")))
	if !ok {
		mWh = math.MaxInt64
	}
	return mWh, err
}

// builtFiles are files that are as old as the system: systemd takes the second one for the same purpose (systemd(1), "/usr/lib/clock-epoch").
func builtFiles() []string { return []string{config.ReleaseFile, "/usr/lib/clock-epoch"} }

// time is the latest time that is known to have come: that of the clock, or when this system was built.
func (m *machine) time() time.Time {
	now := time.Now()
	for _, name := range builtFiles() {
		if info, err := os.Stat(m.path(name)); err == nil && info.ModTime().After(now) {
			now = info.ModTime()
		}
	}
	return now
}

// owners returns an error that names everything that others than root can change, of the files that
// decide over installing and running.
func (m *machine) owners() error {
	paths := append(config.Folders(m.root), m.cfg.Report.Files...)
	for _, name := range []string{config.ReleaseFile, m.cfg.DeviceFile, m.cfg.Selector.UBoot.EnvConfig, m.cfg.Selector.UBoot.DefaultEnvironment} {
		if name != "" {
			paths = append(paths, m.path(name))
		}
	}
	for _, c := range m.cfg.Components {
		paths = append(paths, m.keyPaths(c)...)
	}
	checks, err := bootcheck.Find(m.root)
	for _, c := range checks {
		paths = append(paths, c.Path)
	}
	for _, stage := range fwu.HookStages() {
		hooks, hookErr := m.findHooks(stage)
		for _, h := range hooks {
			paths = append(paths, h.Path)
		}
		err = errors.Join(err, hookErr)
	}
	return errors.Join(err, config.CheckOwners(paths...))
}

// lockable returns an error for each slot and store in a file that users other than root can read:
// whoever can read a file can hold a lock on it, and keep the service from it. A boot environment
// in a file has lock files of its own.
func (m *machine) lockable(ctx context.Context) error {
	specs := []string{m.cfg.Store.Device}
	for _, c := range m.cfg.Components {
		specs = append(specs, c.Slots[:]...)
	}
	var errs []error
	seen := map[string]bool{}
	for _, spec := range specs {
		e, err := m.finder.Locate(ctx, spec)
		if err != nil || seen[e.Path] {
			continue // whoever opens it says so
		}
		seen[e.Path] = true
		info, err := os.Stat(e.Path)
		if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o044 != 0 {
			errs = append(errs, fmt.Errorf("%s can be read by users other than root (mode %04o), who can lock it: chmod 600 %s", e.Path, info.Mode().Perm(), e.Path))
		}
	}
	return errors.Join(errs...)
}

// keyPaths lists the files with the trust anchors of a component, and the folders that they lie in.
func (m *machine) keyPaths(c config.Component) []string {
	paths := m.keyFiles(c)
	for _, k := range c.Keys {
		paths = append(paths, m.path(k))
	}
	return paths
}

// keyFiles lists the files with the trust anchors of a component: of directories every *.pub and
// *.pem file.
func (m *machine) keyFiles(c config.Component) []string {
	var files []string
	for _, k := range c.Keys {
		path := m.path(k)
		entries, err := os.ReadDir(path)
		if err != nil {
			files = append(files, path) // a file, or what cannot be read: then the error is better
			continue
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); ext == ".pub" || ext == ".pem" {
				files = append(files, filepath.Join(path, e.Name()))
			}
		}
	}
	return files
}

// keys reads the trust anchors of a component. It is an error if they cannot give as many
// signatures as it requires: no update could ever be installed.
func (m *machine) keys(c config.Component) (suit.VerifyKeys, error) {
	files := m.keyFiles(c)
	if len(files) == 0 {
		if c.Manifest == fwu.None {
			return nil, nil
		}
		return nil, fmt.Errorf("no trust anchor (*.pub, *.pem) in %s", strings.Join(c.Keys, ", "))
	}
	keys, err := suit.LoadKeys(files...)
	if err != nil {
		return nil, err
	}
	signers := map[string]bool{}
	for _, k := range keys {
		name, err := k.Fingerprint()
		if err != nil {
			return nil, err
		}
		if signers[name] = true; k.CA != nil { // it can vouch for any number of keys
			return keys, nil
		}
	}
	if len(signers) < c.Signatures {
		return nil, fmt.Errorf("%d keys in %s, and required-signatures is %d", len(signers), strings.Join(c.Keys, ", "), c.Signatures)
	}
	return keys, nil
}

func (m *machine) components(ctx context.Context) ([]fwu.Component, error) {
	var out []fwu.Component
	var errs []error
	for _, c := range m.cfg.Components {
		fc, err := m.component(ctx, c)
		errs = append(errs, err)
		out = append(out, fc)
	}
	errs = append(errs, m.distinct(ctx))
	return out, errors.Join(errs...)
}

// selector is a boot selector that can tell people what it found.
type selector interface {
	fwu.Selector
	Doctor() []string
	// Look returns the selection. Read returns an error too where none can be committed.
	Look() (fwu.Selection, error)
}

// selector is nil if none is configured: then every component is live.
func (m *machine) selector(ctx context.Context) (selector, error) {
	switch m.cfg.Selector.Type {
	case config.UBootSelector:
		return m.uboot(ctx)
	case config.EFISelector:
		return m.efi(ctx)
	}
	return nil, nil
}

func (m *machine) uboot(ctx context.Context) (selector, error) {
	u := m.cfg.Selector.UBoot
	locations, err := m.environment(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("boot environment: %w", err)
	}
	c := uboot.Config{
		Environment: uboot.Environment{Copies: locations, SingleCopy: u.SingleCopy, Open: m.openMedium(),
			Free: func(l uboot.Location) error { return m.free(context.WithoutCancel(ctx), l) }},
		Scheme:        uboot.Scheme(u.Scheme),
		BankVariables: u.BankVariables,
		Names:         u.Names,
		Locks:         uboot.Locks{Root: m.root, Wait: uboot.DefaultWait},
	}
	if u.DefaultEnvironment != "" {
		text, err := os.ReadFile(m.path(u.DefaultEnvironment))
		if err != nil {
			return nil, fmt.Errorf("default environment: %w", err)
		}
		if c.Default, err = uboot.ParseDefault(text); err != nil {
			return nil, fmt.Errorf("default environment %s: %w", u.DefaultEnvironment, err)
		}
	}
	s, err := uboot.New(c)
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	return guarded{s, func() error { return m.environmentUsable(ctx, locations) }}, nil
}

func (m *machine) openMedium() uboot.Opener {
	if m.cfg.LiftForceRO {
		return uboot.OpenLifting
	}
	return uboot.OpenMedium
}

// environment finds the copies of the boot environment.
func (m *machine) environment(ctx context.Context, u config.UBoot) ([]uboot.Location, error) {
	if u.EnvConfig != "" {
		text, err := os.ReadFile(m.path(u.EnvConfig))
		if err != nil {
			return nil, err
		}
		locations, err := uboot.ParseConfig(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u.EnvConfig, err)
		}
		for i, l := range locations {
			if m.deviceDisk != "" && l.Path == m.deviceDisk {
				locations[i].Path = m.cfg.Disk
			}
		}
		return locations, nil
	}
	var out []uboot.Location
	for _, c := range u.Copies {
		if m.deviceDisk != "" && c.Device == m.deviceDisk {
			c.Device = m.cfg.Disk
		}
		if m.foreign(c.Device) {
			out = append(out, uboot.Location{Path: c.Device, Offset: c.Offset, Size: c.Size})
			continue
		}
		e, err := m.finder.Locate(ctx, c.Device)
		if err != nil {
			return nil, err
		}
		off := c.Offset
		if off < 0 {
			off += e.Size
		}
		if off < 0 || c.Size <= 0 || off > e.Size-c.Size {
			return nil, fmt.Errorf("%d bytes at %d are not inside %s of %d bytes", c.Size, c.Offset, c.Device, e.Size)
		}
		out = append(out, uboot.Location{Path: e.Path, Offset: e.Start + off, Size: c.Size})
	}
	return out, nil
}

// boot looks for the evidence of the booted bank. known may be nil; what the selector's firmware says of the boot is evidence too.
func (m *machine) boot(ctx context.Context, known fwu.Selector, components []fwu.Component) (fwu.Boot, error) {
	r := bootctl.Running{Root: m.root, Names: m.bankNames()}
	for _, c := range components {
		for i, s := range c.Slots {
			if _, missing := s.(fwu.MissingSlot); !c.Live && s != nil && !missing {
				r.Slots[i] = append(r.Slots[i], s.Info())
			}
		}
	}
	if parts, err := m.finder.Partitions(ctx); err == nil { // without a table there are the links of udev
		for _, p := range parts {
			r.Table = append(r.Table, bootctl.Partition{Number: p.Number, Label: p.Label, UUID: p.UUID, Path: p.Path})
		}
	}
	if s, ok := known.(interface{ Booted() bootctl.Evidence }); ok {
		r.More = append(r.More, s.Booted())
	}
	return r.Boot()
}

// bankNames are the names by which rauc.slot= tells the bank: those of BOOT_ORDER where the boot
// script goes by that; nil: A, B, a and b.
func (m *machine) bankNames() map[string]fwu.Bank {
	u := m.cfg.Selector.UBoot
	if m.cfg.Selector.Type != config.UBootSelector || u.Scheme != config.BootOrder {
		return nil
	}
	names := u.Names
	if names == ([2]string{}) {
		names = uboot.BankNames()
	}
	return map[string]fwu.Bank{names[0]: fwu.BankA, names[1]: fwu.BankB}
}

func (m *machine) store(ctx context.Context) (partition.Device, error) {
	d, err := m.finder.OpenDevice(ctx, m.cfg.Store.Device)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return d, nil
}

// service is the configuration of the service, without boot, store and system.
func (m *machine) service(ctx context.Context) (fwu.Config, error) {
	cfg := fwu.Config{Trial: m.cfg.Trial, MaxTrials: m.cfg.MaxTrials, Battery: m.battery, Time: m.time}
	var err error
	if cfg.Components, err = m.components(ctx); err != nil {
		return cfg, err
	}
	selector, err := m.selector(ctx)
	if err != nil {
		return cfg, err
	}
	if selector != nil {
		cfg.Selector = selector
	}
	cfg.Release, err = config.LoadRelease(m.root)
	return cfg, err
}
