package suit

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Version is the version of an image as the PSA Certified Firmware Update API 1.0 has it (psa_fwu_image_version_t, section 5.5.2).
type Version struct {
	Major uint8  `json:"major"`
	Minor uint8  `json:"minor"`
	Patch uint16 `json:"patch"`
	Build uint32 `json:"build"`
}

// String returns major.minor.patch, and +build where it is not 0.
func (v Version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
	if v.Build != 0 {
		s += "+" + strconv.FormatUint(uint64(v.Build), 10)
	}
	return s
}

// Compare returns -1, 0 or 1 as v is lower than, equal to or higher than w.
func (v Version) Compare(w Version) int {
	a, b := v.fields(), w.fields()
	return slices.Compare(a[:], b[:])
}

// ParseVersion reads what String writes; minor, patch and build may be left out. A number that does not fit its field is an error.
func ParseVersion(s string) (Version, error) {
	core, build, hasBuild := strings.Cut(s, "+")
	parts := strings.Split(core, ".")
	if len(parts) > 3 {
		return Version{}, fmt.Errorf("version %q: want major[.minor[.patch]][+build]", s)
	}
	fields := [4]uint64{}
	bits := [4]int{8, 8, 16, 32}
	names := [4]string{"major", "minor", "patch", "build"}
	if hasBuild {
		for len(parts) < 3 {
			parts = append(parts, "0")
		}
		parts = append(parts, build)
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, bits[i])
		if err != nil {
			return Version{}, fmt.Errorf("version %q: %s %q is not a number from 0 to %d", s, names[i], p, uint64(1)<<bits[i]-1)
		}
		fields[i] = n
	}
	return Version{uint8(fields[0]), uint8(fields[1]), uint16(fields[2]), uint32(fields[3])}, nil
}

// fields are the four numbers, the most significant first.
func (v Version) fields() [4]int64 {
	return [4]int64{int64(v.Major), int64(v.Minor), int64(v.Patch), int64(v.Build)}
}

// Comparison is how versions are compared (draft-ietf-suit-update-management-14, section "suit-parameter-version").
type Comparison uint8

// The comparisons of the draft.
const (
	Greater      Comparison = 1
	GreaterEqual Comparison = 2
	Equal        Comparison = 3
	LesserEqual  Comparison = 4
	Lesser       Comparison = 5
)

// String returns the operator that the draft has for texts.
func (c Comparison) String() string {
	if c < Greater || c > Lesser {
		return fmt.Sprintf("comparison %d", uint8(c))
	}
	return [...]string{">", ">=", "=", "<=", "<"}[c-1]
}

// Requirement is what a version must be.
type Requirement struct {
	Comparison Comparison `json:"comparison"`
	Version    Version    `json:"version"`
	Numbers    int        `json:"numbers"` // of the version are compared, from major on: 1 to 4
}

// Met tells whether v is as required.
func (q Requirement) Met(v Version) bool {
	have, want := v.fields(), q.Version.fields()
	order := 0
	for i := range min(q.Numbers, len(have)) {
		if order = cmp.Compare(have[i], want[i]); order != 0 {
			break
		}
	}
	switch q.Comparison {
	case Greater:
		return order > 0
	case GreaterEqual:
		return order >= 0
	case Equal:
		return order == 0
	case LesserEqual:
		return order <= 0
	case Lesser:
		return order < 0
	}
	return false
}

// String returns for instance ">=1.2.0". Numbers that are not compared are left out.
func (q Requirement) String() string {
	s := q.Comparison.String()
	for i, f := range q.Version.fields() {
		if i < q.Numbers {
			s += [...]string{"", ".", ".", "+"}[i] + strconv.FormatInt(f, 10)
		}
	}
	return s
}

// Dependency is what an image needs of a component: a version.
type Dependency struct {
	Component string `json:"component"`
	Requirement
	// Present: what counts is the image that is active before the update, even where the update brings another one.
	Present bool `json:"present,omitempty"`
}

// String returns what ParseDependency reads.
func (d Dependency) String() string { return d.Component + d.Requirement.String() }

