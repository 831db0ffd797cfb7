package uboot

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseConfig(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want []Location // nil: refused
	}{
		"one copy":                         {"/dev/mmcblk0 0xc0000 0x20000\n", []Location{{"/dev/mmcblk0", 0xc0000, 0x20000}}},
		"two copies, comments, tabs":       {"# env\n\n/dev/mmcblk0\t0xc0000\t0x20000 # first\n/dev/mmcblk0 0xE0000 0x20000", []Location{{"/dev/mmcblk0", 0xc0000, 0x20000}, {"/dev/mmcblk0", 0xe0000, 0x20000}}},
		"offset from the end":              {"/dev/mmcblk0 -0x20000 0x20000\n", []Location{{"/dev/mmcblk0", -0x20000, 0x20000}}},
		"offset decimal, size always hex":  {"/boot/uboot.env 4096 4000\n", []Location{{"/boot/uboot.env", 4096, 0x4000}}},
		"offset octal, as strtoll has it":  {"/boot/uboot.env 010000 0x4000\n", []Location{{"/boot/uboot.env", 4096, 0x4000}}},
		"sector size and number":           {"/dev/sda 0x0 0x4000 0x1000 4 0\n", []Location{{"/dev/sda", 0, 0x4000}}},
		"sectors too few":                  {"/dev/sda 0x0 0x4001 0x1000 4\n", nil},
		"sector size 0":                    {"/dev/sda 0x0 0x4000 0 0\n", []Location{{"/dev/sda", 0, 0x4000}}},
		"offset beyond 4 GiB":              {"/dev/sda 0x100000000 0x4000\n", []Location{{"/dev/sda", 1 << 32, 0x4000}}},
		"empty":                            {"\n# nothing\n", nil},
		"size missing":                     {"/dev/sda 0x0\n", nil},
		"size misspelt in the second line": {"/dev/sda 0x0 0x4000\n/dev/sda 0x4000 0xx4000\n", nil},
		"third copy":                       {"/a 0 0x4000\n/b 0 0x4000\n/c 0 0x4000\n", nil},
		"copies of different size":         {"/a 0 0x4000\n/b 0 0x2000\n", nil},
		"size 0":                           {"/a 0 0\n", nil},
		"size without room for data":       {"/a 0 5\n/b 0 5\n", nil},
		"larger than any environment":      {"/a 0 0x100001\n", nil},
		"size negative":                    {"/a 0 -0x4000\n", nil},
		"offset with underscore":           {"/a 0x1_0 0x4000\n", nil},
		"too many fields":                  {"/a 0 0x4000 0 0 0 0\n", nil},
		"MTD":                              {"/dev/mtd1 0x0 0x4000\n", nil},
		"MTD as a block device":            {"/dev/mtdblock1 0x0 0x4000\n", nil},
		"UBI volume":                       {"/dev/ubi0:env 0x0 0x1f000\n", nil},
		"the YAML of newer libubootenv":    {"uboot:\n  size: 0x4000\n  devices:\n", nil},
		"beyond the range of an offset":    {"/a 0x8000000000000000 0x4000\n", nil},
		"beyond the range of a size":       {"/a 0 0x8000000000000000\n", nil},
		"sectors whose product overflows":  {"/a 0 0x4000 0x4000000000000000 4\n", []Location{{"/a", 0, 0x4000}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseConfig([]byte(tt.text))
			if (err != nil) != (tt.want == nil) {
				t.Fatal(got, err)
			}
			if diff := cmp.Diff(tt.want, got); err == nil && diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := ParseConfig(make([]byte, 1<<17)); err == nil {
		t.Error("a configuration of 128 KiB was taken")
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("# x\n/dev/mmcblk0 -0x20000 0x20000 0x200 1\n/b 0 0x4000\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := ParseConfig(text)
		if err != nil {
			return
		}
		for _, l := range got {
			if len(got) > 2 || l.Path == "" || l.Size < 5 || l.Size > MaxSize || l.Size != got[0].Size {
				t.Errorf("%+v", got)
			}
		}
	})
}
