package check

import (
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/kvrpcpb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	v1    = kvrpcpb.APIVersion_V1
	v1ttl = kvrpcpb.APIVersion_V1TTL
	v2    = kvrpcpb.APIVersion_V2
	v3    = kvrpcpb.APIVersion_V3
)

// The rules are those of TiKV src/storage/mod.rs, check_api_version.
func TestKeys(t *testing.T) {
	for _, c := range []struct {
		store, req kvrpcpb.APIVersion
		cmd        Command
		keys       string // separated by |
		want       string // the message's beginning; empty: accepted
	}{
		{v1, v1, "raw_get", "|a|rb|xc", ""},
		{v1, v1, "get", "a|rb", ""},
		{v1, v2, "raw_get", "ra", "Api version in request does not match with TiKV storage, cmd: raw_get, storage: V1, request: V2"},
		{v1, v1ttl, "raw_get", "a", "Api version in request"},
		{v1ttl, v1, "raw_put", "a|x", ""},
		{v1ttl, v1ttl, "raw_put", "a", "Api version in request does not match with TiKV storage, cmd: raw_put, storage: V1ttl, request: V1ttl"},
		{v1ttl, v1, "get", "a", "Api version in request"},
		{v2, v2, "raw_get", "ra|r", ""},
		{v2, v2, "raw_get", "ra|xb", "Key mode mismatched with the request mode, cmd: raw_get, storage: V2, key: 7862"},
		{v2, v2, "raw_get", "", "Key mode mismatched"},
		{v2, v2, "prewrite", "xa", ""},
		{v2, v2, "prewrite", "ta", "Key mode mismatched"},
		{v2, v1, "prewrite", "ta|ma", ""},
		{v2, v1, "prewrite", "xa", "Key mode mismatched"},
		{v2, v1, "raw_get", "ra", "Api version in request"},
		{v2, v3, "raw_get", "ra", "Api version in request"},
	} {
		var keys [][]byte
		for _, k := range strings.Split(c.keys, "|") {
			keys = append(keys, []byte(k))
		}
		err := Keys(c.store, &kvrpcpb.Context{ApiVersion: c.req}, c.cmd, keys...)
		if got := text(err); (c.want == "") != (got == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%v %v %s %q: %q", c.store, c.req, c.cmd, c.keys, got)
		}
	}
}

func TestRange(t *testing.T) {
	for _, c := range []struct {
		store, req kvrpcpb.APIVersion
		start, end string
		want       string
	}{
		{v1, v1, "", "", ""},
		{v1, v2, "", "", "Api version"},
		{v2, v2, "ra", "rb", ""},
		{v2, v2, "ra", "s", ""},
		{v2, v2, "ra", "sa", "Key mode mismatched"},
		{v2, v2, "ra", "", `Key mode mismatched with the request mode, cmd: raw_scan, storage: V2, range: (Some("7261"), None)`},
		{v2, v2, "", "", "Key mode mismatched"},
		{v2, v2, "xa", "xb", "Key mode mismatched"},
		{v2, v2, "s", "ra", "Key mode mismatched"},
	} {
		err := Range(c.store, &kvrpcpb.Context{ApiVersion: c.req}, "raw_scan", []byte(c.start), []byte(c.end))
		if got := text(err); (c.want == "") != (got == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%v %v %q %q: %q", c.store, c.req, c.start, c.end, got)
		}
	}
}

func TestDebugForms(t *testing.T) {
	for want, err := range map[string]*Error{
		"Error(KeyTooLarge { size: 8193, limit: 8192 })":                                               KeySize(8193),
		"Error(ApiVersionNotMatched { cmd: scan, storage_api_version: V1ttl, req_api_version: V1 })":   Keys(v1ttl, nil, "scan"),
		`Error(InvalidKeyMode { cmd: scan, storage_api_version: V2, key: "AB" })`:                      Keys(v2, nil, "scan", []byte{0xab}),
		`Error(InvalidKeyRangeMode { cmd: scan, storage_api_version: V2, range: (None, Some("0A")) })`: Range(v2, nil, "scan", nil, []byte{10}),
	} {
		if err == nil || err.Debug != want || err.KeyError().Abort != want {
			t.Errorf("%+v, want %s", err, want)
		}
	}
	if KeySize(MaxKeySize) != nil {
		t.Error("a key of the largest size is refused")
	}
	if err := KeySize(8193); err.Error() != "max key size exceeded, size: 8193, limit: 8192" {
		t.Error(err)
	}
}

func text(err *Error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
