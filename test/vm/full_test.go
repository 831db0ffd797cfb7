package vm

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFull are stories that take longer than a change can wait for.
func TestFull(t *testing.T) {
	if os.Getenv("FWUAB_VM") != "full" {
		t.Skip("takes long: make test-vm-full")
	}
	for _, kind := range kinds() {
		t.Run(kind.Name, func(t *testing.T) {
			l := newLab(t, kind)
			l.tell(t, map[string]func(*story){"lost variables": lostVariables, "broken configuration": brokenConfiguration})
			if kind.Loader == nil {
				l.tell(t, map[string]func(*story){"clone": clone})
			} else {
				l.tell(t, map[string]func(*story){
					"bus is broken":         busIsBroken,
					"emergency mode":        emergencyMode,
					"image without fwu-ab":  imageWithoutUs,
					"older service":         olderService,
					"another configuration": anotherConfiguration,
					"lost record":           lostRecord,
					"record lost in trial":  recordLostInTrial,
					"plain reboot":          plainReboot,
					"kexec":                 kexec,
					"stale trial":           staleTrial,
					"two components":        twoComponents,
					"carry-over":            carryOver,
					"live component":        liveComponent,
					"service is killed":     serviceIsKilled,
					"there and back":        thereAndBack,
					"who may do what":       whoMayDoWhat,
				})
			}
		})
	}
	boards(t)
	ubootEFI(t)
}

// TestWatchdog is about what nothing but hardware can end.
func TestWatchdog(t *testing.T) {
	if os.Getenv("FWUAB_VM") != "full" {
		t.Skip("takes long: make test-vm-full")
	}
	newLab(t, Watchdog()).tell(t, map[string]func(*story){"process 1 hangs": processOneHangs, "kernel hangs": kernelHangs})
}

const fed = "[Manager]\nRuntimeWatchdogSec=15\n"

func processOneHangs(s *story) {
	// A service manager that crashed stands still, and leaves everything else running.
	s.staged(Root{Files: Files{"etc/systemd/system.conf.d/watchdog.conf": fed, "usr/lib/fwu-ab/check.d/required.d/hang*": "#!/bin/sh\nkill -SEGV 1\nsleep infinity\n"}})
	r := s.on("")
	s.ends(r, Reset)
	s.powerOff(s.back(trialReset))
}

func kernelHangs(s *story) {
	// Interrupts are off on every processor.
	s.staged(Root{Files: Files{"etc/systemd/system.conf.d/watchdog.conf": fed, "usr/lib/fwu-ab/check.d/required.d/hang*": "#!/bin/sh\nsysctl -q kernel.panic=0\necho c > /proc/sysrq-trigger\n"}})
	s.ends(s.on(""), Reset)
	s.powerOff(s.back(trialReset))
}

const (
	notBooted  = "trial-not-booted: the new system was armed, and the old one came up again"
	trialReset = "trial-reset: the system was restarted before the trial was accepted"
)

// A new system that cannot be reached by anybody, and cannot be told anything.
func busIsBroken(s *story) {
	s.staged(Root{Remove: []string{"usr/bin/dbus-daemon"}, Files: Files{"etc/fwu-ab/fwu-ab.toml.d/short.toml": "[boot-check]\ndeadline = 60\n"}})
	s.ends(s.on(""), Reset)
	s.powerOff(s.back(trialReset))
}

// The service never runs there, so the old system knows no more than that it is back.
func emergencyMode(s *story) {
	s.staged(Root{Files: Files{
		"etc/fstab":                           tmpfs + "/dev/disk/by-partlabel/nothing /mnt ext4 x-systemd.device-timeout=2s 0 0\n",
		"etc/fwu-ab/fwu-ab.toml.d/short.toml": "[boot-check]\ndeadline = 60\n",
	}})
	r := s.on("")
	s.until(r, "systemctl is-active emergency.target")
	s.ends(r, Reset)
	s.powerOff(s.back(notBooted))
}

