package partition

import (
	"fmt"
	"strconv"
	"strings"
)

// devno is the number of a block device.
type devno struct{ major, minor uint32 }

func (d devno) String() string { return fmt.Sprintf("%d:%d", d.major, d.minor) }

func parseDevno(s string) (devno, error) {
	major, minor, ok := strings.Cut(s, ":")
	a, errA := strconv.ParseUint(major, 10, 32)
	b, errB := strconv.ParseUint(minor, 10, 32)
	if !ok || errA != nil || errB != nil {
		return devno{}, fmt.Errorf("device number %q: want major:minor", s)
	}
	return devno{uint32(a), uint32(b)}, nil
}

// mount is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	dev      devno // of the file system; major 0 if it is not that of a block device
	point    string
	source   string
	readOnly bool     // the superblock is: nobody can write, through whatever mount point
	lower    []string // directories below an overlay, from the top
}

// parseMountinfo reads /proc/self/mountinfo. A line that it does not understand is an error: it could be the mount that matters.
func parseMountinfo(b []byte) ([]mount, error) {
	var mounts []mount
	for line := range strings.Lines(string(b)) {
		m, err := parseMount(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func parseMount(line string) (mount, error) {
	// id parent major:minor root point options [optional ...] - type source superblock-options
	fields := strings.Split(line, " ")
	sep := -1
	for i := 6; i < len(fields); i++ {
		if fields[i] == "-" {
			sep = i
			break
		}
	}
	if sep < 0 || len(fields) < sep+4 {
		return mount{}, fmt.Errorf("mountinfo: line %q is not understood", line)
	}
	dev, err := parseDevno(fields[2])
	if err != nil {
		return mount{}, fmt.Errorf("mountinfo: line %q: %w", line, err)
	}
	m := mount{dev: dev, point: unescape(fields[4]), source: unescape(fields[sep+2])}
	for _, o := range strings.Split(fields[sep+3], ",") {
		m.readOnly = m.readOnly || o == "ro"
		// Before Linux 6.8 one option lists the layers, since then each may have its own.
		if dirs, ok := strings.CutPrefix(strings.Replace(o, "lowerdir+=", "lowerdir=", 1), "lowerdir="); ok {
			m.lower = append(m.lower, strings.Split(unescape(dirs), ":")...)
		}
	}
	return m, nil
}

// parseSwaps reads /proc/swaps: a header, then a line per device or file that is swapped on, which begins with its path.
func parseSwaps(b []byte) []string {
	var paths []string
	lines := strings.Split(string(b), "\n")
	for _, line := range lines[1:] {
		if path, _, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " "); path != "" {
			paths = append(paths, unescape(path))
		}
	}
	return paths
}

// unescape undoes what the kernel does to blanks and backslashes in these files: \ and three octal digits.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
