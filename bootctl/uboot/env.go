package uboot

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Env is the content of an environment: entries in the order in which they are stored.
//
// Where a name occurs more than once the last one counts, and "name=" removes what came before it: what U-Boot does (himport_r in lib/hashtable.c).
// Values are as stored. U-Boot takes a backslash for an escape; that is not undone here.
type Env struct {
	entries []string
}

// ParseEnv reads the data of a copy. It takes whatever U-Boot takes: an entry without "=" is kept and means nothing, and so is what follows the end.
func ParseEnv(data []byte) *Env {
	text := string(data)
	e := &Env{}
	for text != "" {
		entry, rest, _ := strings.Cut(text, "\x00")
		if entry == "" {
			break
		}
		e.entries = append(e.entries, entry)
		text = rest
	}
	return e
}

// name is the name of the variable in an entry, as U-Boot finds it; empty if the entry is a comment.
func name(entry string) string {
	entry = strings.TrimLeft(entry, " \t")
	if strings.HasPrefix(entry, "#") {
		return ""
	}
	n, _, _ := strings.Cut(entry, "=")
	return n
}

// Get returns the value of a variable. A variable with an empty value does not exist.
func (e *Env) Get(variable string) (string, bool) {
	for _, entry := range slices.Backward(e.entries) {
		if name(entry) == variable {
			_, value, _ := strings.Cut(entry, "=")
			return value, value != ""
		}
	}
	return "", false
}

// Set gives a variable a value, in the place where the variable first occurs, and drops further occurrences; an empty value deletes it.
// The name must be a plain one: not empty, without "=", NUL, blanks or a leading "#"; the value must not contain NUL.
func (e *Env) Set(variable, value string) error {
	if variable == "" || strings.ContainsAny(variable, "=\x00 \t\n") || variable[0] == '#' || strings.Contains(value, "\x00") {
		return fmt.Errorf("environment variable %q=%q: not a name and value that an environment can hold", variable, value)
	}
	at := slices.IndexFunc(e.entries, func(entry string) bool { return name(entry) == variable })
	e.entries = slices.DeleteFunc(e.entries, func(entry string) bool { return name(entry) == variable })
	switch {
	case value == "":
	case at < 0:
		e.entries = append(e.entries, variable+"="+value)
	default:
		e.entries = slices.Insert(e.entries, at, variable+"="+value)
	}
	return nil
}

// Clone returns a copy that can be changed on its own.
func (e *Env) Clone() *Env { return &Env{slices.Clone(e.entries)} }

// Equal tells whether both hold the same entries in the same order.
func (e *Env) Equal(o *Env) bool { return slices.Equal(e.entries, o.entries) }

// Entries returns the entries as they are stored, "name=value" each.
func (e *Env) Entries() []string { return slices.Clone(e.entries) }

// Data returns the data of a copy that has room for size bytes of it, padded with zeroes; an error if the environment does not fit.
func (e *Env) Data(size int) ([]byte, error) {
	need := 1
	for _, entry := range e.entries {
		need += len(entry) + 1
	}
	if need > size {
		return nil, fmt.Errorf("environment of %d bytes does not fit into %d", need, size)
	}
	data := make([]byte, 0, size)
	for _, entry := range e.entries {
		data = append(append(data, entry...), 0)
	}
	return data[:size], nil
}

// ParseDefault reads a full default environment: text as mkenvimage takes it (tools/mkenvimage.c: name=value lines, "#" begins a comment line,
// a backslash before the end of a line makes the line break part of the value), or entries separated by NUL as "env export -b" writes them.
// Stricter than mkenvimage, as nobody looks at a device that is being saved: each entry must be a variable with a name, and bootcmd, without which
// U-Boot boots nothing, must be one of them.
func ParseDefault(text []byte) (*Env, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("default environment of %d bytes: more than %d", len(text), MaxSize)
	}
	var e *Env
	if bytes.IndexByte(text, 0) >= 0 {
		e = ParseEnv(text)
	} else {
		e = parseLines(string(text))
	}
	for _, entry := range e.entries {
		switch n := name(entry); {
		case n == "" || n == entry:
			return nil, fmt.Errorf("default environment: %q is not name=value", entry)
		case strings.HasSuffix(entry, "\r"):
			return nil, fmt.Errorf("default environment: the line of %s ends with a carriage return", n)
		}
	}
	if _, ok := e.Get("bootcmd"); !ok {
		return nil, fmt.Errorf("default environment is not a full one: it has no bootcmd")
	}
	return e, nil
}

func parseLines(text string) *Env {
	e := &Env{}
	value := ""
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if before, ok := strings.CutSuffix(line, `\`); ok {
			value += before + "\n"
			continue
		}
		e.entries = append(e.entries, value+line)
		value = ""
	}
	if value != "" {
		e.entries = append(e.entries, value)
	}
	return e
}
