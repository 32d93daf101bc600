package copr

import "testing"

func TestRequirements(t *testing.T) {
	for _, c := range []struct {
		want     string
		yes, not []string
	}{
		{"", []string{"0.0.1", "9.9.9"}, []string{"1.0.0-rc.1"}},
		{"*", []string{"0.0.1", "9.9.9"}, nil},
		{"1.2.3", []string{"1.2.3", "1.9.0"}, []string{"1.2.2", "2.0.0", "1.3.0-a"}},
		{"^0.2.3", []string{"0.2.3", "0.2.9"}, []string{"0.3.0", "0.2.2"}},
		{"^0.0.3", []string{"0.0.3"}, []string{"0.0.4", "0.0.2"}},
		{"^0.0", []string{"0.0.3"}, []string{"0.1.0"}},
		{"^0", []string{"0.9.3"}, []string{"1.0.0"}},
		{"^1", []string{"1.0.0", "1.9.9"}, []string{"2.0.0"}},
		{"~1.2.3", []string{"1.2.3", "1.2.9"}, []string{"1.3.0"}},
		{"~1.2", []string{"1.2.0"}, []string{"1.3.0"}},
		{"~1", []string{"1.9.0"}, []string{"2.0.0"}},
		{"=1.2.3", []string{"1.2.3"}, []string{"1.2.4", "1.2.2"}},
		{"=1.2", []string{"1.2.9"}, []string{"1.3.0"}},
		{"1.*", []string{"1.9.9"}, []string{"2.0.0"}},
		{"1.2.x", []string{"1.2.9"}, []string{"1.3.0"}},
		{">1.2.3", []string{"1.2.4", "9.0.0"}, []string{"1.2.3"}},
		{">1.2", []string{"1.3.0"}, []string{"1.2.9"}},
		{">= 1.2.3", []string{"1.2.3"}, []string{"1.2.2"}},
		{"<1.2.3", []string{"1.2.2", "0.0.1"}, []string{"1.2.3"}},
		{"<=1.2.3", []string{"1.2.3"}, []string{"1.2.4"}},
		{"<=1.2", []string{"1.2.9"}, []string{"1.3.0"}},
		{">=1.0, <2.0.0", []string{"1.5.0"}, []string{"2.0.0", "0.9.0"}},
		{">=1.0.0-rc.2", []string{"1.0.0-rc.2", "1.0.0-rc.10", "1.0.0"}, []string{"1.0.0-rc.1", "1.0.0-alpha"}},
		{"=1.0.0-rc.1", []string{"1.0.0-rc.1"}, []string{"1.0.0", "1.0.0-rc.2"}},
	} {
		r, err := parseRequirement(c.want)
		if err != nil {
			t.Errorf("%q: %v", c.want, err)
			continue
		}
		for want, list := range map[bool][]string{true: c.yes, false: c.not} {
			for _, s := range list {
				v, ok := ParseVersion(s)
				if !ok || v.String() != s {
					t.Fatal(s)
				}
				if r.holds(v.v) != want {
					t.Errorf("%q and %s: %v", c.want, s, !want)
				}
			}
		}
	}
	for _, bad := range []string{"a", "1.2.3.4", ">", ">*", ",", "1,,2", "1.2-rc", "01.2", "=>1", "1.*.2"} {
		if r, err := parseRequirement(bad); err == nil {
			t.Errorf("%q: %v", bad, r)
		}
	}
	for _, bad := range []string{"", "1", "1.2", "1.x.0", "v1.2.3"} {
		if v, ok := ParseVersion(bad); ok {
			t.Errorf("%q: %v", bad, v)
		}
	}
}
