package bootctl

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
)

const (
	bootID = "3f1c8a52-3d3a-4c55-8a2e-0c1f3a5b7d90"
	uuidA  = "12db903d-b2a8-444e-85fe-6c2d0073b7b4"
	uuidB  = "6bcf001a-1454-4cab-b0e4-fbf141adccb9"
)

// device is a block device in a fake sysfs.
type device struct {
	name, number string
	slaves       []string
	backing      string // of a loop device
}

// machine is a directory with what Boot looks at.
type machine struct {
	cmdline, mountinfo string
	devices            []device
	links              map[string]string // below /dev
	run                map[string]string // links below /run
	gone               bool              // the slot of bank b cannot be found
}

func (m machine) build(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	file := func(path, content string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file("proc/sys/kernel/random/boot_id", bootID+"\n")
	file("proc/cmdline", m.cmdline+"\n")
	file("proc/self/mountinfo", m.mountinfo)
	for _, d := range m.devices {
		file("dev/"+d.name, "")
		file("sys/class/block/"+d.name+"/dev", d.number+"\n")
		file("sys/dev/block/"+d.number+"/dev", d.number+"\n")
		for _, s := range d.slaves {
			file("sys/dev/block/"+d.number+"/slaves/"+s, "")
		}
		if d.backing != "" {
			file("sys/dev/block/"+d.number+"/loop/backing_file", d.backing+"\n")
		}
	}
	for link, target := range m.links {
		path := filepath.Join(root, "dev", link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range m.run {
		path := filepath.Join(root, "run", link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// table is the partition table with the slots.
func table() []Partition {
	return []Partition{{3, "first", uuidA, "/dev/mmcblk0p3"}, {5, "second", uuidB, "/dev/mmcblk0p5"}}
}

func partitions(more ...device) []device {
	return append(more, device{name: "mmcblk0p1", number: "179:1"}, device{name: "mmcblk0p2", number: "179:2"}, device{name: "mmcblk0p3", number: "179:3"},
		device{name: "mmcblk0p4", number: "179:4"}, device{name: "mmcblk0p5", number: "179:5"})
}

// slots: kernel and root file system of bank a on p2 and p3, of bank b on p4 and p5.
func slots() [2][]fwu.SlotInfo {
	return [2][]fwu.SlotInfo{
		{{ID: "kernel-a", Path: "/dev/mmcblk0p2"}, {ID: uuidA, Path: "/dev/disk/by-partlabel/rootfs_a"}},
		{{ID: "kernel-b", Path: "/dev/mmcblk0p4"}, {ID: uuidB, Path: "/dev/gone"}},
	}
}

func links() map[string]string {
	return map[string]string{"disk/by-partlabel/rootfs_a": "../../mmcblk0p3", "disk/by-partlabel/rootfs_b": "../../mmcblk0p5",
		"disk/by-partuuid/" + uuidB: "../../mmcblk0p5", "mapper/root": "../dm-0"}
}

func rootOn(number, fstype, source string) string {
	return "1 1 0:2 / / rw - rootfs rootfs rw\n22 1 0:21 / /proc rw,relatime shared:3 - proc proc rw\n23 1 " + number + " / / ro,relatime shared:1 master:2 - " + fstype + " " + source + " ro\n24 23 179:1 / /boot rw - vfat /dev/mmcblk0p1 rw\n"
}

func TestBoot(t *testing.T) {
	onA, onB := rootOn("179:3", "ext4", "/dev/root"), rootOn("179:5", "ext4", "/dev/mmcblk0p5")
	nowhere := rootOn("0:30", "overlay", "overlay")
	for name, tt := range map[string]struct {
		machine machine
		names   map[string]fwu.Bank
		more    []Evidence
		want    fwu.Bank
		why     string
	}{
		"command line and root device agree": {machine: machine{cmdline: "root=PARTUUID=" + uuidB + " fwu.bank=b quiet", mountinfo: onB}, want: "b",
			why: "bank b, known from kernel command line, kernel command line, root device"},
		"root device only":                                   {machine: machine{cmdline: "quiet", mountinfo: onA}, want: "a", why: "bank a, known from root device"},
		"root= in upper case, as firmware may":               {machine: machine{cmdline: "root=PARTUUID=" + strings.ToUpper(uuidB), mountinfo: nowhere}, want: "b"},
		"root= by label":                                     {machine: machine{cmdline: "root=PARTLABEL=rootfs_b", mountinfo: nowhere}, want: "b"},
		"root= by name":                                      {machine: machine{cmdline: "root=/dev/mmcblk0p3", mountinfo: nowhere}, want: "a"},
		"the last root= counts":                              {machine: machine{cmdline: "root=/dev/mmcblk0p3 root=/dev/mmcblk0p5", mountinfo: onB}, want: "b"},
		"root= by device-mapper name":                        {machine: machine{cmdline: "root=/dev/mapper/root", mountinfo: nowhere, devices: []device{{name: "dm-0", number: "254:0", slaves: []string{"mmcblk0p5"}}}}, want: "b"},
		"root= by a UUID of the file system":                 {machine: machine{cmdline: "root=UUID=" + uuidB, mountinfo: onA}, want: "a"},
		"root= is the other bank's":                          {machine: machine{cmdline: "root=/dev/mmcblk0p5", mountinfo: onA}, why: "contradicts itself"},
		"fwu.bank= is the other bank":                        {machine: machine{cmdline: "fwu.bank=b", mountinfo: onA}, why: "fwu.bank=b; root device: /dev/root (ext4, 179:3)"},
		"fwu.bank= twice":                                    {machine: machine{cmdline: "fwu.bank=b fwu.bank=a", mountinfo: nowhere}, why: "contradicts itself"},
		"fwu.bank= twice the same":                           {machine: machine{cmdline: "fwu.bank=b fwu.bank=b", mountinfo: nowhere}, want: "b"},
		"fwu.bank= is no bank":                               {machine: machine{cmdline: "fwu.bank=c", mountinfo: onA}, why: "fwu.bank=c is no bank"},
		"fwu.bank= empty":                                    {machine: machine{cmdline: "fwu.bank=", mountinfo: onA}, why: "fwu.bank= is no bank"},
		"fwu.bank= after the end of the kernel's parameters": {machine: machine{cmdline: "quiet -- fwu.bank=b", mountinfo: onA}, want: "a"},
		"fwu.bank= within quotes of another parameter":       {machine: machine{cmdline: `dyndbg="file x fwu.bank=b" x`, mountinfo: onA}, want: "a"},
		"rauc.slot=":                                         {machine: machine{cmdline: "rauc.slot=B", mountinfo: onB}, want: "b"},
		"rauc.slot= by a configured name":                    {machine: machine{cmdline: "rauc.slot=system1", mountinfo: nowhere}, names: map[string]fwu.Bank{"system1": "b"}, want: "b"},
		"rauc.slot= of a recovery system":                    {machine: machine{cmdline: "rauc.slot=recovery", mountinfo: onA}, why: "rauc.slot=recovery is no bank"},
		"root on verity":                                     {machine: machine{mountinfo: rootOn("254:0", "ext4", "/dev/mapper/root"), devices: []device{{name: "dm-0", number: "254:0", slaves: []string{"dm-1", "mmcblk0p1"}}, {name: "dm-1", number: "254:1", slaves: []string{"mmcblk0p3"}}}}, want: "a"},
		"root on a loop device on a slot":                    {machine: machine{mountinfo: rootOn("7:0", "squashfs", "/dev/loop0"), devices: []device{{name: "loop0", number: "7:0", backing: "/dev/mmcblk0p4"}}}, want: "b"},
		"root on a loop device on a file":                    {machine: machine{mountinfo: rootOn("7:0", "squashfs", "/dev/loop0"), devices: []device{{name: "loop0", number: "7:0", backing: "/data/dev/mmcblk0p4"}}}, why: "nothing tells"},
		"root on btrfs, which has no number":                 {machine: machine{mountinfo: rootOn("0:27", "btrfs", "/dev/mmcblk0p3")}, want: "a"},
		"root on a mirror of both banks":                     {machine: machine{mountinfo: rootOn("9:0", "ext4", "/dev/md0"), devices: []device{{name: "md0", number: "9:0", slaves: []string{"mmcblk0p3", "mmcblk0p5"}}}}, why: "lies in slots of both banks"},
		"devices that lie on each other":                     {machine: machine{mountinfo: rootOn("254:0", "ext4", "/dev/dm-0"), devices: []device{{name: "dm-0", number: "254:0", slaves: []string{"dm-1"}}, {name: "dm-1", number: "254:1", slaves: []string{"dm-0"}}}}, why: "contradicts"},
		"root in memory":                                     {machine: machine{mountinfo: rootOn("0:2", "tmpfs", "tmpfs")}, why: "nothing tells the booted bank: kernel command line: no fwu.bank=, rauc.slot= or root=; root device: tmpfs (tmpfs, 0:2), which tells nothing"},
		"root on a rescue stick":                             {machine: machine{cmdline: "root=/dev/sda1", mountinfo: rootOn("8:1", "ext4", "/dev/sda1")}, why: "nothing tells"},
		"root on a clone, by name":                           {machine: machine{cmdline: "fwu.bank=b", mountinfo: rootOn("8:1", "ext4", "/dev/sda1"), devices: []device{{name: "sda1", number: "8:1"}}}, why: "fwu.bank=b; root device: /dev/sda1 (ext4, 8:1) is no slot"},
		"root on a clone, by root=":                          {machine: machine{cmdline: "root=/dev/mmcblk0p5", mountinfo: rootOn("8:1", "ext4", "/dev/sda1"), devices: []device{{name: "sda1", number: "8:1"}}}, why: "is no slot of either bank"},
		"root on verity on a clone":                          {machine: machine{cmdline: "fwu.bank=b", mountinfo: rootOn("254:0", "ext4", "/dev/dm-0"), devices: []device{{name: "dm-0", number: "254:0", slaves: []string{"sda1"}}, {name: "sda1", number: "8:1"}}}, why: "is no slot of either bank"},
		"root on NFS":                                        {machine: machine{cmdline: "fwu.bank=b", mountinfo: rootOn("0:21", "nfs", "10.0.0.1:/export")}, why: "10.0.0.1:/export (nfs, 0:21) is no slot"},
		"root=/dev/nfs, and an overlay":                      {machine: machine{cmdline: "fwu.bank=b root=/dev/nfs", mountinfo: nowhere}, why: "is on a network"},
		"root of a container":                                {machine: machine{cmdline: "fwu.bank=b", mountinfo: rootOn("0:40", "9p", "share")}, why: "is no slot"},
		"rauc.external":                                      {machine: machine{cmdline: "rauc.external root=/dev/mmcblk0p5", mountinfo: onB}, why: "rauc.external"},
		"root in memory, and a name":                         {machine: machine{cmdline: "fwu.bank=b root=/dev/ram0", mountinfo: rootOn("1:0", "ext2", "/dev/ram0")}, want: "b"},
		"root= was for the initrd":                           {machine: machine{cmdline: "fwu.bank=b root=/dev/sda1", mountinfo: onB, devices: []device{{name: "sda1", number: "8:1"}}}, want: "b"},
		"a slot that cannot be found proves nothing":         {machine: machine{cmdline: "fwu.bank=b", mountinfo: rootOn("8:1", "ext4", "/dev/sda1"), devices: []device{{name: "sda1", number: "8:1"}}, gone: true}, want: "b"},
		"overlay over a slot": {machine: machine{mountinfo: strings.Replace(nowhere, "overlay ro\n", "overlay ro,lowerdir=/run/lower/usr:/x,upperdir=/u\n", 1) +
			"30 23 179:5 / /run/lower ro - squashfs /dev/mmcblk0p5 ro\n"}, want: "b"},
		"overlay over a slot, as Linux 6.8 writes it": {machine: machine{mountinfo: strings.Replace(nowhere, "overlay ro\n", "overlay ro,lowerdir+=/run/top,lowerdir+=/run/lower\n", 1) +
			"30 23 179:5 / /run/lower ro - squashfs /dev/mmcblk0p5 ro\n"}, want: "b"},
		"overlay over a clone is neutral": {machine: machine{cmdline: "fwu.bank=b", mountinfo: strings.Replace(nowhere, "overlay ro\n", "overlay ro,lowerdir=/run/lower\n", 1) +
			"30 23 8:1 / /run/lower ro - squashfs /dev/sda1 ro\n", devices: []device{{name: "sda1", number: "8:1"}}}, want: "b"},
		"volatile root over a slot":                {machine: machine{mountinfo: nowhere, run: map[string]string{"systemd/volatile-root": "/dev/block/179:5"}}, want: "b"},
		"volatile root over a clone":               {machine: machine{cmdline: "fwu.bank=b", mountinfo: nowhere, run: map[string]string{"systemd/volatile-root": "/dev/block/8:1"}, devices: []device{{name: "sda1", number: "8:1"}}}, why: "is no slot"},
		"root= by number":                          {machine: machine{cmdline: "root=179:5", mountinfo: nowhere}, want: "b"},
		"root= by hexadecimal number":              {machine: machine{cmdline: "root=b303", mountinfo: nowhere}, want: "a"},
		"root= by PARTNROFF":                       {machine: machine{cmdline: "root=PARTUUID=" + uuidA + "/PARTNROFF=2", mountinfo: nowhere}, want: "b"},
		"root= by PARTNROFF out of the table":      {machine: machine{cmdline: "root=PARTUUID=" + uuidA + "/PARTNROFF=7", mountinfo: nowhere}, why: "is not found in the partition table"},
		"root= by a label that udev does not have": {machine: machine{cmdline: "root=PARTLABEL=second", mountinfo: nowhere}, want: "b"},
		"root= by the UUID of a file system":       {machine: machine{cmdline: "root=UUID=0F3C0E1A-66F4-4f4b-9c67-111111111111", mountinfo: nowhere}, want: "b"},
		"root= by the label of a file system":      {machine: machine{cmdline: "root=LABEL=system-b", mountinfo: nowhere}, want: "b"},
		"systemd.verity_root_data=":                {machine: machine{cmdline: "systemd.verity_root_data=PARTUUID=" + uuidB, mountinfo: nowhere}, want: "b"},
		"roothash=":                                {machine: machine{cmdline: "roothash=" + strings.ReplaceAll(uuidB, "-", "") + strings.Repeat("0", 32), mountinfo: nowhere}, want: "b"},
		"no root mount":                            {machine: machine{cmdline: "fwu.bank=a", mountinfo: "garbage\n1 2 3\n"}, want: "a"},
		"the firmware says the same":               {machine: machine{mountinfo: onA}, more: []Evidence{{"BootCurrent", "0005", "a", false}}, want: "a", why: "bank a, known from root device, BootCurrent"},
		"the firmware says otherwise":              {machine: machine{mountinfo: onA}, more: []Evidence{{"BootCurrent", "0006", "b", false}}, why: "BootCurrent: 0006"},
		"the firmware started something else":      {machine: machine{mountinfo: onA}, more: []Evidence{{"BootCurrent", "0001, a foreign entry", "", true}}, why: "BootCurrent: 0001"},
		"the firmware says nothing":                {machine: machine{mountinfo: onA}, more: []Evidence{{"BootCurrent", "not there", "", false}}, want: "a"},
		"a command line that is far too long":      {machine: machine{cmdline: "fwu.bank=b " + strings.Repeat("x", 1<<17), mountinfo: nowhere}, why: "longer than"},
		"device node that leads out of the root":   {machine: machine{cmdline: "root=/dev/out", mountinfo: nowhere}, why: "nothing tells"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.machine.devices = partitions(tt.machine.devices...)
			tt.machine.links = links()
			tt.machine.links["out"] = "/proc/version"
			if tt.machine.gone {
				delete(tt.machine.links, "disk/by-partuuid/"+uuidB)
			}
			r := Running{Root: tt.machine.build(t), Slots: slots(), Table: table(), Names: tt.names, More: tt.more}
			withFileSystem(t, r.Root, "0f3c0e1a-66f4-4f4b-9c67-111111111111", "system-b")
			got, err := r.Boot()
			if err != nil {
				t.Fatal(err)
			}
			if got.ID != bootID || got.Bank != tt.want || !strings.Contains(got.Why, tt.why) {
				t.Errorf("got %q, want bank %q, why %q", got, tt.want, tt.why)
			}
		})
	}
}

// TestSlotWithTheIDThatAFinderGivesIt has only a PARTUUID to go by: no path leads to the slot.
func TestSlotWithTheIDThatAFinderGivesIt(t *testing.T) {
	upper := strings.ToUpper(uuidB)
	m := machine{mountinfo: rootOn("179:5", "ext4", "/dev/root"), devices: partitions(), links: map[string]string{"disk/by-partuuid/" + uuidB: "../../mmcblk0p5"}}
	for _, id := range []string{uuidB, "partuuid:" + uuidB} {
		slots := [2][]fwu.SlotInfo{{{ID: "partuuid:" + uuidA, Path: "/dev/disk@0"}}, {{ID: id, Path: "/dev/gone"}}}
		r := Running{Root: m.build(t), Slots: slots}
		if got := r.rootDevice(); got.Bank != fwu.BankB {
			t.Errorf("%s, by its device: %+v", id, got)
		}
		r.Root = t.TempDir() // nothing is known of devices
		if got := r.rootParameter("root", "PARTUUID="+upper); got.Bank != fwu.BankB {
			t.Errorf("%s, by root=PARTUUID=%s: %+v", id, upper, got)
		}
	}
}

func TestBootWithoutAnythingToRead(t *testing.T) {
	if got, err := (Running{Root: t.TempDir()}).Boot(); err == nil {
		t.Error("a boot without an id:", got)
	}
	root := machine{cmdline: "fwu.bank=a", mountinfo: rootOn("0:2", "tmpfs", "tmpfs")}.build(t)
	for _, f := range []string{"proc/cmdline", "proc/self/mountinfo"} {
		if err := os.Remove(filepath.Join(root, f)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := (Running{Root: root}).Boot(); err != nil || got.Bank != fwu.NoBank || !strings.Contains(got.Why, "no such file") {
		t.Error(got, err)
	}
	if err := os.WriteFile(filepath.Join(root, "proc/sys/kernel/random/boot_id"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := (Running{Root: root}).Boot(); err == nil {
		t.Error("a boot id that is none:", got)
	}
}

func TestBootOfThisMachineHasTheIDOfTheKernel(t *testing.T) {
	want, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Running{}.Boot()
	if err != nil || got.ID != strings.TrimSpace(string(want)) || got.Bank != fwu.NoBank {
		t.Error(got, err)
	}
}

// withFileSystem makes the slot of the kernel of bank b one that has a file system. The
// evidence is that file system.
func withFileSystem(t *testing.T, root, uuid, label string) {
	t.Helper()
	need(t, exec.Command("mkfs.ext4", "-V").Run() == nil, "mkfs.ext4")
	file := filepath.Join(root, "dev/mmcblk0p4")
	if err := os.Truncate(file, 1<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-U", uuid, "-L", label, file).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %s", out)
	}
}

// need skips where the machine cannot do it, unless everything is to be run.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	if !ok {
		if os.Getenv("FWUAB_TEST_ALL") != "" {
			t.Fatal("needs " + what)
		}
		t.Skip("needs " + what)
	}
}

func TestLoopDeviceOnALoopDeviceIsFollowed(t *testing.T) {
	need(t, os.Geteuid() == 0, "root")
	attach := func(file string) string {
		t.Helper()
		out, err := exec.Command("losetup", "--find", "--show", file).Output()
		need(t, err == nil, "loop devices")
		dev := strings.TrimSpace(string(out))
		t.Cleanup(func() {
			if err := exec.Command("losetup", "--detach", dev).Run(); err != nil {
				t.Error(err)
			}
		})
		return dev
	}
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	lower := attach(file)
	upper := attach(lower)
	r := Running{Slots: [2][]fwu.SlotInfo{{{ID: "x", Path: "/dev/nothing"}}, {{ID: lower, Path: lower}}}}
	want := Evidence{Source: "kernel command line", Text: "root=" + upper, Bank: fwu.BankB}
	if diff := cmp.Diff(want, r.rootParameter("root", upper)); diff != "" {
		t.Error(diff)
	}
}

func FuzzParameters(f *testing.F) {
	f.Add(`root=PARTUUID=1 dyndbg="file x +p" fwu.bank=b -- fwu.bank=a`)
	f.Add(`"fwu.bank=a" a"b c"d -- x`)
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		for _, p := range parameters(text) {
			if p == "" {
				t.Error("empty parameter")
			}
			n += len(p)
		}
		if n > len(text) {
			t.Errorf("%d bytes of parameters from %d", n, len(text))
		}
	})
}

func FuzzMounts(f *testing.F) {
	f.Add(rootOn("179:3", "ext4", "/dev/root"))
	f.Add("a b 1:2 d / f - g h\n - \n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseMounts(text) {
			if m.number == "" || strings.ContainsAny(m.number+m.source, " \n") {
				t.Errorf("%+v", m)
			}
		}
	})
}
