package efi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
	"github.com/fwu-ab/fwu-ab/bootctl/efi/model"
	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/test/sim"
)

// storeOfUBoot is the file that U-Boot 2025.01 wrote at its first start.
func storeOfUBoot(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/ubootefi.var")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStoreOfUBoot(t *testing.T) {
	b := storeOfUBoot(t)
	c, err := efi.ParseStore(b)
	if err != nil {
		t.Fatal(err)
	}
	if names, _ := c.List(); !slices.Equal(names, []string{efi.EntryName(0), efi.BootOrder, "PlatformLang-8be4df61-93ca-11d2-aa0d-00e098032b8c"}) {
		t.Errorf("%v", names)
	}
	if diff := cmp.Diff(efi.Variable{Attributes: efi.Attributes, Data: []byte{0, 0}}, c[efi.BootOrder]); diff != "" {
		t.Error(diff)
	}
	if o, err := efi.ParseLoadOption(c[efi.EntryName(0)].Data); err != nil || o.Description != "nvme 0" {
		t.Errorf("%+v, %v", o, err)
	}
	if got := model.FormatStore(c); !bytes.Equal(got, b) {
		t.Errorf("the model writes %x", got)
	}
	if _, err := efi.ParseStore(append(bytes.Clone(b), 1, 2, 3)); err != nil {
		t.Errorf("the file may be longer: %v", err)
	}
}

func TestStoresThatAreNone(t *testing.T) {
	good := storeOfUBoot(t)
	change := func(do func([]byte) []byte) []byte {
		b := do(bytes.Clone(good))
		if len(b) >= 24 {
			binary.LittleEndian.PutUint32(b[20:], crc32.ChecksumIEEE(b[24:]))
		}
		return b
	}
	tests := []struct {
		name, want string
		b          []byte
	}{
		{"nothing", "no file of variables", nil},
		{"a header that ends", "no file of variables", good[:23]},
		{"not zero", "no file of variables", change(func(b []byte) []byte { b[0] = 1; return b })},
		{"another format", "no file of variables", change(func(b []byte) []byte { b[15] = 2; return b })},
		{"cut", "its header says 336", good[:335]},
		{"a length within the header", "its header says 23", change(func(b []byte) []byte { b[16], b[17] = 23, 0; return b })},
		{"half of it is old", "checksum is wrong", append(bytes.Clone(good[:328]), make([]byte, 8)...)},
		{"a variable that is too long", "does not end", change(func(b []byte) []byte { b[27] = 0xff; return b })},
		{"a name without an end", "does not end", change(func(b []byte) []byte {
			b = b[:24+34]
			b[16], b[17] = byte(len(b)), 0
			return b
		})},
		{"a variable that ends in its header", "too few for a variable", change(func(b []byte) []byte {
			b = b[:24+31]
			b[16], b[17] = byte(len(b)), 0
			return b
		})},
		{"too long", "too long", make([]byte, efi.MaxStore+1)},
	}
	for _, tt := range tests {
		if c, err := efi.ParseStore(tt.b); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v, want %q", tt.name, c, err, tt.want)
		}
	}
}

// FuzzStore: parsing ends for any content of the file, and finds again the variables it has found.
func FuzzStore(f *testing.F) {
	f.Add(storeOfUBoot(f))
	f.Add([]byte{})
	f.Add(model.FormatStore(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, sealed(b)} {
			c, err := efi.ParseStore(b)
			if err != nil {
				continue
			}
			for name, v := range c {
				if len(v.Data) == 0 || len(name) < 37 || strings.ContainsRune(name, 0) && !bytes.ContainsRune(b, 0) {
					t.Errorf("%q: %v", name, v)
				}
			}
			again, err := efi.ParseStore(b)
			if diff := cmp.Diff(c, again); err != nil || diff != "" {
				t.Error(err, diff)
			}
		}
	})
}

// sealed makes length and checksum right, so that the entries are read.
func sealed(b []byte) []byte {
	out := append(make([]byte, 8), "UbEfiVa\x01\x00\x00\x00\x00\x00\x00\x00\x00"...)
	out = append(out, b...)
	binary.LittleEndian.PutUint32(out[16:], uint32(len(out)))
	binary.LittleEndian.PutUint32(out[20:], crc32.ChecksumIEEE(out[24:]))
	return out
}

