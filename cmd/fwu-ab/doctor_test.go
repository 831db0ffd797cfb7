package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/test/lab"
)

// patient is a device that was provisioned and booted from bank a, and is well.
type patient struct {
	*testing.T
	*lab.Device
}

func newPatient(t *testing.T) patient {
	t.Helper()
	d, err := lab.New(t.TempDir(), 1<<20, 1<<20, "detached")
	check(t, err)
	check(t, d.Booted(0, "fwu.bank=a"))
	check(t, d.Write("usr/lib/fwu-ab/release", "[rootfs]\nversion = \"1.0.0\"\nsequence = 1\n[bootfw]\nversion = \"1.0.0\"\nsequence = 1\n"))
	runFwu(t, "key", "generate", filepath.Join(d.Root, "etc/fwu-ab/keys/release"))
	p := patient{t, d}
	p.provision()
	return p
}

func (p patient) provision() {
	p.Helper()
	runFwu(p.T, "--root", p.Root, "provision", "--bank", "a", "--force")
}

// configure adds to the configuration.
func (p patient) configure(text string) {
	check(p.T, p.Write("etc/fwu-ab/fwu-ab.toml.d/10-fault.toml", text))
}

// setenv sets variables of the boot environment.
func (p patient) setenv(pairs ...string) {
	p.Helper()
	check(p.T, p.environment().Update(nil, func(e *uboot.Env) error {
		for i := 0; i < len(pairs); i += 2 {
			check(p.T, e.Set(pairs[i], pairs[i+1]))
		}
		return nil
	}))
}

func (p patient) environment() uboot.Environment {
	at := p.Extents["uboot-env"].Offset
	return uboot.Environment{Open: uboot.OpenMedium,
		Copies: []uboot.Location{{Path: p.Disk, Offset: at, Size: lab.EnvironmentSize}, {Path: p.Disk, Offset: at + lab.EnvironmentSize, Size: lab.EnvironmentSize}}}
}

