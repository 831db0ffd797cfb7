package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/test/fault"
	"github.com/fwu-ab/fwu-ab/test/sim"
)

// disks are block devices of this machine's kernel, one for each medium of a machine. One machine
// at a time has them.
type disks struct {
	byMedium map[string]*fault.Disk
	used     map[string]bool // media that the running system uses
}

func newDisks(t *testing.T) *disks {
	t.Helper()
	m := sim.New()
	for _, name := range []string{"boot", "root", "app"} {
		m.Add(mediumOf(name, 0), slotSize)
		m.Add(mediumOf(name, 1), slotSize)
	}
	m.Add(mediumEnv, 2*envSize)
	m.Add(mediumStore, fwu.StoreSize)
	var media []fault.Medium
	for _, name := range m.Names() {
		media = append(media, m.Medium(name))
	}
	d := &disks{byMedium: map[string]*fault.Disk{}, used: map[string]bool{}}
	for i, disk := range fault.NewDisks(t, media...) {
		d.byMedium[m.Names()[i]] = disk
	}
	return d
}

// insert gives the disks the media of a machine.
func (d *disks) insert(m *sim.Media) {
	for _, name := range m.Names() {
		d.byMedium[name].Insert(m.Medium(name))
	}
}

// medium is the one of the disk with that device.
func (d *disks) medium(device string) string {
	for name, disk := range d.byMedium {
		if disk.Path == device {
			return name
		}
	}
	panic("no disk has the device " + device)
}

// onDisks has the service find everything as the program does: slots by partition.Finder, the
// record as a device, and the environment of U-Boot on a block device.
func (m *machine) onDisks(ctx context.Context, cfg fwu.Config) (fwu.Config, error) {
	path := func(medium string) string { return m.dev.disks.byMedium[medium].Path }
	for i, c := range m.dev.components {
		for bank := range 2 {
			s, err := partition.Finder{}.Find(ctx, path(mediumOf(c.name, bank)))
			if err != nil {
				return cfg, err
			}
			s.Set(partition.Options{Piece: pieceSize, Discard: m.dev.media == zeroes})
			cfg.Components[i].Slots[bank] = s
		}
	}
	store, err := partition.Finder{}.OpenDevice(ctx, path(mediumStore))
	if err != nil {
		return cfg, err
	}
	cfg.Store, m.store = store, store
	env := m.environment()
	env.Open = uboot.OpenMedium
	for i := range env.Copies {
		env.Copies[i].Path = path(mediumEnv)
	}
	cfg.Selector = m.selector(env)
	return cfg, nil
}

// mount has the kernel refuse writes to the media that the running system uses, as it does for file
// systems that are mounted read-only: the slots of the bank, and those that links lead to.
func (m *machine) mount() error {
	if m.dev.disks == nil {
		return nil
	}
	used := map[string]bool{}
	for _, c := range m.dev.members() {
		used[mediumOf(c.name, m.booted.Index())] = true
	}
	for _, medium := range m.links {
		used[medium] = true
	}
	return m.dev.disks.use(used)
}

func (m *machine) unmount() error {
	if m.dev.disks == nil {
		return nil
	}
	return m.dev.disks.use(nil)
}

// use makes those disks read-only, and all others writable.
func (d *disks) use(media map[string]bool) error {
	for medium, disk := range d.byMedium {
		if d.used[medium] == media[medium] {
			continue
		}
		f, err := os.Open(disk.Path)
		if err != nil {
			return err
		}
		ro := 0
		if media[medium] {
			ro = 1
		}
		if err := errors.Join(unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, ro), f.Close()); err != nil {
			return fmt.Errorf("make %s read-only: %w", medium, err)
		}
		d.used[medium] = media[medium]
	}
	return nil
}

// onKernel begins the name of each story on disks of the kernel.
const onKernel = "kernel-"

// kernelStories are the stories on machines with U-Boot. Slots are discarded when they are erased
// where those of the simulated media are.
func kernelStories(d *disks) []story {
	var out []story
	for _, st := range stories() {
		if !st.dev.efi && st.dev.media != concurrent {
			st.name, st.dev.disks = onKernel+st.name, d
			out = append(out, st)
		}
	}
	return out
}

// kernelErrors is how many errors there are in a run.
func kernelErrors() int {
	switch {
	case whole():
		return 2400
	case os.Getenv("FWUAB_CRASH") == "deep":
		return 720
	case raced, testing.Short():
		return 15
	}
	return 75
}

