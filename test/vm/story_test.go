package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience is how long anything may take that a story waits for, on a slow machine that does much else.
const patience = 5 * time.Minute

// lab is what the stories of one kind of machine have in common.
type lab struct {
	*Workshop
	base *Machine // provisioned and booted once, off
	root string   // image of version 1
	boot string   // image of the loader, if the kind has one
	app  string
}

// newLab makes a device as it leaves the factory, and switches it on once.
func newLab(t *testing.T, kind Kind) *lab {
	t.Helper()
	if os.Getenv("FWUAB_VM") == "" {
		t.Skip("needs QEMU and root, and minutes: make vm sets FWUAB_VM")
	}
	ctx, dir := t.Context(), t.TempDir()
	begin := time.Now()
	w, err := NewWorkshop(ctx, "../..", dir, kind)
	check(t, err)
	l := &lab{Workshop: w, root: filepath.Join(dir, "root-1.img"), boot: filepath.Join(dir, "boot-1.img"), app: filepath.Join(dir, "app-1.img")}
	check(t, w.MakeRoot(ctx, l.root, Root{Version: 1}))
	check(t, os.WriteFile(l.app, appImage(1), 0o644))
	images := map[string]string{"rootfs": l.root, "app": l.app}
	if kind.Loader != nil {
		check(t, w.MakeLoader(ctx, l.boot))
		images["boot"] = l.boot
	}
	base := filepath.Join(dir, "base")
	check(t, os.Mkdir(base, 0o755))
	disk, err := w.MakeDisk(ctx, filepath.Join(base, "disk.img"), images)
	check(t, err)
	l.base = &Machine{Kind: kind, Disk: disk, Dir: base, Console: newLog(t, "factory")}
	t.Logf("%s: images made in %v", kind.Name, time.Since(begin).Round(100*time.Millisecond))
	s := &story{t, l, l.base}
	r := s.on("")
	s.wants(r, "booted a, default a, trial -: "+l.all("READY 1.0.0"))
	s.powerOff(r)
	return l
}

// all is the state of all components, which is the same.
func (l *lab) all(state string) string {
	return strings.Replace(l.in(state), "boot READY 1.0.0", "boot "+state, 1)
}

// in is the state of all components, when that of the root file system is as given and nothing became of the others.
func (l *lab) in(rootfs string) string {
	out := "rootfs " + rootfs + ", app READY 1.0.0"
	if l.kind.Loader != nil {
		out = "boot READY 1.0.0, " + out
	}
	return out
}

// tell tells stories side by side.
func (l *lab) tell(t *testing.T, stories map[string]func(*story)) {
	for name, tell := range stories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tell(l.story(t))
		})
	}
}

func newLog(t *testing.T, name string) *os.File {
	t.Helper()
	dir := os.Getenv("FWUAB_VM_LOGS")
	if dir == "" {
		dir = t.TempDir()
	}
	f, err := os.Create(filepath.Join(dir, strings.ReplaceAll(name, "/", "_")+".console"))
	check(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(f.Name())
			t.Logf("end of the console of %s:\n%s", name, text[max(0, len(text)-6000):])
		}
		_ = f.Close()
	})
	return f
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// story is told on a machine of its own.
type story struct {
	t *testing.T
	*lab
	*Machine
}

func (l *lab) story(t *testing.T) *story {
	t.Helper()
	m, err := l.base.CopyTo(t.Context(), t.TempDir(), newLog(t, t.Name()))
	check(t, err)
	s := &story{t, l, m}
	t.Cleanup(m.Off)
	return s
}

func (s *story) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.t.Context(), patience)
}

// on switches the machine on and waits until its agent is up.
func (s *story) on(payload string) *Running {
	s.t.Helper()
	r := s.start(payload)
	s.agent(r)
	return r
}

func (s *story) start(payload string) *Running {
	s.t.Helper()
	r, err := s.On(context.WithoutCancel(s.t.Context()), payload)
	check(s.t, err)
	return r
}

func (s *story) agent(r *Running) {
	s.t.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	begin := time.Now()
	_, err := r.WaitAgent(ctx)
	check(s.t, err)
	s.t.Logf("booted in %.1f s", time.Since(begin).Seconds())
}

// do runs a command in the guest that must succeed.
func (s *story) do(r *Running, args ...string) string {
	s.t.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	reply, err := r.Exec(ctx, args...)
	check(s.t, err)
	if reply.Code != 0 {
		s.t.Fatalf("%q in the guest: exit code %d\n%s%s", args, reply.Code, reply.Out, reply.Err)
	}
	return reply.Out
}

func (s *story) sh(r *Running, script string) string {
	s.t.Helper()
	return s.do(r, "sh", "-ec", script)
}

