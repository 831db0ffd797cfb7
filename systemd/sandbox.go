package systemd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
func unitFolders() []string {
	return []string{"etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}
}

// maxUnitFile bounds a unit's file.
const maxUnitFile = 64 << 10

// ReadSandbox reads the file and the drop-ins of a unit in the system below root.
func ReadSandbox(root, unit string) (Sandbox, error) {
	s := Sandbox{settings: map[string]string{}}
	found := map[string]string{} // path of the file with a name, in the first folder that has it
	var names []string
	for _, folder := range unitFolders() {
		dir := filepath.Join("/", root, folder)
		for _, sub := range []string{"", unit + ".d"} {
			entries, err := os.ReadDir(filepath.Join(dir, sub))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return s, err
			}
			for _, e := range entries {
				name := e.Name()
				if wanted := sub == "" && name == unit || sub != "" && strings.HasSuffix(name, ".conf"); !wanted || found[name] != "" {
					continue
				}
				found[name] = filepath.Join(dir, sub, name)
				if sub != "" {
					names = append(names, name)
				}
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
			s.writable = append(s.writable, strings.TrimLeft(strings.Trim(path, `"'`), "-+"))
		}
	}
}

// Hides tells whether the unit sees something else at path than the rest of the system, which
// ReadWritePaths= does not change.
func (s Sandbox) Hides(path string) bool {
	return s.on("ProtectHome") && below(path, "/home", "/root", "/run/user") || s.on("PrivateTmp") && below(path, "/tmp", "/var/tmp")
}

func (s Sandbox) on(setting string) bool {
	return !slices.Contains([]string{"", "no", "off", "false", "0"}, s.settings[setting])
}

// Allows tells whether the unit may write to the file at path.
func (s Sandbox) Allows(path string) bool {
	switch {
	case s.Hides(path):
		return false
	case below(path, s.writable...):
		return true
	}
	for _, own := range [...][2]string{{"StateDirectory", "/var/lib/"}, {"RuntimeDirectory", "/run/"}} {
		if name := s.settings[own[0]]; name != "" && below(path, own[1]+name) {
			return true
		}
	}
	if s.settings["ProtectSystem"] == "strict" {
		return below(path, "/dev", "/proc", "/sys")
	}
	return !s.on("ProtectSystem") || !below(path, "/usr", "/boot", "/efi") && !(below(path, "/etc") && s.settings["ProtectSystem"] == "full")
}

// below tells whether path is one of the folders, or lies in one.
func below(path string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		return path == f || strings.HasPrefix(path, strings.TrimSuffix(f, "/")+"/")
	})
}
