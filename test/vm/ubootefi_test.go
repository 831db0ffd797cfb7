package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
)

// ubootEFI are stories of firmware that keeps its variables in memory, and reads them from a file
// at the next boot.
func ubootEFI(t *testing.T) {
	t.Run("uboot-efi", func(t *testing.T) {
		newLab(t, UBootEFI()).tell(t, map[string]func(*story){
			"accepted":       accepted,
			"check fails":    checkFails,
			"lost variables": lostVariables,
			"cuts":           cutsOfTheFile,
		})
	})
}

// cutsOfTheFile records the writes of an update and of its acceptance to the partition, while the
// system runs, and looks at the file after each cut: behind each write, and with each single one of
// the writes that no flush has made durable.
func cutsOfTheFile(s *story) {
	base, file := s.espCopy(), filepath.Join(s.t.TempDir(), "esp.img")
	s.Record = true
	defer func() { s.Record = false }()
	r := s.ready(s.payload(2, Root{}))
	s.update(r, "rootfs")
	s.asks(r, Reset, "fwu-ab", "reboot")
	install := s.espWrites()
	s.lookAtCuts(base, file, install)
	base = s.espCopy()
	r = s.on("")
	s.wants(r, "booted b, default b, trial -: "+s.in("UPDATED 2.0.0"))
	s.powerOff(r)
	s.lookAtCuts(base, file, s.espWrites())
}

// espCopy is the partition as it is now.
func (s *story) espCopy() []byte {
	s.t.Helper()
	f, err := os.Open(s.Disk.Path)
	check(s.t, err)
	defer f.Close()
	b := make([]byte, s.Disk.Extents["esp"].Size)
	_, err = f.ReadAt(b, s.Disk.Extents["esp"].Offset)
	check(s.t, err)
	return b
}

// espWrite is a write to the partition, or a flush.
type espWrite struct {
	at    int64
	data  []byte
	flush bool
	by    string // who wrote it: "firmware" or "system"
}

// espWrites are those of the last boot.
func (s *story) espWrites() []espWrite {
	s.t.Helper()
	log := s.Disk.Path + ".log"
	entries, err := readLog(log)
	check(s.t, err)
	f, err := os.Open(log)
	check(s.t, err)
	defer f.Close()
	e, store := s.Disk.Extents["esp"], s.Disk.Extents["fwu-store"]
	var out []espWrite
	by := "firmware"
	for _, l := range entries {
		if l.at >= store.Offset && l.at < store.Offset+store.Size && l.size > 0 {
			by = "system"
		}
		inside := l.size > 0 && l.at >= e.Offset && l.at+l.size <= e.Offset+e.Size && l.flags&logDiscard == 0
		if !inside && !l.flush() {
			continue
		}
		w := espWrite{at: l.at - e.Offset, flush: l.flush(), by: by}
		if inside {
			w.data = make([]byte, l.size)
			_, err := f.ReadAt(w.data, l.data)
			check(s.t, err)
		}
		out = append(out, w)
	}
	return out
}

// lookAtCuts puts partitions together, and reads the file: it must be whole, and the old one or the
// new one.
func (s *story) lookAtCuts(base []byte, file string, writes []espWrite) {
	s.t.Helper()
	now := bytes.Clone(base)
	content := func(b []byte) string {
		check(s.t, os.WriteFile(file, b, 0o600))
		out, err := exec.Command("mtype", "-i", file, "::ubootefi.var").Output()
		if err != nil {
			return fmt.Sprintf("unreadable: %v", err)
		}
		if _, err := efi.ParseStore(out); err != nil {
			return fmt.Sprintf("%d bytes: %v", len(out), err)
		}
		return string(out)
	}
	apply := func(b []byte, w espWrite) { copy(b[w.at:], w.data) }
	durable := bytes.Clone(base)
	var window []espWrite
	cuts, changes, old := 0, 0, ""
	seen := map[string]bool{}
	for i, w := range writes {
		if w.by == "firmware" { // U-Boot overwrites it
			if w.data != nil {
				apply(now, w)
				apply(durable, w)
			}
			continue
		}
		if old == "" {
			old = content(now)
			seen[old] = true
		}
		if w.data != nil {
			window = append(window, w)
			apply(now, w)
			one := bytes.Clone(durable)
			apply(one, w)
			for kind, b := range map[string][]byte{"all before it": now, "nothing else since the last flush": one} {
				cuts++
				got := content(b)
				if _, err := efi.ParseStore([]byte(got)); err != nil {
					s.t.Errorf("write %d of %d, with %s: %s", i, len(writes), kind, got)
				}
				if kind == "all before it" && got != old {
					old = got
					changes++
				}
				seen[got] = true
			}
		}
		if w.flush {
			for _, w := range window {
				apply(durable, w)
			}
			window = nil
		}
	}
	s.t.Logf("%d cuts in %d writes and flushes: the file changed %d times, %d contents were seen", cuts, len(writes), changes, len(seen))
	if changes == 0 || len(seen) > changes+1 {
		s.t.Errorf("the file changed %d times, and %d contents were seen", changes, len(seen))
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Error(err)
	}
}
