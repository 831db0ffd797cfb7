package uboot

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// MaxSize is the size of the largest copy that is accepted.
const MaxSize = 1 << 20

// Location says where a copy lies: a line of fw_env.config.
type Location struct {
	Path   string // file or block device
	Offset int64  // negative: from the end
	Size   int64  // of the whole copy, with CRC and flag
}

func (l Location) String() string { return fmt.Sprintf("%s at %#x", l.Path, l.Offset) }

// ParseConfig reads fw_env.config as tools/env/fw_env.c and libubootenv read it: a line for each copy, with path, offset, size and, of no meaning
// for a file or block device, sector size, number of sectors, and libubootenv's switch for MTD locks. An offset is decimal, hexadecimal with 0x, octal with 0;
// the other numbers are hexadecimal, with or without 0x. "#" begins a comment.
//
// Those tools skip a line that they do not understand, and a third one, and so make one copy of two without a word. Here they are errors.
func ParseConfig(text []byte) ([]Location, error) {
	if len(text) > 64<<10 {
		return nil, fmt.Errorf("fw_env.config of %d bytes: too long", len(text))
	}
	var found []Location
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if last := fields[len(fields)-1]; len(found) == 0 && (fields[0] == "---" || strings.HasSuffix(last, ":") || len(fields) > 1 && fields[1] == ":") {
			return nil, fmt.Errorf("fw_env.config line %d: %q begins the YAML form of libubootenv, which is not read here: give each copy a line with path, offset and size, or copies in the configuration",
				n, strings.TrimSpace(line))
		}
		l, err := parseLocation(fields)
		if err != nil {
			return nil, fmt.Errorf("fw_env.config line %d: %w", n, err)
		}
		if found = append(found, l); len(found) > 2 {
			return nil, fmt.Errorf("fw_env.config line %d: a third copy, %s; the environment has one copy or two, and fw_printenv reads the first two lines: remove the others", n, l)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("fw_env.config names no environment")
	}
	return found, checkLocations(found)
}

func parseLocation(fields []string) (Location, error) {
	const wanted = "want path, offset, size, and perhaps sector size, number of sectors and the switch for MTD locks"
	if len(fields) < 3 {
		return Location{}, fmt.Errorf("%d columns; %s", len(fields), wanted)
	}
	if len(fields) > 6 {
		return Location{}, fmt.Errorf("%q is one column too many; %s", fields[6], wanted)
	}
	l := Location{Path: fields[0]}
	var err error
	if strings.Contains(fields[1], "_") {
		return l, fmt.Errorf("offset %q is not a number", fields[1])
	}
	if l.Offset, err = strconv.ParseInt(fields[1], 0, 64); err != nil {
		return l, fmt.Errorf("offset: %w", err)
	}
	numbers := [...]int64{0, 0, 0, 0} // size, sector size, number of sectors, MTD locks
	for i, f := range fields[2:] {
		digits := strings.TrimPrefix(strings.TrimPrefix(f, "0x"), "0X")
		if numbers[i], err = strconv.ParseInt(digits, 16, 64); err != nil || numbers[i] < 0 {
			return l, fmt.Errorf("%q is not a hexadecimal number", f)
		}
	}
	l.Size = numbers[0]
	if sector, count := numbers[1], numbers[2]; count > 0 && sector > 0 && (l.Size-1)/sector >= count {
		return l, fmt.Errorf("environment of %#x bytes does not fit into %#x sectors of %#x", l.Size, count, sector)
	}
	return l, nil
}

// checkLocations refuses what cannot be an environment wherever it lies.
func checkLocations(ls []Location) error {
	for _, l := range ls {
		switch {
		case l.Path == "":
			return fmt.Errorf("environment location without a path")
		case strings.HasPrefix(filepath.Clean(l.Path), "/dev/mtd"), strings.HasPrefix(filepath.Clean(l.Path), "/dev/ubi"):
			return fmt.Errorf("%s: an environment on an MTD or UBI device is not supported yet", l.Path)
		case l.Size <= headerSize(len(ls)) || l.Size > MaxSize:
			return fmt.Errorf("%s: environment size %#x; want more than %d and at most %#x (sizes in fw_env.config are hexadecimal)",
				l, l.Size, headerSize(len(ls)), MaxSize)
		case l.Size != ls[0].Size:
			return fmt.Errorf("the copies of the environment differ in size: %#x and %#x", ls[0].Size, l.Size)
		}
	}
	return nil
}
