package vm

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// cutPoints is how many power cuts are made.
const cutPoints = 210

// moment is a point in the life of a machine: how much of each log was written. It is one at which somebody looked: disk and flash have no common order otherwise.
type moment struct {
	disk, flash int
}

// recording is one boot of a machine, from files to files.
type recording struct {
	name        string
	before      *Machine // a copy of what it began with
	disk, flash []logged
	diskLog     string
	flashLog    string
	moments     []moment
}

// TestPowerCuts records what an update writes, to the disk and to the flash with the firmware's variables, from its start to its acceptance, and puts machines together that lost
// power on the way: what had been flushed is there, of the rest all, nothing, or some. Each must come up by itself, in a whole system, in a state that can be gone on from.
func TestPowerCuts(t *testing.T) {
	if os.Getenv("FWUAB_VM") != "full" {
		t.Skip("takes long: make test-vm-full")
	}
	l := newLab(t, UEFI())
	s := l.story(t)
	payload := s.payload(2, Root{})
	install := s.record(payload, "install", func(r *Running) {
		s.wants(r, "booted a, default a, trial -: "+s.in("READY 1.0.0"))
	}, func(r *Running) {
		s.update(r, "rootfs")
		s.asks(r, Reset, "fwu-ab", "reboot")
	})
	trial := s.record("", "trial", func(*Running) {}, func(r *Running) {
		s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
		s.powerOff(r)
	})
	cuts := trial.choose(cutPoints / 3)
	cuts = append(cuts, install.choose(cutPoints-len(cuts))...) // of the short trial, there may be fewer moments than that
	t.Logf("%d writes and flushes of the disk, %d of the flash while it is installed, %d and %d during the trial; %d cuts", len(install.disk), len(install.flash), len(trial.disk), len(trial.flash), len(cuts))
	if len(cuts) < cutPoints {
		t.Errorf("%d cuts are too few", len(cuts))
	}
	var mu sync.Mutex
	ends := map[string]int{}
	t.Run("cuts", func(t *testing.T) {
		for i, c := range cuts {
			t.Run(fmt.Sprintf("%d %s", i, c), func(t *testing.T) {
				t.Parallel()
				end := c.boot(t, l, payload, i)
				mu.Lock()
				defer mu.Unlock()
				ends[end]++
			})
		}
	})
	for end, n := range ends {
		t.Logf("%3d × %s", n, end)
	}
}

// record runs a boot with logs.
func (s *story) record(payload, name string, until, tell func(*Running)) *recording {
	s.t.Helper()
	before, err := s.CopyTo(s.t.Context(), s.t.TempDir(), nil)
	check(s.t, err)
	s.Record = true
	defer func() { s.Record = false }()
	rec := &recording{name: name, before: before, diskLog: s.Disk.Path + ".log", flashLog: s.variables() + ".log"}
	r := s.on(payload)
	until(r)
	stop, watched := make(chan struct{}), make(chan []moment)
	go func() { watched <- rec.watch(s.t, stop) }()
	tell(r)
	close(stop)
	rec.moments = <-watched
	logs := s.t.TempDir()
	for _, f := range []struct {
		log     *string
		entries *[]logged
	}{{&rec.diskLog, &rec.disk}, {&rec.flashLog, &rec.flash}} {
		*f.entries, err = readLog(*f.log)
		check(s.t, err)
		kept := filepath.Join(logs, filepath.Base(*f.log))
		check(s.t, os.Rename(*f.log, kept))
		*f.log = kept
	}
	return rec
}

// watch looks at both logs again and again.
func (rec *recording) watch(t *testing.T, stop chan struct{}) []moment {
	var all []moment
	var files [2]*os.File
	for i, path := range []string{rec.diskLog, rec.flashLog} {
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return nil
		}
		defer f.Close()
		files[i] = f
	}
	ticker := time.NewTicker(200 * time.Microsecond)
	defer ticker.Stop()
	for {
		var n [3]int
		for i, f := range []*os.File{files[0], files[1], files[0]} {
			var err error
			if n[i], err = logEntries(f); err != nil {
				t.Error(err)
				return nil
			}
		}
		if m := (moment{n[0], n[1]}); n[0] == n[2] && (len(all) == 0 || all[len(all)-1] != m) {
			all = append(all, m)
		}
		select {
		case <-stop:
			return all
		case <-ticker.C:
		}
	}
}

