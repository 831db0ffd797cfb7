package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// typed is a command in the documentation, and what it prints there.
type typed struct{ command, output string }

// sessions are the indented blocks of a page in which commands are typed.
func sessions(t *testing.T, page string) (all [][]typed) {
	t.Helper()
	text, err := os.ReadFile(page)
	check(t, err)
	for _, block := range regexp.MustCompile(`(?m)(?:^    .*\n|^\n)+`).FindAllString(string(text), -1) {
		var s []typed
		more := false
		for line := range strings.Lines(strings.Trim(block, "\n") + "\n") {
			line = strings.TrimPrefix(line, "    ")
			command, begins := strings.CutPrefix(line, "$ ")
			switch {
			case begins:
				s = append(s, typed{command: command})
			case len(s) == 0:
				continue
			case more:
				s[len(s)-1].command += line
			default:
				s[len(s)-1].output += line
			}
			more = (begins || more) && strings.HasSuffix(line, "\\\n")
		}
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

// TestDocumentedCommands types what docs/manifest.md has, in its order: from a key to a bundle, with openssl, with a token, and with certificates.
func TestDocumentedCommands(t *testing.T) {
	needTools(t, "openssl", "softhsm2-util", "pkcs11-tool", "sha256sum")
	b := &bench{T: t, dir: t.TempDir()}
	b.env = []string{"MODULE=" + softHSM, "SOFTHSM2_CONF=" + filepath.Join(b.dir, "softhsm2.conf"), "PATH=" + filepath.Join(b.dir, "bin") + ":" + os.Getenv("PATH")}
	b.newToken()
	b.sh(`mkdir bin; printf '#!/bin/sh\nexec %s --pin 1234 "$@"\n' "$(command -v pkcs11-tool)" > bin/pkcs11-tool; chmod +x bin/pkcs11-tool`) // who is asked for it types it
	b.sh("echo an image > rootfs.img; echo firmware > bootfw.bin")
	run := func(s []typed) {
		t.Helper()
		for _, c := range s {
			b.sh(c.command)
		}
	}
	var kid string
	var create []typed
	unsigned := func() { b.sh(strings.Replace(create[0].command, "--key release.key ", "", 1)) }
	steps := []struct {
		begins string
		do     func(s []typed)
	}{
		{"fwu-ab key generate release", func(s []typed) { kid = b.sh(s[0].command + "test $(stat -c %a release.key) = 600") }},
		{"openssl pkey -pubin", func(s []typed) {
			if got := b.sh(s[0].command); got != strings.TrimSpace(kid) {
				t.Errorf("key identifier %s by openssl, %s by us", got, kid)
			}
		}},
		{"cat release.toml", func(s []typed) {
			check(t, os.WriteFile(filepath.Join(b.dir, "release.toml"), []byte(s[0].output), 0o600))
			run(s)
			b.sh("cp release.suit first.suit; touch *.img *.bin")
			run(s)
			b.sh("cmp release.suit first.suit; fwu-ab bundle info release.suit; mkdir out; fwu-ab bundle extract release.suit -C out; cmp out/rootfs rootfs.img; cmp out/bootfw bootfw.bin")
		}},
		{"fwu-ab manifest create", func(s []typed) {
			create = s
			run(s)
			b.verified()
		}},
		{"fwu-ab manifest sign", func(s []typed) {
			unsigned()
			run(s)
			b.verified()
		}},
		{"openssl pkcs8", func(s []typed) {
			unsigned()
			b.sh(strings.TrimSpace(s[0].command) + " -passout pass:secret")
			b.sh(strings.Replace(s[1].command, "protected.key", "protected.key -passin pass:secret", 1))
			b.verified()
		}},
		{"fwu-ab manifest digest", func(s []typed) { // the third command is for a key of another type
			unsigned()
			run(slices.Concat(s[:1], s[2:]))
			b.verified()
			b.sh("mkdir p256; cd p256; fwu-ab key generate --type p256 release; cp release.pub release.key ..")
			unsigned()
			run(slices.Concat(s[:2], s[3:]))
			b.verified()
		}},
		{"pkcs11-tool", func(s []typed) {
			unsigned()
			run(s)
			b.verified()
		}},
		{"fwu-ab manifest show", run},
		{"fwu-ab manifest verify", func(s []typed) {
			b.sh("fwu-ab key generate second; fwu-ab manifest sign --key second.key rootfs.suit")
			run(s)
		}},
		{"openssl genpkey", run},
		{"openssl req -new -key release.key", run},
		{"fwu-ab manifest sign --key release.key --chain release.pem", func(s []typed) {
			unsigned()
			run(s)
		}},
	}
	all := sessions(t, filepath.Join("..", "..", "docs", "manifest.md"))
	if len(all) != len(steps) {
		t.Fatalf("%d blocks with commands, want %d", len(all), len(steps))
	}
	for i, s := range all {
		if !strings.HasPrefix(s[0].command, steps[i].begins) {
			t.Fatalf("%q where %q is expected", s[0].command, steps[i].begins)
		}
		steps[i].do(s)
	}
}

// TestDocumentedCeremony types the commands of docs/keys.md, in their order. Passphrases are typed
// by openssl's options.
func TestDocumentedCeremony(t *testing.T) {
	needTools(t, "openssl", "sha256sum")
	b := &bench{T: t, dir: t.TempDir()}
	passphrase := strings.NewReplacer("-aes256", "-aes256 -pass pass:secret", ".key -pubout", ".key -passin pass:secret -pubout", ".key | ", ".key -passin pass:secret | ")
	n := 0
	for _, s := range sessions(t, filepath.Join("..", "..", "docs", "keys.md")) {
		for _, c := range s {
			b.sh(passphrase.Replace(c.command))
			n++
		}
	}
	if n < 13 {
		t.Errorf("only %d commands", n)
	}
	b.sh("grep -q ENCRYPTED release-1.key")
}
