package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// boards are stories of boards whose root file system is not simply the slot.
func boards(t *testing.T) {
	t.Run("overlay", func(t *testing.T) {
		newLab(t, Overlay()).tell(t, map[string]func(*story){
			"accepted":    overlayAccepted,
			"check fails": checkFails,
		})
	})
}

// The layer below the overlay tells the bank, and so does a label, without an initrd's help.
func overlayAccepted(s *story) {
	s.staged(Root{})
	r := s.on("")
	s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	if got := s.do(r, "findmnt", "-n", "-o", "FSTYPE", "/"); got != "overlay\n" {
		s.t.Errorf("the root is a %q", got)
	}
	s.doctor(r, "bank b, known from kernel command line, kernel command line, root device, BootCurrent")
	s.powerOff(r)
}

func (s *story) doctor(r *Running, want string) {
	s.t.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	reply, err := r.Exec(ctx, "fwu-ab", "doctor")
	check(s.t, err)
	if !strings.Contains(reply.Out, want) {
		s.t.Errorf("the doctor does not say %q:\n%s%s", want, reply.Out, reply.Err)
	}
}

// A board with a clone of its system on another disk, and a command line that names the clone: bank
// b was armed and never ran. Nothing is accepted, and the device comes back when the clone is gone.
func clone(s *story) {
	dir := s.t.TempDir()
	other := filepath.Join(dir, "clone.img")
	root := s.client()
	root.Version = 2
	check(s.t, s.MakeRoot(s.t.Context(), other, root))
	s.staged(s.client())
	s.environment("a", "b", kernelArguments+" rootwait root=/dev/nvme1n1")
	r := s.on(other)
	if got := s.do(r, "findmnt", "-n", "-o", "SOURCE", "/"); strings.TrimSpace(got) != "/dev/nvme1n1" && strings.TrimSpace(got) != "/dev/root" {
		s.t.Fatalf("the root is %q, and not the clone", got)
	}
	s.until(r, "fwu-ab status")
	s.refused(r, "contradicts itself", "fwu-ab", "accept")
	s.refused(r, "contradicts itself", "fwu-ab", "clean", "rootfs")
	s.doctor(r, "is no slot of either bank")
	s.powerOff(r)
	s.environment("a", "", kernelArguments)
	s.powerOff(s.back(notBooted))
}

// environment makes both copies of a machine that is off say which bank is the default, which is
// armed, and the arguments of the kernel.
func (s *story) environment(active, trial, arguments string) {
	s.t.Helper()
	text := strings.Replace(ubootEnvironment, "fwu_bootargs="+kernelArguments+"\n", "fwu_bootargs="+arguments+"\n", 1)
	text += "fwu_active=" + active + "\n"
	if trial != "" {
		text += "fwu_trial=" + trial + "\n"
	}
	dir := s.t.TempDir()
	plain, env := filepath.Join(dir, "env.txt"), filepath.Join(dir, "uboot.env")
	check(s.t, os.WriteFile(plain, []byte(text), 0o644))
	check(s.t, run(s.t.Context(), "mkenvimage", "-r", "-s", fmt.Sprint(ubootSize), "-o", env, plain))
	check(s.t, putEnvironment(s.t.Context(), s.Disk, env))
}
