package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// smallest is a configuration that has nothing that could be left out.
const smallest = `
[store]
device = "PARTLABEL=fwu-store"
[component.radio]
id = 3
kind = "live"
manifest = "none"
slots = {a = "/dev/mtd1", b = "/dev/mtd2"}
`

func write(t *testing.T, root, file, content string) {
	t.Helper()
	path := filepath.Join(root, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, root, file, target string) {
	t.Helper()
	path := filepath.Join(root, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func readExample(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("../share/fwu-ab.toml.example")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// golden compares with a file in testdata, without the directory that the test made.
func golden(t *testing.T, name, got, root string) {
	t.Helper()
	got = strings.ReplaceAll(got, root, "")
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(name + " (-want +got):\n" + diff)
	}
}

func TestTheSmallestConfiguration(t *testing.T) {
	root := t.TempDir()
	write(t, root, VendorFile, smallest)
	got, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Trial: true, MaxTrials: 3, BootCheck: DefaultBootCheck(),
		Store: Store{Device: "PARTLABEL=fwu-store"},
		Components: []Component{{
			ID: 3, Name: "radio", Live: true, Trial: true, Manifest: fwu.None, ReadBack: true,
			Slots: [2]string{"/dev/mtd1", "/dev/mtd2"},
		}},
		Report: got.Report,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
}

func TestTheExample(t *testing.T) {
	root := t.TempDir()
	write(t, root, VendorFile, readExample(t))
	got, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	example := suit.Device{Vendor: suit.VendorID("example.com"), Class: suit.ClassID(suit.VendorID("example.com"), "gateway rev2"), VendorName: "example.com", ClassName: "gateway rev2"}
	want := &Config{
		Trial: true, MaxTrials: 3, BootCheck: DefaultBootCheck(),
		Store: Store{Device: "PARTLABEL=fwu-store"},
		Selector: Selector{Type: UBootSelector, UBoot: UBoot{
			Scheme: OneShot, EnvConfig: "/etc/fw_env.config",
		}},
		Components: []Component{
			{ID: 0, Name: "rootfs", Trial: true, Slots: [2]string{"PARTLABEL=rootfs_a", "PARTLABEL=rootfs_b"},
				Manifest: fwu.Detached, ReadBack: true, Device: example, Keys: []string{"/etc/fwu-ab/keys"}, Signatures: 1},
			{ID: 1, Name: "boot", Trial: true, Slots: [2]string{"PARTLABEL=boot_a", "PARTLABEL=boot_b"},
				Manifest: fwu.Detached, ReadBack: true, Device: example, Keys: []string{"/etc/fwu-ab/keys"}, Signatures: 1},
			{ID: 16, Name: "radio", Live: true, Trial: true, Slots: [2]string{"PARTLABEL=radio_a", "PARTLABEL=radio_b"},
				Manifest: fwu.Bundled, ReadBack: true, Unit: "radio.service", Keys: []string{"/etc/fwu-ab/radio.pem"}, Signatures: 1,
				Device: suit.Device{Vendor: suit.VendorID("radio.example"), Class: suit.ClassID(suit.VendorID("radio.example"), "modem 7"), VendorName: "radio.example", ClassName: "modem 7"}},
		},
		Report: got.Report,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
}

// What is commented out in the example must be right as well: with all of it, only what excludes each other may be wrong.
func TestWhatTheExampleHasCommentedOut(t *testing.T) {
	root := t.TempDir()
	write(t, root, VendorFile, wholeExample(t))
	_, err := Load(root)
	if err == nil {
		t.Fatal("want the mistakes of what excludes each other")
	}
	golden(t, "example-all.txt", err.Error()+"\n", root)
}

// wholeExample is the example with all that is commented out.
func wholeExample(t *testing.T) string {
	t.Helper()
	lines := strings.Split(readExample(t), "\n")
	for i, line := range lines {
		if len(line) > 1 && line[0] == '#' && line[1] != ' ' || strings.HasPrefix(line, "#  {") {
			lines[i] = line[1:]
		}
	}
	return strings.Join(lines, "\n")
}

// members are bank members, not in the order of their ids.
const members = `
[component.root]
id = 7
manifest = "none"
slots = {a = "PARTLABEL=root_a", b = "PARTLABEL=root_b"}
[component.boot]
id = 5
manifest = "none"
slots = {a = "PARTLABEL=boot_a", b = "PARTLABEL=boot_b"}
`

func TestExpand(t *testing.T) {
	c := CommandLine("root=PARTUUID={partuuid:root} fwu.bank={bank} x={partuuid:data}{bank}{partuuid:root}")
	if diff := cmp.Diff([]string{"root", "data"}, c.Components()); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
	want := "root=PARTUUID=11 fwu.bank=b x=22b11"
	if got := c.Expand("b", map[string]string{"root": "11", "data": "22"}); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSelectors(t *testing.T) {
	const rest = smallest + "[selector]\n"
	tests := []struct {
		name string
		text string
		want Selector
	}{
		{"U-Boot, two copies", `
type = "uboot"
[selector.uboot]
scheme = "one-shot"
copies = [
  {device = "/dev/mmcblk0", offset = -0, size = 0x2_0000},
  {device = "/dev/mmcblk0", offset = -131072, size = 0x2_0000},
]
default-environment = "/usr/share/fwu-ab/default.env"
`, Selector{Type: UBootSelector, UBoot: UBoot{
			Scheme: OneShot, DefaultEnvironment: "/usr/share/fwu-ab/default.env",
			Copies: []EnvCopy{{"/dev/mmcblk0", 0, 0x20000}, {"/dev/mmcblk0", -0x20000, 0x20000}},
		}}},
		{"U-Boot, one copy in so many words, as an array of tables", `
type = "uboot"
[selector.uboot]
scheme = "one-shot"
single-copy = true
[[selector.uboot.copies]]
device = "PARTUUID=0FC63DAF-8483-4772-8E79-3D69D8477DE4"
size = 16384
`, Selector{Type: UBootSelector, UBoot: UBoot{
			Scheme: OneShot, SingleCopy: true,
			Copies: []EnvCopy{{"PARTUUID=0fc63daf-8483-4772-8e79-3d69d8477de4", 0, 16384}},
		}}},
		{"U-Boot, a board prepared for RAUC", `
type = "uboot"
[selector.uboot]
scheme = "boot-order"
env-config = "/etc/fw_env.config"
`, Selector{Type: UBootSelector, UBoot: UBoot{Scheme: BootOrder, EnvConfig: "/etc/fw_env.config"}}},
		{"U-Boot, a board prepared for Mender", `
type = "uboot"
[selector.uboot]
scheme = "bootcount"
env-config = "/etc/fw_env.config"
bank-variables.mender_boot_part = {a = "9", b = "10"}
[selector.uboot.bank-variables.mender_boot_part_hex]
a = "9"
b = "a"
`, Selector{Type: UBootSelector, UBoot: UBoot{Scheme: BootCount, EnvConfig: "/etc/fw_env.config",
			BankVariables: map[string][2]string{"mender_boot_part": {"9", "10"}, "mender_boot_part_hex": {"9", "a"}},
		}}},
		{"UEFI, a loader with a command line of its own", `
type = "efi"
[selector.efi]
path = '\EFI\gateway\linux.efi'
`, Selector{Type: EFISelector, EFI: EFI{Path: `\EFI\gateway\linux.efi`, Variables: "/sys/firmware/efi/efivars"}}},
		{"UEFI, everything", members + `
[selector]
type = "efi"
[selector.efi]
component = "boot"
path = '\vmlinuz'
command-line = "root=PARTUUID={partuuid:root} fwu.bank={bank} quiet"
efivars = "/run/efivars"
esp = "/boot/firmware"
`, Selector{Type: EFISelector, EFI: EFI{Component: "boot", Path: `\vmlinuz`, Variables: "/run/efivars", ESP: "/boot/firmware",
			CommandLine: "root=PARTUUID={partuuid:root} fwu.bank={bank} quiet"}}},
		{"UEFI, the component is the bank member with the lowest id", members + `
[selector]
type = "efi"
efi.path = '\vmlinuz'
`, Selector{Type: EFISelector, EFI: EFI{Component: "boot", Path: `\vmlinuz`, Variables: "/sys/firmware/efi/efivars"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := rest + tt.text
			if strings.HasPrefix(tt.text, members) {
				text = smallest + tt.text
			}
			c := loadText(t, text)
			if diff := cmp.Diff(tt.want, c.Selector); diff != "" {
				t.Error("-want +got:\n" + diff)
			}
			again := loadText(t, c.Report.String())
			if diff := cmp.Diff(tt.want, again.Selector); diff != "" {
				t.Error("the report, loaded again (-want +got):\n" + diff)
			}
		})
	}
}

func loadText(t *testing.T, text string) *Config {
	t.Helper()
	c, err := load([]source{{"test.toml", []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// board has every kind of setting, over several files.
func board(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, root, VendorFile, readExample(t))
	write(t, root, VendorFile+".d/10-disk.toml", "disk = \"/dev/mmcblk2\"\n")
	write(t, root, VendorFile+".d/20-masked.toml", "max-trials = 200\n")
	link(t, root, AdminFile+".d/20-masked.toml", "/dev/null")
	write(t, root, AdminFile+".d/30-copies.toml", `
[selector.uboot]
env-config = ""
copies = [
  {device = "/dev/mmcblk2boot0", offset = 0x10000, size = 0x8000},
  {device = "/dev/mmcblk2boot1", offset = -65536, size = 0x8000},
]

[component.radio]
trial = false
`)
	return root
}

func TestReport(t *testing.T) {
	root := board(t)
	c, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.txt", c.Report.String(), root)
	data, err := json.MarshalIndent(c.Report, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", string(data)+"\n", root)

	again, err := load([]source{{"report", []byte(c.Report.String())}})
	if err != nil {
		t.Fatal(err)
	}
	c.Report, again.Report = Report{}, Report{}
	if diff := cmp.Diff(c, again, namesOfIdentity()); diff != "" {
		t.Error("the report has another effect than the files (-files +report):\n" + diff)
	}
}

func TestWhichFilesCount(t *testing.T) {
	const number = "max-trials = "
	tests := []struct {
		name  string
		files map[string]string // content; "-> target" is a link
		want  int
		count []string
	}{
		{"the vendor's alone", map[string]string{VendorFile: number + "1\n" + smallest}, 1, []string{VendorFile}},
		{"the administrator's replaces it", map[string]string{
			VendorFile: "max-trails = 1", AdminFile: smallest,
		}, 3, []string{AdminFile}},
		{"the administrator's is a link to the vendor's", map[string]string{
			VendorFile: number + "9\n" + smallest, AdminFile: "-> ../../usr/lib/fwu-ab/fwu-ab.toml",
		}, 9, []string{AdminFile}},
		{"drop-ins alone", map[string]string{VendorFile + ".d/a.toml": smallest}, 3, []string{VendorFile + ".d/a.toml"}},
		{"drop-ins in the order of their names over both directories", map[string]string{
			VendorFile: smallest, AdminFile + ".d/10.toml": number + "10", VendorFile + ".d/20.toml": number + "20",
		}, 20, []string{VendorFile, AdminFile + ".d/10.toml", VendorFile + ".d/20.toml"}},
		{"a drop-in in /etc masks that of the same name", map[string]string{
			VendorFile: smallest, AdminFile + ".d/10.toml": number + "10", VendorFile + ".d/10.toml": "nonsense",
		}, 10, []string{VendorFile, AdminFile + ".d/10.toml"}},
		{"masked by an empty file", map[string]string{
			VendorFile: smallest, AdminFile + ".d/10.toml": "", VendorFile + ".d/10.toml": number + "10",
		}, 3, []string{VendorFile}},
		{"masked by a link to /dev/null", map[string]string{
			VendorFile: smallest, AdminFile + ".d/10.toml": "-> /dev/null", VendorFile + ".d/10.toml": number + "10",
		}, 3, []string{VendorFile}},
		{"masked by a relative link to /dev/null", map[string]string{
			VendorFile: smallest, AdminFile + ".d/10.toml": "-> ../../../dev/null", VendorFile + ".d/10.toml": number + "10",
		}, 3, []string{VendorFile}},
		{"the main file masked, a drop-in in its place", map[string]string{
			VendorFile: "nonsense", AdminFile: "-> /dev/null", AdminFile + ".d/10.toml": smallest,
		}, 3, []string{AdminFile + ".d/10.toml"}},
		{"what is no configuration file in a directory of drop-ins", map[string]string{
			VendorFile: smallest, VendorFile + ".d/10.toml.orig": "nonsense", AdminFile + ".d/.10.toml": "nonsense", AdminFile + ".d/README": "x",
		}, 3, []string{VendorFile}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			writeAll(t, root, tt.files)
			c, err := Load(root)
			if err != nil {
				t.Fatal(err)
			}
			if c.MaxTrials != tt.want {
				t.Errorf("max-trials is %d, want %d", c.MaxTrials, tt.want)
			}
			for i, f := range c.Report.Files {
				c.Report.Files[i] = strings.TrimPrefix(f, root)
			}
			if diff := cmp.Diff(tt.count, c.Report.Files); diff != "" {
				t.Error("files (-want +got):\n" + diff)
			}
		})
	}
}

func writeAll(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for file, content := range files {
		if target, isLink := strings.CutPrefix(content, "-> "); isLink {
			link(t, root, file, target)
		} else {
			write(t, root, file, content)
		}
	}
}

// namesOfIdentity leaves out the names that identifiers were made from: they are for people, and a
// report has the identifiers.
func namesOfIdentity() cmp.Option {
	return cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".VendorName" || p.Last().String() == ".ClassName" }, cmp.Ignore())
}

func TestMerge(t *testing.T) {
	const base = `
[store]
device = "PARTLABEL=fwu-store"
[identity]
vendor-name = "example.com"
class-name = "one"
[trust]
keys = ["/keys/a", "/keys/b"]
[component.radio]
id = 3
kind = "live"
slots = {a = "/dev/mtd1", b = "/dev/mtd2"}
`
	tests := []struct {
		name string
		over string
		want func(c *Config)
	}{
		{"a table gains and changes keys", "[component.radio]\nunit = \"radio.service\"\nid = 4\n",
			func(c *Config) { c.Components[0].Unit, c.Components[0].ID = "radio.service", 4 }},
		{"an inline table is merged like any other", "component.radio.slots = {b = \"/dev/mtd9\"}\n",
			func(c *Config) { c.Components[0].Slots[1] = "/dev/mtd9" }},
		{"an array is replaced", "[trust]\nkeys = [\"/keys/c\"]\n",
			func(c *Config) { c.Components[0].Keys = []string{"/keys/c"} }},
		{"signatures of all components", "[trust]\nrequired-signatures = 2\n",
			func(c *Config) { c.Components[0].Signatures = 2 }},
		{"signatures of a component", "[trust]\nrequired-signatures = 3\n[component.radio]\nrequired-signatures = 2\n",
			func(c *Config) { c.Components[0].Signatures = 2 }},
		{"an empty string takes a value away", "[identity]\nvendor-name = \"\"\nvendor = \"fa6b4a53-d5ad-5fdf-be9d-e663e4d41ffe\"\n",
			func(c *Config) {
				vendor, _ := suit.ParseUUID("fa6b4a53-d5ad-5fdf-be9d-e663e4d41ffe")
				c.Components[0].Device = suit.Device{Vendor: vendor, Class: suit.ClassID(vendor, "one")}
			}},
		{"a component has a class of its own", "[component.radio]\nclass-name = \"two\"\n",
			func(c *Config) { c.Components[0].Device.Class = suit.ClassID(suit.VendorID("example.com"), "two") }},
		{"a class name is of the vendor of the component", "[component.radio]\nvendor-name = \"radio.example\"\n",
			func(c *Config) {
				c.Components[0].Device = suit.Device{Vendor: suit.VendorID("radio.example"), Class: suit.ClassID(suit.VendorID("radio.example"), "one")}
			}},
		{"a component more", "[component.aux]\nid = 0\nkind = \"live\"\nmanifest = \"none\"\ntrial = false\nslots = {a = \"/dev/mtd3\", b = \"/dev/mtd4\"}\n",
			func(c *Config) {
				aux := c.Components[0]
				aux.ID, aux.Name, aux.Trial, aux.Manifest, aux.Signatures, aux.Slots = 0, "aux", false, fwu.None, 0, [2]string{"/dev/mtd3", "/dev/mtd4"}
				c.Components = []Component{aux, c.Components[0]}
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := loadText(t, base)
			tt.want(want)
			got, err := load([]source{{"base.toml", []byte(base)}, {"over.toml", []byte(tt.over)}})
			if err != nil {
				t.Fatal(err)
			}
			want.Report = got.Report
			if diff := cmp.Diff(want, got, namesOfIdentity()); diff != "" {
				t.Error("-want +got:\n" + diff)
			}
		})
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	many := map[string]string{VendorFile: smallest}
	for i := range maxDropIns + 1 {
		many[filepath.Join(VendorFile+".d", strings.Repeat("a", i%100+1)+strings.Repeat("b", i/100)+".toml")] = smallest
	}
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"none", nil, "no configuration: neither /etc/fwu-ab/fwu-ab.toml nor /usr/lib/fwu-ab/fwu-ab.toml: file does not exist"},
		{"all masked", map[string]string{VendorFile: smallest, AdminFile: "-> /dev/null"},
			"no configuration: neither /etc/fwu-ab/fwu-ab.toml nor /usr/lib/fwu-ab/fwu-ab.toml: file does not exist"},
		{"too large", map[string]string{VendorFile: smallest + strings.Repeat("#\n", maxFileSize/2)},
			"read /usr/lib/fwu-ab/fwu-ab.toml: larger than 256 KiB"},
		{"a directory", map[string]string{AdminFile + "/x": ""}, "read /etc/fwu-ab/fwu-ab.toml: not a regular file"},
		{"a link out of the root directory", map[string]string{VendorFile: smallest, AdminFile: "-> /etc/passwd"},
			"read /etc/fwu-ab/fwu-ab.toml: a link to a file that does not exist"},
		{"links in a circle", map[string]string{VendorFile: smallest, AdminFile: "-> fwu-ab.toml"},
			"read /etc/fwu-ab/fwu-ab.toml: /etc/fwu-ab/fwu-ab.toml: too many symbolic links"},
		{"a link to nothing", map[string]string{VendorFile: smallest, AdminFile + ".d/a.toml": "-> gone"},
			"read /etc/fwu-ab/fwu-ab.toml.d/a.toml: a link to a file that does not exist"},
		{"too many drop-ins", many, "read /etc/fwu-ab/fwu-ab.toml.d: more than 256 files"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			writeAll(t, root, tt.files)
			_, err := Load(root)
			if err == nil {
				t.Fatal("want an error")
			}
			if diff := cmp.Diff(tt.want, strings.ReplaceAll(err.Error(), root, "")); diff != "" {
				t.Error("-want +got:\n" + diff)
			}
			if tt.files == nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error("that there is none cannot be told from a mistake in it")
			}
		})
	}
}

func TestAFIFOIsNotWaitedFor(t *testing.T) {
	root := t.TempDir()
	write(t, root, VendorFile, smallest)
	if err := os.Mkdir(filepath.Join(root, VendorFile+".d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root, VendorFile+".d/a.toml"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(root); err == nil || !strings.HasSuffix(err.Error(), "not a regular file") {
		t.Errorf("got %v", err)
	}
}

// TestLinksAreFollowedWithinTheTree has links as a root file system has them: absolute, relative,
// and with more ".." than there are directories.
func TestLinksAreFollowedWithinTheTree(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"an absolute link":      {"/data/real.toml": smallest, AdminFile: "-> /data/real.toml"},
		"a relative link":       {"/etc/real.toml": smallest, AdminFile: "-> ../real.toml"},
		"more .. than needed":   {"/etc/real.toml": smallest, AdminFile: "-> ../../../../../../etc/real.toml"},
		"a directory is a link": {"/data/conf/fwu-ab.toml": smallest, "/etc/fwu-ab": "-> /data/conf"},
		"a link to a link":      {"/data/real.toml": smallest, "/data/link": "-> real.toml", AdminFile: "-> /data/link"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			writeAll(t, root, files)
			if _, err := Load(root); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOfTheMachineItselfAbsoluteLinksAreFollowed(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "real", smallest)
	link(t, dir, "link", filepath.Join(dir, "real"))
	tree, err := openTree("/")
	if err != nil {
		t.Fatal(err)
	}
	data, err := tree.read(filepath.Join(dir, "link"))
	if err != nil || string(data) != smallest {
		t.Errorf("got %q, %v", data, err)
	}
}

func TestARelativeRoot(t *testing.T) {
	root := t.TempDir()
	write(t, root, "image"+VendorFile, smallest)
	t.Chdir(root)
	c, err := Load("image")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"image" + VendorFile}, c.Report.Files); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
}

// The oracle is another implementation of RFC 9562.
func TestIdentifiersMadeFromNames(t *testing.T) {
	for _, domain := range []string{"example.com", "arm.com", "müller.example", "x"} {
		const class = "gateway rev2"
		c := loadText(t, fmt.Sprintf("%s[identity]\nvendor-name = %q\nclass-name = %q\n", smallest, domain, class))
		vendor := uuid.NewSHA1(uuid.NameSpaceDNS, []byte(domain))
		want := suit.Device{Vendor: suit.UUID(vendor), Class: suit.UUID(uuid.NewSHA1(vendor, []byte(class))), VendorName: domain, ClassName: class}
		if got := c.Components[0].Device; got != want {
			t.Errorf("%s is %s %s, want %s %s", domain, got.Vendor, got.Class, want.Vendor, want.Class)
		}
	}
}

func TestRelease(t *testing.T) {
	tests := []struct {
		name string
		text string
		want fwu.ReleaseRecord
		err  string
	}{
		{name: "two components", text: "[rootfs]\nversion = \"1.2.0\"\nsequence = 7\n[boot]\nversion = \"255.255.65535+4294967295\"\nsequence = 0x7fffffffffffffff\n",
			want: fwu.ReleaseRecord{
				"rootfs": {Version: fwu.Version{Major: 1, Minor: 2}, Sequence: 7},
				"boot":   {Version: fwu.Version{Major: 255, Minor: 255, Patch: 65535, Build: 4294967295}, Sequence: 1<<63 - 1},
			}},
		{name: "mistakes", text: "[rootfs]\nversion = \"1.256\"\nsequence = -1\nbuild = 3\n[boot]\n[\"b/c\"]\n[x]\nversion = 1\nsequence = \"1\"\n", err: `/usr/lib/fwu-ab/release:2:11: rootfs.version: version "1.256": minor "256" is not a number from 0 to 255
/usr/lib/fwu-ab/release:3:12: rootfs.sequence is -1, want 0 to 9223372036854775807
/usr/lib/fwu-ab/release:4:1: unknown key "build" in [rootfs]; known here: sequence, version
/usr/lib/fwu-ab/release:5:2: [boot] lacks "version"
/usr/lib/fwu-ab/release:5:2: [boot] lacks "sequence"
/usr/lib/fwu-ab/release:6:2: component name "b/c": want letters, digits, - and _, beginning with a letter or digit
/usr/lib/fwu-ab/release:8:11: x.version is an integer, want a string
/usr/lib/fwu-ab/release:9:12: x.sequence is a string, want an integer`},
		{name: "a key where a table belongs", text: "version = \"1.0\"\n",
			err: `/usr/lib/fwu-ab/release:1:11: version is a string, want a table`},
		{name: "no TOML", text: "rootfs 1.0\n", err: `/usr/lib/fwu-ab/release:1:8: expected '=' after key`},
		{name: "nothing", text: "# to be filled in\n", err: `/usr/lib/fwu-ab/release: no component: want at least one table [<name>]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, ReleaseFile, tt.text)
			got, err := LoadRelease(root)
			text := ""
			if err != nil {
				text = strings.ReplaceAll(err.Error(), root, "")
			}
			if diff := cmp.Diff(tt.err, text); diff != "" {
				t.Error("error (-want +got):\n" + diff)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error("-want +got:\n" + diff)
			}
		})
	}
}

func TestAnImageWithoutARelease(t *testing.T) {
	got, err := LoadRelease(t.TempDir())
	if got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}
