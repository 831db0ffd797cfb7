package partition

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
)

func TestParseMountinfo(t *testing.T) {
	tests := map[string]struct {
		line string
		want mount
	}{
		"writable":              {"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard", mount{devno{254, 0}, "/", "/dev/vda", false, nil}},
		"with optional fields":  {"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root ro,errors=continue", mount{devno{98, 0}, "/mnt2", "/dev/root", true, nil}},
		"read-only here only":   {"36 35 98:0 / /ro ro,noatime - ext3 /dev/root rw", mount{devno{98, 0}, "/ro", "/dev/root", false, nil}},
		"blanks in the path":    {`40 1 8:1 / /a\040b\011\134\012 rw - vfat /dev/sda1 rw`, mount{devno{8, 1}, "/a b\t\\\n", "/dev/sda1", false, nil}},
		"no source":             {"23 27 0:22 / /sys rw - sysfs  rw", mount{devno{0, 22}, "/sys", "", false, nil}},
		"an option like ro":     {"23 27 8:2 / /x rw - ext4 /dev/sda2 rw,errors=remount-ro", mount{devno{8, 2}, "/x", "/dev/sda2", false, nil}},
		"a path that is a dash": {"23 27 8:2 / - rw - ext4 /dev/sda2 ro", mount{devno{8, 2}, "-", "/dev/sda2", true, nil}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseMountinfo([]byte(tt.line + "\n"))
			check(t, err)
			if len(got) != 1 || !reflect.DeepEqual(got[0], tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	for _, bad := range []string{"x", "1 2 3 4 5 6 - a b c", "36 35 98:0 / / rw ext3 /dev/root rw", "36 35 98:-1 / / rw - ext3 /dev/root rw", "36 35 98:0 / / rw - ext3 x"} {
		if got, err := parseMountinfo([]byte(bad)); err == nil {
			t.Errorf("%q is understood as %+v", bad, got)
		}
	}
}

func TestParseSwaps(t *testing.T) {
	got := parseSwaps([]byte("Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n/dev/sda3                               partition\t1\t0\t-2\n/swap\\040file\tfile\t1\t0\t-3\n"))
	equal(t, "swaps", got, []string{"/dev/sda3", "/swap file"})
	equal(t, "none", len(parseSwaps(nil)), 0)
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add("27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n")
	f.Add(`40 1 8:1 / /a\040b rw - vfat /dev/sda1 rw`)
	f.Fuzz(func(t *testing.T, s string) {
		mounts, err := parseMountinfo([]byte(s))
		if lines := strings.Count(strings.TrimSuffix(s, "\n"), "\n") + 1; err == nil && s != "" && len(mounts) != lines {
			t.Errorf("%d mounts of %d lines", len(mounts), lines)
		}
	})
}

func FuzzParseSwaps(f *testing.F) {
	f.Add("Filename\tType\n/dev/sda3 partition 1 0 -2\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range parseSwaps([]byte(s)) {
			if p == "" {
				t.Error("an empty path")
			}
		}
	})
}

// fakeHost is a tree of what the kernel would say. Directories end in a slash; a value that begins with "->" is a link.
func fakeHost(t *testing.T, files map[string]string) host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if to, ok := strings.CutPrefix(text, "->"); ok {
			check(t, os.Symlink(to, path))
			continue
		}
		check(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return host{root: root}
}

// encrypted is a system whose root lies on dm-0, on md0, on partition 2 of sda; sda3 is free.
func encrypted() map[string]string {
	files := map[string]string{
		"proc/self/mountinfo": "20 1 254:0 / / rw - ext4 /dev/mapper/root rw\n21 20 0:30 / /run rw - tmpfs tmpfs rw\n" +
			"22 20 8:1 / /boot/e\\040fi rw - vfat /dev/sda1 rw\n23 20 7:0 / /snap ro - squashfs /dev/loop0 ro\n",
		"proc/swaps": "Filename Type Size Used Priority\n",
	}
	device := func(dir, dev, name string) {
		files["sys/devices/"+dir+"/dev"] = dev + "\n"
		files["sys/devices/"+dir+"/uevent"] = "MAJOR=8\nDEVNAME=" + name + "\nDEVTYPE=disk\n"
		files["sys/dev/block/"+dev] = "->../../devices/" + dir
		files["dev/"+name] = ""
	}
	device("sda", "8:0", "sda")
	for i, part := range []string{"sda1", "sda2", "sda3"} {
		n := string(rune('1' + i))
		device("sda/"+part, "8:"+n, part)
		files["sys/devices/sda/"+part+"/partition"] = n + "\n"
		files["sys/devices/sda/"+part+"/start"] = n + "000\n"
		files["sys/devices/sda/"+part+"/size"] = "1000\n"
	}
	device("dm-0", "254:0", "dm-0")
	device("md0", "9:0", "md0")
	device("loop0", "7:0", "loop0")
	files["sys/devices/sda/sda2/holders/md0"] = "->../../../md0"
	files["sys/devices/md0/slaves/sda2"] = "->../../sda/sda2"
	files["sys/devices/md0/holders/dm-0"] = "->../../dm-0"
	files["sys/devices/dm-0/slaves/md0"] = "->../../md0"
	files["sys/block/loop0"] = "->../devices/loop0"
	files["sys/devices/loop0/loop/backing_file"] = "/etc\n" // something that is there
	files["sys/devices/loop0/loop/offset"] = "0\n"
	files["sys/devices/loop0/loop/sizelimit"] = "0\n"
	return files
}

func TestRootDevice(t *testing.T) {
	tests := map[string]struct {
		mountinfo string
		want      devno
		bad       string
	}{
		"a partition":  {"20 1 8:2 / / rw - ext4 /dev/sda2 rw", devno{8, 2}, ""},
		"mounted over": {"1 1 0:1 / / rw - rootfs rootfs rw\n20 1 8:2 / / rw - ext4 /dev/sda2 rw", devno{8, 2}, ""},
		"an overlay":   {"20 1 0:33 / / rw - overlay overlay rw", devno{}, "of no block device"},
		"an overlay over a partition": {"20 1 0:33 / / rw - overlay overlay rw,lowerdir=/media/root-ro,upperdir=/u\n" +
			"21 20 8:2 / /media/root-ro ro - ext4 /dev/sda2 ro", devno{8, 2}, ""},
		"an overlay over a directory of a partition": {"20 1 0:33 / / rw - overlay overlay rw,lowerdir=/ro\\040a/x:/ro\\040a/usr\n" +
			"21 20 8:2 / /ro\\040a ro - ext4 /dev/sda2 ro", devno{8, 2}, ""},
		"the lowest layer of an overlay counts": {"20 1 0:33 / / rw - overlay overlay rw,lowerdir+=/top,lowerdir+=/base\n" +
			"21 20 8:3 / /top ro - ext4 /dev/sda3 ro\n22 20 8:2 / /base ro - ext4 /dev/sda2 ro", devno{8, 2}, ""},
		"an overlay whose layers are mounted nowhere": {"20 1 0:33 / / rw - overlay overlay rw,lowerdir=/gone\n" +
			"21 20 8:2 / /boot ro - ext4 /dev/sda2 ro", devno{}, "of no block device"},
		"nothing":              {"20 1 8:2 / /mnt rw - ext4 /dev/sda2 rw", devno{}, "no root file system"},
		"an unreadable record": {"x", devno{}, "not understood"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := fakeHost(t, map[string]string{"proc/self/mountinfo": tt.mountinfo}).rootDevice()
			if tt.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tt.bad) {
					t.Errorf("got error %v, want %q", err, tt.bad)
				}
				return
			}
			check(t, err)
			if got != tt.want {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestVolatileRoot(t *testing.T) {
	for target, bad := range map[string]string{"/dev/block/8:2": "", "/dev/block/x": "want major:minor", "/dev/gone": "of no block device"} {
		h := fakeHost(t, map[string]string{"proc/self/mountinfo": "20 1 0:33 / / rw - tmpfs tmpfs rw"})
		check(t, os.MkdirAll(h.path("run/systemd"), 0o755))
		check(t, os.Symlink(target, h.path(volatileRoot)))
		got, err := h.rootDevice()
		if bad == "" {
			check(t, err)
			if (got != devno{8, 2}) {
				t.Errorf("%s: got %s", target, got)
			}
		} else if err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: got %s, %v, want %q", target, got, err, bad)
		}
	}
}

func TestPhysicalDisk(t *testing.T) {
	h := fakeHost(t, encrypted())
	for _, d := range []devno{{254, 0}, {9, 0}, {8, 2}, {8, 0}} {
		got, err := h.physicalDisk(d)
		check(t, err)
		if (got != devno{8, 0}) {
			t.Errorf("disk of %s: got %s", d, got)
		}
	}
	files := encrypted()
	files["sys/devices/sdb/dev"] = "8:16"
	files["sys/dev/block/8:16"] = "->../../devices/sdb"
	files["sys/devices/md0/slaves/sdb"] = "->../../sdb"
	if _, err := fakeHost(t, files).physicalDisk(devno{254, 0}); err == nil {
		t.Error("a mirror on two disks has one")
	}
}

func TestUser(t *testing.T) {
	tests := map[string]struct {
		dev  devno
		want string
	}{
		"the root, through dm and md": {devno{8, 2}, "the running system's root file system is on it"},
		"the root's dm device":        {devno{254, 0}, "the running system's root file system is on it"},
		"mounted":                     {devno{8, 1}, "mounted on /boot/e fi"},
		"free":                        {devno{8, 3}, ""},
	}
	h := fakeHost(t, encrypted())
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := h.user(target{path: "/dev/x", dev: tt.dev, block: true, size: mib})
			check(t, err)
			equal(t, "user", got, tt.want)
		})
	}
	files := encrypted()
	files["sys/devices/sda/sda3/holders/dm-0"] = "->../../../dm-0"
	got, err := fakeHost(t, files).user(target{path: "/dev/x", dev: devno{8, 3}, block: true, size: mib})
	check(t, err)
	equal(t, "user", got, "held by dm-0")
}