// authority puts the certificate of one among the trust anchors.
func (p patient) authority(from, to time.Duration) {
	p.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(p.T, err)
	now := time.Now()
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Board Root"}, NotBefore: now.Add(from), NotAfter: now.Add(to),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, private)
	check(p.T, err)
	check(p.T, p.Write("etc/fwu-ab/keys/root.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))))
}

func (p patient) truncate(change int64) {
	info, err := os.Stat(p.Disk)
	check(p.T, err)
	check(p.T, os.Truncate(p.Disk, info.Size()+change))
}

// diagnosis is the object that doctor --json prints.
type diagnosis struct {
	Problems, Notes int
	Checks          []finding
	code            int
}

func (p patient) doctor() (out diagnosis) {
	p.Helper()
	text, err := program("--root", p.Root, "doctor", "--json").Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		out.code = exit.ExitCode()
	}
	if err := json.Unmarshal(text, &out); err != nil {
		p.Fatalf("%v: %s", err, text)
	}
	return out
}

// find returns the findings that have the check, the result and, if it is set, the subject of f,
// and whose texts contain those of f.
func (d diagnosis) find(f finding) (found []finding) {
	for _, g := range d.Checks {
		if g.Check == f.Check && g.Result == f.Result && (f.Subject == "" || g.Subject == f.Subject) && strings.Contains(g.Found, f.Found) && strings.Contains(g.Do, f.Do) {
			found = append(found, g)
		}
	}
	return found
}

const bootcount = "[selector.uboot]\nscheme = \"bootcount\"\n[selector.uboot.bank-variables]\npart = {a = \"2\", b = \"3\"}\n"

// TestDoctor plants a fault on a device that was well, and runs the program. A problem has a line
// of its own, with its meaning, and the exit code 1.
func TestDoctor(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, tt := range map[string]struct {
		plant func(p patient)
		want  finding
	}{
		"well":                       {func(patient) {}, finding{"boot selector", "", "ok", "default a", "", ""}},
		"configuration with a fault": {func(p patient) { p.configure("storre = 1\n") }, finding{"configuration", "", "problem", "storre", "", "fwu-ab config"}},
		"no trust anchor":            {func(p patient) { check(p.T, os.RemoveAll(filepath.Join(p.Root, "etc/fwu-ab/keys"))) }, finding{"component", "rootfs", "problem", "/keys", "", ""}},
		"anchor that all can write": {func(p patient) { check(p.T, os.Chmod(filepath.Join(p.Root, "etc/fwu-ab/keys/release.pub"), 0o666)) },
			finding{"owners", "", "problem", "release.pub can be written by every user", "", ""}},
		"an authority":           {func(p patient) { p.authority(-year, year) }, finding{"trust anchor", "rootfs", "ok", "authority CN=Board Root, valid from ", "", ""}},
		"authority, expired":     {func(p patient) { p.noKey(); p.authority(-2*year, -year) }, finding{"trust anchor", "rootfs", "problem", "certificate expired on", "", "clock"}},
		"authority, yet to come": {func(p patient) { p.noKey(); p.authority(year, 2*year) }, finding{"trust anchor", "rootfs", "problem", "not yet valid", "", "clock"}},
		"expired beside a key":   {func(p patient) { p.authority(-2*year, -year) }, finding{"trust anchor", "rootfs", "note", "certificate expired on", "", ""}},
		"authority that ends":    {func(p patient) { p.authority(-year, year/12) }, finding{"trust anchor", "rootfs", "note", "ends within 90 days", "", ""}},
		"slot that is missing": {func(p patient) {
			p.configure("[component.bootfw]\nslots = {a = \"PARTLABEL=bootfw_a\", b = \"PARTLABEL=no\"}\n")
		}, finding{"slot", "bootfw b", "problem", `"bootfw_b"`, "", "partition table"}},
		"slots that were swapped": {func(p patient) {
			p.configure("[component.bootfw]\nslots = {a = \"PARTLABEL=bootfw_b\", b = \"PARTLABEL=bootfw_a\"}\n")
		}, finding{"component", "bootfw", "problem", "config-differs", "", ""}},
		"slots that overlap": {func(p patient) {
			p.configure("[component.bootfw]\nslots = {a = \"PARTLABEL=bootfw_a\", b = \"" + p.Disk + "\"}\n")
		}, finding{"layout", "", "problem", "overlap", "", "place of its own"}},
		"bank unknown":        {func(p patient) { check(p.T, p.Booted(1, "quiet")) }, finding{"booted bank", "", "problem", "", "", "fwu.bank="}},
		"another bank runs":   {func(p patient) { check(p.T, p.Booted(1, "fwu.bank=b")) }, finding{"boot selector", "", "problem", "no trial explains it", "", "fwu-ab reboot"}},
		"store, both damaged": {func(p patient) { check(p.T, p.Fill("fwu-store", 0, make([]byte, 1<<18))) }, finding{"store", "", "problem", "", "", "fwu-ab provision"}},
		"release record":      {func(p patient) { check(p.T, p.Write("usr/lib/fwu-ab/release", "x")) }, finding{"release record", "", "problem", "", "", "release"}},
		"device identifier":   {func(p patient) { p.configure("[identity]\ndevice-file = \"/etc/machine-id\"\n") }, finding{"device identifier", "", "problem", "machine-id", "", ""}},

		"environment, other size": {func(p patient) { p.copies(0x8000, 2) }, finding{"boot selector", "", "problem", "good checksum with 0x10000 bytes and two copies", "", ""}},
		"environment, other number": {func(p patient) { p.copies(0x10000, 1) },
			finding{"boot selector", "", "problem", "good checksum with 0x10000 bytes and two copies (a flag byte), and not with 0x10000 bytes and one copy", "", ""}},
		"environment, one copy": {func(p patient) { p.singleCopy() }, finding{"boot variables", "single-copy", "note", "one copy", "", "docs/porting.md"}},
		"environment, a copy of somebody else": {func(p patient) {
			check(p.T, p.Fill("uboot-env", lab.EnvironmentSize, []byte(strings.Repeat("\x01\x80", 1000))))
		},
			finding{"boot variables", "", "problem", "it is not overwritten", "", ""}},
		"environment, full": {func(p patient) { p.fillUp() }, finding{"boot variables", "", "problem", "does not fit", "", ""}},
		"BOOT_ORDER of names": {func(p patient) {
			p.configure("[selector.uboot]\nscheme = \"boot-order\"\n")
			p.setenv("BOOT_ORDER", "system1 system0")
		}, finding{"boot selector", "", "problem", "[selector.uboot.names]", "", ""}},
		"no altbootcmd": {func(p patient) { p.configure(bootcount); p.setenv("part", "2") }, finding{"boot variables", "", "problem", "has no altbootcmd", "", ""}},
		"altbootcmd that exchanges nothing": {func(p patient) {
			p.configure(bootcount)
			p.setenv("part", "2", "altbootcmd", "run again", "again", "setenv upgrade_available 0; run altbootcmd bootcmd")
		}, finding{"boot variables", "", "problem", "altbootcmd, again, bootcmd, fwu_ab does not set part", "", ""}},
		"altbootcmd that exchanges": {func(p patient) {
			p.configure(bootcount)
			p.setenv("part", "2", "altbootcmd", "if test ${part} = 2; then setenv part 3; else setenv part 2; fi; setenv upgrade_available 0; saveenv; run bootcmd")
		}, finding{"boot selector", "", "ok", "default a", "", ""}},
		"altbootcmd that loads a script": {func(p patient) {
			p.configure(bootcount)
			p.setenv("part", "2", "altbootcmd", "load mmc 0:1 ${scriptaddr} alt.scr && source ${scriptaddr}")
		}, finding{"boot variables", "", "detail", `what "source ${scriptaddr}" does is not known`, "", ""}},

		"fw_env.config, YAML": {func(p patient) {
			p.envConfig("uboot:\n  size : 0x4000\n  devices:\n    - path : /dev/mmcblk0\n      offset : 0xC000\n")
		},
			finding{"boot selector", "", "problem", "line 1: \"uboot:\" begins the YAML form of libubootenv", "", ""}},
		"fw_env.config, a column more": {func(p patient) { p.envConfig("/dev/mmcblk0 0x4000 0x2000 0x2000 1 0 env2\n") }, finding{"boot selector", "", "problem", `line 1: "env2" is one column too many`, "", ""}},
		"fw_env.config, four lines": {func(p patient) {
			p.envConfig(strings.Repeat("/dev/mmcblk0 0x4000 0x2000\n/dev/mmcblk0 0x6000 0x2000\n", 2))
		}, finding{"boot selector", "", "problem", "line 3: a third copy, /dev/mmcblk0 at 0x4000; the environment has one copy or two, and fw_printenv reads the first two lines", "", ""}},

		"GPT, primary damaged":  {func(p patient) { p.wipe(512, 64) }, finding{"partition table", "", "note", "the primary GUID partition table is damaged", "", ""}},
		"GPT, backup misplaced": {func(p patient) { p.truncate(1 << 20) }, finding{"partition table", "", "note", "not at the end of the disk", "", ""}},
		"GPT, disk cut":         {func(p patient) { p.truncate(-1 << 20) }, finding{"disk", "", "problem", "the image was cut, or copied to a smaller disk", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			tt.plant(p)
			got := p.doctor()
			if len(got.find(tt.want)) == 0 {
				t.Errorf("not found: %+v\nin %+v", tt.want, got)
			}
			problems := got.find(finding{Check: tt.want.Check, Result: "problem"})
			if tt.want.Result != "problem" && got.Problems > 0 || tt.want.Result == "problem" && len(problems) == 0 {
				t.Errorf("%d problems: %+v", got.Problems, got)
			}
			if want := min(1, got.Problems); got.code != want {
				t.Errorf("exit code %d with %d problems", got.code, got.Problems)
			}
			for _, f := range got.Checks {
				if (f.Means != "") != (f.Result == "problem") || f.Found == "" || f.Result == "problem" && f.Do == "" {
					t.Errorf("a problem has a meaning and a next step, and nothing else has a meaning: %+v", f)
				}
			}
		})
	}
}

func (p patient) noKey() { check(p.T, os.Remove(filepath.Join(p.Root, "etc/fwu-ab/keys/release.pub"))) }

func (p patient) wipe(off, n int64) {
	f, err := os.OpenFile(p.Disk, os.O_RDWR, 0)
	check(p.T, err)
	_, err = f.WriteAt(make([]byte, n), off)
	check(p.T, errors.Join(err, f.Close()))
}

// copies configures copies of the environment of another size or number.
func (p patient) copies(size int64, n int) {
	text := "[selector.uboot]\ncopies = [\n"
	for i := range n {
		text += "  {device = \"PARTLABEL=uboot-env\", offset = " + []string{"0x0", "0x10000"}[i] + ", size = " + map[int64]string{0x8000: "0x8000", 0x10000: "0x10000"}[size] + "},\n"
	}
	text += "]\n"
	if n == 1 {
		text += "single-copy = true\n"
	}
	p.configure(text)
}

func (p patient) singleCopy() {
	env, _, err := p.environment().Read()
	check(p.T, err)
	check(p.T, p.Fill("uboot-env", 0, make([]byte, 2*lab.EnvironmentSize)))
	one := uboot.Environment{Open: uboot.OpenMedium, SingleCopy: true, Copies: p.environment().Copies[:1]}
	check(p.T, one.Update(env, func(*uboot.Env) error { return nil }))
	p.copies(0x10000, 1)
}

// fillUp leaves room for the variables as they are, and not for those of a trial.
func (p patient) fillUp() {
	env, _, err := p.environment().Read()
	check(p.T, err)
	need := 1
	for _, e := range env.Entries() {
		need += len(e) + 1
	}
	p.setenv("filler", strings.Repeat("x", lab.EnvironmentSize-5-need-len("filler=")-1))
}

func (p patient) envConfig(text string) {
	check(p.T, p.Write("etc/fw_env.config", text))
	config := filepath.Join(p.Root, "etc/fwu-ab/fwu-ab.toml")
	b, err := os.ReadFile(config)
	check(p.T, err)
	before, rest, _ := strings.Cut(string(b), "copies = [")
	_, after, _ := strings.Cut(rest, "]\n")
	check(p.T, os.WriteFile(config, []byte(before+"env-config = \"/etc/fw_env.config\"\n"+after), 0o644))
}

// TestDoctorNamesTheDropIn has the boot environment in files that the unit of the service may not
// write. The lines that the doctor prints are written where it says, and it is well.
func TestDoctorNamesTheDropIn(t *testing.T) {
	p := newPatient(t)
	unit, err := os.ReadFile("../../systemd/units/fwu-ab.service")
	check(t, err)
	check(t, p.Write("usr/lib/systemd/system/fwu-ab.service", string(unit)))
	// a folder of the unit's own, or hidden from it, would need no drop-in
	dir, err := os.MkdirTemp("/var/lib", "fwu-ab-test-")
	check(t, err)
	t.Cleanup(func() { check(t, os.RemoveAll(dir)) })
	env, _, err := p.environment().Read()
	check(t, err)
	files := uboot.Environment{Open: uboot.OpenMedium}
	for _, name := range []string{"uboot.env", "uboot-redund.env"} {
		path := filepath.Join(dir, name)
		check(t, os.WriteFile(path, make([]byte, 0x4000), 0o600))
		files.Copies = append(files.Copies, uboot.Location{Path: path, Size: 0x4000})
	}
	for range files.Copies {
		check(t, files.Update(env, func(e *uboot.Env) error { return e.Set("n", rand.Text()) }))
	}
	p.envConfig(dir + "/uboot.env 0x0 0x4000\n" + dir + "/uboot-redund.env 0x0 0x4000\n")

	got := p.doctor().find(finding{Check: "sandbox", Result: "problem", Found: dir + "/uboot.env"})
	if len(got) != 1 {
		t.Fatalf("%+v", p.doctor())
	}
	first, lines, _ := strings.Cut(got[0].Do, "\n")
	if lines != "[Service]\nReadWritePaths=-"+dir {
		t.Errorf("the drop-in is %q", lines)
	}
	_, rest, _ := strings.Cut(first, " to ")
	file, _, _ := strings.Cut(rest, ",")
	check(t, p.Write(file, lines+"\n"))
	if got := p.doctor(); got.Problems != 0 || len(got.find(finding{Check: "sandbox", Result: "ok"})) != 2 {
		t.Errorf("with the drop-in: %+v", got)
	}
}

// TestDoctorOfReadOnlyMedia has devices and file systems that the kernel does not let write. The
// service does not begin an update there, or does not start.
func TestDoctorOfReadOnlyMedia(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
	needTools(t, "blockdev", "mkfs.ext4")
	p := newPatient(t)
	dev := loopOf(t, p.Disk)
	store := filepath.Join(t.TempDir(), "store.img")
	check(t, os.WriteFile(store, make([]byte, 8<<20), 0o600))
	command(t, "mkfs.ext4", "-q", store)
	dir := t.TempDir()
	command(t, "mount", "-o", "loop", store, dir)
	t.Cleanup(func() { command(t, "umount", dir) })
	disk, err := os.ReadFile(p.Disk)
	check(t, err)
	e := p.Extents["fwu-store"]
	check(t, os.WriteFile(filepath.Join(dir, "store"), disk[e.Offset:e.Offset+e.Size], 0o600))
	p.configure("disk = \"" + dev + "\"\n[store]\ndevice = \"" + dir + "/store\"\n")
	if got := p.doctor(); got.Problems > 0 {
		t.Fatalf("%+v", got)
	}

	parts, err := partition.Finder{Disk: dev}.Partitions(t.Context())
	check(t, err)
	for _, n := range []int{1, 2} { // rootfs_a, rootfs_b
		command(t, "blockdev", "--setro", parts[n].Path)
	}
	got := p.doctor()
	if got.Problems != 1 || len(got.find(finding{"slot", "rootfs b", "problem", "read-only", "", "lsblk"})) != 1 || len(got.find(finding{"slot", "rootfs a", "note", "the update after the next", "", ""})) != 1 {
		t.Errorf("slots that are read-only: %+v", got)
	}
	for _, n := range []int{1, 2} {
		command(t, "blockdev", "--setrw", parts[n].Path)
	}

	command(t, "mount", "-o", "remount,ro", dir)
	got = p.doctor()
	if got.Problems != 1 || len(got.find(finding{"store", "", "problem", "mounted read-only", "", "findmnt"})) != 1 {
		t.Errorf("store on a file system that is read-only: %+v", got)
	}
	out, err := program("--root", p.Root, "daemon").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "mounted read-only") {
		t.Errorf("the daemon: %v, %s", err, out)
	}
}
