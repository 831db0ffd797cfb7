package kind

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestFilesOfRealTools: files that the tools of each format write are recognised.
func TestFilesOfRealTools(t *testing.T) {
	for name, c := range map[string]struct {
		command string // writes f
		form    Form
	}{
		"a gzip file":                 {"echo text | gzip > f", Packed},
		"an xz file":                  {"echo text | xz > f", Packed},
		"a zstd file":                 {"echo text | zstd -q > f", Packed},
		"a bzip2 file":                {"echo text | bzip2 > f", Packed},
		"a tar archive":               {"echo text > a; tar cf f a", Packed},
		"a cpio archive":              {"echo text > a; echo a | cpio -o -H newc --quiet > f", Packed},
		"an SWUpdate image":           {"echo text > sw-description; echo sw-description | cpio -o -H crc --quiet > f", Foreign},
		"a Mender artifact":           {"echo text > version; tar cf f version", Foreign},
		"an ext4 file system":         {"truncate -s 4M f; mkfs.ext4 -q f", Content},
		"a btrfs file system":         {"truncate -s 120M f; mkfs.btrfs -q f", Content},
		"a FAT file system":           {"truncate -s 4M f; mkfs.vfat f", Content},
		"a squashfs file system":      {"mkdir d; echo text > d/a; mksquashfs d f -quiet -no-progress", Content},
		"an EROFS file system":        {`head -c 1024 /dev/zero > f; printf "\342\341\365\340" >> f`, Content},
		"a qcow2 disk image":          {`printf "QFI\373" > f`, Packed},
		"a private key":               {"openssl genpkey -algorithm ed25519 -out f", Other},
		"a file of an unknown format": {`printf "\303\001\002" > f`, Unknown},
		"a text":                      {"echo text > f", Other},
		"an empty file":               {": > f", Other},
		"an ELF program":              {"cp /bin/true f", Content},
		"a device tree or FIT image":  {"echo '/dts-v1/; / { };' | dtc -q -o f", Content},
		"a whole disk with its partition table (GPT)": {"truncate -s 4M f; sgdisk -n 1 f", WholeDisk},
		"a whole disk with its partition table (MBR)": {"truncate -s 4M f; echo ',,L' | sfdisk -q f", WholeDisk},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), "sh", "-ec", c.command)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+os.Getenv("PATH")+":/sbin:/usr/sbin")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			f, err := os.Open(filepath.Join(dir, "f"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if k, err := OfFile(f, info.Size()); err != nil || k != (Kind{name, c.form}) {
				t.Errorf("got %+v, %v", k, err)
			}
		})
	}
}

// TestSquashfsWithASignatureIsRAUC: RAUC appends a CMS structure and its length.
func TestSquashfsWithASignatureIsRAUC(t *testing.T) {
	image := append([]byte("hsqs"), make([]byte, 8188)...)
	signature := append([]byte{0x30, 0x82, 1, 0}, make([]byte, 256)...)
	file := append(append(image, signature...), binary.BigEndian.AppendUint64(nil, uint64(len(signature)))...)
	if k, err := OfFile(bytes.NewReader(file), int64(len(file))); err != nil || k.Name != "a RAUC bundle" {
		t.Errorf("%+v, %v", k, err)
	}
	if k, err := OfFile(bytes.NewReader(image), int64(len(image))); err != nil || k.Name != "a squashfs file system" {
		t.Errorf("%+v, %v", k, err)
	}
}

// FuzzKind: any bytes have a kind or none.
func FuzzKind(f *testing.F) {
	f.Add([]byte("hsqs"), int64(10000))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n"), int64(28))
	f.Add(append(make([]byte, 510), 0x55, 0xaa), int64(512))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if k := Of(b); k.Name == "" && k.Form != Unknown {
			t.Errorf("%+v", k)
		}
		_, _ = OfFile(bytes.NewReader(b), size) // an error where the file is shorter than it says
	})
}