// A maker who forgets the service in an image can still reset the device.
func imageWithoutUs(s *story) {
	s.staged(Root{Remove: []string{"usr/bin/fwu-ab", "usr/lib/systemd/system/fwu-ab*", "usr/lib/fwu-ab", "etc/systemd/system/*.wants/fwu-ab*"}})
	r := s.on("")
	s.until(r, "systemctl is-active multi-user.target")
	s.asks(r, Reset, "systemctl", "reboot")
	s.powerOff(s.back(notBooted))
}

// A newer service was accepted and wrote its record; what is installed next is older.
func olderService(s *story) {
	newer := s.newerProgram()
	s.staged(Root{Files: Files{"usr/bin/fwu-ab*": newer}})
	r := s.on(s.payload(3, Root{}))
	s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	s.format(r, "1.7")
	s.update(r, "rootfs")
	s.asks(r, Reset, "fwu-ab", "reboot")
	r = s.on("")
	s.wants(r, "booted a, default a, trial -: "+s.in("UPDATED 3.0.0"))
	s.format(r, "1.7")
	s.powerOff(r)
}

// newerProgram builds a service of the future: its record has a higher minor version, and a field that is not known today.
func (s *story) newerProgram() string {
	dir := s.t.TempDir()
	overlay := map[string]string{}
	for file, change := range map[string][2]string{
		"fwu/store.go":  {"storeMinor      = 0", "storeMinor      = 7"},
		"fwu/record.go": {"type record struct {", "type record struct {\n\tFuture string `json:\"future\"`"},
	} {
		path, err := filepath.Abs("../../" + file)
		check(s.t, err)
		text, err := os.ReadFile(path)
		check(s.t, err)
		changed := strings.Replace(string(text), change[0], change[1], 1)
		if changed == string(text) {
			s.t.Fatalf("%s has no %q", file, change[0])
		}
		overlay[path] = filepath.Join(dir, filepath.Base(file))
		check(s.t, os.WriteFile(overlay[path], []byte(changed), 0o644))
	}
	replace, err := json.Marshal(map[string]any{"Replace": overlay})
	check(s.t, err)
	check(s.t, os.WriteFile(dir+"/overlay.json", replace, 0o644))
	program := filepath.Join(dir, "fwu-ab")
	check(s.t, run(s.t.Context(), "env", "CGO_ENABLED=0", "go", "build", "-C", "../..", "-overlay", dir+"/overlay.json", "-trimpath", "-ldflags", "-s -w", "-o", program, "./cmd/fwu-ab"))
	b, err := os.ReadFile(program)
	check(s.t, err)
	return string(b)
}

// format checks the version of the record.
func (s *story) format(r *Running, want string) {
	s.t.Helper()
	out := s.do(r, "fwu-ab", "doctor")
	if !strings.Contains(out, "format "+want) {
		s.t.Errorf("want a record of format %s:\n%s", want, out)
	}
}

// The new system calls the slots of the live component the other way round. It may not write to them, and goes on with the active one.
func anotherConfiguration(s *story) {
	s.staged(Root{Files: Files{"etc/fwu-ab/fwu-ab.toml.d/other.toml": "[component.app]\nslots = {a = \"PARTLABEL=app_b\", b = \"PARTLABEL=app_a\"}\n"}})
	r := s.on(s.payload(3, Root{}, "app"))
	s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	s.runs(r, 1)
	s.mount(r)
	s.refused(r, "and the record has", "fwu-ab", "update", "--quiet", "/run/payload/app.suit", "/run/payload/app.img")
	s.powerOff(r)
}

// refused runs a command in the guest that must fail and say why.
func (s *story) refused(r *Running, why string, args ...string) {
	s.t.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	reply, err := r.Exec(ctx, args...)
	check(s.t, err)
	if reply.Code == 0 || !strings.Contains(reply.Err, why) {
		s.t.Errorf("%q in the guest: exit code %d, want one that says %q\n%s%s", args, reply.Code, why, reply.Out, reply.Err)
	}
}

