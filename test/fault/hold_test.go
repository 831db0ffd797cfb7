package fault_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
	"github.com/fwu-ab/fwu-ab/partition"
	"github.com/fwu-ab/fwu-ab/suit"
)

// ext4 makes the image that is installed one with a file system, and returns a function that mounts
// it.
func (d *device) ext4(t *testing.T) (mount func(flags uintptr) (unmount func(), err error)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	check(t, os.WriteFile(path, make([]byte, slotSize), 0o600))
	if out, err := exec.Command("mkfs.ext4", "-q", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(path)
	check(t, err)
	d.image = b
	d.manifest, err = d.Creator.Manifest(fwutest.Spec("rootfs", b, suit.Version{Major: 2}, 60))
	check(t, err)
	dir := t.TempDir()
	return func(flags uintptr) (func(), error) {
		t.Helper()
		if err := unix.Mount(d.slots[1].device, dir, "ext4", flags, ""); err != nil {
			return nil, err
		}
		unmounted := false
		unmount := func() {
			if !unmounted {
				unmounted = true
				check(t, unix.Unmount(dir, 0))
			}
		}
		t.Cleanup(unmount)
		return unmount, nil
	}
}

// install prepares and installs the image.
func (d *device) install(t *testing.T) {
	t.Helper()
	check(t, d.prepare(t.Context()))
	_, err := d.Install(t.Context())
	check(t, err)
	d.wantState(t, fwu.Staged)
}

// A bank that was installed could be mounted and changed until the reboot, and was started under
// the digest that was verified.
func TestStagedBankCannotBeMounted(t *testing.T) {
	d := newDevice(t)
	mount := d.ext4(t)
	d.install(t)
	if !d.Holding() {
		t.Error("the service may leave")
	}
	for _, flags := range []uintptr{0, unix.MS_RDONLY} {
		if _, err := mount(flags); !errors.Is(err, unix.EBUSY) {
			t.Errorf("mounted: %v", err)
		}
	}
	_, err := d.Reject(t.Context(), fwu.Rejection{})
	check(t, err)
	if d.Holding() {
		t.Error("the service stays after the reject")
	}
	free, err := partition.Finder{}.OpenDevice(t.Context(), d.slots[1].device)
	check(t, err)
	check(t, free.Close())
}

// TestStagedBankThatWasNotHeld has the service away for a while.
func TestStagedBankThatWasNotHeld(t *testing.T) {
	tests := map[string]struct {
		meanwhile func(t *testing.T, d *device, mount func(uintptr) (func(), error))
		state     fwu.State
		reason    fwu.Reason
		says      string
	}{
		"nothing happens": {func(*testing.T, *device, func(uintptr) (func(), error)) {}, fwu.Staged, "", ""},
		"it is mounted, changed, and unmounted": {func(t *testing.T, _ *device, mount func(uintptr) (func(), error)) {
			unmount, err := mount(0)
			check(t, err)
			unmount()
		}, fwu.Failed, fwu.ReasonImageDigest, "was changed after it was installed"},
		"it is mounted": {func(t *testing.T, _ *device, mount func(uintptr) (func(), error)) {
			_, err := mount(0)
			check(t, err)
		}, fwu.Candidate, fwu.ReasonSlotBusy, "mounted on"},
		"it cannot be read": {func(t *testing.T, d *device, _ func(uintptr) (func(), error)) {
			d.slots[1].lose(t, slotSize-4096)
		}, fwu.Candidate, fwu.ReasonMedium, "input/output error"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			mount := d.ext4(t)
			d.install(t)
			check(t, d.Stop())
			tt.meanwhile(t, d, mount)
			check(t, d.Restart())
			d.wantState(t, tt.state)
			info, err := d.Query(t.Context(), 1)
			check(t, err)
			if info.Impl.Reason != tt.reason || !strings.Contains(info.Impl.Text, tt.says) {
				t.Errorf("reason %q: %s", info.Impl.Reason, info.Impl.Text)
			}
			armed := d.Selector.Trial != fwu.NoBank
			if want := tt.state == fwu.Staged; armed != want || d.Holding() != want {
				t.Errorf("armed: %v, held: %v", armed, d.Holding())
			}
			_, err = mount(0)
			if tt.state == fwu.Staged && !errors.Is(err, unix.EBUSY) {
				t.Errorf("mounted: %v", err)
			}
		})
	}
}

// A slot that is a file is changed by whoever does not ask for the lock: it was installed as it had
// been verified before.
func TestFileThatIsChangedWhileItIsHeld(t *testing.T) {
	d := newDevice(t)
	path := filepath.Join(t.TempDir(), "slot")
	check(t, os.WriteFile(path, make([]byte, slotSize), 0o600))
	s, err := partition.Finder{}.Find(t.Context(), path)
	check(t, err)
	check(t, d.Stop())
	d.Config.Components[0].Slots[1] = s
	check(t, fwu.Provision(t.Context(), d.Config, map[string]int64{"rootfs": slotSize}, true))
	check(t, d.Reset())
	check(t, d.prepare(t.Context()))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	check(t, err)
	_, err = f.WriteAt([]byte("changed"), slotSize/2)
	check(t, errors.Join(err, f.Close()))
	_, err = d.Install(t.Context())
	if fwu.StatusOf(err) != fwu.InvalidSignature || fwu.ReasonOf(err) != fwu.ReasonImageDigest {
		t.Fatalf("got %v", err)
	}
	d.wantState(t, fwu.Failed)
	if d.Selector.Trial != fwu.NoBank {
		t.Fatal("armed")
	}
}
