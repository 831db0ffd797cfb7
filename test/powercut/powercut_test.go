package powercut

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test program is the program that writes, too: these name its disk and its story.
const diskVariable, storyVariable = "FWUAB_POWERCUT_DISK", "FWUAB_POWERCUT_STORY"

func TestMain(m *testing.M) {
	if os.Getenv(diskVariable) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if err := write(os.Getenv(diskVariable), os.Getenv(storyVariable)); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

const sectors = 64

func fill(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n*SectorSize) }

// write flushes a, and then writes b without a flush, or writes c for ever.
func write(path, story string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	other, err := os.Create(path + ".other")
	if err != nil {
		return err
	}
	if _, err := other.WriteAt([]byte("other"), 0); err != nil {
		return err
	}
	if err := other.Sync(); err != nil {
		return err
	}
	for off := int64(0); story == "endless"; off += SectorSize {
		if _, err := f.WriteAt(fill('c', 1), off); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt(fill('a', sectors), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if n, err := f.WriteAt(fill('b', sectors), 0); n != sectors*SectorSize || err != nil {
		return fmt.Errorf("wrote %d bytes: %v", n, err)
	}
	b := make([]byte, SectorSize)
	if _, err := f.ReadAt(b, SectorSize); err != nil || !bytes.Equal(b, fill('b', 1)) {
		return fmt.Errorf("read %.4s: %v", b, err)
	}
	fmt.Println("written")
	time.Sleep(time.Hour)
	return nil
}

// start starts the writer on a new disk.
func start(t *testing.T, story string, cutAfter int64, failed func()) (d *Disk, path string, said *bufio.Reader, wait func() error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	d.CutAfter(cutAfter)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), diskVariable+"="+path, storyVariable+"="+story)
	cmd.Stdout, cmd.Stderr = in, os.Stderr
	wait, err = d.Start(cmd, failed)
	if err := in.Close(); err != nil {
		t.Error(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d, path, bufio.NewReader(out), wait
}

func TestACutLosesSectorsThatWereNotFlushed(t *testing.T) {
	var left [2][]byte
	for i := range left {
		d, path, said, wait := start(t, "", 0, nil)
		if line, err := said.ReadString('\n'); line != "written\n" {
			t.Fatalf("the writer says %q: %v", line, err)
		}
		if n := d.Unflushed(); n != sectors*SectorSize {
			t.Errorf("%d bytes are not flushed", n)
		}
		d.PowerOff()
		if err := wait(); err == nil {
			t.Error("the writer ended well")
		}
		lost, of, err := d.Lose(7)
		if of != sectors || lost < sectors/8 || lost > sectors*7/8 || err != nil {
			t.Errorf("%d of %d sectors are lost: %v", lost, of, err)
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) != sectors*SectorSize {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		a := 0
		for s := range sectors {
			switch got := b[s*SectorSize : (s+1)*SectorSize]; {
			case bytes.Equal(got, fill('a', 1)):
				a++
			case !bytes.Equal(got, fill('b', 1)):
				t.Errorf("sector %d holds %.4s", s, got)
			}
		}
		if a != lost {
			t.Errorf("%d sectors hold the flushed content, %d were said to be lost", a, lost)
		}
		if other, err := os.ReadFile(path + ".other"); string(other) != "other" {
			t.Errorf("the other file holds %q: %v", other, err)
		}
		left[i] = b
	}
	if !bytes.Equal(left[0], left[1]) {
		t.Error("the same seed leaves something else")
	}
}

func TestAResetLosesNothing(t *testing.T) {
	d, path, said, wait := start(t, "", 0, nil)
	_, _ = said.ReadString('\n')
	d.PowerOff()
	_ = wait() // killed
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, fill('b', sectors)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if n := d.Unflushed(); n != sectors*SectorSize {
		t.Errorf("a later cut loses %d bytes at most", n)
	}
	d.Flush()
	if lost, of, err := d.Lose(7); lost != 0 || of != 0 || err != nil {
		t.Errorf("after a flush %d of %d sectors are lost: %v", lost, of, err)
	}
}

func TestThePowerFailsInTheMiddle(t *testing.T) {
	failed := make(chan struct{})
	const n = 100*SectorSize + 1
	d, path, _, wait := start(t, "endless", n, func() { close(failed) })
	<-failed
	if err := wait(); err == nil {
		t.Error("the writer ended well")
	}
	if got, want := d.Unflushed(), int64(101*SectorSize); got != want {
		t.Errorf("%d bytes were written, want %d", got, want)
	}
	if _, of, err := d.Lose(1); of != 101 || err != nil {
		t.Errorf("%d sectors, %v", of, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 101*SectorSize {
		t.Errorf("%v, %v", info, err)
	}
}
