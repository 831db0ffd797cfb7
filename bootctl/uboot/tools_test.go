package uboot

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// tools are fw_printenv and fw_setenv of libubootenv on the environment of a configuration.
type tools struct{ config string }

func toolsFor(t *testing.T, copies []Location) tools {
	t.Helper()
	needTool(t, "fw_printenv", "fw_setenv")
	var text strings.Builder
	for _, l := range copies {
		offset := fmt.Sprintf("%#x", l.Offset)
		fmt.Fprintf(&text, "%s %s %#x\n", l.Path, offset, l.Size)
	}
	config := writeFile(t, []byte("# copies\n"+text.String()))
	parsed, err := ParseConfig(readFile(t, config))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(copies, parsed); diff != "" {
		t.Fatal(diff)
	}
	return tools{config}
}

func (x tools) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, append([]string{"-c", x.config, "-f", "/dev/null"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// print returns all variables, sorted.
func (x tools) print(t *testing.T) []string {
	t.Helper()
	return slices.Sorted(strings.SplitSeq(strings.TrimSuffix(x.run(t, "fw_printenv"), "\n"), "\n"))
}

func ours(t *testing.T, s *Selector) []string {
	t.Helper()
	env, _, err := s.config.Read()
	if err != nil {
		t.Fatal(err)
	}
	entries := env.Entries()
	slices.Sort(entries)
	return entries
}

// mkenvimage makes a copy with U-Boot's tool.
func mkenvimage(t *testing.T, text string, args ...string) []byte {
	t.Helper()
	needTool(t, "mkenvimage")
	out := filepath.Join(t.TempDir(), "image")
	cmd := exec.Command("mkenvimage", slices.Concat([]string{"-s", fmt.Sprint(testSize)}, args, []string{"-o", out, writeFile(t, []byte(text))})...)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mkenvimage: %v: %s", err, b)
	}
	return readFile(t, out)
}

// takeTurns lets the tools and us change one environment, and each read what the other wrote.
func takeTurns(t *testing.T, s *Selector, x tools) {
	t.Helper()
	for i := range 4 {
		want := fwu.Selection{Default: fwu.BankOf(i % 2), Trial: fwu.BankOf((i + 1) % 2)}
		if i%3 == 2 {
			want.Trial = fwu.NoBank
		}
		if err := s.Commit(want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ours(t, s), x.print(t)); diff != "" {
			t.Fatal(diff)
		}
		x.run(t, "fw_setenv", "turn", fmt.Sprintf("%d=x y", i))
		x.run(t, "fw_setenv", VarTrial, string(want.Default))
		if got, err := s.Read(); err != nil || got != (fwu.Selection{Default: want.Default, Trial: want.Default}) {
			t.Fatal(got, err)
		}
		if diff := cmp.Diff(x.print(t), ours(t, s)); diff != "" {
			t.Fatal(diff)
		}
	}
}

const defaultText = "bootcmd=run a; run b\nbootargs=root=/dev/x quiet\nempty_is_not_here=1\n"

func TestTakingTurnsWithTheTools(t *testing.T) {
	t.Run("single copy", func(t *testing.T) {
		s, _ := onFile(t, mkenvimage(t, defaultText))
		takeTurns(t, s, toolsFor(t, s.config.Copies))
	})
	for _, flags := range [][2]int{{1, 0}, {254, 253}, {253, 254}, {255, 254}, {0, 255}, {7, 7}} {
		t.Run(fmt.Sprintf("two copies, flags %d and %d", flags[0], flags[1]), func(t *testing.T) {
			first, second := mkenvimage(t, defaultText, "-r"), mkenvimage(t, defaultText, "-r", "-p", "0")
			first[4], second[4] = byte(flags[0]), byte(flags[1])
			s, _ := onFile(t, first, second)
			takeTurns(t, s, toolsFor(t, s.config.Copies))
		})
	}
	t.Run("one copy damaged", func(t *testing.T) {
		s, _ := onFile(t, damaged(mkenvimage(t, defaultText, "-r")), mkenvimage(t, defaultText, "-r"))
		takeTurns(t, s, toolsFor(t, s.config.Copies))
	})
	t.Run("block device, from the end", func(t *testing.T) {
		dev := loop(t, writeFile(t, append(bytes.Repeat([]byte{1}, 0x10000), bytes.Repeat(mkenvimage(t, defaultText, "-r"), 2)...)), 512)
		c := Config{Scheme: OneShot, Locks: Locks{Root: t.TempDir()}}
		c.Open, c.Copies = OpenMedium, []Location{{dev, -2 * testSize, testSize}, {dev, -testSize, testSize}}
		s := mustNew(t, c)
		takeTurns(t, s, toolsFor(t, c.Copies))
	})
}

// TestToolsTakeTheSameCopy asks the tools which copy is active, for flags at which it might be doubted.
func TestToolsTakeTheSameCopy(t *testing.T) {
	flags := []int{0, 1, 2, 127, 128, 129, 253, 254, 255}
	s, path := onFile(t, image(0, 0), image(0, 0))
	x := toolsFor(t, s.config.Copies)
	for _, a := range flags {
		for _, b := range flags {
			content := append(image(a, 0, "fwu_active=a"), image(b, 0, "fwu_active=b")...)
			if err := os.WriteFile(path, content, 0o644); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(x.print(t), ours(t, s)); diff != "" {
				t.Errorf("flags %d, %d: %s", a, b, diff)
			}
		}
	}
}

func TestToolsRefuseWhatWeRefuse(t *testing.T) {
	s, _ := onFile(t, damaged(image(1, 0, "a=1")), damaged(image(0, 0, "a=1")))
	x := toolsFor(t, s.config.Copies)
	if out, err := exec.Command("fw_printenv", "-c", x.config, "-f", "/nonexistent").CombinedOutput(); err == nil {
		t.Errorf("fw_printenv reads %s", out)
	}
	if _, err := s.Read(); err == nil {
		t.Error("we read it")
	}
}

func TestDefaultTextIsReadAsMkenvimageReadsIt(t *testing.T) {
	shipped := string(readFile(t, filepath.Join("..", "..", "share", "uboot", "fwu-ab.env")))
	for name, text := range map[string]string{
		"as shipped":               shipped,
		"plain":                    defaultText,
		"comments and empty lines": "\n# a=1\nbootcmd=x\n\n\n#b=2\nc=3\n\n",
		"line breaks in values":    "bootcmd=x \\\ny\\\n z\nb=1\n",
		"empty line in a value":    "bootcmd=x\\\n\nb=1\nc=2\n",
		"comment in a value":       "bootcmd=x\\\n#b=1\nc=2\n",
		"no end of the last line":  "a=1\nbootcmd=x",
		"# within a line":          "bootcmd=x # y\n",
	} {
		t.Run(name, func(t *testing.T) {
			e, err := ParseDefault([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(ParseEnv(mkenvimage(t, text)[4:]).Entries(), e.Entries()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWrittenCopyIsThatOfMkenvimage(t *testing.T) {
	text := "bootcmd=x\nfwu_active=a\n"
	s, path := onFile(t, bytes.Repeat([]byte{0xff}, testSize))
	s.config.Default = ParseEnv([]byte("bootcmd=x\x00"))
	if err := s.Commit(fwu.Selection{Default: fwu.BankA}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readFile(t, path), mkenvimage(t, text, "-p", "0")) {
		t.Error("single copy differs")
	}
	s, path = onFile(t, bytes.Repeat([]byte{0xff}, testSize), bytes.Repeat([]byte{0xff}, testSize))
	s.config.Default = ParseEnv([]byte("bootcmd=x\x00"))
	if err := s.Commit(fwu.Selection{Default: fwu.BankA}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readFile(t, path)[:testSize], mkenvimage(t, text, "-r", "-p", "0")) {
		t.Error("first copy differs")
	}
}

func TestMkimageCompilesTheScript(t *testing.T) {
	needTool(t, "mkimage")
	script := filepath.Join("..", "..", "share", "uboot", "fwu-ab.cmd")
	out := filepath.Join(t.TempDir(), "boot.scr")
	if b, err := exec.Command("mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-d", script, out).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if !bytes.HasSuffix(readFile(t, out), readFile(t, script)) {
		t.Error("boot.scr does not hold the script")
	}
}

func TestShippedEnvironmentNamesNoBank(t *testing.T) {
	e, err := ParseDefault(readFile(t, filepath.Join("..", "..", "share", "uboot", "fwu-ab.env")))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{VarActive, VarTrial} {
		if value, ok := e.Get(v); ok {
			t.Errorf("%s=%s", v, value)
		}
	}
}
