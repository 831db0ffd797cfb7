// Package capi makes the C library of folder psa, and programs that use it, for tests; and speaks to one of them, which has the whole API, as the service itself is
// spoken to from Go.
package capi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// TB is what the functions of this package need of a testing.TB.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	TempDir() string
}

// Need skips a test that builds C, which takes a minute, unless FWUAB_TEST_ALL is set, and then demands the tools for it.
func Need(t TB, tools ...string) {
	t.Helper()
	if os.Getenv("FWUAB_TEST_ALL") == "" {
		t.Skipf("builds C: set FWUAB_TEST_ALL")
	}
	for _, name := range tools {
		if _, err := exec.LookPath(name); err != nil {
			Missing(t, err.Error())
		}
	}
}

// Missing ends a test that cannot be run here.
func Missing(t TB, what string) {
	t.Helper()
	t.Fatalf("%s", what)
}

// Library is the library as it was built, with the compiler and the flags that programs are built with too.
type Library struct {
	Root   string // of the source
	Dir    string
	CC     string
	CFlags []string
}

// Build makes the library in a folder of its own. root is that of the source; flags are those of the compiler.
func Build(t TB, root, cc string, flags ...string) *Library {
	t.Helper()
	Need(t, "make", "pkg-config", cc)
	if exec.Command("pkg-config", "--exists", "libsystemd").Run() != nil {
		Missing(t, "the headers of libsystemd are missing")
	}
	l := &Library{Root: root, Dir: t.TempDir(), CC: cc, CFlags: flags}
	cmd := exec.Command("make", "-C", filepath.Join(root, "psa"), "O="+l.Dir, "CC="+cc, "CFLAGS="+strings.Join(append([]string{"-O2", "-g"}, flags...), " "))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return l
}

// Strict are the flags that everything is compiled with.
func Strict() []string { return []string{"-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror"} }

