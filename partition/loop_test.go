package partition

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/partition/diskimage"
	"github.com/fwu-ab/fwu-ab/test/stranger"
)

// mincore tells which pages of mem are in the page cache.
func mincore(mem, pages []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// needs fails the test if it cannot be run here, or skips it if it need not.
func needs(t *testing.T, root bool, tools ...string) {
	t.Helper()
	missing := ""
	if root && os.Getuid() != 0 {
		missing = "root"
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing += " " + tool
		}
	}
	switch {
	case missing == "":
	case os.Getenv("FWUAB_TEST_ALL") == "":
		t.Skip("missing: " + missing)
	default:
		t.Fatal("missing: " + missing)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// loopDevice attaches a file. Where there are no loop devices at all the test is treated like one that lacks a tool.
func loopDevice(t *testing.T, path string, args ...string) string {
	t.Helper()
	needs(t, true, "losetup")
	out, err := exec.Command("losetup", append(append([]string{"--find", "--show"}, args...), path)...).CombinedOutput()
	if err != nil && os.Getenv("FWUAB_TEST_ALL") == "" {
		t.Skipf("losetup: %s", out)
	}
	if err != nil {
		t.Fatalf("losetup: %s", out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { run(t, "losetup", "--detach", dev) })
	return dev
}

// partitioned is a loop device with nodes for its partitions, whether or not this kernel reads GUID partition tables itself.
func partitioned(t *testing.T, path string, sector int) string {
	t.Helper()
	needs(t, true, "partx")
	dev := loopDevice(t, path, "--partscan", "--sector-size", fmt.Sprint(sector))
	if out, err := exec.Command("partx", "--update", "--sector-size", fmt.Sprint(sector), dev).CombinedOutput(); err != nil {
		t.Logf("partx: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("partx", "--delete", dev).Run() })
	waitFor(t, dev+"p2")
	return dev
}

func waitFor(t *testing.T, path string) {
	t.Helper()
	for range 6000 { // two minutes: only a failure takes so long
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s does not appear", path)
}

func TestLoopDevice(t *testing.T) {
	for _, args := range [][]string{nil, {"--sector-size", "4096"}, {"--direct-io=on"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			dev := loopDevice(t, newFileSlot(t, 8*mib), args...)
			s := find(t, Finder{}, dev)
			equal(t, "info", s.Info(), fwu.SlotInfo{ID: dev, Path: dev, Size: 8 * mib})
			wholeUpdate(t, s, squashfs(5*mib+17))
		})
	}
}

func TestPartitionsOfALoopDevice(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint("sectors of ", sector), func(t *testing.T) {
			path := twoSlots(t, sector)
			dev := partitioned(t, path, sector)
			f := Finder{Disk: dev}
			s := find(t, f, "PARTLABEL=rootfs-b")
			equal(t, "info", s.Info(), fwu.SlotInfo{ID: "partuuid:" + uuidB, Path: dev + "p2", Size: mib})
			equal(t, "info by path", find(t, Finder{}, dev+"p2").Info(), s.Info())
			wholeUpdate(t, s, squashfs(mib))
			partitions, err := f.Partitions(t.Context())
			check(t, err)
			equal(t, "node", partitions[0].Path, dev+"p1")

			_, err = find(t, Finder{Disk: path}, "PARTLABEL=rootfs-b").Open(t.Context())
			wantErr(t, err, fwu.ErrSlotBusy) // through the file, below the loop device's feet
		})
	}
}

func TestTableThatTheKernelHasNotRead(t *testing.T) {
	path := twoSlots(t, 512)
	dev := partitioned(t, path, 512)
	b := readFile(t, path)
	partitionAt(2048+8, 4095)(b)
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt(b[:mib], 0)
	check(t, err)
	check(t, f.Close())
	for _, spec := range []string{"PARTLABEL=rootfs-a", dev + "p1"} {
		if s, err := (Finder{Disk: dev}).Find(t.Context(), spec); err == nil && strings.HasPrefix(s.Info().ID, "partuuid:") {
			t.Errorf("%s is found where the table says something else: %+v", spec, s.Info())
		}
	}
}

func TestWindowsOfALoopDevice(t *testing.T) {
	dev := loopDevice(t, twoSlots(t, 512))
	f := Finder{Disk: dev}
	a, err := find(t, f, "PARTLABEL=rootfs-a").Open(t.Context())
	check(t, err)
	defer a.Close()
	s := find(t, f, "PARTLABEL=rootfs-b")
	equal(t, "path", s.Info().Path, dev+"@2097152")
	wholeUpdate(t, s, squashfs(mib))
}

func TestWindowWhosePartitionGotANode(t *testing.T) {
	needs(t, true, "partx")
	dev := loopDevice(t, twoSlots(t, 512))
	s := find(t, Finder{Disk: dev}, "PARTLABEL=rootfs-b")
	run(t, "partx", "--add", dev)
	t.Cleanup(func() { run(t, "partx", "--delete", dev) })
	waitFor(t, dev+"p2")
	if m, err := s.Open(t.Context()); err == nil {
		m.Close()
		t.Error("the window is opened below the node's feet")
	} else if !strings.Contains(err.Error(), "not where it was found") {
		t.Error(err)
	}
	wholeUpdate(t, find(t, Finder{Disk: dev}, "PARTLABEL=rootfs-b"), squashfs(mib))
}

func TestMountedDevice(t *testing.T) {
	needs(t, true, "mkfs.ext4", "mount", "umount")
	dev := loopDevice(t, newFileSlot(t, 16*mib))
	run(t, "mkfs.ext4", "-q", dev)
	dir := filepath.Join(t.TempDir(), "mount point")
	check(t, os.Mkdir(dir, 0o755))
	s := find(t, Finder{}, dev)
	frozen := func() error {
		src, err := s.Source(t.Context())
		check(t, err)
		defer src.Close()
		return src.Frozen()
	}
	check(t, frozen())
	wantBootable(t, s, true)

	run(t, "mount", dev, dir)
	unmount := func() { run(t, "umount", dir) }
	t.Cleanup(func() { exec.Command("umount", dir).Run() })
	for range 2 {
		_, err := s.Open(t.Context())
		wantErr(t, err, fwu.ErrSlotBusy)
		if !strings.Contains(err.Error(), "mounted on "+dir) {
			t.Errorf("%v does not name %s", err, dir)
		}
	}
	if err := frozen(); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("frozen though mounted writable: %v", err)
	}
	run(t, "mount", "-o", "remount,bind,ro", dir)
	if frozen() == nil {
		t.Error("frozen though only the mount point is read-only")
	}
	run(t, "mount", "-o", "remount,ro", dir)
	check(t, frozen())
	unmount()
	m, err := s.Open(t.Context())
	check(t, err)
	if exec.Command("mount", dev, dir).Run() == nil {
		t.Error("mounted while it is open")
	}
	check(t, m.Close())
	plain := readFile(t, dev)[:2*mib]

	m, err = s.Open(t.Context())
	check(t, err)
	check(t, m.Resume(t.Context(), sha256.New(), 0))
	check(t, m.WriteAt(t.Context(), plain, 0))
	_, head, err := m.Sum(t.Context(), 2*mib, nil)
	check(t, err)
	if exec.Command("mount", dev, dir).Run() == nil {
		t.Error("mounted though sealed")
	}
	check(t, m.Close())
	if exec.Command("mount", dev, dir).Run() == nil {
		t.Error("mounted though sealed")
	}
	m, err = s.Open(t.Context())
	check(t, err)
	check(t, m.Unseal(t.Context(), head))
	check(t, m.Close())
	run(t, "mount", dev, dir)
	unmount()
	m, err = s.Open(t.Context())
	check(t, err)
	check(t, m.Erase(t.Context(), nil))
	check(t, m.Close())
	if exec.Command("mount", dev, dir).Run() == nil {
		t.Error("mounted though erased")
	}
}

// TestMountedInAnotherNamespace has mounts that are not in this process's table: of a device, and of a file through a loop device.
func TestMountedInAnotherNamespace(t *testing.T) {
	needs(t, true, "mkfs.ext4", "mount", "unshare")
	path := newFileSlot(t, 16*mib)
	dev := loopDevice(t, path)
	run(t, "mkfs.ext4", "-q", dev)
	var sources []fwu.Source
	for _, spec := range []string{dev, path} {
		src, err := find(t, Finder{}, spec).Source(t.Context())
		check(t, err)
		defer src.Close()
		sources = append(sources, src)
		for range 3 { // to look leaves nothing behind
			check(t, src.Frozen())
		}
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount "$1" "$2" && echo mounted && read wait`, "sh", dev, t.TempDir())
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Errorf("mounting said %q: %v", line, err)
	}
	for _, src := range sources {
		if err := src.Frozen(); err == nil || !strings.Contains(err.Error(), "held by another process") {
			t.Errorf("frozen though mounted in another namespace: %v", err)
		}
	}
	check(t, in.Close())
	cmd.Wait() // read fails at the end of its input
	for _, src := range sources {
		for range 6000 { // the kernel unmounts in its own time
			if err = src.Frozen(); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		check(t, err)
	}
}

func TestFileMountedThroughALoopDevice(t *testing.T) {
	needs(t, true, "mkfs.ext4", "mount", "umount")
	path := newFileSlot(t, 16*mib)
	dev := loopDevice(t, path)
	s := find(t, Finder{}, path)
	_, err := s.Open(t.Context())
	wantErr(t, err, fwu.ErrSlotBusy)
	if !strings.Contains(err.Error(), "attached to "+filepath.Base(dev)) {
		t.Errorf("%v does not name %s", err, dev)
	}
	dir := t.TempDir()
	run(t, "mkfs.ext4", "-q", dev)
	run(t, "mount", dev, dir)
	t.Cleanup(func() { exec.Command("umount", dir).Run() })
	src, err := s.Source(t.Context())
	check(t, err)
	defer src.Close()
	if err := src.Frozen(); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("frozen though mounted through %s: %v", dev, err)
	}
	run(t, "umount", dir)
}

// TestPartitionMountedThroughALoopDeviceOnTheDisk has the kernel know of no holder of the partition.
func TestPartitionMountedThroughALoopDeviceOnTheDisk(t *testing.T) {
	needs(t, true, "mkfs.ext4", "mount", "umount")
	disk := partitioned(t, twoSlots(t, 512), 512)
	a, b := find(t, Finder{Disk: disk}, "PARTLABEL=rootfs-a"), find(t, Finder{Disk: disk}, "PARTLABEL=rootfs-b")
	dev := loopDevice(t, disk, "--offset", fmt.Sprint(2*mib), "--sizelimit", fmt.Sprint(mib))
	run(t, "mkfs.ext4", "-q", dev)
	dir := t.TempDir()
	run(t, "mount", dev, dir)
	t.Cleanup(func() { exec.Command("umount", dir).Run() })
	_, err := b.Open(t.Context())
	wantErr(t, err, fwu.ErrSlotBusy)
	if !strings.Contains(err.Error(), "attached to "+filepath.Base(dev)) {
		t.Errorf("%v does not name %s", err, dev)
	}
	src, err := b.Source(t.Context())
	check(t, err)
	defer src.Close()
	if err := src.Frozen(); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("frozen though mounted through %s: %v", dev, err)
	}
	m, err := a.Open(t.Context())
	check(t, err) // its neighbour
	check(t, m.Close())
	run(t, "umount", dir)
}

func TestSwappedOn(t *testing.T) {
	needs(t, true, "mkswap", "swapon", "swapoff")
	dev := loopDevice(t, newFileSlot(t, 16*mib))
	run(t, "mkswap", dev)
	run(t, "swapon", dev)
	t.Cleanup(func() { run(t, "swapoff", dev) })
	_, err := find(t, Finder{}, dev).Open(t.Context())
	wantErr(t, err, fwu.ErrSlotBusy)
	if !strings.Contains(err.Error(), "swapped on") {
		t.Error(err)
	}
}

func TestHeldByDeviceMapper(t *testing.T) {
	needs(t, true, "dmsetup")
	if !strings.Contains(string(readFile(t, "/proc/devices")), "device-mapper") {
		t.Skip("this kernel has no device mapper")
	}
	dev := loopDevice(t, newFileSlot(t, 16*mib))
	name := fmt.Sprintf("fwuab-test-%d", os.Getpid())
	run(t, "dmsetup", "create", name, "--table", fmt.Sprintf("0 %d linear %s 0", 16*mib/512, dev))
	t.Cleanup(func() { run(t, "dmsetup", "remove", "--retry", name) })
	_, err := find(t, Finder{}, dev).Open(t.Context())
	wantErr(t, err, fwu.ErrSlotBusy)
	if !strings.Contains(err.Error(), "held by dm-") {
		t.Error(err)
	}
}

func TestBootedDevice(t *testing.T) {
	root, err := host{}.rootDevice()
	if err != nil {
		t.Skip(err) // in a container the root is an overlay
	}
	err = host{}.busy(target{path: "/dev/root", dev: root, block: true, size: mib})
	wantErr(t, err, fwu.ErrSlotBusy)
	if !strings.Contains(err.Error(), "root file system") {
		t.Error(err)
	}
	if _, err := (host{}).physicalDisk(root); err != nil {
		t.Error(err)
	}
}

func TestHeldByAnotherOpener(t *testing.T) {
	dev := loopDevice(t, newFileSlot(t, mib))
	f, err := os.OpenFile(dev, os.O_RDWR|unix.O_EXCL, 0)
	check(t, err)
	_, err = find(t, Finder{}, dev).Open(t.Context())
	wantErr(t, err, fwu.ErrSlotBusy)
	check(t, f.Close())
	m, err := find(t, Finder{}, dev).Open(t.Context())
	check(t, err)
	check(t, m.Close())
}

func TestNodeThatBecameAnotherDevice(t *testing.T) {
	one, two := loopDevice(t, newFileSlot(t, mib)), loopDevice(t, newFileSlot(t, mib))
	link := filepath.Join(t.TempDir(), "disk")
	check(t, os.Symlink(one, link))
	s := find(t, Finder{}, link)
	check(t, os.Remove(link))
	check(t, os.Symlink(two, link))
	if _, err := s.Open(t.Context()); err == nil {
		t.Error("opened another device")
	}
}

// TestSgdisk has the oracle check images, and reads what it makes.
func TestSgdisk(t *testing.T) {
	needs(t, false, "sgdisk")
	path, extents := newDisk(t, 512, diskimage.Partition{Name: "esp", UUID: uuidA, Type: diskimage.EFISystem}, diskimage.Partition{Name: "rootfs-b", UUID: uuidB, Size: 3 * mib})
	if out := run(t, "sgdisk", "--verify", path); !strings.Contains(out, "No problems found") {
		t.Error(out)
	}
	out := run(t, "sgdisk", "--info=2", path)
	for _, want := range []string{strings.ToUpper(uuidB), "'rootfs-b'", fmt.Sprintf("First sector: %d ", extents[1].Offset/512), "Partition size: 6144 "} {
		if !strings.Contains(out, want) {
			t.Errorf("sgdisk does not say %q:\n%s", want, out)
		}
	}

	made := newFileSlot(t, 8*mib)
	run(t, "sgdisk", "--new=1:2048:4095", "--change-name=1:boot", "--new=5:6144:0", "--change-name=5:root fs", "--partition-guid=5:"+uuidB, made)
	for _, damage := range []int64{-1, 512, 1024} { // none, the header, the entries
		if damage >= 0 {
			f, err := os.OpenFile(made, os.O_WRONLY, 0)
			check(t, err)
			_, err = f.WriteAt([]byte("damaged"), damage)
			check(t, err)
			check(t, f.Close())
		}
		s := find(t, Finder{Disk: made}, "PARTLABEL=root fs")
		equal(t, "id", s.Info().ID, "partuuid:"+uuidB)
		equal(t, "path", s.Info().Path, fmt.Sprintf("%s@%d", made, 6144*512))
	}
}

// TestLoopDevicesOfOthers looks at a slot in a file as an ordinary user, who may not open loop
// devices: those of other files are in nobody's way, and one of the slot's own file is found.
func TestLoopDevicesOfOthers(t *testing.T) {
	stranger.Need(t)
	private := newFileSlot(t, mib)
	loopDevice(t, private)
	gone := newFileSlot(t, mib)
	loopDevice(t, gone)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "slot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, stranger.UID, stranger.UID); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "slot.img")
	inUse := func() error {
		return stranger.Do(func() error {
			slot, err := Finder{}.Find(t.Context(), path)
			if err != nil {
				return err
			}
			return slot.InUse()
		})
	}
	if err := os.WriteFile(path, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, stranger.UID, stranger.UID); err != nil {
		t.Fatal(err)
	}
	if err := inUse(); err != nil {
		t.Errorf("a loop device of another file is in the way: %v", err)
	}
	dev := loopDevice(t, path)
	if err := inUse(); err == nil || !strings.Contains(err.Error(), "attached to "+filepath.Base(dev)) {
		t.Errorf("not in use, while it is attached to %s: %v", dev, err)
	}
}
