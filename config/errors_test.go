package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A bank member with all that it needs, for cases that add a mistake.
const bank = `
[store]
device = "PARTLABEL=fwu-store"
[selector]
type = "uboot"
[selector.uboot]
scheme = "one-shot"
env-config = "/etc/fw_env.config"
[identity]
vendor-name = "example.com"
class-name = "gateway"
[trust]
keys = ["/etc/fwu-ab/keys"]
[component.rootfs]
id = 0
slots = {a = "PARTLABEL=rootfs_a", b = "PARTLABEL=rootfs_b"}
`

// efiBank is the same with UEFI firmware; the settings begin in line 7.
func efiBank(settings string) string {
	return strings.NewReplacer("\"uboot\"", "\"efi\"", "[selector.uboot]\nscheme = \"one-shot\"\nenv-config = \"/etc/fw_env.config\"\n", "[selector.efi]\n"+settings).Replace(bank)
}

// The texts are what a user sees: one line for each mistake.
func TestMistakes(t *testing.T) {
	tests := []struct {
		name string
		text string // begins in line 1
		want string
	}{
		{"no TOML", "disk /dev/mmcblk0\n", `f.toml:1:6: expected '=' after key`},
		{"a key twice", "trial = true\n\ntrial = false\n", `f.toml:3:1: key trial is already defined`},
		{"a string that does not end", "disk = \"/dev\n", "f.toml:1:13: basic strings cannot have new lines"},
		{"not UTF-8", "disk = \"/dev/\xff\"\n", "f.toml:1:14: invalid UTF-8 character in basic string"},
		{"a key too deep", strings.Repeat("a.", 20) + "a = 1\n", `f.toml:1:33: key of more than 16 parts`},
		{"unknown keys, with what was meant", "max_trials = 3\nMax-Trials = 4\ntrail = true\n[store]\ndevices = \"x\"\n[zebra]\n" + bank[len("\n[store]\n"):],
			`f.toml:1:1: unknown key "max_trials" in the file; did you mean "max-trials"?
f.toml:2:1: unknown key "Max-Trials" in the file; did you mean "max-trials"?
f.toml:3:1: unknown key "trail" in the file; did you mean "trial"?
f.toml:4:2: [store] lacks "device"
f.toml:5:1: unknown key "devices" in [store]; did you mean "device"?
f.toml:6:2: unknown key "zebra" in the file; known here: boot-check, component, disk, identity, lift-force-ro, max-trials, selector, store, trial, trust`},
		{"values of the wrong kind", "disk = 1\ntrial = \"yes\"\nmax-trials = 2.5\nstore = \"PARTLABEL=x\"\nselector = []\nidentity.vendor = 2026-11-23\ntrust.keys = \"/keys\"\ncomponent = 3\n",
			`f.toml:1:8: disk is an integer, want a string
f.toml:2:9: trial is a string, want true or false
f.toml:3:14: max-trials is a floating-point number, want an integer
f.toml:4:9: store is a string, want a table
f.toml:5:1: selector is an array, want a table
f.toml:6:19: identity.vendor is a date or time, want a string
f.toml:7:14: trust.keys is a string, want an array of paths
f.toml:8:13: component is an integer, want a table`},
		{"nothing in it", "# to be done\n", `f.toml: [store] lacks "device"
f.toml: no component: want at least one table [component.<name>]`},
		{"a boot check that cannot be", "[boot-check]\naccept = \"nobody\"\ndeadline = 5\ncheck-timeout = \"1 min\"\nunits = [\"gateway\", 7]\n" + bank,
			`f.toml:2:10: boot-check.accept is "nobody", want "checks" or "client"
f.toml:3:12: boot-check.deadline is 5, want 30 to 2147483647
f.toml:4:17: boot-check.check-timeout is a string, want an integer
f.toml:5:10: boot-check.units is "gateway", want the name of a unit, for instance "radio.service"
f.toml:5:21: boot-check.units is an integer, want a string`},
		{"numbers out of range", "max-trials = 0" + bank + "[component.boot]\nid = 256\nslots = {a = \"/a\", b = \"/b\"}\n[component.aux]\nid = -1\nslots = {a = \"/c\", b = \"/d\"}\n",
			`f.toml:1:14: max-trials is 0, want 1 to 255
f.toml:18:6: component.boot.id is 256, want 0 to 255
f.toml:21:6: component.aux.id is -1, want 0 to 255`},
		{"an id, a name and slots twice", bank + "[component.ROOTFS]\nid = 0\nslots = {a = \"PARTLABEL=rootfs_b\", b = \"PARTLABEL=fwu-store\"}\n",
			`f.toml:17:12: component name "ROOTFS" is used already at f.toml:14:12
f.toml:18:6: component id 0 is used already at f.toml:15:6
f.toml:19:14: component.ROOTFS.slots.a "PARTLABEL=rootfs_b" is used already at f.toml:16:40
f.toml:19:40: component.ROOTFS.slots.b "PARTLABEL=fwu-store" is used already at f.toml:3:10`},
		{"both slots the same partition, written in two ways", bank + "[component.boot]\nid = 1\n[component.boot.slots]\na = \"PARTUUID=0FC63DAF-8483-4772-8E79-3D69D8477DE4\"\nb = \"PARTUUID=0fc63daf-8483-4772-8e79-3d69d8477de4\"\n",
			`f.toml:21:5: component.boot.slots.b "PARTUUID=0fc63daf-8483-4772-8e79-3d69d8477de4" is used already at f.toml:20:5`},
		{"a name unfit for a file and a manifest", bank + "[component.\"../boot\"]\n[component.\"\"]\n[component.-x]\n[component.aaaaaaaaaabbbbbbbbbbccccccccccddd]\n",
			`f.toml:17:12: component name "../boot": want letters, digits, - and _, beginning with a letter or digit
f.toml:18:12: component name "": want 1 to 32 characters
f.toml:19:12: component name "-x": want letters, digits, - and _, beginning with a letter or digit
f.toml:20:12: component name "aaaaaaaaaabbbbbbbbbbccccccccccddd": want 1 to 32 characters`},
		{"nothing in a component", bank + "[component.boot]\n",
			`f.toml:17:12: [component.boot] lacks "id"
f.toml:17:12: [component.boot] lacks "slots"`},
		{"one slot only", bank + "[component.boot]\nid = 1\nslots.a = \"/dev/x\"\n", `f.toml:19:1: [component.boot.slots] lacks "b"`},
		{"slots a and c", bank + "[component.boot]\nid = 1\nslots = {a = \"/dev/x\", b = \"/dev/y\", c = \"/dev/z\"}\n",
			`f.toml:19:38: unknown key "c" in [component.boot.slots]; did you mean "a"?`},
		{"what names no device", bank + "[component.boot]\nid = 1\nslots = {a = \"mmcblk0p3\", b = \"LABEL=boot\"}\n[component.aux]\nid = 2\nslots = {a = \"PARTUUID=1234abcd-2\", b = \"PARTLABEL=" + strings.Repeat("x", 37) + "\"}\n",
			`f.toml:19:14: component.boot.slots.a is "mmcblk0p3", want an absolute path, PARTLABEL=name or PARTUUID=uuid
f.toml:19:31: component.boot.slots.b is "LABEL=boot", want an absolute path, PARTLABEL=name or PARTUUID=uuid
f.toml:22:14: component.aux.slots.a is "PARTUUID=1234abcd-2", uuid "1234abcd-2": want 8-4-4-4-12 hexadecimal digits; or, for an MBR, eight and two hexadecimal digits as in 9bdf2dc6-02
f.toml:22:41: component.aux.slots.b is "PARTLABEL=` + strings.Repeat("x", 37) + `", a partition label has 1 to 36 characters`},
		{"unknown words", bank + "manifest = \"atached\"\nkind = \"Live\"\n",
			`f.toml:17:12: component.rootfs.manifest is "atached", want "detached", "bundled" or "none"
f.toml:18:8: component.rootfs.kind is "Live", want "bank" or "live"`},
		{"what only a live component has", bank + "trial = false\nunit = \"x.service\"\n",
			`f.toml:17:9: component.rootfs.trial is set, but trial is a property of the whole bank: set it at the top, or kind = "live"
f.toml:18:8: component.rootfs.unit is set, but a bank member is installed by a reboot: want kind = "live"`},
		{"units that are none", bank + "[component.a]\nid = 1\nkind = \"live\"\nunit = \"radio\"\nslots = {a = \"/1\", b = \"/2\"}\n[component.b]\nid = 2\nkind = \"live\"\nunit = \"radio@.service\"\nslots = {a = \"/3\", b = \"/4\"}\n[component.c]\nid = 3\nkind = \"live\"\nunit = \"/run/x.service\"\nslots = {a = \"/5\", b = \"/6\"}\n",
			`f.toml:20:8: component.a.unit is "radio", want the name of a unit, for instance "radio.service"
f.toml:25:8: component.b.unit is "radio@.service", want the name of a unit, for instance "radio.service"
f.toml:30:8: component.c.unit is "/run/x.service", want the name of a unit, for instance "radio.service"`},
		{"no selector for a bank", "[store]\ndevice = \"/store\"\n[component.rootfs]\nid = 0\nmanifest = \"none\"\nslots = {a = \"/a\", b = \"/b\"}\n",
			`f.toml:3:12: rootfs is a bank member, and selector.type is not set: nothing would tell the bootloader which bank to start`},
		{"a selector without a type", strings.Replace(bank, "type = \"uboot\"\n", "", 1), `f.toml:4:2: [selector] lacks "type"`},
		{"an unknown selector", strings.Replace(bank, "uboot", "grub", 1), `f.toml:5:8: selector.type is "grub", want "uboot" or "efi"`},
		{"an unknown selector with a table of its own, and none of another", "[store]\ndevice = \"/store\"\n[selector]\ntype = \"grub\"\n[selector.grub]\nloaders = {}\n[component.rootfs]\nid = 0\nmanifest = \"none\"\nslots = {a = \"/a\", b = \"/b\"}\n",
			`f.toml:4:8: selector.type is "grub", want "uboot" or "efi"
f.toml:5:11: unknown key "grub" in [selector]; known here: efi, type, uboot`},
		{"a selector and a scheme that are no words", strings.NewReplacer("\"uboot\"", "1", "\"one-shot\"", "[]").Replace(bank),
			`f.toml:5:8: selector.type is an integer, want a string
f.toml:7:1: selector.uboot.scheme is an array, want a string`},
		{"UEFI: no table at all", strings.NewReplacer("\"uboot\"", "\"efi\"", "[selector.uboot]\nscheme = \"one-shot\"\nenv-config = \"/etc/fw_env.config\"\n", "").Replace(bank),
			`f.toml:4:2: [selector.efi] lacks "path"`},
		{"UEFI: an unknown key", efiBank("path = '\\x'\nloader = \"x\"\n"),
			`f.toml:8:1: unknown key "loader" in [selector.efi]; known here: command-line, component, efivars, esp, path`},
		{"UEFI: paths that are none", efiBank("path = \"/EFI/x.efi\"\nefivars = \"efivars\"\n"),
			`f.toml:7:8: selector.efi.path is "/EFI/x.efi": want a path from the root of the slot, with backslashes, in single quotes: '\EFI\example\linux.efi'
f.toml:8:11: selector.efi.efivars is "efivars", want an absolute path`},
		{"UEFI: a path with nothing in it", efiBank("path = '\\EFI\\\\x.efi'\n"), `f.toml:7:8: selector.efi.path is "\\EFI\\\\x.efi": want a name between any two backslashes, and behind the last one`},
		{"UEFI: a path that climbs", efiBank("path = '\\EFI\\..\\x.efi'\n"), `f.toml:7:8: selector.efi.path is "\\EFI\\..\\x.efi": want a name between any two backslashes, and behind the last one`},
		{"UEFI: a path that FAT cannot have", efiBank("path = '\\EFI\\*.efi'\n"), "f.toml:7:8: selector.efi.path is \"\\\\EFI\\\\*.efi\": a name on FAT has none of \" * : < > ? |"},
		{"UEFI: an unknown placeholder", efiBank("path = '\\x'\ncommand-line = \"fwu.bank={bank} root={root}\"\n"),
			`f.toml:8:16: selector.efi.command-line: character 22: unknown placeholder {root}, want {bank} or {partuuid:COMPONENT}`},
		{"UEFI: a placeholder that does not end", efiBank("path = '\\x'\ncommand-line = \"fwu.bank={bank} {partuuid:\"\n"),
			`f.toml:8:16: selector.efi.command-line: character 17: { without }`},
		{"UEFI: a placeholder that does not begin", efiBank("path = '\\x'\ncommand-line = \"fwu.bank={bank} }\"\n"),
			`f.toml:8:16: selector.efi.command-line: character 17: } without {`},
		{"UEFI: a command line that does not tell the bank", efiBank("path = '\\x'\ncommand-line = \"root=/dev/x fwu.bank=a\"\n"),
			`f.toml:8:16: selector.efi.command-line lacks "fwu.bank={bank}": the system could not tell from which bank it was started; leave the whole line out where the loader has one of its own`},
		{"UEFI: a command line that is too long", efiBank("path = '\\x'\ncommand-line = \"fwu.bank={bank} " + strings.Repeat("x", 2040) + "\"\n"),
			`f.toml:8:16: selector.efi.command-line is too long: a kernel takes 2047 characters`},
		{"UEFI: components that are no bank members", efiBank("component = \"radio\"\npath = '\\x'\ncommand-line = \"fwu.bank={bank} root={partuuid:nothing}\"\n"),
			`f.toml:7:13: selector.efi.component is "radio", which is no bank member
f.toml:9:16: selector.efi.command-line has {partuuid:nothing}, and nothing is no bank member`},
		{"UEFI: the loader not in the first bank member", efiBank("component = \"zboot\"\npath = '\\x'\n") + "[component.zboot]\nid = 1\nslots = {a = \"/a\", b = \"/b\"}\n",
			`f.toml:7:13: selector.efi.component is "zboot", and "rootfs" has a lower id: the loader must lie in the bank member with the lowest id, which is made startable last`},
		{"nobody may sign", strings.Replace(bank, "[\"/etc/fwu-ab/keys\"]", "[]", 1),
			`f.toml:14:12: [component.rootfs] has no trust anchor (keys, here or in [trust]), and its manifest is "detached"`},
		{"keys that are no paths", strings.Replace(bank, "[\"/etc/fwu-ab/keys\"]", "[\"keys\", \"\", 3, {}]", 1),
			`f.toml:13:9: trust.keys[0] is "keys", want an absolute path
f.toml:13:17: trust.keys[1] is "", want an absolute path
f.toml:13:21: trust.keys[2] is an integer, want a string
f.toml:13:24: trust.keys[3] is a table, want a string`},
		{"signatures of nobody, and of too many", strings.Replace(bank, "[\"/etc/fwu-ab/keys\"]", "[\"/k\"]\nrequired-signatures = 0", 1) + "required-signatures = 9\n",
			`f.toml:14:23: trust.required-signatures is 0, want 1 to 8
f.toml:18:23: component.rootfs.required-signatures is 9, want 1 to 8`},
		{"signatures that are no number", bank + "required-signatures = \"2\"\n",
			`f.toml:17:23: component.rootfs.required-signatures is a string, want an integer`},
		{"signatures of nothing", bank + "manifest = \"none\"\nrequired-signatures = 1\n",
			`f.toml:18:23: component.rootfs.required-signatures is set, and the manifest is "none": nothing is verified`},
		{"for no device", strings.Replace(bank, "vendor-name = \"example.com\"\nclass-name = \"gateway\"\n", "", 1),
			`f.toml:12:12: [component.rootfs] has no vendor (neither here nor in [identity]), and its manifest is "detached"
f.toml:12:12: [component.rootfs] has no class (neither here nor in [identity]), and its manifest is "detached"`},
		{"a class name without a vendor, said once", strings.Replace(bank, "vendor-name = \"example.com\"\n", "", 1) + "manifest = \"none\"\n[component.boot]\nid = 1\nmanifest = \"none\"\nslots = {a = \"/a\", b = \"/b\"}\n",
			`f.toml:10:14: class-name is set, but no vendor: a class identifier is made from both`},
		{"a bad uuid", bank + "vendor = \"fa6b4a53-d5ad-5fdf-be9d-e663e4d41ff\"\nclass = \"fa6b4a53-d5ad-5fdf-be9d-e663e4d41ffx\"\n",
			`f.toml:17:10: component.rootfs.vendor: uuid "fa6b4a53-d5ad-5fdf-be9d-e663e4d41ff": want 8-4-4-4-12 hexadecimal digits
f.toml:18:9: component.rootfs.class: uuid "fa6b4a53-d5ad-5fdf-be9d-e663e4d41ffx": encoding/hex: invalid byte: U+0078 'x'`},
		{"an identifier and a name for it", bank + "vendor = \"fa6b4a53-d5ad-5fdf-be9d-e663e4d41ffe\"\nvendor-name = \"example.org\"\n",
			`f.toml:17:10: component.rootfs.vendor is set, and so is vendor-name at f.toml:18:15: want one of them`},
		{"control characters", "disk = \"/dev/\\u001b[31m\"" + bank, `f.toml:1:8: disk has a control character: "/dev/\x1b[31m"`},
		{"relative paths", "disk = \"mmcblk0\"" + bank, `f.toml:1:8: disk is "mmcblk0", want an absolute path`},
		{"U-Boot: an unknown scheme", strings.Replace(bank, "one-shot", "boot_order", 1),
			`f.toml:7:10: selector.uboot.scheme is "boot_order", want "one-shot", "boot-order" or "bootcount"`},
		{"U-Boot: bank variables of a scheme without", strings.Replace(bank, "[identity]", "bank-variables = {part = {a = \"2\", b = \"3\"}}\n[identity]", 1),
			`f.toml:9:18: selector.uboot.bank-variables are of the scheme "bootcount" only`},
		{"U-Boot: bootcount without bank variables", strings.Replace(bank, "one-shot", "bootcount", 1),
			`f.toml:6:11: [selector.uboot] lacks "bank-variables": by which variables does the boot script of a board with the scheme "bootcount" tell the banks apart?`},
		{"U-Boot: bank variables that are none", strings.NewReplacer("one-shot", "bootcount", "[identity]", "bank-variables = {}\n[identity]").Replace(bank),
			`f.toml:9:18: [selector.uboot.bank-variables] is empty, want name = {a = "...", b = "..."}`},
		{"U-Boot: bank variables that are no table", strings.NewReplacer("one-shot", "bootcount", "[identity]", "bank-variables = \"part\"\n[identity]").Replace(bank),
			`f.toml:9:18: selector.uboot.bank-variables is a string, want a table`},
		{"U-Boot: mistakes in bank variables", strings.NewReplacer("one-shot", "bootcount",
			"[identity]", "[selector.uboot.bank-variables]\npart = {a = \"2\", b = \"2\"}\nhex = {a = 2}\nbootcount = {a = \"2\", b = \"3\"}\n\"a=b\" = {}\ndisk = {a = \"\", b = \"1\", c = \"3\"}\nx = 1\n[identity]").Replace(bank),
			`f.toml:10:8: [selector.uboot.bank-variables.part] is the same for both banks
f.toml:11:7: [selector.uboot.bank-variables.hex] lacks "b"
f.toml:11:12: selector.uboot.bank-variables.hex.a is an integer, want a string
f.toml:12:1: variable name "bootcount": the scheme "bootcount" has another use for it
f.toml:13:1: variable name "a=b": want letters, digits, - and _, beginning with a letter or digit
f.toml:14:8: [selector.uboot.bank-variables.disk] lacks "a"
f.toml:14:26: unknown key "c" in [selector.uboot.bank-variables.disk]; did you mean "a"?
f.toml:15:5: selector.uboot.bank-variables.x is an integer, want a table`},
		{"U-Boot: no scheme, no environment", strings.NewReplacer("scheme = \"one-shot\"\n", "", "env-config = \"/etc/fw_env.config\"\n", "").Replace(bank),
			`f.toml:6:11: [selector.uboot] lacks "scheme"
f.toml:6:11: [selector.uboot] lacks "env-config" or "copies": where is the environment?`},
		{"U-Boot: no table at all", "[store]\ndevice = \"/s\"\n[selector]\ntype = \"uboot\"\n[component.radio]\nid = 0\nkind = \"live\"\nmanifest = \"none\"\nslots = {a = \"/a\", b = \"/b\"}\n",
			`f.toml:3:2: [selector.uboot] lacks "scheme"
f.toml:3:2: [selector.uboot] lacks "env-config" or "copies": where is the environment?`},
		{"U-Boot: file and copies", strings.Replace(bank, "[identity]", "copies = [{device = \"/x\", size = 1024}]\n[identity]", 1),
			`f.toml:8:14: selector.uboot.env-config is set, and so is copies at f.toml:9:1: want one of them`},
		{"U-Boot: one copy, not in so many words", copies("{device = \"/x\", size = 1024}"),
			`f.toml:8:1: selector.uboot.copies has one: a power cut can lose it; single-copy = true permits that`},
		{"U-Boot: two copies, and single-copy", copies("{device = \"/x\", size = 1024}, {device = \"/y\", size = 1024}]\nsingle-copy = true #"),
			`f.toml:9:15: selector.uboot.single-copy is true, and copies has two`},
		{"U-Boot: three copies", copies("{}, {}, {}"), `f.toml:8:1: selector.uboot.copies has 3, want one or two`},
		{"U-Boot: copies that overlap", copies("{device = \"/x\", size = 1024}, {device = \"/x\", offset = 1023, size = 1024}"),
			`f.toml:8:1: selector.uboot.copies overlap`},
		{"U-Boot: copies of two sizes", copies("{device = \"/x\", size = 1024}, {device = \"/y\", size = 2048}"),
			`f.toml:8:1: selector.uboot.copies differ in size: 0x400 and 0x800`},
		{"U-Boot: an offset from the end, in hexadecimal", copies("{device = \"/x\", offset = -0x400, size = 1024}"),
			`f.toml:8:36: sign is not allowed on numbers with a radix prefix`},
		{"U-Boot: mistakes within copies", copies("{devise = \"/x\", size = 3}, {device = \"x\", offset = \"0x400\", size = 99999999}"),
			`f.toml:8:11: [selector.uboot.copies[0]] lacks "device"
f.toml:8:12: unknown key "devise" in [selector.uboot.copies[0]]; did you mean "device"?
f.toml:8:34: selector.uboot.copies[0].size is 3, want 16 to 1048576
f.toml:8:48: selector.uboot.copies[1].device is "x", want an absolute path, PARTLABEL=name or PARTUUID=uuid
f.toml:8:62: selector.uboot.copies[1].offset is a string, want an integer
f.toml:8:78: selector.uboot.copies[1].size is 99999999, want 16 to 1048576`},
		{"U-Boot: copies that are no tables", copies("\"/dev/mmcblk0\", 3"),
			`f.toml:8:11: selector.uboot.copies[0] is a string, want a table {device, offset, size}
f.toml:8:27: selector.uboot.copies[1] is an integer, want a table {device, offset, size}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load([]source{{"f.toml", []byte(tt.text)}})
			if err == nil {
				t.Fatal("want an error")
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Error("-want +got:\n" + diff)
			}
		})
	}
}

// copies puts copies, in line 8, in the place of env-config.
func copies(list string) string {
	return strings.Replace(bank, "env-config = \"/etc/fw_env.config\"", "copies = ["+list+"]", 1)
}

func TestMistakesInSeveralFilesAreInTheOrderOfTheFiles(t *testing.T) {
	_, err := load([]source{
		{"z.toml", []byte(bank + "knd = \"bank\"\n")},
		{"a.toml", []byte("\n\ntrial = 1\ncomponent.rootfs.id = 300\n")},
	})
	want := `z.toml:17:1: unknown key "knd" in [component.rootfs]; did you mean "kind"?
a.toml:3:9: trial is an integer, want true or false
a.toml:4:23: component.rootfs.id is 300, want 0 to 255`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestAWrongFileIsNotReportedToTheEnd(t *testing.T) {
	text := ""
	for i := range 50 {
		text += strings.Repeat("x", i+10) + " = 1\n"
	}
	_, err := load([]source{{"f.toml", []byte(text + bank)}})
	if err == nil {
		t.Fatal("want an error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != maxErrors+1 || lines[maxErrors] != "and 30 more mistakes" {
		t.Errorf("%d lines, the last: %q", len(lines), lines[len(lines)-1])
	}
}