// Program makes a program of a source file, given from the root, with the shared library, and returns its path.
func (l *Library) Program(t TB, source string) string {
	t.Helper()
	path := filepath.Join(l.Dir, strings.TrimSuffix(filepath.Base(source), ".c"))
	args := append([]string{"-std=c11", "-D_DEFAULT_SOURCE", "-g", "-pthread", "-I", filepath.Join(l.Root, "psa/include")}, Strict()...)
	args = append(append(args, l.CFlags...), "-o", path, filepath.Join(l.Root, source), "-L", l.Dir, "-Wl,-rpath,"+l.Dir, "-lpsa_fwu")
	cmd := exec.Command(l.CC, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return path
}

// Driver is a program that has the API on its standard input and output. Its methods are those of fwu.Service; a call that the program does not answer is an error
// without a status. Safe for concurrent use, one call at a time.
type Driver struct {
	mu     sync.Mutex
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

// Drive runs a driver, for the bus at address. args[0] is the program.
func Drive(address string, args ...string) (*Driver, error) {
	d := &Driver{cmd: exec.Command(args[0], args[1:]...)}
	d.cmd.Env = append(os.Environ(), "FWU_AB_BUS="+address)
	d.cmd.Stderr = &d.stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.out = bufio.NewReader(out)
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return d, d.cmd.Start()
}

// Close ends the program; what it says on its standard error is an error.
func (d *Driver) Close() error {
	_ = d.in.Close()
	if err := d.cmd.Wait(); err != nil || d.stderr.Len() > 0 {
		return fmt.Errorf("driver: %v: %s", err, &d.stderr)
	}
	return nil
}

// Call passes a request on, and returns what follows the status of the answer.
func (d *Driver) Call(request string, data []byte) (fwu.Status, []string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := io.WriteString(d.in, request+"\n"); err != nil {
		return 0, nil, fmt.Errorf("%s: %w: %s", request, err, &d.stderr)
	}
	if _, err := d.in.Write(data); err != nil {
		return 0, nil, fmt.Errorf("%s: %w: %s", request, err, &d.stderr)
	}
	line, err := d.out.ReadString('\n')
	if err != nil {
		return 0, nil, fmt.Errorf("%s: no answer: %w: %s", request, err, &d.stderr)
	}
	fields := strings.Fields(line)
	status, err := strconv.ParseInt(fields[0], 10, 32)
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", request, err)
	}
	if status < 0 {
		return fwu.Status(status), fields[1:], &fwu.Error{Status: fwu.Status(status), Text: request}
	}
	return fwu.Status(status), fields[1:], nil
}

func (d *Driver) do(data []byte, format string, args ...any) error {
	_, _, err := d.Call(fmt.Sprintf(format, args...), data)
	return err
}

// Query asks for a snapshot of a component. What the library gives up to fit its types is MaxSize here too: Impl has the rest.
func (d *Driver) Query(_ context.Context, id fwu.ID) (fwu.Info, error) {
	_, fields, err := d.Call(fmt.Sprintf("query %d", id), nil)
	if err != nil {
		return fwu.Info{}, err
	}
	return parseInfo(fields)
}

// parseInfo reads the members of psa_fwu_component_info_t.
func parseInfo(fields []string) (i fwu.Info, err error) {
	if len(fields) < 37 {
		return i, fmt.Errorf("query: %d fields in %q", len(fields), fields)
	}
	var n [19]int64
	for j := range n {
		u, err := strconv.ParseUint(strings.TrimPrefix(fields[j], "-"), 10, 64)
		if err != nil {
			return i, fmt.Errorf("query: %w", err)
		}
		n[j] = int64(u)
		if fields[j][0] == '-' {
			n[j] = -n[j]
		}
	}
	var s [6]string
	for j := range s {
		b, err := hex.DecodeString(strings.TrimPrefix(fields[19+j], "x"))
		if err != nil {
			return i, fmt.Errorf("query: %w", err)
		}
		s[j] = string(b)
	}
	i.State, i.Error = fwu.State(n[0]), fwu.Status(n[1])
	i.Version = fwu.Version{Major: uint8(n[2]), Minor: uint8(n[3]), Patch: uint16(n[4]), Build: uint32(n[5])}
	i.MaxSize, i.Flags, i.Location = n[6], uint32(n[7]), uint32(n[8])
	i.Impl = fwu.Impl{
		Written: n[9], ImageSize: n[10], Sequence: uint64(n[11]), Since: n[12],
		Counts:         fwu.Counts{Received: n[14], Equal: n[15], Zeroed: n[16], Written: n[17], ReadBack: n[18]},
		ManifestDigest: s[0], Digest: s[1], ActiveSlot: s[2], SecondSlot: s[3], Reason: fwu.Reason(s[4]), Text: s[5],
	}
	if i.Impl.Second, err = parseSecond(fields[25:]); err != nil {
		return i, fmt.Errorf("query: %w", err)
	}
	if n[13] != i.MaxSize && (i.MaxSize != 1<<32-1 || n[13] < i.MaxSize) {
		return i, fmt.Errorf("query: max_size is %d, and impl.max_size %d", i.MaxSize, n[13])
	}
	return i, nil
}

// parseSecond reads the members that are about the image in the second slot, of which there are
// twelve and the components that stand in the way.
func parseSecond(fields []string) (s fwu.Second, err error) {
	numbers := append(slices.Clone(fields[:6]), fields[11:]...)
	n := make([]uint64, len(numbers))
	for j, f := range numbers {
		if n[j], err = strconv.ParseUint(f, 10, 64); err != nil {
			return s, err
		}
	}
	s.Version = fwu.Version{Major: uint8(n[0]), Minor: uint8(n[1]), Patch: uint16(n[2]), Build: uint32(n[3])}
	s.Sequence, s.By.Since = n[4], int64(n[5])
	for j, into := range []*string{&s.Digest, &s.Manifest, &s.Signer, &s.By.Name, &s.Blocked} {
		b, err := hex.DecodeString(strings.TrimPrefix(fields[6+j], "x"))
		if err != nil {
			return s, err
		}
		*into = string(b)
	}
	for _, id := range n[7:] {
		s.BlockedBy = append(s.BlockedBy, fwu.ID(id))
	}
	if uint64(len(s.BlockedBy)) != n[6] {
		return s, fmt.Errorf("%d components, of %d", len(s.BlockedBy), n[6])
	}
	return s, nil
}

// Start begins the preparation of an image. An empty manifest is none.
func (d *Driver) Start(_ context.Context, id fwu.ID, manifest []byte) error {
	return d.do(manifest, "start %d %d", id, len(manifest))
}

// Write stores a block. A negative offset is the size_t that has the same bits.
func (d *Driver) Write(_ context.Context, id fwu.ID, offset int64, block []byte) error {
	return d.do(block, "write %d %d %d", id, uint64(offset), len(block))
}

// Finish declares the image complete.
func (d *Driver) Finish(_ context.Context, id fwu.ID) error { return d.do(nil, "finish %d", id) }

// Cancel ends the preparation.
func (d *Driver) Cancel(_ context.Context, id fwu.ID) error { return d.do(nil, "cancel %d", id) }

// Clean makes a component ready for the next image.
func (d *Driver) Clean(_ context.Context, id fwu.ID) error { return d.do(nil, "clean %d", id) }

// Install installs what is a candidate.
func (d *Driver) Install(context.Context) (fwu.Status, error) {
	status, _, err := d.Call("install", nil)
	return status, err
}

// Accept keeps what is in trial.
func (d *Driver) Accept(context.Context) error { return d.do(nil, "accept") }

// Reject gives up what is staged or in trial. The API takes a code and nothing else.
func (d *Driver) Reject(_ context.Context, why fwu.Rejection) (fwu.Status, error) {
	status, _, err := d.Call(fmt.Sprintf("reject %d", int32(why.Error)), nil)
	return status, err
}

// RequestReboot asks for a reboot.
func (d *Driver) RequestReboot(context.Context) error { return d.do(nil, "request_reboot") }
