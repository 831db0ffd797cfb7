package config

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/fwu-ab/fwu-ab/suit"
)

// reader turns nodes into values. It collects the mistakes and, for the report, the values in force.
type reader struct {
	errs     []*Error
	settings []Setting
	asked    []string // every key that can stand somewhere, dotted, as far as the file made it worth asking
}

func (r *reader) fail(at Pos, format string, args ...any) {
	r.errs = append(r.errs, &Error{at, fmt.Sprintf(format, args...)})
}

func (r *reader) note(key string, value any, at Pos) {
	r.settings = append(r.settings, Setting{key, value, origin(at)})
}

func origin(at Pos) string {
	if at.File == "" {
		return "default"
	}
	return fmt.Sprintf("%s:%d", at.File, at.Line)
}

// scope is a table that is being read. What is asked for is what may stand in it: done reports the rest.
type scope struct {
	*reader
	table *node  // nil if it is not there
	at    Pos    // of the table, or of the one that lacks it
	path  string // of keys in it: empty, or ending with a dot
	known []string
	wrong bool // it is there, but is no table: what it lacks does not matter
}

func (r *reader) root(n *node) *scope { return &scope{reader: r, table: n, at: n.at} }

// name is what messages call the table.
func (s *scope) name() string {
	if s.path == "" {
		return "the file"
	}
	return "[" + strings.TrimSuffix(s.path, ".") + "]"
}

// child returns the node of a key, nil if it is not set.
func (s *scope) child(key string) *node {
	s.known = append(s.known, key)
	s.asked = append(s.asked, s.path+key)
	if s.table == nil {
		return nil
	}
	n := s.table.table[key]
	if n != nil && n.value == "" {
		return nil
	}
	return n
}

// scope returns the table of a key. It reads as empty if it is not there.
func (s *scope) scope(key string) *scope {
	sub := &scope{reader: s.reader, at: s.at, path: s.path + key + "."}
	n := s.child(key)
	if n == nil {
		return sub
	}
	sub.at = n.at
	if n.table == nil {
		s.wrongKind(key, n, "a table")
		sub.wrong = true
		return sub
	}
	sub.table = n
	return sub
}

// done reports the keys that nobody asked for.
func (s *scope) done() {
	if s.table == nil {
		return
	}
	for _, key := range s.table.keys {
		if !slices.Contains(s.known, key) {
			n := s.table.table[key]
			s.fail(n.key, "unknown key %q in %s%s", key, s.name(), hint(key, s.known))
		}
	}
}

func (s *scope) wrongKind(key string, n *node, want string) {
	s.fail(n.at, "%s%s is %s, want %s", s.path, key, n.kind(), want)
}

// lacks reports that something required is not set.
func (s *scope) lacks(key string) {
	if !s.wrong {
		s.fail(s.at, "%s lacks %q", s.name(), key)
	}
}

// text returns the string of a key and the place of it, "" if it is not set.
func (s *scope) text(key string) (string, Pos) {
	n := s.child(key)
	if n == nil {
		return "", Pos{}
	}
	return s.textOf(key, n), n.at
}

func (s *scope) textOf(key string, n *node) string {
	v, ok := n.value.(string)
	if !ok {
		s.wrongKind(key, n, "a string")
		return ""
	}
	if strings.ContainsFunc(v, unicode.IsControl) {
		s.fail(n.at, "%s%s has a control character: %q", s.path, key, v)
		return ""
	}
	return v
}

// choice reads one of several words; the first is the default. If that is "" there is none, and it stands for what was refused as well.
func (s *scope) choice(key string, words ...string) string {
	v, at := s.text(key)
	switch {
	case v == "":
		v, at = words[0], Pos{}
	case !slices.Contains(words, v):
		known := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "" })
		s.fail(at, "%s%s is %q, want %s", s.path, key, v, quoteList(known))
		return words[0]
	}
	if v != "" {
		s.note(s.path+key, v, at)
	}
	return v
}

