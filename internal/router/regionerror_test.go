package router

import (
	"reflect"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/errorpb"
)

// Every part of TiKV's message for region errors has exactly one rule of its own.
func TestEveryRegionErrorHasARule(t *testing.T) {
	seen := make(map[Reason]string)
	typ := reflect.TypeFor[errorpb.Error]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Type.Kind() != reflect.Pointer || strings.HasPrefix(f.Name, "XXX") {
			continue
		}
		e := &errorpb.Error{}
		reflect.ValueOf(e).Elem().Field(i).Set(reflect.New(f.Type.Elem()))
		r := ruleOf(e)
		if r.reason == OtherRegionError || seen[r.reason] != "" {
			t.Errorf("%s has no rule of its own (%v, %s)", f.Name, r.reason, seen[r.reason])
		}
		seen[r.reason] = f.Name
		t.Log(r)
	}
	if len(seen) != len(rules)-1 {
		t.Errorf("%d rules for %d errors", len(rules)-1, len(seen))
	}
	if r := ruleOf(&errorpb.Error{Message: "words"}); r.reason != OtherRegionError || !r.mayRun {
		t.Error(r)
	}
	t.Log(rules[len(rules)-1])
}

func TestRulesAreWhole(t *testing.T) {
	for _, r := range rules {
		if (r.do == fail) != (r.wait.Name == "") {
			t.Errorf("%v: waits and gives up", r)
		}
		if r.mayRun && (r.do == relocate || r.do == replace) {
			t.Errorf("%v: an open outcome must be met at the same region first", r)
		}
	}
	for r := range lastReason {
		if r.String() == "" {
			t.Errorf("reason %d has no name", r)
		}
	}
}

func TestClassify(t *testing.T) {
	for text, want := range map[string]Class{
		"":      ClassOther,
		"hello": ClassOther,
		"ttl is not enabled, but get put request with ttl":                                               ClassUnsupported,
		"cf is deprecated in API V2, cf name: write":                                                     ClassUnsupported,
		"max key size exceeded, size: 9000, limit: 8192":                                                 ClassTooLarge,
		"Key mode mismatched with the request mode, cmd: raw_put, ...":                                   ClassUnsupported,
		"Api version in request does not match with TiKV storage, cmd: x":                                ClassUnsupported,
		`Error(InvalidKeyMode { cmd: get, storage_api_version: V2, key: "61" })`:                         ClassUnsupported,
		"Error(ApiVersionNotMatched { cmd: prewrite, storage_api_version: V1ttl, req_api_version: V1 })": ClassUnsupported,
		"Error(InvalidKeyRangeMode { cmd: scan, storage_api_version: V2, range: (None, None) })":         ClassUnsupported,
	} {
		if got := Classify(text); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}
