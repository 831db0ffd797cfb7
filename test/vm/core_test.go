package vm

import "testing"

func kinds() []Kind { return []Kind{UEFI(), UBoot()} }

// TestCore are the stories that every change is tested with.
func TestCore(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(kind.Name, func(t *testing.T) {
			newLab(t, kind).tell(t, map[string]func(*story){
				"accepted":            accepted,
				"check fails":         checkFails,
				"kernel panics":       kernelPanics,
				"no init":             noInit,
				"agent never accepts": agentNeverAccepts,
			})
		})
	}
}

func accepted(s *story) {
	s.staged(Root{})
	r := s.on("")
	s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	if got := s.do(r, "cat", "/etc/version"); got != "2\n" {
		s.t.Errorf("version %q is running", got)
	}
	s.asks(r, Reset, "systemctl", "reboot")
	r = s.on("")
	s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	s.powerOff(r)
}

func checkFails(s *story) {
	s.staged(Root{Files: Files{"usr/lib/fwu-ab/check.d/required.d/10-network*": "#!/bin/sh\necho no default route\nexit 1\n"}})
	s.ends(s.on(""), Reset)
	s.powerOff(s.back("trial-check: required.d/10-network: exit status 1: no default route"))
}

func kernelPanics(s *story) {
	s.staged(Root{Remove: []string{"sbin", "usr/sbin/init"}, Files: Files{"sbin/init*": "#!/bin/sh\nmount -t proc proc /proc\necho c > /proc/sysrq-trigger\n"}})
	s.ends(s.start(""), Reset)
	s.powerOff(s.back("trial-not-booted: the new system was armed, and the old one came up again"))
}

func noInit(s *story) {
	s.staged(Root{Remove: []string{"sbin", "usr/sbin/init", "bin", "usr/bin/sh", "usr/lib/systemd/systemd"}})
	s.ends(s.start(""), Reset)
	s.powerOff(s.back("trial-not-booted: the new system was armed, and the old one came up again"))
}

func agentNeverAccepts(s *story) {
	s.staged(Root{Files: Files{"etc/fwu-ab/fwu-ab.toml.d/client.toml": "[boot-check]\naccept = \"client\"\ndeadline = 60\n"}})
	s.ends(s.on(""), Reset)
	s.powerOff(s.back("trial-deadline: not accepted within 1m0s of its boot"))
}