// someMishaps chooses errors of a story by a number that decides about all of them: each flaw in
// turn, and then any access of its kind.
func someMishaps(st story, accesses []access, r *rand.Rand, flaw, n int) []mishap {
	var out []mishap
	for len(out) < n {
		f := flaws()[flaw%len(flaws())]
		flaw++
		var all []access
		for _, a := range accesses {
			if a.Kind == f.kind {
				all = append(all, a)
			}
		}
		if len(all) == 0 {
			continue
		}
		out = append(out, mishap{st, all[r.IntN(len(all))], f, then(r.IntN(3)), policy(r.IntN(2))})
	}
	return out
}

// simulated is the story without the kernel, on media with the commands that it uses.
func (st story) simulated() story {
	st.dev.disks = nil
	if st.dev.media == plain {
		st.dev.media = concurrent
	}
	return st
}

// simulated is the mishap whose end has to be the same without the kernel. ok is false where there
// is none: the kernel changes the fault into another one, or makes other accesses to that place.
func (h mishap) simulated(kernel, simulated tally) (_ mishap, ok bool) {
	switch h.flaw.name {
	case "read-eof": // the kernel reads the rest
		return h, false
	case "write-short": // the kernel takes it for a whole one
		h.flaw = flawNamed("write-half-lost")
	}
	if kernel[h.access.Access] != simulated[h.access.Access] {
		return h, false
	}
	h.story = h.story.simulated()
	return h, true
}

// kernelRun plays mishaps on disks of the kernel.
type kernelRun struct {
	*suite
	missed, compared int
}

// one plays a mishap with the kernel and, if it is not nil, its like without. Both have to end the
// same.
func (r *kernelRun) one(h mishap, like *mishap) {
	out, err := r.happen(h)
	if err != nil {
		r.failMishap(h, err)
		return
	}
	r.mu.Lock()
	if !out.hit {
		r.missed++
	}
	r.mu.Unlock()
	if like == nil || !out.hit {
		return
	}
	want, err := r.happen(*like)
	if err != nil {
		r.failMishap(*like, err)
		return
	}
	r.mu.Lock()
	r.compared++
	r.mu.Unlock()
	if out != want {
		r.failMishap(h, fmt.Errorf("with the kernel: %+v\n\twithout:         %+v", out, want))
	}
}

// TestMediumErrorsOfTheKernel is TestMediumErrors with the kernel of this machine between the
// service and the media: the service finds, opens, reads, writes and flushes block devices, the
// record and the environment of U-Boot among them, and their errors come from the kernel. Where the
// simulation has the same error, it has to end the same.
func TestMediumErrorsOfTheKernel(t *testing.T) {
	run, begun := &kernelRun{suite: newSuite(t)}, time.Now()
	all := make([]*disks, min(runtime.GOMAXPROCS(0), 4))
	for i := range all {
		all[i] = newDisks(t)
	}
	type pair struct {
		mishap
		like *mishap
	}
	work := make(chan pair)
	var wg sync.WaitGroup
	for _, d := range all {
		wg.Go(func() {
			for p := range work {
				p.story.dev.disks = d
				run.one(p.mishap, p.like)
			}
		})
	}
	list, each := kernelStories(nil), 15 // errors of a story
	if whole() || os.Getenv("FWUAB_CRASH") == "deep" {
		each = kernelErrors() / len(list)
	}
	r := rand.New(rand.NewPCG(uint64(sample()), 1))
	probe := newDisks(t)
	for i, n := range r.Perm(len(list)) {
		if run.tried >= kernelErrors() {
			break
		}
		st := list[n]
		st.dev.disks = probe
		accesses, simulated := run.accesses(t, st), run.accesses(t, st.simulated())
		for _, h := range someMishaps(st, accesses, r, i*each+sample(), each) {
			p := pair{mishap: h}
			if like, ok := h.simulated(countOf(accesses), countOf(simulated)); ok {
				p.like = &like
			}
			run.tried++
			work <- p
		}
	}
	close(work)
	wg.Wait()
	run.unique = run.tried - run.missed
	if run.missed > run.tried/20 {
		t.Errorf("%d of %d errors did not happen", run.missed, run.tried)
	}
	if run.compared < run.tried/3 {
		t.Errorf("%d of %d errors were compared with the simulation", run.compared, run.tried)
	}
	t.Logf("%d of the errors ended as in the simulation", run.compared)
	run.done(t, "errors of the kernel", begun)
}

// countOf is how many accesses there are to each place.
func countOf(accesses []access) tally {
	t := tally{}
	for _, a := range accesses {
		t.access(a.Access)
	}
	return t
}
