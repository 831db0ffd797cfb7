package zstdframe

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// needTool skips the test if there is no such tool and none is demanded.
func needTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("FWUAB_TEST_ALL") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
}

func run(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out
}

func writeFile(t *testing.T, name string, data []byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestZstdDecodesOurs(t *testing.T) {
	needTool(t, "zstd")
	for name, image := range map[string][]byte{
		"like a file system":      testImage(3*mib + 4321),
		"nothing that compresses": incompressible(t, mib+1),
		"nothing but zeros":       make([]byte, 2*mib+1),
		"small":                   []byte("a"),
	} {
		for _, level := range levels() {
			t.Run(name+"/"+level.String(), func(t *testing.T) {
				dir := writeFile(t, "image.zst", mustCompress(t, image, level))
				if !bytes.Equal(run(t, dir, "zstd", "-q", "-d", "-c", "image.zst"), image) {
					t.Error("not the image")
				}
				if list := string(run(t, dir, "zstd", "-l", "-v", "image.zst")); !strings.Contains(list, "Check: XXH64") {
					t.Error(list)
				}
			})
		}
	}
}

func TestWeDecodeWhatZstdMadeOfPieces(t *testing.T) {
	needTool(t, "zstd")
	for name, image := range map[string][]byte{
		"like a file system":      testImage(3*mib + 4321),
		"nothing that compresses": incompressible(t, 2*mib),
		"nothing but zeros":       make([]byte, 2*mib+1),
	} {
		for _, level := range []string{"--fast=5", "-1", "--content-size -3", "--no-check -3", "-19"} {
			t.Run(name+"/"+level, func(t *testing.T) {
				dir := writeFile(t, "image", image)
				stream := run(t, dir, "sh", "-ec", "split -b 1M image piece. && zstd -q -c "+level+" piece.*")
				got := decode(stream, int64(len(image)), 4096)
				if got.err != nil || !bytes.Equal(got.Image, image) {
					t.Errorf("%d bytes of %d: %v", len(got.Image), len(image), got.err)
				}
			})
		}
	}
}

// TestWeRefuseWhatZstdMadeOfTheWhole: who forgets to split gets an error that says what is wrong.
func TestWeRefuseWhatZstdMadeOfTheWhole(t *testing.T) {
	needTool(t, "zstd")
	image := testImage(MaxContent + mib)
	dir := writeFile(t, "image", image)
	for command, want := range map[string]string{
		"zstd -q -c image":       "content of 5242880 bytes, more than 4194304",
		"cat image | zstd -q -c": "does not state the size of its content",
	} {
		if got := decode(run(t, dir, "sh", "-ec", command), int64(len(image))); !strings.Contains(got.Write, want) {
			t.Errorf("%s: %v", command, got.err)
		}
	}
}
