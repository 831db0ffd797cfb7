package uboot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/stranger"
)

// lockRoot is a directory with the directories of both locks.
func lockRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"run", "var/lock"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// hold takes a lock as the tools do, in a file as tmpfiles.d makes it.
func hold(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestCommitWaitsForEitherTool(t *testing.T) {
	for _, name := range lockFiles() {
		t.Run(name, func(t *testing.T) {
			s, d := onDisk(t, image(1, 0, "fwu_active=a"), image(0, 0))
			s.config.Locks = Locks{Root: lockRoot(t), Wait: 30 * time.Millisecond}
			held := hold(t, filepath.Join(s.config.Locks.Root, name))
			if err := s.Commit(fwu.Selection{Default: fwu.BankB}); !errors.Is(err, unix.EWOULDBLOCK) || d.writes() != 0 {
				t.Error("while a tool holds the lock:", err)
			}
			if sel, err := s.Read(); err != nil || sel.Default != fwu.BankA {
				t.Error("reading waited:", err)
			}
			s.config.Locks.Wait = time.Minute
			go func() {
				time.Sleep(30 * time.Millisecond)
				held.Close()
			}()
			if err := s.Commit(fwu.Selection{Default: fwu.BankB}); err != nil || d.writes() != 1 {
				t.Error("after the tool gave the lock up:", err)
			}
		})
	}
}

func TestLocksAreHeldDuringTheChangeAndGivenUpAfter(t *testing.T) {
	l := Locks{Root: lockRoot(t)}
	unlock, err := l.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.lock(); err == nil {
		t.Error("locked twice")
	}
	unlock()
	for _, name := range lockFiles() {
		hold(t, filepath.Join(l.Root, name))
	}
}

func TestReadWhereNothingIsValidWaitsForWhoeverWrites(t *testing.T) {
	s, _ := onDisk(t, damaged(image(-1, 0, "fwu_active=a")))
	s.config.Locks = Locks{Root: lockRoot(t)}
	hold(t, filepath.Join(s.config.Locks.Root, lockFiles()[0]))
	if _, err := s.Read(); !errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fwu.ErrNoSelection) {
		t.Error(err)
	}
}

func TestLockFiles(t *testing.T) {
	for name, prepare := range map[string]func(root string) error{
		"directories are missing": func(string) error { return nil },
		"one directory is missing": func(root string) error {
			return os.Mkdir(filepath.Join(root, "run"), 0o755)
		},
		"a file in place of a directory": func(root string) error {
			return os.WriteFile(filepath.Join(root, "run"), nil, 0o644)
		},
		"both are the same directory": func(root string) error {
			return errors.Join(os.Mkdir(filepath.Join(root, "run"), 0o755), os.Mkdir(filepath.Join(root, "var"), 0o755), os.Symlink("../run", filepath.Join(root, "var/lock")))
		},
		"FIFOs that nobody writes": func(root string) error {
			return errors.Join(os.Mkdir(filepath.Join(root, "run"), 0o755), unix.Mkfifo(filepath.Join(root, "run/fw_printenv.lock"), 0o666),
				os.MkdirAll(filepath.Join(root, "var/lock"), 0o755), unix.Mkfifo(filepath.Join(root, "var/lock/fw_printenv.lock"), 0o666))
		},
		"a directory": func(root string) error {
			return os.MkdirAll(filepath.Join(root, "run/fw_printenv.lock"), 0o755)
		},
		"a socket": func(root string) error {
			return errors.Join(os.Mkdir(filepath.Join(root, "run"), 0o755), unix.Mknod(filepath.Join(root, "run/fw_printenv.lock"), unix.S_IFSOCK|0o666, 0))
		},
		"a link to a FIFO": func(root string) error {
			return errors.Join(os.Mkdir(filepath.Join(root, "run"), 0o755), unix.Mkfifo(filepath.Join(root, "fifo"), 0o666), os.Symlink("../fifo", filepath.Join(root, "run/fw_printenv.lock")))
		},
		"a link to somewhere else": func(root string) error {
			return errors.Join(os.Mkdir(filepath.Join(root, "run"), 0o755), os.WriteFile(filepath.Join(root, "precious"), []byte("x"), 0o400), os.Symlink("../precious", filepath.Join(root, "run/fw_printenv.lock")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := prepare(root); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				unlock, err := (Locks{Root: root}).lock()
				if err != nil {
					t.Fatal(err)
				}
				unlock()
			}
			if b, err := os.ReadFile(filepath.Join(root, "precious")); err == nil && string(b) != "x" {
				t.Error("a file that a link led to was truncated")
			}
		})
	}
}

// shared is a root with the directories of both locks, in which every user can make files, as in
// /run/lock.
func shared(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "locks") // a test's own directory is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for _, err := range []error{os.Chmod(root, 0o755), os.MkdirAll(filepath.Join(root, "run"), 0o755), os.MkdirAll(filepath.Join(root, "var/lock"), 0o755),
		os.Chmod(filepath.Join(root, "run"), 0o777|os.ModeSticky), os.Chmod(filepath.Join(root, "var/lock"), 0o777|os.ModeSticky)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// An unprivileged user stops no commit: neither by making the lock file, nor by holding a lock on
// one that it can open. The service is root without capabilities.
func TestStrangersHoldNoLock(t *testing.T) {
	stranger.Need(t)
	file := func(path string, mode os.FileMode) error {
		f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, mode)
		if err == nil {
			err = errors.Join(f.Chmod(mode), f.Close())
		}
		return err
	}
	lock := func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		t.Cleanup(func() { f.Close() })
		return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	for name, prepare := range map[string]func(path string) error{
		"the stranger's file": func(path string) error {
			return stranger.Do(func() error { return errors.Join(file(path, 0o600), lock(path)) })
		},
		"the stranger's file, without any permission": func(path string) error {
			return stranger.Do(func() error { return file(path, 0) })
		},
		"root's file, which others can read": func(path string) error {
			return errors.Join(file(path, 0o644), stranger.Do(func() error { return lock(path) }))
		},
		"root's file, which nobody else can open": func(path string) error {
			err := errors.Join(file(path, 0o600))
			if strangers := stranger.Do(func() error { return lock(path) }); !errors.Is(strangers, fs.ErrPermission) {
				t.Errorf("a stranger locks it: %v", strangers)
			}
			return err
		},
	} {
		for _, lockFile := range lockFiles() {
			t.Run(name+lockFile, func(t *testing.T) {
				s, d := onDisk(t, image(1, 0, "fwu_active=a"), image(0, 0))
				s.config.Locks = Locks{Root: shared(t), Wait: 30 * time.Millisecond}
				if err := prepare(filepath.Join(s.config.Locks.Root, lockFile)); err != nil {
					t.Fatal(err)
				}
				if err := stranger.Unprivileged(func() error { return s.Commit(fwu.Selection{Default: fwu.BankB}) }); err != nil || d.writes() != 1 {
					t.Errorf("commit: %v, %d writes", err, d.writes())
				}
				told := strings.Contains(strings.Join(s.Doctor(), "\n"), lockFile)
				if told != !strings.Contains(name, "nobody else") {
					t.Errorf("doctor says %q", s.Doctor())
				}
			})
		}
	}
}

func TestNewLockFilesAreClosedToOthers(t *testing.T) {
	l := Locks{Root: lockRoot(t)}
	unlock, err := l.lock()
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	for _, name := range lockFiles() {
		if info, err := os.Stat(filepath.Join(l.Root, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}