// The new system's configuration names a slot that is not there: nothing can be accepted, and only the boot script or the firmware knows that it is a trial.
func brokenConfiguration(s *story) {
	s.staged(Root{Files: Files{"etc/fwu-ab/fwu-ab.toml.d/broken.toml": "[component.rootfs]\nslots = {a = \"PARTLABEL=rootfs_a\", b = \"PARTLABEL=rotfs_b\"}\n"}})
	s.ends(s.on(""), Reset)
	s.powerOff(s.back(notBooted))
}

func lostRecord(s *story) {
	check(s.t, s.Disk.Wipe("fwu-store"))
	r := s.ready(s.payload(2, Root{}, "boot"))
	// What the running slots hold is not known any more, so they cannot be taken along.
	s.mount(r)
	s.refused(r, "boot must be part of this update", "fwu-ab", "update", "--quiet", "/run/payload/rootfs.suit", "/run/payload/rootfs.img")
	s.do(r, "fwu-ab", "update", "--quiet", "/run/payload/boot.suit", "/run/payload/boot.img", "/run/payload/rootfs.suit", "/run/payload/rootfs.img")
	s.asks(r, Reset, "fwu-ab", "reboot")
	r = s.on("")
	s.wants(r, "booted b, default b, trial -: boot UPDATED 2.0.0, rootfs UPDATED 2.0.0, app READY 1.0.0")
	s.powerOff(r)
}

// The record is lost while the new system runs on trial: it cannot prove that it was verified, so the old one comes back.
func recordLostInTrial(s *story) {
	s.staged(s.client())
	r := s.on("")
	s.wants(r, "booted b, default a, trial b: "+s.in("TRIAL 2.0.0"))
	// Masked, or whoever calls it would have it started again.
	s.sh(r, "systemctl mask --runtime --now fwu-ab && dd if=/dev/zero of=/dev/disk/by-partlabel/fwu-store bs=1M count=1 conv=fsync,notrunc && systemctl unmask --runtime fwu-ab && systemctl start --no-block fwu-ab")
	s.ends(r, Reset)
	const lost = "FAILED 1.0.0 (record-lost: the record was lost while this bank was not the default)"
	r = s.on("")
	s.wants(r, "booted a, default a, trial -: boot "+lost+", rootfs "+lost+", app READY 2.0.0")
	s.powerOff(r)
}

// client is a system in which an update client decides.
func (s *story) client() Root {
	return Root{Files: Files{"etc/fwu-ab/fwu-ab.toml.d/client.toml": "[boot-check]\naccept = \"client\"\ndeadline = 3600\n"}}
}

// until waits until a command in the guest succeeds.
func (s *story) until(r *Running, script string) {
	s.t.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	for {
		reply, err := r.Exec(ctx, "sh", "-c", script)
		if err != nil {
			s.t.Fatalf("wait until %s: %v", script, err)
		}
		if reply.Code == 0 {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("never: %s\n%s", script, s.journal(r))
		case <-time.After(askInterval):
		}
	}
}

func plainReboot(s *story) {
	r := s.ready(s.payload(2, Root{}))
	s.update(r, "rootfs")
	s.is(r, "booted a, default a, trial b: "+s.in("STAGED 1.0.0"))
	s.asks(r, Reset, "systemctl", "reboot")
	r = s.on("")
	s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	s.powerOff(r)
}

// A kernel that starts another one passes the boot selector by: the old system is back, and what is staged was not tried.
func kexec(s *story) {
	r := s.ready(s.payload(2, Root{}))
	s.update(r, "rootfs")
	s.sh(r, "mkdir -p /run/boot && mount -o ro /dev/disk/by-partlabel/boot_a /run/boot && kexec -l /run/boot/EFI/device/linux.efi --reuse-cmdline")
	ctx, cancel := s.ctx()
	defer cancel()
	_, err := r.Exec(ctx, "systemctl", "kexec")
	if err != nil {
		s.t.Log(err) // the answer may be lost
	}
	s.agent(r)
	s.wants(r, "booted a, default a, trial -: "+s.in("CANDIDATE 1.0.0"))
	s.do(r, "fwu-ab", "install")
	s.asks(r, Reset, "fwu-ab", "reboot")
	r = s.on("")
	s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	s.powerOff(r)
}