func (s *scope) boolean(key string, fallback bool) bool {
	n := s.child(key)
	if n == nil {
		s.note(s.path+key, fallback, Pos{})
		return fallback
	}
	v, ok := n.value.(bool)
	if !ok {
		s.wrongKind(key, n, "true or false")
		return fallback
	}
	s.note(s.path+key, v, n.at)
	return v
}

// number reads an integer between low and high; ok is false if it is not set or was refused.
func (s *scope) number(key string, low, high int64) (v int64, at Pos, ok bool) {
	n := s.child(key)
	if n == nil {
		return 0, Pos{}, false
	}
	v, isNumber := n.value.(int64)
	switch {
	case !isNumber:
		s.wrongKind(key, n, "an integer")
		return 0, n.at, false
	case v < low || v > high:
		s.fail(n.at, "%s%s is %d, want %d to %d", s.path, key, v, low, high)
		return 0, n.at, false
	}
	return v, n.at, true
}

// file reads an absolute path that may be missing.
func (s *scope) file(key string) string {
	v, at := s.text(key)
	if v == "" {
		return ""
	}
	if !strings.HasPrefix(v, "/") {
		s.fail(at, "%s%s is %q, want an absolute path", s.path, key, v)
		return ""
	}
	s.note(s.path+key, v, at)
	return v
}

// files reads a list of absolute paths; nil if it is not set. A wrong path stays in it: that it is empty is another mistake.
func (s *scope) files(key string) ([]string, Pos) {
	n := s.child(key)
	if n == nil {
		return nil, Pos{}
	}
	if n.array == nil {
		s.wrongKind(key, n, "an array of paths")
		return nil, n.at
	}
	list := []string{}
	for i, e := range n.array {
		item := fmt.Sprintf("%s[%d]", key, i)
		v := s.textOf(item, e)
		if v != "" && !strings.HasPrefix(v, "/") || e.value == "" {
			s.fail(e.at, "%s%s is %q, want an absolute path", s.path, item, v)
		}
		list = append(list, v)
	}
	return list, n.at
}

// device reads what names a device: a path, PARTLABEL= or PARTUUID=.
func (s *scope) device(key string) (string, Pos) {
	v, at := s.text(key)
	if v == "" {
		return "", at
	}
	v, why := checkDevice(v)
	if why != "" {
		s.fail(at, "%s%s is %q, %s", s.path, key, v, why)
		return "", at
	}
	s.note(s.path+key, v, at)
	return v, at
}

// maxLabel is the length of a name in a GPT, in UTF-16 code units (UEFI 2.10, section 5.3.3).
const maxLabel = 36

// checkDevice returns the form in which equal names are equal, or why the name is none.
func checkDevice(v string) (name, why string) {
	if strings.HasPrefix(v, "/") {
		return v, ""
	}
	kind, id, _ := strings.Cut(v, "=")
	switch kind {
	case "PARTLABEL":
		units := 0
		for _, r := range id {
			units++
			if r > 0xffff {
				units++
			}
		}
		if units == 0 || units > maxLabel {
			return v, fmt.Sprintf("a partition label has 1 to %d characters", maxLabel)
		}
		return v, ""
	case "PARTUUID":
		if isMBRPartition(id) {
			return "PARTUUID=" + strings.ToLower(id), ""
		}
		u, err := suit.ParseUUID(id)
		if err != nil {
			return v, err.Error() + "; or, for an MBR, eight and two hexadecimal digits as in 9bdf2dc6-02"
		}
		return "PARTUUID=" + u.String(), ""
	}
	return v, "want an absolute path, PARTLABEL=name or PARTUUID=uuid"
}

// isMBRPartition tells whether id is the PARTUUID of a partition of an MBR, as Linux makes it:
// signature of the disk and number of the partition.
func isMBRPartition(id string) bool {
	signature, number, ok := strings.Cut(id, "-")
	isHex := func(s string, digits int) bool {
		return len(s) == digits && strings.Trim(s, "0123456789abcdefABCDEF") == ""
	}
	return ok && isHex(signature, 8) && isHex(number, 2)
}
