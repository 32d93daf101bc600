package tikv

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	for url, want := range map[string]target{
		"tikv://pd":                                {pd: []string{"pd:2379"}},
		"tikv://pd:1/":                             {pd: []string{"pd:1"}},
		"tikv://a:1,b,c:3/ks":                      {pd: []string{"a:1", "b:2379", "c:3"}, keyspace: "ks"},
		"tikv://[::1]:5,[fe80::2]/k%20s":           {pd: []string{"[::1]:5", "[fe80::2]:2379"}, keyspace: "k s"},
		"tikv://pd?api=v1ttl":                      {pd: []string{"pd:2379"}, api: "v1ttl"},
		"tikv://pd/?api=v2&ca=/a%2Fb&key=k&cert=c": {pd: []string{"pd:2379"}, api: "v2", ca: "/a/b", key: "k", cert: "c"},
	} {
		got, err := parseURL("OpenURL", url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if !slices.Equal(got.pd, want.pd) || got.keyspace != want.keyspace || got.api != want.api ||
			got.ca != want.ca || got.cert != want.cert || got.key != want.key {
			t.Errorf("%s: %+v", url, *got)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"":                       "must begin with tikv://",
		"http://pd":              "must begin with tikv://",
		"tikv:pd":                "must begin with tikv://",
		"tikv://":                "empty address",
		"tikv://a,,b":            "empty address",
		"tikv://:2379":           "empty address",
		"tikv://a:0":             "malformed address",
		"tikv://a:65536":         "malformed address",
		"tikv://a:b":             "malformed address",
		"tikv://a:":              "malformed address",
		"tikv://::1":             "malformed address",
		"tikv://me@a":            "no address has",
		"tikv://a b":             "no address has",
		"tikv://a/b/c":           "more than one keyspace",
		"tikv://a#x":             "fragment",
		"tikv://a?disableGC=1":   `unknown parameter "disableGC"`,
		"tikv://a?api=v3":        `unknown API version "v3"`,
		"tikv://a?api=v1&api=v2": "one value of parameter api",
		"tikv://a?ca=":           "one value of parameter ca",
		"tikv://a?cert=x":        "cert and key together",
		"tikv://a?%zz=1":         "malformed parameters",
		"tikv://a/%zz":           "malformed keyspace",
	} {
		_, err := parseURL("OpenURL", url)
		var arg *ArgumentError
		if !errors.Is(err, ErrInvalid) || !errors.As(err, &arg) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", url, err)
		}
	}
	_, err := parseURL("OpenURL", "tikv://,a:x/b/c?x=1&y=2#f")
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 6 {
		t.Errorf("not all is reported: %v", err)
	}
}

// What is accepted has usable members, and says the same when it is written anew.
func FuzzParseURL(f *testing.F) {
	for _, url := range []string{"tikv://a:1,b/ks?api=v2", "tikv://[::1]:5?ca=x", "tikv://", "tikv://a/%2f?cert=c&key=k", "tikv://a#"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		got, err := parseURL("OpenURL", url)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if len(got.pd) == 0 || strings.Contains(got.keyspace, "/") {
			t.Fatalf("%q: %+v", url, got)
		}
		for _, addr := range got.pd {
			if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
				t.Fatalf("%q has %q: %v", url, addr, err)
			}
		}
		again, err := parseURL("OpenURL", urlScheme+strings.Join(got.pd, ","))
		if err != nil || !slices.Equal(again.pd, got.pd) {
			t.Fatalf("%q: %q came back as %v: %v", url, got.pd, again, err)
		}
	})
}