// bootNext arms a bank behind the service's back.
func (s *story) bootNext(r *Running, bank string) {
	s.t.Helper()
	s.do(r, "bash", "-ec", `cd /sys/firmware/efi/efivars
for v in Boot0*-8be4df61-93ca-11d2-aa0d-00e098032b8c; do
	if tr -d '\0' < $v | grep -q "fwu-ab `+bank+`"; then
		n=${v#Boot}; n=${n%%-*}
		printf "\x07\0\0\0\x${n#??}\x${n%??}" | dd of=BootNext-8be4df61-93ca-11d2-aa0d-00e098032b8c bs=6 status=none
		exit
	fi
done
exit 1`)
}

// A trial that nothing in the record knows of: the service takes it back, and if it is too late for that, what it leads to cannot be started.
func staleTrial(s *story) {
	s.staged(Root{Files: Files{"usr/lib/fwu-ab/check.d/required.d/no*": "#!/bin/sh\nexit 1\n"}})
	s.ends(s.on(""), Reset)
	const failed = "trial-check: required.d/no: exit status 1"
	r := s.back(failed)
	s.bootNext(r, "b")
	s.do(r, "systemctl", "restart", "fwu-ab")
	s.wants(r, "booted a, default a, trial -: "+s.in("FAILED 1.0.0 ("+failed+")"))
	s.bootNext(r, "b")
	s.asks(r, Reset, "systemctl", "reboot")
	s.powerOff(s.back(failed))
}

// Both come in one bundle, compressed, through a pipe.
func twoComponents(s *story) {
	payload := s.payload(2, Root{}, "boot")
	r := s.ready(payload)
	s.mount(r)
	s.sh(r, "cat /run/payload/release.suit | fwu-ab update --quiet -")
	s.is(r, "booted a, default a, trial b: boot STAGED 1.0.0, rootfs STAGED 1.0.0, app READY 1.0.0")
	s.asks(r, Reset, "fwu-ab", "reboot")
	r = s.on(payload)
	s.wants(r, "booted b, default b, trial -: boot UPDATED 2.0.0, rootfs UPDATED 2.0.0, app READY 1.0.0")
	s.powerOff(r)
}

// Only the kernel is updated: the root file system is taken along, if nobody writes to it.
func carryOver(s *story) {
	r := s.ready(s.payload(2, Root{}, "boot"))
	s.mount(r)
	s.do(r, "mount", "-o", "remount,rw", "/")
	s.refused(r, "rootfs", "fwu-ab", "update", "--quiet", "/run/payload/boot.suit", "/run/payload/boot.img")
	s.is(r, "booted a, default a, trial -: boot CANDIDATE 1.0.0, rootfs READY 1.0.0, app READY 1.0.0")
	// What was mounted read-write has changed even if nothing was written: the time of the mount is in the superblock.
	s.do(r, "mount", "-o", "remount,ro", "/")
	s.refused(r, "rootfs", "fwu-ab", "install")
	s.do(r, "fwu-ab", "update", "--quiet", "/run/payload/boot.suit", "/run/payload/boot.img", "/run/payload/rootfs.suit", "/run/payload/rootfs.img")
	s.asks(r, Reset, "fwu-ab", "reboot")
	r = s.on(s.payload(3, Root{}, "boot"))
	s.wants(r, "booted b, default b, trial -: boot UPDATED 2.0.0, rootfs UPDATED 2.0.0, app READY 1.0.0")
	s.do(r, "fwu-ab", "clean", "rootfs")
	s.update(r, "boot")
	s.asks(r, Reset, "fwu-ab", "reboot")
	r = s.on("")
	s.wants(r, "booted a, default a, trial -: boot UPDATED 3.0.0, rootfs READY 2.0.0, app READY 1.0.0")
	if got := s.do(r, "cat", "/etc/version"); got != "2\n" {
		s.t.Errorf("version %q of the root file system is running", got)
	}
	s.powerOff(r)
}