// wants waits for a state of the whole.
func (s *story) wants(r *Running, want string) {
	s.t.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	st, err := r.Until(ctx, func(st Status) bool { return st.String() == want })
	if err != nil {
		s.t.Fatalf("want %s: %v\n%s", want, err, s.journal(r))
	}
	s.t.Log(st)
}

// journal is what our units said, for a test that failed.
func (s *story) journal(r *Running) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), 30*time.Second)
	defer cancel()
	reply, err := r.Exec(ctx, "sh", "-c", "journalctl -b --no-pager -o short-monotonic -u 'fwu-ab*' | tail -60; systemctl list-jobs --no-pager; systemctl --failed --no-pager")
	if err != nil {
		return err.Error()
	}
	return reply.Out
}

// is compares the state of the whole now.
func (s *story) is(r *Running, want string) {
	s.t.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	st, err := r.Status(ctx)
	check(s.t, err)
	if st.String() != want {
		s.t.Fatalf("got  %v\nwant %s", st, want)
	}
	s.t.Log(st)
}

// ends waits until the machine ended in a way.
func (s *story) ends(r *Running, want Exit) {
	s.t.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	begin := time.Now()
	got, err := r.Wait(ctx)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, s.journal(r))
	}
	if got != want {
		s.t.Fatalf("the machine ended by %q, want %q", got, want)
	}
	s.t.Logf("%s after %.1f s", got, time.Since(begin).Seconds())
}

// asks asks the guest for something that ends it.
func (s *story) asks(r *Running, want Exit, args ...string) {
	s.t.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	if reply, err := r.Exec(ctx, args...); err == nil && reply.Code != 0 { // the answer may be lost
		s.t.Fatalf("%q in the guest: exit code %d\n%s%s", args, reply.Code, reply.Out, reply.Err)
	}
	s.ends(r, want)
}

func (s *story) powerOff(r *Running) {
	s.t.Helper()
	s.asks(r, PowerOff, "systemctl", "poweroff")
}

// payload makes the disk for an update to version n of the root file system, which differs in what r says, and of more components.
func (s *story) payload(n int, r Root, more ...string) string {
	s.t.Helper()
	dir := s.t.TempDir()
	r.Version = n
	images := []Image{{"rootfs", filepath.Join(dir, "root.img")}}
	check(s.t, s.MakeRoot(s.t.Context(), images[0].Path, r))
	for _, c := range more {
		i := Image{c, filepath.Join(dir, c+".img")}
		switch c {
		case "boot":
			check(s.t, s.MakeLoader(s.t.Context(), i.Path))
		case "app":
			check(s.t, os.WriteFile(i.Path, appImage(n), 0o644))
		}
		images = append(images, i)
	}
	out := filepath.Join(dir, "payload.img")
	check(s.t, s.MakePayload(s.t.Context(), out, n, images...))
	for _, i := range images {
		check(s.t, os.Remove(i.Path))
	}
	return out
}

func appImage(n int) []byte {
	return []byte(strings.Repeat(fmt.Sprintf("application %d.0\n", n), 1000))
}

// update installs what the payload has for the components, from a running system.
func (s *story) update(r *Running, components ...string) {
	s.t.Helper()
	args := []string{"fwu-ab", "update", "--quiet"}
	for _, c := range components {
		args = append(args, fmt.Sprintf("/run/payload/%s.suit", c), fmt.Sprintf("/run/payload/%s.img", c))
	}
	begin := time.Now()
	s.mount(r)
	s.do(r, args...)
	s.t.Logf("updated in %.1f s", time.Since(begin).Seconds())
}

func (s *story) mount(r *Running) {
	s.t.Helper()
	s.sh(r, "mkdir -p /run/payload && mount -o ro /dev/nvme1n1 /run/payload")
}

// ready switches on a machine that runs version 1, and waits until the service is up.
func (s *story) ready(payload string) *Running {
	s.t.Helper()
	r := s.on(payload)
	s.wants(r, "booted a, default a, trial -: "+s.all("READY 1.0.0"))
	return r
}

// staged installs version 2 of the root file system on a machine that runs version 1, and reboots it.
func (s *story) staged(root Root) {
	s.t.Helper()
	payload := s.payload(2, root)
	r := s.ready(payload)
	s.update(r, "rootfs")
	s.asks(r, Reset, "fwu-ab", "reboot")
}

// back waits until the machine is in its old system, for a reason.
func (s *story) back(reason string) *Running {
	s.t.Helper()
	r := s.on("")
	s.wants(r, "booted a, default a, trial -: "+s.in("FAILED 1.0.0 ("+reason+")"))
	return r
}