// TestUnknownUser takes away, one by one, where the kernel would say who uses a device, or makes it
// say something else: it may be in use.
func TestUnknownUser(t *testing.T) {
	tests := map[string]func(map[string]string){
		"nothing is known of mounts":           func(f map[string]string) { delete(f, "proc/self/mountinfo") },
		"a mount is not understood":            func(f map[string]string) { f["proc/self/mountinfo"] += "x\n" },
		"swaps cannot be read":                 func(f map[string]string) { delete(f, "proc/swaps"); f["proc/swaps/x"] = "" },
		"sysfs does not have the device":       func(f map[string]string) { delete(f, "sys/dev/block/8:3") },
		"holders cannot be listed":             func(f map[string]string) { f["sys/devices/sda/sda3/holders"] = "" },
		"a holder has no number":               func(f map[string]string) { f["sys/devices/sda/sda3/holders/x/y"] = "" },
		"sysfs does not have the root":         func(f map[string]string) { delete(f, "sys/dev/block/254:0") },
		"the root's slaves cannot be listed":   func(f map[string]string) { delete(f, "sys/devices/dm-0/slaves/md0"); f["sys/devices/dm-0/slaves"] = "" },
		"a loop device shows a file elsewhere": func(f map[string]string) { f["sys/devices/loop0/loop/backing_file"] = "/nonexistent/image\n" },
		"a loop device's file cannot be read": func(f map[string]string) {
			delete(f, "sys/devices/loop0/loop/backing_file")
			f["sys/devices/loop0/loop/backing_file/x"] = ""
		},
		"loop devices cannot be listed": func(f map[string]string) { delete(f, "sys/block/loop0"); f["sys/block"] = "" },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			files := encrypted()
			change(files)
			why, err := fakeHost(t, files).user(target{path: "/dev/x", dev: devno{8, 3}, block: true, size: mib})
			if err == nil {
				t.Errorf("the device is used by %q, as if that were known", why)
			}
		})
	}
}

