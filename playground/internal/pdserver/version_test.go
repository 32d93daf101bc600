package pdserver

import "testing"

// PD: pkg/versioninfo, ParseVersion; semver.org.
func TestVersions(t *testing.T) {
	ordered := []string{"", "4.0.0", "v8.5.1", "9.0.0-alpha", "9.0.0-alpha.1", "9.0.0-alpha.2", "9.0.0-alpha.10", "9.0.0-alpha.b", "9.0.0-beta", "9.0.0", "9.0.1", "9.1.0", "10.0.0"}
	for i, a := range ordered {
		for j, b := range ordered {
			x, err := parseVersion(a)
			y, err2 := parseVersion(b)
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			if c := x.compare(y); (c < 0) != (i < j) || (c > 0) != (i > j) {
				t.Errorf("%q to %q: %d", a, b, c)
			}
		}
	}
	if v, err := parseVersion("v9.0.0-alpha.1+abc.d"); err != nil || v.String() != "9.0.0-alpha.1+abc.d" {
		t.Fatal(v, err)
	}
	for _, bad := range []string{"9", "9.0", "9.0.0.0", "a.b.c", "9.-1.0", "vv9.0.0", "-"} {
		if v, err := parseVersion(bad); err == nil {
			t.Errorf("%q: %v", bad, v)
		}
	}
}