// cut is a power cut in a recording.
type cut struct {
	rec  *recording
	at   moment
	lost string // of what was not flushed: "nothing", "everything", "some"
}

func (c cut) String() string {
	return fmt.Sprintf("%s, disk %d, flash %d, %s lost", c.rec.name, c.at.disk, c.at.flash, c.lost)
}

// choose chooses n cuts: a third where the flash was written, a third among the last writes of the disk, which are those that decide, and of the rest a sample.
func (rec *recording) choose(n int) []cut {
	const deciding = 40
	var groups [3][]moment
	for i, m := range rec.moments {
		g := 2
		switch {
		case i > 0 && rec.moments[i-1].flash != m.flash:
			g = 0
		case m.disk > len(rec.disk)-deciding:
			g = 1
		}
		groups[g] = append(groups[g], m)
	}
	var cuts []cut
	left := n
	for g, i := range []int{1, 2, 0} { // what there is least of first: the others make up for it
		share := min(len(groups[i]), left/(len(groups)-g))
		left -= share
		for j := range share {
			cuts = append(cuts, cut{rec, groups[i][(j+1)*len(groups[i])/share-1], []string{"nothing", "everything", "some"}[len(cuts)%3]})
		}
	}
	return cuts
}

// boot puts the machine together, switches it on, and says what became of it.
func (c cut) boot(t *testing.T, l *lab, payload string, n int) string {
	m, err := c.rec.before.CopyTo(t.Context(), t.TempDir(), newLog(t, fmt.Sprintf("cut-%d", n)))
	check(t, err)
	flushed := 0
	for i, e := range c.rec.disk[:c.at.disk] {
		if e.flush() {
			flushed = i
		}
	}
	random := rand.New(rand.NewPCG(uint64(n), 1))
	keep := func(i int) bool {
		if i <= flushed || c.lost == "nothing" || c.rec.disk[i].flags&logFUA != 0 {
			return true
		}
		return c.lost == "some" && random.IntN(2) == 0
	}
	check(t, replay(m.Disk.Path, c.rec.diskLog, c.rec.disk[:c.at.disk], keep))
	check(t, replay(m.variables(), c.rec.flashLog, c.rec.flash[:c.at.flash], func(int) bool { return true }))
	s := &story{t, l, m}
	t.Cleanup(m.Off)
	r := s.on(payload)
	defer r.Kill()
	ctx, cancel := s.ctx()
	defer cancel()
	_, err = r.Until(ctx, func(st Status) bool {
		state := st.Component("rootfs").State
		return state != "" && state != "STAGED" && state != "TRIAL" && state != "REJECTED"
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, s.journal(r))
	}
	st, err := r.Status(ctx) // a decision may have been in the middle of things: the bank and its components are asked for one after the other
	check(t, err)
	end := st.String()
	allowed := []string{"WRITING 1.0.0", "READY 1.0.0", "CANDIDATE 1.0.0", "FAILED 1.0.0 (" + notBooted + ")", "FAILED 1.0.0 (" + trialReset + ")"}
	ok := end == "booted b, default b, trial -: "+s.in("UPDATED 2.0.0")
	for _, a := range allowed {
		ok = ok || end == "booted a, default a, trial -: "+s.in(a)
	}
	if !ok {
		t.Errorf("the machine came up as %s", end)
	}
	if got, want := strings.TrimSpace(s.do(r, "cat", "/etc/version")), map[string]string{"a": "1", "b": "2"}[st.Booted]; got != want {
		t.Errorf("in bank %s version %s is running, want %s", st.Booted, got, want)
	}
	if n%10 == 0 && st.Booted == "a" { // it goes on
		if strings.Contains(end, "FAILED") {
			s.do(r, "fwu-ab", "clean", "rootfs")
		}
		s.update(r, "rootfs")
		s.is(r, "booted a, default a, trial b: "+s.in("STAGED 1.0.0"))
	}
	return end
}