// stored is firmware that keeps its variables in memory, in the state that text describes.
func stored(t *testing.T, text string) model.Stored {
	t.Helper()
	media := sim.New()
	for _, name := range []string{"memory", "file"} {
		media.Add(name, 8*sim.PageSize)
	}
	flash := func(name string) model.Flash { return model.Flash{Medium: media.Medium(name), Size: 4 * sim.PageSize} }
	m, _ := firmware(t, text)
	v := model.Stored{Memory: flash("memory"), File: model.File{Flash: flash("file")}}
	for name, value := range m.Content {
		if err := v.Write(name, value); err != nil {
			t.Fatal(err)
		}
	}
	v.Running = true
	return v
}

// memoryOf has the variables in the firmware's memory, as the table of commits writes them.
func memoryOf(t *testing.T, v model.Stored) string {
	t.Helper()
	m := &model.Memory{Content: map[string]efi.Variable{}}
	names, err := v.Memory.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if m.Content[name], err = v.Read(name); err != nil {
			t.Fatal(err)
		}
	}
	return describe(m, nil)
}

func withStore(t *testing.T, v efi.Variables, store func(string) (efi.Store, error)) *efi.Selector {
	t.Helper()
	s, err := efi.New(efi.Config{Variables: v, File: loader, Store: store, Banks: [2]efi.Bank{{part(0), "fwu.bank=a quiet"}, {part(1), "fwu.bank=b quiet"}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func storeOf(v model.Stored) func(string) (efi.Store, error) {
	return func(name string) (efi.Store, error) {
		if name != model.StoreName {
			return nil, errors.New("another name: " + name)
		}
		return v.File, nil
	}
}

// TestCommitsReachTheFile: the next boot finds the variables that each commit of the table leaves
// in memory.
func TestCommitsReachTheFile(t *testing.T) {
	for _, tt := range commits() {
		t.Run(tt.name, func(t *testing.T) {
			v := stored(t, tt.before)
			_, current := firmware(t, tt.before)
			s := withStore(t, model.Running{Variables: v, Current: current}, storeOf(v))
			want := bankPair(tt.commit)
			if err := s.Commit(want); err != nil {
				t.Fatal(err)
			}
			memory := memoryOf(t, v)
			if err := v.Start(); err != nil {
				t.Fatal(err)
			}
			if file := memoryOf(t, v); file != memory {
				t.Errorf("memory has %s, the file %s", memory, file)
			}
			if got, err := s.Read(); err != nil || got != want {
				t.Errorf("%v, %v, want %v", got, err, want)
			}
		})
	}
}

// TestServiceThatDiedBeforeTheFile: memory says that a trial is armed, and the next boot does not.
func TestServiceThatDiedBeforeTheFile(t *testing.T) {
	v := stored(t, "1=a 2=b | 1 | | 1")
	s := withStore(t, v, storeOf(v))
	if err := v.Write(efi.BootNext, efi.Variable{Attributes: efi.Attributes, Data: []byte{2, 0}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(); err != nil || got != (fwu.Selection{Default: "a"}) {
		t.Errorf("%v, %v", got, err)
	}
	want := []string{"the firmware keeps its variables in memory, and has these of ubootefi.var at the next boot",
		`in memory they have default bank "a" and trial bank "b", which the next boot forgets`}
	if got := s.Doctor(); len(got) < 2 || !slices.Equal(got[:2], want) {
		t.Errorf("%q", got)
	}
	if err := s.Commit(fwu.Selection{Default: "a", Trial: "b"}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(); err != nil || got != (fwu.Selection{Default: "a", Trial: "b"}) {
		t.Errorf("%v, %v after the commit", got, err)
	}
}

// badStore is a file that cannot be used.
type badStore struct {
	efi.Store
	check, read, write error
	deaf               bool
}

func (b badStore) Check() error { return b.check }

func (b badStore) Read() ([]byte, error) {
	if b.read != nil {
		return nil, b.read
	}
	return b.Store.Read()
}

func (b badStore) Write(p []byte) error {
	if b.write != nil || b.deaf {
		return b.write
	}
	return b.Store.Write(p)
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	bad := errors.New("bad")
	tests := []struct {
		name                    string
		store                   badStore
		read, look, commit, was error
	}{
		{name: "it cannot be written", store: badStore{check: bad}, read: bad, commit: bad},
		{name: "it cannot be read", store: badStore{read: bad}, read: bad, look: bad, commit: bad},
		{name: "the write fails", store: badStore{write: bad}, commit: bad},
		{name: "the write does nothing", store: badStore{deaf: true}, commit: fwu.ErrReadBack},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := stored(t, "1=a 2=b | 1 | | 1")
			tt.store.Store = v.File
			s := withStore(t, v, func(string) (efi.Store, error) { return tt.store, nil })
			if _, err := s.Read(); !errors.Is(err, tt.read) {
				t.Errorf("read: %v", err)
			}
			if _, err := s.Look(); !errors.Is(err, tt.look) {
				t.Errorf("look: %v", err)
			}
			before := memoryOf(t, v)
			if err := s.Commit(fwu.Selection{Default: "a", Trial: "b"}); !errors.Is(err, tt.commit) {
				t.Errorf("commit: %v", err)
			}
			if after := memoryOf(t, v); tt.store.check != nil && after != before {
				t.Errorf("%s became %s, and the file cannot be written", before, after)
			}
			if err := v.Start(); err != nil {
				t.Fatal(err)
			}
			if tt.store.read == nil && memoryOf(t, v) != before {
				t.Errorf("the file has %s", memoryOf(t, v))
			}
		})
	}
}

// TestFilesThatTheFirmwareDoesNotTake: then it has no variables, and the next commit makes them.
func TestFilesThatTheFirmwareDoesNotTake(t *testing.T) {
	for _, content := range []string{"", "garbage", string(storeOfUBoot(t)[:300])} {
		v := stored(t, "1=a 2=b | 1 | | 1")
		if err := v.File.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		s := withStore(t, v, storeOf(v))
		if got, err := s.Read(); err != nil || got != (fwu.Selection{}) {
			t.Errorf("%q: %v, %v", content, got, err)
		}
		if err := s.Commit(fwu.Selection{Default: "a"}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Read(); err != nil || got.Default != "a" {
			t.Errorf("%q: %v, %v after a commit", content, got, err)
		}
	}
}

// named is firmware that names another file.
type named struct {
	model.Stored
	name string
}

func (n named) Read(name string) (efi.Variable, error) {
	if name == efi.RTStorageVolatile {
		return efi.Variable{Attributes: 6, Data: []byte(n.name)}, nil
	}
	return n.Stored.Read(name)
}

func TestNamesOfFiles(t *testing.T) {
	for name, want := range map[string]string{
		"ubootefi.var\x00": "", "ubootefi.var": "", "A-b_9.VAR": "",
		"":                      "want a plain name",
		"..":                    "want a plain name",
		".hidden":               "want a plain name",
		"a/b":                   "want a plain name",
		"/etc/passwd":           "want a plain name",
		`\EFI\vars`:             "want a plain name",
		"a\x00b":                "want a plain name",
		"u\x00b\x00":            "want a plain name",
		strings.Repeat("a", 65): "want a plain name",
	} {
		v := stored(t, "1=a | 1 | |")
		asked := ""
		s := withStore(t, named{v, name}, func(name string) (efi.Store, error) { asked = name; return v.File, nil })
		_, read := s.Read()
		commit := s.Commit(fwu.Selection{Default: "a", Trial: "b"})
		for _, err := range []error{read, commit} {
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%q: %v", name, err)
			}
		}
		if want == "" && asked != strings.TrimSuffix(name, "\x00") {
			t.Errorf("%q: asked for %q", name, asked)
		}
	}
	v := stored(t, "1=a | 1 | |")
	if _, err := selector(t, v).Read(); err == nil || !strings.Contains(err.Error(), "nobody writes") {
		t.Errorf("without a store: %v", err)
	}
}

// onFAT is a directory that is said to be on FAT, which not every kernel has; the machines of
// test/vm have.
func onFAT(t *testing.T, flags int64) *efi.ESP {
	t.Helper()
	statfs := func(path string, st *unix.Statfs_t) error {
		err := unix.Statfs(path, st)
		st.Type = unix.MSDOS_SUPER_MAGIC
		// The field has 32 bits on some architectures, and 64 on others.
		reflect.ValueOf(&st.Flags).Elem().SetInt(flags)
		return err
	}
	return &efi.ESP{Dir: t.TempDir(), Name: "ubootefi.var", Statfs: statfs}
}

func TestESP(t *testing.T) {
	e := onFAT(t, 0)
	if _, err := e.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read of nothing: %v", err)
	}
	for _, content := range []string{"first", "a longer one", "s", "s"} {
		if err := e.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := e.Read(); err != nil || string(got) != content {
			t.Errorf("%q, %v, want %q", got, err, content)
		}
		if names := files(t, e.Dir); !slices.Equal(names, []string{"ubootefi.var"}) {
			t.Errorf("%v", names)
		}
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestNewFileThatACutLeft: it is removed, unless its clusters may be those of the file.
func TestNewFileThatACutLeft(t *testing.T) {
	now := string(storeOfUBoot(t))
	other := now[:20] + "crc!" + now[24:]
	for left, want := range map[string]string{"": "", "short": "", other: "", now: "fsck.fat", now[:24]: "fsck.fat", now[:23]: "", now + "and more": "fsck.fat"} {
		e := onFAT(t, 0)
		for name, content := range map[string]string{e.Name: now, "FWU-AB.NEW": left} {
			if err := os.WriteFile(filepath.Join(e.Dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		check, write := e.Check(), e.Write([]byte("new"))
		got, err := e.Read()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case want == "" && (check != nil || write != nil || string(got) != "new"):
			t.Errorf("%d bytes: %v, %v, %q", len(left), check, write, got)
		case want != "" && (check == nil || !strings.Contains(check.Error(), want) || write == nil || string(got) != now || len(files(t, e.Dir)) != 2):
			t.Errorf("%d bytes: %v, %v, %q", len(left), check, write, got)
		}
	}
}

func TestPartitionsThatCannotBeWritten(t *testing.T) {
	none := &efi.ESP{Dir: t.TempDir(), Name: "ubootefi.var"}
	ro := onFAT(t, unix.ST_RDONLY)
	for _, tt := range []struct {
		e    *efi.ESP
		want string
	}{
		{none, "no FAT file system is mounted there"},
		{&efi.ESP{Dir: filepath.Join(none.Dir, "missing"), Name: "x"}, "no such file or directory"},
		{ro, "mounted read-only: mount -o remount,rw " + ro.Dir},
	} {
		for _, err := range []error{tt.e.Check(), tt.e.Write([]byte("x"))} {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		}
		if _, err := os.Stat(tt.e.String()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it was written: %v", err)
		}
	}
	link := onFAT(t, 0)
	if err := os.Symlink("/etc/hostname", link.String()); err != nil {
		t.Fatal(err)
	}
	if err := link.Write([]byte("x")); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link: %v", err)
	}
}

func TestFindESP(t *testing.T) {
	e := onFAT(t, 0)
	efi1, boot := filepath.Join(t.TempDir(), "efi"), t.TempDir()
	other, err := os.MkdirTemp("/dev/shm", "fwu-ab-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(other) })
	find := func(want, text string, dirs ...string) {
		t.Helper()
		got, err := e.Find(dirs)
		if text == "" && (err != nil || got.Dir != want) || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
			t.Errorf("%v, %v, want %q %q", got, err, want, text)
		}
	}
	find("", "no FAT file system is mounted at "+efi1+": mount", efi1)
	find("", boot+" does not have it: mount", efi1, boot)
	for _, dir := range []string{boot, other} {
		if err := os.WriteFile(filepath.Join(dir, e.Name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	find(boot, "", efi1, boot)
	find(boot, "", boot, boot)
	find("", boot+" and "+other+" both have it", boot, other)
	e.Statfs = nil
	find("", "no FAT file system is mounted", boot, other)
}

// frozen is efivarfs that the kernel mounted read-only.
type frozen struct{ *model.Memory }

func (frozen) Writable() error { return errors.New("read-only") }

func TestFirmwareThatChangesNothingAtRunTime(t *testing.T) {
	m, _ := firmware(t, "1=a 2=b | 1 | |")
	s := selector(t, frozen{m})
	_, read := s.Read()
	commit := s.Commit(fwu.Selection{Default: "a", Trial: "b"})
	for _, err := range []error{read, commit} {
		if err == nil || err.Error() != "read-only" {
			t.Error(err)
		}
	}
	if got, err := s.Look(); err != nil || got.Default != "a" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestFullPartition(t *testing.T) {
	e := onFAT(t, 0)
	if err := e.Write([]byte("old")); err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 10, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err := e.Write(bytes.Repeat([]byte("new"), 10))
	if rerr := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); rerr != nil {
		t.Fatal(rerr)
	}
	if err == nil {
		t.Error("it was written")
	}
	if got, rerr := e.Read(); rerr != nil || string(got) != "old" || len(files(t, e.Dir)) != 1 {
		t.Errorf("%q, %v, %v", got, rerr, files(t, e.Dir))
	}
}