// ParseDependency reads a component, one of the operators >, >=, =, <= and <, and a version: "bootfw>=1.2.0". Numbers of the version that are left out are not compared.
func ParseDependency(s string) (Dependency, error) {
	i := strings.IndexAny(s, "<=>")
	if i < 0 || !validName(s[:i]) {
		return Dependency{}, fmt.Errorf("dependency %q: want component>=version", s)
	}
	version := strings.TrimLeft(s[i:], "<=>")
	d := Dependency{Component: s[:i]}
	for c := Greater; c <= Lesser; c++ {
		if c.String() == s[i:len(s)-len(version)] {
			d.Comparison = c
		}
	}
	if d.Comparison == 0 {
		return Dependency{}, fmt.Errorf("dependency %q: want one of the operators >, >=, =, <= and <", s)
	}
	var err error
	if d.Version, err = ParseVersion(version); err != nil {
		return Dependency{}, fmt.Errorf("dependency %q: %w", s, err)
	}
	d.Numbers = 1 + strings.Count(version, ".")
	if strings.Contains(version, "+") {
		d.Numbers = 4
	}
	return d, nil
}

// readVersion reads [major, ?minor, ?patch, ?build], and how many numbers there are. Three numbers are what draft-ietf-suit-update-management has for a release; the fourth makes it
// the numbering scheme of the PSA Firmware Update API, which orders by it too. What does not fit the fields of that is refused.
func readVersion(r *reader) (Version, int, error) {
	n, err := r.expect(majorArray, "version")
	if err != nil {
		return Version{}, 0, err
	}
	if n < 1 || n > 4 {
		return Version{}, 0, unsupported("version of %d numbers", n)
	}
	limits := [4]int64{math.MaxUint8, math.MaxUint8, math.MaxUint16, math.MaxUint32}
	var fields [4]int64
	for i := range int(n) {
		v, err := r.int("number in version")
		switch {
		case err != nil:
			return Version{}, 0, err
		case v < 0:
			return Version{}, 0, unsupported("pre-release version (%d)", v)
		case v > limits[i]:
			return Version{}, 0, unsupported("version with %d as number %d, %d at most", v, i+1, limits[i])
		}
		fields[i] = v
	}
	return Version{uint8(fields[0]), uint8(fields[1]), uint16(fields[2]), uint32(fields[3])}, int(n), nil
}

// readWrappedVersion reads a version in a byte string.
func readWrappedVersion(r *reader) (Version, int, error) {
	v, err := r.nested("version")
	if err != nil {
		return Version{}, 0, err
	}
	version, numbers, err := readVersion(v)
	if err != nil {
		return Version{}, 0, err
	}
	return version, numbers, v.done("version")
}

// appendVersion encodes the first numbers of a version.
func appendVersion(b []byte, v Version, numbers int) []byte {
	b = appendHead(b, majorArray, uint64(numbers))
	fields := v.fields()
	for _, f := range fields[:numbers] {
		b = appendHead(b, majorUint, uint64(f))
	}
	return b
}

// release is how many numbers of a version are written: the build number only if there is one.
func (v Version) release() int {
	if v.Build == 0 {
		return 3
	}
	return 4
}

// readRequirement reads a SUIT_Parameter_Version_Match in a byte string.
func readRequirement(r *reader) (q Requirement, err error) {
	n, err := r.nested("version match")
	if err != nil {
		return q, err
	}
	if _, err := n.array("version match", 2, 2); err != nil {
		return q, err
	}
	op, err := n.int("version comparison")
	if err != nil {
		return q, err
	}
	if op < int64(Greater) || op > int64(Lesser) {
		return q, unsupported("version comparison %d", op)
	}
	q.Comparison = Comparison(op)
	if q.Version, q.Numbers, err = readVersion(n); err != nil {
		return q, err
	}
	return q, n.done("version match")
}

func (q Requirement) append(b []byte) []byte {
	b = appendHead(b, majorArray, 2)
	return appendVersion(appendInt(b, int64(q.Comparison)), q.Version, q.Numbers)
}
