package pdserver

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// semver is a version of a store.
type semver struct {
	major, minor, patch int64
	pre                 []string // identifiers of a release before this version's
	build               string
}

// parseVersion reads one; old stores have none (PD: pkg/versioninfo, ParseVersion).
func parseVersion(text string) (semver, error) {
	if text == "" {
		return semver{major: 1}, nil
	}
	text = strings.TrimPrefix(text, "v")
	rest, build, _ := strings.Cut(text, "+")
	numbers, pre, _ := strings.Cut(rest, "-")
	v := semver{build: build}
	parts := strings.Split(numbers, ".")
	if len(parts) != 3 {
		return semver{}, fmt.Errorf("%s is not in dotted-tri format", numbers)
	}
	for i, to := range []*int64{&v.major, &v.minor, &v.patch} {
		n, err := strconv.ParseUint(parts[i], 10, 63)
		if err != nil {
			return semver{}, err
		}
		*to = int64(n)
	}
	if pre != "" {
		v.pre = strings.Split(pre, ".")
	}
	return v, nil
}

func (v semver) String() string {
	text := fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch)
	if len(v.pre) > 0 {
		text += "-" + strings.Join(v.pre, ".")
	}
	if v.build != "" {
		text += "+" + v.build
	}
	return text
}

// compare orders versions as semver.org (2.0.0, section 11) does.
func (v semver) compare(o semver) int {
	if c := cmp.Or(cmp.Compare(v.major, o.major), cmp.Compare(v.minor, o.minor), cmp.Compare(v.patch, o.patch)); c != 0 {
		return c
	}
	if (len(v.pre) == 0) != (len(o.pre) == 0) {
		return cmp.Compare(len(o.pre), len(v.pre)) // what comes before a version is less than it
	}
	return slices.CompareFunc(v.pre, o.pre, comparePre)
}

// comparePre orders identifiers: numbers by value, and before words.
func comparePre(a, b string) int {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	switch {
	case errX == nil && errY == nil:
		return cmp.Compare(x, y)
	case errX == nil:
		return -1
	case errY == nil:
		return 1
	}
	return strings.Compare(a, b)
}
