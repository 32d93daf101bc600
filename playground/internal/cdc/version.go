package cdc

import (
	"cmp"
	"strconv"
	"strings"
)

// features are what a stream's client is served with (TiKV components/cdc/src/service.rs,
// FeatureGate).
type features struct {
	batch       bool // resolved timestamps of many regions in one message
	clusterID   bool // checked
	multiplexed bool // a region may be subscribed to under several request ids
}

// featuresOf are the defaults of a client's version, and what it asked for by name.
func featuresOf(clientVersion string, multiplexed bool) features {
	v := parseVersion(clientVersion)
	return features{
		batch:       v.atLeast(version{4, 0, 8, false}),
		clusterID:   v.atLeast(version{5, 3, 0, false}),
		multiplexed: multiplexed,
	}
}

// multiplexing is the one feature that clients ask for by name.
const multiplexing = "stream-multiplexing"

// parseFeatures reads the metadata of EventFeedV2, the names in a list; if it does not know
// them all it returns those (service.rs, parse_features).
func parseFeatures(list string) (multiplexed bool, unknown string, ok bool) {
	var others []string
	for name := range strings.SplitSeq(list, ",") {
		switch name = strings.TrimSpace(name); name {
		case multiplexing:
			multiplexed = true
		default:
			others = append(others, name)
		}
	}
	return multiplexed, strings.Join(others, ","), len(others) == 0
}

// version is a semantic version; the build does not count.
type version struct {
	major, minor, patch uint64
	pre                 bool // a pre-release, which is below the release
}

// parseVersion reads a version; one that is none is 0.0.0 (service.rs,
// parse_version_from_request_header).
func parseVersion(text string) version {
	core, _, _ := strings.Cut(text, "+")
	core, pre, isPre := strings.Cut(core, "-")
	parts := strings.Split(core, ".")
	if len(parts) != 3 || isPre && pre == "" {
		return version{}
	}
	var n [3]uint64
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 64)
		if err != nil || len(p) > 1 && p[0] == '0' || p[0] == '+' {
			return version{}
		}
		n[i] = v
	}
	return version{n[0], n[1], n[2], isPre}
}

func (v version) atLeast(o version) bool {
	c := cmp.Or(cmp.Compare(v.major, o.major), cmp.Compare(v.minor, o.minor), cmp.Compare(v.patch, o.patch))
	return c > 0 || c == 0 && (!v.pre || o.pre)
}