func TestFrozen(t *testing.T) {
	tests := map[string]struct {
		dev  devno
		want string // in the error
	}{
		"mounted writable":            {devno{8, 1}, "mounted writable on /boot/e fi"},
		"mounted writable through dm": {devno{8, 2}, "mounted writable on /"},
		"the whole disk":              {devno{8, 0}, "mounted writable on /"},
		"mounted read-only":           {devno{7, 0}, ""},
		"not mounted":                 {devno{8, 3}, ""},
	}
	h := fakeHost(t, encrypted())
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := h.frozen(target{path: "/dev/x", dev: tt.dev, block: true, size: mib})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestFrozenIsDeniedOfWhatCannotBeLookedAt(t *testing.T) {
	files := encrypted()
	delete(files, "dev/sda3")
	if err := fakeHost(t, files).frozen(target{path: "/dev/x", dev: devno{8, 3}, block: true, size: mib}); err == nil {
		t.Error("frozen though nobody knows who holds it")
	}
}

// TestFilesInUse is of files, where the kernel refuses nothing.
func TestFilesInUse(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk image")
	check(t, os.WriteFile(image, make([]byte, 4*mib), 0o644))
	loop := func(path, offset, limit string) map[string]string {
		return map[string]string{
			"sys/block/loop3/dev": "7:3", "sys/block/loop3/loop/backing_file": path + "\n",
			"sys/block/loop3/loop/offset": offset + "\n", "sys/block/loop3/loop/sizelimit": limit + "\n",
		}
	}
	tests := map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing":                    {nil, ""},
		"swapped on":                 {map[string]string{"proc/swaps": "Filename\n" + strings.ReplaceAll(image, " ", `\040`) + " file 1 0 -2\n"}, "swapped on"},
		"attached to a loop device":  {loop(image, "0", "0"), "attached to loop3"},
		"a part, before the window":  {loop(image, "0", "1048576"), ""},
		"a part, behind the window":  {loop(image, "2097152", "0"), ""},
		"a part that overlaps":       {loop(image, "2097151", "1"), "attached to loop3"},
		"another file's loop device": {loop(filepath.Dir(image), "0", "0"), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := fakeHost(t, tt.files)
			err := h.busy(target{path: image, window: true, base: mib, size: mib})
			if tt.want == "" {
				check(t, err)
				return
			}
			wantErr(t, err, fwu.ErrSlotBusy)
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v does not say %q", err, tt.want)
			}
		})
	}
}