func liveComponent(s *story) {
	r := s.ready(s.payload(2, Root{}, "app"))
	s.update(r, "app")
	s.is(r, "booted a, default a, trial -: boot READY 1.0.0, rootfs READY 1.0.0, app TRIAL 2.0.0")
	s.runs(r, 2)
	s.do(r, "fwu-ab", "reject")
	s.runs(r, 1)
	s.do(r, "fwu-ab", "clean", "app")
	s.do(r, "fwu-ab", "update", "--quiet", "/run/payload/app.suit", "/run/payload/app.img")
	s.runs(r, 2)
	s.do(r, "fwu-ab", "accept")
	s.asks(r, Reset, "systemctl", "reboot")
	r = s.on("")
	s.wants(r, "booted a, default a, trial -: boot READY 1.0.0, rootfs READY 1.0.0, app UPDATED 2.0.0")
	s.runs(r, 2)
	s.powerOff(r)
}

// runs waits until a version of the live component is in use.
func (s *story) runs(r *Running, version int) {
	s.t.Helper()
	s.until(r, fmt.Sprintf(`test "$(cat /run/app-version)" = "application %d.0"`, version))
}

// kill ends the service with SIGKILL, and wants the same state of the next one.
func (s *story) kill(r *Running, want string) {
	s.t.Helper()
	s.is(r, want)
	s.sh(r, "systemctl reset-failed fwu-ab; old=$(systemctl show -P MainPID fwu-ab); kill -9 $old; while test \"$(systemctl show -P MainPID fwu-ab)\" = $old; do :; done")
	s.wants(r, want)
}

