package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/fwu-ab/fwu-ab/dbus"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/systemd"
	godbus "github.com/godbus/dbus/v5"
	"github.com/spf13/cobra"
)

func newDaemonCommand(g *globals) *cobra.Command {
	var idle time.Duration
	var verbose bool
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Run the update service",
		Long: `Run the update service on the message bus. At its start it compares its record with the bank that was booted and with the boot selector, and
brings them into agreement: a trial begins, ends, or is rolled back here.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			d := daemon{g: g, idle: idle, log: logTo(cmd.ErrOrStderr(), level)}
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().DurationVar(&idle, "idle", 0, "leave after this time without a call, a running operation, or a bank that waits for its first start; 0: never")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "log every effect on a medium")
	return cmd
}

// logTo is the log of what runs as a unit.
func logTo(w io.Writer, level slog.Level) *slog.Logger {
	journal := systemd.IsJournal(os.Stderr, os.Getenv("JOURNAL_STREAM"))
	return slog.New(systemd.LogHandler(w, journal, level))
}

type daemon struct {
	g    *globals
	idle time.Duration
	log  *slog.Logger
}

// gcPercent is how much garbage may come on top of what is in use before it is collected. The service has few objects and large buffers that it keeps: to collect often costs nothing
// that can be measured, and an update takes two MiB less than with Go's 100. GOGC in the environment wins.
const gcPercent = 30

// processors is how many threads run Go code at least. One that waits for a medium counts until the runtime notices that it waits; with as many as there are cores the others of
// a transfer would wait with it.
const processors = 4

func (d daemon) run(ctx context.Context) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(processors, runtime.NumCPU()))
	}
	m, err := loadMachine(d.g.root)
	if err != nil {
		return err
	}
	if err := m.owners(); err != nil {
		return fmt.Errorf("others than root can change what this service trusts: %w", err)
	}
	if err := m.lockable(ctx); err != nil {
		d.log.Warn("others than root can keep the service from a file", "err", err)
	}
	cfg, err := m.service(ctx)
	if err != nil {
		return err
	}
	if cfg.Boot, err = m.boot(ctx, cfg.Selector, cfg.Components); err != nil {
		return err
	}
	store, err := m.store(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var service *fwu.Service
	stay := func() bool { return service.Holding() }
	denied := func(n dbus.Denial) {
		d.log.Warn("a caller was denied", fwu.EventKey, string(fwu.EventDenied), "user", n.User, "method", n.Method,
			"error", int64(fwu.NotPermitted), "reason", string(dbus.ReasonDenied), "text", n.Err.Error())
	}
	server := dbus.New(dbus.Options{Version: version(), Idle: d.idle, Stay: stay, Denied: denied, Ready: func() {
		if err := systemd.Ready("serving"); err != nil {
			d.log.Warn("service manager not told of readiness", "err", err)
		}
	}})
	cfg.Hooks = m.hooks(d.log)
	cfg.Store, cfg.Log, cfg.Changed, cfg.Background = store, d.log, server.Changed, true
	// The bus is not needed to reconcile, and operations that are drained need it after ctx ended.
	system := &host{dial: func() (*godbus.Conn, error) { return connect(context.WithoutCancel(ctx), d.g.bus) }, root: m.root, links: m.path("/run/fwu-ab/slots")}
	defer system.close()
	cfg.System = system
	if service, err = fwu.Open(ctx, cfg); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	d.log.Info("started", "version", version(), "bank", string(cfg.Boot.Bank), "evidence", cfg.Boot.Why)
	return d.serve(ctx, server, service)
}

// serve runs server and watchdog until the server ends.
func (d daemon) serve(ctx context.Context, server *dbus.Server, service *fwu.Service) error {
	timeout, err := systemd.WatchdogTimeout(os.Getenv, os.Getpid())
	if err != nil {
		return err
	}
	watched, stop := context.WithCancel(context.WithoutCancel(ctx)) // to the end of what is drained
	var wg sync.WaitGroup
	wg.Go(func() {
		w := systemd.Watchdog{Timeout: timeout, Progress: (&pulse{of: service.Pulse, now: time.Now}).beats}
		if err := w.Run(watched); err != nil && watched.Err() == nil {
			d.log.Warn("watchdog", "err", err)
		}
	})
	err = server.Serve(ctx, d.g.bus, service)
	stop()
	wg.Wait()
	if err := systemd.Stopping("leaving"); err != nil {
		d.log.Warn("service manager not told of the end", "err", err)
	}
	return err
}

// standstill is how long the service may work without a step: longer than any medium takes for one that is not broken.
const standstill = 5 * time.Minute

// pulse tells whether a service is alive.
type pulse struct {
	of   func() (steps uint64, working bool)
	now  func() time.Time
	last uint64
	at   time.Time // of the last step
}

// beats asks. It waits if the service does not even answer, and is not asked again then: the watchdog bites.
func (p *pulse) beats() bool {
	steps, working := p.of()
	if !working || steps != p.last || p.at.IsZero() {
		p.last, p.at = steps, p.now()
	}
	return p.now().Sub(p.at) < standstill
}

func connect(ctx context.Context, address string) (*godbus.Conn, error) {
	var bus *godbus.Conn
	var err error
	switch address {
	case "system":
		bus, err = godbus.ConnectSystemBus(godbus.WithContext(ctx))
	case "session":
		bus, err = godbus.ConnectSessionBus(godbus.WithContext(ctx))
	default:
		bus, err = godbus.Connect(address, godbus.WithContext(ctx))
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the message bus %q: %w", address, err)
	}
	return bus, nil
}

// host is what the service asks of the system.
type host struct {
	dial  func() (*godbus.Conn, error)
	root  string
	links string // directory of the links of live components

	mu  sync.Mutex
	bus *godbus.Conn // nil until it is needed
}

// host connects to the bus when it is asked for the first time, and again if the connection was lost.
func (h *host) host() (systemd.Host, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bus == nil || !h.bus.Connected() {
		bus, err := h.dial()
		if err != nil {
			return systemd.Host{}, err
		}
		h.bus = bus
	}
	return systemd.Host{Bus: h.bus, Root: h.root}, nil
}

func (h *host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bus != nil {
		_ = h.bus.Close() // nothing is sent any more
	}
}

// Reboot asks logind.
func (h *host) Reboot(ctx context.Context) error {
	s, err := h.host()
	if err != nil {
		return fmt.Errorf("%w: %w", systemd.ErrRefused, err)
	}
	return s.Reboot(ctx)
}

// Inhibit asks logind.
func (h *host) Inhibit(ctx context.Context, why string) (release func(), err error) {
	s, err := h.host()
	if err != nil {
		return nil, err
	}
	return s.Inhibit(ctx, why)
}

// Restart asks the service manager.
func (h *host) Restart(ctx context.Context, unit string) error {
	s, err := h.host()
	if err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	return s.Restart(ctx, unit)
}

// Link makes the link of a live component by a rename, so that there is one at any time.
func (h *host) Link(ctx context.Context, name, device string) (changed bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	link := filepath.Join(h.links, name)
	if now, err := os.Readlink(link); err == nil && now == device {
		return false, nil
	}
	if err := os.MkdirAll(h.links, 0o755); err != nil {
		return false, err
	}
	fresh := filepath.Join(h.links, "."+name+".new")
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if err := os.Symlink(device, fresh); err != nil {
		return false, err
	}
	if err := os.Rename(fresh, link); err != nil {
		return false, errors.Join(err, os.Remove(fresh))
	}
	return true, nil
}

var (
	_ fwu.System    = (*host)(nil)
	_ fwu.Inhibitor = (*host)(nil)
)
