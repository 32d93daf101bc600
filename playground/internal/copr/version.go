package copr

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// version is one of semver.org, without what follows a plus.
type version struct {
	n   [3]uint64
	pre string
}

// ParseVersion takes "1.2.3" or "1.2.3-rc.1", and tells whether it is a version.
func ParseVersion(s string) (Version, bool) {
	v, parts, err := parseVersion(s)
	return Version{v}, err == nil && parts == 3
}

// Version is a plugin's.
type Version struct{ v version }

// String returns the version's words.
func (v Version) String() string { return v.v.String() }

func (v version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.n[0], v.n[1], v.n[2])
	if v.pre != "" {
		s += "-" + v.pre
	}
	return s
}

var errVersion = errors.New("copr: not a version")

// parseVersion takes a version of which the last parts may be left out or wildcards;
// parts is how many there are.
func parseVersion(s string) (v version, parts int, err error) {
	s, _, _ = strings.Cut(s, "+")
	s, v.pre, _ = strings.Cut(s, "-")
	wild := false
	for i, p := range strings.Split(s, ".") {
		if i == 3 {
			return v, 0, errVersion
		}
		if p == "*" || p == "x" || p == "X" {
			wild = true
			continue
		}
		n, err := strconv.ParseUint(p, 10, 64)
		if err != nil || wild || len(p) > 1 && p[0] == '0' {
			return v, 0, errVersion
		}
		v.n[i], parts = n, i+1
	}
	if v.pre != "" && parts < 3 {
		return v, 0, errVersion
	}
	return v, parts, nil
}

func (v version) compare(o version) int {
	for i := range v.n {
		if c := cmp.Compare(v.n[i], o.n[i]); c != 0 {
			return c
		}
	}
	switch {
	case v.pre == o.pre:
		return 0
	case v.pre == "":
		return 1
	case o.pre == "":
		return -1
	}
	return slices.CompareFunc(strings.Split(v.pre, "."), strings.Split(o.pre, "."), comparePre)
}

// comparePre compares parts of pre-releases: numbers are below words.
func comparePre(a, b string) int {
	x, errA := strconv.ParseUint(a, 10, 64)
	y, errB := strconv.ParseUint(b, 10, 64)
	switch {
	case errA == nil && errB == nil:
		return cmp.Compare(x, y)
	case errA == nil:
		return -1
	case errB == nil:
		return 1
	}
	return strings.Compare(a, b)
}

// bounds are the versions of one condition: [low, high), or above low, or both ends open.
type condition struct {
	low, high version
	above     bool // low itself is not meant
	unbounded bool // there is no high
	pre       []version
}

func (c condition) holds(v version) bool {
	if low := v.compare(c.low); low < 0 || low == 0 && c.above {
		return false
	}
	if !c.unbounded && v.compare(c.high) >= 0 {
		return false
	}
	// A pre-release is meant only by one of the same version.
	return v.pre == "" || slices.ContainsFunc(c.pre, func(p version) bool { return p.n == v.n && p.pre != "" })
}

// requirement is a version constraint as Cargo has it: conditions with commas between,
// all of which hold (TiKV src/coprocessor_v2/endpoint.rs: crate semver, VersionReq).
type requirement []condition

func parseRequirement(s string) (requirement, error) {
	var all requirement
	for _, part := range strings.Split(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" && s == part {
			return requirement{{unbounded: true}}, nil
		}
		c, err := parseCondition(part)
		if err != nil {
			return nil, fmt.Errorf("encountered a bad version requirement %q", s)
		}
		all = append(all, c)
	}
	return all, nil
}

func (r requirement) holds(v version) bool {
	for _, c := range r {
		if !c.holds(v) {
			return false
		}
	}
	return true
}

func parseCondition(s string) (condition, error) {
	op := s[:len(s)-len(strings.TrimLeft(s, "<>=~^"))]
	v, parts, err := parseVersion(strings.TrimSpace(s[len(op):]))
	if err != nil {
		return condition{}, err
	}
	c := condition{low: v, pre: []version{v}}
	switch {
	case parts == 0 && op == "":
		c.unbounded = true
	case op == "=" || op == "" && strings.ContainsAny(s, "*xX"):
		c.high = v.next(parts - 1)
		if v.pre != "" || parts == 3 {
			c.high = v.after()
		}
	case op == "^" || op == "":
		c.high = v.next(min(slices.IndexFunc(append(v.n[:parts:parts], 1), func(n uint64) bool { return n > 0 }), parts-1))
	case op == "~":
		c.high = v.next(min(1, parts-1))
	case op == ">":
		if c.unbounded, c.above = true, true; parts < 3 {
			c.low, c.above = v.next(parts-1), false
		}
	case op == ">=":
		c.unbounded = true
	case op == "<":
		c.low, c.high = version{}, v
	case op == "<=":
		if c.low, c.high = (version{}), v.next(parts-1); parts == 3 {
			c.high = v.after()
		}
	default:
		return condition{}, errVersion
	}
	if parts == 0 && op != "" {
		return condition{}, errVersion
	}
	return c, nil
}

// next is the first version with a larger part i.
func (v version) next(i int) version {
	var o version
	i = max(i, 0)
	copy(o.n[:i+1], v.n[:i+1])
	o.n[i]++
	return o
}

// after is the first version behind v: of a pre-release the one with a zero at its end.
func (v version) after() version {
	if v.pre != "" {
		return version{v.n, v.pre + ".0"}
	}
	o := v
	o.n[2]++
	o.pre = "0" // pre-releases of the next patch are behind it
	return o
}
