package systemd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Sandbox tells where a unit may write, as far as its file and drop-ins say (systemd.exec(5)):
// ProtectSystem=, ProtectHome=, PrivateTmp=, ReadWritePaths= and the unit's own directories.
type Sandbox struct {
	// File is the unit's file; empty: there is none.
	File string

	settings map[string]string // the last value of each
	writable []string
}

// unitFolders are where units are looked for, the first one first (systemd.unit(5)).
const unitFolders = "/etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system /lib/systemd/system"

// maxUnitFile bounds a unit's file.
const maxUnitFile = 64 << 10

// ReadSandbox reads the file and the drop-ins of a unit in the system below root.
func ReadSandbox(root, unit string) (Sandbox, error) {
	s := Sandbox{settings: map[string]string{}}
	found := map[string]string{} // path of the file with a name, in the first folder that has it
	var names []string
	for _, folder := range strings.Fields(unitFolders) {
		dir := root + folder + "/"
		if _, err := os.Stat(dir + unit); err == nil && found[unit] == "" {
			found[unit] = dir + unit
		}
		dir += unit + ".d/"
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return s, err
		}
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, ".conf") && found[name] == "" {
				found[name] = dir + name
				names = append(names, name)
			}
		}
	}
	if s.File = found[unit]; s.File == "" {
		return s, nil
	}
	slices.Sort(names)
	for _, name := range append([]string{unit}, names...) {
		text, err := readUnit(found[name])
		if err != nil {
			return s, err
		}
		s.add(text)
	}
	return s, nil
}

func readUnit(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxUnitFile+1))
	if err == nil && len(text) > maxUnitFile {
		err = fmt.Errorf("%s: more than %d bytes", path, maxUnitFile)
	}
	return string(text), err
}

// add applies a file to the settings so far. A list goes on, until it is assigned nothing.
func (s *Sandbox) add(text string) {
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if key = strings.TrimSpace(key); !ok || strings.HasPrefix(key, "#") || strings.HasPrefix(key, ";") {
			continue
		}
		value = strings.TrimSpace(value)
		if key != "ReadWritePaths" {
			s.settings[key] = value
			continue
		}
		if value == "" {
			s.writable = nil
		}
		for _, path := range strings.Fields(value) {
			path = strings.TrimLeft(strings.Trim(path, `"'`), "-+")
			if path != "/" {
				path = strings.TrimSuffix(path, "/")
			}
			s.writable = append(s.writable, path)
		}
	}
}

// Hides tells whether the unit sees something else at path than the rest of the system, which
// ReadWritePaths= does not change.
func (s Sandbox) Hides(path string) bool {
	return s.on("ProtectHome") && below(path, "/home /root /run/user") || s.on("PrivateTmp") && below(path, "/tmp /var/tmp")
}

func (s Sandbox) on(setting string) bool {
	v := s.settings[setting]
	return v != "" && !strings.Contains(" no off false 0 ", " "+v+" ")
}

// Allows tells whether the unit may write to the file at path.
func (s Sandbox) Allows(path string) bool {
	if s.Hides(path) {
		return false
	}
	own := "/var/lib/" + s.settings["StateDirectory"] + " /run/" + s.settings["RuntimeDirectory"] + " "
	if below(path, own+strings.Join(s.writable, " ")) {
		return true
	}
	switch protect := s.settings["ProtectSystem"]; {
	case protect == "strict":
		return below(path, "/dev /proc /sys")
	case protect == "full" && below(path, "/etc"):
		return false
	}
	return !s.on("ProtectSystem") || !below(path, "/usr /boot /efi")
}

// below tells whether path is one of the folders, or lies in one. Those of the unit that it does
// not name end with a slash, and have nothing in them.
func below(path, folders string) bool {
	for _, f := range strings.Fields(folders) {
		if f == "/" || path == f || strings.HasPrefix(path, f+"/") {
			return true
		}
	}
	return false
}