func serviceIsKilled(s *story) {
	payload := s.payload(2, s.client())
	r := s.ready(payload)
	s.kill(r, "booted a, default a, trial -: "+s.in("READY 1.0.0"))
	s.mount(r)
	in := func(state string) string { return "booted a, default a, trial -: " + s.in(state) }
	s.sh(r, "fwu-ab start rootfs --manifest /run/payload/rootfs.suit && head -c 40M /run/payload/rootfs.img | fwu-ab write rootfs -")
	s.kill(r, in("WRITING 1.0.0"))
	// In the middle of a transfer: the client is told, and goes on when it is asked to.
	const update = "fwu-ab update --quiet /run/payload/rootfs.suit /run/payload/rootfs.img"
	s.sh(r, "systemctl reset-failed fwu-ab; "+update+" & u=$!; until fwu-ab query rootfs | grep -q 'write'; do kill -0 $u; done; systemctl kill -s KILL fwu-ab; ! wait $u")
	s.kill(r, in("WRITING 1.0.0"))
	s.sh(r, "fwu-ab write rootfs /run/payload/rootfs.img --offset -1 && fwu-ab finish rootfs")
	s.kill(r, in("CANDIDATE 1.0.0"))
	s.do(r, "fwu-ab", "install")
	s.kill(r, "booted a, default a, trial b: "+s.in("STAGED 1.0.0"))
	s.asks(r, Reset, "fwu-ab", "reboot")
	r = s.on("")
	s.wants(r, "booted b, default a, trial b: "+s.in("TRIAL 2.0.0"))
	s.kill(r, "booted b, default a, trial b: "+s.in("TRIAL 2.0.0"))
	s.do(r, "fwu-ab", "accept")
	s.kill(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	s.do(r, "fwu-ab", "clean", "rootfs")
	s.kill(r, "booted b, default b, trial -: "+s.in("READY 2.0.0"))
	s.powerOff(r)
	r = s.on(s.payload(3, s.client()))
	s.wants(r, "booted b, default b, trial -: "+s.in("READY 2.0.0"))
	s.mount(r)
	s.sh(r, "fwu-ab start rootfs --manifest /run/payload/rootfs.suit && fwu-ab cancel rootfs")
	s.kill(r, "booted b, default b, trial -: "+s.in("FAILED 2.0.0 (cancelled: cancelled by the client)"))
	s.do(r, "fwu-ab", "clean", "rootfs")
	s.do(r, "fwu-ab", "update", "--quiet", "/run/payload/rootfs.suit", "/run/payload/rootfs.img")
	s.asks(r, Reset, "fwu-ab", "reboot")
	r = s.on("")
	s.wants(r, "booted a, default b, trial a: "+s.in("TRIAL 3.0.0"))
	s.do(r, "fwu-ab", "reject", "--text", "not liked")
	const rejected = " (rejected: not liked)"
	s.kill(r, "booted a, default b, trial a: "+s.in("REJECTED 3.0.0"+rejected))
	s.asks(r, Reset, "fwu-ab", "reboot")
	r = s.on("")
	s.wants(r, "booted b, default b, trial -: "+s.in("FAILED 2.0.0"+rejected))
	s.powerOff(r)
}

func thereAndBack(s *story) {
	s.staged(Root{})
	r := s.on(s.payload(3, Root{}))
	s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	s.update(r, "rootfs")
	s.asks(r, Reset, "fwu-ab", "reboot")
	r = s.on("")
	s.wants(r, "booted a, default a, trial -: "+s.in("UPDATED 3.0.0"))
	if got := s.do(r, "cat", "/etc/version"); got != "3\n" {
		s.t.Errorf("version %q is running", got)
	}
	s.powerOff(r)
}

// All that the firmware or the bootloader knew is lost while the other bank is half written.
func lostVariables(s *story) {
	r := s.ready(s.payload(2, Root{}))
	s.mount(r)
	s.sh(r, "fwu-ab start rootfs --manifest /run/payload/rootfs.suit && head -c 40M /run/payload/rootfs.img | fwu-ab write rootfs -")
	s.is(r, "booted a, default a, trial -: "+s.in("WRITING 1.0.0"))
	r.Kill()
	check(s.t, s.kind.Forget(s.t.Context(), s.Disk, s.Dir))
	r = s.on(s.payload(2, Root{}))
	s.wants(r, "booted a, default a, trial -: "+s.in("WRITING 1.0.0"))
	s.update(r, "rootfs")
	s.asks(r, Reset, "fwu-ab", "reboot")
	r = s.on("")
	s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	s.powerOff(r)
}

// Real bus, real polkit: an ordinary user, and one whom a rule of the maker's allows to prepare updates.
func whoMayDoWhat(s *story) {
	s.staged(Root{Files: Files{
		"etc/passwd":                          s.accounts(),
		"etc/polkit-1/rules.d/50-agent.rules": `polkit.addRule(function(action, subject) { if (subject.user == "agent" && action.id == "org.fwuab.FirmwareUpdate1.clean") return polkit.Result.YES; });` + "\n",
	}})
	r := s.on("")
	s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	as := func(user string, args ...string) []string {
		return append([]string{"setpriv", "--reuid", user, "--clear-groups"}, args...)
	}
	for _, user := range []string{"agent", "stranger"} {
		s.do(r, as(user, "fwu-ab", "status")...)
		for _, verb := range []string{"install", "accept", "reject", "reboot"} {
			s.refused(r, "polkit wants org.fwuab.FirmwareUpdate1."+verb+" to be authenticated", as(user, "fwu-ab", verb)...)
		}
	}
	s.refused(r, "may not clean", as("stranger", "fwu-ab", "clean", "rootfs")...)
	s.do(r, as("agent", "fwu-ab", "clean", "rootfs")...)
	s.is(r, "booted b, default b, trial -: "+s.in("READY 2.0.0"))
	for _, user := range []string{"root", "stranger"} { // what the contract does not name does not pass the bus
		s.refused(r, "Access denied", as(user, "busctl", "call", "org.fwuab.FirmwareUpdate1", "/org/fwuab/FirmwareUpdate1", "org.fwuab.FirmwareUpdate1.Manager", "Nothing")...)
	}
	s.powerOff(r)
}

func (s *story) accounts() string {
	text, err := os.ReadFile(filepath.Join(s.tree, "etc/passwd"))
	check(s.t, err)
	return string(text) + "agent:x:1000:1000::/:/bin/sh\nstranger:x:1001:1001::/:/bin/sh\n"
}
